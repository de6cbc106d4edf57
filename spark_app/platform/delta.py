"""Delta tables: read without Spark, and read and written as frames of Spark.

On one machine the tasks write the files of a table by Arrow, and `deltalake` commits them; what Spark's own writer does
takes a second for a few rows, and several times as long for many. In S3 and on a cluster Spark's writer does it, as for
tables with features that only Spark knows. The rows are the same. Only Spark's log has ranges of columns.
"""

from __future__ import annotations

import functools
import json
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.transaction import AddAction, create_table_with_add_actions
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from spark_app.platform import s3, storage
from spark_app.platform.arrow_files import (
    Files,
    Mapped,
    Rows,
    arrow_schema,
    can_read,
    can_write,
    frame_of,
    session_of,
    write_files,
)

DEFAULT_PROPERTIES = "spark.databricks.delta.properties.defaults."
"""How settings begin that give properties to new tables."""

SPECIAL = frozenset("/:%")
"""Letters that no name has that Spark or this module gives to a file in the folder of its table."""

COMMIT = re.compile(r"[0-9]{20}\.json")
"""How a file of Delta's log is called that has a commit."""

GROUPED_BY = "groupedBy"
"""The key of a commit's facts that names the column by which the files of the table are grouped."""

READER_VERSION, WRITER_VERSION = 1, 2
"""The versions of Delta's protocol of a table without any feature."""


@s3.retried
def is_table(path: str) -> bool:
    """Whether there is a Delta table at a path; its rows are not read."""
    return bool(DeltaTable.is_deltatable(_uri(path), _options(path)))


def dataset(path: str) -> ds.Dataset | None:
    """The current version of a Delta table, to read without Spark; None where there is no table."""
    if not is_table(path):
        return None
    table = _opened(path)
    return table.to_pyarrow_dataset(filesystem=storage.arrow_folder(path) if s3.is_s3(path) else None)


def history(path: str) -> Iterator[dict[str, Any]]:
    """The commits of a Delta table, the latest first: version, timestamp (ms), operation, userMetadata and more.

    None where there is no table. Only the commits that are asked for are read: `deltalake` would read all, and finds
    none where the path has a `#` or a `?`.
    """
    log = storage.join(path, "_delta_log")
    files = storage.list_files(log) if storage.exists(log) else []
    commits = {storage.name_of(file): file for file in files if COMMIT.fullmatch(storage.name_of(file))}
    for name in sorted(commits, reverse=True):
        actions = map(json.loads, storage.read_text(commits[name]).splitlines())
        facts: dict[str, Any] = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
        yield {**facts, "version": int(name.removesuffix(".json"))}


def version(path: str) -> int:
    """The current version of a Delta table."""
    return int(_opened(path).version())


def frame(spark: SparkSession, path: str) -> DataFrame:
    """A Delta table at its current version as a frame; later writes do not change the frame."""
    opened = _at_hand(spark, path)
    if opened is None:
        return spark.read.format("delta").load(path)
    table, paths = opened
    schema = StructType.fromJson(json.loads(table.schema().to_json()))
    if not paths:
        return spark.createDataFrame([], schema)
    return spark.read.schema(schema).parquet(*map(storage.spark_path, paths))


def files(spark: SparkSession, path: str) -> Files | None:
    """The files of a Delta table at its current version; None where tasks cannot read them, and without any rows.

    They are grouped by the column that the rows were written by, unless anything else has changed the table since.
    """
    table, paths = _at_hand(spark, path) or (None, [])
    if table is None or not paths:
        return None
    commits = (
        commit
        for commit in history(path)
        if commit["version"] <= table.version() and not commit.get("operation", "").startswith("VACUUM")
    )
    grouped_by = next(commits, {}).get(GROUPED_BY, "")
    names = [field.name for field in table.schema().fields]
    return Files(tuple(paths), dict(zip(names, names, strict=True)), grouped_by if grouped_by in names else "")


