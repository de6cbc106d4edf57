"""Every user's list: the top N of what they have not seen, with what speaks for it.

MLlib's `recommendForAllUsers` returns movies that a user has seen, and is slow at it. Here the ratings are shuffled
once, packed and by user, and each partition is ranked in numpy against a catalogue that every task holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from spark_app.model.by_user import ByUser, UserPartition, together_by_user
from spark_app.model.catalogue import Catalogue, Floats, Ints, as_matrix, found_among
from spark_app.model.half_sweep import Problem
from spark_app.model.reasons import Reasons
from spark_app.model.topn import Scores, TopN

PERSONAL, POPULAR, LAST_REASON = "based on your ratings", "popular", "all others are rated"

LISTS_SCHEMA = "userId INT, rank INT, movieId INT, score DOUBLE, reason STRING, because ARRAY<INT>"

JUDGED_MODELS = ("als", "popularity")
"""The rankings that are compared, and the columns of their lists."""

JUDGED_SCHEMA = "userId INT, seen INT, seen_popularity DOUBLE, als ARRAY<INT>, popularity ARRAY<INT>"


@dataclass(frozen=True)
class Explain:
    """What the ranking minimised, and how many of a user's movies (at least 1) are named as reasons."""

    problem: Problem
    most: int


@dataclass(frozen=True)
class _History:
    """What users have seen: a row a (user, movie), by user and then movie, both as places; and the rating."""

    users: Ints
    movies: Ints
    ratings: Floats

    def part(self, first: int, last: int) -> _History:
        """The rows of some users, who are counted from the first of them."""
        rows = slice(*np.searchsorted(self.users, [first, last]))
        return _History(self.users[rows] - first, self.movies[rows], self.ratings[rows])


def recommend(
    spark: SparkSession,
    users: DataFrame,
    seen: DataFrame,
    catalogue: Catalogue,
    n: int,
    block_users: int,
    explain: Explain | None = None,
    *,
    everyone: bool = False,
) -> DataFrame:
    """The top N of every user in `users`: userId, rank (1 is best), movieId, score, reason, because.

    Takes users(userId, features: array of float, null where the user has no factors) and seen(userId, movieId, rating).
    With `everyone` it is every user in `seen` who is served, and `users` has the factors of those who have some.
    A user gets N movies, or all they have not seen where those are fewer; those without factors get popular ones.
    `score` is the predicted preference, for popular movies the number of ratings. `because` are the movies that the
    user likes which weigh most in the score, the heaviest first; empty where nothing is to be explained. The rows of
    `seen` are shuffled once, by user; a task holds those of one partition.
    """
    shared = spark.sparkContext.broadcast(catalogue)
    rating = F.col("rating") if explain else F.lit(None)

    def rank_partition(part: UserPartition) -> Iterable[pa.RecordBatch]:
        return _rank_partition(part, shared.value, n, block_users, explain, everyone=everyone)

    return _by_user(users, seen, rating).map(rank_partition, LISTS_SCHEMA)


def recommend_in_turn(
    spark: SparkSession, users: DataFrame, seen: DataFrame, catalogues: Iterable[Catalogue], n: int, block_users: int
) -> DataFrame:
    """The lists of `recommend` from a catalogue in blocks, which are broadcast one by one, and held by tasks in turn.

    For catalogues too large for a task. The ratings are shuffled once for each block, and the best of each merged.
    Nothing is explained: the reasons of a list need all that a user has seen at once.
    """
    lists = [recommend(spark, users, seen, catalogue, n, block_users) for catalogue in catalogues]
    merged = reduce(DataFrame.unionByName, lists)
    best_first = Window.partitionBy("userId").orderBy(F.col("reason") == LAST_REASON, F.desc("score"), "movieId")
    return merged.withColumn("rank", F.row_number().over(best_first)).filter(F.col("rank") <= n)


def lists_to_judge(
    spark: SparkSession, users: DataFrame, seen: DataFrame, catalogue: Catalogue, n: int, block_users: int
) -> DataFrame:
    """The top N by factors and by popularity of every user in `users`, from one shuffle: what `train` compares.

    Takes the same as `recommend`. A row a user: userId, seen (movies of the catalogue they have rated), seen_popularity
    (mean number of ratings of these, 0 where there are none), als and popularity (arrays of movieId, the best first).
    """
    shared = spark.sparkContext.broadcast(catalogue)

    def rank_partition(part: UserPartition) -> Iterable[pa.RecordBatch]:
        return _rank_partition_twice(part, shared.value, n, block_users)

    return _by_user(users, seen, F.lit(None)).map(rank_partition, JUDGED_SCHEMA)


