"""Factors as frames: predictions, replacement of users, and conversion to the solver and back."""

from __future__ import annotations

import math
from datetime import datetime

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.model import factors as module
from spark_app.model.factors import (
    Factors,
    as_factors,
    as_frame,
    as_solution,
    collected,
    with_prediction,
    with_users,
)
from spark_app.model.half_sweep import Problem, Ridge, SquaredError
from spark_app.model.matrices import FactorMatrix
from spark_app.model.rating_blocks import pack
from spark_app.model.solver import Options, Solution, fit

FACTORS = "id INT, features ARRAY<FLOAT>"
PAIRS = "userId INT, movieId INT"
RANK = 3

PLAIN = Problem(SquaredError(), Ridge(0.1))
BIASED = Problem(SquaredError(), Ridge(0.1), mean=3.25)
OF_BOTH = pytest.mark.parametrize("problem", [PLAIN, BIASED], ids=["without biases", "with biases"])


@pytest.fixture(scope="module")
def rated(spark: SparkSession) -> DataFrame:
    """Ratings of 12 movies by 20 users, for two thirds of the pairs."""
    rng = np.random.default_rng(3)
    pairs = [(user, movie) for user in range(1, 21) for movie in range(1, 13) if (user + movie) % 3]
    rows = [(user, movie, float(rng.integers(1, 11)) / 2) for user, movie in pairs]
    return spark.createDataFrame(rows, f"{PAIRS}, rating DOUBLE").persist()


@pytest.fixture(scope="module")
def by_hand(spark: SparkSession) -> Factors:
    """Two factors of three users and three movies."""
    users = spark.createDataFrame([(2, [0.0, 1.0]), (1, [1.0, 0.5]), (-7, [-2.0, 0.0])], FACTORS)
    movies = spark.createDataFrame([(30, [3.0, -1.0]), (10, [1.0, 2.0]), (0, [0.5, 0.5])], FACTORS)
    return Factors(2, users, movies)


def solution_of(rated: DataFrame, problem: Problem) -> Solution:
    return fit(pack(rated), problem, Options(RANK, sweeps=2, seed=42))


def vectors(frame: DataFrame) -> dict[int, list[float]]:
    rows = frame.collect()
    found = {row.id: list(row.features) for row in rows}
    assert len(found) == len(rows)
    return found


def predicted(frame: DataFrame, column: str = "als") -> dict[tuple[int, int], float]:
    return {(row["userId"], row["movieId"]): row[column] for row in frame.collect()}


# Predictions


def test_a_prediction_is_the_product_of_both_factors(spark: SparkSession, by_hand: Factors) -> None:
    pairs = spark.createDataFrame([(user, movie) for user in (1, 2, -7) for movie in (0, 10, 30)], PAIRS)
    assert predicted(with_prediction(pairs, by_hand, "als")) == {
        (1, 0): 0.75,
        (1, 10): 2.0,
        (1, 30): 2.5,
        (2, 0): 0.5,
        (2, 10): 2.0,
        (2, 30): -1.0,
        (-7, 0): -1.0,
        (-7, 10): -2.0,
        (-7, 30): -6.0,
    }


def test_who_or_what_has_no_factors_is_predicted_nan_and_not_null(spark: SparkSession, by_hand: Factors) -> None:
    pairs = spark.createDataFrame([(1, 99), (99, 10), (99, 99), (1, 10)], PAIRS)
    found = predicted(with_prediction(pairs, by_hand, "als"))
    assert found.pop((1, 10)) == 2.0
    assert len(found) == 3
    assert all(math.isnan(value) for value in found.values())


@pytest.mark.parametrize("missing", ["users", "movies"])
def test_without_any_factors_all_are_nan(spark: SparkSession, by_hand: Factors, missing: str) -> None:
    nobody = spark.createDataFrame([], FACTORS)
    users, movies = (nobody if side == missing else getattr(by_hand, side) for side in ("users", "movies"))
    found = with_prediction(spark.createDataFrame([(1, 10)], PAIRS), Factors(2, users, movies), "als")
    assert math.isnan(found.collect()[0]["als"])


def test_all_other_columns_stay_whatever_they_are(spark: SparkSession, by_hand: Factors) -> None:
    schema = (
        "title STRING, movieId INT, because ARRAY<INT>, userId INT, genres ARRAY<STRING>, rating DOUBLE, "
        "rated LONG, at TIMESTAMP, place STRUCT<rank: INT, score: DOUBLE>, is_last BOOLEAN"
    )
    rows = [
        ("Heat", 10, [1, 2], 1, ["Drama", "Crime"], 4.5, 2**40, datetime(2020, 1, 2, 3, 4, 5, 678901), (1, 0.5), True),
        (None, 30, [], 2, None, None, None, None, None, None),
        ("L'Été", 99, None, 1, [""], -0.0, -1, datetime(1970, 1, 1), (2, None), False),
    ]
    pairs = spark.createDataFrame(rows, schema).withColumn("kind", F.lit("a constant, never null"))
    found = with_prediction(pairs, by_hand, "als")
    assert found.columns == [*pairs.columns, "als"]
    assert found.dtypes == [*pairs.dtypes, ("als", "float")]
    assert sorted(map(str, found.drop("als").collect())) == sorted(map(str, pairs.collect()))
    assert predicted(found)[1, 10] == 2.0


