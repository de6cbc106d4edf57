"""Parquet files that Spark's tasks read and write by Arrow.

That is quicker than through Java, most of all for rows that come from numpy or go there.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema

from spark_app.platform import s3, storage
from spark_app.platform.session import is_on_one_machine
from spark_app.platform.spark_versions import from_arrow

BatchFunction = Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]

FILES = pa.schema([("path", pa.string()), ("bytes", pa.int64()), ("rows", pa.int64())])
"""What a task tells of a file that it has written."""

CODEC = "spark.sql.parquet.compression.codec"
CODECS = frozenset({"snappy", "gzip", "zstd"})
"""The ways to compress that Spark and Arrow call by the same name."""

READ_ROWS = 65_536
"""The number of rows that are read at a time: many more take longer, because memory for them has to be found anew."""

GROUP_ROWS, GROUP_BYTES = 1_000_000, 64 * 2**20
"""The size of a row group: as soon as it has so many rows, or they take so much memory."""


@dataclass(frozen=True)
class Mapped:
    """The rows that `function` makes of record batches of `source`, with the columns of `schema`.

    What the function gives is written as it is. A frame would send each row to Java and back to Python.
    `grouped_by` names a column: rows in which it is the same come from one task, and each task's rows are in its order.
    """

    source: DataFrame
    function: BatchFunction
    schema: pa.Schema
    grouped_by: str = ""

    @property
    def frame(self) -> DataFrame:
        """The same rows as a frame."""
        return self.source.mapInArrow(self.function, from_arrow_schema(self.schema))


Rows: TypeAlias = DataFrame | Mapped | pa.Table
"""What can be written."""


@dataclass(frozen=True)
class Files:
    """Columns of Parquet files on the disk of the only machine, which the tasks read by Arrow.

    `columns` gives each column its name in the files. `grouped_by` names a column, as in `Mapped`: rows in which it is
    the same are in one file.
    """

    paths: tuple[str, ...]
    columns: Mapping[str, str]
    grouped_by: str = ""

    @property
    def schema(self) -> pa.Schema:
        """The columns with their types."""
        stored = pq.read_schema(self.paths[0])
        return pa.schema([(name, stored.field(there).type) for name, there in self.columns.items()])

    def select(self, *names: str) -> Files:
        """The same files, with these columns."""
        return replace(self, columns={name: self.columns[name] for name in names})

    def batches(self, *paths: str, rows: int | None = None) -> Iterator[pa.RecordBatch]:
        """The rows of some of the files, or else of all of them, in their order, `rows` (READ_ROWS) at a time."""
        for path in paths or self.paths:
            with pq.ParquetFile(path) as file:
                stored = list(self.columns.values())
                for batch in file.iter_batches(rows or READ_ROWS, columns=stored, use_threads=False):
                    yield pa.RecordBatch.from_arrays([batch[name] for name in stored], names=list(self.columns))

    def frame(self, spark: SparkSession) -> DataFrame:
        """The same rows as a frame."""
        # With the schema at hand Spark need not read it from the files, which is a job.
        in_files = pa.schema(list(zip(self.columns.values(), self.schema.types, strict=True)))
        stored = spark.read.schema(from_arrow_schema(in_files)).parquet(*map(storage.spark_path, self.paths))
        return stored.select(*(F.col(there).alias(name) for name, there in self.columns.items()))


@dataclass(frozen=True)
class _OfFiles:
    """Applies a function to the rows of files, which are given by their numbers."""

    files: Files
    function: BatchFunction

    def __call__(self, numbers: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in numbers:
            for number in batch["id"].to_pylist():
                yield from self.function(self.files.batches(self.files.paths[number]))


def map_files(spark: SparkSession, files: Files, function: BatchFunction, schema: pa.Schema) -> Mapped:
    """Apply a function to the rows of each file: the rows of one file are one task's. `schema` is that of its result.

    If the files are grouped by a column, so is the result.
    """
    count = len(files.paths)
    return Mapped(spark.range(0, count, 1, count), _OfFiles(files, function), schema, files.grouped_by)


def can_read(spark: SparkSession, folder: str) -> bool:
    """Whether the tasks see the folder, on the disk of the only machine."""
    return not s3.is_s3(folder) and is_on_one_machine(spark)


def can_write(spark: SparkSession, folder: str) -> bool:
    """Whether the tasks see the folder, and Arrow can compress as Spark is set to."""
    return can_read(spark, folder) and spark.conf.get(CODEC) in CODECS


def session_of(rows: Rows) -> SparkSession:
    """The session that rows belong to; for those in memory the one that runs."""
    if isinstance(rows, pa.Table):
        return SparkSession.active()
    return (rows.source if isinstance(rows, Mapped) else rows).sparkSession


def frame_of(rows: Rows) -> DataFrame:
    """Rows as a frame."""
    if isinstance(rows, pa.Table):
        return from_arrow(session_of(rows), rows)
    return rows.frame if isinstance(rows, Mapped) else rows


def arrow_schema(rows: Rows) -> pa.Schema:
    """The columns of rows in Arrow. All, and the elements of arrays, may be null, as in all tables of Spark."""
    fields = to_arrow_schema(rows.schema) if isinstance(rows, DataFrame) else rows.schema
    return pa.schema([(field.name, _with_nulls(field.type)) for field in fields])


def _with_nulls(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind) and kind.tz:
        return pa.timestamp("us", "UTC")  # the one zone of Delta's times
    return pa.list_(pa.field("element", _with_nulls(kind.value_type))) if pa.types.is_list(kind) else kind


def write_files(rows: Rows, folder: str) -> list[dict[str, Any]]:
    """Write rows as Parquet files into a folder of this machine; returns FILES.

    Each task that has rows writes one file, and so do rows in memory, without a task. If one fails, the files of all
    are removed.
    """
    storage.make_folder(folder)
    name = f"part-{uuid.uuid4()}"
    writer = _Writer(storage.join(folder, name), arrow_schema(rows), session_of(rows).conf.get(CODEC) or "")
    try:
        if isinstance(rows, pa.Table):
            return [file for batch in writer(rows.to_batches()) for file in batch.to_pylist()]
        if isinstance(rows, Mapped):
            return _collected(rows.source, replace(writer, function=rows.function))
        return _collected(rows, writer)
    except BaseException:
        for file in Path(folder).glob(f"{name}-*"):
            file.unlink(missing_ok=True)
        raise


def _collected(source: DataFrame, writer: _Writer) -> list[dict[str, Any]]:
    return [row.asDict() for row in Mapped(source, writer, FILES).frame.collect()]


@dataclass(frozen=True)
class _Writer:
    """Writes the record batches of a task, changed by `function`, as one Parquet file, named `path` and more."""

    path: str
    schema: pa.Schema
    codec: str
    function: BatchFunction | None = None

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        path = f"{self.path}-{uuid.uuid4()}.{self.codec}.parquet"  # another one each time that a task is tried
        groups = _row_groups(self.function(batches) if self.function else batches)
        first, rows = next(groups, None), 0
        if first is None:
            return
        try:
            with pq.ParquetWriter(path, self.schema, compression=self.codec, store_schema=False) as file:
                for group in itertools.chain([first], groups):
                    file.write_table(group.cast(self.schema))
                    rows += len(group)
        except BaseException:
            storage.remove(path)
            raise
        facts = {"path": path, "bytes": Path(path).stat().st_size, "rows": rows}
        yield pa.RecordBatch.from_pylist([facts])


def _row_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The rows in tables as large as row groups should be. Smaller ones would take more space."""
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        held.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= GROUP_ROWS or size >= GROUP_BYTES:
            yield pa.Table.from_batches(held)
            held, rows, size = [], 0, 0
    if rows:
        yield pa.Table.from_batches(held)
