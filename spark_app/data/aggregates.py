"""Aggregates over ratings."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame
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


def movie_stats(movies: pa.Array, sums: pa.Table, damping: float) -> pa.Table:
    """One row per movie: movieId, rating_count, average_rating (null if there is no rating), damped_rating.

    `damped_rating` is the Bayesian average: the mean over the movie's ratings and `damping` more at the mean of all
    ratings, so that one enthusiast does not outrank a thousand. It is null if nobody has rated anything, and for movies
    without ratings if `damping` is 0. Takes the movieIds, and the sums of their ratings. Ordered by movieId.
    """
    rows = pa.table({"movieId": movies}).join(sums, "movieId").sort_by("movieId")
    is_rated = pc.is_valid(rows["rating_count"]).to_numpy()
    counts, totals = (pc.fill_null(rows[name], 0).to_numpy() for name in ("rating_count", "rating_sum"))
    damped_counts = counts + damping
    has_damped = (damped_counts > 0) & is_rated.any()
    overall_mean = totals.sum() / max(counts.sum(), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        averages, damped = totals / counts, (totals + damping * overall_mean) / damped_counts
    return pa.table(
        {
            "movieId": rows["movieId"],
            "rating_count": pa.array(counts, pa.int64()),
            "average_rating": pa.array(averages, mask=~is_rated),
            "damped_rating": pa.array(damped, mask=~has_damped),
        }
    )


def final_movies(movies: pa.Table, stats: pa.Table) -> pa.Table:
    """The table `final`: movieId, title, genres (text, `A|B`), average_rating, rating_count, year, damped_rating.

    The first five are the columns of the AWS design. Takes one row per movie of both, ordered by movieId.
    """
    return pa.table(
        {
            "movieId": movies["movieId"],
            "title": movies["title"],
            "genres": pc.binary_join(movies["genres"], "|"),
            "average_rating": stats["average_rating"],
            "rating_count": stats["rating_count"],
            "year": movies["year"],
            "damped_rating": stats["damped_rating"],
        }
    )