def test_pairs_that_are_there_twice_stay_twice(spark: SparkSession, by_hand: Factors) -> None:
    pairs = spark.createDataFrame([(1, 10), (1, 10), (2, 10)], PAIRS)
    assert [row["als"] for row in with_prediction(pairs, by_hand, "als").collect()] == [2.0, 2.0, 2.0]


def test_no_pairs_are_no_predictions(spark: SparkSession, by_hand: Factors) -> None:
    found = with_prediction(spark.createDataFrame([], PAIRS), by_hand, "als")
    assert found.collect() == []


@pytest.mark.parametrize("partitions", [1, 3])
def test_predictions_do_not_depend_on_partitions_and_batches(
    spark: SparkSession, rated: DataFrame, monkeypatch: pytest.MonkeyPatch, partitions: int
) -> None:
    found = as_factors(solution_of(rated, PLAIN), PLAIN, spark)
    expected = predicted(with_prediction(rated, found, "als"))
    monkeypatch.setattr(module, "BATCH_PAIRS", 7)
    spark.conf.set("spark.sql.shuffle.partitions", partitions)
    try:
        shuffled = with_prediction(rated.repartition(4).orderBy(F.rand(1)), found, "als")
        assert shuffled.rdd.getNumPartitions() == partitions
        assert predicted(shuffled) == expected
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", 1)


@OF_BOTH
def test_what_was_solved_predicts_by_factors_and_biases(
    spark: SparkSession, rated: DataFrame, problem: Problem
) -> None:
    solution = solution_of(rated, problem)
    users, movies = (
        dict(zip(side.ids.tolist(), side.factors.astype(np.float64), strict=True))
        for side in (solution.users, solution.movies)
    )
    found = predicted(with_prediction(rated, as_factors(solution, problem, spark), "als"))
    assert len(found) == rated.count()
    for (user, movie), value in found.items():
        one, other = users[user], movies[movie]
        by_hand = one @ other if problem.mean is None else one[:-1] @ other[:-1] + one[-1] + other[-1] + problem.mean
        assert value == pytest.approx(by_hand, abs=1e-5)


# Replacement of users


def test_outdated_users_have_the_factors_that_are_given_or_none(spark: SparkSession, by_hand: Factors) -> None:
    outdated = spark.createDataFrame([(1,), (2,), (50,)], "userId INT")
    theirs = spark.createDataFrame([(1, [9.0, 9.0]), (50, [0.0, 4.0])], FACTORS)
    found = with_users(by_hand, outdated, theirs)
    assert vectors(found.users) == {-7: [-2.0, 0.0], 1: [9.0, 9.0], 50: [0.0, 4.0]}
    assert vectors(found.movies) == vectors(by_hand.movies)
    assert found.rank == 2


# To the solver and back


@OF_BOTH
def test_factors_go_back_to_the_solver_as_they_came(spark: SparkSession, rated: DataFrame, problem: Problem) -> None:
    solution = solution_of(rated, problem)
    found = as_factors(solution, problem, spark)
    assert found.rank == RANK + (2 if problem.mean is not None else 0)
    assert all(len(row) == found.rank for row in vectors(found.users).values())
    back = as_solution(found, problem)
    for ours, theirs in ((back.users, solution.users), (back.movies, solution.movies)):
        assert ours.ids.tolist() == theirs.ids.tolist()
        assert ours.has_factors.all()
        assert ours.factors.dtype == np.float32
        np.testing.assert_allclose(ours.factors, theirs.factors, rtol=0, atol=1e-6)


def test_biases_are_two_columns_whose_products_are_the_mean_and_both(spark: SparkSession, rated: DataFrame) -> None:
    solution = solution_of(rated, BIASED)
    found = as_factors(solution, BIASED, spark)
    biases = solution.users.factors[:, -1].tolist(), solution.movies.factors[:, -1].tolist()
    assert [row[-2:] for _, row in sorted(vectors(found.users).items())] == [
        [pytest.approx(3.25 + bias), 1.0] for bias in biases[0]
    ]
    assert [row[-2:] for _, row in sorted(vectors(found.movies).items())] == [
        [1.0, pytest.approx(bias)] for bias in biases[1]
    ]


def test_who_has_no_factors_is_in_no_frame(spark: SparkSession) -> None:
    solution = fit(
        pack(spark.createDataFrame([(1, 1, 4.0), (2, 2, 1.0)], f"{PAIRS}, rating DOUBLE")),
        PLAIN,
        Options(RANK, sweeps=1, seed=42),
    )
    solution.users.has_factors[1] = False
    found = as_factors(solution, PLAIN, spark)
    assert vectors(found.users).keys() == {1}
    assert vectors(found.movies).keys() == {1, 2}


def test_a_frame_has_the_rows_of_its_matrix(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FRAME_ROWS", 3)
    for rows in (0, 1, 3, 7):
        ids = np.arange(rows, dtype=np.int32) * 5 - 10
        matrix = FactorMatrix(ids, np.arange(2 * rows, dtype=np.float32).reshape(rows, 2))
        frame = as_frame(spark, matrix)
        assert frame.dtypes == [("id", "int"), ("features", "array<float>")]
        assert frame.rdd.getNumPartitions() == max(1, math.ceil(rows / 3))
        assert vectors(frame) == dict(zip(ids.tolist(), matrix.rows.tolist(), strict=True))
        back = collected(frame.orderBy(F.rand(1)), 2)
        assert back.ids.tolist() == ids.tolist()
        assert back.rows.tolist() == matrix.rows.tolist()
