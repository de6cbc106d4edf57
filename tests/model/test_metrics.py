"""Every metric against an independent library or by hand."""

from __future__ import annotations

from statistics import mean
from typing import Any

import numpy as np
import pytest
import pytrec_eval
from pyspark.ml.evaluation import RankingEvaluator
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from sklearn.metrics import mean_absolute_error, root_mean_squared_error

from spark_app.model import evaluation, metrics
from spark_app.model.evaluation import relevant_movies
from spark_app.model.metrics import Judged, MovieFacts, gini, rating_errors, slices

K = 10
CATALOGUE = 60
LISTS = "userId INT, seen INT, seen_popularity DOUBLE, implicit ARRAY<INT>"
RELEVANT = "userId INT, relevant ARRAY<INT>"

Lists = dict[int, list[int]]


def facts_of(popularity: dict[int, float], genres: dict[int, list[int]], users: int) -> MovieFacts:
    """A catalogue of these movies; the genres are rows of 0 and 1."""
    rows = np.array([genres[movie] for movie in popularity], dtype=np.float32)
    return MovieFacts(np.array(list(popularity)), np.array(list(popularity.values())), rows, users)


ALIKE = facts_of(dict.fromkeys(range(CATALOGUE), 1.0), {movie: [1] for movie in range(CATALOGUE)}, 1)


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
    lists = [(user, 1, 1.0, movies) for user, movies in top.items()]
    return spark.createDataFrame(lists, LISTS), spark.createDataFrame(list(relevant.items()), RELEVANT)


def judge(
    spark: SparkSession, top: Lists, relevant: Lists, k: int = K, facts: MovieFacts = ALIKE, seen: Any = None
) -> Judged:
    lists, wanted = as_frames(spark, top, relevant)
    if seen:
        lists = spark.createDataFrame(
            [(user, *seen.get(user, (0, 0.0)), movies) for user, movies in top.items()], LISTS
        )
    return evaluation.collect_judged(evaluation.judge_lists(lists, ["implicit"], wanted, facts, k), ["implicit"], facts)


def quality(spark: SparkSession, top: Lists, relevant: Lists, k: int = K, **kwargs: Any) -> dict[str, float]:
    return metrics.ranking_quality(judge(spark, top, relevant, k, **kwargs), k, seed=1).figures["implicit"]


def accuracy(spark: SparkSession, top: Lists, relevant: Lists, k: int = K) -> dict[str, float]:
    found = quality(spark, top, relevant, k)
    return {name: found[name] for name in (f"ndcg@{k}", f"recall@{k}", f"map@{k}", "coverage", "users")}


def found_of(spark: SparkSession, top: Lists, relevant: Lists, k: int = K) -> tuple[float, float]:
    """Precision and hit rate."""
    found = quality(spark, top, relevant, k)
    return found[f"precision@{k}"], found[f"hit_rate@{k}"]


def by_trec(top: Lists, relevant: Lists, measure: str) -> dict[int, float]:
    """trec_eval's figure for each user in `relevant`; 0 for users without a list, whom trec_eval leaves out."""
    judgements = {str(user): {str(movie): 1 for movie in movies} for user, movies in relevant.items()}
    run = {str(user): {str(movie): -float(i) for i, movie in enumerate(movies)} for user, movies in top.items()}
    found = pytrec_eval.RelevanceEvaluator(judgements, {measure}).evaluate(run)
    return {user: found.get(str(user), {}).get(measure.replace(".", "_"), 0.0) for user in relevant}


def test_rating_errors_agree_with_scikit_learn(spark: SparkSession) -> None:
    rng = np.random.default_rng(1)
    given, predicted, users = rng.integers(1, 11, 200) / 2, rng.uniform(0.5, 5, 200), rng.integers(1, 20, 200)
    rows = zip(users.tolist(), given.tolist(), predicted.tolist(), rng.integers(1, 9, 200).tolist(), strict=True)
    frame = spark.createDataFrame(list(rows), "userId INT, rating DOUBLE, guess DOUBLE, movie_ratings INT")
    sums = evaluation.rating_sums(frame.withColumn("user_ratings", F.lit(3)), ["guess"], popular_from=5)
    judged = rating_errors(evaluation.collect_rating_sums(sums, ["guess"]), seed=1)
    found, intervals = judged.figures, judged.intervals
    assert found["guess"] == pytest.approx(
        {"rmse": root_mean_squared_error(given, predicted), "mae": mean_absolute_error(given, predicted)}
    )
    for metric, (low, high) in intervals["guess"].items():
        assert low < found["guess"][metric] < high


