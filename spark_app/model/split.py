"""Choose the ratings that a model learns from, and the ratings and users that it is judged on."""

from __future__ import annotations

from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from spark_app.platform.settings import Train

HASH_BUCKETS = 1_000_000
HOUR = 3_600
VALIDATION_SEED = 1
"""Added to the seed to make the seed of the validation split."""


def split(ratings: DataFrame, train: Train) -> tuple[DataFrame, DataFrame]:
    """Split ratings(userId, movieId, rating, timestamp) into training and holdout, both with the same columns.

    With `train.holdout` "hash", a hash of (seed, userId, movieId) decides, so a rating is always in the same part,
    whatever the order or number of partitions (`randomSplit` does not guarantee that). With "time", the latest ratings
    are held out, as in real use; users whose first rating is among them are then cold.
    """
    if train.holdout == "hash":
        bucket = F.pmod(F.xxhash64(F.lit(train.seed), "userId", "movieId"), F.lit(HASH_BUCKETS))
        is_held_out = bucket < round(train.holdout_share * HASH_BUCKETS)
    else:
        # A rating without a time could be of any time, so it is learned from.
        dated = ratings.filter(F.col("timestamp").isNotNull())
        is_late = F.unix_seconds("timestamp") >= _first_held_out(dated, train.holdout_share)
        is_held_out = F.coalesce(is_late, F.lit(False))
    return ratings.filter(~is_held_out), ratings.filter(is_held_out)


def validation_split(training: DataFrame, train: Train) -> tuple[DataFrame, DataFrame]:
    """Split the training part of `split` again in the same way, to tune settings: a part to fit, a part to judge on.

    The hash has another seed. With the seed of the first split the second holdout would be empty, because all ratings
    in its buckets are already held out.
    """
    return split(training, train.model_copy(update={"seed": train.seed + VALIDATION_SEED}))


def _first_held_out(ratings: DataFrame, share: float) -> int:
    """The second (since 1970) at which the holdout starts: the latest from which on at least `share` of ratings are.

    It is exact, and does not depend on partitions. Brings one row per hour, then one row per second of an hour, to the
    driver.
    """
    seconds = ratings.select(F.unix_seconds("timestamp").alias("second"))
    hours = _counts(seconds, F.col("second") - F.pmod("second", F.lit(HOUR)))
    holdout_count = share * sum(hours.values())
    hour, later = _reach(hours, holdout_count)
    in_hour = seconds.filter(F.col("second").between(hour, hour + HOUR - 1))
    return _reach(_counts(in_hour, F.col("second")), holdout_count - later)[0]


def _counts(seconds: DataFrame, bucket: Column) -> dict[int, int]:
    return {row["bucket"]: row["count"] for row in seconds.groupBy(bucket.alias("bucket")).count().collect()}


def _reach(counts: dict[int, int], least: float) -> tuple[int, int]:
    """The latest bucket with at least `least` ratings in it and later, and the number of ratings later than it."""
    later = 0
    for bucket in sorted(counts, reverse=True):
        if later + counts[bucket] >= least:
            return bucket, later
        later += counts[bucket]
    return min(counts, default=0), later


def ratings_of_listed(ratings: DataFrame, movies: DataFrame) -> DataFrame:
    """The ratings of listed movies. These are all ratings, unless an `etl` stopped between writing the two tables."""
    return ratings.join(F.broadcast(movies.select("movieId")), on="movieId", how="left_semi")


def keep_judged(frame: DataFrame, users: int, train: Train) -> DataFrame:
    """The rows(userId, ...) of about `train.judged_users` users; all rows if `users`, their number, is not larger.

    A hash of (seed, userId) chooses the users, so they are the same in every frame, whatever its partitions.
    """
    if users <= train.judged_users:
        return frame
    bucket = F.pmod(F.xxhash64(F.lit("judged"), F.lit(train.seed), "userId"), F.lit(HASH_BUCKETS))
    return frame.filter(bucket < max(round(train.judged_users / users * HASH_BUCKETS), 1))


def keep_active(ratings: DataFrame, min_user_ratings: int, min_movie_ratings: int) -> DataFrame:
    """The ratings of users and of movies that each have at least the given number of ratings.

    Both are counted on the ratings passed in, before any of them is dropped.
    """
    limits = {"userId": min_user_ratings, "movieId": min_movie_ratings}
    limited = {key: limit for key, limit in limits.items() if limit > 1}
    counts = {f"{key}_ratings": F.count("*").over(Window.partitionBy(key)) for key in limited}
    is_active = reduce(
        Column.__and__, (F.col(f"{key}_ratings") >= limit for key, limit in limited.items()), F.lit(True)
    )
    return ratings.withColumns(counts).filter(is_active).drop(*counts)
