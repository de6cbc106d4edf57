"""Delta tables that tasks write by Arrow: the same for every reader as those that Spark's own writer makes."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest
from delta.tables import DeltaTable as SparkTable
from deltalake import DeltaTable
from pyspark.errors import PythonException
from pyspark.sql import DataFrame, SparkSession

from spark_app.platform import delta
from spark_app.platform.arrow_files import Files, Mapped, map_files
from spark_app.platform.spark_versions import to_arrow
from spark_app.zones.processed import ProcessedZone

COLUMNS = (
    "id INT NOT NULL, n BIGINT, year SMALLINT, score DOUBLE, title STRING, at TIMESTAMP, raw BINARY, "
    "genres ARRAY<STRING>"
)
ROWS: list[tuple[Any, ...]] = [
    (2, 7, 1999, 0.1, "Ünï, “quoted”\n", datetime(2001, 2, 3, 4, 5, 6, 789, UTC), b"\xff\x00", ["a", "b"]),
    (1, None, None, None, None, None, None, None),
    (3, -1, -5, float("inf"), "", datetime(1901, 1, 1, tzinfo=UTC), b"", [None, ""]),
]

IDS = pa.schema([("id", pa.int64())])


@pytest.fixture
def rows(spark: SparkSession) -> DataFrame:
    return spark.createDataFrame(ROWS, COLUMNS)


def by_spark(spark: SparkSession, path: Path) -> DataFrame:
    return spark.read.format("delta").load(str(path))


def commits(path: Path) -> list[dict[str, Any]]:
    return list(delta.history(str(path)))


def is_by_spark(commit: dict[str, Any]) -> bool:
    return "Spark" in commit["engineInfo"]


@pytest.mark.parametrize("name", ["plain", "with blank", "#1 [a-b]{c}*?", "50% off", "Ünïcode"])
def test_a_table_is_the_one_that_spark_would_write(
    spark: SparkSession, rows: DataFrame, tmp_path: Path, name: str
) -> None:
    ours, sparks = tmp_path / name, tmp_path / "spark"
    delta.write(rows, str(ours), '{"run_id": "r"}')
    rows.write.format("delta").save(str(sparks))

    assert not is_by_spark(commits(ours)[0])
    assert is_by_spark(commits(sparks)[0])
    assert commits(ours)[0]["userMetadata"] == '{"run_id": "r"}'
    assert DeltaTable(ours).schema() == DeltaTable(sparks).schema()
    assert DeltaTable(ours).protocol() == DeltaTable(sparks).protocol()
    read = [delta.frame(spark, str(ours)), by_spark(spark, sparks)]
    assert read[0].schema == read[1].schema
    assert sorted(read[0].collect()) == sorted(read[1].collect())
    dataset, theirs = delta.dataset(str(ours)), delta.dataset(str(sparks))
    assert dataset is not None
    assert theirs is not None
    assert dataset.to_table().sort_by("id") == theirs.to_table().sort_by("id")


def test_spark_reads_and_changes_it(spark: SparkSession, rows: DataFrame, tmp_path: Path) -> None:
    delta.write(rows, str(tmp_path), "{}")
    assert sorted(by_spark(spark, tmp_path).collect()) == sorted(delta.frame(spark, str(tmp_path)).collect())
    table = SparkTable.forPath(spark, str(tmp_path))
    table.delete("id = 2")
    table.update("id = 1", {"n": "5"})
    assert sorted(delta.frame(spark, str(tmp_path)).select("id", "n").collect()) == [(1, 5), (3, -1)]
    delta.write(rows.limit(1), str(tmp_path), "{}", append=True)
    assert by_spark(spark, tmp_path).count() == delta.frame(spark, str(tmp_path)).count() == 3
    assert delta.version(str(tmp_path)) == 3


def test_a_table_is_replaced_with_other_columns_and_a_frame_keeps_its_version(
    spark: SparkSession, rows: DataFrame, tmp_path: Path
) -> None:
    delta.write(rows, str(tmp_path), "{}")
    before = delta.frame(spark, str(tmp_path))
    delta.write(spark.createDataFrame([("x",)], "id STRING"), str(tmp_path), "{}")
    assert delta.frame(spark, str(tmp_path)).collect() == by_spark(spark, tmp_path).collect() == [("x",)]
    assert before.count() == len(ROWS)
    assert [commit["operationParameters"]["mode"] for commit in commits(tmp_path)] == ["Overwrite", "ErrorIfExists"]


def test_a_table_without_rows_keeps_its_columns(spark: SparkSession, rows: DataFrame, tmp_path: Path) -> None:
    delta.write(rows.filter("id > 9"), str(tmp_path), "{}")
    assert delta.frame(spark, str(tmp_path)).schema == by_spark(spark, tmp_path).schema
    assert delta.frame(spark, str(tmp_path)).count() == by_spark(spark, tmp_path).count() == 0
    delta.write(rows, str(tmp_path), "{}")
    delta.write(rows.limit(0), str(tmp_path), "{}")
    assert delta.frame(spark, str(tmp_path)).count() == by_spark(spark, tmp_path).count() == 0


def test_many_commits_of_both_writers(spark: SparkSession, tmp_path: Path) -> None:
    for number in range(25):
        one = spark.createDataFrame([(number,)], "id INT")
        if number % 4 == 3:
            one.write.format("delta").mode("append").save(str(tmp_path))
        else:
            delta.write(one, str(tmp_path), "{}", append=True)
    expected = [(number,) for number in range(25)]
    assert sorted(delta.frame(spark, str(tmp_path)).collect()) == expected
    assert sorted(by_spark(spark, tmp_path).collect()) == expected
    assert [commit["version"] for commit in commits(tmp_path)] == list(range(24, -1, -1))


def test_rows_are_found_by_any_column(spark: SparkSession, rows: DataFrame, tmp_path: Path) -> None:
    delta.write(rows.repartition(3), str(tmp_path), "{}")
    dataset = delta.dataset(str(tmp_path))
    assert dataset is not None
    for column in ("id", "n", "year", "score", "title", "at", "raw"):
        for row in to_arrow(rows.filter(f"{column} IS NOT NULL")).to_pylist():
            found = dataset.to_table(filter=ds.field(column) == row[column]).to_pylist()
            assert row["id"] in {one["id"] for one in found}, column
    entries = [json.loads(line) for line in (tmp_path / "_delta_log" / f"{0:020}.json").open() if '"add"' in line]
    assert sum(json.loads(entry["add"]["stats"])["numRecords"] for entry in entries) == 3


@pytest.mark.parametrize(
    "properties", ["enableDeletionVectors = true", "enableChangeDataFeed = true", "appendOnly = false"]
)
def test_spark_writes_and_reads_a_table_with_properties(spark: SparkSession, tmp_path: Path, properties: str) -> None:
    spark.sql(f"CREATE TABLE delta.`{tmp_path}` (id BIGINT) USING delta TBLPROPERTIES (delta.{properties})")
    for append in (False, True):
        delta.write(spark.range(4), str(tmp_path), "{}", append=append)
        assert is_by_spark(commits(tmp_path)[0])
    SparkTable.forPath(spark, str(tmp_path)).delete("id = 1")
    assert delta.frame(spark, str(tmp_path)).filter("id = 1").count() == 0
    assert delta.frame(spark, str(tmp_path)).count() == 6


def test_spark_writes_where_files_cannot_have_two_names(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, f"{self} cannot be linked to {target}")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    delta.write(spark.range(4), str(tmp_path / "here" / "table"), "{}")
    assert is_by_spark(commits(tmp_path / "here" / "table")[0])
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["table"]


def test_files_of_both_writers_are_searched(spark: SparkSession, rows: DataFrame, tmp_path: Path) -> None:
    delta.write(rows.filter("id = 2"), str(tmp_path), "{}")
    rows.filter("id <> 2").write.format("delta").mode("append").save(str(tmp_path))
    dataset = delta.dataset(str(tmp_path))
    assert dataset is not None
    for column in ("id", "n", "year", "title", "at"):
        for row in to_arrow(rows.filter(f"{column} IS NOT NULL")).to_pylist():
            assert dataset.to_table(filter=ds.field(column) == row[column])["id"].to_pylist() == [row["id"]], column


def test_spark_appends_to_other_columns(spark: SparkSession, tmp_path: Path) -> None:
    delta.write(spark.range(4), str(tmp_path), "{}")
    with pytest.raises(Exception, match="FAILED_TO_MERGE_FIELDS"):
        delta.write(spark.createDataFrame([("x",)], "id STRING"), str(tmp_path), "{}", append=True)
    assert delta.version(str(tmp_path)) == 0


def _doubled(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield pa.RecordBatch.from_pydict({"id": pa.compute.multiply(batch["id"], 2)})


def _failing(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch
        if 9 in batch["id"].to_pylist():
            raise ArithmeticError("in a task")


def test_batches_of_a_function_are_written_as_they_are(spark: SparkSession, tmp_path: Path) -> None:
    doubled = Mapped(spark.range(0, 1000, 1, 3), _doubled, IDS)
    delta.write(doubled, str(tmp_path), "{}")
    ids = [row.id for row in delta.frame(spark, str(tmp_path)).collect()]
    assert sorted(ids) == [row.id for row in doubled.frame.collect()] == list(range(0, 2000, 2))
    assert len(list(tmp_path.glob("*.parquet"))) == 3


@pytest.mark.parametrize("tasks", [1, 5])
def test_a_failed_task_leaves_no_file_and_no_commit(spark: SparkSession, tmp_path: Path, tasks: int) -> None:
    delta.write(spark.range(4), str(tmp_path), "{}")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(PythonException, match="in a task"):
        delta.write(Mapped(spark.range(0, 10, 1, tasks), _failing, IDS), str(tmp_path), "{}")
    assert sorted(tmp_path.iterdir()) == before
    assert delta.version(str(tmp_path)) == 0


def _in_order(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The rows of a task in the order of `user`."""
    yield from pa.Table.from_batches(batches).sort_by("user").to_batches()


