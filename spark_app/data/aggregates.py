"""Aggregates over ratings."""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F


def movie_stats(movies: DataFrame, ratings: DataFrame, damping: float) -> DataFrame:
    """A row a movie: movieId, rating_count, average_rating (null where there is none), damped_rating.

    `damped_rating` is the Bayesian average: the mean over the movie's ratings and `damping` more at the mean of all
    ratings, so that one enthusiast does not outrank a thousand. It is null only where nobody has rated anything.
    Takes movies(movieId) and ratings(movieId, rating); one pass over the ratings.
    """
    sums = ratings.groupBy("movieId").agg(F.sum("rating").alias("rating_sum"), F.count("*").alias("rating_count"))
    # Over all movies, in one partition: a row a movie is little, and a second aggregate would be a second pass.
    everything = Window.partitionBy()
    overall_mean = F.sum("rating_sum").over(everything) / F.sum("rating_count").over(everything)
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
    """The table of the AWS design: movieId, title, genres (text, `A|B`), average_rating, rating_count, and more.

    Further columns: year, damped_rating. Ordered by movieId.
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
