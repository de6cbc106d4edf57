"""The interface to Spark MLlib: its ALS as a second solver, and factors in the file format of its `ALSModel`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from spark_app.model.factors import FACTORS_SCHEMA, Factors
from spark_app.model.half_sweep import Preference, Problem
from spark_app.model.rating_blocks import RatingBlocks, blocks_for
from spark_app.model.solver import counts_of
from spark_app.platform import storage
from spark_app.platform.log import logger
from spark_app.platform.progress import Steps, progress
from spark_app.platform.settings import ExplicitAls, ImplicitAls, Train

if TYPE_CHECKING:
    from pyspark.ml.recommendation import ALSModel

CHECKPOINT_SWEEPS = 5
"""Number of sweeps after which a checkpoint cuts the lineage of the factors. Each sweep nests more deeply the objects
that a task has to deserialise: a little beyond 10 sweeps a thread's default stack of 1 MiB overflows."""

SENDING = "flatMap at ALS.scala"
"""The start of the name of the MLlib stage that sends the factors of one side to the other, twice in each sweep."""


def fit(
    kind: str,
    ratings: DataFrame,
    blocks: RatingBlocks,
    problem: Problem,
    als: ExplicitAls | ImplicitAls,
    train: Train,
) -> Factors:
    """Fit with MLlib's ALS, starting from random factors.

    Takes ratings(userId, movieId, rating), the same ratings packed, and the problem. MLlib supports only regularisation
    of power 1 and no biases, so the problem must have neither another power nor a mean. Raises RuntimeError if a
    checkpoint is needed and Spark has no folder for it.
    """
    block_count = blocks_for(blocks.count, train.block_ratings)
    rows = in_stable_order(ratings, block_count)
    liking = problem.loss if isinstance(problem.loss, Preference) else None
    if liking:
        rows = _of_likers(rows.withColumn("rating", preference(liking)))
    from pyspark.ml.recommendation import ALS  # noqa: PLC0415 - its import takes a tenth of a second

    algorithm = ALS(
        rank=als.rank,
        regParam=problem.ridge.reg,
        maxIter=als.iterations,
        checkpointInterval=CHECKPOINT_SWEEPS,
        userCol="userId",
        itemCol="movieId",
        ratingCol="rating",
        seed=train.seed,
        numUserBlocks=block_count,
        numItemBlocks=block_count,
        implicitPrefs=liking is not None,
        alpha=liking.alpha if liking else 1.0,
    )
    # Without a folder MLlib would skip the checkpoints silently.
    if als.iterations > CHECKPOINT_SWEEPS and ratings.sparkSession.sparkContext.getCheckpointDir() is None:
        raise RuntimeError(
            f"call SparkContext.setCheckpointDir: MLlib's ALS needs it for more than {CHECKPOINT_SWEEPS} sweeps"
        )
    logger.info("fitting %s ALS by MLlib: rank %d, %d sweeps", kind, als.rank, als.iterations)
    rows = rows.persist()
    with progress(ratings.sparkSession, f"fitting {kind} ALS", Steps("sweep", als.iterations, SENDING, parts=2)):
        model = algorithm.fit(rows)
    rows.unpersist()
    return factors_of(model)


def factors_of(model: ALSModel) -> Factors:
    """The factors of MLlib's model."""
    return Factors(model.rank, model.userFactors, model.itemFactors)


SIDES = ("userFactors", "itemFactors")
"""The folders of the factors of users and of movies in a saved model."""

METADATA = "metadata"
"""The folder of one text file, which says what a saved model is."""

COLUMNS = {"userCol": "userId", "itemCol": "movieId", "predictionCol": "prediction"}
"""The default column names of a saved model, as parameters of ALSModel."""


def save(factors: Factors, path: str, params: Mapping[str, Any] = COLUMNS) -> None:
    """Write factors to a folder that `pyspark.ml.recommendation.ALSModel.load` reads; replace what is in it.

    `params` are the parameters of the ALSModel, by their names.
    """
    spark = factors.users.sparkSession
    for name, side in zip(SIDES, (factors.users, factors.movies), strict=True):
        side.write.mode("overwrite").parquet(f"{path}/{name}")
    metadata = spark.createDataFrame([(metadata_of(factors, params),)], "value STRING").coalesce(1)
    metadata.write.mode("overwrite").text(f"{path}/{METADATA}")


def metadata_of(factors: Factors, params: Mapping[str, Any] = COLUMNS) -> str:
    """The metadata of a saved model: a line of JSON."""
    metadata = {
        "class": "org.apache.spark.ml.recommendation.ALSModel",
        "timestamp": int(time.time() * 1000),
        "sparkVersion": factors.users.sparkSession.version,
        "uid": "movie-reco",
        "paramMap": dict(params),
        "defaultParamMap": {**COLUMNS, "coldStartStrategy": "nan", "blockSize": 4096},
        "rank": factors.rank,
    }
    return json.dumps(metadata)


def load(spark: SparkSession, path: str) -> Factors:
    """Read factors that `save` or MLlib wrote, from the folder `path`, without MLlib's own class."""
    folder = storage.spark_path(path)
    schema = from_arrow_schema(FACTORS_SCHEMA)
    users, movies = (spark.read.schema(schema).parquet(storage.join(folder, name)) for name in SIDES)
    return Factors(rank_of(path), users, movies)


def rank_of(path: str) -> int:
    """The number of factors in a saved model."""
    (metadata,) = storage.list_files(storage.join(path, METADATA))
    return int(json.loads(storage.read_text(metadata))["rank"])


def in_stable_order(ratings: DataFrame, partitions: int) -> DataFrame:
    """Partition ratings by user, and sort each partition by the keys, before MLlib reads them.

    MLlib adds up floats in the order in which rows arrive. Without a fixed order, two runs on the same ratings would
    differ in the last digits, and occasionally in the order of a list.
    """
    rows = ratings.select("userId", "movieId", "rating")
    return rows.repartition(partitions, "userId").sortWithinPartitions("userId", "movieId")


def preference(loss: Preference) -> Column:
    """The preference in a `rating`: positive for a like, negative for a dislike. Confidence is alpha times its size."""
    distance = F.col("rating") - F.lit(loss.neutral)
    return F.signum(distance) * F.log1p(F.abs(distance)) if loss.logarithmic else distance


def _of_likers(preferences: DataFrame) -> DataFrame:
    """Keep the preferences of users who like something, for movies that somebody likes. The row order is unchanged.

    MLlib regularises by the number of likes, so without a like the factors would be zero or the equations singular.
    """
    likes_of_user = F.max("rating").over(Window.partitionBy("userId"))
    liked = preferences.groupBy("movieId").agg(F.max("rating").alias("best")).filter(F.col("best") > 0)
    by_likers = preferences.withColumn("likes", likes_of_user).filter(F.col("likes") > 0).drop("likes")
    return by_likers.join(F.broadcast(liked), on="movieId", how="left_semi").select("userId", "movieId", "rating")


def equal_reg(kind: str, problem: Problem, blocks: RatingBlocks) -> float:
    """The `reg` for power 1 that keeps the total regularisation: the sum of reg n^power over all users and movies."""
    ridge = problem.ridge
    counts = np.concatenate([counts_of(side, problem.loss) for side in (blocks.users, blocks.movies)])
    if not counts.any():
        return ridge.reg
    reg = float(ridge.of(counts[counts > 0]).sum() / counts.sum())
    logger.warning(
        "MLlib supports only reg_power 1: %s_als.reg is %.4g, as strong in total as %.4g with reg_power %g",
        *(kind, reg, ridge.reg, ridge.power),
    )
    return reg
