"""Further deliveries are added to the tables, and give the same as reading all files again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from delta.tables import DeltaTable
from pyspark.sql import SparkSession

from spark_app.cli import run_job
from spark_app.zones import plain_ratings
from tests.pipeline.conftest import MOVIES, RATINGS, Zones

Job = Callable[..., tuple[int, str]]
Change = Callable[[Zones, SparkSession], None]
HEADER = "userId,movieId,rating,timestamp\n"
FOLDER = ("--set", "raw.ratings=ratings")


def deliver(zones: Zones, name: str, ratings: str, movies: str = MOVIES) -> None:
    (zones.raw / "ratings").mkdir(parents=True, exist_ok=True)
    (zones.raw / "movies.csv").write_text(movies, encoding="utf-8")
    (zones.raw / "ratings" / name).write_text(ratings, encoding="utf-8")


def tables(spark: SparkSession, zones: Zones) -> dict[str, list[tuple[Any, ...]]]:
    """The rows that etl published, in order."""
    delta = {
        name: spark.read.format("delta").load(str(zones.processed / "delta" / name))
        for name in ("ratings", "movies", "movie_stats")
    }
    frames = {**delta, "final": spark.read.parquet(str(zones.processed / "final"))}
    keys = {"ratings": ["userId", "movieId"]}
    return {
        name: [tuple(row) for row in frame.orderBy(*keys.get(name, ["movieId"])).collect()]
        for name, frame in frames.items()
    }


def anew(spark: SparkSession, zones: Zones, *options: str) -> dict[str, list[tuple[Any, ...]]]:
    """What etl publishes from the same raw zone into an empty processed zone."""
    other = Zones(zones.raw, zones.processed.with_name("anew"))
    shutil.rmtree(other.processed, ignore_errors=True)
    assert run_job("etl", other.options(*options)) == 0
    return tables(spark, other)


def random_ratings(rng: np.random.Generator, rows: int) -> str:
    """Ratings of few users and movies, so that pairs repeat; some of a movie that is not listed, some broken."""
    lines = []
    for _ in range(rows):
        user, movie, half, second = rng.integers(1, 30), rng.integers(1, 5), rng.integers(1, 11), rng.integers(0, 9)
        lines.append(f"{user},{movie},{half / 2},{964982700 + second}")
    return HEADER + "\n".join(lines) + "\n"


@pytest.mark.parametrize("place", ["driver", "tasks"])
def test_sums_that_do_not_come_with_the_ratings_are_read_from_the_table(
    job: Job, zones: Zones, spark: SparkSession, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    deliver(zones, "1.csv", random_ratings(np.random.default_rng(1), 200))
    if place == "tasks":
        monkeypatch.setattr(plain_ratings, "LOCAL_BYTES", 0)
    summed_up = anew(spark, zones, *FOLDER)
    monkeypatch.setattr(plain_ratings, "SUMMED_MOVIES", -1)
    assert job("etl", *FOLDER)[0] == 0
    assert tables(spark, zones) == summed_up


def test_deliveries_one_after_the_other_give_what_all_at_once_give(job: Job, zones: Zones, spark: SparkSession) -> None:
    rng = np.random.default_rng(7)
    for number in range(3):
        deliver(zones, f"part-{number}.csv", random_ratings(rng, 60))
        code, said = job("etl", *FOLDER)
        assert code == 0
        assert (f"ratings: 1 of {number + 1} files are new" in said) == (number > 0)
        assert tables(spark, zones) == anew(spark, zones, *FOLDER)
    rows = zones.manifests()[-1]["rows"]
    assert rows["ratings"]["in"] == 180
    assert rows["delivery"]["in"] == 60
    for account in rows.values():
        assert account["in"] == account["good"] + account["rejected"] + account["superseded"]
    other = Zones(zones.raw, zones.processed.with_name("anew")).manifests()[-1]
    assert rows["ratings"] == other["rows"]["ratings"]


def first_and_second(zones: Zones, job: Job, *options: str) -> None:
    """Deliver twice; etl takes only the first delivery."""
    deliver(zones, "a.csv", RATINGS)
    assert job("etl", *FOLDER, *options)[0] == 0
    deliver(zones, "b.csv", HEADER + "1,1,2.0,964982704\n3,2,4.5,964982705\n")


def versions(spark: SparkSession, zones: Zones) -> list[str]:
    """Operations on the table of ratings, the earliest first."""
    table = DeltaTable.forPath(spark, str(zones.processed / "delta" / "ratings"))
    return [row["operation"] for row in table.history().orderBy("version").collect()]


def test_a_file_that_was_taken_is_not_taken_again(job: Job, zones: Zones, spark: SparkSession) -> None:
    zones.deliver()
    assert job("etl")[0] == 0
    before = tables(spark, zones)
    (zones.raw / "ratings").mkdir()
    (zones.raw / "ratings.csv").rename(zones.raw / "ratings" / "first.csv")
    shutil.copy(zones.raw / "ratings" / "first.csv", zones.raw / "ratings" / "second.csv")
    code, said = job("etl")
    assert code == 0
    assert "second.csv is a copy of" in said
    assert "ratings: 0 of 1 files are new" in said
    assert tables(spark, zones) == before
    assert versions(spark, zones) == ["CREATE TABLE"]
    rows = zones.manifests()[-1]["rows"]
    assert rows["ratings"] == {"in": 4, "good": 4, "rejected": 0, "superseded": 0}
    assert rows["delivery"] == {"in": 0, "good": 0, "rejected": 0, "superseded": 0}


def test_a_delivery_is_merged_in_one_commit(job: Job, zones: Zones, spark: SparkSession) -> None:
    first_and_second(zones, job)
    assert job("etl", *FOLDER)[0] == 0
    assert versions(spark, zones) == ["CREATE TABLE", "MERGE"]
    assert [row[:3] for row in tables(spark, zones)["ratings"]] == [
        *((1, 1, 2.0), (1, 2, 3.5), (2, 1, 5.0), (2, 3, 0.5), (3, 2, 4.5)),
    ]
    rows = zones.manifests()[-1]["rows"]
    assert rows["ratings"] == {"in": 6, "good": 5, "rejected": 0, "superseded": 1}


def test_after_an_optimise_deliveries_still_are_merged(job: Job, zones: Zones, spark: SparkSession) -> None:
    first_and_second(zones, job)
    DeltaTable.forPath(spark, str(zones.processed / "delta" / "ratings")).optimize().executeZOrderBy("userId")
    assert job("etl", *FOLDER)[0] == 0
    assert versions(spark, zones)[-1] == "MERGE"


def change_a_taken_file(zones: Zones, spark: SparkSession) -> None:
    deliver(zones, "a.csv", RATINGS.replace("3.5", "3.0"))


def drop_a_movie(zones: Zones, spark: SparkSession) -> None:
    lines = MOVIES.splitlines(keepends=True)
    (zones.raw / "movies.csv").write_text("".join([lines[0], lines[1], lines[2], lines[4]]), encoding="utf-8")


def change_by_hand(zones: Zones, spark: SparkSession) -> None:
    DeltaTable.forPath(spark, str(zones.processed / "delta" / "ratings")).delete("userId = 2")


@pytest.mark.parametrize(
    ("change", "options", "why"),
    [
        pytest.param(change_a_taken_file, (), "a.csv was taken before and is gone or changed", id="changed file"),
        pytest.param(drop_a_movie, ("--set", "clean.max_reject_share=0.5"), "movies are no longer listed", id="movies"),
        pytest.param(change_by_hand, (), "the last DELETE was not by etl", id="changed table"),
        pytest.param(None, ("--set", "input.scale_min=0"), "settings of [input] or [clean]", id="changed rules"),
    ],
)
def test_all_files_are_read_again_where_a_merge_would_give_something_else(
    job: Job, zones: Zones, spark: SparkSession, change: Change | None, options: tuple[str, ...], why: str
) -> None:
    first_and_second(zones, job)
    if change:
        change(zones, spark)
    code, said = job("etl", *FOLDER, *options)
    assert code == 0, said
    assert "ratings: all files are read again, since " in said
    assert why in said
    assert tables(spark, zones) == anew(spark, zones, *FOLDER, *options)
    assert "delivery" not in zones.manifests()[-1]["rows"]


def test_ratings_of_movies_that_are_listed_later_are_taken_then(job: Job, zones: Zones, spark: SparkSession) -> None:
    deliver(zones, "a.csv", RATINGS + "1,9,4.0,964982703\n")
    options = (*FOLDER, "--set", "clean.max_reject_share=0.5")
    assert job("etl", *options)[0] == 0
    deliver(zones, "b.csv", HEADER + "3,9,4.5,964982705\n", MOVIES + "9,Heat (1995),Action\n")
    assert "more are listed now" in job("etl", *options)[1]
    assert [row[:3] for row in tables(spark, zones)["ratings"] if row[1] == 9] == [(1, 9, 4.0), (3, 9, 4.5)]


def test_counts_of_a_delivery_are_added_once(job: Job, zones: Zones, spark: SparkSession) -> None:
    options = (*FOLDER, "--set", "input.feedback=counts")
    first_and_second(zones, job, *options[2:])
    for _ in range(2):
        assert job("etl", *options)[0] == 0
        assert tables(spark, zones)["ratings"][0][:3] == (1, 1, 6.0)
        assert tables(spark, zones) == anew(spark, zones, *options)


def test_without_times_what_is_delivered_later_counts(job: Job, zones: Zones, spark: SparkSession) -> None:
    options = (*FOLDER, "--set", "input.timestamp=")
    first_and_second(zones, job, *options[2:])
    assert "1 of 2 files are new" in job("etl", *options)[1]
    assert tables(spark, zones)["ratings"][0][:3] == (1, 1, 2.0)
    deliver(zones, "a-late.csv", HEADER + "1,1,1.5,1\n")
    assert "comes before files that were taken" in job("etl", *options)[1]
    assert tables(spark, zones) == anew(spark, zones, *options)


def test_a_delivery_of_too_many_rejects_changes_nothing(job: Job, zones: Zones, spark: SparkSession) -> None:
    deliver(zones, "a.csv", RATINGS)
    assert job("etl", *FOLDER)[0] == 0
    before = tables(spark, zones)
    deliver(zones, "b.csv", HEADER + "3,2,9.0,964982705\n3,1,4.5,964982705\n")
    code, said = job("etl", *FOLDER)
    assert code == 4
    assert "1 of 2 rows of ratings" in said
    assert tables(spark, zones) == before
