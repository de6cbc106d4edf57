"""The N best unseen movies of every user, exactly.

MLlib's `recommendForAllUsers` returns movies that a user has seen, and is slow at it. Here movies are a matrix that
every task holds, users come in blocks, one matrix product scores a block, and only a few groups of movies are looked at
closely: the N-th largest of the maxima of disjoint groups is a lower bound of the N-th best score, so a group whose
maximum is below it cannot hold a movie of the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

GROUP = 64
"""Movies in a group. A few hundred groups are quick to bound, and 64 movies are quick to sort."""

DECIMALS = 6
"""Scores are compared as they are published: two that agree in six decimals are a tie, and the lower movieId wins."""

TOLERANCE = np.float32(1e-5)
"""How far a score in single precision may be from the exact one, relative to the larger of it and 1."""

LAST = np.float32(-1e9)
"""What puts movies without factors behind all others: they are recommended only where those run out."""

PERSONAL, POPULAR, LAST_REASON = "based on your ratings", "popular", "all others are rated"

TOP_SCHEMA = "userId INT, rank INT, movieId INT, score DOUBLE, reason STRING"

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Catalogue:
    """The movies that can be recommended, in the order of movieId.

    `vectors` has a row a movie: its factors, then 0 or LAST, then its popularity. A user's vector is their factors,
    1, 0; that of a user without factors is zeros, 1, 1, so one product ranks both kinds.
    """

    movie_ids: NDArray[np.int32]
    vectors: Floats

    @property
    def rank(self) -> int:
        """Number of latent factors."""
        return int(self.vectors.shape[1]) - 2


def build_catalogue(movies: DataFrame, popularity: DataFrame, factors: DataFrame, rank: int) -> Catalogue:
    """Collect the movies: movies(movieId), popularity(movieId, rating_count), factors(id, features array of `rank`).

    Reads one row a movie to the driver.
    """
    joined = (
        movies.select("movieId")
        .join(popularity.select("movieId", "rating_count"), on="movieId", how="left")
        .join(factors.withColumnRenamed("id", "movieId"), on="movieId", how="left")
        .orderBy("movieId")
        .toArrow()
    )
    ids = joined["movieId"].to_numpy().astype(np.int32)
    vectors = np.zeros((len(ids), rank + 2), dtype=np.float32)
    has_factors = joined["features"].is_valid().to_numpy(zero_copy_only=False)
    vectors[has_factors, :rank] = _rows(joined["features"].combine_chunks(), rank)
    vectors[~has_factors, rank] = LAST
    vectors[:, rank + 1] = joined["rating_count"].fill_null(0).to_numpy()
    return Catalogue(ids, vectors)


def recommend(
    spark: SparkSession, users: DataFrame, seen: DataFrame, catalogue: Catalogue, n: int, block_users: int
) -> DataFrame:
    """The top N of every user in `users`: userId, rank (1 is best), movieId, score, reason.

    Takes users(userId, features: array of float, null where the user has no factors) and seen(userId, movieId). A user
    gets N movies, or all they have not seen where those are fewer; those without factors get popular ones. `score` is
    the predicted preference, for popular movies the number of ratings. The rows of `seen` are shuffled once, by user;
    a task holds those of one partition.
    """
    shared = spark.sparkContext.broadcast(catalogue)
    served = users.select("userId", F.lit(None).cast("int").alias("movieId"), F.col("features").cast("array<float>"))
    history = seen.select("userId", "movieId", F.lit(None).cast("array<float>").alias("features"))
    by_user = served.unionByName(history).repartition("userId")

    def rank_partition(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        return _rank_partition(batches, shared.value, n, block_users)

    return by_user.mapInArrow(rank_partition, TOP_SCHEMA)


def _rank_partition(
    batches: Iterable[pa.RecordBatch], catalogue: Catalogue, n: int, block_users: int
) -> Iterator[pa.RecordBatch]:
    """The lists of all users of one partition, a record batch for each block of them."""
    tables = [batch for batch in batches if batch.num_rows]
    if not tables:
        return
    rows = pa.Table.from_batches(tables)
    user_ids, vectors, is_cold = _user_vectors(rows, catalogue.rank)
    if not len(user_ids):
        return
    seen_users, seen_movies = _seen_positions(rows, user_ids, catalogue.movie_ids)
    starts = np.searchsorted(seen_users, np.arange(0, len(user_ids) + block_users, block_users))
    top = TopN(catalogue, n, block_users)
    for block, first in enumerate(range(0, len(user_ids), block_users)):
        last = min(first + block_users, len(user_ids))
        part = slice(starts[block], starts[block + 1])
        rows_of, positions, places, scores = top(vectors[first:last], seen_users[part] - first, seen_movies[part])
        yield _as_batch(user_ids[first:last], is_cold[first:last], rows_of, positions, catalogue, places, scores)


def _user_vectors(rows: pa.Table, rank: int) -> tuple[NDArray[np.int32], Floats, NDArray[np.bool_]]:
    """The users that a partition serves, in order; their vectors as Catalogue explains; and who has no factors."""
    served = rows.filter(rows["movieId"].is_null())
    user_ids = np.unique(served["userId"].to_numpy()).astype(np.int32)
    vectors = np.zeros((len(user_ids), rank + 2), dtype=np.float32)
    vectors[:, rank] = 1.0
    with_factors = served.filter(served["features"].is_valid())
    places = np.searchsorted(user_ids, with_factors["userId"].to_numpy())
    if len(places):
        vectors[places, :rank] = _rows(with_factors["features"].combine_chunks(), rank)
    is_cold = np.ones(len(user_ids), dtype=bool)
    is_cold[places] = False
    vectors[is_cold, rank + 1] = 1.0
    return user_ids, vectors, is_cold


def _seen_positions(rows: pa.Table, user_ids: NDArray[np.int32], movie_ids: NDArray[np.int32]) -> tuple[Ints, Ints]:
    """What users have seen, as places in `user_ids` (ascending) and in the catalogue; others are left out."""
    history = rows.select(["userId", "movieId"]).filter(rows["movieId"].is_valid())
    movies = history["movieId"].to_numpy()
    places = np.minimum(np.searchsorted(movie_ids, movies), len(movie_ids) - 1)
    history_users = history["userId"].to_numpy()
    users = np.minimum(np.searchsorted(user_ids, history_users), len(user_ids) - 1)
    matters = (movie_ids[places] == movies) & (user_ids[users] == history_users)
    users, places = users[matters], places[matters]
    order = np.argsort(users, kind="stable")
    return users[order], places[order]


class TopN:
    """Finds the N best movies for blocks of users; keeps the buffer of scores from one block to the next."""

    def __init__(self, catalogue: Catalogue, n: int, block_users: int) -> None:
        movies = len(catalogue.movie_ids)
        self.n = n
        self.groups = -(-movies // GROUP)
        padded = np.zeros((self.groups * GROUP, catalogue.vectors.shape[1]), dtype=np.float32)
        padded[:movies] = catalogue.vectors
        self.movies = movies
        self.transposed = np.ascontiguousarray(padded.T)
        self.buffer = np.empty((block_users, self.groups * GROUP), dtype=np.float32)

    def __call__(self, vectors: Floats, seen_users: Ints, seen_movies: Ints) -> tuple[Ints, Ints, Ints, Scores]:
        """Lists for users with `vectors` (a row each) who have seen the given (row, movie place) pairs.

        Returns arrays, ordered by row and position: row, position (from 1), place in the catalogue, score.
        """
        scores = self.buffer[: len(vectors)]
        np.matmul(vectors, self.transposed, out=scores)
        scores[:, self.movies :] = -np.inf
        scores[seen_users, seen_movies] = -np.inf
        rows, places = self._candidates(scores)
        exact = self._exact(vectors, rows, places)
        order = np.lexsort((places, -exact, rows))
        rows, places, exact = rows[order], places[order], exact[order]
        positions: Ints = np.arange(len(rows)) - np.searchsorted(rows, np.arange(len(vectors)))[rows] + 1
        chosen = positions <= self.n
        return rows[chosen], positions[chosen], places[chosen], exact[chosen]

    def _candidates(self, scores: Floats) -> tuple[Ints, Ints]:
        """Places (row, movie) that may be among the N best; all that can be are among them.

        Group g holds the movies g, g + groups, g + 2 groups, ...: strided slices, whose maximum is a single pass.
        """
        if self.n >= self.groups:  # lists as long as this open nearly every group anyway
            bound = _just_below(_nth_largest(scores, min(self.n, self.movies)))
            rows, places = np.nonzero((scores >= bound[:, None]) & (scores > -np.inf))
            return rows, places
        maxima = scores.reshape(len(scores), GROUP, self.groups).max(axis=1)
        bound = _just_below(_nth_largest(maxima, self.n))
        rows, groups = np.nonzero(maxima >= bound[:, None])
        places = groups[:, None] + self.groups * np.arange(GROUP)[None, :]
        rows = np.repeat(rows, GROUP)
        places = places.ravel()
        values = scores[rows, places]
        is_candidate = (values >= bound[rows]) & (values > -np.inf)
        return rows[is_candidate], places[is_candidate]

    def _exact(self, vectors: Floats, rows: Ints, places: Ints) -> Scores:
        """Scores of a few (row, movie) pairs, in double precision: single ones depend on who shares a block."""
        users, movies = vectors[rows].astype(np.float64), self.transposed.T[places].astype(np.float64)
        has_factors = movies[:, -2] == 0
        return np.where(has_factors, np.round(np.einsum("ij,ij->i", users, movies), DECIMALS), LAST)


def _nth_largest(values: Floats, n: int) -> Floats:
    """The n-th largest value of each row."""
    place = values.shape[1] - n
    nth: Floats = np.partition(values, place, axis=1)[:, place]
    return nth


def _just_below(bound: Floats) -> Floats:
    """A score just below the bound may be above it when it is computed exactly, or round to the same value."""
    with np.errstate(invalid="ignore"):
        below = bound - TOLERANCE * np.maximum(np.float32(1.0), np.abs(bound))
    return np.where(np.isnan(below), np.float32(-np.inf), below)


def _as_batch(
    user_ids: NDArray[np.int32],
    is_cold: NDArray[np.bool_],
    rows: Ints,
    positions: Ints,
    catalogue: Catalogue,
    places: Ints,
    scores: Scores,
) -> pa.RecordBatch:
    """Lists as a record batch of TOP_SCHEMA."""
    is_last = catalogue.vectors[places, catalogue.rank] != 0
    reasons = np.where(is_last, LAST_REASON, np.where(is_cold[rows], POPULAR, PERSONAL))
    return pa.RecordBatch.from_arrays(
        [
            pa.array(user_ids[rows], pa.int32()),
            pa.array(positions, pa.int32()),
            pa.array(catalogue.movie_ids[places], pa.int32()),
            pa.array(np.where(is_last, 0.0, scores), pa.float64()),
            pa.array(reasons, pa.string()),
        ],
        names=["userId", "rank", "movieId", "score", "reason"],
    )


def _rows(features: pa.Array, rank: int) -> Floats:
    """A column of equally long lists as a matrix; nulls are skipped."""
    values: Floats = features.drop_null().flatten().to_numpy().reshape(-1, rank).astype(np.float32)
    return values
