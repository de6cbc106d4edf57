"""Every user's list: the top N of the movies that they have not seen, with the reasons.

MLlib's `recommendForAllUsers` also returns movies that a user has seen, and is slow. Here a task has all ratings of its
users: it reads them from a file, or they are packed and shuffled by user once. It ranks its users in numpy against the
candidates, which are broadcast to every task.
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

from spark_app.model.by_user import UserPartition, together_by_user
from spark_app.model.candidates import CandidateBlocks, Candidates, user_vectors
from spark_app.model.half_sweep import Block, Floats, Ints, Problem
from spark_app.model.matrices import as_matrix, found_among, in_order
from spark_app.model.predicted import (
    RatingModel,
    known_biases,
    lowest_ratings,
    predicted_ratings,
    rating_side,
)
from spark_app.model.reasons import Reasons
from spark_app.model.topn import Scores, TopN, UserRatings
from spark_app.platform.arrow_files import Files
from spark_app.platform.log import logger

PERSONAL, POPULAR, LAST_REASON = "based on your ratings", "popular", "all others are rated"

LAST_OF_CHOICE = "all others are rated or left out"
"""The reason in the place of LAST_REASON where settings leave movies out."""

LISTS_SCHEMA = pa.schema(
    [
        ("userId", pa.int32()),
        ("rank", pa.int32()),
        ("movieId", pa.int32()),
        ("score", pa.float64()),
        ("reason", pa.string()),
        ("because", pa.list_(pa.int32())),
        ("predicted_rating", pa.float64()),
    ]
)

JUDGED_MODELS = ("implicit", "popularity")
"""The rankings that are compared; also the names of the columns with their lists."""

_RANKED = pa.list_(pa.struct([("negative_score", pa.float64()), ("movieId", pa.int32())]))
JUDGED_SCHEMA = pa.schema(
    [
        ("userId", pa.int32()),
        ("seen", pa.int32()),
        ("seen_ratings", pa.float64()),
        *((model, _RANKED) for model in JUDGED_MODELS),
    ]
)
"""The result of one block of candidates. Lists are ascending, so the lists of several blocks are merged by a sort."""


@dataclass(frozen=True)
class Explain:
    """The problem that the ranking model solved, and the maximum number of reasons per movie (at least 1)."""

    problem: Problem
    max_reasons: int


@dataclass(frozen=True)
class Predict:
    """The model that predicts ratings, with the users' factors(userId, features) and user_biases of `biases`."""

    model: RatingModel
    factors: DataFrame | Files
    user_biases: DataFrame | Files


@dataclass(frozen=True)
class _Ranker:
    """What a task needs beside the candidates, to make lists."""

    n: int
    block_users: int
    explain: Explain | None = None
    rating_model: RatingModel | None = None
    everyone: bool = False


@dataclass(frozen=True)
class _History:
    """What users have seen: one row per user and movie, both as places, with the rating; sorted by user, then movie.

    The rating is NaN where a movie was seen and not rated.
    """

    users: Ints
    movies: Ints
    ratings: Floats

    def part(self, first: int, last: int) -> _History:
        """The rows of the users `first` to `last` - 1; their places start from 0 at `first`."""
        rows = slice(*np.searchsorted(self.users, [first, last]))
        return _History(self.users[rows] - first, self.movies[rows], self.ratings[rows])

    @property
    def rated(self) -> _History:
        """The rows with a rating."""
        is_rated = np.isfinite(self.ratings)
        return _History(self.users[is_rated], self.movies[is_rated], self.ratings[is_rated])