def test_ranking_metrics_agree_with_trec_eval_and_a_set(spark: SparkSession) -> None:
    top, relevant = made_lists(2, most_relevant=K)
    listed = {movie for movies in top.values() for movie in movies[:K]}
    assert accuracy(spark, top, relevant) == pytest.approx(
        {
            "ndcg@10": mean(by_trec(top, relevant, "ndcg_cut.10").values()),
            "recall@10": mean(by_trec(top, relevant, "recall.10").values()),
            "map@10": mean(by_trec(top, relevant, "map_cut.10").values()),
            "coverage": len(listed) / CATALOGUE,
            "users": 40,
        }
    )


def test_precision_and_hit_rate_agree_with_trec_eval_and_by_hand(spark: SparkSession) -> None:
    top, relevant = made_lists(2, most_relevant=K)
    precision = mean(by_trec(top, relevant, "P.10").values())
    hits = mean(by_trec(top, relevant, "success.10").values())
    assert found_of(spark, top, relevant) == pytest.approx((precision, hits))
    # User 1 finds one of two, user 2 has a shorter list with the only one, user 3 finds nothing, user 4 has no list.
    lists = {1: [5, 7], 2: [8], 3: [1, 2]}
    assert found_of(spark, lists, {1: [7, 6], 2: [8], 3: [4], 4: [4]}, 2) == pytest.approx((1 / 4, 1 / 2))


def test_ranking_metrics_agree_with_mllib_whatever_is_relevant(spark: SparkSession) -> None:
    top, relevant = made_lists(3, most_relevant=3 * K)
    lists, wanted = as_frames(spark, top, relevant)
    listed = F.coalesce("implicit", F.array().cast("array<int>")).cast("array<double>")
    both = wanted.join(lists, on="userId", how="left").select(
        listed.alias("prediction"), F.col("relevant").cast("array<double>").alias("label")
    )
    evaluator, found = RankingEvaluator(k=K), accuracy(spark, top, relevant)
    assert found["ndcg@10"] == pytest.approx(evaluator.setMetricName("ndcgAtK").evaluate(both))
    assert found["recall@10"] == pytest.approx(evaluator.setMetricName("recallAtK").evaluate(both))
    assert found["map@10"] == pytest.approx(evaluator.setMetricName("meanAveragePrecisionAtK").evaluate(both))


def test_map_alone_differs_from_trec_eval_where_more_than_k_movies_are_relevant(spark: SparkSession) -> None:
    """Our MAP divides by min(k, relevant movies), so a perfect list has 1; trec_eval divides by relevant movies."""
    top, relevant = made_lists(4, most_relevant=3 * K)
    found = accuracy(spark, top, relevant)
    assert found["ndcg@10"] == pytest.approx(mean(by_trec(top, relevant, "ndcg_cut.10").values()))
    assert found["recall@10"] == pytest.approx(mean(by_trec(top, relevant, "recall.10").values()))
    by_user = by_trec(top, relevant, "map_cut.10")
    rescaled = [by_user[user] * len(movies) / min(K, len(movies)) for user, movies in relevant.items()]
    assert found["map@10"] == pytest.approx(mean(rescaled))
    assert found["map@10"] > mean(by_user.values())

    perfect, four = {1: [7, 8]}, {1: [7, 8, 9, 10]}
    assert accuracy(spark, perfect, four, 2)["map@2"] == 1.0
    assert by_trec(perfect, four, "map_cut.2") == {1: 0.5}


def test_accuracy_of_two_lists_by_hand(spark: SparkSession) -> None:
    # User 1 finds one of two relevant movies, at position 2; user 2 the only one, at position 1. k is 2.
    found = accuracy(spark, {1: [5, 7, 6], 2: [8, 9, 4]}, {1: [7, 6], 2: [8]}, 2)
    ndcg_of_user_1 = (1 / np.log2(3)) / (1 + 1 / np.log2(3))
    assert found == pytest.approx(
        {
            "ndcg@2": (ndcg_of_user_1 + 1) / 2,
            "recall@2": 0.75,
            "map@2": (0.25 + 1) / 2,
            "coverage": 4 / CATALOGUE,
            "users": 2,
        }
    )


