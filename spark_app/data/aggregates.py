"""Aggregates over ratings."""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F


def movie_stats(movies: DataFrame, ratings: DataFrame, damping: float) -> DataFrame:
    """One row per movie: movieId, rating_count, average_rating (null if there is no rating), damped_rating.

    `damped_rating` is the Bayesian average: the mean over the movie's ratings and `damping` more at the mean of all
    ratings, so that one enthusiast does not outrank a thousand. It is null if nobody has rated anything, and for movies
    without ratings if `damping` is 0. Takes movies(movieId) and ratings(movieId, rating); one pass over the ratings.
    """
    sums = ratings.groupBy("movieId").agg(F.sum("rating").alias("rating_sum"), F.count("*").alias("rating_count"))
    # One partition is enough for one row per movie; another aggregate would be a second pass over the ratings.
    all_movies = Window.partitionBy()
    overall_mean = F.sum("rating_sum").over(all_movies) / F.sum("rating_count").over(all_movies)
    damped_sum = F.coalesce("rating_sum", F.lit(0.0)) + damping * F.col("overall_mean")
    damped_count = F.coalesce("rating_count", F.lit(0)) + F.lit(damping)
    return (
        movies.select("movieId")
        .join(sums, on="movieId", how="left")
        .withColumn("overall_mean", overall_mean)
        .select(
            "movieId",
            F.coalesce("rating_count", F.lit(0)).cast("bigint").alias("rating_count"),
            (F.col("rating_sum") / F.col("rating_count")).alias("average_rating"),
            F.try_divide(damped_sum, damped_count).alias("damped_rating"),
        )
    )


def final_movies(movies: DataFrame, stats: DataFrame) -> DataFrame:
    """The table `final`: movieId, title, genres (text, `A|B`), average_rating, rating_count, year, damped_rating.

    The first five are the columns of the AWS design. Ordered by movieId.
    """
    return (
        movies.join(stats, on="movieId", how="inner")
        .select(
            "movieId",
            "title",
            F.concat_ws("|", "genres").alias("genres"),
            "average_rating",
            "rating_count",
            "year",
            "damped_rating",
        )
        .orderBy("movieId")
    )
