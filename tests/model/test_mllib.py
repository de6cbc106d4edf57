"""MLlib as a second solver, and its format on disk."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.ml.recommendation import ALS, ALSModel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.model import mllib
from spark_app.model.als import TrainingSet, fit_explicit, fit_implicit
from spark_app.model.factors import Factors, with_prediction
from spark_app.model.half_sweep import Preference
from spark_app.model.mllib import in_stable_order, preference
from spark_app.model.rating_blocks import pack
from spark_app.platform.progress import Steps, progress
from spark_app.platform.settings import ExplicitAls, ImplicitAls, Train

RATINGS = "userId INT, movieId INT, rating DOUBLE"
FACTORS = "id INT, features ARRAY<FLOAT>"
TRAIN = Train(seed=42, solver="mllib")
EXPLICIT = ExplicitAls(rank=3, reg=0.1, reg_power=1.0, iterations=3)
IMPLICIT = ImplicitAls(rank=3, reg=0.1, reg_power=1.0, alpha=2.0, neutral=2.5, confidence="linear", iterations=3)


@pytest.fixture(scope="module")
def ratings(spark: SparkSession) -> DataFrame:
    """Ratings of 12 movies by 20 users, for two thirds of the pairs; user 21 likes nothing, nobody likes movie 13."""
    rng = np.random.default_rng(3)
    pairs = [(user, movie) for user in range(1, 21) for movie in range(1, 13) if (user + movie) % 3]
    rows = [(user, movie, float(rng.integers(1, 11)) / 2) for user, movie in pairs]
    rows += [(21, 1, 0.5), (21, 2, 2.5), (1, 13, 1.0), (2, 13, 2.0)]
    return spark.createDataFrame(rows, RATINGS).persist()


def fit(ratings: DataFrame, settings: ExplicitAls | ImplicitAls, train: Train = TRAIN) -> Factors:
    training, train = TrainingSet(ratings, pack(ratings)), train.model_copy(update={"solver": "mllib"})
    if isinstance(settings, ExplicitAls):
        return fit_explicit(training, settings, train, mean=3.0).factors
    return fit_implicit(training, settings, train).factors


def vectors(frame: DataFrame) -> dict[int, list[float]]:
    return {row.id: list(row.features) for row in frame.collect()}


def both(factors: Factors) -> tuple[dict[int, list[float]], dict[int, list[float]]]:
    return vectors(factors.users), vectors(factors.movies)


def als(settings: ExplicitAls | ImplicitAls, **more: Any) -> ALS:
    """MLlib's own ALS with the parameters that our settings stand for."""
    return ALS(
        rank=settings.rank,
        maxIter=settings.iterations,
        regParam=settings.reg,
        seed=TRAIN.seed,
        numUserBlocks=4,
        numItemBlocks=4,
        userCol="userId",
        itemCol="movieId",
        ratingCol="rating",
        **more,
    )


# As a solver


def test_a_fit_is_one_by_mllib_itself(ratings: DataFrame) -> None:
    model = als(EXPLICIT).fit(in_stable_order(ratings, 4))
    found = fit(ratings, EXPLICIT)
    assert found.rank == 3
    assert both(found) == (vectors(model.userFactors), vectors(model.itemFactors))


@pytest.mark.parametrize("confidence", ["linear", "log"])
def test_preferences_are_given_as_mllib_takes_them_and_only_of_who_and_what_is_liked(
    ratings: DataFrame, confidence: str
) -> None:
    liked = ratings.filter("userId <= 20 AND movieId <= 12")
    above = F.col("rating") - 2.5
    said = F.when(above >= 0, F.log(1 + above)).otherwise(-F.log(1 - above)) if confidence == "log" else above
    model = als(IMPLICIT, implicitPrefs=True, alpha=2.0).fit(in_stable_order(liked, 4).withColumn("rating", said))
    found = fit(ratings, IMPLICIT.model_copy(update={"confidence": confidence}))
    for ours, theirs in zip(both(found), (model.userFactors, model.itemFactors), strict=True):
        expected = vectors(theirs)
        assert ours.keys() == expected.keys()
        assert all(ours[key] == pytest.approx(expected[key], abs=1e-5) for key in expected)


@pytest.mark.parametrize("settings", [EXPLICIT, IMPLICIT], ids=["explicit", "implicit"])
def test_factors_do_not_depend_on_order_and_partitions(ratings: DataFrame, settings: ExplicitAls | ImplicitAls) -> None:
    shuffled = ratings.orderBy(F.rand(7)).repartition(4, "movieId")
    assert both(fit(ratings.coalesce(1), settings)) == both(fit(shuffled, settings))


