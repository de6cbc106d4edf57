"""Why a movie is recommended: which movies that a user likes weigh most in its score.

Implicit ALS solves a user's factors from their history alone, so the score of a movie is a sum over that history:
Y. Hu, Y. Koren, C. Volinsky: Collaborative Filtering for Implicit Feedback Datasets, ICDM 2008, section 5. With the
weights w, targets t and regularisation of `half_sweep`, for movie factors Y:

    score(i) = l_i sum over likes j of  t_j y_i' M^-1 y_j,    M = Y'Y + sum over rated j of w_j y_j y_j' + reg n^power I

with the lift l_i that the catalogue gives a movie for its popularity.
"""

from __future__ import annotations

import numpy as np

from spark_app.model.half_sweep import Doubles, Floats, Ints, Problem, gram_of, normal_matrices

REASON_DECIMALS = 6
"""Weights that agree in six decimals are a tie, and the lower movieId is named first."""


class Reasons:
    """Splits scores over histories; keeps what all users share."""

    def __init__(self, factors: Floats, problem: Problem, most: int, lifts: Floats | None = None) -> None:
        self.factors = factors
        self.lifts = np.ones(len(factors), dtype=np.float32) if lifts is None else lifts
        self.problem = problem
        self.most = most
        self.gram = gram_of(factors)

    def __call__(self, history: Ints, ratings: Floats, recommended: Ints) -> Ints:
        """The movies of a history that weigh most in the scores of recommended movies, the heaviest first.

        Takes places in the catalogue, `history` ascending and with its ratings. Returns a row for each recommended
        movie, `most` places wide, -1 where fewer movies speak for it.
        """
        weights = self.weights(history, ratings, recommended)
        liked = history[self.problem.loss.terms(ratings).counted]
        named = np.full((len(recommended), self.most), -1, dtype=np.int64)
        width = min(self.most, len(liked))
        heaviest = np.argsort(-weights, axis=1, kind="stable")[:, :width]
        speaks_for = np.take_along_axis(weights, heaviest, axis=1) > 0
        named[:, :width] = np.where(speaks_for, liked[heaviest], -1)
        return named

    def weights(self, history: Ints, ratings: Floats, recommended: Ints) -> Doubles:
        """What each movie that the user likes adds to each score: a row a recommended movie, a column a like."""
        terms = self.problem.loss.terms(ratings)
        vectors, is_like = self.factors[history].astype(np.float64), terms.counted
        ridge = self.problem.ridge.of(np.array([is_like.sum()]))
        (matrix,) = normal_matrices(vectors[None], terms.weights[None], self.gram, ridge)
        lifted = self.factors[recommended].astype(np.float64) * self.lifts[recommended, None]
        added = vectors[is_like] * terms.targets[is_like, None] @ np.linalg.solve(matrix, lifted.T)
        return np.asarray(np.round(added.T, REASON_DECIMALS), dtype=np.float64)
