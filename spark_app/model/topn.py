"""The N best unseen movies of every user, exactly.

MLlib's `recommendForAllUsers` returns movies that a user has seen, and scores every pair of user and movie. Here movies
are a matrix that every task holds, in chunks by the length of their factors, the longest first, and users come in
blocks. One matrix product scores a chunk for a block, and two bounds say what need not be looked at:

- No score is above the product of both lengths (Cauchy and Schwarz). A user is done when this is below the N-th best
  score so far for all chunks that are left. C. Teflioudi, R. Gemulla: Exact and Approximate Maximum Inner Product
  Search with LEMP, ACM TODS 42 (1), 2017.
- The N-th largest of the maxima of disjoint groups of movies is a lower bound of the N-th best score, so a group whose
  maximum is below it cannot hold a movie of the list.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spark_app.model.candidates import LAST, Candidates, Floats, Ints

CHUNK = 2048
"""Movies scored at a time: the scores of a block of users stay in the cache of a core."""

GROUP = 64
"""Movies in a group. A few hundred groups are quick to bound, and 64 movies are quick to sort."""

GROUPS_TO_SPARE = 4
"""With fewer groups than this many times N the bound would open nearly all: movies are then looked at one by one."""

SCORE_DECIMALS = 6
"""Scores are compared as they are published: two that agree in six decimals are a tie, and the lower movieId wins."""

TOLERANCE = np.float32(1e-5)
"""How far a score in single precision may be from the exact one, relative to the larger of it and 1."""

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class _Chunk:
    """Some movies: vectors as columns, and of these and all movies in later chunks what bounds a score from above."""

    first: int
    vectors: Floats
    longest: float
    most_popular: float
    least: float


class TopN:
    """Finds the N best movies for blocks of users; keeps the buffer of scores from one block to the next."""

    def __init__(self, candidates: Candidates, n: int, block_users: int) -> None:
        self.n = n
        self.vectors = candidates.vectors
        movies = len(candidates.movie_ids)
        self.group = GROUP if GROUPS_TO_SPARE * n * GROUP <= movies else 1
        self.has_factors = candidates.has_factors
        lengths = np.linalg.norm(candidates.lifted_factors.astype(np.float64), axis=1)
        self.place = np.lexsort((-lengths, ~self.has_factors))
        self.position = np.empty_like(self.place)
        self.position[self.place] = np.arange(movies)
        by_length = Candidates(candidates.movie_ids[self.place], candidates.vectors[self.place])
        self.chunks = list(_chunks(by_length, lengths[self.place], self.group))
        self.buffer = np.empty((block_users, CHUNK), dtype=np.float32)

    def __call__(self, vectors: Floats, seen_users: Ints, seen_movies: Ints) -> tuple[Ints, Ints, Ints, Scores]:
        """Lists for users with `vectors` (a row each) who have seen the given (row, movie place) pairs.

        Returns arrays, ordered by row and position: row, position (from 1), place in the catalogue, score.
        """
        rows, places = self._candidates(vectors, seen_users, self.position[seen_movies])
        exact = self._exact(vectors, rows, places)
        order = np.lexsort((places, -exact, rows))
        rows, places, exact = rows[order], places[order], exact[order]
        positions: Ints = np.arange(len(rows)) - np.searchsorted(rows, np.arange(len(vectors)))[rows] + 1
        chosen = positions <= self.n
        return rows[chosen], positions[chosen], places[chosen], exact[chosen]

    def _candidates(self, vectors: Floats, seen_users: Ints, seen: Ints) -> tuple[Ints, Ints]:
        """Pairs (row, place) that may be among the N best; all that can be are among them."""
        order = np.argsort(seen, kind="stable")
        seen_users, seen = seen_users[order], seen[order]
        lengths = np.linalg.norm(vectors[:, :-2].astype(np.float64), axis=1)
        best = np.full((len(vectors), self.n), -np.inf, dtype=np.float32)
        bound = best[:, 0].copy()
        nothing = np.zeros(0, dtype=np.int64)
        found: list[tuple[Ints, Ints, Floats]] = [(nothing, nothing, np.zeros(0, dtype=np.float32))]
        users = np.arange(len(vectors))
        for chunk in self.chunks:
            highest = lengths * chunk.longest + vectors[:, -1] * chunk.most_popular + chunk.least
            users = users[_just_above(highest[users]) >= bound[users]]
            if not len(users):
                break
            scores = self._scores(chunk, vectors, users, seen_users, seen)
            maxima = scores.reshape(len(users), self.group, -1).max(axis=1)
            best[users] = _largest(np.concatenate([best[users], maxima], axis=1), self.n)
            bound[users] = _just_below(best[users].min(axis=1))
            rows, positions, values = self._opened(scores, maxima, bound[users])
            found.append((users[rows], chunk.first + positions, values))
        rows, positions, values = (np.concatenate(parts) for parts in zip(*found, strict=True))
        may_be = values >= bound[rows]
        return rows[may_be], self.place[positions[may_be]]

    def _scores(self, chunk: _Chunk, vectors: Floats, users: Ints, seen_users: Ints, seen: Ints) -> Floats:
        """Scores of one chunk for some users, a row each; -inf for what they have seen."""
        width = chunk.vectors.shape[1]
        scores = self.buffer.ravel()[: len(users) * width].reshape(len(users), width)
        np.matmul(vectors[users], chunk.vectors, out=scores)
        scores[:, len(self.place) - chunk.first :] = -np.inf
        of_chunk = slice(*np.searchsorted(seen, [chunk.first, chunk.first + width]))
        row_of_user = np.full(len(vectors), -1)
        row_of_user[users] = np.arange(len(users))
        rows = row_of_user[seen_users[of_chunk]]
        scores[rows[rows >= 0], seen[of_chunk][rows >= 0] - chunk.first] = -np.inf
        return scores

    def _opened(self, scores: Floats, maxima: Floats, bound: Floats) -> tuple[Ints, Ints, Floats]:
        """The scores (row, position in the chunk, score) that reach the bound of their row.

        Group g of a chunk holds its movies g, g + groups, g + 2 groups, ...: strided slices, whose maximum is a single
        pass.
        """
        rows, groups = np.nonzero((maxima >= bound[:, None]) & (maxima > -np.inf))
        positions = (groups[:, None] + maxima.shape[1] * np.arange(self.group)[None, :]).ravel()
        rows = np.repeat(rows, self.group)
        values = scores[rows, positions]
        reaches = (values >= bound[rows]) & (values > -np.inf)
        return rows[reaches], positions[reaches], values[reaches]

    def _exact(self, vectors: Floats, rows: Ints, places: Ints) -> Scores:
        """Scores of a few (row, movie) pairs, in double precision: single ones depend on who shares a block."""
        users, movies = vectors[rows].astype(np.float64), self.vectors[places].astype(np.float64)
        return np.where(self.has_factors[places], np.round(np.einsum("ij,ij->i", users, movies), SCORE_DECIMALS), LAST)


def _chunks(candidates: Candidates, lengths: Scores, group: int) -> Iterator[_Chunk]:
    """Movies in their order as chunks, filled up to whole groups with columns of zeros."""
    vectors = candidates.vectors
    for first in range(0, len(vectors), CHUNK):
        part = vectors[first : first + CHUNK]
        width = -(-len(part) // group) * group
        columns = np.zeros((vectors.shape[1], width), dtype=np.float32)
        columns[:, : len(part)] = part.T
        rest = slice(first, None)
        yield _Chunk(
            first=first,
            vectors=columns,
            longest=float(lengths[rest].max()),
            most_popular=float(candidates.popularity[rest].max()),
            least=0.0 if candidates.has_factors[first] else float(LAST),
        )


def _largest(values: Floats, n: int) -> Floats:
    """The n largest values of each row, in any order."""
    place = values.shape[1] - n
    return np.asarray(np.partition(values, place, axis=1)[:, place:])


def _just_below(bound: Floats) -> Floats:
    """A score just below the bound may be above it when it is computed exactly, or round to the same value."""
    with np.errstate(invalid="ignore"):
        below = bound - TOLERANCE * np.maximum(np.float32(1.0), np.abs(bound))
    return np.where(np.isnan(below), np.float32(-np.inf), below)


def _just_above(bound: Scores) -> Scores:
    """The same for a bound from above."""
    return np.asarray(bound + TOLERANCE * np.maximum(1.0, np.abs(bound)))