def test_biases_are_not_fitted(ratings: DataFrame) -> None:
    without = EXPLICIT.model_copy(update={"biases": False})
    assert both(fit(ratings, EXPLICIT.model_copy(update={"biases": True}))) == both(fit(ratings, without))


def test_for_another_power_mllib_is_given_the_reg_that_is_as_large_in_all(spark: SparkSession, said: list[str]) -> None:
    # Users have 4, 1 and 1 ratings, movies 3, 1, 1 and 1: 0.3 (2 + 1 + 1 + sqrt(3) + 1 + 1 + 1) / 12.
    rows = [(1, 1, 5.0), (1, 2, 4.0), (1, 3, 3.0), (1, 4, 1.0), (2, 1, 4.0), (3, 1, 3.0)]
    ratings = spark.createDataFrame(rows, RATINGS)
    reg = 0.3 * (7 + math.sqrt(3)) / 12
    found = fit(ratings, EXPLICIT.model_copy(update={"reg": 0.3, "reg_power": 0.5}))
    assert said[0] == (
        "MLlib supports only reg_power 1: explicit_als.reg is 0.2183, as strong in total as 0.3 with reg_power 0.5"
    )
    told = len(said)
    expected = fit(ratings, EXPLICIT.model_copy(update={"reg": reg, "reg_power": 1.0}))
    assert both(found) == both(expected)
    assert not [message for message in said[told:] if "reg_power" in message]


def test_the_reg_of_preferences_counts_likes_and_those_who_have_some(spark: SparkSession, said: list[str]) -> None:
    # Users have 2 likes, 1 and none; movies 2, 1 and none: 0.6 (1 + 1 + 1 + 1) / (3 + 3).
    rows = [(1, 1, 5.0), (1, 2, 4.0), (2, 1, 4.0), (2, 3, 1.0), (3, 3, 1.0)]
    fit(spark.createDataFrame(rows, RATINGS), IMPLICIT.model_copy(update={"reg": 0.6, "reg_power": 0.0}))
    assert said[0] == (
        "MLlib supports only reg_power 1: implicit_als.reg is 0.4, as strong in total as 0.6 with reg_power 0"
    )


