"""The candidates (the movies that can be recommended) as matrices that are broadcast to the tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import functions as F

from spark_app.model.factors import Factors, collected
from spark_app.model.half_sweep import Bools, Floats, Ints
from spark_app.model.matrices import FactorMatrix, Ids, found_among
from spark_app.model.predicted import RatingSide

LAST = np.float32(-1e9)
"""Added to the score of movies without factors. It ranks them last: they are recommended if no others are left."""


@dataclass(frozen=True)
class Candidates:
    """All movies of the catalogue, in the order of movieId, and which of them may be recommended.

    `vectors` has one row per movie: its factors times its lift, then LAST if it has no factors and 0 otherwise, then
    its popularity. Their product with `user_vectors` is the score, for users with factors and for users without.
    `is_chosen` says which movies may be recommended (None: all); the others still count as a part of what users like.
    `ratings` is what the movies bring to predicted ratings, None where no ratings are predicted.
    """

    movie_ids: NDArray[np.int32]
    vectors: Floats
    popularity_exponent: float = 0.0
    is_chosen: NDArray[np.bool_] | None = None
    ratings: RatingSide | None = None

    @property
    def rank(self) -> int:
        """The number of latent factors."""
        return int(self.vectors.shape[1]) - 2

    @property
    def lifted_factors(self) -> Floats:
        """The latent factors times the lift, one row per movie; zeros for a movie without factors."""
        return self.vectors[:, : self.rank]

    @property
    def factors(self) -> Floats:
        """The latent factors as fitted, one row per movie; zeros for a movie without factors."""
        return self.lifted_factors / self.lifts[:, None]

    @property
    def has_factors(self) -> NDArray[np.bool_]:
        """Whether each movie has factors."""
        return np.asarray(self.vectors[:, self.rank] == 0)

    @property
    def popularity(self) -> Floats:
        """The number of ratings of each movie."""
        return self.vectors[:, self.rank + 1]

    @property
    def lifts(self) -> Floats:
        """The factor for popularity by which the scores of each movie are multiplied."""
        return (1 + self.popularity) ** np.float32(self.popularity_exponent)


def user_vectors(users: int, rank: int, factors: Floats | None = None) -> Floats:
    """The vectors of users, to multiply with `Candidates.vectors`: (factors, 1, 0), or (zeros, 1, 1) without factors.

    The product is the predicted preference for users with factors, and the popularity for users without. For movies
    without factors LAST is added to it.
    """
    vectors = np.zeros((users, rank + 2), dtype=np.float32)
    vectors[:, rank] = 1.0
    if factors is None:
        vectors[:, rank + 1] = 1.0
    else:
        vectors[:, :rank] = factors
    return vectors


@dataclass(frozen=True)
class CandidateBlocks:
    """The candidates in blocks that fit into the memory of a task. Iterating builds one block at a time."""

    makers: Sequence[Callable[[], Candidates]]

    @classmethod
    def of(cls, *candidates: Candidates) -> CandidateBlocks:
        """Blocks from candidates that are already built."""
        return cls([partial(_same, block) for block in candidates])

    def __len__(self) -> int:
        return len(self.makers)

    def __iter__(self) -> Iterator[Candidates]:
        return (make() for make in self.makers)

    def each(self, change: Callable[[Candidates], Candidates]) -> CandidateBlocks:
        """The same blocks, changed by a function when they are built."""
        return CandidateBlocks([partial(_changed, make, change) for make in self.makers])


def _same(candidates: Candidates) -> Candidates:
    return candidates


def _changed(make: Callable[[], Candidates], change: Callable[[Candidates], Candidates]) -> Candidates:
    return change(make())


def candidate_blocks(
    movie_ids: Ids | Ints, popularity: pa.Table, factors: Factors, popularity_exponent: float, max_bytes: int
) -> CandidateBlocks:
    """Movies in one block, or, if they are larger than `max_bytes`, in several by ranges of ids, which must ascend.

    The other arguments are those of `candidates_of`, and the factors of the movies; popularity(movieId, rating_count).
    """
    ids, in_order = movie_ids.astype(np.int32), popularity.sort_by("movieId")
    counts = (in_order["movieId"].to_numpy().astype(np.int32), in_order["rating_count"].to_numpy())
    block_movies = max(1, max_bytes // ((factors.rank + 2) * np.dtype(np.float32).itemsize))

    def block(part: Ids) -> Candidates:
        if len(part) == len(ids):
            matrix = factors.movie_matrix()
        else:
            of_part = F.col("id").between(int(part[0]), int(part[-1]))
            matrix = collected(factors.movies.filter(of_part), factors.rank)
        return candidates_of(part, matrix, counts, factors.rank, popularity_exponent)

    parts = (ids[first : first + block_movies] for first in range(0, max(len(ids), 1), block_movies))
    return CandidateBlocks([partial(block, part) for part in parts])


def candidates_of(
    ids: Ids, factors: FactorMatrix, popularity: tuple[Ids, Ints], rank: int, popularity_exponent: float
) -> Candidates:
    """Movies with ascending ids as candidates, with their factors, and popularity (ascending ids, and counts).

    Factors and popularity may lack some, and have others. The lift is (1 + count) to the power of
    `popularity_exponent`.
    """
    places, has_factors = found_among(ids, factors.ids)
    rows = np.zeros((len(ids), rank), dtype=np.float32)
    rows[has_factors] = factors.rows[places[has_factors]]
    places, is_counted = found_among(ids, popularity[0])
    counts = np.zeros(len(ids), dtype=np.int64)
    counts[is_counted] = popularity[1][places[is_counted]]
    return as_candidates(ids, rows, has_factors, counts, popularity_exponent)


def as_candidates(
    ids: Ids, factors: Floats, has_factors: Bools, counts: Ints, popularity_exponent: float
) -> Candidates:
    """Candidates with ascending ids, their factors (zeros where there are none), and their numbers of ratings."""
    vectors = np.column_stack([factors, np.where(has_factors, np.float32(0), LAST), counts.astype(np.float32)])
    candidates = Candidates(ids, vectors, popularity_exponent)
    vectors[:, :-2] *= candidates.lifts[:, None]
    return candidates
