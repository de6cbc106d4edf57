"""Features of each user and each movie, and what a profile counts: from one pass over the ratings, in numpy.

Each task sums up its ratings by user, by movie, by month and by value. The sums are a small part of the ratings; they
are brought together by user (or by movie) and added.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
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
    - `movies`: one row per movie of the catalogue: movieId, year, and the columns of users but the last; a movie that
      nobody has rated has rating_count 0 and nulls
    - `values`: how often each rating was given, lowest first
    - `months`: ratings and active users of each month (UTC, such as 2018-09) that has any, in order; none without times

    The fondness of a user for a genre is the sum of (rating - average of the user) over its movies. Favourites are the
    genres with a fondness above 0, the largest first, ties by name. Users who give all movies the same rating, or rate
    only movies without genres, have none.
    """

    users: DataFrame
    movies: DataFrame
    values: dict[float, int]
    months: dict[str, tuple[int, int]]
    sums: DataFrame

    def unpersist(self) -> None:
        """Free the memory of the sums, from which `users` and `movies` are computed."""
        self.sums.unpersist()


def features(ratings: DataFrame, movies: DataFrame) -> Features:
    """Features of users and movies, and counts by value and by month; one pass over the ratings.

    Takes ratings(userId, movieId, rating, timestamp) and movies(movieId, year, genres array). The genres of the movies
    come to the driver.
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

    activity = together(MOVIE).mapInArrow(_movies_of, MOVIES)
    of_movies = movies.select("movieId", "year").join(activity, on="movieId", how="left")
    return Features(
        together(USER, GENRE).mapInArrow(_Users(genres.names), USERS),
        of_movies.withColumn("rating_count", F.coalesce("rating_count", F.lit(0).cast("bigint"))),
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

    def of_ratings(self, movies: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """For each genre of each rating's movie: the row of the rating, and the place of the genre in `names`."""
        if not len(self.movies):
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int32)
        found = np.minimum(np.searchsorted(self.movies, movies), len(self.movies) - 1)
        counts = np.where(self.movies[found] == movies, np.diff(self.starts)[found], 0)
        rows = np.repeat(np.arange(len(movies)), counts)
        first = np.repeat(self.starts[found] - (np.cumsum(counts) - counts), counts)
        return rows, self.of[first + np.arange(len(rows))]


def genres_of(movies: DataFrame) -> Genres:
    """The genres of movies(movieId, genres array), on the driver."""
    table = to_arrow(movies.select("movieId", F.array_distinct("genres").alias("genres")).orderBy("movieId"))
    lists = table["genres"].combine_chunks()
    encoded = pa.compute.dictionary_encode(lists.flatten())
    names = encoded.dictionary.to_pylist()
    in_order = sorted(names)
    place_of = {name: place for place, name in enumerate(in_order)}
    places = np.array([place_of[name] for name in names], dtype=np.int32)
    of = places[encoded.indices.to_numpy()] if names else np.empty(0, dtype=np.int32)
    counts = pa.compute.fill_null(pa.compute.list_value_length(lists), 0).to_numpy()
    starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)])
    return Genres(in_order, table["movieId"].to_numpy(), starts, of)


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
        rows, genres = self.genres.value.of_ratings(movies)
        pairs = _pairs(users[rows], genres)
        dated = micros != NO_TIME
        months = micros[dated].astype("datetime64[us]").astype("datetime64[M]").astype(np.int64)
        active = np.unique(_pairs(users[dated], months + HALF_OF_MONTHS))
        parts = [
            *self._by_part(USER, _activity(users, ratings, micros)),
            *self._by_part(MOVIE, _activity(movies, ratings, micros)),
            *self._by_part(GENRE, _sums(pairs, ratings[rows])),
            *self._by_part(ACTIVE, {"id": _first_of(active), "pair": active}),
            self._in_one(MONTH, _sums(months, np.ones(len(months)))),
            self._in_one(VALUE, _sums(ratings, np.ones(len(ratings)))),
        ]
        columns = zip(*parts, strict=True)
        types = (pa.int32(), pa.string(), pa.binary())
        arrays = [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, names=["part", "kind", "rows"])

    def _by_part(self, kind: str, columns: Columns) -> Iterator[tuple[int, str, bytes]]:
        """One row for each part of the users (or movies) in the column `id`."""
        table = pa.RecordBatch.from_pydict(columns)
        order, slices = cut(part_of(columns["id"], len(self.keys)), len(self.keys))
        in_order = table.take(pa.array(order))
        for part, rows in slices:
            yield int(self.keys[part]), kind, as_bytes(in_order[rows])

    def _in_one(self, kind: str, columns: Columns) -> tuple[int, str, bytes]:
        return int(self.keys[0]), kind, as_bytes(pa.RecordBatch.from_pydict(columns))


def _activity(ids: NDArray[np.int32], ratings: NDArray[np.float64], micros: NDArray[np.int64]) -> Columns:
    """One row per id, ascending: count, total, squares (of deviations from the mean), first and last time."""
    order, starts = _groups(ids)
    in_order, times = ratings[order], micros[order]
    counts = np.diff(np.append(starts, len(ids)))
    totals = np.add.reduceat(in_order, starts)
    deviations = in_order - np.repeat(totals / counts, counts)
    return {
        "id": ids[order][starts],
        "count": counts,
        "total": totals,
        "squares": np.add.reduceat(deviations * deviations, starts),
        "first": np.minimum.reduceat(times, starts),
        "last": np.maximum.reduceat(times, starts),
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


def _sums(keys: NDArray[Any], values: NDArray[np.float64]) -> Columns:
    """One row per key, ascending: key, count, total; and the user of keys that are pairs."""
    order, starts = _groups(keys)
    counts = np.diff(np.append(starts, len(keys)))
    found = keys[order][starts]
    columns: Columns = {"key": found, "count": counts, "total": np.add.reduceat(values[order], starts)}
    return {"id": _first_of(found), **columns} if found.dtype == np.int64 else columns


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