def grouped(spark: SparkSession) -> Mapped:
    """Rows of 20 users, those of each in one task."""
    rows = spark.range(100).selectExpr("CAST(id % 20 AS INT) AS user", "CAST(id AS DOUBLE) AS n")
    schema = pa.schema([("user", pa.int32()), ("n", pa.float64())])
    return Mapped(rows.repartition(4, "user"), _in_order, schema, grouped_by="user")


def files_of(spark: SparkSession, path: str) -> Files:
    found = delta.files(spark, path)
    assert found is not None
    return found


def test_files_are_grouped_as_the_rows_that_were_written(spark: SparkSession, tmp_path: Path) -> None:
    delta.write(grouped(spark), str(tmp_path), "{}")
    files = files_of(spark, str(tmp_path))
    assert files.grouped_by == "user"
    assert len(files.paths) > 1
    of_files = [pa.Table.from_batches(files.batches(path), files.schema)["user"].to_pylist() for path in files.paths]
    assert all(users == sorted(users) for users in of_files)
    assert sum(len(set(users)) for users in of_files) == 20
    rows = pa.Table.from_batches(files.batches())
    assert (
        rows.sort_by("n")
        == to_arrow(delta.frame(spark, str(tmp_path)).orderBy("n"))
        == to_arrow(by_spark(spark, tmp_path).orderBy("n"))
    )


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM {} WHERE n = 7",
        "UPDATE {} SET user = 3 WHERE n = 7",
        "INSERT INTO {} VALUES (3, 7.0)",
        "OPTIMIZE {}",
        "INSERT INTO {} VALUES (3, 7.0); RESTORE TABLE {} TO VERSION AS OF 0",
        "ALTER TABLE {} SET TBLPROPERTIES (delta.appendOnly = false)",
        "MERGE INTO {} old USING (SELECT 3 AS user, -1.0D AS n) new ON old.n = new.n WHEN NOT MATCHED THEN INSERT *",
    ],
)
def test_files_are_no_longer_grouped_once_another_writer_has_been_there(
    spark: SparkSession, tmp_path: Path, change: str
) -> None:
    delta.write(grouped(spark), str(tmp_path), "{}")
    for statement in change.split(";"):
        spark.sql(statement.format(f"delta.`{tmp_path}`"))
    found = delta.files(spark, str(tmp_path))
    assert (found is None) if "TBLPROPERTIES" in change else (found and not found.grouped_by)
    if found:
        delta.write(grouped(spark), str(tmp_path), "{}", append=True)
        assert not files_of(spark, str(tmp_path)).grouped_by


