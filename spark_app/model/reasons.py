"""Why a movie is recommended: which of the movies that a user likes contribute most to its score.

Implicit ALS computes a user's factors from their history alone, so the score of a movie is a sum over that history:
Y. Hu, Y. Koren, C. Volinsky: Collaborative Filtering for Implicit Feedback Datasets, ICDM 2008, section 5. With the
weights w, targets t and regularisation of `half_sweep`, for movie factors Y:

    score(i) = l_i sum over likes j of  t_j y_i' M^-1 y_j,    M = Y'Y + sum over rated j of w_j y_j y_j' + reg n^power I

where l_i is the lift of the movie for its popularity (`Candidates.lifts`).
"""

from __future__ import annotations

import numpy as np

from spark_app.model.half_sweep import Doubles, Floats, Ints, Problem, gram_of, normal_matrices

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

    def __call__(self, history: Ints, ratings: Floats, recommended: Ints) -> Ints:
        """The liked movies that contribute most to the score of each recommended movie, the largest first.

        Movies are places in the catalogue. `history` is ascending; `ratings` are those of `history`. Returns one row
        per recommended movie with `max_reasons` places, -1 where fewer movies contribute more than 0.
        """
        added = self.contributions(history, ratings, recommended)
        liked = history[self.problem.loss.terms(ratings).counted]
        named = np.full((len(recommended), self.max_reasons), -1, dtype=np.int64)
        width = min(self.max_reasons, len(liked))
        largest = np.argsort(-added, axis=1, kind="stable")[:, :width]
        is_reason = np.take_along_axis(added, largest, axis=1) > 0
        named[:, :width] = np.where(is_reason, liked[largest], -1)
        return named

    def contributions(self, history: Ints, ratings: Floats, recommended: Ints) -> Doubles:
        """The part of each score that each liked movie adds: one row per recommended movie, one column per like."""
        terms = self.problem.loss.terms(ratings)
        vectors, is_like = self.factors[history].astype(np.float64), terms.counted
        ridge = self.problem.ridge.of(np.array([is_like.sum()]))
        (matrix,) = normal_matrices(vectors[None], terms.weights[None], self.gram, ridge)
        lifted = self.factors[recommended].astype(np.float64) * self.lifts[recommended, None]
        added = vectors[is_like] * terms.targets[is_like, None] @ np.linalg.solve(matrix, lifted.T)
        return np.asarray(np.round(added.T, REASON_DECIMALS), dtype=np.float64)
