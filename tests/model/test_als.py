from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pyspark.ml.recommendation import ALSModel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.model.als import (
    blocks_for,
    fit_explicit,
    fit_implicit,
    in_stable_order,
    sweeps,
    with_als_prediction,
)
from spark_app.platform.progress import progress
from spark_app.platform.settings import ExplicitAls, ImplicitAls, Train

RATINGS = "userId INT, movieId INT, rating DOUBLE"
SEED = 42
EXPLICIT = ExplicitAls(rank=3, iterations=3)


@pytest.fixture(scope="module")
def ratings(spark: SparkSession) -> DataFrame:
    """Ratings of 12 movies by 20 users, two pairs in three."""
    rng = np.random.default_rng(3)
    rows = [
        (user, movie, float(rng.integers(1, 11)) / 2)
        for user in range(1, 21)
        for movie in range(1, 13)
        if (user + movie) % 3
    ]
    return spark.createDataFrame(rows, RATINGS).persist()


@pytest.fixture(scope="module")
def explicit(ratings: DataFrame) -> ALSModel:
    return fit_explicit(in_stable_order(ratings, 2), EXPLICIT, SEED)


def factors(model: ALSModel) -> dict[str, dict[int, list[float]]]:
    return {
        "users": {row.id: list(row.features) for row in model.userFactors.collect()},
        "movies": {row.id: list(row.features) for row in model.itemFactors.collect()},
    }


def predicted(frame: DataFrame, column: str) -> dict[tuple[int, int], float]:
    return {(row.userId, row.movieId): row[column] for row in frame.collect()}


def test_blocks_depend_on_the_number_of_ratings_alone() -> None:
    train = Train(block_ratings=1000)
    assert [blocks_for(ratings, train) for ratings in (0, 4000, 4001, 10_000)] == [4, 4, 5, 10]


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
    assert sum(len({user for user, _ in part}) for part in keys) == 20


@pytest.mark.parametrize("kind", ["explicit", "implicit"])
def test_factors_do_not_depend_on_order_and_partitions(ratings: DataFrame, kind: str) -> None:
    def fit(rows: DataFrame) -> ALSModel:
        ordered = in_stable_order(rows, 2)
        if kind == "explicit":
            return fit_explicit(ordered, EXPLICIT, SEED)
        return fit_implicit(ordered, ImplicitAls(rank=3, iterations=3), SEED)

    shuffled = ratings.orderBy(F.rand(7)).repartition(4, "movieId")
    assert factors(fit(ratings.coalesce(1))) == factors(fit(shuffled))


def test_als_prediction_is_the_product_of_the_factors(ratings: DataFrame, explicit: ALSModel) -> None:
    vectors = factors(explicit)
    found = predicted(with_als_prediction(ratings, explicit), "als_prediction")
    assert len(found) == ratings.count()
    for (user, movie), prediction in found.items():
        assert prediction == pytest.approx(np.dot(vectors["users"][user], vectors["movies"][movie]), abs=1e-5)


def test_als_prediction_is_nan_for_the_unknown(spark: SparkSession, explicit: ALSModel) -> None:
    unknown = spark.createDataFrame([(1, 999), (999, 1)], "userId INT, movieId INT")
    assert all(math.isnan(row.als_prediction) for row in with_als_prediction(unknown, explicit).collect())


def test_explicit_als_learns_who_likes_what(spark: SparkSession) -> None:
    # Odd users love odd movies and hate even ones; even users the other way round. (1, 1) and (1, 2) are not given.
    rows = [(u, m, 5.0 if (u + m) % 2 == 0 else 1.0) for u in range(1, 9) for m in range(1, 9) if (u, m) > (1, 2)]
    model = fit_explicit(
        in_stable_order(spark.createDataFrame(rows, RATINGS), 2), ExplicitAls(rank=4, iterations=3), SEED
    )
    asked = spark.createDataFrame([(1, 1), (1, 2)], "userId INT, movieId INT")
    found = predicted(with_als_prediction(asked, model), "als_prediction")
    assert found[1, 1] > 4
    assert found[1, 2] < 2


