"""The two matrix factorisations, by Spark MLlib's alternating least squares.

One predicts ratings, one ranks. Explicit ALS fits the ratings that were given, and ranks badly, because which movies
people choose to rate says more about their taste than the stars do. Implicit ALS (Y. Hu, Y. Koren, C. Volinsky:
Collaborative Filtering for Implicit Feedback Datasets, ICDM 2008) fits that choice.
"""

from __future__ import annotations

import math

from pyspark.ml.recommendation import ALS, ALSModel
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from spark_app.platform.errors import InputError
from spark_app.platform.progress import Steps
from spark_app.platform.settings import ExplicitAls, ImplicitAls, Train

ALS_PREDICTION = "als_prediction"
MIN_BLOCKS = 4

CHECKPOINT_SWEEPS = 5
"""Sweeps after which the lineage of the factors is cut. Each one nests them deeper in what a task has to deserialise,
and a little beyond 10 sweeps a thread's default stack of 1 MiB overflows."""

SENDING = "flatMap at ALS.scala"
"""The stage of MLlib's that sends the factors of one side to the other: it is run twice in each sweep."""


def blocks_for(ratings: int, train: Train) -> int:
    """How many blocks so many ratings are divided into: by the data, not the machine, so that results agree."""
    return max(MIN_BLOCKS, math.ceil(ratings / train.block_ratings))


def in_stable_order(ratings: DataFrame, partitions: int) -> DataFrame:
    """Ratings as both fits take them: partitioned by user, in an order that depends on the keys alone.

    ALS adds up floats in the order in which rows arrive: without this, two runs on the same ratings would differ in
    the last digits, and a list now and then in its order.
    """
    rows = ratings.select("userId", "movieId", "rating")
    return rows.repartition(partitions, "userId").sortWithinPartitions("userId", "movieId")


def sweeps(settings: ExplicitAls | ImplicitAls) -> Steps:
    """The sweeps of a fit, as its progress tells them."""
    return Steps("sweep", settings.iterations, SENDING, parts=2)


def fit_explicit(ratings: DataFrame, settings: ExplicitAls, seed: int) -> ALSModel:
    """Fit ratings(userId, movieId, rating) as they are; they should be `in_stable_order`."""
    return _als(ratings, settings, seed).fit(ratings)


def fit_implicit(ratings: DataFrame, settings: ImplicitAls, seed: int) -> ALSModel:
    """Fit `preference`: a rating above `neutral` is a yes, one below it a no, more confident the further away.

    MLlib takes the sign as the preference and the size, times alpha, as the confidence beyond that of a pair without
    rating. Users who like nothing, and movies that nobody likes, get no factors: MLlib regularises by the number of
    likes, so theirs would be zero or the system singular. The ratings should be `in_stable_order`. Raises InputError
    where nobody likes anything.
    """
    preferences = _of_likers(ratings.withColumn("rating", preference(settings)))
    if preferences.isEmpty():
        raise InputError(
            f"no rating is above implicit_als.neutral={settings.neutral:g}: there is nothing to learn from"
        )
    return _als(ratings, settings, seed).setImplicitPrefs(True).setAlpha(settings.alpha).fit(preferences)


def preference(settings: ImplicitAls) -> Column:
    """What a `rating` says: positive for a like, negative for a dislike, of the size that confidence grows with.

    The logarithm is that of Hu, Koren and Volinsky (section 4, equation 6), for epsilon 1.
    """
    distance = F.col("rating") - F.lit(settings.neutral)
    return F.signum(distance) * F.log1p(F.abs(distance)) if settings.confidence == "log" else distance


def _of_likers(preferences: DataFrame) -> DataFrame:
    """Preferences of users who like something for movies that somebody likes; their order stays."""
    likes_of_user = F.max("rating").over(Window.partitionBy("userId"))
    liked = preferences.groupBy("movieId").agg(F.max("rating").alias("best")).filter(F.col("best") > 0)
    by_likers = preferences.withColumn("likes", likes_of_user).filter(F.col("likes") > 0).drop("likes")
    return by_likers.join(F.broadcast(liked), on="movieId", how="left_semi").select("userId", "movieId", "rating")


def with_als_prediction(pairs: DataFrame, model: ALSModel) -> DataFrame:
    """Add `als_prediction` to pairs(userId, movieId, ...); NaN where the model does not know the user or the movie."""
    return model.setPredictionCol(ALS_PREDICTION).transform(pairs)


def _als(ratings: DataFrame, settings: ExplicitAls | ImplicitAls, seed: int) -> ALS:
    # Without a folder MLlib would pass over the checkpoints, and say nothing.
    if settings.iterations > CHECKPOINT_SWEEPS and ratings.sparkSession.sparkContext.getCheckpointDir() is None:
        raise RuntimeError(f"more than {CHECKPOINT_SWEEPS} sweeps of ALS need SparkContext.setCheckpointDir")
    blocks = ratings.rdd.getNumPartitions()
    return ALS(
        rank=settings.rank,
        regParam=settings.reg,
        maxIter=settings.iterations,
        checkpointInterval=CHECKPOINT_SWEEPS,
        userCol="userId",
        itemCol="movieId",
        ratingCol="rating",
        seed=seed,
        numUserBlocks=blocks,
        numItemBlocks=blocks,
        coldStartStrategy="nan",
    )
