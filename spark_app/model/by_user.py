"""Bring users and their rows (such as their ratings) into the same partition, for code that works in numpy.

The rows are packed before the shuffle: each task sorts its rows into one record batch per partition, and only these few
large values go through the shuffle. Shuffling the rows themselves would take as long as ranking them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

from spark_app.platform.pieces import as_bytes, cut, from_bytes, part_of, partition_keys

USERS = pa.schema([("userId", pa.int32()), ("features", pa.list_(pa.float32()))])

PACKED = "partition INT, part INT, rows BINARY"
"""`part` says what the rows are: 0 users, 1 rows, then `more`."""


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
    keys = partition_keys(spark)
    frames = (users.select(*USERS.names), rows, *more)
    packed = (frame.mapInArrow(_Packer(keys, part), PACKED) for part, frame in enumerate(frames))
    schemas = (USERS, *(to_arrow_schema(frame.schema) for frame in frames[1:]))
    return ByUser(reduce(DataFrame.union, packed).repartition(len(keys), "partition"), schemas)


def _unpacked(batches: Iterable[pa.RecordBatch], schemas: tuple[pa.Schema, ...]) -> UserPartition:
    tables = [[schema.empty_table()] for schema in schemas]
    for batch in batches:
        for part, rows in zip(batch["part"].to_pylist(), batch["rows"], strict=True):
            tables[part].append(from_bytes(rows.as_buffer()).cast(schemas[part]))
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
            order, slices = cut(part_of(batch["userId"].to_numpy(), partitions), partitions)
            used = [place for place, _ in slices]
            in_order = batch.take(pa.array(order))
            parts = [in_order[rows] for _, rows in slices]
            yield pa.RecordBatch.from_arrays(
                [
                    pa.array(self.keys[used], pa.int32()),
                    pa.array(np.full(len(used), self.part, dtype=np.int32)),
                    pa.array([as_bytes(part) for part in parts], pa.binary()),
                ],
                names=["partition", "part", "rows"],
            )
