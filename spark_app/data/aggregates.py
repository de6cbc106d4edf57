"""Aggregates over ratings."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

TABLE_SIZE = 2**22
"""The largest number of entries in a table of sums by movieId. Movies with higher ids are grouped."""

SUMS = pa.schema([("movieId", pa.int32()), ("rating_sum", pa.float64()), ("rating_count", pa.int64())])
"""The columns of the sums of ratings by movie."""


def rating_sums(ratings: DataFrame) -> DataFrame:
    """The sums of ratings(movieId, rating) by movie: the columns of SUMS."""
    return ratings.groupBy("movieId").agg(F.sum("rating").alias("rating_sum"), F.count("*").alias("rating_count"))


def sums_of(movies: NDArray[np.int32], ratings: NDArray[np.float64]) -> pa.Table:
    """The same sums of ratings that are in memory, in the order of movieId."""
    if len(movies) and movies.min() >= 0 and movies.max() < TABLE_SIZE:
        counts, totals = np.bincount(movies), np.bincount(movies, ratings)
        (found,) = np.nonzero(counts)
        return pa.table([pa.array(found, pa.int32()), pa.array(totals[found]), pa.array(counts[found])], schema=SUMS)
    return added([pa.table([movies, ratings, np.ones(len(movies), dtype=np.int64)], schema=SUMS)])


def added(parts: Iterable[pa.Table]) -> pa.Table:
    """The sums of several parts of the ratings together, in the order of movieId."""
    rows = pa.concat_tables([SUMS.empty_table(), *parts]).combine_chunks()
    # Several threads would add in another order each time.
    by_movie = rows.group_by("movieId", use_threads=False)
    total = by_movie.aggregate([("rating_sum", "sum"), ("rating_count", "sum")]).sort_by("movieId")
    return total.select(["movieId", "rating_sum_sum", "rating_count_sum"]).rename_columns(SUMS.names)


def movie_stats(movies: DataFrame, sums: DataFrame, damping: float) -> DataFrame:
    """One row per movie: movieId, rating_count, average_rating (null if there is no rating), damped_rating.

    `damped_rating` is the Bayesian average: the mean over the movie's ratings and `damping` more at the mean of all
    ratings, so that one enthusiast does not outrank a thousand. It is null if nobody has rated anything, and for movies
    without ratings if `damping` is 0. Takes movies(movieId) and the sums of their ratings, from `rating_sums`.
    """
    # One partition is enough for one row per movie.
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
