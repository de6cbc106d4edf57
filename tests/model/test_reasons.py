"""What is named as a reason is what the score is made of."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.ml.recommendation import ALSModel
from pyspark.sql import DataFrame, SparkSession

from spark_app.model.als import fit_implicit, in_stable_order
from spark_app.model.catalogue import Catalogue, build_catalogue
from spark_app.model.lists import Explain, recommend
from spark_app.model.reasons import Reasons
from spark_app.platform.settings import ImplicitAls

SETTINGS = ImplicitAls(rank=4, iterations=5, alpha=1.5, reg=0.2, popularity_exponent=0.3)
USERS, MOVIES = 20, 30


@pytest.fixture(scope="module")
def ratings(spark: SparkSession) -> DataFrame:
    rng = np.random.default_rng(3)
    pairs = rng.choice(USERS * MOVIES, 200, replace=False)
    rows = [(int(p // MOVIES) + 1, int(p % MOVIES) + 1, float(rng.integers(1, 11)) / 2) for p in pairs]
    return in_stable_order(spark.createDataFrame(rows, "userId INT, movieId INT, rating DOUBLE"), 2).persist()


@pytest.fixture(scope="module")
def model(ratings: DataFrame) -> ALSModel:
    return fit_implicit(ratings, SETTINGS, seed=1)


@pytest.fixture(scope="module")
def catalogue(spark: SparkSession, model: ALSModel) -> Catalogue:
    movies = spark.createDataFrame([(movie,) for movie in range(1, MOVIES + 1)], "movieId INT")
    popularity = movies.selectExpr("movieId", "CAST(movieId AS LONG) AS rating_count")
    return build_catalogue(movies, popularity, model.itemFactors, SETTINGS.rank, SETTINGS.popularity_exponent)


def history_of(ratings: DataFrame, catalogue: Catalogue, user: int) -> tuple[np.ndarray, np.ndarray]:
    rows = sorted((row.movieId, row.rating) for row in ratings.filter(f"userId = {user}").collect())
    places = np.searchsorted(catalogue.movie_ids, [movie for movie, _ in rows])
    return places, np.array([rating - SETTINGS.neutral for _, rating in rows], dtype=np.float32)


def test_weights_add_up_to_the_score_of_mllib_lifted_by_popularity(
    ratings: DataFrame, model: ALSModel, catalogue: Catalogue
) -> None:
    reasons = Reasons(catalogue.factors, SETTINGS, 2, catalogue.lifts)
    everything = np.arange(MOVIES)
    vectors = {row.id: np.array(row.features) for row in model.userFactors.collect()}
    assert len(vectors) == USERS
    factors = {row.id: np.array(row.features) for row in model.itemFactors.collect()}
    for user, vector in vectors.items():
        weights = reasons.weights(*history_of(ratings, catalogue, user), everything)
        by_mllib = [factors[movie] @ vector if movie in factors else 0.0 for movie in catalogue.movie_ids]
        scores = by_mllib * (1.0 + np.arange(1, MOVIES + 1)) ** 0.3
        assert weights.sum(axis=1) == pytest.approx(scores, abs=1e-4)


def test_lists_have_the_lifted_scores(
    spark: SparkSession, ratings: DataFrame, model: ALSModel, catalogue: Catalogue
) -> None:
    users = model.userFactors.withColumnRenamed("id", "userId")
    vectors = {row.id: np.array(row.features) for row in model.userFactors.collect()}
    factors = {row.id: np.array(row.features) for row in model.itemFactors.collect()}
    for row in recommend(spark, users, ratings, catalogue, 3, 7).collect():
        lifted = factors[row.movieId] @ vectors[row.userId] * (1.0 + row.movieId) ** 0.3
        assert row.score == pytest.approx(lifted, abs=1e-5)


def test_the_heaviest_likes_are_named_and_never_a_dislike(
    spark: SparkSession, ratings: DataFrame, model: ALSModel, catalogue: Catalogue
) -> None:
    users = model.userFactors.withColumnRenamed("id", "userId")
    lists = recommend(spark, users, ratings, catalogue, 5, 7, Explain(SETTINGS, most=2)).collect()
    assert len(lists) == 5 * USERS
    reasons = Reasons(catalogue.factors, SETTINGS, 2, catalogue.lifts)
    for row in lists:
        history, preferences = history_of(ratings, catalogue, row.userId)
        weights = reasons.weights(history, preferences, np.searchsorted(catalogue.movie_ids, [row.movieId]))[0]
        liked = catalogue.movie_ids[history[preferences > 0]].tolist()
        by_weight = sorted(zip(-weights, liked, strict=True))
        assert row.because == [movie for weight, movie in by_weight[:2] if weight < 0]


def test_fewer_likes_than_asked_for_leave_places_empty() -> None:
    factors = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]], dtype=np.float32)
    reasons = Reasons(factors, SETTINGS, most=2)
    liked, disliked = np.float32(2.0), np.float32(-1.0)
    assert reasons(np.array([0, 2]), np.array([liked, disliked]), np.array([1])).tolist() == [[0, -1]]
    assert reasons(np.array([0]), np.array([disliked]), np.array([1, 2])).tolist() == [[-1, -1], [-1, -1]]


def test_users_without_factors_and_lists_without_explanation_name_nothing(
    spark: SparkSession, ratings: DataFrame, catalogue: Catalogue
) -> None:
    cold = spark.createDataFrame([(1, None)], "userId INT, features ARRAY<FLOAT>")
    explained = recommend(spark, cold, ratings, catalogue, 3, 7, Explain(SETTINGS, most=2)).collect()
    assert [row.because for row in explained] == [[], [], []]
    warm = spark.createDataFrame([(1, [1.0] * SETTINGS.rank)], "userId INT, features ARRAY<FLOAT>")
    assert [row.because for row in recommend(spark, warm, ratings, catalogue, 3, 7).collect()] == [[], [], []]