def lists_to_judge_in_turn(
    spark: SparkSession,
    users: DataFrame,
    seen: DataFrame,
    catalogues: Sequence[Callable[[], Catalogue]],
    popularity: DataFrame,
    n: int,
    block_users: int,
) -> DataFrame:
    """What `lists_to_judge` gives, from a catalogue in blocks, as `recommend_in_turn` takes them.

    Takes popularity(movieId, rating_count) of all movies of the catalogue.
    """
    nobody = users.withColumn("features", F.lit(None).cast("array<float>"))
    judged = users.select("userId")
    for model, served in zip(JUDGED_MODELS, (users, nobody), strict=True):
        lists = recommend_in_turn(spark, served, seen, (make() for make in catalogues), n, block_users)
        in_order = F.array_sort(F.collect_list(F.struct("rank", "movieId")))["movieId"]
        judged = judged.join(lists.groupBy("userId").agg(in_order.alias(model)), on="userId", how="left")
    counts = seen.join(popularity.select("movieId", "rating_count"), on="movieId", how="inner").groupBy("userId")
    history = counts.agg(F.count("*").cast("int").alias("seen"), F.avg("rating_count").alias("seen_popularity"))
    none = F.array().cast("array<int>")
    return judged.join(history, on="userId", how="left").select(
        "userId",
        F.coalesce("seen", F.lit(0)).alias("seen"),
        F.coalesce("seen_popularity", F.lit(0.0)).alias("seen_popularity"),
        *(F.coalesce(model, none).alias(model) for model in JUDGED_MODELS),
    )


def _by_user(users: DataFrame, seen: DataFrame, rating: Column) -> ByUser:
    """Users to serve and what they have seen, together: the ratings are shuffled once, by user."""
    served = users.select("userId", F.col("features").cast("array<float>"))
    return together_by_user(served, seen.select("userId", "movieId", rating.cast("float").alias("rating")))


@dataclass(frozen=True)
class _Block:
    """Some users of one partition: their ids, vectors as Catalogue explains, who has no factors, and the history."""

    user_ids: NDArray[np.int32]
    vectors: Floats
    is_cold: NDArray[np.bool_]
    seen: _History


def _blocks(part: UserPartition, catalogue: Catalogue, size: int, *, everyone: bool) -> Iterator[_Block]:
    """The users that a partition serves, in order, so many at a time."""
    user_ids, vectors, is_cold = _user_vectors(part, catalogue.rank, everyone=everyone)
    if not len(user_ids):
        return
    seen = _seen(part.rows, user_ids, catalogue.movie_ids)
    for first in range(0, len(user_ids), size):
        last = min(first + size, len(user_ids))
        yield _Block(user_ids[first:last], vectors[first:last], is_cold[first:last], seen.part(first, last))


def _rank_partition_twice(
    part: UserPartition, catalogue: Catalogue, n: int, block_users: int
) -> Iterator[pa.RecordBatch]:
    """Both lists of all users of one partition, a record batch for each block of them."""
    top = TopN(catalogue, n, block_users)
    for block in _blocks(part, catalogue, block_users, everyone=False):
        seen, users = block.seen, len(block.user_ids)
        by_popularity = np.zeros_like(block.vectors)
        by_popularity[:, catalogue.rank :] = 1.0
        count = np.bincount(seen.users, minlength=users)
        total = np.bincount(seen.users, weights=catalogue.popularity[seen.movies], minlength=users)
        lists = []
        for vectors in (block.vectors, by_popularity):
            of_users, _, places, _ = top(vectors, seen.users, seen.movies)
            ends = np.searchsorted(of_users, np.arange(users + 1))
            lists.append(pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(catalogue.movie_ids[places])))
        yield pa.RecordBatch.from_arrays(
            [
                pa.array(block.user_ids, pa.int32()),
                pa.array(count, pa.int32()),
                pa.array(total / np.maximum(count, 1), pa.float64()),
                *lists,
            ],
            names=["userId", "seen", "seen_popularity", *JUDGED_MODELS],
        )


