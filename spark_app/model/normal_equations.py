"""The least squares problem that MLlib's ALS solves for each user in a half sweep, the movies' factors held fixed.

For factors Y of the movies, those that the user has rated y_j, and n the ratings or likes of the user (ALS-WR:
Y. Zhou, D. Wilkinson, R. Schreiber, R. Pan: Large-scale Parallel Collaborative Filtering for the Netflix Prize, 2008):

    explicit, ratings r_j:               (sum y_j y_j' + reg n I) x = sum r_j y_j
    implicit, preferences r_j, with confidences c_j = alpha |r_j| and likes r_j > 0:
                               (Y'Y + sum c_j y_j y_j' + reg n I) x = sum over likes (1 + c_j) y_j
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spark_app.model.catalogue import Floats
from spark_app.platform.settings import ExplicitAls, ImplicitAls

Doubles = NDArray[np.float64]


def gram(factors: Floats) -> Doubles:
    """Y'Y of all movies, which every user's implicit problem has in it."""
    product: Doubles = factors.T.astype(np.float64) @ factors
    return product


def implicit(of_all: Doubles, rated: Floats, preferences: Floats, settings: ImplicitAls) -> tuple[Doubles, Doubles]:
    """The matrix on the left, and the terms of the sum on the right, a row a like.

    Takes Y'Y, the factors of the movies that the user has rated and what the ratings say, a row each.
    """
    vectors = rated.astype(np.float64)
    confidences = settings.alpha * np.abs(preferences.astype(np.float64))
    is_liked = preferences > 0
    matrix = of_all + (vectors * confidences[:, None]).T @ vectors
    terms = vectors[is_liked] * (1 + confidences[is_liked])[:, None]
    return _with_ridge(matrix, settings.reg * len(terms)), terms


def explicit(rated: Floats, ratings: Floats, settings: ExplicitAls) -> tuple[Doubles, Doubles]:
    """The matrix on the left, and the terms of the sum on the right, a row a rating."""
    vectors = rated.astype(np.float64)
    return _with_ridge(vectors.T @ vectors, settings.reg * len(vectors)), vectors * ratings.astype(np.float64)[:, None]


def _with_ridge(matrix: Doubles, ridge: float) -> Doubles:
    return matrix + ridge * np.eye(len(matrix))
