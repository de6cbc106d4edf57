"""Features of each user and each movie, and what a profile counts: from one pass over the ratings, in numpy.

Each task sums up its ratings by user, by movie, by month and by value. The sums are a small part of the ratings; they
are brought together by user (or by movie) and added.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark import Broadcast
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_app.platform.pieces import as_bytes, cut, from_bytes, part_of, partition_keys
from spark_app.platform.spark_versions import to_arrow

FAVOURITES = 3
"""The largest number of favourite genres of a user."""

FONDNESS_DECIMALS = 6
"""Fondness is rounded to this many decimals before it is compared: digits after them depend on the order of the sum."""

CHUNK_ROWS = 4_000_000
"""The number of ratings that a task sums up at a time."""

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

SUMS = "part INT, kind STRING, rows BINARY"

ACTIVITY = (
    "rating_count BIGINT, average_rating DOUBLE, rating_stddev DOUBLE, first_rated TIMESTAMP, last_rated TIMESTAMP"
)
USERS = f"userId INT, {ACTIVITY}, favourite_genres ARRAY<STRING>"
MOVIES = f"movieId INT, {ACTIVITY}"

Columns = dict[str, NDArray[Any]]

TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Features:
    """What one pass over the ratings gives.

    - `users`: one row per user: userId, rating_count, average_rating, rating_stddev (of the sample: null for a single
      rating), first_rated, last_rated (null without times), favourite_genres (array of text, the favourite first)
    - `movies`: one row per movie of the catalogue, ordered by movieId, in memory: movieId, year, and the columns of
      users but the last; a movie that nobody has rated has rating_count 0 and nulls
    - `values`: how often each rating was given, lowest first
    - `months`: ratings and active users of each month (UTC, such as 2018-09) that has any, in order; none without times

    The fondness of a user for a genre is the sum of (rating - average of the user) over its movies. Favourites are the
    genres with a fondness above 0, the largest first, ties by name. Users who give all movies the same rating, or rate
    only movies without genres, have none.
    """

    users: DataFrame
    movies: pa.Table
    values: dict[float, int]
    months: dict[str, tuple[int, int]]
    sums: DataFrame

    def unpersist(self) -> None:
        """Free the memory of the sums, from which `users` are computed."""
        self.sums.unpersist()


def features(ratings: DataFrame, movies: pa.Table) -> Features:
    """Features of users and movies, and counts by value and by month; one pass over the ratings.

    Takes ratings(userId, movieId, rating, timestamp) and movies(movieId, year, genres list).
    """
    spark = ratings.sparkSession
    keys = partition_keys(spark)
    genres = genres_of(movies)
    shared = spark.sparkContext.broadcast(genres)
    micros = F.coalesce(F.unix_micros("timestamp"), F.lit(NO_TIME)).alias("micros")
    rows = ratings.select("userId", "movieId", F.col("rating").cast("double").alias("rating"), micros)
    sums = rows.mapInArrow(_Summer(keys, shared), SUMS).persist()

    def together(*kinds: str) -> DataFrame:
        return sums.filter(F.col("kind").isin(*kinds)).repartition(len(keys), "part")

    activity = to_arrow(together(MOVIE).mapInArrow(_movies_of, MOVIES))
    of_movies = movies.select(["movieId", "year"]).join(activity, "movieId").sort_by("movieId")
    counts = pc.fill_null(of_movies["rating_count"], 0)
    return Features(
        together(USER, GENRE).mapInArrow(_Users(genres.names), USERS),
        of_movies.set_column(of_movies.column_names.index("rating_count"), "rating_count", counts),
        _values(sums),
        _months(sums, together(ACTIVE)),
        sums,
    )


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


@dataclass(frozen=True)
class _Summer:
    """Sums up record batches of userId, movieId, rating, micros into rows of SUMS. `keys` number the parts."""

    keys: NDArray[np.int32]
    genres: Broadcast[Genres]

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        held: list[pa.RecordBatch] = []
        for batch in batches:
            held.append(batch)
            if sum(map(len, held)) >= CHUNK_ROWS:
                yield self._summed(held)
                held = []
        if held:
            yield self._summed(held)

    def _summed(self, batches: list[pa.RecordBatch]) -> pa.RecordBatch:
        users, movies, ratings, micros = (column.to_numpy() for column in pa.Table.from_batches(batches).columns)
        genres = self.genres.value
        by_user, by_movie = _grouped(users), _grouped(movies)
        rows, of_rows = genres.of_ratings(by_movie)
        by_genre = _grouped_twice(by_user.places[rows], of_rows, len(genres.names))
        dated = micros != NO_TIME
        by_month = _grouped(micros[dated].astype("datetime64[us]").astype("datetime64[M]").astype(np.int64))
        active = _grouped_twice(by_user.places[dated], by_month.places, len(by_month.keys)).keys
        active_user, month = np.divmod(active, max(len(by_month.keys), 1))
        active_users = by_user.keys[active_user]
        pairs = _pairs(active_users, by_month.keys[month] + HALF_OF_MONTHS)
        values = pc.value_counts(pa.array(ratings))
        parts = [
            *self._by_part(USER, _activity(by_user, ratings, micros)),
            *self._by_part(MOVIE, _activity(by_movie, ratings, micros)),
            *self._by_part(GENRE, self._of_genres(by_user, by_genre, ratings[rows])),
            *self._by_part(ACTIVE, {"id": active_users, "pair": pairs}),
            self._in_one(MONTH, {"key": by_month.keys, "count": by_month.counts}),
            self._in_one(VALUE, {"key": values.field("values"), "count": values.field("counts")}),
        ]
        columns = zip(*parts, strict=True)
        types = (pa.int32(), pa.string(), pa.binary())
        arrays = [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, names=["part", "kind", "rows"])

    def _of_genres(self, by_user: _Groups, by_genre: _Groups, ratings: NDArray[np.float64]) -> Columns:
        """One row per user and genre: id, key (the pair), count, total."""
        user, genre = np.divmod(by_genre.keys, max(len(self.genres.value.names), 1))
        ids = by_user.keys[user]
        return {"id": ids, "key": _pairs(ids, genre), "count": by_genre.counts, "total": by_genre.sums_of(ratings)}

    def _by_part(self, kind: str, columns: Columns) -> Iterator[tuple[int, str, bytes]]:
        """One row for each part of the users (or movies) in the column `id`."""
        table = pa.RecordBatch.from_pydict(columns)
        order, slices = cut(part_of(columns["id"], len(self.keys)), len(self.keys))
        in_order = table.take(pa.array(order))
        for part, rows in slices:
            yield int(self.keys[part]), kind, as_bytes(in_order[rows])

    def _in_one(self, kind: str, columns: Mapping[str, Any]) -> tuple[int, str, bytes]:
        return int(self.keys[0]), kind, as_bytes(pa.RecordBatch.from_pydict(columns))


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
    """One row per id, ascending: count, total, squares (of deviations from the mean), first and last time."""
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


def _tables(batches: Iterable[pa.RecordBatch]) -> dict[str, pa.Table]:
    """The rows of each kind in record batches of SUMS; kinds that do not occur are left out."""
    found: dict[str, list[pa.Table]] = {}
    for batch in batches:
        for kind, rows in zip(batch["kind"].to_pylist(), batch["rows"], strict=True):
            found.setdefault(kind, []).append(from_bytes(rows.as_buffer()))
    return {kind: pa.concat_tables(tables) for kind, tables in found.items()}


def _columns_of(activity: Columns) -> list[pa.Array]:
    """The columns of ACTIVITY, and the id before them."""
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


NAMES = ["rating_count", "average_rating", "rating_stddev", "first_rated", "last_rated"]


def _movies_of(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The features of the movies of a part, without their year."""
    tables = _tables(batches)
    if MOVIE in tables:
        yield pa.RecordBatch.from_arrays(_columns_of(_added(tables[MOVIE])), names=["movieId", *NAMES])


