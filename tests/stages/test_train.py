from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.model.als import explicit_problem, implicit_problem
from spark_app.model.evaluation import calibration, judge_ranking, judge_ratings, movie_facts
from spark_app.model.factors import Factors, as_solution
from spark_app.model.fits import Models, fit_models, training_set
from spark_app.model.half_sweep import Problem
from spark_app.model.metrics import MovieFacts
from spark_app.model.rating_blocks import RatingBlocks
from spark_app.model.solver import objective_with
from spark_app.model.split import keep_judged, split
from spark_app.platform.errors import GateError
from spark_app.platform.settings import ExplicitAls, ImplicitAls, Settings, build_settings
from spark_app.stages import train
from spark_app.zones.manifest import RunRecord
from spark_app.zones.processed import ProcessedZone
from spark_app.zones.stored_models import (
    facts_of,
    load_models,
    publish_models,
    published_models,
    published_run,
    save_models,
)

USERS, MOVIES = 200, 20
ALL = Settings(explicit_als=ExplicitAls(rank=2, iterations=1), implicit_als=ImplicitAls(rank=2, iterations=1))
SOME = ALL.model_copy(update={"train": ALL.train.model_copy(update={"judged_users": USERS // 4})})


@dataclass(frozen=True)
class Fitted:
    """Models, the ratings they were fitted to and the ratings they are judged on."""

    training: DataFrame
    holdout: DataFrame
    models: Models
    facts: MovieFacts

    def judged_users(self) -> set[int]:
        return {row.userId for row in keep_judged(self.holdout, USERS, SOME.train).collect()}


@pytest.fixture(scope="module")
def fitted(spark: SparkSession) -> Fitted:
    """Each user rated about half of the movies, and gave high ratings to even or to odd ones."""
    pairs = spark.range(USERS * MOVIES).select(
        (F.col("id") % USERS + 1).cast("int").alias("userId"), (F.col("id") / USERS + 1).cast("int").alias("movieId")
    )
    rating = F.when((F.col("userId") + F.col("movieId")) % 2 == 0, 4.5).otherwise(1.5).alias("rating")
    rated = pairs.filter(F.pmod(F.xxhash64("movieId", "userId"), F.lit(2)) == 0).select("*", rating)
    training, holdout = (part.persist() for part in split(rated, ALL.train))
    movies = spark.range(1, MOVIES + 1).select(
        F.col("id").cast("int").alias("movieId"), F.array(F.lit("Drama")).alias("genres")
    )
    models = fit_models(training, ALL)
    return Fitted(training, holdout, models, movie_facts(movies, models.biases.movies, USERS))


def test_some_users_are_judged_as_they_are_among_all(spark: SparkSession, fitted: Fitted) -> None:
    candidates, factors = fitted.models.candidates(fitted.facts.movie_ids, 10**9), fitted.models.implicit.users
    everybody, some = (
        judge_ranking(spark, fitted.training, fitted.holdout, candidates, factors, fitted.facts, settings)
        for settings in (ALL, SOME)
    )
    likers = {row.userId for row in fitted.holdout.filter(F.col("rating") >= ALL.train.relevant).collect()}
    is_judged = np.isin(sorted(likers), list(fitted.judged_users()))
    assert 0 < is_judged.sum() < len(likers) / 2
    np.testing.assert_array_equal(some.seen, everybody.seen[is_judged])
    for model, numbers in everybody.numbers.items():
        np.testing.assert_array_equal(some.numbers[model], numbers[is_judged])


def test_candidates_in_blocks_are_judged_as_the_whole(spark: SparkSession, fitted: Fitted) -> None:
    ids = fitted.facts.movie_ids
    whole, in_blocks = (fitted.models.candidates(ids, max_bytes) for max_bytes in (10**9, 7 * 4 * (2 + 2)))
    assert (len(whole), len(in_blocks)) == (1, 3)
    factors = fitted.models.implicit.users
    one, other = (
        judge_ranking(spark, fitted.training, fitted.holdout, candidates, factors, fitted.facts, ALL)
        for candidates in (whole, in_blocks)
    )
    np.testing.assert_array_equal(one.seen, other.seen)
    for model, numbers in one.numbers.items():
        np.testing.assert_allclose(other.numbers[model], numbers)
        np.testing.assert_array_equal(other.exposure[model], one.exposure[model])


def test_predicted_ratings_are_judged_on_the_same_users_and_stacked_on_all(fitted: Fitted) -> None:
    assert fitted.models.explicit
    (weights, everybody, calibrated), (same_weights, some, _) = (
        judge_ratings(fitted.holdout, fitted.models.biases, fitted.models.explicit, fitted.facts, settings)
        for settings in (ALL, SOME)
    )
    assert same_weights == weights
    is_judged = np.isin(everybody.users, list(fitted.judged_users()))
    assert 0 < is_judged.sum() < len(everybody.users) / 2
    np.testing.assert_array_equal(some.users, everybody.users[is_judged])
    np.testing.assert_allclose(some.sums["stacked"], everybody.sums["stacked"][is_judged])
    assert sum(part["ratings"] for part in calibrated) == everybody.ratings.sum()


def test_calibration_is_the_mean_rating_where_about_the_same_is_predicted(spark: SparkSession) -> None:
    # On a scale from 0.5 to 5, parts are 0.45 wide.
    pairs = [(0.5, 1.0), (0.94, 2.0), (0.96, 3.0), (3.0, 3.0), (5.0, 4.0), (4.9, 5.0)]
    frame = spark.createDataFrame(pairs, "explicit DOUBLE, rating DOUBLE")
    found = [tuple(part.values()) for part in calibration(frame, "explicit", (0.5, 5.0))]
    expected = [(0.72, 1.5, 2), (0.96, 3.0, 1), (3.0, 3.0, 1), (4.95, 4.5, 2)]
    assert found == [pytest.approx(part) for part in expected]


# The stage as a whole


STAGE = """
[train]
seed = 7
tolerance = 0.0
refit = true
refit_sweeps = 3

[implicit_als]
rank = 3
reg = 0.5
reg_power = 0.8
alpha = 2.0
neutral = 2.5
iterations = 10

[explicit_als]
rank = 3
reg = 0.3
reg_power = 0.8
biases = true
iterations = 10

[gate]
enforce = false
"""


def stage_settings(root: str, *assignments: str) -> Settings:
    return build_settings(STAGE, assignments=[f'processed.path="{root}"', *assignments])


@pytest.fixture(scope="module")
def zone(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> ProcessedZone:
    """1200 ratings of 40 movies by 60 users, each of whom gives higher ratings to every third movie."""
    found = ProcessedZone(str(tmp_path_factory.mktemp("trained")))
    rng = np.random.default_rng(1)
    pairs = [(int(pair // 40) + 1, int(pair % 40) + 1) for pair in rng.choice(60 * 40, 1200, replace=False)]
    rows = [(u, m, float(rng.integers(7, 11) if (u + m) % 3 == 0 else rng.integers(1, 8)) / 2) for u, m in pairs]
    at = datetime(2020, 1, 1)
    ratings = spark.createDataFrame(
        [(*row, at) for row in rows], "userId INT, movieId INT, rating DOUBLE, timestamp TIMESTAMP"
    )
    movies = [(movie, f"Movie {movie}", ["Drama"]) for movie in range(1, 41)]
    found.overwrite(ratings, "ratings")
    found.overwrite(spark.createDataFrame(movies, "movieId INT, title STRING, genres ARRAY<STRING>"), "movies")
    return found


@pytest.fixture(scope="module")
def published(spark: SparkSession, zone: ProcessedZone) -> Models:
    """The models that the first run of the stage published."""
    return trained(spark, zone)


def trained(spark: SparkSession, zone: ProcessedZone, *assignments: str) -> Models:
    """Run the stage; returns the models that it published."""
    settings = stage_settings(zone.root, *assignments)
    train.run(spark, settings, RunRecord("train", settings))
    return load_models(spark, published_models(zone))[0]


def objectives(models: Models, blocks: RatingBlocks) -> list[float]:
    """The objectives of the ranking and the rating model on all ratings, once the users are solved anew."""
    assert models.explicit
    of_ranking: tuple[Factors, Problem] = models.implicit, implicit_problem(models.settings.implicit)
    of_ratings = models.explicit, explicit_problem(models.settings.explicit, models.biases.mean)
    found = []
    for factors, problem in (of_ranking, of_ratings):
        movies = as_solution(factors, problem).movies
        found.append(objective_with(blocks, problem, movies.ids, movies.factors))
    return found


def starts(said: list[str]) -> list[str]:
    return [message for message in said if message.startswith("fitting ") and "at most" in message]


def of_both(sweeps: int) -> list[str]:
    return [f"fitting {kind} ALS: rank 3, at most {sweeps} sweeps" for kind in ("explicit", "implicit")]


def vectors(frame: DataFrame) -> dict[int, list[float]]:
    return {row.id: list(row.features) for row in frame.collect()}


def test_what_is_published_after_a_refit_is_as_good_as_a_fit_from_scratch(
    spark: SparkSession, zone: ProcessedZone, published: Models
) -> None:
    settings, ratings = stage_settings(zone.root), zone.read(spark, "ratings")
    blocks = training_set(ratings, settings.train).blocks
    judged = fit_models(split(ratings, settings.train)[0], settings)
    refitted, anew, before = (
        objectives(models, blocks) for models in (published, fit_models(ratings, settings), judged)
    )
    for ours, theirs, was in zip(refitted, anew, before, strict=True):
        assert ours <= 1.003 * theirs
        assert was > 1.01 * theirs


def test_a_fit_that_starts_from_the_published_models_takes_fewer_sweeps_and_is_as_good(
    spark: SparkSession, zone: ProcessedZone, published: Models, said: list[str]
) -> None:
    after = trained(spark, zone, "train.start=published")
    assert starts(said) == of_both(3) * 2
    blocks = training_set(zone.read(spark, "ratings"), stage_settings(zone.root).train).blocks
    for ours, theirs in zip(objectives(after, blocks), objectives(published, blocks), strict=True):
        assert ours <= 1.003 * theirs


def test_where_nothing_is_published_or_of_another_rank_a_fit_starts_at_random(
    spark: SparkSession, zone: ProcessedZone, said: list[str], tmp_path: Path
) -> None:
    empty = ProcessedZone(str(tmp_path))
    for table in ("ratings", "movies"):
        empty.overwrite(zone.read(spark, table), table)
    sweeps = ("train.refit_sweeps=1", "explicit_als.iterations=2", "implicit_als.iterations=2")
    first = trained(spark, empty, "train.start=published", *sweeps)
    assert starts(said) == of_both(2) + of_both(1)

    other = stage_settings(empty.root, "implicit_als.rank=4", "explicit_als.rank=2")
    facts = {"settings": other.model_dump(mode="json")}
    save_models(fit_models(zone.read(spark, "ratings"), other), "explicit", empty, "of-another-rank", facts)
    publish_models(empty, "of-another-rank")
    del said[:]
    again = trained(spark, empty, "train.start=published", *sweeps)
    assert starts(said) == of_both(2) + of_both(1)
    assert vectors(again.implicit.users) == vectors(first.implicit.users)
    assert again.explicit
    assert first.explicit
    assert vectors(again.explicit.users) == vectors(first.explicit.users)


# The gate


@pytest.fixture(scope="module")
def liked(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> ProcessedZone:
    """400 users of two tastes and 40 movies: who likes even movies does not like odd ones. A ranking can learn that."""
    found = ProcessedZone(str(tmp_path_factory.mktemp("liked")))
    rng = np.random.default_rng(3)
    pairs = [(int(pair // 40) + 1, int(pair % 40) + 1) for pair in rng.choice(400 * 40, 6000, replace=False)]
    rows = [(u, m, 4.5 if (u + m) % 2 == 0 else 1.0, datetime(2020, 1, 1 + u % 20)) for u, m in pairs]
    schema = "userId INT, movieId INT, rating DOUBLE, timestamp TIMESTAMP"
    found.overwrite(spark.createDataFrame(rows, schema), "ratings")
    movies = [(movie, f"Movie {movie}", ["Drama"]) for movie in range(1, 41)]
    found.overwrite(spark.createDataFrame(movies, "movieId INT, title STRING, genres ARRAY<STRING>"), "movies")
    first_run(spark, found)
    return found


def first_run(spark: SparkSession, zone: ProcessedZone) -> None:
    assert gate_of(spark, zone)["passed"]


def gate_of(spark: SparkSession, zone: ProcessedZone, *assignments: str) -> dict[str, Any]:
    """Run the stage with its gate enforced; returns what it recorded of the gate."""
    settings = stage_settings(zone.root, "gate.enforce=true", *assignments)
    record = RunRecord("train", settings)
    try:
        train.run(spark, settings, record)
    except GateError as error:
        return {**record.metrics["gate"], "error": str(error)}
    return dict(record.metrics["gate"])


def test_the_published_ranking_is_judged_as_it_was_before_it_learned_from_the_holdout(
    spark: SparkSession, liked: ProcessedZone
) -> None:
    run_id = published_run(liked)
    before = facts_of(published_models(liked))["metrics"]["gate"]
    again = gate_of(spark, liked, "gate.min_lift=100")  # fails, so that the first run stays published
    assert "not above 100 x" in again["error"]
    beside = again["published"]
    assert beside["run_id"] == run_id == published_run(liked)
    assert beside["implicit"] == before["implicit"] == again["implicit"]
    assert (beside["difference"], beside["interval"], beside["verdict"]) == (0.0, [0.0, 0.0], "tie")


def test_a_ranking_clearly_worse_than_the_published_one_does_not_replace_it(
    spark: SparkSession, liked: ProcessedZone
) -> None:
    run_id = published_run(liked)
    weak = ("implicit_als.reg=100000.0", "implicit_als.popularity_exponent=1.0")
    found = gate_of(spark, liked, *weak)
    assert found["verdict"] != "worse"  # popularity alone would let it pass
    assert found["published"]["verdict"] == "worse"
    low, high = found["published"]["interval"]
    assert low < found["published"]["difference"] < high < 0
    for figure in (found["implicit"], found["published"]["implicit"]):
        assert f"{figure:.4f}" in found["error"]
    assert f"(95 % interval {low:+.4f} to {high:+.4f})" in found["error"]
    assert published_run(liked) == run_id
    assert gate_of(spark, liked, *weak, "gate.against=popularity")["passed"]
    assert published_run(liked) != run_id
    first_run(spark, liked)


def test_a_holdout_that_the_published_models_have_learned_from_judges_nothing(
    spark: SparkSession, liked: ProcessedZone, said: list[str]
) -> None:
    found = gate_of(spark, liked, "train.seed=8", "train.start=published")["published"]
    assert found["withheld"] == "train.seed was 7 and is 8 now"
    assert any(message.startswith("the fit starts from random factors, not from run") for message in said)
    first_run(spark, liked)


def test_users_who_came_after_the_published_fit_are_folded_in(spark: SparkSession, liked: ProcessedZone) -> None:
    first_run(spark, liked)
    before = liked.read(spark, "ratings").localCheckpoint()
    shifted = before.withColumn("userId", (F.col("userId") + 400).cast("int"))
    liked.append(shifted, "ratings")
    try:
        folded, popular = (
            gate_of(spark, liked, "gate.min_lift=100", f"recommend.fold_in={which}")["published"]["implicit"]
            for which in ("changed", "none")
        )
    finally:
        liked.overwrite(before, "ratings")
    assert folded > popular + 0.05


def test_models_whose_files_are_gone_are_no_reason_to_fail(spark: SparkSession, liked: ProcessedZone) -> None:
    publish_models(liked, "gone")
    assert "is missing" in gate_of(spark, liked)["published"]["withheld"]