@pytest.mark.parametrize("settings", [EXPLICIT, IMPLICIT], ids=["explicit", "implicit"])
def test_sweeps_beyond_the_checkpoint_interval_need_a_folder_for_checkpoints(
    ratings: DataFrame, settings: ExplicitAls | ImplicitAls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyspark.SparkContext.getCheckpointDir", lambda _: None)
    with pytest.raises(RuntimeError) as caught:
        fit(ratings, settings.model_copy(update={"iterations": 6}))
    assert str(caught.value) == "call SparkContext.setCheckpointDir: MLlib's ALS needs it for more than 5 sweeps"


@pytest.mark.parametrize("settings", [EXPLICIT, IMPLICIT], ids=["explicit", "implicit"])
def test_progress_of_a_fit_counts_its_sweeps(
    spark: SparkSession,
    ratings: DataFrame,
    settings: ExplicitAls | ImplicitAls,
    said: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected: list[Steps] = []

    @contextlib.contextmanager
    def each_stage(session: SparkSession, what: str, steps: Steps) -> Iterator[None]:
        """Report each stage as one step, and allow for 99, so that a stage counted too often would be seen."""
        expected.append(steps)
        with progress(session, "fitting", replace(steps, parts=1, total=99), poll_seconds=0.02):
            yield
            time.sleep(0.5)

    monkeypatch.setattr(mllib, "progress", each_stage)
    # Seven sweeps include checkpoints, whose jobs contain stages that have been run before.
    spark.sparkContext.setCheckpointDir(str(tmp_path))
    fit(ratings, settings.model_copy(update={"iterations": 7}))
    assert [(steps.name, steps.total, steps.parts) for steps in expected] == [("sweep", 7, 2)]
    kind = "explicit" if isinstance(settings, ExplicitAls) else "implicit"
    assert said[0] == f"fitting {kind} ALS by MLlib: rank 3, 7 sweeps"
    assert said[1].startswith("fitting: preparing, ")
    steps = [int(message.removeprefix("fitting: sweep ").partition(" of 99, ")[0]) for message in said[2:]]
    assert steps == sorted(steps)
    assert len(steps) > 3
    assert steps[-1] == 2 * 7


def test_a_preference_is_the_distance_from_neutral_or_its_logarithm(spark: SparkSession) -> None:
    rows = spark.createDataFrame([(5.0,), (3.0,), (0.5,)], "rating DOUBLE")
    for logarithmic, expected in ((False, [2.0, 0.0, -2.5]), (True, [math.log(3), 0.0, -math.log(3.5)])):
        said = rows.select(preference(Preference(1.0, 3.0, logarithmic)).alias("said")).collect()
        assert [row.said for row in said] == pytest.approx(expected)


# The order of rows


def test_stable_order_keeps_every_rating_and_drops_other_columns(ratings: DataFrame) -> None:
    ordered = in_stable_order(ratings.withColumn("timestamp", F.current_timestamp()), 3)
    assert ordered.columns == ["userId", "movieId", "rating"]
    assert ordered.rdd.getNumPartitions() == 3
    assert sorted(map(tuple, ordered.collect())) == sorted(map(tuple, ratings.collect()))


def test_stable_order_has_each_user_in_one_partition_in_order(ratings: DataFrame) -> None:
    shuffled = ratings.orderBy(F.rand(4)).repartition(5)
    parts = in_stable_order(shuffled, 3).rdd.glom().collect()
    keys = [[(row.userId, row.movieId) for row in part] for part in parts]
    assert all(part == sorted(part) for part in keys)
    assert sum(len({user for user, _ in part}) for part in keys) == 21


# On disk


@pytest.fixture(scope="module")
def made(spark: SparkSession) -> Factors:
    """Factors of 3 users and 2 movies that nobody has fitted."""
    users = spark.createDataFrame([(1, [1.0, 2.0]), (2, [0.5, -1.0]), (-3, [0.0, 0.25])], FACTORS)
    return Factors(2, users, spark.createDataFrame([(10, [1.0, 0.0]), (0, [2.0, 3.0])], FACTORS))


def test_what_is_saved_is_a_model_of_mllib_that_predicts_as_ours(
    spark: SparkSession, made: Factors, tmp_path: Path
) -> None:
    mllib.save(made, str(tmp_path / "model"))
    model = ALSModel.load(str(tmp_path / "model"))
    assert model.rank == 2
    assert (model.getUserCol(), model.getItemCol(), model.getPredictionCol()) == ("userId", "movieId", "prediction")
    pairs = spark.createDataFrame(
        [(user, movie) for user in (1, 2, -3, 99) for movie in (10, 0, 99)], "userId INT, movieId INT"
    )
    ours, theirs = (
        {(row.userId, row.movieId): row.prediction for row in frame.collect()}
        for frame in (with_prediction(pairs, made, "prediction"), model.transform(pairs))
    )
    assert len(ours) == 12
    assert ours == pytest.approx(theirs, nan_ok=True)
    assert sum(math.isnan(value) for value in ours.values()) == 6
    lists = {
        row.userId: [entry.movieId for entry in row.recommendations] for row in model.recommendForAllUsers(2).collect()
    }
    assert lists == {1: [0, 10], 2: [10, 0], -3: [0, 10]}


def test_a_model_may_have_columns_of_other_names(spark: SparkSession, made: Factors, tmp_path: Path) -> None:
    mllib.save(made, str(tmp_path / "model"), {"userCol": "who", "itemCol": "what", "coldStartStrategy": "drop"})
    asked = spark.createDataFrame([(1, 10), (1, 99)], "who INT, what INT")
    (row,) = ALSModel.load(str(tmp_path / "model")).transform(asked).collect()
    assert (row.who, row.what, row.prediction) == (1, 10, 1.0)


def test_what_is_saved_is_read_again_and_replaces_what_was_there(
    spark: SparkSession, made: Factors, tmp_path: Path
) -> None:
    path = str(tmp_path / "model")
    one_user = spark.createDataFrame([(5, [1.0, 2.0, 3.0])], FACTORS)
    mllib.save(Factors(3, one_user, one_user), path)
    mllib.save(made, path)
    found = mllib.load(spark, path)
    assert found.rank == 2
    assert both(found) == both(made)


def test_what_mllib_has_saved_is_read_too(spark: SparkSession, ratings: DataFrame, tmp_path: Path) -> None:
    model = als(EXPLICIT).fit(ratings)
    model.write().overwrite().save(str(tmp_path / "model"))
    found = mllib.load(spark, str(tmp_path / "model"))
    assert found.rank == 3
    assert both(found) == (vectors(model.userFactors), vectors(model.itemFactors))
    assert both(mllib.factors_of(model)) == both(found)
