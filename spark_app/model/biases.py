"""The bias-only model: the mean of all ratings, plus how far each movie and each user lies from it.

Y. Koren, R. Bell, C. Volinsky: Matrix Factorization Techniques for Recommender Systems, Computer 42 (8), 2009, eq. 3;
damped as in Y. Koren: Factor in the Neighbors, ACM TKDD 4 (1), 2010, section 2.1, and repeated (`sweeps`).
"""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from spark_app.platform.generations import from_arrow, to_arrow
from spark_app.platform.settings import Biases


@dataclass(frozen=True)
class BiasModel:
    """`mean` of all ratings; users(userId, user_bias, rating_count); movies(movieId, movie_bias, rating_count)."""

    mean: float
    users: DataFrame
    movies: DataFrame


def fit_biases(ratings: DataFrame, settings: Biases) -> BiasModel:
    """Fit to ratings(userId, movieId, rating); a sweep is one pass over them, and a row a movie on the driver.

    Ratings that are cached, partitioned by userId and sorted by it spare each pass its shuffle by user. The user biases
    are persisted and computed here, before whoever called drops the ratings from the cache.
    """
    (mean,) = ratings.agg(F.avg("rating")).collect()[0]
    deviations = _deviations(ratings, mean)
    movies = _as_values(deviations.transform(_damped_mean, "movieId", "movie_bias", settings.movie_reg))
    for _ in range(settings.sweeps - 1):
        without_users = _without_movies(deviations, movies).transform(_without_users, settings.user_reg)
        movies = _as_values(without_users.transform(_damped_mean, "movieId", "movie_bias", settings.movie_reg))
    users = _without_movies(deviations, movies).transform(_damped_mean, "userId", "user_bias", settings.user_reg)
    users = users.persist()
    users.count()
    return BiasModel(mean, users, movies)


def user_biases(ratings: DataFrame, model: BiasModel, settings: Biases) -> DataFrame:
    """The users of a model as ratings(userId, movieId, rating) would make them, its mean and movies held fixed.

    They have the columns of `model.users`, and come from the ratings of movies that the model knows: of the ratings it
    was fitted to, they are the same up to rounding.
    """
    without_movies = _without_movies(_deviations(ratings, model.mean), model.movies)
    of_known = without_movies.filter(F.col("deviation").isNotNull())
    return of_known.transform(_damped_mean, "userId", "user_bias", settings.user_reg)


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
    return ratings.select("userId", "movieId", (F.col("rating") - F.lit(mean)).alias("deviation"))


def _as_values(movies: DataFrame) -> DataFrame:
    """The rows of a frame, fetched: a plan that grew with each sweep would soon be too deep for a task to read."""
    return from_arrow(movies.sparkSession, to_arrow(movies))


def _without_movies(deviations: DataFrame, movies: DataFrame) -> DataFrame:
    """What the movies' biases leave of the deviations; the raw ones stay beside it as `from_mean`."""
    joined = deviations.join(F.broadcast(movies.select("movieId", "movie_bias")), on="movieId", how="left")
    return joined.select(
        "userId",
        "movieId",
        F.col("deviation").alias("from_mean"),
        (F.col("deviation") - F.col("movie_bias")).alias("deviation"),
    )


def _without_users(without_movies: DataFrame, damping: float) -> DataFrame:
    """What the users' biases, taken from what the movies' leave, leave of the raw deviations."""
    by_user = Window.partitionBy("userId")
    user_bias = F.sum("deviation").over(by_user) / (F.count("*").over(by_user) + damping)
    return without_movies.select("movieId", (F.col("from_mean") - user_bias).alias("deviation"))


def _damped_mean(deviations: DataFrame, key: str, bias: str, damping: float) -> DataFrame:
    count = F.count("*")
    return deviations.groupBy(key).agg(
        (F.sum("deviation") / (count + damping)).alias(bias), count.alias("rating_count")
    )


def _or_zero(column: str) -> Column:
    return F.coalesce(F.col(column), F.lit(0.0))
