from __future__ import annotations

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.model.split import keep_active, keep_judged, split, validation_split
from spark_app.platform.settings import Train


def made_ratings(spark: SparkSession, count: int) -> DataFrame:
    """`count` ratings by 100 users; rating number i is at second 1_000_000_000 + i."""
    number = F.col("id")
    return spark.range(count).select(
        (number % 100 + 1).cast("int").alias("userId"),
        (number / 100 + 1).cast("int").alias("movieId"),
        F.lit(3.0).alias("rating"),
        F.timestamp_seconds(number + 1_000_000_000).alias("timestamp"),
    )


def keys(ratings: DataFrame) -> set[tuple[int, int]]:
    return {(row.userId, row.movieId) for row in ratings.select("userId", "movieId").collect()}


def test_hash_split_is_disjoint_and_complete(spark: SparkSession) -> None:
    ratings = made_ratings(spark, 3000)
    training, holdout = split(ratings, Train())
    assert training.columns == holdout.columns == ratings.columns
    assert training.count() + holdout.count() == 3000
    assert keys(training) | keys(holdout) == keys(ratings)


def test_hash_split_holds_out_about_the_share_asked_for(spark: SparkSession) -> None:
    ratings = made_ratings(spark, 5000)
    for share in (0.1, 0.5):
        _, holdout = split(ratings, Train(holdout_share=share))
        assert abs(holdout.count() / 5000 - share) < 0.025


def test_hash_split_does_not_depend_on_order_and_partitions(spark: SparkSession) -> None:
    ratings = made_ratings(spark, 2000)
    _, holdout = split(ratings.coalesce(1), Train())
    _, again = split(ratings.orderBy(F.rand(1)).repartition(7), Train())
    assert keys(again) == keys(holdout)


def test_hash_split_depends_on_the_seed(spark: SparkSession) -> None:
    ratings = made_ratings(spark, 2000)
    _, one = split(ratings, Train(seed=1))
    _, two = split(ratings, Train(seed=2))
    assert keys(one) != keys(two)


def test_hash_split_does_not_depend_on_the_rating_or_its_time(spark: SparkSession) -> None:
    ratings = made_ratings(spark, 2000)
    changed = ratings.withColumns({"rating": F.lit(1.5), "timestamp": F.timestamp_seconds(F.lit(5))})
    assert keys(split(ratings, Train())[1]) == keys(split(changed, Train())[1])


def test_time_split_holds_out_the_latest(spark: SparkSession) -> None:
    ratings = made_ratings(spark, 10).orderBy(F.rand(1))
    training, holdout = split(ratings, Train(holdout="time", holdout_share=0.3))
    # The users are numbered in the order in which they rated.
    assert sorted(row.userId for row in training.collect()) == [1, 2, 3, 4, 5, 6, 7]
    assert sorted(row.userId for row in holdout.collect()) == [8, 9, 10]


def test_time_split_keeps_ratings_of_one_second_together(spark: SparkSession) -> None:
    rows = [(1, 1, 3.0, 100), (2, 1, 3.0, 200), (3, 1, 3.0, 300), (4, 1, 3.0, 300)]
    ratings = spark.createDataFrame(rows, "userId INT, movieId INT, rating DOUBLE, second LONG").withColumn(
        "timestamp", F.timestamp_seconds("second")
    )
    training, holdout = split(ratings, Train(holdout="time", holdout_share=0.5))
    assert keys(training) == {(1, 1), (2, 1)}
    assert keys(holdout) == {(3, 1), (4, 1)}


def test_time_split_does_not_depend_on_order_and_partitions(spark: SparkSession) -> None:
    ratings = made_ratings(spark, 100_000)
    train = Train(holdout="time")
    counts = [split(ratings.repartition(parts, "movieId"), train)[1].count() for parts in (1, 2, 8)]
    assert counts == counts[:1] * 3


def test_keep_active_drops_users_and_movies_with_too_few_ratings(spark: SparkSession) -> None:
    # User 3 has one rating; movie 30 has one rating.
    pairs = [(1, 10), (1, 20), (2, 10), (2, 20), (2, 30), (3, 10)]
    ratings = spark.createDataFrame(pairs, "userId INT, movieId INT")
    assert keys(keep_active(ratings, 2, 1)) == {(1, 10), (1, 20), (2, 10), (2, 20), (2, 30)}
    assert keys(keep_active(ratings, 1, 2)) == {(1, 10), (1, 20), (2, 10), (2, 20), (3, 10)}
    assert keys(keep_active(ratings, 2, 2)) == {(1, 10), (1, 20), (2, 10), (2, 20)}
    assert keep_active(ratings, 2, 2).columns == ["userId", "movieId"]


def test_keep_active_with_least_one_keeps_everything(spark: SparkSession) -> None:
    ratings = spark.createDataFrame([(1, 10), (2, 20)], "userId INT, movieId INT")
    assert keys(keep_active(ratings, 1, 1)) == {(1, 10), (2, 20)}


def test_keep_active_counts_on_the_ratings_given(spark: SparkSession) -> None:
    # Movie 10 has two ratings, one of them by user 2, who has too few. It stays, since both count on all ratings.
    ratings = spark.createDataFrame([(1, 10), (1, 20), (2, 10), (3, 20), (3, 30)], "userId INT, movieId INT")
    assert keys(keep_active(ratings, 2, 2)) == {(1, 10), (1, 20), (3, 20)}


@pytest.mark.parametrize("holdout", ["hash", "time"])
def test_the_validation_part_is_a_share_of_the_training_part_alone(spark: SparkSession, holdout: str) -> None:
    ratings = spark.range(2000).selectExpr(
        "CAST(id % 40 AS INT) AS userId",
        "CAST(id AS INT) AS movieId",
        "4.0D AS rating",
        "timestamp_seconds(id) AS timestamp",
    )
    train = Train.model_validate({"holdout": holdout})
    training, held_out = split(ratings, train)
    fitted, validation = validation_split(training, train)
    ids = [{row.movieId for row in part.collect()} for part in (fitted, validation, held_out)]
    assert len(ids[0] | ids[1] | ids[2]) == sum(map(len, ids)) == 2000
    assert len(ids[1]) == pytest.approx(0.2 * 0.8 * 2000, rel=0.2)


def test_all_users_are_judged_where_there_are_no_more_than_wanted(spark: SparkSession) -> None:
    ratings = made_ratings(spark, 300)
    assert keep_judged(ratings, 1000, Train(judged_users=1000)).count() == 300


def test_of_more_users_about_so_many_are_judged_with_all_their_rows(spark: SparkSession) -> None:
    ratings = spark.range(50_000).select((F.col("id") % 10_000).cast("int").alias("userId"))
    counts = keep_judged(ratings, 10_000, Train(judged_users=1000)).groupBy("userId").count()
    assert abs(counts.count() - 1000) < 100
    assert counts.filter(F.col("count") != 5).isEmpty()


def test_the_same_users_are_judged_in_every_frame_and_others_with_another_seed(spark: SparkSession) -> None:
    def judged(ratings: DataFrame, seed: int = 42) -> set[int]:
        kept = keep_judged(ratings, 10_000, Train(judged_users=1000, seed=seed))
        return {row.userId for row in kept.select("userId").collect()}

    ratings = made_ratings(spark, 2000)
    assert judged(ratings) == judged(ratings.orderBy(F.rand(1)).select("userId").repartition(3))
    assert judged(ratings) != judged(ratings, seed=1)
