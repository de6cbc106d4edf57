"""Features of each user and each movie, computed from the ratings."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

FAVOURITES = 3
"""The largest number of favourite genres of a user."""

FONDNESS_DECIMALS = 6
"""Fondness is rounded to this many decimals before it is compared: digits after them depend on the order of the sum."""


def user_features(ratings: DataFrame, movies: DataFrame) -> DataFrame:
    """One row per user: userId, the columns of `_activity`, favourite_genres (array of text, the favourite first).

    The fondness of a user for a genre is the sum of (rating - average of the user) over its movies. Favourites are the
    genres with a fondness above 0, the largest first, ties by name. Users who give all movies the same rating, or rate
    only movies without genres, have none. Takes ratings(userId, movieId, rating, timestamp), movies(movieId, genres
    array); two passes over the ratings.
    """
    activity = ratings.groupBy("userId").agg(*_activity())
    genres = F.broadcast(movies.select("movieId", F.explode("genres").alias("genre")))
    of_genre = (
        ratings.join(genres, on="movieId", how="inner")
        .groupBy("userId", "genre")
        .agg(F.sum("rating").alias("rating_sum"), F.count("*").alias("ratings"))
    )
    fondness = F.round(F.col("rating_sum") - F.col("ratings") * F.col("average_rating"), FONDNESS_DECIMALS)
    fondest_first = F.array_sort(F.collect_list(F.struct((-F.col("fondness")).alias("order"), "genre")))
    favourites = (
        of_genre.join(activity.select("userId", "average_rating"), on="userId", how="inner")
        .withColumn("fondness", fondness)
        .filter(F.col("fondness") > 0)
        .groupBy("userId")
        .agg(F.slice(F.transform(fondest_first, lambda entry: entry.genre), 1, FAVOURITES).alias("favourite_genres"))
    )
    none = F.array().cast("array<string>")
    return activity.join(favourites, on="userId", how="left").withColumn(
        "favourite_genres", F.coalesce("favourite_genres", none)
    )


def movie_features(ratings: DataFrame, movies: DataFrame) -> DataFrame:
    """One row per movie of the catalogue: movieId, year, and the columns of `_activity`.

    A movie that nobody has rated has rating_count 0 and nulls. Takes ratings(movieId, rating, timestamp) and
    movies(movieId, year); one pass over the ratings.
    """
    activity = ratings.groupBy("movieId").agg(*_activity())
    return (
        movies.select("movieId", "year")
        .join(activity, on="movieId", how="left")
        .withColumn("rating_count", F.coalesce("rating_count", F.lit(0).cast("bigint")))
    )


def _activity() -> list[Column]:
    """rating_count, average_rating, rating_stddev (of the sample: null for a single rating), first and last time."""
    return [
        F.count("*").alias("rating_count"),
        F.avg("rating").alias("average_rating"),
        F.stddev_samp("rating").alias("rating_stddev"),
        F.min("timestamp").alias("first_rated"),
        F.max("timestamp").alias("last_rated"),
    ]
