from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from chispa import assert_approx_df_equality
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.model.biases import BiasModel, fit_biases, user_biases, with_bias_prediction
from spark_app.model.rating_blocks import pack
from spark_app.platform.settings import Biases

RATINGS = "userId INT, movieId INT, rating DOUBLE"
PREDICTED = "userId INT, movieId INT, bias DOUBLE, user_ratings LONG, movie_ratings LONG"
THREE_RATINGS = [(1, 10, 5.0), (1, 20, 3.0), (2, 10, 4.0)]


def fit(ratings: DataFrame, settings: Biases) -> BiasModel:
    return fit_biases(pack(ratings), settings, ratings.sparkSession)


def biases_of(model: BiasModel) -> tuple[dict[int, float], dict[int, float]]:
    users = {row.userId: row.user_bias for row in model.users.collect()}
    return users, {row.movieId: row.movie_bias for row in model.movies.collect()}


def test_one_sweep_gives_damped_deviations_by_hand(spark: SparkSession) -> None:
    ratings = spark.createDataFrame(THREE_RATINGS, RATINGS)
    model = fit(ratings, Biases(movie_reg=1, user_reg=1, sweeps=1))
    users, movies = biases_of(model)
    assert model.mean == 4.0
    assert {row.movieId: row.rating_count for row in model.movies.collect()} == {10: 2, 20: 1}
    assert {row.userId: row.rating_count for row in model.users.collect()} == {1: 2, 2: 1}
    # The mean is 4, the deviations are 1, -1 and 0. Movies first, then users on what movies leave:
    # 2/3 and -1/2 for user 1, -1/3 for user 2.
    assert movies == pytest.approx({10: 1 / 3, 20: -1 / 2})
    assert users == pytest.approx({1: (2 / 3 - 1 / 2) / 3, 2: -1 / 6})


def test_without_damping_biases_are_plain_means(spark: SparkSession) -> None:
    ratings = spark.createDataFrame(THREE_RATINGS, RATINGS)
    users, movies = biases_of(fit(ratings, Biases(movie_reg=0, user_reg=0, sweeps=1)))
    # Movie 10 is rated 4.5, movie 20 is rated 3; that leaves user 1 at 0.5 and 0, user 2 at -0.5.
    assert movies == pytest.approx({10: 0.5, 20: -1.0})
    assert users == pytest.approx({1: 0.25, 2: -0.5})


