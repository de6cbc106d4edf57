"""Users and what they have seen, brought together by user, for code that works on a partition in numpy.

The rows are packed before the shuffle: each task sorts its own into as many record batches as there are partitions, and
only those, a few large values, go through the shuffle. To shuffle the rows themselves takes as long as to rank them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

from spark_app.model.rating_blocks import cut

USERS = pa.schema([("userId", pa.int32()), ("features", pa.list_(pa.float32()))])

PACKED = "partition INT, is_user BOOLEAN, rows BINARY"

MULTIPLIER = 2_654_435_761
"""Of Fibonacci hashing: D. Knuth: The Art of Computer Programming, volume 3, section 6.4."""


@dataclass(frozen=True)
class UserPartition:
    """Some users (the schema USERS), and all rows of theirs, both in any order."""

    users: pa.Table
    rows: pa.Table


@dataclass(frozen=True)
class ByUser:
    """Users and their rows, packed: a partition of `packed` has users who are in no other, and all rows of theirs."""

    packed: DataFrame
    schema: pa.Schema

    def map(self, function: Callable[[UserPartition], Iterable[pa.RecordBatch]], schema: StructType | str) -> DataFrame:
        """The record batches that a function makes of each partition, as a frame of that schema."""
        rows_schema = self.schema

        def mapped(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
            return function(_unpacked(batches, rows_schema))

        return self.packed.mapInArrow(mapped, schema)


def together_by_user(users: DataFrame, rows: DataFrame) -> ByUser:
    """Both frames in one shuffle, by user.

    Takes users(userId, features array of float) and rows(userId, ...).
    """
    spark = users.sparkSession
    partitions = int(spark.conf.get("spark.sql.shuffle.partitions") or 1)
    keys = _partition_keys(spark, partitions)
    served = users.select(*USERS.names).mapInArrow(_Packer(keys, is_user=True), PACKED)
    theirs = rows.mapInArrow(_Packer(keys, is_user=False), PACKED)
    return ByUser(served.union(theirs).repartition(partitions, "partition"), to_arrow_schema(rows.schema))


def _unpacked(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> UserPartition:
    found: dict[bool, list[pa.Table]] = {True: [USERS.empty_table()], False: [schema.empty_table()]}
    for batch in batches:
        for is_user, rows in zip(batch["is_user"].to_pylist(), batch["rows"], strict=True):
            found[is_user].append(pa.ipc.open_stream(rows.as_buffer()).read_all().cast(found[is_user][0].schema))
    return UserPartition(pa.concat_tables(found[True]), pa.concat_tables(found[False]))


@dataclass(frozen=True)
class _Packer:
    """Turns record batches with a userId into packed rows, one for each partition that their users belong to."""

    keys: NDArray[np.int32]
    is_user: bool

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            partitions = len(self.keys)
            order, slices = cut(_places(batch["userId"].to_numpy(), partitions), partitions)
            used = [place for place, _ in slices]
            in_order = batch.take(pa.array(order))
            parts = [in_order[rows] for _, rows in slices]
            yield pa.RecordBatch.from_arrays(
                [
                    pa.array(self.keys[used], pa.int32()),
                    pa.array(np.full(len(used), self.is_user)),
                    pa.array([_as_bytes(part) for part in parts], pa.binary()),
                ],
                names=["partition", "is_user", "rows"],
            )


def _as_bytes(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def _places(user_ids: NDArray[np.int32], partitions: int) -> NDArray[np.uint16]:
    """Which partition each user belongs to."""
    hashed = (user_ids.astype(np.uint32) * np.uint64(MULTIPLIER) & np.uint64(0xFFFFFFFF)) >> np.uint64(16)
    return (hashed % np.uint64(partitions)).astype(np.uint16)


@functools.cache
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
