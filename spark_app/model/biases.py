"""The bias-only model: a rating is predicted by the mean of all ratings, plus a movie bias, plus a user bias.

Y. Koren, R. Bell, C. Volinsky: Matrix Factorization Techniques for Recommender Systems, Computer 42 (8), 2009, eq. 3.
The biases are damped as in Y. Koren: Factor in the Neighbors, ACM TKDD 4 (1), 2010, section 2.1. Movie and user biases
are estimated in turn, `sweeps` times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.model.blocks import Shared
from spark_app.model.half_sweep import Block, Doubles, Floats
from spark_app.model.rating_blocks import RatingBlocks, Side
from spark_app.platform.arrow_files import Files
from spark_app.platform.settings import Biases
from spark_app.platform.spark_versions import from_arrow, to_arrow

USERS_SCHEMA = "userId INT, user_bias DOUBLE, rating_count LONG"
MOVIES_SCHEMA = "movieId INT, movie_bias DOUBLE, rating_count LONG"

PACKED_USERS = "ids BINARY, biases BINARY, counts BINARY"


@dataclass(frozen=True)
class BiasModel:
    """The `mean` of all ratings, users(userId, user_bias, rating_count), movies(movieId, movie_bias, rating_count).

    `read_movies` gives the movies without Spark, where they are on the driver or stored. `user_files` has the users, if
    tasks can read it where it is stored.
    """

    mean: float
    users: DataFrame
    movies: DataFrame
    read_movies: Callable[[], pa.Table] | None = None
    user_files: Files | None = None

    def movie_rows(self) -> pa.Table:
        """The movies, on the driver."""
        return self.read_movies() if self.read_movies else to_arrow(self.movies)

    @property
    def user_rows(self) -> DataFrame | Files:
        """The users."""
        return self.user_files or self.users


def fit_biases(ratings: RatingBlocks, bias_settings: Biases, spark: SparkSession) -> BiasModel:
    """Fit the bias model to packed ratings.

    A sweep is one pass over the ratings, and brings two numbers per movie to the driver. The user biases are computed
    and persisted here, because the caller may free the ratings afterwards.
    """
    blocks, movie_ids = ratings.users.blocks, ratings.movies.ids
    sums = blocks.each(lambda block: _sums_of_movies(block, block.values.astype(np.float64), len(movie_ids)))
    totals, counts = np.sum(sums, axis=0)
    mean = float(totals.sum() / counts.sum())
    movies = _damped(totals - mean * counts, counts, bias_settings.movie_reg)
    for _ in range(bias_settings.sweeps - 1):
        without_users = _WithoutUsers(blocks.share(movies), mean, bias_settings.user_reg)
        totals, _ = np.sum(blocks.each(without_users), axis=0)
        movies = _damped(totals, counts, bias_settings.movie_reg)
    users = _users(ratings.users, spark, movies, mean, bias_settings.user_reg).persist()
    users.count()
    table = pa.table({"movieId": movie_ids, "movie_bias": movies, "rating_count": counts.astype(np.int64)})
    return BiasModel(mean, users, from_arrow(spark, table), lambda: table)


@dataclass(frozen=True)
class _WithoutUsers:
    """Estimates the user biases of a block, and sums what they and the mean leave of each movie's ratings.

    Gives the sum and the number of these deviations for each movie, as two rows.
    """

    movie_biases: Shared[Doubles]
    mean: float
    damping: float

    def __call__(self, block: Block) -> Doubles:
        users = _user_biases(block, self.movie_biases.value, self.mean, self.damping)
        deviations = block.values.astype(np.float64) - self.mean - np.repeat(users, block.lengths)
        return _sums_of_movies(block, deviations, len(self.movie_biases.value))


def _sums_of_movies(block: Block, values: NDArray[Any], movies: int) -> Doubles:
    """The sum and the number of the values of each movie, as two rows."""
    return np.array([np.bincount(block.others, values, movies), np.bincount(block.others, minlength=movies)])


def _user_biases(block: Block, movie_biases: Doubles, mean: float, damping: float) -> Doubles:
    """The bias of each user of a block: the damped mean of their ratings less the mean and the movies' biases."""
    deviations = block.values.astype(np.float64) - mean - movie_biases[block.others]
    return _damped(block.sums(deviations), block.lengths, damping)


