"""Leftovers of old runs are removed, what is published stays, and earlier versions can be restored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from delta.tables import DeltaTable
from pyspark.sql import SparkSession

from spark_app.cli import run_job
from spark_app.platform import storage
from spark_app.platform.session import java_console
from spark_app.zones.processed import ProcessedZone
from spark_app.zones.stored_models import publish_models, published_run
from tests.pipeline.conftest import MOVIES, Zones

pytestmark = pytest.mark.long

Job = Callable[..., tuple[int, str]]
HEADER = "userId,movieId,rating,timestamp\n"
MANY = ("--set", "clean.max_reject_share=0.9")


def runs_in(paths: list[str]) -> list[str]:
    return [storage.name_of(path).removesuffix(".html") for path in paths]


def lists_of(spark: SparkSession, zone: ProcessedZone) -> int:
    """The length of the longest list."""
    return int(zone.read(spark, "recommendations").agg({"rank": "max"}).collect()[0][0])


def test_old_models_and_reports_go_and_published_ones_stay(
    spark: SparkSession, zones: Zones, job: Job, config: str
) -> None:
    zone = ProcessedZone(str(zones.processed))
    options = ("--config", config, "--set", "storage.keep_runs=2")
    for _ in range(3):
        assert job("pipeline", *options)[0] == 0
    second, third = (manifest["run_id"] for manifest in zones.manifests()[1:])
    assert runs_in(storage.list_folders(zone.models)) == [second, third]
    assert runs_in(storage.list_files(zone.reports)) == [second, third]
    assert zones.manifests()[-1]["rows"]["forgotten"] == {"models": 1, "reports": 1, "rejects": 0}

    # Publish the earlier models again: one small file names them.
    publish_models(zone, second)
    console = java_console(spark)
    java: Any = spark.sparkContext._jvm
    printed = java.java.io.ByteArrayOutputStream()
    console.setOutDirect(java.java.io.PrintStream(printed))
    code, said = job("maintain", "--config", config, "--set", "storage.keep_runs=1")
    assert code == 0
    assert printed.toString() == "", "Delta prints on the console what it deletes"
    assert runs_in(storage.list_folders(zone.models)) == [second, third]
    assert runs_in(storage.list_files(zone.reports)) == [third]
    assert "removed the models of 0 runs, the reports of 1 and the rejects of 0: storage.keep_runs=1" in said
    assert job("recommend", "--config", config)[0] == 0
    assert published_run(zone) == second


def test_rejects_stay_as_long_as_their_delivery_is_in_the_ratings(spark: SparkSession, zones: Zones, job: Job) -> None:
    zone = ProcessedZone(str(zones.processed))
    options = ("--set", "raw.ratings=ratings*.csv", *MANY)
    keep = ("--set", "storage.keep_runs=1")
    zones.deliver()
    for number in range(3):
        (zones.raw / f"ratings{number}.csv").write_text(
            f"{HEADER}9,1,{number + 7}.0,964982703\n9,1,{number + 1}.0,96498270{number}\n"
        )
        assert job("etl", *options)[0] == 0
    (zones.raw / "movies.csv").write_text(f"{MOVIES}none,Broken,Drama\n")
    assert job("etl", *options)[0] == 0

    def reasons() -> list[str]:
        return sorted(row["raw"] for row in zone.read(spark, "rejects").collect())

    before = ["9,1,7.0,964982703", "9,1,8.0,964982703", "9,1,9.0,964982703", "none,Broken,Drama"]
    assert reasons() == before
    assert job("maintain", *options, *keep)[0] == 0
    assert reasons() == before, "each of them is of a delivery that counts"
    spark.sql(f"RESTORE TABLE delta.`{zone.table('ratings')}` TO VERSION AS OF 2")
    assert job("maintain", *options, *keep)[0] == 0
    assert reasons() == before, "restored by hand: nobody knows whose count"
    assert job("etl", *options, "--set", "input.take=all")[0] == 0
    assert job("maintain", *options, *keep)[0] == 0
    assert reasons() == before, "all are found once more, and the earlier finds are gone"
    assert zones.manifests()[-1]["rows"]["forgotten"]["rejects"] == 4


def test_earlier_versions_are_restored_and_the_next_etl_knows(
    spark: SparkSession, zones: Zones, config: str, job: Job
) -> None:
    zone = ProcessedZone(str(zones.processed))
    assert run_job("pipeline", zones.options("--config", config)) == 0
    assert job("recommend", "--config", config, "--set", "recommend.n=3")[0] == 0
    assert lists_of(spark, zone) == 3
    assert job("maintain", "--config", config)[0] == 0
    spark.sql(f"RESTORE TABLE delta.`{zone.table('recommendations')}` TO VERSION AS OF 0")
    assert lists_of(spark, zone) == 10

    ratings = zone.read(spark, "ratings").count()
    DeltaTable.forPath(spark, zone.table("ratings")).delete("userId = 1")
    spark.sql(f"RESTORE TABLE delta.`{zone.table('ratings')}` TO VERSION AS OF 0")
    code, said = job("etl", "--config", config)
    assert code == 0
    assert "ratings: all files are read again, since the last RESTORE was not by etl" in said
    assert zone.read(spark, "ratings").count() == ratings


def test_small_files_become_few_and_old_ones_go(spark: SparkSession, tmp_path: Path) -> None:
    zone = ProcessedZone(str(tmp_path))
    for number in range(5):
        zone.append(spark.range(number, number + 1).coalesce(1), "ratings")
    zone.compact(spark, "ratings", 7)
    folder = Path(zone.table("ratings"))
    assert len(zone.read(spark, "ratings").inputFiles()) == 1
    assert len(list(folder.glob("*.parquet"))) == 6, "versions of the last days can be read"
    zone.compact(spark, "ratings", 0)
    assert len(list(folder.glob("*.parquet"))) == 1
    assert sorted(row["id"] for row in zone.read(spark, "ratings").collect()) == list(range(5))
