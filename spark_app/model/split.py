"""Which ratings a model learns from, and which it is judged on."""

from __future__ import annotations

from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from spark_app.platform.settings import Train

HASH_BUCKETS = 1_000_000
HOUR = 3_600
VALIDATION_SEED = 1
"""Added to the seed for the validation split."""


def split(ratings: DataFrame, train: Train) -> tuple[DataFrame, DataFrame]:
    """Split ratings (userId, movieId, rating, timestamp) into training and holdout, same columns.

    `hash`: by a hash of (seed, userId, movieId), so a rating falls on the same side whatever the order or number of
    partitions (`randomSplit` does not promise that). `time`: the latest ratings of all are held out, as in life;
    users who came after the first of them are then cold.
    """
    if train.holdout == "hash":
        bucket = F.pmod(F.xxhash64(F.lit(train.seed), "userId", "movieId"), F.lit(HASH_BUCKETS))
        is_held_out = bucket < round(train.holdout_share * HASH_BUCKETS)
    else:
        is_held_out = F.unix_seconds("timestamp") >= _first_held_out(ratings, train.holdout_share)
    return ratings.filter(~is_held_out), ratings.filter(is_held_out)


def validation_split(training: DataFrame, train: Train) -> tuple[DataFrame, DataFrame]:
    """Split the training part of `split` again, the same way, into what settings are fitted and tried on.

    The hash has another seed: that of the first split would find nothing left of its buckets.
    """
    return split(training, train.model_copy(update={"seed": train.seed + VALIDATION_SEED}))


def _first_held_out(ratings: DataFrame, share: float) -> int:
    """The second (since 1970) of the first rating of the holdout: the latest that leaves at least `share` from it on.

    Exact, and the same however the ratings are partitioned. Brings a row an hour, then a row a second, to the driver.
    """
    seconds = ratings.select(F.unix_seconds("timestamp").alias("second"))
    hours = _counts(seconds, F.col("second") - F.pmod("second", F.lit(HOUR)))
    wanted = share * sum(hours.values())
    hour, later = _reach(hours, wanted)
    in_hour = seconds.filter(F.col("second").between(hour, hour + HOUR - 1))
    return _reach(_counts(in_hour, F.col("second")), wanted - later)[0]


def _counts(seconds: DataFrame, bucket: Column) -> dict[int, int]:
    return {row["bucket"]: row["count"] for row in seconds.groupBy(bucket.alias("bucket")).count().collect()}


def _reach(counts: dict[int, int], wanted: float) -> tuple[int, int]:
    """The latest bucket from which on there are as many as wanted, and how many are later than it."""
    later = 0
    for bucket in sorted(counts, reverse=True):
        if later + counts[bucket] >= wanted:
            return bucket, later
        later += counts[bucket]
    return min(counts, default=0), later


def ratings_of_listed(ratings: DataFrame, movies: DataFrame) -> DataFrame:
    """The ratings of movies that are listed: all, unless an etl was cut short between the two tables."""
    return ratings.join(F.broadcast(movies.select("movieId")), on="movieId", how="left_semi")


def keep_judged(frame: DataFrame, users: int, train: Train) -> DataFrame:
    """Rows (userId, ...) of about `train.judged_users` of so many users; all rows where there are no more users.

    Users are chosen by a hash of (seed, userId), so they are the same in every frame, whatever its partitions.
    """
    if users <= train.judged_users:
        return frame
    bucket = F.pmod(F.xxhash64(F.lit("judged"), F.lit(train.seed), "userId"), F.lit(HASH_BUCKETS))
    return frame.filter(bucket < max(round(train.judged_users / users * HASH_BUCKETS), 1))


def keep_active(ratings: DataFrame, min_user_ratings: int, min_movie_ratings: int) -> DataFrame:
    """Ratings of users and movies that have at least so many each, both counted on the ratings given."""
    least = {"userId": min_user_ratings, "movieId": min_movie_ratings}
    limited = {key: limit for key, limit in least.items() if limit > 1}
    counts = {f"{key}_ratings": F.count("*").over(Window.partitionBy(key)) for key in limited}
    is_active = reduce(
        Column.__and__, (F.col(f"{key}_ratings") >= limit for key, limit in limited.items()), F.lit(True)
    )
    return ratings.withColumns(counts).filter(is_active).drop(*counts)
