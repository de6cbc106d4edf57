"""The profile of a data set: distributions and business figures, small enough for a manifest."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from functools import reduce
from typing import Any

import numpy as np
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

TOP_SHARES = {"top_1_percent": 0.01, "top_10_percent": 0.1}
QUANTILES = {"min": 0.0, "median": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


def rating_histogram(values: Mapping[float, int], feedback: str) -> dict[str, int]:
    """How often each rating was given, lowest first, from how often each value was (`Features.values`).

    Keys are ratings as text, such as `3.5`. Counts are grouped by powers of two, such as `1`, `2-3` or `4-7`; counts
    below 1 are grouped as `<1`.
    """
    histogram: Counter[str] = Counter()
    for value in sorted(values):  # ratings that differ only in the last digits have the same text
        name = f"{value:g}" if feedback != "counts" else _power_of_two(math.frexp(value)[1] - 1)
        histogram[name] += values[value]
    return dict(histogram)


def _power_of_two(power: int) -> str:
    if power < 1:
        return "1" if power == 0 else "<1"
    return f"{2**power}-{2 ** (power + 1) - 1}"


def average_rating(features: DataFrame) -> float | None:
    """The mean of all ratings, from the table of `user_features`; None if there are none."""
    total = F.sum(F.col("average_rating") * F.col("rating_count"))
    (row,) = features.agg(F.try_divide(total, F.sum("rating_count")).alias("mean")).collect()
    return None if row["mean"] is None else float(row["mean"])


def holders(features: DataFrame) -> dict[int, int]:
    """How many users, or movies, have each number of ratings, from their features. Collects one row per number."""
    rows = features.groupBy("rating_count").agg(F.count("*").alias("holders")).collect()
    return {row["rating_count"]: row["holders"] for row in rows}


def concentration(holders: Mapping[int, int]) -> dict[str, float]:
    """How ratings are distributed over users, or over movies: quantiles and concentration.

    Takes how many users, or movies, (holders) have each number of ratings. Keys: those of QUANTILES (ratings of a user
    or movie); those of TOP_SHARES (share, 0 to 1, of all ratings that the most active 1 % and 10 % have); gini (0: all
    have equally many, near 1: one has all).

    The Gini coefficient is twice the area between the Lorenz curve and the diagonal (Gastwirth 1972).
    """
    values = np.array(sorted(holders), dtype=np.float64)
    counts = np.array([holders[value] for value in sorted(holders)], dtype=np.float64)
    cum_holders = np.concatenate([[0.0], np.cumsum(counts)])
    cum_ratings = np.concatenate([[0.0], np.cumsum(counts * values)])
    if not cum_ratings[-1]:
        return {}
    places = np.minimum(
        np.searchsorted(cum_holders[1:], np.array(list(QUANTILES.values())) * cum_holders[-1]), len(values) - 1
    )
    shares = [
        1 - np.interp((1 - top) * cum_holders[-1], cum_holders, cum_ratings) / cum_ratings[-1]
        for top in TOP_SHARES.values()
    ]
    gini = 1 - np.sum(np.diff(cum_holders) / cum_holders[-1] * (cum_ratings[1:] + cum_ratings[:-1]) / cum_ratings[-1])
    return {
        **dict(zip(QUANTILES, values[places].tolist(), strict=True)),
        **dict(zip(TOP_SHARES, map(float, shares), strict=True)),
        "gini": float(gini),
    }


def genres(movies: DataFrame, features: DataFrame) -> dict[str, dict[str, float]]:
    """For each genre: movies, ratings, average_rating (null if nobody has rated any); the most rated first.

    Takes movies(movieId, genres array) and `features`, the table of `movie_features`. A movie counts for each of its
    genres.
    """
    rating_sum = F.sum(F.col("average_rating") * F.col("rating_count"))
    rows = (
        movies.select("movieId", F.explode("genres").alias("genre"))
        .join(features, on="movieId", how="inner")
        .groupBy("genre")
        .agg(
            F.count("*").alias("movies"),
            F.sum("rating_count").alias("ratings"),
            F.try_divide(rating_sum, F.sum("rating_count")).alias("average_rating"),
        )
        .orderBy(F.desc("ratings"), "genre")
        .collect()
    )
    return {row["genre"]: {key: row[key] for key in ("movies", "ratings", "average_rating")} for row in rows}


def decades(features: DataFrame) -> dict[str, dict[str, int]]:
    """Movies and ratings by the decade of release, the earliest first; movies without a year are left out."""
    rows = (
        features.filter(F.col("year").isNotNull())
        .groupBy((F.floor(F.col("year") / 10) * 10).alias("decade"))
        .agg(F.count("*").alias("movies"), F.sum("rating_count").alias("ratings"))
        .orderBy("decade")
        .collect()
    )
    return {f"{row['decade']}s": {"movies": row["movies"], "ratings": row["ratings"]} for row in rows}


def months(
    active: Mapping[str, tuple[int, int]], user_features: DataFrame, movie_features: DataFrame
) -> list[dict[str, Any]]:
    """One row per month (UTC, such as 2018-09) with any rating: ratings, active_users, new_users, new_movies.

    `active` has the ratings and the active users of each month (`Features.months`). A user or movie is new in the month
    of its first rating.
    """
    first_ratings = reduce(
        DataFrame.unionByName,
        (
            features.filter(F.col("first_rated").isNotNull()).select(_month("first_rated"), F.lit(name).alias("what"))
            for name, features in (("new_users", user_features), ("new_movies", movie_features))
        ),
    )
    arrivals = {
        (row["month"], row["what"]): row["count"] for row in first_ratings.groupBy("month", "what").count().collect()
    }
    return [
        {
            "month": month,
            "ratings": ratings,
            "active_users": users,
            **{what: arrivals.get((month, what), 0) for what in ("new_users", "new_movies")},
        }
        for month, (ratings, users) in active.items()
    ]


def _month(timestamp: str) -> Column:
    # date_format alone would give the month in the session's time zone.
    is_utc = F.to_utc_timestamp(F.col(timestamp), F.current_timezone())
    return F.date_format(is_utc, "yyyy-MM").alias("month")