def _damped(sums: Doubles, counts: NDArray[Any], damping: float) -> Doubles:
    """The mean as if `damping` more ratings were 0: sums / (counts + damping), and 0 where that divides by 0."""
    weights = counts + damping
    return np.asarray(np.divide(sums, weights, out=np.zeros_like(sums), where=weights > 0))


def _users(side: Side, spark: SparkSession, movie_biases: Doubles, mean: float, damping: float) -> DataFrame:
    """The users(userId, user_bias, rating_count) of a BiasModel. They enter Spark as one packed row per block."""
    shared = side.blocks.share((side.ids, movie_biases))

    def packed(block: Block) -> tuple[bytes, bytes, bytes]:
        ids, movies = shared.value
        biases = _user_biases(block, movies, mean, damping)
        return ids[block.own].tobytes(), biases.tobytes(), block.lengths.astype(np.int64).tobytes()

    return side.blocks.frame(spark, packed, PACKED_USERS).mapInArrow(_unpacked, USERS_SCHEMA)


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
    """Estimate the users(userId, user_bias, rating_count) of a model from ratings(userId, movieId, rating).

    The mean and the movie biases of the model stay fixed. Ratings of movies that the model does not know are ignored.
    The ratings that the model was fitted to give the users of the model, up to rounding.
    """
    without_movies = _without_movies(_deviations(ratings, model.mean), model.movies)
    of_known = without_movies.filter(F.col("deviation").isNotNull())
    return of_known.transform(_damped_mean, "userId", "user_bias", bias_settings.user_reg)


def bias_of_user(ratings: Floats, movie_biases: Doubles, mean: float, bias_settings: Biases) -> float:
    """The bias of one user, as `user_biases` estimates it, from the ratings and the biases of their movies."""
    deviations = ratings.astype(np.float64) - mean - movie_biases
    return float(_damped(deviations.sum(keepdims=True), np.array([len(ratings)]), bias_settings.user_reg)[0])


def with_bias_prediction(pairs: DataFrame, model: BiasModel) -> DataFrame:
    """Add to pairs(userId, movieId, ...) the prediction `bias`, and the counts user_ratings and movie_ratings.

    The counts are the numbers of ratings that the model has seen of the user and of the movie. A user or movie that is
    not in the model has bias 0 and count 0.
    """
    users = model.users.withColumnRenamed("rating_count", "user_ratings")
    movies = F.broadcast(model.movies.withColumnRenamed("rating_count", "movie_ratings"))
    known = pairs.join(users, on="userId", how="left").join(movies, on="movieId", how="left")
    prediction = F.lit(model.mean) + _or_zero("user_bias") + _or_zero("movie_bias")
    counts = {count: F.coalesce(F.col(count), F.lit(0)) for count in ("user_ratings", "movie_ratings")}
    return known.withColumn("bias", prediction).withColumns(counts).drop("user_bias", "movie_bias")


def _deviations(ratings: DataFrame, mean: float) -> DataFrame:
    # Single precision, because the model was fitted to packed ratings, which are floats.
    rating = F.col("rating").cast("float").cast("double")
    return ratings.select("userId", "movieId", (rating - F.lit(mean)).alias("deviation"))


def _without_movies(deviations: DataFrame, movies: DataFrame) -> DataFrame:
    """Subtract the movies' biases from the deviations; null where the model does not know the movie."""
    joined = deviations.join(F.broadcast(movies.select("movieId", "movie_bias")), on="movieId", how="left")
    return joined.select("userId", "movieId", (F.col("deviation") - F.col("movie_bias")).alias("deviation"))


def _damped_mean(deviations: DataFrame, key: str, bias: str, damping: float) -> DataFrame:
    count = F.count("*")
    return deviations.groupBy(key).agg(
        (F.sum("deviation") / (count + damping)).alias(bias), count.alias("rating_count")
    )


def _or_zero(column: str) -> Column:
    return F.coalesce(F.col(column), F.lit(0.0))
