"""The bias-only model: the mean of all ratings, plus how far each movie and each user lies from it.

Y. Koren, R. Bell, C. Volinsky: Matrix Factorization Techniques for Recommender Systems, Computer 42 (8), 2009, eq. 3;
damped as in Y. Koren: Factor in the Neighbors, ACM TKDD 4 (1), 2010, section 2.1, and repeated (`sweeps`).
"""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_app.platform.settings import Biases


@dataclass(frozen=True)
class BiasModel:
    """`mean` of all ratings; `users` (userId, user_bias) and `movies` (movieId, movie_bias, rating_count)."""

    mean: float
    users: DataFrame
    movies: DataFrame


def fit_biases(ratings: DataFrame, settings: Biases) -> BiasModel:
    """Fit to ratings(userId, movieId, rating). Each sweep is one aggregation by movie and one by user.

    Ratings that are cached and partitioned by userId spare the shuffle by user.
    """
    (mean,) = ratings.agg(F.avg("rating")).collect()[0]
    deviations = ratings.select("userId", "movieId", (F.col("rating") - F.lit(mean)).alias("deviation"))
    users = ratings.select("userId", F.lit(0.0).alias("user_bias")).limit(0)
    for _ in range(settings.sweeps):
        without_users = _without(deviations, users, "userId", "user_bias")
        movies = _damped_mean(without_users, "movieId", "movie_bias", settings.movie_reg).persist()
        without_movies = _without(deviations, movies, "movieId", "movie_bias")
        users = _damped_mean(without_movies, "userId", "user_bias", settings.user_reg).persist()
    return BiasModel(mean, users.drop("rating_count"), movies)


def with_bias_prediction(pairs: DataFrame, model: BiasModel) -> DataFrame:
    """Add `bias_prediction` to pairs(userId, movieId, ...); who or what is not in the model has bias 0."""
    movies = model.movies.select("movieId", "movie_bias")
    known = pairs.join(model.users, on="userId", how="left").join(movies, on="movieId", how="left")
    prediction = F.lit(model.mean) + _or_zero("user_bias") + _or_zero("movie_bias")
    return known.withColumn("bias_prediction", prediction).drop("user_bias", "movie_bias")


def _without(deviations: DataFrame, biases: DataFrame, key: str, bias: str) -> DataFrame:
    joined = deviations.join(biases.select(key, bias), on=key, how="left")
    return joined.withColumn("deviation", F.col("deviation") - _or_zero(bias))


def _damped_mean(deviations: DataFrame, key: str, bias: str, damping: float) -> DataFrame:
    count = F.count("*")
    return deviations.groupBy(key).agg(
        (F.sum("deviation") / (count + damping)).alias(bias), count.alias("rating_count")
    )


def _or_zero(column: str) -> Column:
    return F.coalesce(F.col(column), F.lit(0.0))
