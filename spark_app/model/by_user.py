"""Users and what they have seen, brought together by user, for code that works on a partition in numpy.

The rows are packed before the shuffle: each task sorts its own into as many record batches as there are partitions, and
only those, a few large values, go through the shuffle. To shuffle the rows themselves takes as long as to rank them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

USERS = pa.schema([("userId", pa.int32()), ("features", pa.list_(pa.float32()))])
HISTORY = pa.schema([("userId", pa.int32()), ("movieId", pa.int32()), ("preference", pa.float32())])

PACKED = "partition INT, is_history BOOLEAN, rows BINARY"

MULTIPLIER = 2_654_435_761
"""Of Fibonacci hashing: D. Knuth: The Art of Computer Programming, volume 3, section 6.4."""


@dataclass(frozen=True)
class UserPartition:
    """Some users, and all that they have seen: tables of the schemas USERS and HISTORY, in any order."""

    users: pa.Table
    history: pa.Table


def together_by_user(users: DataFrame, history: DataFrame) -> DataFrame:
    """Both frames in one shuffle: each partition has packed rows, of users who are in no other.

    Takes users(userId, features array of float) and history(userId, movieId, preference float).
    `unpacked` makes a UserPartition of what a task gets.
    """
    spark = users.sparkSession
    partitions = int(spark.conf.get("spark.sql.shuffle.partitions") or 1)
    keys = _partition_keys(spark, partitions)
    served = users.select(*USERS.names).mapInArrow(_Packer(keys, is_history=False), PACKED)
    seen = history.select(*HISTORY.names).mapInArrow(_Packer(keys, is_history=True), PACKED)
    return served.union(seen).repartition(partitions, "partition")


def unpacked(batches: Iterable[pa.RecordBatch]) -> UserPartition:
    """What `together_by_user` has brought into one partition."""
    found: dict[bool, list[pa.RecordBatch]] = {False: [], True: []}
    for batch in batches:
        for is_history, rows in zip(batch["is_history"].to_pylist(), batch["rows"], strict=True):
            schema = HISTORY if is_history else USERS
            found[is_history].append(pa.ipc.read_record_batch(rows.as_buffer(), schema))
    return UserPartition(pa.Table.from_batches(found[False], USERS), pa.Table.from_batches(found[True], HISTORY))


@dataclass(frozen=True)
class _Packer:
    """Turns record batches with a userId into packed rows, one for each partition that their users belong to."""

    keys: NDArray[np.int32]
    is_history: bool

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            places = _places(batch["userId"].to_numpy(), len(self.keys))
            order = np.argsort(places, kind="stable")
            ends = np.searchsorted(places[order], np.arange(len(self.keys) + 1))
            used = np.flatnonzero(np.diff(ends))
            in_order = batch.take(pa.array(order))
            parts = [in_order.slice(ends[place], ends[place + 1] - ends[place]).serialize() for place in used]
            yield pa.RecordBatch.from_arrays(
                [
                    pa.array(self.keys[used], pa.int32()),
                    pa.array(np.full(len(used), self.is_history)),
                    pa.array([part.to_pybytes() for part in parts], pa.binary()),
                ],
                names=["partition", "is_history", "rows"],
            )


def _places(user_ids: NDArray[np.int32], partitions: int) -> NDArray[np.uint16]:
    """Which partition each user belongs to. Small integers, since numpy sorts those by counting."""
    hashed = (user_ids.astype(np.uint32) * np.uint64(MULTIPLIER) & np.uint64(0xFFFFFFFF)) >> np.uint64(16)
    return (hashed % np.uint64(partitions)).astype(np.uint16)


def _partition_keys(spark: SparkSession, partitions: int) -> NDArray[np.int32]:
    """A number for each partition that Spark's hash puts there, so that none gets two shares and another none."""
    tried = 16 * partitions
    while True:
        numbers = spark.range(tried).select(F.col("id").cast("int").alias("key"))
        by_place = numbers.groupBy(F.pmod(F.hash("key"), F.lit(partitions)).alias("place")).agg(F.min("key"))
        rows = by_place.orderBy("place").collect()
        if len(rows) == partitions:
            return np.array([key for _, key in rows], dtype=np.int32)
        tried *= 2
