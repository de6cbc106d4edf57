"""Ratings that came after the fit change the lists of their users, and no other lists."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import pytest
from delta.tables import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from s3fs import S3FileSystem

from spark_app.ask import main
from spark_app.cli import run_job
from spark_app.platform import s3
from spark_app.platform.settings import Recommend
from spark_app.serve import Recommender
from spark_app.zones.processed import ProcessedZone
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


CHOICES: dict[str, dict[str, Any]] = {
    "all": {},
    "long": {"n": 60, "reasons": 1},
    "chosen": {"exclude_genres": ["Drama"], "min_ratings": 8, "n": 7},
    "above their mean": {"min_above_mean": 0.05, "n": 20},
    "above 3.5, without reasons": {"min_predicted_rating": 3.5, "reasons": 0},
}


@pytest.mark.parametrize("choice", CHOICES)
def test_a_list_on_the_spot_is_that_of_a_new_user_with_these_ratings(
    grown: Zones, before: Lists, config: str, choice: str
) -> None:
    options = CHOICES[choice]
    settings = [part for key, value in options.items() for part in ("--set", f"recommend.{key}={json.dumps(value)}")]
    assert run_job("recommend", grown.options("--config", config, *settings)) == 0
    found = lists(grown)
    ratings = ProcessedZone(str(grown.processed)).rows("ratings").to_pandas()
    recommender = Recommender.load(str(grown.processed), Recommend(**options))
    for user in (TWIN, HATER, FAN):
        own = ratings[ratings.userId == user]
        rows = recommender.recommend(dict(zip(own.movieId, own.rating, strict=True)))
        texts = [{name: str(value) for name, value in row.items()} for row in rows]
        exact = ("rank", "movieId", "title", "genres", "reason")
        assert shown(texts, *exact) == shown(found.get(user, []), *exact)
        for column, within in (("score", 2e-6), ("predicted_rating", 1e-3)):
            published = [float(row[column]) for row in found.get(user, [])]
            assert [row[column] for row in rows] == pytest.approx(published, abs=within)


def test_movies_that_are_known_without_a_rating_are_not_listed_on_the_spot(grown: Zones, before: Lists) -> None:
    longer, shorter = (Recommender.load(str(grown.processed), Recommend(n=n)) for n in (6, 3))
    six = longer.recommend({1: 5.0, 2: 4.5})
    known = [six[0]["movieId"], six[2]["movieId"], "no such movie"]
    assert [row["movieId"] for row in shorter.recommend({1: 5.0, 2: 4.5}, known)] == [
        six[place]["movieId"] for place in (1, 3, 4)
    ]


def test_a_list_on_the_spot_from_models_in_s3(grown: Zones, before: Lists, in_s3: str) -> None:
    S3FileSystem(**s3.fsspec_options()).put(f"{grown.processed}/", f"{in_s3}/processed/", recursive=True)
    ratings = {1: 5.0, 2: 4.5, 7: 1.0}
    on_disk = Recommender.load(str(grown.processed), Recommend(n=3)).recommend(ratings)
    assert len(on_disk) == 3
    assert Recommender.load(f"{in_s3}/processed", Recommend(n=3)).recommend(ratings) == on_disk


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
