"""Features of each user and each movie, and what a profile counts: from one pass over the ratings.

Each task sums up its ratings in numpy (`rating_sums`). Where all ratings of a user are in one task, the features of
users are at hand there. Otherwise the sums, a small part of the ratings, are brought together by user and added.
"""

from __future__ import annotations

import functools
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark import Accumulator, Broadcast
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.data.rating_sums import (
    ACTIVE,
    ACTIVITY,
    GENRE,
    MONTH,
    MOVIE,
    USER,
    USERS,
    VALUE,
    Genres,
    Sums,
    active_users,
    added,
    counts_of,
    features_of_movies,
    features_of_users,
    genres_of,
    summed,
)
from spark_app.platform.arrow_files import Files, Mapped, Rows, map_files
from spark_app.platform.pieces import ByPart, as_bytes, cut, from_bytes, part_of, partition_keys
from spark_app.platform.spark_versions import to_arrow

CHUNK_ROWS = 4_000_000
"""The number of ratings that a task sums up at a time where the sums are shuffled: larger chunks give fewer sums."""

USERS_ROWS = 1_000_000
"""The number of ratings that a task sums up at a time where it has all ratings of its users: larger ones are slower."""

SUMMED_MOVIES = 5_000_000
"""The largest number of sums by movie, over all files, that come to the driver: 240 MB."""

SUMS = pa.schema([("part", pa.int32()), ("kind", pa.string()), ("rows", pa.binary())])

ACTIVE_USERS = pa.schema([("month", pa.int64()), ("users", pa.int64())])

RATINGS = ("userId", "movieId", "rating", "timestamp")


@dataclass(frozen=True)
class Totals:
    """What does not belong to one user.

    - `movies`: one row per movie of the catalogue, ordered by movieId: movieId, year, and the columns of
      `Features.users` but the last; a movie that nobody has rated has rating_count 0 and nulls
    - `values`: how often each rating was given, lowest first
    - `months`: ratings and active users of each month (UTC, such as 2018-09) that has any, in order; none without times
    """

    movies: pa.Table
    values: dict[float, int]
    months: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Features:
    """What one pass over the ratings gives.

    - `users`: one row per user: userId, rating_count, average_rating, rating_stddev (of the sample: null for a single
      rating), first_rated, last_rated (null without times), favourite_genres (array of text, the favourite first)
    - `totals`: gives the Totals, once `users` are written
    - `unpersist`: frees the memory of what both are computed from

    The fondness of a user for a genre is the sum of (rating - average of the user) over its movies. Favourites are the
    genres with a fondness above 0, the largest first, ties by name. Users who give all movies the same rating, or rate
    only movies without genres, have none.
    """

    users: Rows
    totals: Callable[[], Totals]
    unpersist: Callable[[], object]


def features(spark: SparkSession, ratings: DataFrame | Files, movies: pa.Table) -> Features:
    """Features of users and movies, and counts by value and by month; one pass over the ratings.

    Takes ratings(userId, movieId, rating, timestamp), in files if these are grouped by user, and movies(movieId, year,
    genres list).
    """
    genres = spark.sparkContext.broadcast(genres_of(movies))
    if isinstance(ratings, Files) and len(movies) * len(ratings.paths) <= SUMMED_MOVIES:
        return _of_files(spark, ratings, movies, genres)
    frame = ratings.frame(spark) if isinstance(ratings, Files) else ratings
    return _of_frame(spark, frame, movies, genres)


def _of_files(spark: SparkSession, ratings: Files, movies: pa.Table, genres: Broadcast[Genres]) -> Features:
    """Features from files that are grouped by user: a task has all ratings of its users."""
    by_file = spark.sparkContext.accumulator({}, ByPart())

    def totals() -> Totals:
        return _totals(movies, functools.reduce(operator.add, (share for _, share in sorted(by_file.value.items()))))

    users = map_files(spark, ratings.select(*RATINGS), _WholeUsers(genres, by_file), USERS)
    return Features(users, totals, lambda: None)


@dataclass(frozen=True)
class _Share:
    """What some ratings bring to the totals: sums by MOVIE; counts by value, by month, and of active users by month."""

    movies: pa.Table
    values: Counter[float]
    months: Counter[int]
    active: Counter[int]

    @classmethod
    def of(cls, sums: Sums) -> _Share:
        """The share of whole users, from their sums."""
        return cls(sums[MOVIE], counts_of(sums[VALUE]), counts_of(sums[MONTH]), active_users(sums[ACTIVE]))

    def __add__(self, other: _Share) -> _Share:
        movies = added(pa.concat_tables([self.movies, other.movies]))
        both = (self.values + other.values, self.months + other.months, self.active + other.active)
        return _Share(movies, *both)


@dataclass(frozen=True)
class _WholeUsers:
    """Turns the ratings of a file, in the order of users, into the features of these users.

    `by_file` collects the rest, by the file's first user: that user is in no other file, so a task that runs twice
    counts once.
    """

    genres: Broadcast[Genres]
    by_file: Accumulator[dict[int, _Share]]

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        genres, shares = self.genres.value, dict[int, _Share]()
        for ratings in whole_users(batches):
            sums = summed(ratings, genres)
            shares[ratings["userId"][0].as_py()] = _Share.of(sums)
            yield features_of_users(sums[USER], sums[GENRE], genres.names)
        if shares:
            self.by_file.add({min(shares): functools.reduce(operator.add, shares.values())})


