"""The bias-only model: the mean of all ratings, plus how far each movie and each user lies from it.

Y. Koren, R. Bell, C. Volinsky: Matrix Factorization Techniques for Recommender Systems, Computer 42 (8), 2009, eq. 3;
damped as in Y. Koren: Factor in the Neighbors, ACM TKDD 4 (1), 2010, section 2.1, and repeated (`sweeps`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import Broadcast
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.model.half_sweep import Block, Doubles
from spark_app.model.rating_blocks import RatingBlocks, Side
from spark_app.platform.settings import Biases
from spark_app.platform.spark_versions import from_arrow

USERS_SCHEMA = "userId INT, user_bias DOUBLE, rating_count LONG"

PACKED_USERS = "ids BINARY, biases BINARY, counts BINARY"


@dataclass(frozen=True)
class BiasModel:
    """`mean` of all ratings; users(userId, user_bias, rating_count); movies(movieId, movie_bias, rating_count)."""

    mean: float
    users: DataFrame
    movies: DataFrame


def fit_biases(ratings: RatingBlocks, bias_settings: Biases, spark: SparkSession) -> BiasModel:
    """Fit to packed ratings: a sweep is one pass over them, and two numbers a movie on the driver.

    The user biases are persisted and computed here, before whoever called frees the ratings.
    """
    blocks, movie_ids = ratings.users.blocks, ratings.movies.ids
    sums = blocks.map(lambda block: _sums_of_movies(block, block.values.astype(np.float64), len(movie_ids))).collect()
    totals, counts = np.sum(sums, axis=0)
    mean = float(totals.sum() / counts.sum())
    movies = _damped(totals - mean * counts, counts, bias_settings.movie_reg)
    for _ in range(bias_settings.sweeps - 1):
        without_users = _WithoutUsers(spark.sparkContext.broadcast(movies), mean, bias_settings.user_reg)
        totals, _ = np.sum(blocks.map(without_users).collect(), axis=0)
        movies = _damped(totals, counts, bias_settings.movie_reg)
    users = _users(ratings.users, spark, movies, mean, bias_settings.user_reg).persist()
    users.count()
    columns = {"movieId": movie_ids, "movie_bias": movies, "rating_count": counts.astype(np.int64)}
    return BiasModel(mean, users, from_arrow(spark, pa.table(columns)))


@dataclass(frozen=True)
class _WithoutUsers:
    """Sums and numbers of a movie's deviations from the mean and from the users' biases, which are estimated first."""

    movie_biases: Broadcast[Doubles]
    mean: float
    damping: float

    def __call__(self, block: Block) -> Doubles:
        users = _user_biases(block, self.movie_biases.value, self.mean, self.damping)
        deviations = block.values.astype(np.float64) - self.mean - np.repeat(users, block.lengths)
        return _sums_of_movies(block, deviations, len(self.movie_biases.value))


def _sums_of_movies(block: Block, values: NDArray[Any], movies: int) -> Doubles:
    """The sum and the number of the values of each movie: two rows."""
    return np.array([np.bincount(block.others, values, movies), np.bincount(block.others, minlength=movies)])


def _user_biases(block: Block, movie_biases: Doubles, mean: float, damping: float) -> Doubles:
    """How far each user of a block lies from what the mean and the movies' biases say."""
    deviations = block.values.astype(np.float64) - mean - movie_biases[block.others]
    return _damped(block.sums(deviations), block.lengths, damping)


def _damped(sums: Doubles, counts: NDArray[Any], damping: float) -> Doubles:
    """The mean over so many ratings, and `damping` more at 0; 0 where there are none at all."""
    weights = counts + damping
    return np.asarray(np.divide(sums, weights, out=np.zeros_like(sums), where=weights > 0))


def _users(side: Side, spark: SparkSession, movie_biases: Doubles, mean: float, damping: float) -> DataFrame:
    """The users of a BiasModel, a block a row on their way through Spark."""
    shared = spark.sparkContext.broadcast((side.ids, movie_biases))

    def packed(block: Block) -> tuple[bytes, bytes, bytes]:
        ids, movies = shared.value
        biases = _user_biases(block, movies, mean, damping)
        return ids[block.own].tobytes(), biases.tobytes(), block.lengths.astype(np.int64).tobytes()

    return spark.createDataFrame(side.blocks.map(packed), PACKED_USERS).mapInArrow(_unpacked, USERS_SCHEMA)


def _unpacked(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for row in batch.to_pylist():
            columns = (
                np.frombuffer(row[column], dtype)
                for column, dtype in (("ids", np.int32), ("biases", np.float64), ("counts", np.int64))
            )
            arrays = [pa.array(column) for column in columns]
            yield pa.RecordBatch.from_arrays(arrays, names=["userId", "user_bias", "rating_count"])


def user_biases(ratings: DataFrame, model: BiasModel, bias_settings: Biases) -> DataFrame:
    """The users of a model as ratings(userId, movieId, rating) would make them, its mean and movies held fixed.

    They have the columns of `model.users`, and come from the ratings of movies that the model knows: of the ratings it
    was fitted to, they are the same up to rounding.
    """
    without_movies = _without_movies(_deviations(ratings, model.mean), model.movies)
    of_known = without_movies.filter(F.col("deviation").isNotNull())
    return of_known.transform(_damped_mean, "userId", "user_bias", bias_settings.user_reg)


def with_bias_prediction(pairs: DataFrame, model: BiasModel) -> DataFrame:
    """Add the prediction, `bias`, to pairs(userId, movieId, ...), and how many ratings stand behind it.

    These are user_ratings and movie_ratings. Who or what is not in the model has bias 0 and no ratings.
    """
    users = model.users.withColumnRenamed("rating_count", "user_ratings")
    movies = F.broadcast(model.movies.withColumnRenamed("rating_count", "movie_ratings"))
    known = pairs.join(users, on="userId", how="left").join(movies, on="movieId", how="left")
    prediction = F.lit(model.mean) + _or_zero("user_bias") + _or_zero("movie_bias")
    counts = {count: F.coalesce(F.col(count), F.lit(0)) for count in ("user_ratings", "movie_ratings")}
    return known.withColumn("bias", prediction).withColumns(counts).drop("user_bias", "movie_bias")


def _deviations(ratings: DataFrame, mean: float) -> DataFrame:
    # In single precision, as the packed ratings are that the model was fitted to.
    rating = F.col("rating").cast("float").cast("double")
    return ratings.select("userId", "movieId", (rating - F.lit(mean)).alias("deviation"))


def _without_movies(deviations: DataFrame, movies: DataFrame) -> DataFrame:
    """What the movies' biases leave of the deviations; null where the movie has none."""
    joined = deviations.join(F.broadcast(movies.select("movieId", "movie_bias")), on="movieId", how="left")
    return joined.select("userId", "movieId", (F.col("deviation") - F.col("movie_bias")).alias("deviation"))


def _damped_mean(deviations: DataFrame, key: str, bias: str, damping: float) -> DataFrame:
    count = F.count("*")
    return deviations.groupBy(key).agg(
        (F.sum("deviation") / (count + damping)).alias(bias), count.alias("rating_count")
    )


def _or_zero(column: str) -> Column:
    return F.coalesce(F.col(column), F.lit(0.0))