def _rank_partition(
    part: UserPartition,
    catalogue: Catalogue,
    n: int,
    block_users: int,
    explain: Explain | None = None,
    *,
    everyone: bool = False,
) -> Iterator[pa.RecordBatch]:
    """The lists of all users of one partition, a record batch for each block of them."""
    top = TopN(catalogue, n, block_users)
    reasons = Reasons(catalogue.factors, explain.problem, explain.most, catalogue.lifts) if explain else None
    for block in _blocks(part, catalogue, block_users, everyone=everyone):
        of_users, positions, places, scores = top(block.vectors, block.seen.users, block.seen.movies)
        because = _because(reasons, block.seen, block.is_cold, of_users, places) if reasons else None
        yield _as_batch(block.user_ids, block.is_cold, of_users, positions, catalogue, places, scores, because)


def _because(reasons: Reasons, history: _History, is_cold: NDArray[np.bool_], of_users: Ints, places: Ints) -> Ints:
    """The reasons of each row of the lists of a block; none for users without factors."""
    named = np.full((len(places), reasons.most), -1, dtype=np.int64)
    for user in np.flatnonzero(~is_cold).tolist():
        rows = slice(*np.searchsorted(of_users, [user, user + 1]))
        if rows.start < rows.stop:
            own = history.part(user, user + 1)
            named[rows] = reasons(own.movies, own.ratings, places[rows])
    return named


def _user_vectors(
    part: UserPartition, rank: int, *, everyone: bool
) -> tuple[NDArray[np.int32], Floats, NDArray[np.bool_]]:
    """The users that a partition serves, in order; their vectors as Catalogue explains; and who has no factors."""
    served = part.rows if everyone else part.users
    user_ids = np.unique(served["userId"].to_numpy()).astype(np.int32)
    vectors = np.zeros((len(user_ids), rank + 2), dtype=np.float32)
    vectors[:, rank] = 1.0
    with_factors = part.users.filter(part.users["features"].is_valid())
    places, is_served = found_among(with_factors["userId"].to_numpy(), user_ids)
    if is_served.any():
        vectors[places[is_served], :rank] = as_matrix(with_factors["features"].combine_chunks(), rank)[is_served]
    is_cold = np.ones(len(user_ids), dtype=bool)
    is_cold[places[is_served]] = False
    vectors[is_cold, rank + 1] = 1.0
    return user_ids, vectors, is_cold


def _seen(history: pa.Table, user_ids: NDArray[np.int32], movie_ids: NDArray[np.int32]) -> _History:
    """What users have seen; users who are not served and movies that are not in the catalogue are left out."""
    places, is_movie = found_among(history["movieId"].to_numpy(), movie_ids)
    users, is_user = found_among(history["userId"].to_numpy(), user_ids)
    matters = is_movie & is_user
    users, places = users[matters], places[matters]
    ratings = history["rating"].to_numpy()[matters]
    # One number for both is sorted several times as fast as two.
    order = np.argsort(users * len(movie_ids) + places, kind="stable")
    return _History(users[order], places[order], ratings[order])


def _as_batch(
    user_ids: NDArray[np.int32],
    is_cold: NDArray[np.bool_],
    of_users: Ints,
    positions: Ints,
    catalogue: Catalogue,
    places: Ints,
    scores: Scores,
    because: Ints | None,
) -> pa.RecordBatch:
    """Lists as a record batch of LISTS_SCHEMA."""
    is_last = catalogue.vectors[places, catalogue.rank] != 0
    reasons = np.where(is_last, LAST_REASON, np.where(is_cold[of_users], POPULAR, PERSONAL))
    return pa.RecordBatch.from_arrays(
        [
            pa.array(user_ids[of_users], pa.int32()),
            pa.array(positions, pa.int32()),
            pa.array(catalogue.movie_ids[places], pa.int32()),
            pa.array(np.where(is_last, 0.0, scores), pa.float64()),
            pa.array(reasons, pa.string()),
            _as_lists(because, catalogue.movie_ids, len(places)),
        ],
        names=["userId", "rank", "movieId", "score", "reason", "because"],
    )


def _as_lists(places: Ints | None, movie_ids: NDArray[np.int32], rows: int) -> pa.Array:
    """A row of places each, -1 for none, as lists of movieId."""
    if places is None:
        places = np.empty((rows, 0), dtype=np.int64)
    is_named = places >= 0
    ends = np.concatenate([[0], np.cumsum(is_named.sum(axis=1))])
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(movie_ids[places[is_named]], pa.int32()))