def write(rows: Rows, path: str, note: str, *, append: bool = False) -> None:
    """Replace a Delta table by rows, or append them to it, in one commit with a note. A missing table is created."""
    if not _can_write(session_of(rows), path):
        _write_by_spark(frame_of(rows), path, note, append=append)
        return
    table, columns = _opened(path) if is_table(path) else None, Schema.from_arrow(arrow_schema(rows))
    if table is not None and not (_is_plain(table) and (not append or table.schema() == columns)):
        _write_by_spark(frame_of(rows), path, note, append=append)
        return
    added = [_added(file) for file in write_files(rows, path)]
    facts = {"userMetadata": note}
    if not append and isinstance(rows, Mapped) and rows.grouped_by:
        facts[GROUPED_BY] = rows.grouped_by
    properties = CommitProperties(custom_metadata=facts)
    if table is None:
        create_table_with_add_actions(_uri(path), columns, added, commit_properties=properties)
    else:
        table.create_write_transaction(
            list(added), "append" if append else "overwrite", columns, commit_properties=properties
        )


def _added(file: Mapping[str, Any]) -> AddAction:
    """The entry of a file (FILES) in Delta's log.

    It has the number of rows, and not the range of any column: where some columns have one and others have none,
    `deltalake` finds no row by the others. The files themselves tell of all ranges.
    """
    now, stats = int(time.time() * 1000), json.dumps({"numRecords": file["rows"]})
    return AddAction(storage.name_of(file["path"]), file["bytes"], {}, now, data_change=True, stats=stats)


def _write_by_spark(rows: DataFrame, path: str, note: str, *, append: bool) -> None:
    writer = rows.write.format("delta").option("userMetadata", note)
    writer = writer.mode("append") if append else writer.mode("overwrite").option("overwriteSchema", True)
    writer.save(path)


def _can_write(spark: SparkSession, path: str) -> bool:
    """Whether tasks write the files of a table by Arrow and `deltalake` commits them.

    It does where nothing is set for new tables that only Spark heeds, and the disk takes its commits.
    """
    properties = (key for key, _ in spark.sparkContext.getConf().getAll() if key.startswith(DEFAULT_PROPERTIES))
    return can_write(spark, path) and not any(properties) and _takes_links(str(PurePosixPath(path).parent))


@functools.cache
def _takes_links(folder: str) -> bool:
    """Whether files in a folder can have two names. `deltalake` commits that way; some mounts and exFAT cannot."""
    storage.make_folder(folder)
    with tempfile.TemporaryDirectory(prefix=".links-", dir=folder) as probe:
        file = Path(probe, "a")
        file.touch()
        try:
            file.with_name("b").hardlink_to(file)
        except OSError:
            return False
    return True


def _at_hand(spark: SparkSession, path: str) -> tuple[DeltaTable, list[str]] | None:
    """A table and its files, where tasks can read them, and they are all there is to it.

    None where the table is not plain, and where some files lie elsewhere than in its folder, as those of a clone do.
    """
    if not can_read(spark, path) or not _is_plain(table := _opened(path)):
        return None
    names: list[str] = pa.table(table.get_add_actions())["path"].to_pylist()
    if any(SPECIAL.intersection(name) for name in names):
        return None
    return table, [storage.join(path, name) for name in names]


def _is_plain(table: DeltaTable) -> bool:
    """Whether a table has no features, properties or partitions, which this module would have to heed."""
    protocol, facts = table.protocol(), table.metadata()
    is_basic = protocol.min_reader_version <= READER_VERSION and protocol.min_writer_version <= WRITER_VERSION
    return is_basic and not facts.configuration and not facts.partition_columns


@s3.retried
def _opened(path: str) -> DeltaTable:
    return DeltaTable(_uri(path), storage_options=_options(path))


def _uri(path: str) -> str:
    """The path as `deltalake` takes it: it cuts one that is not escaped at a `#` or a `?`."""
    return f"{s3.SCHEME}://{quote('/'.join(s3.split(path)))}" if s3.is_s3(path) else PurePosixPath(path).as_uri()


def _options(path: str) -> dict[str, str] | None:
    return s3.delta_options() if s3.is_s3(path) else None
