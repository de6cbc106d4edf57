"""Ratings that came after the fit change the lists of their users, and no other lists."""

from __future__ import annotations

from collections import defaultdict

import pytest
from delta.tables import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_app.ask import main
from spark_app.cli import run_job
from tests.pipeline.conftest import Zones

SMALL = """
[ingest]
source = ["synthetic"]
users = 80
movies = 120
ratings = 2500

[implicit_als]
rank = 6
iterations = 4

[explicit_als]
rank = 6
iterations = 4

[gate]
enforce = false
"""

TWIN, HATER, FAN = 5001, 5002, 5003
"""New users: one with the ratings of user 3, one who likes nothing, one with one like."""

CHANGED = 7
"""A user whose ratings are reversed."""

Lists = dict[int, list[dict[str, str]]]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("config") / "small.toml"
    path.write_text(SMALL)
    return str(path)


@pytest.fixture(scope="module")
def trained(spark: SparkSession, config: str, tmp_path_factory: pytest.TempPathFactory) -> Zones:
    """Generated ratings, and models and lists made from them."""
    folder = tmp_path_factory.mktemp("trained")
    zones = Zones(folder / "raw", folder / "processed")
    for stage in ("ingest", "etl", "train", "recommend"):
        assert run_job(stage, zones.options("--config", config)) == 0
    return zones


@pytest.fixture(scope="module")
def before(trained: Zones) -> Lists:
    return lists(trained)


@pytest.fixture(scope="module")
def grown(spark: SparkSession, trained: Zones, before: Lists) -> Zones:
    """The same zones with further ratings since the fit; each test makes its own lists."""
    table = str(trained.processed / "delta" / "ratings")
    ratings = spark.read.format("delta").load(table)
    twin = ratings.filter("userId = 3").withColumn("userId", F.lit(TWIN))
    seen = ratings.filter("userId = 4").limit(3)
    hater = seen.withColumn("userId", F.lit(HATER)).withColumn("rating", F.lit(0.5))
    fan = seen.limit(1).withColumn("userId", F.lit(FAN)).withColumn("rating", F.lit(5.0))
    new = twin.union(hater).union(fan).localCheckpoint()
    new.write.format("delta").mode("append").save(table)
    DeltaTable.forPath(spark, table).update(f"userId = {CHANGED}", {"rating": "5.5 - rating"})
    return trained


def lists(zones: Zones) -> Lists:
    found = defaultdict(list)
    for row in zones.recommendations():
        found[int(row["userId"])].append(row)
    return dict(found)


def recommend(zones: Zones, config: str, whose: str | None = None) -> tuple[Lists, int]:
    options = ("--set", f"recommend.fold_in={whose}") if whose else ()
    assert run_job("recommend", zones.options("--config", config, *options)) == 0
    return lists(zones), zones.manifests()[-1]["rows"]["recommendations"]["folded_in"]


def shown(rows: list[dict[str, str]], *columns: str) -> list[tuple[str, ...]]:
    return [tuple(row[column] for column in columns) for row in rows]


def test_nobody_is_folded_in_right_after_the_fit(
    monkeypatch: pytest.MonkeyPatch, trained: Zones, before: Lists, config: str
) -> None:
    assert trained.manifests()[-1]["rows"]["recommendations"]["folded_in"] == 0
    monkeypatch.setattr("spark_app.stages.recommend.fitted_to", lambda _: None)
    assert recommend(trained, config) == (before, 0)
    assert recommend(trained, config, "none") == (before, 0)


def test_ratings_of_the_version_that_was_fitted_are_not_compared(
    monkeypatch: pytest.MonkeyPatch, trained: Zones, before: Lists, config: str
) -> None:
    monkeypatch.delattr("spark_app.stages.recommend.with_fold_in")
    assert recommend(trained, config) == (before, 0)


def test_new_and_changed_users_are_served_by_what_they_rated(
    grown: Zones, before: Lists, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, folded_in = recommend(grown, config)
    assert folded_in == 3
    others = before.keys() - {CHANGED}
    assert {user: found[user] for user in others} == {user: before[user] for user in others}

    assert shown(found[TWIN], "rank", "movieId", "reason") == shown(before[3], "rank", "movieId", "reason")
    for column, within in (("score", 1e-4), ("predicted_rating", 2e-3)):
        twins = [float(row[column]) for row in found[TWIN]]
        assert twins == pytest.approx([float(row[column]) for row in before[3]], abs=within)
    assert {row["reason"] for row in found[HATER]} == {"popular"}
    capsys.readouterr()
    main(["show", "--processed-path", str(grown.processed), "--user", str(HATER)])
    assert "popular" in capsys.readouterr().out
    assert all(row["reason"].startswith("you liked ") for row in found[FAN][:3])
    assert shown(found[CHANGED], "movieId") != shown(before[CHANGED], "movieId")

    # The model takes a user with low ratings for strict, and one with high ratings for generous.
    predicted = {user: {row["movieId"]: float(row["predicted_rating"]) for row in rows} for user, rows in found.items()}
    common = predicted[HATER].keys() & predicted[FAN].keys()
    assert common
    assert all(predicted[HATER][movie] < predicted[FAN][movie] for movie in common)


def test_only_new_users_or_nobody_on_request(grown: Zones, before: Lists, config: str) -> None:
    found, folded_in = recommend(grown, config, "new")
    assert folded_in == 2
    assert shown(found[CHANGED], "movieId", "score") == shown(before[CHANGED], "movieId", "score")
    assert shown(found[TWIN], "movieId") == shown(before[3], "movieId")

    found, folded_in = recommend(grown, config, "none")
    assert folded_in == 0
    assert {row["reason"] for row in found[TWIN]} == {"popular"}
    assert shown(found[CHANGED], "movieId", "score") == shown(before[CHANGED], "movieId", "score")


def test_new_users_with_too_few_ratings_get_popular_movies(grown: Zones, config: str) -> None:
    train = ("--set", "train.min_user_ratings=2", "--set", "train.refit=false")
    assert run_job("train", grown.options("--config", config, *train)) == 0
    found, folded_in = recommend(grown, config)
    assert {row["reason"] for row in found[FAN]} == {"popular"}
    assert found[TWIN][0]["reason"].startswith("you liked ")
    # The models have not seen the holdout, so its users are folded in.
    assert folded_in > 40