def test_users_without_list_found_nothing_and_users_without_relevant_movies_do_not_count(spark: SparkSession) -> None:
    # User 2 has no list; user 3 likes nothing.
    assert accuracy(spark, {1: [7], 3: [9]}, {1: [7], 2: [8]}) == pytest.approx(
        {"ndcg@10": 0.5, "recall@10": 0.5, "map@10": 0.5, "coverage": 1 / CATALOGUE, "users": 2}
    )


def test_quality_is_zero_and_no_nan_where_nobody_liked_anything(spark: SparkSession) -> None:
    judged = judge(spark, {1: [7]}, {})
    assert metrics.ranking_quality(judged, K, 1) == metrics.Quality(
        {
            "implicit": {
                **{"ndcg@10": 0, "recall@10": 0, "map@10": 0, "precision@10": 0, "hit_rate@10": 0},
                **{"coverage": 0, "users": 0},
            }
        },
        {"implicit": {}},
        {},
    )
    assert slices(judged, None, ALIKE, K) == []


# Movies 1 to 4 have 8, 4, 2 and no ratings by 8 users. 1 and 2 share one of three genres, 3 has another, 4 has none.
FACTS = facts_of({1: 8.0, 2: 4.0, 3: 2.0, 4: 0.0}, {1: [1, 1, 0, 0], 2: [1, 0, 1, 0], 3: [0, 0, 0, 1], 4: [0] * 4}, 8)


def test_list_quality_by_hand(spark: SparkSession) -> None:
    top = {1: [1, 2, 3], 2: [3, 4]}
    found = quality(spark, top, {1: [1], 2: [1]}, 3, facts=FACTS, seen={1: (2, 6.0), 2: (1, 8.0)})
    # Self-information is 0, 1, 2 and, as if one user had rated movie 4, 3 bits. Pairs differ by 2/3, 1, 1; and by 1.
    assert found["novelty"] == pytest.approx(((0 + 1 + 2) / 3 + (2 + 3) / 2) / 2)
    assert found["diversity"] == pytest.approx(((2 / 3 + 1 + 1) / 3 + 1) / 2)
    assert found["popularity_lift"] == pytest.approx(((8 + 4 + 2) / 3 + (2 + 0) / 2) / (6 + 8))
    assert found["coverage"] == 1.0
    # Exposures 1, 1, 1, 2: the mean difference of all pairs, over twice the mean.
    assert found["gini"] == pytest.approx((6 * 1 / 16) / (2 * 1.25))


