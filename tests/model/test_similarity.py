from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from spark_app.model.matrices import FactorMatrix
from spark_app.model.similarity import similar_movies


def brute_force(ids: list[int], rows: NDArray[np.float32], n: int, may: set[int]) -> dict[int, list[tuple[int, float]]]:
    vectors = dict(zip(ids, rows.astype(float), strict=True))
    found = {}
    for movie, own in vectors.items():
        cosines = {
            other: round(float(own @ v / np.linalg.norm(own) / np.linalg.norm(v)), 6)
            for other, v in vectors.items()
            if other != movie and other in may and np.linalg.norm(v) and np.linalg.norm(own)
        }
        found[movie] = sorted(cosines.items(), key=lambda pair: (-pair[1], pair[0]))[:n]
    return {movie: pairs for movie, pairs in found.items() if pairs}


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(("movies", "n", "block"), [(150, 7, 16), (150, 1, 256), (3, 20, 2)])
def test_similar_movies_are_those_of_a_full_sort(
    spark: SparkSession, movies: int, n: int, block: int, whole: bool
) -> None:
    """Small integers as factors make many ties: movies in the same direction, and movies without any."""
    rng = np.random.default_rng(movies + n)
    rows = rng.integers(-2, 3, (movies, 3)).astype(np.float32)
    ids = np.sort(rng.permutation(9 * movies)[:movies]).astype(np.int32)
    is_chosen = rng.random(movies) < 0.4
    may = set(ids.tolist()) if whole else set(ids[is_chosen].tolist())
    frame = similar_movies(spark, FactorMatrix(ids, rows), n, None if whole else is_chosen, block)
    found: dict[int, list[tuple[int, float]]] = {}
    for row in sorted(frame.collect()):
        pairs = found.setdefault(row.movieId, [])
        pairs.append((row.similarMovieId, row.score))
        assert row.rank == len(pairs)
    assert found == brute_force(ids.tolist(), rows, n, may)
