"""Every user's list: the top N of what they have not seen, with what speaks for it.

MLlib's `recommendForAllUsers` returns movies that a user has seen, and is slow at it. Here the ratings are shuffled
once, packed and by user, and each partition is ranked in numpy against the candidates, which every task holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from spark_app.model.by_user import ByUser, UserPartition, together_by_user
from spark_app.model.candidates import CandidateBlocks, Candidates, Floats, Ints, as_matrix, found_among, user_vectors
from spark_app.model.half_sweep import Problem
from spark_app.model.reasons import Reasons
from spark_app.model.topn import Scores, TopN
from spark_app.platform.log import logger

PERSONAL, POPULAR, LAST_REASON = "based on your ratings", "popular", "all others are rated"

LISTS_SCHEMA = "userId INT, rank INT, movieId INT, score DOUBLE, reason STRING, because ARRAY<INT>"

JUDGED_MODELS = ("implicit", "popularity")
"""The rankings that are compared, and the columns of their lists."""

_RANKED = "ARRAY<STRUCT<negative_score: DOUBLE, movieId: INT>>"
JUDGED_SCHEMA = ", ".join(
    ["userId INT, seen INT, seen_ratings DOUBLE", *(f"{model} {_RANKED}" for model in JUDGED_MODELS)]
)
"""What one block of candidates gives. Lists are ascending, so that those of several blocks can be merged by a sort."""


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
    candidate_blocks: CandidateBlocks,
    n: int,
    block_users: int,
    explain: Explain | None = None,
    *,
    everyone: bool = False,
) -> DataFrame:
    """The top N of every user in `users`: userId, rank (1 is best), movieId, score, reason, because.

    Takes users(userId, features: array of float, null where the user has no factors) and seen(userId, movieId, rating).
    With `everyone` it serves every user in `seen`, and `users` has the factors of those who have some.

    A user gets N movies, or all they have not seen where those are fewer; those without factors get popular ones.
    `score` is the predicted preference, for popular movies the number of ratings. `because` are the movies that the
    user likes which weigh most in the score, the heaviest first; empty where nothing is to be explained.

    The rows of `seen` are shuffled by user, once for each block of candidates; a task holds those of one partition.
    With more than one block nothing is explained: the reasons of a list need all that a user has seen at once.
    """
    is_whole = len(candidate_blocks) == 1
    if explain and not is_whole:
        logger.warning("the movies are ranked in %d blocks, so no reasons are named", len(candidate_blocks))
        explain = None
    together = _by_user(users, seen, F.col("rating") if explain else F.lit(None))

    def ranked(candidates: Candidates) -> DataFrame:
        shared = spark.sparkContext.broadcast(candidates)

        def rank_partition(part: UserPartition) -> Iterable[pa.RecordBatch]:
            return _rank_partition(part, shared.value, n, block_users, explain, everyone=everyone)

        return together.map(rank_partition, LISTS_SCHEMA)

    lists = reduce(DataFrame.unionByName, map(ranked, candidate_blocks))
    if is_whole:
        return lists
    best_first = Window.partitionBy("userId").orderBy(F.col("reason") == LAST_REASON, F.desc("score"), "movieId")
    return lists.withColumn("rank", F.row_number().over(best_first)).filter(F.col("rank") <= n)


def lists_to_judge(
    spark: SparkSession,
    users: DataFrame,
    seen: DataFrame,
    candidate_blocks: CandidateBlocks,
    n: int,
    block_users: int,
) -> DataFrame:
    """The top N by factors and by popularity of every user in `users`: what `train` compares.

    Takes the same as `recommend`. A row for each user: userId, seen (candidates they have rated), seen_popularity (mean
    number of ratings of these, 0 where there are none), and JUDGED_MODELS (arrays of movieId, the best first).
    """
    together = _by_user(users, seen, F.lit(None))

    def ranked(candidates: Candidates) -> DataFrame:
        shared = spark.sparkContext.broadcast(candidates)

        def rank_partition(part: UserPartition) -> Iterable[pa.RecordBatch]:
            return _rank_partition_twice(part, shared.value, n, block_users)

        return together.map(rank_partition, JUDGED_SCHEMA)

    lists = reduce(DataFrame.unionByName, map(ranked, candidate_blocks))
    if len(candidate_blocks) > 1:
        lists = lists.groupBy("userId").agg(
            F.sum("seen").cast("int").alias("seen"),
            F.sum("seen_ratings").alias("seen_ratings"),
            *(F.slice(F.array_sort(F.flatten(F.collect_list(model))), 1, n).alias(model) for model in JUDGED_MODELS),
        )
    mean = F.col("seen_ratings") / F.greatest("seen", F.lit(1))
    movie_ids = (F.col(model)["movieId"].alias(model) for model in JUDGED_MODELS)
    return lists.select("userId", "seen", mean.alias("seen_popularity"), *movie_ids)


def _by_user(users: DataFrame, seen: DataFrame, rating: Column) -> ByUser:
    """Users to serve and what they have seen, together: the ratings are shuffled once, by user."""
    served = users.select("userId", F.col("features").cast("array<float>"))
    return together_by_user(served, seen.select("userId", "movieId", rating.cast("float").alias("rating")))


@dataclass(frozen=True)
class _Block:
    """Some users of one partition: their ids, vectors as Candidates explains, who has no factors, and the history."""

    user_ids: NDArray[np.int32]
    vectors: Floats
    is_cold: NDArray[np.bool_]
    seen: _History


def _blocks(part: UserPartition, candidates: Candidates, size: int, *, everyone: bool) -> Iterator[_Block]:
    """The users that a partition serves, in order, so many at a time."""
    user_ids, vectors, is_cold = _user_vectors(part, candidates.rank, everyone=everyone)
    if not len(user_ids):
        return
    seen = _seen(part.rows, user_ids, candidates.movie_ids)
    for first in range(0, len(user_ids), size):
        last = min(first + size, len(user_ids))
        yield _Block(user_ids[first:last], vectors[first:last], is_cold[first:last], seen.part(first, last))


def _rank_partition_twice(
    part: UserPartition, candidates: Candidates, n: int, block_users: int
) -> Iterator[pa.RecordBatch]:
    """Both lists of all users of one partition, a record batch for each block of them."""
    top = TopN(candidates, n, block_users)
    for block in _blocks(part, candidates, block_users, everyone=False):
        seen, users = block.seen, len(block.user_ids)
        by_popularity = user_vectors(users, candidates.rank)
        count = np.bincount(seen.users, minlength=users)
        total = np.bincount(seen.users, weights=candidates.popularity[seen.movies], minlength=users)
        lists = []
        for vectors in (block.vectors, by_popularity):
            of_users, _, places, scores = top(vectors, seen.users, seen.movies)
            ends = np.searchsorted(of_users, np.arange(users + 1))
            ranked = pa.StructArray.from_arrays(
                [pa.array(-scores), pa.array(candidates.movie_ids[places])], names=["negative_score", "movieId"]
            )
            lists.append(pa.ListArray.from_arrays(pa.array(ends, pa.int32()), ranked))
        yield pa.RecordBatch.from_arrays(
            [
                pa.array(block.user_ids, pa.int32()),
                pa.array(count, pa.int32()),
                pa.array(total, pa.float64()),
                *lists,
            ],
            names=["userId", "seen", "seen_ratings", *JUDGED_MODELS],
        )


def _rank_partition(
    part: UserPartition,
    candidates: Candidates,
    n: int,
    block_users: int,
    explain: Explain | None = None,
    *,
    everyone: bool = False,
) -> Iterator[pa.RecordBatch]:
    """The lists of all users of one partition, a record batch for each block of them."""
    top = TopN(candidates, n, block_users)
    reasons = Reasons(candidates.factors, explain.problem, explain.most, candidates.lifts) if explain else None
    for block in _blocks(part, candidates, block_users, everyone=everyone):
        of_users, positions, places, scores = top(block.vectors, block.seen.users, block.seen.movies)
        because = _because(reasons, block.seen, block.is_cold, of_users, places) if reasons else None
        yield _as_batch(block.user_ids, block.is_cold, of_users, positions, candidates, places, scores, because)


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
    """The users that a partition serves, in order; their vectors as Candidates explains; and who has no factors."""
    served = part.rows if everyone else part.users
    user_ids = np.unique(served["userId"].to_numpy()).astype(np.int32)
    vectors = user_vectors(len(user_ids), rank)
    with_factors = part.users.filter(part.users["features"].is_valid())
    places, is_served = found_among(with_factors["userId"].to_numpy(), user_ids)
    if is_served.any():
        known = as_matrix(with_factors["features"].combine_chunks(), rank)[is_served]
        vectors[places[is_served]] = user_vectors(len(known), rank, known)
    is_cold = np.ones(len(user_ids), dtype=bool)
    is_cold[places[is_served]] = False
    return user_ids, vectors, is_cold


def _seen(history: pa.Table, user_ids: NDArray[np.int32], movie_ids: NDArray[np.int32]) -> _History:
    """What users have seen; users who are not served and movies that are no candidates are left out."""
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
    candidates: Candidates,
    places: Ints,
    scores: Scores,
    because: Ints | None,
) -> pa.RecordBatch:
    """Lists as a record batch of LISTS_SCHEMA."""
    is_last = ~candidates.has_factors[places]
    reasons = np.where(is_last, LAST_REASON, np.where(is_cold[of_users], POPULAR, PERSONAL))
    return pa.RecordBatch.from_arrays(
        [
            pa.array(user_ids[of_users], pa.int32()),
            pa.array(positions, pa.int32()),
            pa.array(candidates.movie_ids[places], pa.int32()),
            pa.array(np.where(is_last, 0.0, scores), pa.float64()),
            pa.array(reasons, pa.string()),
            _as_lists(because, candidates.movie_ids, len(places)),
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
