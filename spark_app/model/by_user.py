"""Bring users and their rows (such as their ratings) into the same task, for code that works in numpy.

Where the rows lie in files that are grouped by user, a task reads one of these, and what it needs of the users beside
it. Otherwise the rows are packed and shuffled: each task sorts its rows into one record batch per partition, and only
these few large values go through the shuffle. Shuffling the rows themselves would take as long as ranking them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import to_arrow_schema

from spark_app.model.matrices import found_among
from spark_app.platform.arrow_files import Files, Mapped, map_files
from spark_app.platform.pieces import as_bytes, cut, from_bytes, part_of, partition_keys

USERS = pa.schema([("userId", pa.int32()), ("features", pa.list_(pa.float32()))])

PACKED = pa.schema([("partition", pa.int32()), ("part", pa.int32()), ("rows", pa.binary())])
"""`part` says what the rows are: 0 users, 1 rows, then `more`."""


@dataclass(frozen=True)
class UserPartition:
    """Users (of the schema USERS) and all rows of these users, in any order; `more` are other rows of these users."""

    users: pa.Table
    rows: pa.Table
    more: tuple[pa.Table, ...] = ()


PartitionFunction = Callable[[UserPartition], Iterable[pa.RecordBatch]]


class ByUser(Protocol):
    """Users and rows in partitions: each user is in one, with all of their rows."""

    def map(self, function: PartitionFunction, schema: pa.Schema) -> DataFrame:
        """Apply a function to each partition; the record batches that it returns become a frame of the given schema."""


@dataclass(frozen=True)
class _Packed:
    """Packed users and rows, shuffled: each user is in one partition of `packed`.

    `schemas` are those of all parts before packing.
    """

    packed: DataFrame
    schemas: tuple[pa.Schema, ...]

    def map(self, function: PartitionFunction, schema: pa.Schema) -> DataFrame:
        schemas = self.schemas

        def mapped(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
            return function(_unpacked(batches, schemas))

        return Mapped(self.packed, mapped, schema).frame


@dataclass(frozen=True)
class _InFiles:
    """Rows in files that are grouped by user: a file is a partition. Users who have no rows are in none."""

    spark: SparkSession
    rows: Files
    others: tuple[Files, ...]

    def map(self, function: PartitionFunction, schema: pa.Schema) -> DataFrame:
        others, columns = self.others, self.rows.schema

        def mapped(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
            rows = pa.Table.from_batches(batches, columns)
            known = np.unique(rows["userId"].to_numpy())
            users, *more = (_of_users(known, files) for files in others)
            return function(UserPartition(users, rows, tuple(more)))

        return map_files(self.spark, self.rows, mapped, schema).frame


def _of_users(ids: NDArray[np.int32], files: Files) -> pa.Table:
    """The rows of some users (ascending ids) in files."""
    found = (batch.filter(pa.array(found_among(batch["userId"].to_numpy(), ids)[1])) for batch in files.batches())
    return pa.Table.from_batches(found, files.schema)


def together_by_user(
    spark: SparkSession, users: DataFrame | Files, rows: DataFrame | Files, *more: DataFrame | Files
) -> ByUser:
    """Bring users(userId, features array of float), rows(userId, ...) and `more`, rows of the same kind, together.

    Where all are files, and those of `rows` are grouped by user, a task reads one of these, and all of the others for
    what belongs to its users; users without rows are left out. Otherwise all is shuffled by user, once.
    """
    sources = (users, rows, *more)
    if isinstance(rows, Files) and rows.grouped_by == "userId":
        others = tuple(source for source in (users, *more) if isinstance(source, Files))
        if len(others) == len(sources) - 1:
            return _InFiles(spark, rows, others)
    keys = partition_keys(spark)
    frames = [source.frame(spark) if isinstance(source, Files) else source for source in sources]
    frames[0] = frames[0].select(*USERS.names)
    packed = (Mapped(frame, _Packer(keys, part), PACKED).frame for part, frame in enumerate(frames))
    schemas = (USERS, *(to_arrow_schema(frame.schema) for frame in frames[1:]))
    return _Packed(reduce(DataFrame.union, packed).repartition(len(keys), "partition"), schemas)


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
