from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.model.als import TrainingSet, fit_explicit
from spark_app.model.biases import BiasModel
from spark_app.model.factors import Factors, with_prediction
from spark_app.model.rating_blocks import pack
from spark_app.model.stack import StackWeights, fit_stack, with_both_predictions, with_predicted_ratings
from spark_app.platform.settings import ExplicitAls, Train
from spark_app.platform.spark_versions import to_arrow

SCALE = (0.5, 5.0)
WIDE = (-100.0, 100.0)
BOTH = "userId INT, movieId INT, rating DOUBLE, bias DOUBLE, explicit DOUBLE, user_ratings LONG, movie_ratings LONG"


@pytest.fixture(scope="module")
def ratings(spark: SparkSession) -> DataFrame:
    """Ratings of 12 movies by 20 users, for two thirds of the pairs."""
    rng = np.random.default_rng(3)
    pairs = [(user, movie) for user in range(1, 21) for movie in range(1, 13) if (user + movie) % 3]
    rows = [(user, movie, float(rng.integers(1, 11)) / 2) for user, movie in pairs]
    return spark.createDataFrame(rows, "userId INT, movieId INT, rating DOUBLE").persist()


@pytest.fixture(scope="module")
def explicit(ratings: DataFrame) -> Factors:
    settings = ExplicitAls(rank=3, reg=0.1, reg_power=1.0, iterations=3)
    return fit_explicit(TrainingSet(ratings, pack(ratings)), settings, Train(seed=42), mean=2.75).factors


@pytest.fixture(scope="module")
def biases(spark: SparkSession) -> BiasModel:
    """User 1 is generous beyond the scale, user 2 strict beyond it; movie 1 is a bit better than others."""
    return BiasModel(
        mean=3.0,
        users=spark.createDataFrame([(1, 4.0, 8), (2, -4.0, 8)], "userId INT, user_bias DOUBLE, rating_count LONG"),
        movies=spark.createDataFrame([(1, 0.25, 13)], "movieId INT, movie_bias DOUBLE, rating_count LONG"),
    )


def predicted(frame: DataFrame, column: str) -> dict[tuple[int, int], float]:
    return {(row["userId"], row["movieId"]): row[column] for row in frame.collect()}


def test_ratings_are_predicted_by_each_model_and_clipped(
    spark: SparkSession, ratings: DataFrame, biases: BiasModel, explicit: Factors
) -> None:
    weights = StackWeights(0.5, 0.0, 0.0)
    raw = predicted(with_prediction(ratings, explicit, "explicit"), "explicit")
    assert min(raw.values()) < 2.5
    assert max(raw.values()) > 3.0
    found = with_predicted_ratings(ratings, biases, explicit, weights, (2.5, 3.0))
    assert {"userId", "movieId", "rating", "explicit", "bias", "stacked"} == set(found.columns)
    bias = {(1, 1): 7.25, (2, 1): -0.75}
    for row in found.collect():
        pair = row["userId"], row["movieId"]
        assert row["explicit"] == pytest.approx(min(3.0, max(2.5, raw[pair])), abs=1e-5)
        if pair in bias:
            assert row["bias"] == (3.0 if bias[pair] > 3 else 2.5)
            assert row["stacked"] == pytest.approx(min(3.0, max(2.5, (bias[pair] + raw[pair]) / 2)), abs=1e-5)


def test_predictions_fall_back_to_biases_and_are_never_null(
    spark: SparkSession, biases: BiasModel, explicit: Factors
) -> None:
    # 99 is unknown to both models; movie 1 and user 1 are known to both.
    asked = spark.createDataFrame([(99, 1), (1, 99), (2, 99), (99, 99)], "userId INT, movieId INT")
    found = with_predicted_ratings(asked, biases, explicit, StackWeights(), SCALE)
    expected = {(99, 1): 3.25, (1, 99): 5.0, (2, 99): 0.5, (99, 99): 3.0}
    for model in ("explicit", "bias", "stacked"):
        assert predicted(found, model) == expected
    counts = with_both_predictions(asked, biases, explicit)
    assert predicted(counts, "user_ratings") == {(99, 1): 0, (1, 99): 8, (2, 99): 8, (99, 99): 0}
    assert predicted(counts, "movie_ratings") == {(99, 1): 13, (1, 99): 0, (2, 99): 0, (99, 99): 0}


