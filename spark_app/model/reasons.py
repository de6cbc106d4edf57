"""Why a movie is recommended: which movies that a user likes weigh most in its score.

Implicit ALS solves a user's factors from their history alone, so the score of a movie is a sum over that history:
Y. Hu, Y. Koren, C. Volinsky: Collaborative Filtering for Implicit Feedback Datasets, ICDM 2008, section 5. With MLlib's
weights, for movie factors Y, preferences r_j (rating less neutral), c_j = alpha |r_j| and n likes (r_j > 0):

    score(i) = l_i sum over likes j of  (1 + c_j) y_i' M^-1 y_j,    M = Y'Y + sum over rated j of c_j y_j y_j' + reg n I

with the lift l_i that the catalogue gives a movie for its popularity.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spark_app.model import normal_equations
from spark_app.model.catalogue import Floats, Ints
from spark_app.platform.settings import ImplicitAls

DECIMALS = 6
"""Weights that agree in six decimals are a tie, and the lower movieId is named first."""


class Reasons:
    """Splits scores over histories; keeps what all users share."""

    def __init__(self, factors: Floats, settings: ImplicitAls, most: int, lifts: Floats | None = None) -> None:
        self.factors = factors
        self.lifts = np.ones(len(factors), dtype=np.float32) if lifts is None else lifts
        self.settings = settings
        self.most = most
        self.gram = normal_equations.gram(factors)

    def __call__(self, history: Ints, preferences: Floats, recommended: Ints) -> Ints:
        """The movies of a history that weigh most in the scores of recommended movies, the heaviest first.

        Takes places in the catalogue, `history` ascending and with its preferences. Returns a row for each recommended
        movie, `most` places wide, -1 where fewer movies speak for it.
        """
        weights = self.weights(history, preferences, recommended)
        liked = history[preferences > 0]
        named = np.full((len(recommended), self.most), -1, dtype=np.int64)
        width = min(self.most, len(liked))
        heaviest = np.argsort(-weights, axis=1, kind="stable")[:, :width]
        speaks_for = np.take_along_axis(weights, heaviest, axis=1) > 0
        named[:, :width] = np.where(speaks_for, liked[heaviest], -1)
        return named

    def weights(self, history: Ints, preferences: Floats, recommended: Ints) -> NDArray[np.float64]:
        """What each movie that the user likes adds to each score: a row a recommended movie, a column a like."""
        normal, terms = normal_equations.implicit(self.gram, self.factors[history], preferences, self.settings)
        lifted = self.factors[recommended].astype(np.float64) * self.lifts[recommended, None]
        added = terms @ np.linalg.solve(normal, lifted.T)
        return np.asarray(np.round(added.T, DECIMALS), dtype=np.float64)
