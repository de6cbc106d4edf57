"""Bring users and their rows (such as their ratings) into the same partition, for code that works in numpy.

The rows are packed before the shuffle: each task sorts its rows into one record batch per partition, and only these few
large values go through the shuffle. Shuffling the rows themselves would take as long as ranking them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

from spark_app.model.rating_blocks import cut

USERS = pa.schema([("userId", pa.int32()), ("features", pa.list_(pa.float32()))])

PACKED = "partition INT, part INT, rows BINARY"
"""`part` says what the rows are: 0 users, 1 rows, then `more`."""

MULTIPLIER = 2_654_435_761
"""The factor of Fibonacci hashing: D. Knuth: The Art of Computer Programming, volume 3, section 6.4."""


@dataclass(frozen=True)
class UserPartition:
    """Users (of the schema USERS) and all rows of these users, in any order; `more` are other rows of these users."""

    users: pa.Table
    rows: pa.Table
    more: tuple[pa.Table, ...] = ()


@dataclass(frozen=True)
class ByUser:
    """Packed users and rows: each user is in one partition of `packed`, with all of their rows.

    `schemas` are those of all parts before packing.
    """

    packed: DataFrame
    schemas: tuple[pa.Schema, ...]

    def map(self, function: Callable[[UserPartition], Iterable[pa.RecordBatch]], schema: StructType | str) -> DataFrame:
        """Apply a function to each partition; the record batches that it returns become a frame of the given schema."""
        schemas = self.schemas

        def mapped(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
            return function(_unpacked(batches, schemas))

        return self.packed.mapInArrow(mapped, schema)


def together_by_user(users: DataFrame, rows: DataFrame, *more: DataFrame) -> ByUser:
    """Bring users(userId, features array of float) and rows(userId, ...) together by user, in one shuffle.

    `more` are further frames of (userId, ...).
    """
    spark = users.sparkSession
    partitions = int(spark.conf.get("spark.sql.shuffle.partitions") or 1)
    keys = _partition_keys(spark, partitions)
    frames = (users.select(*USERS.names), rows, *more)
    packed = (frame.mapInArrow(_Packer(keys, part), PACKED) for part, frame in enumerate(frames))
    schemas = (USERS, *(to_arrow_schema(frame.schema) for frame in frames[1:]))
    return ByUser(reduce(DataFrame.union, packed).repartition(partitions, "partition"), schemas)


def _unpacked(batches: Iterable[pa.RecordBatch], schemas: tuple[pa.Schema, ...]) -> UserPartition:
    tables = [[schema.empty_table()] for schema in schemas]
    for batch in batches:
        for part, rows in zip(batch["part"].to_pylist(), batch["rows"], strict=True):
            tables[part].append(pa.ipc.open_stream(rows.as_buffer()).read_all().cast(schemas[part]))
    users, rows, *more = (pa.concat_tables(part) for part in tables)
    return UserPartition(users, rows, tuple(more))


@dataclass(frozen=True)
class _Packer:
    """Turns record batches with a userId into packed rows, one for each partition that their users belong to."""

    keys: NDArray[np.int32]
    part: int

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
                    pa.array(np.full(len(used), self.part, dtype=np.int32)),
                    pa.array([_as_bytes(part) for part in parts], pa.binary()),
                ],
                names=["partition", "part", "rows"],
            )


def _as_bytes(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def _places(user_ids: NDArray[np.int32], partitions: int) -> NDArray[np.uint16]:
    """The partition of each user."""
    hashed = (user_ids.astype(np.uint32) * np.uint64(MULTIPLIER) & np.uint64(0xFFFFFFFF)) >> np.uint64(16)
    return (hashed % np.uint64(partitions)).astype(np.uint16)


@functools.cache
def _partition_keys(spark: SparkSession, partitions: int) -> NDArray[np.int32]:
    """For each partition, a number that Spark's hash assigns to it.

    With the partition numbers themselves as keys, some partitions would get the rows of two and others would be empty.
    """
    tried = 16 * partitions
    while True:
        numbers = spark.range(tried).select(F.col("id").cast("int").alias("key"))
        by_place = numbers.groupBy(F.pmod(F.hash("key"), F.lit(partitions)).alias("place")).agg(F.min("key"))
        rows = by_place.orderBy("place").collect()
        if len(rows) == partitions:
            return np.array([key for _, key in rows], dtype=np.int32)
        tried *= 2