def test_users_without_history_and_lists_without_genres_are_left_out_of_what_they_cannot_tell(
    spark: SparkSession,
) -> None:
    found = quality(spark, {1: [1, 2], 2: [4]}, {1: [1], 2: [1]}, 2, facts=FACTS, seen={1: (2, 3.0)})
    assert found["popularity_lift"] == pytest.approx(6 / 3)
    assert found["diversity"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(("exposure", "value"), [([5, 5, 5], 0.0), ([0, 0, 0, 8], 0.75), ([0, 1], 0.5)])
def test_gini_of_nothing_but_alike_and_of_one_that_has_all(exposure: list[int], value: float) -> None:
    assert gini(np.array(exposure)) == pytest.approx(value)


def test_popular_movies_have_at_least_half_of_the_ratings() -> None:
    assert FACTS.popular_from == 8  # 8 of 14
    assert facts_of({1: 3.0, 2: 3.0, 3: 2.0}, {1: [1], 2: [1], 3: [1]}, 3).popular_from == 3
    assert facts_of({1: 0.0}, {1: [1]}, 3).popular_from == 1


def test_slices_by_hand(spark: SparkSession) -> None:
    # Users 1 and 2 are light; 1 finds the popular movie, 2 the rare one but not the popular one, 3 nothing.
    seen = {1: (1, 1.0), 2: (2, 1.0), 3: (9, 1.0)}
    judged = judge(spark, {1: [1], 2: [3], 3: [4]}, {1: [1], 2: [1, 3], 3: [2]}, 1, facts=FACTS, seen=seen)
    pairs = [(1, 1.0, 2.0, 1, 9), (2, 3.0, 3.0, 2, 9), (3, 1.0, 4.0, 9, 1)]
    frame = spark.createDataFrame(pairs, "userId INT, rating DOUBLE, bias DOUBLE, user_ratings INT, movie_ratings INT")
    errors = evaluation.collect_rating_sums(evaluation.rating_sums(frame, ["bias"], FACTS.popular_from), ["bias"])
    light, heavy = "users with at most 2 ratings", "users with more than 2 ratings"
    popular, rare = "movies with 8 or more ratings", "movies with fewer than 8 ratings"
    assert slices(judged, errors, FACTS, 1) == [
        {"slice": light, "metric": "ndcg@1", "count": 2, "values": {"implicit": 1.0}},
        {"slice": heavy, "metric": "ndcg@1", "count": 1, "values": {"implicit": 0.0}},
        {"slice": popular, "metric": "recall@1", "count": 2, "values": {"implicit": 0.5}},
        {"slice": rare, "metric": "recall@1", "count": 2, "values": {"implicit": 0.5}},
        {"slice": light, "metric": "rmse", "count": 2, "values": {"bias": pytest.approx(0.5**0.5)}},
        {"slice": heavy, "metric": "rmse", "count": 1, "values": {"bias": 3.0}},
        {"slice": popular, "metric": "rmse", "count": 2, "values": {"bias": pytest.approx(0.5**0.5)}},
        {"slice": rare, "metric": "rmse", "count": 1, "values": {"bias": 3.0}},
    ]


def test_movie_facts_are_in_the_order_of_movies(spark: SparkSession) -> None:
    movies = spark.createDataFrame(
        [(7, ["War", "Drama"]), (3, []), (5, ["Drama"]), (9, None)], "movieId INT, genres ARRAY<STRING>"
    )
    popularity = spark.createDataFrame([(7, 4), (5, 1)], "movieId INT, rating_count INT")
    facts = evaluation.movie_facts(movies, popularity, users=4)
    assert facts.movie_ids.tolist() == [3, 5, 7, 9]
    assert facts.popularity.tolist() == [0, 1, 4, 0]
    assert facts.genres.tolist() == [[0, 0], [1, 0], [1, 1], [0, 0]]


def test_relevant_movies_are_those_rated_high_enough(spark: SparkSession) -> None:
    holdout = spark.createDataFrame(
        [(1, 10, 4.0), (1, 20, 5.0), (1, 30, 3.5), (2, 10, 2.0)], "userId INT, movieId INT, rating DOUBLE"
    )
    rows = relevant_movies(holdout, 4.0).collect()
    assert {row.userId: sorted(row.relevant) for row in rows} == {1: [10, 20]}


def test_the_ids_of_movies_may_be_negative(spark: SparkSession) -> None:
    top, relevant = {1: [-3, -2], 2: [-3, 5], 3: [-1, -2]}, {1: [-2], 2: [-3], 3: [-3]}
    facts = facts_of({-3: 3.0, -2: 2.0, -1: 1.0, 5: 1.0}, {-3: [1], -2: [1], -1: [1], 5: [1]}, 3)
    judged = judge(spark, top, relevant, k=2, facts=facts)
    figures = metrics.ranking_quality(judged, 2, seed=1).figures
    second_place = 1 / np.log2(3)
    assert figures["implicit"]["ndcg@2"] == pytest.approx((second_place + 1 + 0) / 3)
    assert figures["implicit"]["recall@2"] == pytest.approx(2 / 3)


def test_lists_judged_in_blocks_give_the_same(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    top, relevant = made_lists(3, 5)
    whole = judge(spark, top, relevant)
    monkeypatch.setattr(evaluation, "BLOCK_USERS", 7)
    np.testing.assert_array_equal(judge(spark, top, relevant).numbers["implicit"], whole.numbers["implicit"])


def test_a_small_steady_difference_is_certain_where_the_intervals_overlap() -> None:
    rng = np.random.default_rng(1)
    users = np.arange(300)
    squares = rng.exponential(1.0, 300)
    better = np.column_stack([0.95 * squares, 0.97 * np.sqrt(squares)])
    sums = {"bias": np.column_stack([squares, np.sqrt(squares)]), "explicit": better}
    none = np.zeros(300, dtype=bool)
    found = rating_errors(metrics.RatingErrors(users, none, users, np.ones(300), sums), seed=1)
    (_, high), (low, _) = (found.intervals[model]["rmse"] for model in ("explicit", "bias"))
    assert high > low
    assert found.differences["explicit"]["rmse"][1] < 0
    scale = 1 - np.sqrt(0.95)  # each resample's RMSE shrinks by this share
    expected = [-scale * end for end in reversed(found.intervals["bias"]["rmse"])]
    assert found.differences["explicit"]["rmse"] == pytest.approx(expected)
    assert "bias" not in found.differences
