"""CSV files: merged on the driver or sorted by Spark, they are the same, byte for byte."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_app.platform import delta
from spark_app.platform.arrow_files import Mapped
from spark_app.zones import csv_files
from spark_app.zones.csv_files import CsvFile
from spark_app.zones.processed import ProcessedZone

SIGNS = ("a", " ", ",", '"', "\n", "\r", "\t", "#", "\\", "é", "\x00", "'", "\u2028", "=", "\ufeff", "")
COLUMNS = pa.schema(
    [
        ("movieId", pa.int32()),
        ("userId", pa.int32()),
        ("rank", pa.int32()),
        ("score", pa.float64()),
        ("title", pa.string()),
        ("count", pa.int64()),
    ]
)


def rows_of(rng: np.random.Generator) -> pa.Table:
    """Lists of up to nine rows for each of 300 users, with all that a title may have."""
    titles = ["".join(signs) for signs in itertools.product(SIGNS, repeat=2)]
    sizes = rng.integers(1, 10, 300)
    users = np.repeat(rng.permutation(np.arange(-150, 150)), sizes)
    ranks = np.concatenate([np.arange(1, size + 1) for size in sizes])
    count = len(users)
    scores = np.round(rng.normal(size=count) * 10.0 ** rng.integers(-7, 8, count), 6)
    scores[:5] = 0.0, -0.0, 1e-6, -1e-6, 81491.0
    columns = [
        rng.integers(1, 99, count),
        users,
        ranks,
        pa.array(scores, mask=rng.random(count) < 0.1),
        pa.array(rng.choice(titles, count).tolist(), mask=rng.random(count) < 0.1),
        rng.integers(-(2**40), 2**40, count),
    ]
    return pa.table([pa.array(column).cast(kind) for column, kind in zip(columns, COLUMNS.types, strict=True)], COLUMNS)


def in_order(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    rows = pa.Table.from_batches(batches)
    yield from rows.sort_by([("userId", "ascending"), ("rank", "ascending")]).to_batches()


def csv_file(zone: ProcessedZone) -> CsvFile:
    columns = ("userId", "rank", "title", "score", "count")
    return CsvFile(zone.recommendations_csv, "recommendations", columns, ("userId", "rank"), {"score": 6})


@pytest.mark.parametrize("at_once", [1, 7, 100, 1_000_000])
def test_merged_files_are_what_spark_would_write(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(csv_files, "ROWS_AT_ONCE", at_once)
    zone, table = ProcessedZone(str(tmp_path)), rows_of(np.random.default_rng(at_once))
    frame = spark.createDataFrame(table)
    zone.overwrite(Mapped(frame.repartition(4, "userId"), in_order, COLUMNS), "recommendations")
    assert len(list(Path(zone.table("recommendations")).glob("*.parquet"))) == 4
    sorted_by_spark: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(ProcessedZone, "replace_csv", lambda _, __, path: sorted_by_spark.append(path))
        csv_files.write(spark, zone, csv_file(zone))
    assert not sorted_by_spark
    merged = Path(zone.recommendations_csv).read_bytes()

    with monkeypatch.context() as patch:
        patch.setattr(delta, "files", lambda *_: None)
        csv_files.write(spark, zone, csv_file(zone))
    assert merged == Path(zone.recommendations_csv).read_bytes()
    with Path(zone.recommendations_csv).open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    expected = table.sort_by([("userId", "ascending"), ("rank", "ascending")])
    assert header == ["userId", "rank", "title", "score", "count"]
    assert [line[2] for line in lines] == [title or "" for title in expected["title"].to_pylist()]
    scores = expected["score"].to_pylist()
    assert [line[3] for line in lines] == ["" if score is None else f"{score + 0.0:.6f}" for score in scores]


def test_files_that_are_not_in_order_are_sorted(spark: SparkSession, tmp_path: Path) -> None:
    zone, table = ProcessedZone(str(tmp_path)), rows_of(np.random.default_rng(1))
    shuffled = spark.createDataFrame(table).orderBy(F.rand(3))
    files = []
    for rows in (shuffled, shuffled.withColumn("userId", F.format_string("u%04d", F.col("userId") + 1000))):
        zone.overwrite(rows, "recommendations")
        csv_files.write(spark, zone, csv_file(zone))
        with Path(zone.recommendations_csv).open(encoding="utf-8", newline="") as file:
            files.append([tuple(line) for line in csv.reader(file)][1:])
    assert [(int(user), int(rank)) for user, rank, *_ in files[0]] == sorted(
        zip(table["userId"].to_pylist(), table["rank"].to_pylist(), strict=True)
    )
    assert [(str(int(user[1:]) - 1000), *rest) for user, *rest in files[1]] == files[0]


def test_extreme_ids_and_a_user_with_many_rows_are_in_order(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_files, "ROWS_AT_ONCE", 6)
    monkeypatch.setattr(csv_files, "MERGED_FILES", 3)
    zone = ProcessedZone(str(tmp_path))
    users = [-(2**31)] * 3 + [5] * 20 + [2**31 - 1]
    rows = rows_of(np.random.default_rng(1))[: len(users)]
    rows = rows.set_column(1, "userId", pa.array(users, pa.int32()))
    rows = rows.set_column(2, "rank", pa.array(range(len(users)), pa.int32()))
    expected = [[str(user), str(rank)] for rank, user in enumerate(users)]
    for files in (3, 4):  # merged, and sorted by Spark
        of_files = spark.createDataFrame(rows).repartition(files, "rank")
        zone.overwrite(Mapped(of_files, in_order, COLUMNS), "recommendations")
        assert len(list(Path(zone.table("recommendations")).glob("*.parquet"))) >= files
        csv_files.write(spark, zone, csv_file(zone))
        with Path(zone.recommendations_csv).open(encoding="utf-8", newline="") as file:
            assert [line[:2] for line in csv.reader(file)][1:] == expected


@pytest.mark.parametrize(
    ("ids", "is_in_order"),
    [
        ([(1, 1), (1, 2), (2, 1)], True),
        ([(1, 2), (1, 1)], False),
        ([(1, 1), (1, 1)], False),
        ([(2_000_000_000, 1), (-2_000_000_000, 2)], False),
        ([(-2_000_000_000, 2), (2_000_000_000, 1)], True),
        ([(1, 1), (2, 1), (3, 1), (2, 2)], False),
        ([], True),
    ],
)
def test_order_is_seen_across_batches(ids: list[tuple[int, int]], is_in_order: bool) -> None:
    batches = [pa.record_batch({"a": pa.array([a], pa.int32()), "b": pa.array([b], pa.int32())}) for a, b in ids]
    assert csv_files._is_in_order(iter(batches)) == is_in_order
    if batches:
        whole = pa.Table.from_batches(batches).combine_chunks().to_batches()
        assert csv_files._is_in_order(iter(whole)) == is_in_order


@pytest.mark.parametrize("rows", [0, 1])
def test_few_rows(spark: SparkSession, tmp_path: Path, rows: int) -> None:
    zone = ProcessedZone(str(tmp_path))
    zone.overwrite(rows_of(np.random.default_rng(1))[:rows], "recommendations")
    csv_files.write(spark, zone, csv_file(zone))
    assert len(Path(zone.recommendations_csv).read_bytes().splitlines()) >= 1 + rows
    assert Path(zone.recommendations_csv).read_bytes().startswith(b"userId,rank,title,score,count\n")