def test_sweeps_agree_with_numpy(spark: SparkSession) -> None:
    rng = np.random.default_rng(5)
    pairs = rng.choice(20 * 15, 120, replace=False)
    rows = [(int(p // 15) + 1, int(p % 15) + 1, float(rng.integers(1, 11)) / 2) for p in pairs]
    model = fit(spark.createDataFrame(rows, RATINGS), Biases(movie_reg=3, user_reg=5, sweeps=3))
    users, movies = reference(rows, movie_reg=3, user_reg=5, sweeps=3)
    found_users, found_movies = biases_of(model)
    assert found_users == pytest.approx(users)
    assert found_movies == pytest.approx(movies)


def reference(
    rows: list[tuple[int, int, float]], movie_reg: float, user_reg: float, sweeps: int
) -> tuple[dict[int, float], dict[int, float]]:
    mean = np.mean([rating for _, _, rating in rows])
    users: dict[int, float] = defaultdict(float)
    movies: dict[int, float] = defaultdict(float)
    for _ in range(sweeps):
        for movie in {movie for _, movie, _ in rows}:
            left = [rating - mean - users[u] for u, m, rating in rows if m == movie]
            movies[movie] = float(np.sum(left) / (len(left) + movie_reg))
        for user in {user for user, _, _ in rows}:
            left = [rating - mean - movies[m] for u, m, rating in rows if u == user]
            users[user] = float(np.sum(left) / (len(left) + user_reg))
    return dict(users), dict(movies)


def test_a_model_has_the_columns_and_types_that_are_written(spark: SparkSession) -> None:
    model = fit(spark.createDataFrame(THREE_RATINGS, RATINGS), Biases())
    assert model.users.dtypes == [("userId", "int"), ("user_bias", "double"), ("rating_count", "bigint")]
    assert model.movies.dtypes == [("movieId", "int"), ("movie_bias", "double"), ("rating_count", "bigint")]


def test_a_model_does_not_depend_on_order_and_partitions(spark: SparkSession) -> None:
    rng = np.random.default_rng(6)
    pairs = rng.choice(20 * 15, 120, replace=False)
    rows = [(int(p // 15) + 1, int(p % 15) + 1, float(rng.integers(1, 11)) / 2) for p in pairs]
    ratings = spark.createDataFrame(rows, RATINGS)
    one, other = (fit(frame, Biases(sweeps=3)) for frame in (ratings.coalesce(1), ratings.orderBy(F.rand(2))))
    assert one.mean == other.mean
    assert biases_of(one) == biases_of(other)


def test_the_biases_stay_when_the_packed_ratings_are_let_go(spark: SparkSession) -> None:
    packed = pack(spark.createDataFrame(THREE_RATINGS, RATINGS))
    model = fit_biases(packed, Biases(movie_reg=0, user_reg=0, sweeps=1), spark)
    packed.unpersist()
    assert biases_of(model)[0] == pytest.approx({1: 0.25, 2: -0.5})


@pytest.mark.parametrize(("low", "high", "step"), [(0.5, 5.0, 0.5), (0.0, 100.0, 0.1), (1.0, 100_000.0, 1.0)])
def test_biases_are_those_of_the_same_ratings_by_spark_on_any_scale(
    spark: SparkSession, low: float, high: float, step: float
) -> None:
    # Users with few ratings and little damping show every rounding. 0.1 is no exact float: both must round it equally.
    rng = np.random.default_rng(5)
    steps = round((high - low) / step)
    rows = [(u, int(m), low + step * int(rng.integers(0, steps + 1))) for u in range(1, 30) for m in rng.choice(9, 3)]
    ratings = spark.createDataFrame(list({row[:2]: row for row in rows}.values()), RATINGS)
    settings = Biases(movie_reg=2, user_reg=0.5, sweeps=2)
    model = fit(ratings, settings)
    by_spark = {row.userId: row.user_bias for row in user_biases(ratings, model, settings).collect()}
    assert biases_of(model)[0] == pytest.approx(by_spark, abs=1e-13 * high)


def test_prediction_is_the_mean_plus_what_is_known(spark: SparkSession) -> None:
    model = BiasModel(
        mean=3.0,
        users=spark.createDataFrame([(1, 0.5, 4)], "userId INT, user_bias DOUBLE, rating_count LONG"),
        movies=spark.createDataFrame([(10, -0.2, 7)], "movieId INT, movie_bias DOUBLE, rating_count LONG"),
    )
    predicted = with_bias_prediction(pairs(spark, [(1, 10), (1, 99), (8, 10), (8, 99)]), model)
    rows = [(1, 10, 3.3, 4, 7), (1, 99, 3.5, 4, 0), (8, 10, 2.8, 0, 7), (8, 99, 3.0, 0, 0)]
    expected = spark.createDataFrame(rows, PREDICTED)
    assert_approx_df_equality(
        predicted.select("userId", "movieId", "bias", "user_ratings", "movie_ratings"),
        expected,
        1e-9,
        ignore_nullable=True,
        ignore_row_order=True,
    )


def test_prediction_keeps_other_columns_and_every_pair_once(spark: SparkSession) -> None:
    model = fit(spark.createDataFrame(THREE_RATINGS, RATINGS), Biases(sweeps=1))
    predicted = with_bias_prediction(spark.createDataFrame(THREE_RATINGS, RATINGS), model)
    assert set(predicted.columns) == {"userId", "movieId", "rating", "bias", "user_ratings", "movie_ratings"}
    assert sorted((row.userId, row.movieId, row.rating) for row in predicted.collect()) == THREE_RATINGS


def pairs(spark: SparkSession, rows: list[tuple[int, int]]) -> DataFrame:
    return spark.createDataFrame(rows, "userId INT, movieId INT")
