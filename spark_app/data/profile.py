"""The profile of a data set: distributions and business figures, small enough for a manifest."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

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


@dataclass(frozen=True)
class Activity:
    """How much users give, or movies get.

    - `holders`: how many of them have each number of ratings, the lowest first
    - `average_rating`: the mean of all their ratings; None if there are none
    - `arrivals`: how many were first rated, or first gave a rating, in each month (UTC, such as 2018-09)
    """

    holders: dict[int, int]
    average_rating: float | None
    arrivals: Counter[str]


def activity(features: Iterable[pa.RecordBatch]) -> Activity:
    """Sum up `user_features`, or `movie_features`: rating_count, average_rating, first_rated; batch by batch."""
    holders, arrivals = Counter[int](), Counter[str]()
    ratings, total = 0, 0.0
    for batch in features:
        counts = batch["rating_count"].to_numpy()
        holders.update(counted(counts))
        ratings += int(counts.sum())
        total += float(np.dot(pc.fill_null(batch["average_rating"], 0.0).to_numpy(), counts))
        first = batch["first_rated"].drop_null().cast(pa.timestamp("us")).to_numpy()
        arrivals.update({str(month): count for month, count in counted(first.astype("datetime64[M]")).items()})
    return Activity(dict(sorted(holders.items())), total / ratings if ratings else None, arrivals)


def counted(values: NDArray[Any]) -> dict[Any, int]:
    """How often each value occurs, the lowest first."""
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist() if found.dtype.kind != "M" else found, counts.tolist(), strict=True))


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


def genres(movies: pa.Table, features: pa.Table) -> dict[str, dict[str, float | None]]:
    """For each genre: movies, ratings, average_rating (null if nobody has rated any); the most rated first.

    Takes movies(movieId, genres list) and `features`, the table of `movie_features`, both ordered by movieId. A movie
    counts for each of its genres.
    """
    lists = movies["genres"].combine_chunks()
    names = lists.flatten().dictionary_encode()
    of_movies, of_genres = pc.list_parent_indices(lists).to_numpy(), names.indices.to_numpy()
    counts = features["rating_count"].to_numpy()
    totals = counts * pc.fill_null(features["average_rating"], 0.0).to_numpy()
    size = len(names.dictionary)
    held = np.bincount(of_genres, minlength=size)
    ratings, sums = (np.bincount(of_genres, values[of_movies], minlength=size) for values in (counts, totals))
    rows = zip(names.dictionary.to_pylist(), held.tolist(), ratings.astype(int).tolist(), sums.tolist(), strict=True)
    return {
        name: {"movies": count, "ratings": rated, "average_rating": total / rated if rated else None}
        for name, count, rated, total in sorted(rows, key=lambda row: (-row[2], row[0]))
    }


def decades(features: pa.Table) -> dict[str, dict[str, int]]:
    """Movies and ratings by the decade of release, the earliest first; movies without a year are left out."""
    dated = features.filter(pc.is_valid(features["year"]))
    found, places = np.unique(dated["year"].to_numpy() // 10 * 10, return_inverse=True)
    held = np.bincount(places, minlength=len(found))
    ratings = np.bincount(places, dated["rating_count"].to_numpy(), minlength=len(found)).astype(int)
    rows = zip(found.tolist(), held.tolist(), ratings.tolist(), strict=True)
    return {f"{decade}s": {"movies": count, "ratings": rated} for decade, count, rated in rows}


def months(active: Mapping[str, tuple[int, int]], users: Activity, movies: Activity) -> list[dict[str, Any]]:
    """One row per month (UTC, such as 2018-09) with any rating: ratings, active_users, new_users, new_movies.

    `active` has the ratings and the active users of each month (`Features.months`). A user or movie is new in the month
    of its first rating.
    """
    return [
        {
            "month": month,
            "ratings": ratings,
            "active_users": active_users,
            "new_users": users.arrivals[month],
            "new_movies": movies.arrivals[month],
        }
        for month, (ratings, active_users) in active.items()
    ]