def recommend(
    spark: SparkSession,
    users: DataFrame | Files,
    seen: DataFrame | Files,
    candidate_blocks: CandidateBlocks,
    n: int,
    block_users: int,
    explain: Explain | None = None,
    predict: Predict | None = None,
    *,
    everyone: bool = False,
) -> DataFrame:
    """The top N of every user in `users`: userId, rank (1 is best), movieId, score, reason, because, predicted_rating.

    Takes users(userId, features: array of float, null where the user has no factors) and seen(userId, movieId, rating:
    null if a movie was seen and not rated). Files are the quickest, if those of `seen` are grouped by user.
    With `everyone`, every user in `seen` gets a list, and `users` needs only rows for those who have factors.

    A user gets N of the unseen movies that are chosen (`Candidates.is_chosen`) and not predicted too low
    (`RatingModel`), or all of these if they are fewer. Users without factors get popular movies. `score` is the
    predicted preference, or the number of ratings for a popular movie. `because` names the liked movies that contribute
    most to the score, the largest contribution first; it is empty for popular movies and without `explain`.
    `predicted_rating` is null without `predict`, which needs candidates with `ratings`.

    A task holds one file of `seen`, if all comes in files and those of `seen` are grouped by user, and `everyone` is
    set. Otherwise the rows are shuffled by user, once for each block of candidates, and a task holds one partition.
    With more than one block no reasons are named, because these need all movies that a user has seen at once.
    """
    is_whole = len(candidate_blocks) == 1
    if explain and not is_whole:
        logger.warning(
            "no reasons are named, because the catalogue is ranked in %d blocks: see recommend.catalogue_bytes",
            len(candidate_blocks),
        )
        explain = None
    ranker = _Ranker(n, block_users, explain, predict.model if predict else None, everyone)
    needs_ratings = bool(explain or (predict and predict.model.above_mean is not None))
    of_users = (predict.factors, predict.user_biases) if predict else ()
    # Read by file, users who have seen nothing would get no list.
    if isinstance(seen, Files) and not (everyone and all(isinstance(part, Files) for part in (users, *of_users))):
        seen = seen.frame(spark)
    rows = seen if isinstance(seen, Files) else _rated(seen, F.col("rating") if needs_ratings else F.lit(None))
    together = together_by_user(spark, users, rows, *of_users)

    def ranked(candidates: Candidates) -> DataFrame:
        shared = spark.sparkContext.broadcast(candidates)

        def rank_partition(part: UserPartition) -> Iterable[pa.RecordBatch]:
            return _rank_partition(part, shared.value, ranker)

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
    unrated: DataFrame | None = None,
) -> DataFrame:
    """The top N by factors and the top N by popularity of every user in `users`, which `train` compares.

    Takes the same arguments as `recommend`, and unrated(userId, movieId): what users have seen without a rating, which
    is left out of the lists and counts for nothing else. Returns one row per user: userId, seen (number of candidates
    they have rated), seen_popularity (mean number of ratings of these candidates, 0 if there are none), and
    JUDGED_MODELS (arrays of movieId, the best first).
    """
    counted = seen.select("userId", "movieId", F.lit(1.0).alias("rating"))
    if unrated is not None:
        counted = counted.unionByName(unrated.select("userId", "movieId", F.lit(None).cast("double").alias("rating")))
    together = together_by_user(spark, users, _rated(counted, F.col("rating")))

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


def _rated(seen: DataFrame, rating: Column) -> DataFrame:
    """The rows of `seen` as userId, movieId, and a rating in single precision."""
    return seen.select("userId", "movieId", rating.cast("float").alias("rating"))


@dataclass(frozen=True)
class _Block:
    """Some users of one partition: ids, vectors (`candidates.user_vectors`), who has no factors, and what they saw."""

    user_ids: NDArray[np.int32]
    vectors: Floats
    is_cold: NDArray[np.bool_]
    seen: _History
    ratings: UserRatings | None


def _blocks(part: UserPartition, candidates: Candidates, ranker: _Ranker) -> Iterator[_Block]:
    """The users that a partition serves, ordered by id, in blocks."""
    user_ids, vectors, is_cold = _user_vectors(part, candidates.rank, everyone=ranker.everyone)
    if not len(user_ids):
        return
    seen = _seen(part.rows, user_ids, candidates.movie_ids)
    model, rated = ranker.rating_model, candidates.ratings
    ratings = _user_ratings(part, user_ids, model, rated.factors.shape[1]) if model and rated else None
    for first in range(0, len(user_ids), ranker.block_users):
        last = min(first + ranker.block_users, len(user_ids))
        own = slice(first, last)
        of_block = ratings[own] if ratings else None
        yield _Block(user_ids[own], vectors[own], is_cold[own], seen.part(first, last), of_block)


def _user_ratings(part: UserPartition, user_ids: NDArray[np.int32], model: RatingModel, rank: int) -> UserRatings:
    """What the users of a partition bring to predicted ratings, and the lowest one that may be recommended to each."""
    factors, biases = part.more
    matrix = in_order(factors["userId"], factors["features"], rank)
    known = known_biases(biases, "userId", "user_bias")
    side = rating_side(user_ids, matrix, known, model.mean, (model.constant, model.user))
    rows, is_served = found_among(part.rows["userId"].to_numpy(), user_ids)
    ratings = _ratings_of(part.rows)
    return UserRatings(side, lowest_ratings(model, rows[is_served], ratings[is_served], len(user_ids)))


