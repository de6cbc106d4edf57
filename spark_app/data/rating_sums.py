"""Sums of ratings by user, movie, genre, month and value, in numpy; and the features that they give.

Ratings can be summed up in parts. Sums of the same user (or movie) in several parts are added.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

FAVOURITES = 3
"""The largest number of favourite genres of a user."""

FONDNESS_DECIMALS = 6
"""Fondness is rounded to this many decimals before it is compared: digits after them depend on the order of the sum."""

NO_TIME = np.iinfo(np.int64).min
"""Stands for the time of a rating that has none."""

BITS = 31
"""A pair is a user's id and, in this many bits, the place of a genre or the number of a month."""

DENSE = 4
"""Integers lie close together where those that could occur are fewer than this many times the rows."""

HALF_OF_MONTHS = 2**30
"""Added to a month before 1970 and after, so that it is above 0."""

USER, MOVIE, GENRE, ACTIVE, MONTH, VALUE = "user", "movie", "genre", "active", "month", "value"
"""The kinds of sums: by user, by movie, by user and genre, users by month, ratings by month, ratings by value."""

TIME = pa.timestamp("us", tz="UTC")

ACTIVITY = pa.schema(
    [
        ("id", pa.int32()),
        ("count", pa.int64()),
        ("total", pa.float64()),
        ("squares", pa.float64()),
        ("first", pa.int64()),
        ("last", pa.int64()),
    ]
)
"""Sums by USER or by MOVIE. `squares` are those of deviations from the mean; times are microseconds since 1970."""

FEATURES = [
    ("rating_count", pa.int64()),
    ("average_rating", pa.float64()),
    ("rating_stddev", pa.float64()),
    ("first_rated", TIME),
    ("last_rated", TIME),
]
MOVIES = pa.schema([("movieId", pa.int32()), *FEATURES])
USERS = pa.schema([("userId", pa.int32()), *FEATURES, ("favourite_genres", pa.list_(pa.string()))])

Columns = dict[str, NDArray[Any]]

Sums = dict[str, pa.Table]
"""The sums of each kind. USER, MOVIE, GENRE and ACTIVE have a column `id`, of users or of movies."""


@dataclass(frozen=True)
class Genres:
    """The genres of movies: those of `movies[i]` are `names[place]` for the places `of[starts[i]:starts[i + 1]]`.

    Both `movies` and `names` are ascending.
    """

    names: list[str]
    movies: NDArray[np.int32]
    starts: NDArray[np.int64]
    of: NDArray[np.int32]

    def of_ratings(self, by_movie: _Groups) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """For each genre of each rating's movie: the row of the rating, and the place of the genre in `names`."""
        if not len(self.movies):
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int32)
        found = np.minimum(np.searchsorted(self.movies, by_movie.keys), len(self.movies) - 1)
        of_movies = np.where(self.movies[found] == by_movie.keys, np.diff(self.starts)[found], 0)
        counts = of_movies[by_movie.places]
        ends = np.cumsum(counts)
        places = np.repeat(self.starts[found][by_movie.places] - (ends - counts), counts)
        places += np.arange(len(places))
        return np.repeat(np.arange(len(counts)), counts), self.of[places]


def genres_of(movies: pa.Table) -> Genres:
    """The genres of movies(movieId, genres list)."""
    table = movies.select(["movieId", "genres"]).sort_by("movieId")
    lists = table["genres"].combine_chunks()
    encoded = pc.dictionary_encode(lists.flatten())
    names = encoded.dictionary.to_pylist()
    in_order = sorted(names)
    place_of = {name: place for place, name in enumerate(in_order)}
    places = np.array([place_of[name] for name in names], dtype=np.int64)
    # A genre that a movie has twice counts once.
    pairs = np.unique(pc.list_parent_indices(lists).to_numpy() * len(names) + places[encoded.indices.to_numpy()])
    of_movies, genres = np.divmod(pairs, max(len(names), 1))
    starts = np.searchsorted(of_movies, np.arange(len(table) + 1))
    return Genres(in_order, table["movieId"].to_numpy(), starts, genres.astype(np.int32))


