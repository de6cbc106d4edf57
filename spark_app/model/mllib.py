"""The edge to Spark MLlib: its ALS as a second solver, and factors in the format of its `ALSModel`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from pyspark.ml.recommendation import ALS, ALSModel
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from spark_app.model.factors import Factors
from spark_app.model.half_sweep import Preference, Problem
from spark_app.model.rating_blocks import RatingBlocks, blocks_for
from spark_app.model.solver import counts_of
from spark_app.platform.log import logger
from spark_app.platform.progress import Steps, progress
from spark_app.platform.settings import ExplicitAls, ImplicitAls, Train

CHECKPOINT_SWEEPS = 5
"""Sweeps after which the lineage of the factors is cut. Each one nests them deeper in what a task has to deserialise,
and a little beyond 10 sweeps a thread's default stack of 1 MiB overflows."""

SENDING = "flatMap at ALS.scala"
"""The stage of MLlib's that sends the factors of one side to the other: it is run twice in each sweep."""


def fit(
    kind: str,
    ratings: DataFrame,
    blocks: RatingBlocks,
    problem: Problem,
    als: ExplicitAls | ImplicitAls,
    train: Train,
) -> Factors:
    """Fit by MLlib, which knows no power of regularisation but 1, and no biases, and starts from random factors.

    Takes ratings(userId, movieId, rating), the same packed, and a problem that is `as_fitted`.
    """
    number = blocks_for(blocks.count, train.block_ratings)
    rows = in_stable_order(ratings, number)
    liking = problem.loss if isinstance(problem.loss, Preference) else None
    if liking:
        rows = _of_likers(rows.withColumn("rating", preference(liking)))
    algorithm = ALS(
        rank=als.rank,
        regParam=problem.ridge.reg,
        maxIter=als.iterations,
        checkpointInterval=CHECKPOINT_SWEEPS,
        userCol="userId",
        itemCol="movieId",
        ratingCol="rating",
        seed=train.seed,
        numUserBlocks=number,
        numItemBlocks=number,
        implicitPrefs=liking is not None,
        alpha=liking.alpha if liking else 1.0,
    )
    # Without a folder MLlib would pass over the checkpoints, and say nothing.
    if als.iterations > CHECKPOINT_SWEEPS and ratings.sparkSession.sparkContext.getCheckpointDir() is None:
        raise RuntimeError(f"more than {CHECKPOINT_SWEEPS} sweeps of MLlib's ALS need SparkContext.setCheckpointDir")
    logger.info("fitting %s ALS by MLlib: rank %d, %d sweeps", kind, als.rank, als.iterations)
    rows = rows.persist()
    with progress(ratings.sparkSession, f"fitting {kind} ALS", Steps("sweep", als.iterations, SENDING, parts=2)):
        model = algorithm.fit(rows)
    rows.unpersist()
    return factors_of(model)


def factors_of(model: ALSModel) -> Factors:
    """The factors of an ALSModel."""
    return Factors(model.rank, model.userFactors, model.itemFactors)


COLUMNS = {"userCol": "userId", "itemCol": "movieId", "predictionCol": "prediction"}
"""What the columns of a model are called where nothing else is said."""


def save(factors: Factors, path: str, params: Mapping[str, Any] = COLUMNS) -> None:
    """Write factors so that `pyspark.ml.recommendation.ALSModel.load` reads them; what is there is replaced.

    The `params` are those of the ALSModel, by their names.
    """
    spark = factors.users.sparkSession
    facts = {
        "class": "org.apache.spark.ml.recommendation.ALSModel",
        "timestamp": int(time.time() * 1000),
        "sparkVersion": spark.version,
        "uid": "movie-reco",
        "paramMap": dict(params),
        "defaultParamMap": {**COLUMNS, "coldStartStrategy": "nan", "blockSize": 4096},
        "rank": factors.rank,
    }
    for name, side in (("userFactors", factors.users), ("itemFactors", factors.movies)):
        side.write.mode("overwrite").parquet(f"{path}/{name}")
    spark.createDataFrame([(json.dumps(facts),)], "value STRING").coalesce(1).write.mode("overwrite").text(
        f"{path}/metadata"
    )


def load(spark: SparkSession, path: str) -> Factors:
    """Read what `save`, or MLlib itself, has written.

    It needs no more than the metadata and two tables, and does without MLlib's class.
    """
    (facts,) = spark.read.text(f"{path}/metadata").collect()
    users, movies = (spark.read.parquet(f"{path}/{name}") for name in ("userFactors", "itemFactors"))
    return Factors(int(json.loads(facts.value)["rank"]), users, movies)


def in_stable_order(ratings: DataFrame, partitions: int) -> DataFrame:
    """Ratings as MLlib takes them: partitioned by user, in an order that depends on the keys alone.

    It adds up floats in the order in which rows arrive: without this, two runs on the same ratings would differ in the
    last digits, and a list now and then in its order.
    """
    rows = ratings.select("userId", "movieId", "rating")
    return rows.repartition(partitions, "userId").sortWithinPartitions("userId", "movieId")


def preference(loss: Preference) -> Column:
    """What a `rating` says: positive for a like, negative for a dislike, of the size that confidence grows with."""
    distance = F.col("rating") - F.lit(loss.neutral)
    return F.signum(distance) * F.log1p(F.abs(distance)) if loss.logarithmic else distance


def _of_likers(preferences: DataFrame) -> DataFrame:
    """Preferences of users who like something for movies that somebody likes; their order stays.

    MLlib regularises by the number of likes: without any the factors would be zero or the system singular.
    """
    likes_of_user = F.max("rating").over(Window.partitionBy("userId"))
    liked = preferences.groupBy("movieId").agg(F.max("rating").alias("best")).filter(F.col("best") > 0)
    by_likers = preferences.withColumn("likes", likes_of_user).filter(F.col("likes") > 0).drop("likes")
    return by_likers.join(F.broadcast(liked), on="movieId", how="left_semi").select("userId", "movieId", "rating")


def equal_reg(kind: str, problem: Problem, blocks: RatingBlocks) -> float:
    """The regularisation of power 1 that is as large in all: the sum of reg n^power over users and movies stays."""
    ridge = problem.ridge
    counts = np.concatenate([counts_of(side, problem.loss) for side in (blocks.users, blocks.movies)])
    if not counts.any():
        return ridge.reg
    reg = float(ridge.of(counts[counts > 0]).sum() / counts.sum())
    logger.warning(
        "MLlib knows no reg_power but 1: %s_als.reg is %.4g, as strong in all as %.4g with reg_power %g",
        *(kind, reg, ridge.reg, ridge.power),
    )
    return reg