def _rank_partition_twice(
    part: UserPartition, candidates: Candidates, n: int, block_users: int
) -> Iterator[pa.RecordBatch]:
    """Both lists of all users of one partition, one record batch per block of users."""
    top = TopN(candidates, n, block_users)
    for block in _blocks(part, candidates, _Ranker(n, block_users)):
        seen, users = block.seen, len(block.user_ids)
        by_popularity = user_vectors(users, candidates.rank)
        rated = seen.rated
        count = np.bincount(rated.users, minlength=users)
        total = np.bincount(rated.users, weights=candidates.popularity[rated.movies], minlength=users)
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


def _rank_partition(part: UserPartition, candidates: Candidates, ranker: _Ranker) -> Iterator[pa.RecordBatch]:
    """The lists of all users of one partition, one record batch per block of users."""
    explain, model, rated = ranker.explain, ranker.rating_model, candidates.ratings
    top = TopN(candidates, ranker.n, ranker.block_users, model.scale if model and model.has_lowest else None)
    reasons = Reasons(candidates.factors, explain.problem, explain.max_reasons, candidates.lifts) if explain else None
    for block in _blocks(part, candidates, ranker):
        listed = top(block.vectors, block.seen.users, block.seen.movies, block.ratings)
        of_users, _, places, _ = listed
        because = _because(reasons, block.seen, block.is_cold, of_users, places) if reasons else None
        predicted = None
        if model and rated and block.ratings:
            predicted = predicted_ratings(block.ratings.side, rated, of_users, places, model.scale)
        yield _as_batch(block, candidates, listed, because, predicted)


def _because(reasons: Reasons, history: _History, is_cold: NDArray[np.bool_], of_users: Ints, places: Ints) -> Ints:
    """The reasons for each row of a block's lists, as places padded with -1; none for users without factors."""
    named = np.full((len(places), reasons.max_reasons), -1, dtype=np.int64)
    rated, is_explained = history.rated, ~is_cold[of_users]
    starts = np.searchsorted(rated.users, np.arange(len(is_cold) + 1))
    block = Block(np.arange(len(is_cold), dtype=np.int32), starts, rated.movies.astype(np.int32), rated.ratings)
    named[is_explained] = reasons(block, of_users[is_explained], places[is_explained])
    return named


def _user_vectors(
    part: UserPartition, rank: int, *, everyone: bool
) -> tuple[NDArray[np.int32], Floats, NDArray[np.bool_]]:
    """The users that a partition serves, ordered by id, their vectors (`user_vectors`), and who has no factors."""
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
    """What the served users have seen of the candidates."""
    places, is_movie = found_among(history["movieId"].to_numpy(), movie_ids)
    users, is_user = found_among(history["userId"].to_numpy(), user_ids)
    is_kept = is_movie & is_user
    users, places = users[is_kept], places[is_kept]
    ratings = _ratings_of(history)[is_kept]
    # Sorting one combined number is several times as fast as sorting by two keys.
    order = np.argsort(users * len(movie_ids) + places, kind="stable")
    return _History(users[order], places[order], ratings[order])


def _ratings_of(rows: pa.Table) -> Floats:
    """The ratings of rows, NaN where there is none."""
    return np.asarray(rows["rating"].to_numpy(), dtype=np.float32)


def _as_batch(
    block: _Block,
    candidates: Candidates,
    listed: tuple[Ints, Ints, Ints, Scores],
    because: Ints | None,
    predicted: Scores | None,
) -> pa.RecordBatch:
    """The lists of a block, as `TopN` returns them, as a record batch of LISTS_SCHEMA."""
    of_users, positions, places, scores = listed
    is_last = ~candidates.has_factors[places]
    reasons = np.where(is_last, LAST_REASON, np.where(block.is_cold[of_users], POPULAR, PERSONAL))
    return pa.RecordBatch.from_arrays(
        [
            pa.array(block.user_ids[of_users], pa.int32()),
            pa.array(positions, pa.int32()),
            pa.array(candidates.movie_ids[places], pa.int32()),
            pa.array(np.where(is_last, 0.0, scores), pa.float64()),
            pa.array(reasons, pa.string()),
            _as_lists(because, candidates.movie_ids, len(places)),
            pa.nulls(len(places), pa.float64()) if predicted is None else pa.array(predicted, pa.float64()),
        ],
        names=["userId", "rank", "movieId", "score", "reason", "because", "predicted_rating"],
    )


def _as_lists(places: Ints | None, movie_ids: NDArray[np.int32], rows: int) -> pa.Array:
    """Rows of places (-1 means none) as lists of movieId; `rows` empty lists if `places` is None."""
    if places is None:
        places = np.empty((rows, 0), dtype=np.int64)
    is_named = places >= 0
    ends = np.concatenate([[0], np.cumsum(is_named.sum(axis=1))])
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(movie_ids[places[is_named]], pa.int32()))
