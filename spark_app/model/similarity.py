"""Similar movies: for every movie those that the same people like, by the cosine of their factors in the ranking model.

With factors of length 1 a cosine is a product, so the most similar movies are a top N, found exactly by `topn`. The
work grows with the square of the number of movies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from spark_app.model.candidates import Candidates, user_vectors
from spark_app.model.half_sweep import Bools, Floats, Ints
from spark_app.model.matrices import FactorMatrix
from spark_app.model.topn import Scores, TopN

SCHEMA = "movieId INT, rank INT, similarMovieId INT, score DOUBLE"

BLOCK_MOVIES = 256
"""Movies whose similar ones are searched together."""

TASKS_PER_CORE = 4


def similar_movies(
    spark: SparkSession, factors: FactorMatrix, n: int, is_chosen: Bools | None = None, block: int = BLOCK_MOVIES
) -> DataFrame:
    """The `n` most similar movies of every movie in `factors`: movieId, rank (1 is best), similarMovieId, score.

    `score` is the cosine, from -1 to 1, rounded; ties go to the lower id. Movies whose factors are all 0 are similar to
    nothing. With `is_chosen`, only these movies are similar ones; every movie still has a list. The factors are
    broadcast, and each task searches some blocks of movies.
    """
    shared = spark.sparkContext.broadcast((*directions(factors), n, is_chosen))
    blocks = -(-len(factors.ids) // block)
    tasks = max(1, min(blocks, TASKS_PER_CORE * spark.sparkContext.defaultParallelism))

    def search(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        search_block: _Search | None = None
        for batch in batches:
            for place in batch["id"].to_pylist():
                search_block = search_block or _Search(*shared.value, block)
                yield search_block(place * block)

    return spark.range(0, blocks, 1, tasks).mapInArrow(search, SCHEMA)


def directions(factors: FactorMatrix) -> tuple[FactorMatrix, Bools]:
    """The factors of length 1 in the same directions, and which have a direction: zeros stay zeros."""
    lengths = np.linalg.norm(factors.rows.astype(np.float64), axis=1)
    has_direction = lengths > 0
    unit = factors.rows / np.where(has_direction, lengths, 1.0)[:, None]
    return FactorMatrix(factors.ids, unit.astype(np.float32)), has_direction


class _Search:
    """Finds the most similar movies of one block of movies after another."""

    def __init__(self, unit: FactorMatrix, has_direction: Bools, n: int, is_chosen: Bools | None, block: int) -> None:
        self.unit, self.has_direction, self.block = unit, has_direction, block
        nothing = np.zeros((len(unit.ids), 2), dtype=np.float32)
        may_be_listed = has_direction if is_chosen is None else has_direction & is_chosen
        movies = Candidates(unit.ids, np.hstack([unit.rows, nothing]), is_chosen=may_be_listed)
        self.top = TopN(movies, n, block)

    def __call__(self, first: int) -> pa.RecordBatch:
        """The similar movies of the movies from the place `first` on, as a record batch of SCHEMA."""
        places = np.arange(first, min(first + self.block, len(self.unit.ids)))
        places = places[self.has_direction[places]]
        rows, positions, similar, scores = self._of(places, self.unit.rows[places])
        ids = self.unit.ids
        return pa.RecordBatch.from_arrays(
            [
                pa.array(ids[places[rows]], pa.int32()),
                pa.array(positions, pa.int32()),
                pa.array(ids[similar], pa.int32()),
                pa.array(scores, pa.float64()),
            ],
            names=["movieId", "rank", "similarMovieId", "score"],
        )

    def _of(self, places: Ints, unit: Floats) -> tuple[Ints, Ints, Ints, Scores]:
        vectors = user_vectors(len(places), unit.shape[1], unit)
        return self.top(vectors, np.arange(len(places)), places)