def summed(ratings: pa.Table, genres: Genres) -> Sums:
    """Sums of ratings(userId, movieId, rating, timestamp)."""
    users, movies, values = (ratings[name].to_numpy() for name in ("userId", "movieId", "rating"))
    times = _micros(ratings["timestamp"])
    by_user, by_movie = _grouped(users), _grouped(movies)
    rows, of_rows = genres.of_ratings(by_movie)
    by_genre = _grouped_twice(by_user.places[rows], of_rows, len(genres.names))
    dated = times != NO_TIME
    by_month = _grouped(times[dated].astype("datetime64[us]").astype("datetime64[M]").astype(np.int64))
    active = _grouped_twice(by_user.places[dated], by_month.places, len(by_month.keys)).keys
    active_user, month = np.divmod(active, max(len(by_month.keys), 1))
    active_users = by_user.keys[active_user]
    pairs = _pairs(active_users, by_month.keys[month] + HALF_OF_MONTHS)
    counted = pc.value_counts(ratings["rating"])
    columns = {
        USER: _activity(by_user, values, times),
        MOVIE: _activity(by_movie, values, times),
        GENRE: _of_genres(by_user, by_genre, values[rows], len(genres.names)),
        ACTIVE: {"id": active_users, "pair": pairs},
        MONTH: {"key": by_month.keys, "count": by_month.counts},
        VALUE: {"key": counted.field("values"), "count": counted.field("counts")},
    }
    return {kind: pa.table(of_kind) for kind, of_kind in columns.items()}


def _micros(times: pa.ChunkedArray) -> NDArray[np.int64]:
    """Times as microseconds since 1970."""
    micros: NDArray[np.int64] = times.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).fill_null(NO_TIME).to_numpy()
    return micros


def _of_genres(by_user: _Groups, by_genre: _Groups, ratings: NDArray[np.float64], genres: int) -> Columns:
    """One row per user and genre: id, key (the pair), count, total."""
    user, genre = np.divmod(by_genre.keys, max(genres, 1))
    ids = by_user.keys[user]
    return {"id": ids, "key": _pairs(ids, genre), "count": by_genre.counts, "total": by_genre.sums_of(ratings)}


def added(sums: pa.Table) -> pa.Table:
    """Sums by USER or by MOVIE of several parts, added: one row of ACTIVITY per id, ascending."""
    return pa.table(_added(sums), schema=ACTIVITY)


def features_of_movies(sums: pa.Table) -> pa.RecordBatch:
    """From all sums by MOVIE: the features of MOVIES, ascending."""
    return pa.RecordBatch.from_arrays(_columns_of(_added(sums)), schema=MOVIES)


def features_of_users(sums: pa.Table, of_genres: pa.Table | None, names: Sequence[str]) -> pa.RecordBatch:
    """From all sums by USER and by GENRE: the features of USERS, ascending. `names` are those of the genres."""
    activity = _added(sums)
    columns = [*_columns_of(activity), _favourites(activity, of_genres, names)]
    return pa.RecordBatch.from_arrays(columns, schema=USERS)


def active_users(pairs: pa.Table) -> Counter[int]:
    """From all ACTIVE pairs: how many users are active in each month."""
    months, users = np.unique(_second_of(np.unique(pairs["pair"].to_numpy())) - HALF_OF_MONTHS, return_counts=True)
    return Counter(dict(zip(months.tolist(), users.tolist(), strict=True)))


def counts_of(sums: pa.Table) -> Counter[Any]:
    """From sums by MONTH or by VALUE: the number of ratings by key."""
    return Counter(dict(zip(sums["key"].to_pylist(), sums["count"].to_pylist(), strict=True)))