def test_implicit_als_takes_a_rating_below_neutral_for_a_no(spark: SparkSession) -> None:
    # All rate movies 1 (well), 2 (badly) and two of the others (well).
    rows = [(u, 1, 5.0) for u in range(1, 9)] + [(u, 2, 1.0) for u in range(1, 9)]
    rows += [(u, 3 + u % 4, 4.5) for u in range(1, 9)] + [(u, 7 + u % 3, 4.0) for u in range(1, 9)]
    # Somebody likes movie 2, so that it is a matter of taste.
    rows += [(9, 2, 5.0), (9, 10, 5.0), (10, 2, 4.5), (10, 10, 4.0)]
    ordered = in_stable_order(spark.createDataFrame(rows, RATINGS), 2)
    asked = spark.createDataFrame([(u, m) for u in range(1, 9) for m in (1, 2)], "userId INT, movieId INT")

    def preference(neutral: float) -> dict[tuple[int, int], float]:
        model = fit_implicit(ordered, ImplicitAls(rank=3, iterations=5, neutral=neutral), SEED)
        return predicted(with_als_prediction(asked, model), "als_prediction")

    found, all_yes = preference(neutral=2.5), preference(neutral=0.0)
    for user in range(1, 9):
        assert found[user, 1] > 0.7
        assert found[user, 2] < 0.4
        assert found[user, 2] < all_yes[user, 2]


def test_sweeps_beyond_the_checkpoint_interval_need_a_folder_for_checkpoints(
    ratings: DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyspark.SparkContext.getCheckpointDir", lambda _: None)
    with pytest.raises(RuntimeError, match="more than 5 sweeps of ALS need SparkContext"):
        fit_explicit(ratings, ExplicitAls(rank=2, iterations=6), SEED)
    with pytest.raises(RuntimeError, match="more than 5 sweeps of ALS need SparkContext"):
        fit_implicit(ratings, ImplicitAls(rank=2, iterations=6), SEED)


@pytest.mark.parametrize("kind", ["explicit", "implicit"])
def test_progress_of_a_fit_counts_its_sweeps(
    spark: SparkSession,
    ratings: DataFrame,
    kind: str,
    said: list[str],
    tmp_path: Path,
) -> None:
    # Seven sweeps, so that checkpoints are among them: their jobs hold stages that have been run before.
    explicit, implicit = ExplicitAls(rank=2, iterations=7), ImplicitAls(rank=2, iterations=7)
    settings = explicit if kind == "explicit" else implicit
    rows = in_stable_order(ratings, 2)
    spark.sparkContext.setCheckpointDir(str(tmp_path))
    # As many steps as stages are expected, and room for more that must not come.
    each_stage = replace(sweeps(settings), parts=1, total=99)
    with progress(spark, "fitting", each_stage, look_every=0.02):
        fit_explicit(rows, explicit, SEED) if kind == "explicit" else fit_implicit(rows, implicit, SEED)
        time.sleep(0.5)
    assert said[0].startswith("fitting: preparing, ")
    steps = [int(message.removeprefix("fitting: sweep ").partition(" of 99, ")[0]) for message in said[1:]]
    assert steps == sorted(steps)
    assert len(steps) > 3
    assert steps[-1] == 2 * settings.iterations


def test_implicit_als_fits_where_somebody_likes_nothing_and_nobody_likes_a_movie(spark: SparkSession) -> None:
    # MLlib scales regularisation by the number of ratings above neutral: none of them leaves a singular system.
    rows = [(1, 10, 5.0), (1, 20, 4.0), (2, 10, 4.0), (2, 30, 1.0), (3, 10, 1.0), (3, 20, 2.0)]
    model = fit_implicit(
        in_stable_order(spark.createDataFrame(rows, RATINGS), 2), ImplicitAls(rank=8, iterations=2), SEED
    )
    found = factors(model)
    assert {1, 2} <= found["users"].keys()
    assert {10, 20} <= found["movies"].keys()
    assert np.isfinite([vector for side in found.values() for vector in side.values()]).all()
