"""Folding in gives users what a half sweep of MLlib gives them: its fits end with that very step."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.ml.recommendation import ALSModel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.model.als import fit_explicit, fit_implicit, in_stable_order, with_als_prediction
from spark_app.model.biases import BiasModel, fit_biases, user_biases
from spark_app.model.foldin import fold_in_explicit, fold_in_implicit, outdated_users, with_users
from spark_app.platform.settings import Biases, ExplicitAls, ImplicitAls

RATINGS = "userId INT, movieId INT, rating DOUBLE"
USERS, MOVIES = 25, 40
EXPLICIT = ExplicitAls(rank=5, reg=0.05, iterations=4)
IMPLICIT = ImplicitAls(rank=6, reg=0.2, alpha=3.0, iterations=4)
LOG = IMPLICIT.model_copy(update={"confidence": "log", "neutral": 2.0})
BIASES = Biases(sweeps=2, user_reg=3.0)
HATER, NEW = USERS + 1, USERS + 2
"""A user who likes nothing, and one who came after the fits."""


@pytest.fixture(scope="module")
def ratings(spark: SparkSession) -> DataFrame:
    """300 ratings by 25 users, two by the hater, and movie 41, which nobody likes."""
    rng = np.random.default_rng(5)
    pairs = rng.choice(USERS * MOVIES, 300, replace=False)
    rows = [(int(p // MOVIES) + 1, int(p % MOVIES) + 1, float(rng.integers(1, 11)) / 2) for p in pairs]
    rows += [(HATER, 1, 0.5), (HATER, 2, 1.0), (1, MOVIES + 1, 1.5), (2, MOVIES + 1, 2.0)]
    return in_stable_order(spark.createDataFrame(rows, RATINGS), 3).persist()


@pytest.fixture(scope="module")
def explicit(ratings: DataFrame) -> ALSModel:
    return fit_explicit(ratings, EXPLICIT, 42)


@pytest.fixture(scope="module")
def implicit(ratings: DataFrame) -> ALSModel:
    return fit_implicit(ratings, IMPLICIT, 42)


@pytest.fixture(scope="module")
def biases(ratings: DataFrame) -> BiasModel:
    return fit_biases(ratings, BIASES)


def vectors(factors: DataFrame) -> dict[int, list[float]]:
    rows = factors.collect()
    found = {row.id: list(row.features) for row in rows}
    assert len(found) == len(rows)
    return found


def assert_same(found: DataFrame, expected: DataFrame) -> None:
    ours, theirs = vectors(found), vectors(expected)
    assert ours.keys() == theirs.keys()
    for user, vector in theirs.items():
        assert ours[user] == pytest.approx(vector, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("settings", [IMPLICIT, LOG], ids=["linear", "log"])
def test_implicit_factors_are_those_of_the_last_half_sweep(ratings: DataFrame, settings: ImplicitAls) -> None:
    model = fit_implicit(ratings, settings, 42)
    found = fold_in_implicit(ratings.orderBy(F.rand(1)), model.itemFactors, settings)
    assert found.dtypes == [("id", "int"), ("features", "array<float>")]
    assert_same(found, model.userFactors)
    assert HATER not in vectors(found)


def test_explicit_factors_are_those_of_the_last_half_sweep(ratings: DataFrame, explicit: ALSModel) -> None:
    assert_same(fold_in_explicit(ratings.orderBy(F.rand(1)), explicit.itemFactors, EXPLICIT), explicit.userFactors)


def test_movies_without_factors_count_for_nothing(spark: SparkSession, implicit: ALSModel, explicit: ALSModel) -> None:
    known = spark.createDataFrame([(NEW, 1, 5.0), (NEW, 7, 1.0)], RATINGS)
    unknown = spark.createDataFrame([(NEW, 0, 4.0), (NEW, 900, 5.0), (NEW + 1, 901, 5.0)], RATINGS)

    def by_both(ratings: DataFrame) -> list[dict[int, list[float]]]:
        ranking = fold_in_implicit(ratings, implicit.itemFactors, IMPLICIT)
        return [vectors(ranking), vectors(fold_in_explicit(ratings, explicit.itemFactors, EXPLICIT))]

    expected = by_both(known)
    assert [found.keys() for found in expected] == [{NEW}, {NEW}]
    assert by_both(known.union(unknown)) == expected


def test_a_new_user_has_the_factors_of_a_known_one_with_the_same_ratings(
    ratings: DataFrame, implicit: ALSModel, explicit: ALSModel
) -> None:
    twin = ratings.filter("userId = 3").withColumn("userId", F.lit(NEW))
    fitted = vectors(implicit.userFactors)[3], vectors(explicit.userFactors)[3]
    found = (
        fold_in_implicit(twin, implicit.itemFactors, IMPLICIT),
        fold_in_explicit(twin, explicit.itemFactors, EXPLICIT),
    )
    for factors, expected in zip(found, fitted, strict=True):
        assert vectors(factors)[NEW] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_users_come_in_blocks(monkeypatch: pytest.MonkeyPatch, ratings: DataFrame, explicit: ALSModel) -> None:
    everything = vectors(fold_in_explicit(ratings, explicit.itemFactors, EXPLICIT))
    monkeypatch.setattr("spark_app.model.foldin.BLOCK_USERS", 4)
    assert vectors(fold_in_explicit(ratings.coalesce(1), explicit.itemFactors, EXPLICIT)) == everything


def test_a_model_with_other_users_predicts_as_mllib_does(
    spark: SparkSession, ratings: DataFrame, explicit: ALSModel
) -> None:
    theirs = spark.createDataFrame([(NEW, 1, 5.0), (NEW, 2, 1.5), (2, 1, 4.0)], RATINGS)
    folded = fold_in_explicit(theirs, explicit.itemFactors, EXPLICIT)
    outdated = spark.createDataFrame([(NEW,), (2,), (3,)], "userId INT")
    model = with_users(explicit, outdated, folded)
    users, movies = vectors(model.userFactors), vectors(explicit.itemFactors)
    before = vectors(explicit.userFactors)
    assert users.keys() == before.keys() - {3} | {NEW}
    assert users[2] != pytest.approx(before[2], abs=1e-3)

    pairs = spark.createDataFrame(
        [(user, movie) for user in (NEW, 1, 2, 3) for movie in (5, 900)], "userId INT, movieId INT"
    )
    found = {(row.userId, row.movieId): row.als_prediction for row in with_als_prediction(pairs, model).collect()}
    for user in (NEW, 1, 2):
        assert found[user, 5] == pytest.approx(np.dot(users[user], movies[5]), abs=1e-5)
    assert np.isnan([found[3, 5], *(found[user, 900] for user in (NEW, 1, 2, 3))]).all()
    known = {(row.userId, row.movieId): row.als_prediction for row in with_als_prediction(pairs, explicit).collect()}
    assert found[1, 5] == known[1, 5]


def test_biases_of_the_same_ratings_are_those_of_the_fit(ratings: DataFrame, biases: BiasModel) -> None:
    found = user_biases(ratings.orderBy(F.rand(1)), biases, BIASES)
    expected = {row.userId: (row.user_bias, row.rating_count) for row in biases.users.collect()}
    assert found.columns == biases.users.columns
    assert {
        row.userId: (pytest.approx(row.user_bias, abs=1e-12), row.rating_count) for row in found.collect()
    } == expected


def test_a_bias_is_the_damped_mean_of_what_the_movies_leave(spark: SparkSession) -> None:
    movies = spark.createDataFrame([(1, 0.5, 9), (2, -1.0, 9)], "movieId INT, movie_bias DOUBLE, rating_count LONG")
    users = spark.createDataFrame([], "userId INT, user_bias DOUBLE, rating_count LONG")
    rated = spark.createDataFrame([(7, 1, 4.5), (7, 2, 4.0), (7, 99, 0.5), (8, 99, 5.0)], RATINGS)
    (row,) = user_biases(rated, BiasModel(3.0, users, movies), Biases(user_reg=3.0)).collect()
    assert (row.userId, row.rating_count) == (7, 2)
    assert row.user_bias == pytest.approx(((4.5 - 3.0 - 0.5) + (4.0 - 3.0 + 1.0)) / (2 + 3))


def test_nobody_is_outdated_right_after_the_fit(ratings: DataFrame, biases: BiasModel) -> None:
    assert outdated_users(ratings.orderBy(F.rand(2)), biases, BIASES, changed=True).isEmpty()


@pytest.mark.parametrize(("changed", "expected"), [(False, [NEW]), (True, [1, 2, 3, NEW])])
def test_outdated_users_are_new_or_have_other_ratings(
    spark: SparkSession, ratings: DataFrame, biases: BiasModel, changed: bool, expected: list[int]
) -> None:
    of_user = {user: ratings.filter(f"userId = {user}").collect() for user in (1, 2, 3)}
    unrated = next(m for m in range(1, MOVIES) if m not in {row.movieId for row in of_user[1]})
    now = ratings.filter(
        "userId > 3"
    ).union(
        spark.createDataFrame(
            [
                *of_user[1],
                (1, unrated, 3.0),  # one more
                (2, of_user[2][0].movieId, of_user[2][0].rating - 0.5 or 1.0),  # another opinion
                *of_user[2][1:],
                *of_user[3][1:],  # one less
                (4, 900, 5.0),  # a movie that came after the fit
                (NEW, 1, 5.0),
                (NEW + 1, 900, 5.0),
            ],
            RATINGS,
        )
    )
    found = outdated_users(now, biases, BIASES, changed=changed)
    assert sorted(row.userId for row in found.collect()) == expected