@dataclass(frozen=True)
class _Groups:
    """Rows grouped by an integer. Every integer that could occur has a numbered bin.

    `keys` are those that occur, ascending; `bins` has the bin of each key, `found` the bin of each row.
    """

    keys: NDArray[Any]
    found: NDArray[np.intp]
    bins: NDArray[np.intp]

    @functools.cached_property
    def places(self) -> NDArray[np.intp]:
        """The place of each row's key in `keys`."""
        place = np.empty(self.bins[-1] + 1 if len(self.bins) else 0, dtype=np.intp)
        place[self.bins] = np.arange(len(self.bins))
        return place[self.found]

    @functools.cached_property
    def counts(self) -> NDArray[np.int64]:
        """The number of rows of each key."""
        return np.bincount(self.found)[self.bins]

    def sums_of(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum of a value of each row, for each key."""
        return np.asarray(np.bincount(self.found, values)[self.bins], dtype=np.float64)


def _grouped(keys: NDArray[Any]) -> _Groups:
    """Rows by an integer. Where those lie close together, a table of all that could occur is quicker than sorting."""
    least = keys.min() if len(keys) else 0
    if len(keys) and int(keys.max()) - int(least) >= DENSE * len(keys):
        different, places = np.unique(keys, return_inverse=True)
        return _Groups(different, places, np.arange(len(different)))
    found = np.subtract(keys, least, dtype=np.intp)
    occurs = np.zeros(found.max() + 1 if len(found) else 0, dtype=np.bool_)
    occurs[found] = True
    (bins,) = np.nonzero(occurs)
    return _Groups((bins + least).astype(keys.dtype), found, bins)


def _grouped_twice(first: NDArray[np.intp], second: NDArray[Any], size: int) -> _Groups:
    """Rows by two places, the second below `size`. The key is first * size + second."""
    return _grouped(first * np.intp(size) + second)


def _activity(groups: _Groups, ratings: NDArray[np.float64], micros: NDArray[np.int64]) -> Columns:
    """One row of ACTIVITY per id, ascending."""
    counts, totals = groups.counts, groups.sums_of(ratings)
    deviations = ratings - (totals / counts)[groups.places]
    first, last = np.full(len(counts), np.iinfo(np.int64).max), np.full(len(counts), np.iinfo(np.int64).min)
    np.minimum.at(first, groups.places, micros)
    np.maximum.at(last, groups.places, micros)
    return {
        "id": groups.keys,
        "count": counts,
        "total": totals,
        "squares": groups.sums_of(deviations * deviations),
        "first": first,
        "last": last,
    }


def _added(rows: pa.Table) -> Columns:
    """Rows of `_activity` of several tasks, added: one row per id, ascending.

    Squares are added as in T. Chan, G. Golub, R. LeVeque: Updating formulae and a pairwise algorithm for computing
    sample variances (1979).
    """
    columns = {name: rows[name].to_numpy() for name in rows.column_names}
    order, starts = _groups(columns["id"])

    def total(values: NDArray[Any]) -> NDArray[Any]:
        return np.add.reduceat(values[order], starts)

    counts, totals = total(columns["count"]), total(columns["total"])
    between = total(columns["total"] ** 2 / columns["count"]) - totals**2 / counts
    return {
        "id": columns["id"][order][starts],
        "count": counts,
        "total": totals,
        "squares": total(columns["squares"]) + np.maximum(between, 0),
        "first": np.minimum.reduceat(columns["first"][order], starts),
        "last": np.maximum.reduceat(columns["last"][order], starts),
    }


def _groups(keys: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """An order in which equal keys stand together, ascending, and where each group begins in it."""
    order = np.arange(len(keys)) if len(keys) and (keys[1:] >= keys[:-1]).all() else np.argsort(keys, kind="stable")
    in_order = keys[order]
    return order, np.flatnonzero(np.append(True, in_order[1:] != in_order[:-1])[: len(keys)])


def _pairs(users: NDArray[np.int32], others: NDArray[Any]) -> NDArray[np.int64]:
    """Users and small numbers as one number; pairs of one user stand together, and those of lower users first."""
    return np.asarray((users.astype(np.int64) << BITS) + others)


def _first_of(pairs: NDArray[np.int64]) -> NDArray[np.int32]:
    """The users of pairs."""
    return (pairs >> BITS).astype(np.int32)


def _second_of(pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """The other numbers of pairs."""
    return np.asarray(pairs & (2**BITS - 1))


def _columns_of(activity: Columns) -> list[pa.Array]:
    """The id, and the columns of FEATURES."""
    counts, totals, squares = activity["count"], activity["total"], activity["squares"]
    single = counts == 1
    deviations = np.sqrt(squares / np.where(single, 1, counts - 1))
    times = [pa.array(activity[name], mask=activity[name] == NO_TIME).cast(TIME) for name in ("first", "last")]
    return [
        pa.array(activity["id"]),
        pa.array(counts),
        pa.array(totals / counts),
        pa.array(deviations, mask=single),
        *times,
    ]


def _favourites(activity: Columns, of_genres: pa.Table | None, names: Sequence[str]) -> pa.ListArray:
    """The favourite genres of each user, as texts."""
    if of_genres is None or not len(of_genres):
        return pa.array([[]] * len(activity["id"]), pa.list_(pa.string()))
    keys = of_genres["key"].to_numpy()
    order, starts = _groups(keys)
    counts, totals = (np.add.reduceat(of_genres[name].to_numpy()[order], starts) for name in ("count", "total"))
    pairs = keys[order][starts]
    users = np.searchsorted(activity["id"], _first_of(pairs))
    fondness = np.round(totals - counts * (activity["total"] / activity["count"])[users], FONDNESS_DECIMALS)
    is_liked = fondness > 0
    users, places, fondness = users[is_liked], _second_of(pairs)[is_liked], fondness[is_liked]
    order = np.lexsort((places, -fondness, users))  # genres are numbered in the order of their names
    users, places = users[order], places[order]
    of_user = np.arange(len(users)) - np.searchsorted(users, users)
    users, places = users[of_user < FAVOURITES], places[of_user < FAVOURITES]
    ends = np.searchsorted(users, np.arange(len(activity["id"]) + 1)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(names, pa.string()).take(pa.array(places)))
