"""The N best unseen movies of every user, exactly.

MLlib's `recommendForAllUsers` also returns movies that a user has seen, and scores every pair of user and movie. Here
the movies are a matrix in every task, cut into chunks by the length (Euclidean norm) of their factors, the longest
first. Users come in blocks. One matrix product scores a chunk for a block, and two bounds avoid unnecessary work:

- No score is above the product of both lengths (Cauchy and Schwarz). A user is done when this product is below the
  user's N-th best score so far for all remaining chunks. C. Teflioudi, R. Gemulla: Exact and Approximate Maximum Inner
  Product Search with LEMP, ACM TODS 42 (1), 2017.
- The N-th largest of the maxima of disjoint groups of movies is a lower bound of the N-th best score. So a group whose
  maximum is below it cannot contain a movie of the list.

What must not be recommended is left out before the search, so that a list is the top N of what is left: movies that are
not chosen are in no chunk; seen movies, and movies predicted below a user's lowest rating, get the score -inf.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spark_app.model.candidates import LAST, Candidates
from spark_app.model.half_sweep import Doubles, Floats, Ints
from spark_app.model.predicted import RatingFloor, RatingSide

CHUNK = 2048
"""Number of movies scored together: the scores of a block of users then stay in the cache of a core."""

GROUP = 64
"""Number of movies in a group. A few hundred groups are quick to bound, and 64 movies are quick to sort."""

GROUPS_TO_SPARE = 4
"""With fewer groups than this times N, nearly all groups would reach the bound: then every movie is its own group."""

SCORE_DECIMALS = 6
"""Scores are compared as published: two that agree in six decimals are a tie, and the lower movieId wins."""

TOLERANCE = np.float32(1e-5)
"""Largest error of a score in single precision, relative to the score, or absolute if the score is below 1."""

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class UserRatings:
    """What users bring to their predicted ratings, and the lowest one that may be recommended to each."""

    side: RatingSide
    lowest: Doubles

    def __getitem__(self, users: Ints | slice) -> UserRatings:
        return UserRatings(self.side[users], self.lowest[users])


@dataclass(frozen=True)
class _Chunk:
    """Some movies: the place of the first, their vectors as columns, and numbers that bound scores from above.

    The bound holds for the movies of this chunk and of all later chunks: a score is at most `longest` times the length
    of the user's factors, plus `most_popular` for users without factors, plus `least`.
    """

    first: int
    vectors: Floats
    longest: float
    most_popular: float
    least: float


class TopN:
    """Finds the N best movies for blocks of users. It reuses its buffer of scores from one block to the next.

    With the `scale` of the ratings, calls can give the users' lowest ratings.
    """

    def __init__(
        self, candidates: Candidates, n: int, block_users: int, scale: tuple[float, float] | None = None
    ) -> None:
        self.n = n
        self.vectors = candidates.vectors
        self.has_factors = candidates.has_factors
        lengths = _lengths(candidates.lifted_factors)
        by_length = np.lexsort((-lengths, ~self.has_factors))
        self.place = by_length if candidates.is_chosen is None else by_length[candidates.is_chosen[by_length]]
        self.group = GROUP if GROUPS_TO_SPARE * n * GROUP <= len(self.place) else 1
        self.position = np.full(len(self.vectors), -1)
        self.position[self.place] = np.arange(len(self.place))
        chosen = Candidates(candidates.movie_ids[self.place], candidates.vectors[self.place])
        self.chunks = list(_chunks(chosen, lengths[self.place], self.group))
        self.floor = RatingFloor(candidates.ratings[self.place], scale) if candidates.ratings and scale else None
        self.buffer = np.empty((block_users, CHUNK), dtype=np.float32)

    def __call__(
        self, vectors: Floats, seen_users: Ints, seen_movies: Ints, ratings: UserRatings | None = None
    ) -> tuple[Ints, Ints, Ints, Scores]:
        """Make the lists of users with `vectors`, one row per user.

        `seen_users` (row) and `seen_movies` (place in the catalogue) are the pairs to leave out. With `ratings`, so are
        movies that are predicted below the user's lowest. Returns four arrays, ordered by row and position: row,
        position (from 1), place in the catalogue, score.
        """
        seen = self.position[seen_movies]
        rows, places = self._candidates(vectors, seen_users[seen >= 0], seen[seen >= 0], ratings)
        exact = self._exact(vectors, rows, places)
        order = np.lexsort((places, -exact, rows))
        rows, places, exact = rows[order], places[order], exact[order]
        positions: Ints = np.arange(len(rows)) - np.searchsorted(rows, np.arange(len(vectors)))[rows] + 1
        chosen = positions <= self.n
        return rows[chosen], positions[chosen], places[chosen], exact[chosen]

    def _candidates(
        self, vectors: Floats, seen_users: Ints, seen: Ints, ratings: UserRatings | None
    ) -> tuple[Ints, Ints]:
        """Pairs (row, place) that include all of the N best of each row, and usually few others."""
        # The search below needs the order of chunks alone, and numpy sorts small integers in linear time.
        chunks = (seen // CHUNK).astype(np.min_scalar_type(len(self.chunks)))
        order = np.argsort(chunks, kind="stable")
        seen_users, seen = seen_users[order], seen[order]
        ends = np.searchsorted(chunks[order], np.arange(len(self.chunks) + 1))
        lengths = np.linalg.norm(vectors[:, :-2].astype(np.float64), axis=1)
        best = np.full((len(vectors), self.n), -np.inf, dtype=np.float32)
        bound = best[:, 0].copy()
        nothing = np.zeros(0, dtype=np.int64)
        opened: list[tuple[Ints, Ints, Floats]] = [(nothing, nothing, np.zeros(0, dtype=np.float32))]
        users = np.arange(len(vectors))
        for number, chunk in enumerate(self.chunks):
            highest = lengths * chunk.longest + vectors[:, -1] * chunk.most_popular + chunk.least
            users = users[_just_above(highest[users]) >= bound[users]]
            if not len(users):
                break
            of_chunk = slice(ends[number], ends[number + 1])
            scores = self._scores(chunk, vectors, users, seen_users[of_chunk], seen[of_chunk])
            if ratings and self.floor:
                end = min(chunk.first + CHUNK, len(self.place))
                of_users = ratings[users]
                is_below = self.floor.is_below(of_users.side, of_users.lowest, chunk.first, end)
                scores[:, : end - chunk.first][is_below] = -np.inf
            maxima = scores.reshape(len(users), self.group, -1).max(axis=1)
            best[users] = _largest(np.concatenate([best[users], maxima], axis=1), self.n)
            bound[users] = _just_below(best[users].min(axis=1))
            rows, positions, values = self._opened(scores, maxima, bound[users])
            opened.append((users[rows], chunk.first + positions, values))
        rows, positions, values = (np.concatenate(parts) for parts in zip(*opened, strict=True))
        reaches = values >= bound[rows]
        return rows[reaches], self.place[positions[reaches]]

    def _scores(self, chunk: _Chunk, vectors: Floats, users: Ints, seen_users: Ints, seen: Ints) -> Floats:
        """Scores of one chunk, one row per user; -inf for padding and for what is seen of the chunk (user, place)."""
        width = chunk.vectors.shape[1]
        scores = self.buffer.ravel()[: len(users) * width].reshape(len(users), width)
        np.matmul(vectors[users], chunk.vectors, out=scores)
        scores[:, len(self.place) - chunk.first :] = -np.inf
        row_of_user = np.full(len(vectors), -1)
        row_of_user[users] = np.arange(len(users))
        rows = row_of_user[seen_users]
        scores[rows[rows >= 0], seen[rows >= 0] - chunk.first] = -np.inf
        return scores

    def _opened(self, scores: Floats, maxima: Floats, bound: Floats) -> tuple[Ints, Ints, Floats]:
        """The scores (row, position in the chunk, score) that reach the bound of their row.

        Group g of a chunk consists of its movies g, g + groups, g + 2 groups, ... The maxima of such strided slices are
        computed in a single pass.
        """
        rows, groups = np.nonzero((maxima >= bound[:, None]) & (maxima > -np.inf))
        positions = (groups[:, None] + maxima.shape[1] * np.arange(self.group)[None, :]).ravel()
        rows = np.repeat(rows, self.group)
        values = scores[rows, positions]
        reaches = (values >= bound[rows]) & (values > -np.inf)
        return rows[reaches], positions[reaches], values[reaches]

    def _exact(self, vectors: Floats, rows: Ints, places: Ints) -> Scores:
        """Rounded scores of (row, place) pairs in double precision. Scores in single precision depend on the block."""
        users, movies = vectors[rows].astype(np.float64), self.vectors[places].astype(np.float64)
        return np.where(self.has_factors[places], np.round(np.einsum("ij,ij->i", users, movies), SCORE_DECIMALS), LAST)


def _chunks(candidates: Candidates, lengths: Scores, group: int) -> Iterator[_Chunk]:
    """Cut movies into chunks, in their order, each padded to whole groups with columns of zeros."""
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


def _lengths(factors: Floats) -> Scores:
    """The length of each row, in double precision; a chunk at a time, since a copy of all would take much memory."""
    lengths = np.empty(len(factors))
    for first in range(0, len(factors), CHUNK):
        part = slice(first, first + CHUNK)
        lengths[part] = np.linalg.norm(factors[part].astype(np.float64), axis=1)
    return lengths


def _largest(values: Floats, n: int) -> Floats:
    """The n largest values of each row, in any order."""
    place = values.shape[1] - n
    return np.asarray(np.partition(values, place, axis=1)[:, place:])


def _just_below(bound: Floats) -> Floats:
    """Lower a bound by TOLERANCE: a score just below the bound could reach it when computed exactly or rounded."""
    with np.errstate(invalid="ignore"):
        below = bound - TOLERANCE * np.maximum(np.float32(1.0), np.abs(bound))
    return np.where(np.isnan(below), np.float32(-np.inf), below)


def _just_above(bound: Scores) -> Scores:
    """Raise an upper bound by TOLERANCE, for the same reason."""
    return np.asarray(bound + TOLERANCE * np.maximum(1.0, np.abs(bound)))
