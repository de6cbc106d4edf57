"""Similar movies, by the cosine of their factors in the ranking model."""

from __future__ import annotations

import numpy as np

from spark_app.model.half_sweep import Floats, Ints
from spark_app.model.topn import Scores

SIMILARITY_DECIMALS = 4
"""Similarities that agree in this many decimals are a tie, and the movie in the lower place comes first."""


def most_similar(factors: Floats, place: int, n: int) -> tuple[Ints, Scores]:
    """The places of the `n` movies most similar to the movie at `place`, the best first, and their rounded cosines.

    Takes the factors of all movies, one row per movie. Both arrays are empty if the movie has no factors.
    """
    lengths = np.linalg.norm(factors, axis=1)
    if not lengths[place]:
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    products = lengths * lengths[place]
    cosines = np.round(factors @ factors[place] / np.maximum(products, np.finfo(np.float32).tiny), SIMILARITY_DECIMALS)
    nearest = np.argsort(-cosines, kind="stable")
    nearest = nearest[nearest != place][:n]
    return nearest, np.round(cosines[nearest].astype(np.float64), SIMILARITY_DECIMALS)