def test_upkeep_leaves_grouped_files_and_merges_others(spark: SparkSession, tmp_path: Path) -> None:
    zone = ProcessedZone(str(tmp_path))
    for _ in range(2):
        zone.overwrite(grouped(spark), "movies")
        zone.append(grouped(spark).frame, "rejects")
    before = files_of(spark, zone.table("movies"))
    for table in ("movies", "rejects"):
        zone.compact(spark, table, 0)
        assert commits(Path(zone.table(table)))[0]["operation"] == "VACUUM END"
    after = files_of(spark, zone.table("movies"))
    assert after.grouped_by == "user"
    assert sorted(after.paths) == sorted(before.paths) == sorted(map(str, Path(zone.table("movies")).glob("*.parquet")))
    assert len(list(Path(zone.table("rejects")).glob("*.parquet"))) == 1


def test_rows_in_any_order_are_not_grouped(spark: SparkSession, tmp_path: Path) -> None:
    delta.write(grouped(spark).frame, str(tmp_path), "{}")
    assert not files_of(spark, str(tmp_path)).grouped_by


def test_columns_of_files_are_chosen_and_renamed(spark: SparkSession, tmp_path: Path) -> None:
    delta.write(grouped(spark), str(tmp_path), "{}")
    files = files_of(spark, str(tmp_path))
    renamed = replace(files, columns={"value": "n", "who": "user"})
    frame = renamed.frame(spark)
    assert frame.columns == renamed.schema.names == ["value", "who"]
    of_tasks = map_files(spark, renamed.select("value"), _doubled_values, pa.schema([("value", pa.float64())]))
    assert of_tasks.grouped_by == "user"
    found = sorted(row.value for row in of_tasks.frame.collect())
    assert found == sorted(2 * row.value for row in frame.collect()) == [2.0 * n for n in range(100)]


def _doubled_values(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield pa.record_batch({"value": pc.multiply(batch["value"], 2.0)})
