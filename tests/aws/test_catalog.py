"""The stage `catalog` with the Glue Data Catalog as its metastore, through moto's API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from pyspark.sql import SparkSession
from pyspark.sql.types import StructType

from spark_app.cli import run_job
from spark_app.platform.glue import METASTORE_CLIENT, csv_table
from spark_app.platform.metastore import PROCESSED_DATABASE, RAW_DATABASE
from spark_app.zones.processed import ProcessedZone
from tests.aws.conftest import Answers, client, forget_account
from tests.pipeline.conftest import RATINGS, Zones
from tests.test_project import spark_defaults

Job = Callable[..., tuple[int, str]]


@pytest.fixture
def on_glue(spark: SparkSession, environment: str) -> Iterator[None]:
    """Both databases, and a session whose metastore is the Glue Data Catalog, by the line of conf/aws."""
    forget_account(environment)
    for name in (RAW_DATABASE, PROCESSED_DATABASE):
        client("glue").create_database(DatabaseInput={"Name": name})
    spark.conf.set(METASTORE_CLIENT, spark_defaults("aws")[METASTORE_CLIENT])
    yield
    spark.conf.unset(METASTORE_CLIENT)


@pytest.fixture
def zones(tmp_path: Path) -> Zones:
    return Zones(tmp_path / "raw", tmp_path / "processed")


@pytest.fixture
def job(spark: SparkSession, zones: Zones, capsys: pytest.CaptureFixture[str]) -> Job:
    def run(name: str, *options: str) -> tuple[int, str]:
        code = run_job(name, zones.options(*options))
        return code, capsys.readouterr().err

    return run


def tables(database: str) -> dict[str, dict[str, Any]]:
    return {table["Name"]: table for table in client("glue").get_tables(DatabaseName=database)["TableList"]}


def columns(table: dict[str, Any]) -> dict[str, str]:
    return {column["Name"]: column["Type"] for column in table["StorageDescriptor"]["Columns"]}


def test_raw_files_are_registered_for_athena_and_for_spark(on_glue: None, zones: Zones, job: Job) -> None:
    zones.deliver()
    code, output = job("catalog")
    assert code == 0, output
    assert "registered movie_reco_raw_db.ratings_csv (1 file(s)" in output
    registered = tables(RAW_DATABASE)
    assert set(registered) == {"movies_csv", "ratings_csv"}
    ratings = registered["ratings_csv"]
    assert columns(ratings) == {"userid": "bigint", "movieid": "bigint", "rating": "double", "timestamp": "bigint"}
    assert columns(registered["movies_csv"]) == {"movieid": "bigint", "title": "string", "genres": "string"}
    stored = ratings["StorageDescriptor"]
    assert stored["Location"] == str(zones.raw / "ratings.csv")
    serde = stored["SerdeInfo"]
    assert serde["SerializationLibrary"] == "org.apache.hadoop.hive.serde2.OpenCSVSerde"
    assert {key: serde["Parameters"][key] for key in ("separatorChar", "quoteChar", "escapeChar")} == {
        "separatorChar": ",",
        "quoteChar": '"',
        "escapeChar": "\\",
    }
    assert ratings["Parameters"]["skip.header.line.count"] == "1"
    assert ratings["TableType"] == "EXTERNAL_TABLE"
    schema = StructType.fromJson(json.loads(ratings["Parameters"]["spark.sql.sources.schema"]))
    assert schema.names == ["userId", "movieId", "rating", "timestamp"]


def test_delta_tables_have_their_real_columns(spark: SparkSession, on_glue: None, zones: Zones, job: Job) -> None:
    zones.deliver()
    zone = ProcessedZone(str(zones.processed))
    row = "SELECT 1 AS userId, 2 AS movieId, 4.5D AS rating, timestamp'2020-01-01' AS timestamp"
    zone.overwrite(spark.sql(row), "ratings")
    zone.overwrite(spark.sql("SELECT 1 AS userId, array('Drama') AS favourite_genres"), "user_features")
    Path(zone.final).mkdir()
    columns_of_final = {"movieId": [2], "title": ["x"], "average_rating": [4.5], "rating_count": [1]}
    parquet.write_table(pa.table(columns_of_final), zone.final_file)
    code, output = job("catalog")
    assert code == 0, output
    registered = tables(PROCESSED_DATABASE)
    assert set(registered) == {"ratings", "user_features", "final"}
    for name, table in registered.items():
        assert columns(table) != {"col": "array<string>"}, name
        assert "col" not in columns(table)
        assert table["StorageDescriptor"]["SerdeInfo"]["Parameters"]["path"] == table["StorageDescriptor"]["Location"]
    ratings = registered["ratings"]
    assert columns(ratings) == {"userid": "int", "movieid": "int", "rating": "double", "timestamp": "timestamp"}
    assert ratings["StorageDescriptor"]["Location"] == str(zones.processed / "delta" / "ratings")
    marks = ("table_type", "spark.sql.sources.provider", "classification", "EXTERNAL")
    assert [ratings["Parameters"][mark] for mark in marks] == ["DELTA", "delta", "delta", "TRUE"]
    assert columns(registered["user_features"])["favourite_genres"] == "array<string>"
    movies = registered["final"]
    assert "table_type" not in movies["Parameters"]
    assert movies["StorageDescriptor"]["SerdeInfo"]["SerializationLibrary"].endswith("ParquetHiveSerDe")
    assert columns(movies)["average_rating"] == "double"


def test_a_table_that_is_there_is_replaced_and_drift_is_told(on_glue: None, zones: Zones, job: Job) -> None:
    zones.deliver()
    assert job("catalog")[0] == 0
    header, *rows = RATINGS.splitlines()
    zones.deliver(ratings="\n".join([f"{header},device", *(f"{row},phone" for row in rows)]) + "\n")
    code, output = job("catalog")
    assert code == 0, output
    assert "ratings_csv: column device is new: it is registered, but not used" in output
    assert columns(tables(RAW_DATABASE)["ratings_csv"])["device"] == "string"

    zones.deliver(ratings=RATINGS.replace("rating,", "stars,"))
    code, output = job("catalog")
    assert code == 3
    assert "column 'rating' is missing" in output
    assert columns(tables(RAW_DATABASE)["ratings_csv"])["device"] == "string"  # the table stays unchanged


def test_the_crawler_is_started_where_it_is_asked_for(on_glue: None, zones: Zones, job: Job) -> None:
    glue = client("glue")
    glue.create_crawler(
        Name="movie-reco-raw", Role="x", DatabaseName=RAW_DATABASE, Targets={"S3Targets": [{"Path": "s3://raw/"}]}
    )
    zones.deliver()
    assert job("catalog")[0] == 0
    assert "LastCrawl" not in glue.get_crawler(Name="movie-reco-raw")["Crawler"]
    code, output = job("catalog", "--set", "catalog.crawler=movie-reco-raw")
    assert code == 0, output
    assert "started the crawler movie-reco-raw" in output
    assert glue.get_crawler(Name="movie-reco-raw")["Crawler"]["State"] == "RUNNING"
    code, output = job("catalog", "--set", "catalog.crawler=movie-reco-raw")
    assert code == 0, output
    assert "the crawler movie-reco-raw is already running" in output
    code, output = job("catalog", "--set", "catalog.crawler=other")
    assert code == 2
    assert (
        "cannot start the crawler other in the Glue Data Catalog: it does not exist: correct catalog.crawler" in output
    )


def test_a_database_that_is_not_there_is_told(on_glue: None, zones: Zones, job: Job) -> None:
    zones.deliver()
    client("glue").delete_database(Name=RAW_DATABASE)
    code, output = job("catalog")
    assert code == 2
    assert "there is no database movie_reco_raw_db: create it, or deploy conf/aws" in output


def test_what_glue_refuses_is_exit_7(
    on_glue: None, zones: Zones, job: Job, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    zones.deliver()
    monkeypatch.setenv("AWS_ENDPOINT_URL_GLUE", answers.url)
    answers.answers = [(400, {"__type": "AccessDeniedException", "message": "not authorized: glue:UpdateTable"})]
    code, output = job("catalog")
    assert code == 7
    assert "(AccessDeniedException): not authorized: glue:UpdateTable; check the job's role" in output


@pytest.mark.parametrize(
    ("location", "prefix"),
    [
        ("s3://raw/ratings.csv", "s3://raw/ratings.csv"),
        ("s3://raw/ratings", "s3://raw/ratings"),
        ("s3://raw/ratings/part-*.csv", "s3://raw/ratings"),
        ("s3://raw/[12]/x.csv", "s3://raw"),
        (r"s3://raw/a\[1\]/ratings.csv", "s3://raw/a[1]/ratings.csv"),
    ],
)
def test_where_hive_looks_for_files(location: str, prefix: str) -> None:
    stored = csv_table("t", location, StructType(), {"sep": ","})["StorageDescriptor"]
    assert stored["Location"] == prefix
    assert stored["SerdeInfo"]["Parameters"]["path"] == location