def made_pairs(count: int) -> pd.DataFrame:
    """Pairs with predictions, counts and ratings drawn at random; a user rates 40 movies."""
    rng = np.random.default_rng(9)
    numbers = np.arange(count)
    return pd.DataFrame(
        {
            "userId": numbers // 40 + 1,
            "movieId": numbers % 40 + 1,
            "rating": rng.integers(1, 11, count) / 2,
            "bias": rng.uniform(1, 5, count),
            "explicit": rng.uniform(1, 5, count),
            "user_ratings": rng.integers(0, 500, count),
            "movie_ratings": rng.integers(0, 500, count),
        }
    )


def features(pairs: pd.DataFrame) -> np.ndarray:
    counts = np.log1p(pairs[["user_ratings", "movie_ratings"]].to_numpy(float))
    return np.column_stack([np.ones(len(pairs)), counts])


def stacked(pairs: pd.DataFrame, weights: np.ndarray) -> np.ndarray:
    return np.asarray(pairs["bias"] + np.clip(features(pairs) @ weights, 0, 1) * (pairs["explicit"] - pairs["bias"]))


def values(weights: StackWeights) -> list[float]:
    return [weights.constant, weights.user, weights.movie]


def test_weights_that_made_the_ratings_are_found_again(spark: SparkSession) -> None:
    pairs = made_pairs(400)
    pairs["rating"] = stacked(pairs, np.array([0.1, 0.05, 0.08]))
    weights, found = fit_stack(spark.createDataFrame(pairs), WIDE)
    assert values(weights) == pytest.approx([0.1, 0.05, 0.08], abs=2e-6)
    assert all(row["stacked"] == pytest.approx(row["rating"], abs=1e-4) for row in found.collect())


def test_the_weights_of_a_half_are_those_that_fit_the_other(spark: SparkSession) -> None:
    half = F.pmod(F.xxhash64(F.lit("stack"), "movieId", "userId"), F.lit(2))
    weights, found = fit_stack(spark.createDataFrame(made_pairs(300)), WIDE)
    table = to_arrow(found.withColumn("half", half)).to_pandas()
    assert 100 < table["half"].sum() < 200

    def least_squares(pairs: pd.DataFrame) -> np.ndarray:
        gap = (pairs["explicit"] - pairs["bias"]).to_numpy()[:, None]
        target = (pairs["rating"] - pairs["bias"]).to_numpy()
        return np.asarray(np.linalg.lstsq(features(pairs) * gap, target, rcond=None)[0])

    assert values(weights) == pytest.approx(least_squares(table), abs=1e-5)
    for side in (0, 1):
        here, other = table[table["half"] == side], table[table["half"] != side]
        assert here["stacked"].to_numpy() == pytest.approx(stacked(here, least_squares(other)), abs=1e-4)


@pytest.mark.parametrize("weight", [3.0, -2.0])
def test_a_stack_lies_between_its_models(spark: SparkSession, weight: float) -> None:
    pairs = made_pairs(100)
    pairs["rating"] = pairs["bias"] + weight * (pairs["explicit"] - pairs["bias"])
    weights, found = fit_stack(spark.createDataFrame(pairs), WIDE)
    assert values(weights) == pytest.approx([weight, 0.0, 0.0], abs=1e-5)
    nearest = "explicit" if weight > 1 else "bias"
    assert all(row["stacked"] == pytest.approx(row[nearest]) for row in found.collect())


@pytest.mark.parametrize("rows", [1, 5])
def test_models_that_agree_everywhere_leave_the_stack_where_they_are(spark: SparkSession, rows: int) -> None:
    pairs = [(n, 1, 4.0, 3.5, 3.5, 2, 9) for n in range(1, rows + 1)]
    weights, found = fit_stack(spark.createDataFrame(pairs, BOTH), SCALE)
    assert weights == StackWeights(0.0, 0.0, 0.0)
    assert [row["stacked"] for row in found.collect()] == [3.5] * rows