@dataclass(frozen=True)
class _Users:
    """The features of the users of a part. `genres` are the names of genres."""

    genres: Sequence[str]

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        tables = _tables(batches)
        if USER in tables:
            activity = _added(tables[USER])
            columns = [*_columns_of(activity), self._favourites(activity, tables.get(GENRE))]
            yield pa.RecordBatch.from_arrays(columns, names=["userId", *NAMES, "favourite_genres"])

    def _favourites(self, activity: Columns, of_genres: pa.Table | None) -> pa.ListArray:
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
        return pa.ListArray.from_arrays(pa.array(ends), pa.array(self.genres, pa.string()).take(pa.array(places)))


def _values(sums: DataFrame) -> dict[float, int]:
    """How often each rating was given, lowest first."""
    return {float(value): count for value, count in _counts(sums, VALUE).items()}


def _months(sums: DataFrame, active: DataFrame) -> dict[str, tuple[int, int]]:
    """The ratings and active users of each month, in order."""
    users: Counter[int] = Counter()
    for row in active.mapInArrow(_active_users, "month BIGINT, users BIGINT").collect():
        users[row["month"]] += row["users"]
    ratings = _counts(sums, MONTH)
    return {str(np.datetime64(int(month), "M")): (count, users[month]) for month, count in ratings.items()}


def _counts(sums: DataFrame, kind: str) -> dict[Any, int]:
    """The counts of a kind by key, ascending; they come to the driver."""
    rows = sums.filter(F.col("kind") == kind).select("rows").collect()
    counts: Counter[Any] = Counter()
    for row in rows:
        table = from_bytes(row["rows"])
        counts.update(dict(zip(table["key"].to_pylist(), table["count"].to_pylist(), strict=True)))
    return dict(sorted(counts.items()))


def _active_users(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """How many users of a part are active in each month."""
    tables = _tables(batches)
    if ACTIVE in tables:
        pairs = np.unique(tables[ACTIVE]["pair"].to_numpy())
        months, users = np.unique(_second_of(pairs) - HALF_OF_MONTHS, return_counts=True)
        yield pa.RecordBatch.from_arrays([pa.array(months), pa.array(users)], names=["month", "users"])
