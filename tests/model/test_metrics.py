"""Every metric against an independent library, on random data."""

from __future__ import annotations

from statistics import mean

import numpy as np
import pytest
import pytrec_eval
from pyspark.sql import DataFrame, SparkSession
from sklearn.metrics import mean_absolute_error, root_mean_squared_error

from spark_app.model.metrics import ranking_quality, rating_errors, relevant_movies

K = 10
CATALOGUE = 60
TOP = "userId INT, rank INT, movieId INT"
RELEVANT = "userId INT, relevant ARRAY<DOUBLE>"

Lists = dict[int, list[int]]


def made_lists(seed: int, most_relevant: int) -> tuple[Lists, Lists]:
    """Top 15 (of which 10 count) and relevant movies of 40 users, of whom user 1 has no list and user 2 a short one."""
    rng = np.random.default_rng(seed)
    top = {user: rng.permutation(CATALOGUE)[:15].tolist() for user in range(2, 41)}
    top[2] = top[2][:4]
    relevant = {
        user: rng.permutation(CATALOGUE)[: rng.integers(1, most_relevant + 1)].tolist() for user in range(1, 41)
    }
    return top, relevant


def as_frames(spark: SparkSession, top: Lists, relevant: Lists) -> tuple[DataFrame, DataFrame]:
    rows = [(user, rank, movie) for user, movies in top.items() for rank, movie in enumerate(movies, 1)]
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    liked = [(user, [float(movie) for movie in movies]) for user, movies in relevant.items()]
    return spark.createDataFrame(shuffled, TOP), spark.createDataFrame(liked, RELEVANT)


def by_trec(top: Lists, relevant: Lists, measure: str) -> dict[int, float]:
    """What trec_eval says of each user in `relevant`; it leaves out users without a list, who found nothing."""
    judgements = {str(user): {str(movie): 1 for movie in movies} for user, movies in relevant.items()}
    run = {str(user): {str(movie): -float(i) for i, movie in enumerate(movies)} for user, movies in top.items()}
    found = pytrec_eval.RelevanceEvaluator(judgements, {measure}).evaluate(run)
    return {user: found.get(str(user), {}).get(measure.replace(".", "_"), 0.0) for user in relevant}


def test_rating_errors_agree_with_scikit_learn(spark: SparkSession) -> None:
    rng = np.random.default_rng(1)
    given, predicted = rng.integers(1, 11, 200) / 2, rng.uniform(0.5, 5, 200)
    frame = spark.createDataFrame(
        list(zip(given.tolist(), predicted.tolist(), strict=True)), "rating DOUBLE, guess DOUBLE"
    )
    assert rating_errors(frame, "guess") == pytest.approx(
        {"rmse": root_mean_squared_error(given, predicted), "mae": mean_absolute_error(given, predicted)}
    )


def test_ranking_metrics_agree_with_trec_eval_and_a_set(spark: SparkSession) -> None:
    top, relevant = made_lists(2, most_relevant=K)
    found = ranking_quality(*as_frames(spark, top, relevant), K, CATALOGUE)
    listed = {movie for movies in top.values() for movie in movies[:K]}
    assert found == pytest.approx(
        {
            "ndcg@10": mean(by_trec(top, relevant, "ndcg_cut.10").values()),
            "recall@10": mean(by_trec(top, relevant, "recall.10").values()),
            "map@10": mean(by_trec(top, relevant, "map_cut.10").values()),
            "coverage": len(listed) / CATALOGUE,
            "users": 40,
        }
    )


def test_map_alone_differs_from_trec_eval_where_more_than_k_movies_are_relevant(spark: SparkSession) -> None:
    """MLlib divides by min(k, relevant movies), so that a perfect list has 1; trec_eval's map_cut by the latter."""
    top, relevant = made_lists(4, most_relevant=3 * K)
    found = ranking_quality(*as_frames(spark, top, relevant), K, CATALOGUE)
    assert found["ndcg@10"] == pytest.approx(mean(by_trec(top, relevant, "ndcg_cut.10").values()))
    assert found["recall@10"] == pytest.approx(mean(by_trec(top, relevant, "recall.10").values()))
    by_user = by_trec(top, relevant, "map_cut.10")
    rescaled = [by_user[user] * len(movies) / min(K, len(movies)) for user, movies in relevant.items()]
    assert found["map@10"] == pytest.approx(mean(rescaled))
    assert found["map@10"] > mean(by_user.values())

    perfect, four = {1: [7, 8]}, {1: [7, 8, 9, 10]}
    assert ranking_quality(*as_frames(spark, perfect, four), 2, CATALOGUE)["map@2"] == 1.0
    assert by_trec(perfect, four, "map_cut.2") == {1: 0.5}


def test_quality_of_two_lists_by_hand(spark: SparkSession) -> None:
    # User 1 finds one of two relevant movies, at position 2; user 2 the only one, at position 1. The third is too late.
    frames = as_frames(spark, {1: [5, 7, 6], 2: [8, 9, 4]}, {1: [7, 6], 2: [8]})
    found = ranking_quality(*frames, 2, 8)
    ndcg_of_user_1 = (1 / np.log2(3)) / (1 + 1 / np.log2(3))
    assert found == pytest.approx(
        {"ndcg@2": (ndcg_of_user_1 + 1) / 2, "recall@2": 0.75, "map@2": (0.25 + 1) / 2, "coverage": 0.5, "users": 2}
    )


def test_users_without_list_found_nothing_and_users_without_relevant_movies_do_not_count(spark: SparkSession) -> None:
    # User 2 has no list; user 3 likes nothing.
    frames = as_frames(spark, {1: [7], 3: [7]}, {1: [7], 2: [8]})
    assert ranking_quality(*frames, K, 10) == pytest.approx(
        {"ndcg@10": 0.5, "recall@10": 0.5, "map@10": 0.5, "coverage": 0.1, "users": 2}
    )


def test_quality_is_zero_and_no_nan_where_nobody_liked_anything(spark: SparkSession) -> None:
    found = ranking_quality(*as_frames(spark, {1: [7]}, {}), K, 10)
    assert found == {"ndcg@10": 0, "recall@10": 0, "map@10": 0, "coverage": 0, "users": 0}


def test_relevant_movies_are_those_rated_high_enough(spark: SparkSession) -> None:
    holdout = spark.createDataFrame(
        [(1, 10, 4.0), (1, 20, 5.0), (1, 30, 3.5), (2, 10, 2.0)], "userId INT, movieId INT, rating DOUBLE"
    )
    rows = relevant_movies(holdout, 4.0).collect()
    assert {row.userId: sorted(row.relevant) for row in rows} == {1: [10.0, 20.0]}
