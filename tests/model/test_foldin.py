"""Fold-in gives users the factors of a half sweep: every fit, ours and MLlib's, ends with the same step."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.model.als import TrainingSet, fit_explicit, fit_implicit
from spark_app.model.biases import BiasModel, fit_biases, user_biases
from spark_app.model.factors import Factors, with_prediction, with_users
from spark_app.model.foldin import fold_in_explicit, fold_in_implicit, outdated_users
from spark_app.model.rating_blocks import pack
from spark_app.platform.settings import Biases, ExplicitAls, ImplicitAls, Train

RATINGS = "userId INT, movieId INT, rating DOUBLE"
USERS, MOVIES = 25, 40
TRAIN = Train(seed=42, tolerance=0.0)
EXPLICIT = ExplicitAls(rank=5, reg=0.05, reg_power=1.0, biases=False, iterations=4)
BIASED = EXPLICIT.model_copy(update={"biases": True, "reg": 0.2, "reg_power": 0.6})
IMPLICIT = ImplicitAls(rank=6, reg=0.2, reg_power=1.0, alpha=3.0, neutral=2.5, confidence="linear", iterations=4)
LOG = IMPLICIT.model_copy(update={"confidence": "log", "neutral": 2.0})
POWER = IMPLICIT.model_copy(update={"reg": 0.4, "reg_power": 0.5})
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
    return spark.createDataFrame(rows, RATINGS).persist()


@pytest.fixture(scope="module")
def training(ratings: DataFrame) -> TrainingSet:
    return TrainingSet(ratings, pack(ratings))


@pytest.fixture(scope="module")
def mean(biases: BiasModel) -> float:
    return biases.mean


@pytest.fixture(scope="module")
def explicit(training: TrainingSet, mean: float) -> Factors:
    """Explicit factors with columns for the biases."""
    return fit_explicit(training, BIASED, TRAIN, mean).factors


@pytest.fixture(scope="module")
def implicit(training: TrainingSet) -> Factors:
    return fit_implicit(training, IMPLICIT, TRAIN).factors


@pytest.fixture(scope="module")
def biases(training: TrainingSet, spark: SparkSession) -> BiasModel:
    return fit_biases(training.blocks, BIASES, spark)


def vectors(factors: DataFrame) -> dict[int, list[float]]:
    rows = factors.collect()
    found = {row.id: list(row.features) for row in rows}
    assert len(found) == len(rows)
    return found


def assert_same(found: DataFrame, expected: DataFrame, within: float = 1e-4) -> None:
    ours, theirs = vectors(found), vectors(expected)
    assert ours.keys() == theirs.keys()
    for user, vector in theirs.items():
        assert ours[user] == pytest.approx(vector, rel=within, abs=within / 10)


@pytest.mark.parametrize("settings", [IMPLICIT, LOG], ids=["linear", "log"])
def test_implicit_factors_are_those_of_the_last_half_sweep_of_mllib(
    training: TrainingSet, settings: ImplicitAls
) -> None:
    model = fit_implicit(training, settings, TRAIN.model_copy(update={"solver": "mllib"})).factors
    found = fold_in_implicit(training.ratings.orderBy(F.rand(1)), model.movies, settings)
    assert found.dtypes == [("id", "int"), ("features", "array<float>")]
    assert_same(found, model.users)
    assert HATER not in vectors(found)


@pytest.mark.parametrize("settings", [EXPLICIT, EXPLICIT.model_copy(update={"biases": True})], ids=["plain", "biased"])
def test_explicit_factors_are_those_of_the_last_half_sweep_of_mllib(
    training: TrainingSet, mean: float, settings: ExplicitAls
) -> None:
    # MLlib fits no biases, whatever the settings say.
    model = fit_explicit(training, settings, TRAIN.model_copy(update={"solver": "mllib"}), mean).factors
    assert_same(fold_in_explicit(training.ratings.orderBy(F.rand(1)), model, settings, mean), model.users)


@pytest.mark.parametrize("settings", [IMPLICIT, LOG, POWER], ids=["linear", "log", "power"])
def test_implicit_factors_are_nearly_those_of_our_last_half_sweep(training: TrainingSet, settings: ImplicitAls) -> None:
    model = fit_implicit(training, settings, TRAIN).factors
    found = fold_in_implicit(training.ratings.orderBy(F.rand(1)), model.movies, settings)
    assert_same(found, model.users, within=2e-3)
    assert HATER not in vectors(found)


@pytest.mark.parametrize("settings", [EXPLICIT, BIASED], ids=["plain", "biased"])
def test_explicit_factors_are_nearly_those_of_our_last_half_sweep(
    training: TrainingSet, mean: float, settings: ExplicitAls
) -> None:
    model = fit_explicit(training, settings, TRAIN, mean).factors
    found = fold_in_explicit(training.ratings.orderBy(F.rand(1)), model, settings, mean)
    assert found.dtypes == [("id", "int"), ("features", "array<float>")]
    assert_same(found, model.users, within=2e-3)


@pytest.mark.parametrize(("solver", "rank"), [("own", 7), ("mllib", 5)])
def test_whether_biases_are_folded_in_is_told_by_the_factors_of_the_fit(
    training: TrainingSet, mean: float, solver: Literal["own", "mllib"], rank: int
) -> None:
    model = fit_explicit(training, BIASED, TRAIN.model_copy(update={"solver": solver}), mean).factors
    assert model.rank == rank
    found = vectors(fold_in_explicit(training.ratings, model, BIASED, mean))
    assert {len(row) for row in found.values()} == {rank}


def test_movies_without_factors_count_for_nothing(
    spark: SparkSession, implicit: Factors, explicit: Factors, mean: float
) -> None:
    known = spark.createDataFrame([(NEW, 1, 5.0), (NEW, 7, 1.0)], RATINGS)
    unknown = spark.createDataFrame([(NEW, 0, 4.0), (NEW, 900, 5.0), (NEW + 1, 901, 5.0)], RATINGS)

    def by_both(ratings: DataFrame) -> list[dict[int, list[float]]]:
        ranking = fold_in_implicit(ratings, implicit.movies, IMPLICIT)
        return [vectors(ranking), vectors(fold_in_explicit(ratings, explicit, BIASED, mean))]

    expected = by_both(known)
    assert [found.keys() for found in expected] == [{NEW}, {NEW}]
    assert by_both(known.union(unknown)) == expected


def test_a_fit_without_factors_folds_nobody_in(
    spark: SparkSession, ratings: DataFrame, explicit: Factors, mean: float
) -> None:
    nothing = explicit.movies.filter("id < 0")
    assert vectors(fold_in_implicit(ratings, nothing, IMPLICIT)) == {}
    assert vectors(fold_in_explicit(ratings, Factors(explicit.rank, explicit.users, nothing), BIASED, mean)) == {}


def test_a_new_user_has_the_factors_of_a_known_one_with_the_same_ratings(
    ratings: DataFrame, implicit: Factors, explicit: Factors, mean: float
) -> None:
    twins = ratings.filter("userId = 3").union(ratings.filter("userId = 3").withColumn("userId", F.lit(NEW)))
    fitted = vectors(implicit.users)[3], vectors(explicit.users)[3]
    found = (
        fold_in_implicit(twins, implicit.movies, IMPLICIT),
        fold_in_explicit(twins, explicit, BIASED, mean),
    )
    for factors, expected in zip(found, fitted, strict=True):
        both = vectors(factors)
        assert both[NEW] == pytest.approx(both[3], rel=1e-6)
        assert both[NEW] == pytest.approx(expected, rel=2e-3, abs=2e-4)


def test_partitions_and_batches_of_users_change_nothing(
    spark: SparkSession, ratings: DataFrame, explicit: Factors, mean: float
) -> None:
    everything = vectors(fold_in_explicit(ratings, explicit, BIASED, mean))
    batch_rows = "spark.sql.execution.arrow.maxRecordsPerBatch"
    usual = str(spark.conf.get(batch_rows))
    spark.conf.set("spark.sql.shuffle.partitions", 4)
    spark.conf.set(batch_rows, "7")
    try:
        found = fold_in_explicit(ratings.repartition(3), explicit, BIASED, mean)
        assert found.rdd.getNumPartitions() == 4
        in_parts = vectors(found)
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", 1)
        spark.conf.set(batch_rows, usual)
    assert in_parts.keys() == everything.keys()
    assert all(in_parts[user] == pytest.approx(vector, rel=1e-5, abs=1e-6) for user, vector in everything.items())


def test_a_model_with_other_users_predicts_by_them(
    spark: SparkSession, ratings: DataFrame, explicit: Factors, mean: float
) -> None:
    theirs = spark.createDataFrame([(NEW, 1, 5.0), (NEW, 2, 1.5), (2, 1, 4.0)], RATINGS)
    folded = fold_in_explicit(theirs, explicit, BIASED, mean)
    outdated = spark.createDataFrame([(NEW,), (2,), (3,)], "userId INT")
    model = with_users(explicit, outdated, folded)
    users, movies = vectors(model.users), vectors(explicit.movies)
    before = vectors(explicit.users)
    assert users.keys() == before.keys() - {3} | {NEW}
    assert users[2] != pytest.approx(before[2], abs=1e-3)

    pairs = spark.createDataFrame(
        [(user, movie) for user in (NEW, 1, 2, 3) for movie in (5, 900)], "userId INT, movieId INT"
    )
    found = predicted(pairs, model)
    for user in (NEW, 1, 2):
        assert found[user, 5] == pytest.approx(np.dot(users[user], movies[5]), abs=1e-5)
    assert np.isnan([found[3, 5], *(found[user, 900] for user in (NEW, 1, 2, 3))]).all()
    assert found[1, 5] == predicted(pairs, explicit)[1, 5]


def predicted(pairs: DataFrame, model: Factors) -> dict[tuple[int, int], float]:
    return {(row.userId, row.movieId): row.als for row in with_prediction(pairs, model, "als").collect()}


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
                (1, unrated, 3.0),  # one rating more
                (2, of_user[2][0].movieId, of_user[2][0].rating - 0.5 or 1.0),  # a changed rating
                *of_user[2][1:],
                *of_user[3][1:],  # one rating less
                (4, 900, 5.0),  # a movie that came after the fit
                (NEW, 1, 5.0),
                (NEW + 1, 900, 5.0),
            ],
            RATINGS,
        )
    )
    found = outdated_users(now, biases, BIASES, changed=changed)
    assert sorted(row.userId for row in found.collect()) == expected
