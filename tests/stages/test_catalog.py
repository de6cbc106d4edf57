"""What `catalog` registers is read by Spark SQL as `etl` reads it, or is not registered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from spark_app.platform.log import logger
from spark_app.platform.metastore import register_table
from spark_app.stages import catalog
from spark_app.stages.catalog import register_raw
from spark_app.zones.processed import ProcessedZone
from tests.platform.test_packed import zipped
from tests.zones.test_dialects import FOUR, MOVIES, RATINGS, tables

NO_HEADER = ["ratings_file.header=false", f"ratings_file.columns={FOUR}"]
RATED = [(1, 2, 3.5), (2, 1, 4.0)]


def query(spark: SparkSession, root: Path, name: str, columns: str, files: dict[str, bytes], *sets: str) -> list[Any]:
    movies, ratings, _ = tables(root, files, *sets)
    table = movies if name == "movies_csv" else ratings
    assert table
    assert register_raw(spark, table) == f"movie_reco_raw_db.{name}"
    found = spark.table(f"movie_reco_raw_db.{name}").select(*columns.split(", "))
    return sorted(tuple(row) for row in found.collect())


@pytest.mark.parametrize(
    ("file", "assignments"),
    [
        (RATINGS, []),
        ("1\t2\t3.5\t1000000001\n2\t1\t4\t1000000002\n", [r'ratings_file.delimiter="\t"', *NO_HEADER]),
        ("1::2::3.5::1000000001\n2::1::4::1000000002\n",
         ["ratings_file.delimiter=::", "ratings_file.quote=", *NO_HEADER]),
        ("1,2,3.5,1000000001,x,y\n2,1,4.0,1000000002,,\n", NO_HEADER),
        ("note,userId,movieId,Rating,rating,timestamp,note,\na,1,2,x,3.5,1000000001,b,\n,2,1,,4.0,1000000002,,\n", []),
        ("userId, movieId, rating, timestamp\n1, 2, 3.5, 1000000001\n2, 1, 4, 1000000002\n",
         ["ratings_file.skip_blanks=true"]),
    ],
)  # fmt: skip
def test_ratings(spark: SparkSession, tmp_path: Path, file: str, assignments: list[str]) -> None:
    columns = "userId, movieId, rating"
    assert query(spark, tmp_path, "ratings_csv", columns, {"ratings.csv": file.encode()}, *assignments) == RATED


@pytest.mark.parametrize(
    ("content", "title", "assignments"),
    [
        (MOVIES.encode("utf-16"), "Heat (1995)", []),
        (MOVIES.replace("Heat", "Caf\u00e9").encode("latin-1"), "Caf\u00e9 (1995)", ["movies_file.encoding=latin-1"]),
        (MOVIES.replace("Heat (1995)", '"Heat\r\n(1995)"').encode(), "Heat\r\n(1995)", []),
        (MOVIES.replace("Heat", '"Heat').encode(), '"Heat (1995)', ["movies_file.quote="]),
        (
            MOVIES.replace("Heat (1995)", r'"\"Heat\", The"').encode(),
            '"Heat", The',
            ["movies_file.escape=backslash"],
        ),
    ],
)
def test_movies(spark: SparkSession, tmp_path: Path, content: bytes, title: str, assignments: list[str]) -> None:
    found = query(spark, tmp_path, "movies_csv", "movieId, title", {"movies.csv": content}, *assignments)
    assert found == [(1, title), (2, "Alien (1979)")]


def test_decimal_commas_stay_text(spark: SparkSession, tmp_path: Path) -> None:
    file = RATINGS.replace(",", ";").replace(".", ",").encode()
    sets = ["input.delimiter=;", "ratings_file.decimal=,", 'movies_file.delimiter=","']
    found = query(spark, tmp_path, "ratings_csv", "userId, rating", {"ratings.csv": file}, *sets)
    assert found == [(1, "3,5"), (2, "4,0")]


@pytest.mark.parametrize(
    ("name", "content", "assignments", "reason"),
    [
        ("ratings.csv.zip", zipped({"r.csv": RATINGS.encode()}), [], "packed as zip, and called ratings.csv.zip"),
        ("ratings.csv", RATINGS.encode(), ["ratings_file.encoding=cp1252"], "its encoding is cp1252"),
        ("ratings.csv", RATINGS.encode("utf-16-le"), ["ratings_file.encoding=utf-16-le"], "its encoding is utf-16-le"),
        (
            "ratings.csv",
            b"1:\n1,4,1000000001\n",
            ["ratings_file.layout=netflix"],
            "its layout is that of netflix",
        ),
    ],
)
def test_what_spark_sql_would_read_otherwise_is_not_registered(
    spark: SparkSession,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    content: bytes,
    assignments: list[str],
    reason: str,
) -> None:
    query(spark, tmp_path / "before", "ratings_csv", "userId", {"ratings.csv": RATINGS.encode()})
    _, table, _ = tables(tmp_path, {name: content}, *assignments)
    logger.addHandler(caplog.handler)
    try:
        assert register_raw(spark, table) == ""
    finally:
        logger.removeHandler(caplog.handler)
    assert not spark.catalog.tableExists("movie_reco_raw_db.ratings_csv")
    assert f"({reason})" in caplog.text


def test_the_entry_of_a_delta_table_stays_while_the_table_does(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[str] = []

    def register_and_note(spark: SparkSession, table: str, provider: str, location: str) -> str:
        entered.append(location)
        return register_table(spark, table, provider, location)

    monkeypatch.setattr(catalog, "register_table", register_and_note)
    here, there = (ProcessedZone(str(tmp_path / name)) for name in ("a 50% zone", "elsewhere"))
    for zone, rows in ((here, 2), (here, 3), (there, 4), (here, 5)):
        zone.overwrite(spark.range(rows).withColumnRenamed("id", f"column{rows}"), "movies")
        assert catalog.register_processed(spark, zone) == ["movie_reco_db.movies"]
        assert spark.table("movie_reco_db.movies").columns == [f"column{rows}"]
        assert spark.table("movie_reco_db.movies").count() == rows
    assert entered == [here.table("movies"), there.table("movies"), here.table("movies")]
