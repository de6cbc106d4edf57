"""The movies that can be recommended, as matrices that tasks hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_app.platform.spark_versions import to_arrow

LAST = np.float32(-1e9)
"""What puts movies without factors behind all others: they are recommended only where those run out."""

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Candidates:
    """The movies that can be recommended, in the order of movieId.

    `vectors` has a row for each movie: its factors times its lift, then 0 or LAST, then its popularity. `user_vectors`
    gives what they are multiplied by, so that one product ranks for users with factors and for users without.
    """

    movie_ids: NDArray[np.int32]
    vectors: Floats
    popularity_exponent: float = 0.0

    @property
    def rank(self) -> int:
        """Number of latent factors."""
        return int(self.vectors.shape[1]) - 2

    @property
    def lifted_factors(self) -> Floats:
        """The latent factors times the lift, a row for each movie; zeros where a movie has none."""
        return self.vectors[:, : self.rank]

    @property
    def factors(self) -> Floats:
        """The latent factors as they were fitted, a row for each movie; zeros where a movie has none."""
        return self.lifted_factors / self.lifts[:, None]

    @property
    def has_factors(self) -> NDArray[np.bool_]:
        """Whether the model knows each movie."""
        return np.asarray(self.vectors[:, self.rank] == 0)

    @property
    def popularity(self) -> Floats:
        """The number of ratings of each movie."""
        return self.vectors[:, self.rank + 1]

    @property
    def lifts(self) -> Floats:
        """What the scores of each movie are multiplied by for its popularity."""
        return (1 + self.popularity) ** np.float32(self.popularity_exponent)


def user_vectors(users: int, rank: int, factors: Floats | None = None) -> Floats:
    """What `Candidates.vectors` are multiplied by: factors, 1, 0 for users with factors, else zeros, 1, 1.

    The product is the predicted preference, or the popularity for users without factors; LAST is added to it for movies
    without factors.
    """
    vectors = np.zeros((users, rank + 2), dtype=np.float32)
    vectors[:, rank] = 1.0
    if factors is None:
        vectors[:, rank + 1] = 1.0
    else:
        vectors[:, :rank] = factors
    return vectors


@dataclass(frozen=True)
class CandidateBlocks:
    """The candidates in blocks that a task can hold, one after the other; each is made when its turn comes."""

    makers: Sequence[Callable[[], Candidates]]

    @classmethod
    def of(cls, *candidates: Candidates) -> CandidateBlocks:
        """Blocks that are made already."""
        return cls([partial(_same, block) for block in candidates])

    def __len__(self) -> int:
        return len(self.makers)

    def __iter__(self) -> Iterator[Candidates]:
        return (make() for make in self.makers)


def _same(candidates: Candidates) -> Candidates:
    return candidates


def candidate_blocks(
    movies: DataFrame,
    popularity: DataFrame,
    factors: DataFrame,
    rank: int,
    popularity_exponent: float,
    max_bytes: int,
) -> CandidateBlocks:
    """The candidates in one block, or by movieId in blocks of at most so many bytes.

    Takes what `build_candidates` takes. Reads the ids of the movies to the driver.
    """
    ids = np.sort(to_arrow(movies.select("movieId"))["movieId"].to_numpy())
    size = max(1, max_bytes // ((rank + 2) * np.dtype(np.float32).itemsize))
    parts = [movies]
    if len(ids) > size:
        ranges = (ids[first : first + size] for first in range(0, len(ids), size))
        parts = [movies.filter(F.col("movieId").between(int(part[0]), int(part[-1]))) for part in ranges]
    return CandidateBlocks(
        [partial(build_candidates, part, popularity, factors, rank, popularity_exponent) for part in parts]
    )


def build_candidates(
    movies: DataFrame, popularity: DataFrame, factors: DataFrame, rank: int, popularity_exponent: float = 0.0
) -> Candidates:
    """Collect the movies: movies(movieId), popularity(movieId, rating_count), factors(id, features array of `rank`).

    Scores are those of the factors times (1 + rating_count) to the power of `popularity_exponent`. Reads one row a
    movie to the driver.
    """
    joined = to_arrow(
        movies.select("movieId")
        .join(popularity.select("movieId", "rating_count"), on="movieId", how="left")
        .join(factors.withColumnRenamed("id", "movieId"), on="movieId", how="left")
        .orderBy("movieId")
    )
    ids = joined["movieId"].to_numpy().astype(np.int32)
    vectors = np.zeros((len(ids), rank + 2), dtype=np.float32)
    has_factors = joined["features"].is_valid().to_numpy(zero_copy_only=False)
    vectors[has_factors, :rank] = as_matrix(joined["features"].combine_chunks(), rank)
    vectors[~has_factors, rank] = LAST
    vectors[:, rank + 1] = joined["rating_count"].fill_null(0).to_numpy()
    candidates = Candidates(ids, vectors, popularity_exponent)
    vectors[:, :rank] *= candidates.lifts[:, None]
    return candidates


def as_matrix(features: pa.Array, rank: int) -> Floats:
    """A column of equally long lists as a matrix; nulls are skipped."""
    values: Floats = features.drop_null().flatten().to_numpy().reshape(-1, rank).astype(np.float32)
    return values


def found_among(ids: NDArray[np.int32], among: NDArray[np.int32]) -> tuple[Ints, NDArray[np.bool_]]:
    """The place of each id in an ascending array, and whether it is there."""
    if not len(among):
        return np.zeros(len(ids), dtype=np.int64), np.zeros(len(ids), dtype=bool)
    places: Ints = np.minimum(np.searchsorted(among, ids), len(among) - 1)
    return places, among[places] == ids
