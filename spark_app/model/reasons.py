"""Why a movie is recommended: which of the movies that a user likes contribute most to its score.

Implicit ALS computes a user's factors from their history alone, so the score of a movie is a sum over that history:
Y. Hu, Y. Koren, C. Volinsky: Collaborative Filtering for Implicit Feedback Datasets, ICDM 2008, section 5. With the
weights w, targets t and regularisation of `half_sweep`, for movie factors Y:

    score(i) = l_i sum over likes j of  t_j y_i' M^-1 y_j,    M = Y'Y + sum over rated j of w_j y_j y_j' + reg n^power I

where l_i is the lift of the movie for its popularity (`Candidates.lifts`).
"""

from __future__ import annotations

import numpy as np

from spark_app.model.half_sweep import (
    GROUP_USERS,
    Block,
    Doubles,
    Floats,
    Ints,
    Problem,
    gram_of,
    groups,
    normal_matrices,
)

REASON_DECIMALS = 6
"""Contributions that agree in six decimals are a tie, and the lower movieId is named first."""


class Reasons:
    """Splits scores into contributions of the movies that a user has rated. Keeps Y'Y, which all users share."""

    def __init__(
        self,
        factors: Floats,
        problem: Problem,
        max_reasons: int,
        lifts: Floats | None = None,
        gram: Doubles | None = None,
    ) -> None:
        self.factors = factors
        self.lifts = np.ones(len(factors), dtype=np.float32) if lifts is None else lifts
        self.problem = problem
        self.max_reasons = max_reasons
        self.gram = gram_of(factors) if gram is None else gram

    def __call__(self, rated: Block, users: Ints, recommended: Ints) -> Ints:
        """The liked movies that contribute most to the score of each recommended movie, the largest first.

        `rated` are the ratings of some users, whose movies are places in the catalogue, ascending. Each of `users`, in
        ascending order, is the row in `rated` of the user to whom the movie in the same place of `recommended` is
        recommended. Returns one row per recommended movie with `max_reasons` places, -1 where fewer movies contribute
        more than 0.
        """
        named = np.full((len(recommended), self.max_reasons), -1, dtype=np.int64)
        terms = self.problem.loss.terms(rated.values)
        ridges = self.problem.ridge.of(rated.sums(terms.counted))
        # What pads a group: a rating without weight of the first movie.
        movies = np.append(rated.others, 0)
        weights, targets = (np.append(part, np.float32(0)) for part in (terms.weights, terms.targets))
        starts = np.searchsorted(users, np.arange(len(rated.own) + 1))
        lengths = np.diff(starts)
        is_listed = (lengths > 0) & (rated.lengths > 0)
        for own, ratings in groups(rated, is_listed, self.factors.shape[1], GROUP_USERS):
            width = int(lengths[own].max())
            is_row = np.arange(width) < lengths[own, None]
            rows = np.where(is_row, starts[own, None] + np.arange(width), 0)
            of_group = movies[ratings]
            added = self.contributions(of_group, weights[ratings], targets[ratings], ridges[own], recommended[rows])
            named[rows[is_row]] = self._largest(added, of_group)[is_row]
        return named

    def contributions(
        self, movies: Ints, weights: Floats, targets: Floats, ridges: Doubles, recommended: Ints
    ) -> Doubles:
        """The part of each score that each rated movie adds; a movie that is not liked adds 0.

        Takes what some users have rated, as places in the catalogue, with the terms of these ratings, each of shape
        (users, ratings), their regularisation (users), and (users, recommended). Returns (users, recommended, ratings).
        """
        vectors = self.factors[movies].astype(np.float64)
        matrices = normal_matrices(vectors, weights, self.gram, ridges)
        lifted = self.factors[recommended].astype(np.float64) * self.lifts[recommended, None]
        solved = np.linalg.solve(matrices, lifted.transpose(0, 2, 1))
        added = np.matmul(solved.transpose(0, 2, 1), vectors.transpose(0, 2, 1)) * targets[:, None, :]
        return np.asarray(np.round(added, REASON_DECIMALS), dtype=np.float64)

    def _largest(self, added: Doubles, movies: Ints) -> Ints:
        """The movies that add most, the largest first: (users, recommended, reasons). -1 where none adds anything."""
        named = np.full((*added.shape[:2], self.max_reasons), -1, dtype=np.int64)
        for place in range(self.max_reasons):
            largest = added.argmax(axis=2)[:, :, None]  # the first of several
            is_reason = np.take_along_axis(added, largest, axis=2)[:, :, 0] > 0
            named[:, :, place] = np.where(is_reason, np.take_along_axis(movies, largest[:, :, 0], axis=1), -1)
            np.put_along_axis(added, largest, 0.0, axis=2)
        return named
