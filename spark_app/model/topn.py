"""The N best unseen movies of every user, exactly.

MLlib's `recommendForAllUsers` returns movies that a user has seen, and is slow at it. Here movies are a matrix that
every task holds, users come in blocks, one matrix product scores a block, and only a few groups of movies are looked at
closely: the N-th largest of the maxima of disjoint groups is a lower bound of the N-th best score, so a group whose
maximum is below it cannot hold a movie of the list.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spark_app.model.catalogue import LAST, Catalogue, Floats, Ints

GROUP = 64
"""Movies in a group. A few hundred groups are quick to bound, and 64 movies are quick to sort."""

DECIMALS = 6
"""Scores are compared as they are published: two that agree in six decimals are a tie, and the lower movieId wins."""

TOLERANCE = np.float32(1e-5)
"""How far a score in single precision may be from the exact one, relative to the larger of it and 1."""

Scores = NDArray[np.float64]


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
