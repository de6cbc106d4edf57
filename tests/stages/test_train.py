from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.model import metrics
from spark_app.model.split import keep_judged, split
from spark_app.platform.progress import progress
from spark_app.platform.settings import ExplicitAls, ImplicitAls, Settings
from spark_app.stages.models import Models
from spark_app.stages.train import _judge_ratings, fit_models, judge_ranking

USERS, MOVIES = 200, 20
ALL = Settings(explicit_als=ExplicitAls(rank=2, iterations=1), implicit_als=ImplicitAls(rank=2, iterations=1))
SOME = ALL.model_copy(update={"train": ALL.train.model_copy(update={"judged_users": USERS // 4})})


@dataclass(frozen=True)
class Fitted:
    """Models, what they were fitted to and what they are judged on."""

    training: DataFrame
    holdout: DataFrame
    movies: DataFrame
    models: Models
    facts: metrics.MovieFacts

    def judged_users(self) -> set[int]:
        return {row.userId for row in keep_judged(self.holdout, USERS, SOME.train).collect()}


@pytest.fixture(scope="module")
def fitted(spark: SparkSession) -> Fitted:
    """Each user has rated half of the movies, those of one kind high."""
    pairs = spark.range(USERS * MOVIES).select(
        (F.col("id") % USERS + 1).cast("int").alias("userId"), (F.col("id") / USERS + 1).cast("int").alias("movieId")
    )
    rating = F.when((F.col("userId") + F.col("movieId")) % 2 == 0, 4.5).otherwise(1.5).alias("rating")
    rated = pairs.filter(F.pmod(F.xxhash64("movieId", "userId"), F.lit(2)) == 0).select("*", rating)
    training, holdout = (part.persist() for part in split(rated, ALL.train))
    movies = spark.range(1, MOVIES + 1).select(
        F.col("id").cast("int").alias("movieId"), F.array(F.lit("Drama")).alias("genres")
    )
    models = fit_models(training, training.count(), ALL)
    return Fitted(training, holdout, movies, models, metrics.movie_facts(movies, models.biases.movies, USERS))


def test_some_users_are_judged_as_they_are_among_all(spark: SparkSession, fitted: Fitted) -> None:
    catalogues, factors = fitted.models.catalogues(fitted.movies, 10**9), fitted.models.implicit.userFactors
    everybody, some = (
        judge_ranking(spark, fitted.training, fitted.holdout, catalogues, factors, fitted.facts, settings)
        for settings in (ALL, SOME)
    )
    likers = {row.userId for row in fitted.holdout.filter(F.col("rating") >= ALL.train.relevant).collect()}
    is_judged = np.isin(sorted(likers), list(fitted.judged_users()))
    assert 0 < is_judged.sum() < len(likers) / 2
    np.testing.assert_array_equal(some.seen, everybody.seen[is_judged])
    for model, numbers in everybody.of_users(is_judged).items():
        np.testing.assert_array_equal(some.numbers[model], numbers)


def test_a_catalogue_in_blocks_is_judged_as_the_whole(spark: SparkSession, fitted: Fitted) -> None:
    whole, in_blocks = (fitted.models.catalogues(fitted.movies, most) for most in (10**9, 7 * 4 * (2 + 2)))
    assert (len(whole), len(in_blocks)) == (1, 3)
    factors = fitted.models.implicit.userFactors
    one, other = (
        judge_ranking(spark, fitted.training, fitted.holdout, catalogues, factors, fitted.facts, ALL)
        for catalogues in (whole, in_blocks)
    )
    np.testing.assert_array_equal(one.seen, other.seen)
    for model, numbers in one.numbers.items():
        np.testing.assert_allclose(other.numbers[model], numbers)
        np.testing.assert_array_equal(other.exposure[model], one.exposure[model])


def test_predicted_ratings_are_judged_on_the_same_users_and_stacked_on_all(fitted: Fitted) -> None:
    assert fitted.models.explicit
    (weights, everybody), (same_weights, some) = (
        _judge_ratings(fitted.holdout, fitted.models.biases, fitted.models.explicit, fitted.facts, settings)
        for settings in (ALL, SOME)
    )
    assert same_weights == weights
    is_judged = np.isin(everybody.users, list(fitted.judged_users()))
    assert 0 < is_judged.sum() < len(everybody.users) / 2
    np.testing.assert_array_equal(some.users, everybody.users[is_judged])
    np.testing.assert_allclose(some.squared["stacked"], everybody.squared["stacked"][is_judged])


def test_both_fits_tell_their_sweeps(spark: SparkSession, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spark_app.stages.train.progress", partial(progress, look_every=0.02))
    settings = Settings(explicit_als=ExplicitAls(rank=2, iterations=5), implicit_als=ImplicitAls(rank=2, iterations=4))
    rows = [(user, movie, float((user * movie) % 5 + 1)) for user in range(1, 9) for movie in range(1, 9)]
    ratings = spark.createDataFrame(rows, "userId INT, movieId INT, rating DOUBLE")
    fit_models(ratings, len(rows), settings)
    for kind, sweeps in (("explicit", 5), ("implicit", 4)):
        told = [message for message in said if message.startswith(f"fitting {kind} ALS: sweep ")]
        assert told
        assert all(f" of {sweeps}, " in message for message in told)