def whole_users(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Rows that are in the order of userId, in tables of about USERS_ROWS, each with all rows of its users."""
    held: list[pa.RecordBatch] = []
    for batch in filter(len, batches):
        held.append(batch)
        if sum(map(len, held)) >= USERS_ROWS:
            table = pa.Table.from_batches(held)
            ids = table["userId"].to_numpy()
            last = int(np.searchsorted(ids, ids[-1]))
            if last:
                yield table[:last]
                held = table[last:].to_batches()
    if held:
        yield pa.Table.from_batches(held)


def _of_frame(spark: SparkSession, ratings: DataFrame, movies: pa.Table, genres: Broadcast[Genres]) -> Features:
    """Features from ratings in any order: their sums are shuffled."""
    keys = partition_keys(spark)
    sums = Mapped(ratings.select(*RATINGS), _Summer(keys, genres), SUMS).frame.persist()

    def together(*kinds: str) -> DataFrame:
        return sums.filter(F.col("kind").isin(*kinds)).repartition(len(keys), "part")

    def counts(kind: str) -> Counter[Any]:
        rows = sums.filter(F.col("kind") == kind).select("rows").collect()
        return sum((counts_of(from_bytes(row["rows"])) for row in rows), Counter())

    def totals() -> Totals:
        of_movies = to_arrow(Mapped(together(MOVIE), _sums_of_movies, ACTIVITY).frame)
        rows = Mapped(together(ACTIVE), _active_users, ACTIVE_USERS).frame.collect()
        active = sum((Counter({row["month"]: row["users"]}) for row in rows), Counter[int]())
        return _totals(movies, _Share(of_movies, counts(VALUE), counts(MONTH), active))

    users = Mapped(together(USER, GENRE), _Users(genres.value.names), USERS)
    return Features(users, totals, sums.unpersist)


def _totals(movies: pa.Table, sums: _Share) -> Totals:
    """The totals from movies(movieId, year) and what all ratings bring to them."""
    activity = pa.table(features_of_movies(sums.movies))
    of_movies = movies.select(["movieId", "year"]).join(activity, "movieId").sort_by("movieId")
    rating_counts = pc.fill_null(of_movies["rating_count"], 0)
    return Totals(
        of_movies.set_column(of_movies.column_names.index("rating_count"), "rating_count", rating_counts),
        {float(value): count for value, count in sorted(sums.values.items())},
        {str(np.datetime64(month, "M")): (count, sums.active[month]) for month, count in sorted(sums.months.items())},
    )


@dataclass(frozen=True)
class _Summer:
    """Sums up record batches of RATINGS into rows of SUMS. `keys` number the parts."""

    keys: NDArray[np.int32]
    genres: Broadcast[Genres]

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        held: list[pa.RecordBatch] = []
        for batch in filter(len, batches):
            held.append(batch)
            if sum(map(len, held)) >= CHUNK_ROWS:
                yield self._packed(summed(pa.Table.from_batches(held), self.genres.value))
                held = []
        if held:
            yield self._packed(summed(pa.Table.from_batches(held), self.genres.value))

    def _packed(self, sums: Sums) -> pa.RecordBatch:
        parts = [part for kind, rows in sums.items() for part in self._by_part(kind, rows)]
        types = (pa.int32(), pa.string(), pa.binary())
        arrays = [pa.array(column, of) for column, of in zip(zip(*parts, strict=True), types, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, names=["part", "kind", "rows"])

    def _by_part(self, kind: str, sums: pa.Table) -> Iterator[tuple[int, str, bytes]]:
        """One row for each part of the users (or movies) in the column `id`; one row if there is none."""
        if not len(sums):
            return
        (rows,) = sums.combine_chunks().to_batches()
        if "id" not in sums.column_names:
            yield int(self.keys[0]), kind, as_bytes(rows)
            return
        order, slices = cut(part_of(rows["id"].to_numpy(), len(self.keys)), len(self.keys))
        in_order = rows.take(pa.array(order))
        for part, own in slices:
            yield int(self.keys[part]), kind, as_bytes(in_order[own])


def _tables(batches: Iterable[pa.RecordBatch]) -> Sums:
    """The rows of each kind in record batches of SUMS; kinds that do not occur are left out."""
    found: dict[str, list[pa.Table]] = {}
    for batch in batches:
        for kind, rows in zip(batch["kind"].to_pylist(), batch["rows"], strict=True):
            found.setdefault(kind, []).append(from_bytes(rows.as_buffer()))
    return {kind: pa.concat_tables(tables) for kind, tables in found.items()}


def _sums_of_movies(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The sums of the movies of a part, added."""
    sums = _tables(batches)
    if MOVIE in sums:
        yield from added(sums[MOVIE]).to_batches()


@dataclass(frozen=True)
class _Users:
    """The features of the users of a part. `genres` are the names of genres."""

    genres: list[str]

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        sums = _tables(batches)
        if USER in sums:
            yield features_of_users(sums[USER], sums.get(GENRE), self.genres)


def _active_users(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """How many users of a part are active in each month."""
    sums = _tables(batches)
    if ACTIVE in sums:
        months = active_users(sums[ACTIVE])
        columns = [pa.array(list(column), pa.int64()) for column in (months.keys(), months.values())]
        yield pa.RecordBatch.from_arrays(columns, names=["month", "users"])
