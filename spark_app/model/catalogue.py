"""The movies that can be recommended, as one matrix that every task holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_app.platform.generations import to_arrow

LAST = np.float32(-1e9)
"""What puts movies without factors behind all others: they are recommended only where those run out."""

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Catalogue:
    """The movies that can be recommended, in the order of movieId.

    `vectors` has a row a movie: its factors times its lift, then 0 or LAST, then its popularity. A user's vector is
    their factors, 1, 0; that of a user without factors is zeros, 1, 1, so one product ranks both kinds.
    """

    movie_ids: NDArray[np.int32]
    vectors: Floats
    popularity_exponent: float = 0.0

    @property
    def rank(self) -> int:
        """Number of latent factors."""
        return int(self.vectors.shape[1]) - 2

    @property
    def popularity(self) -> Floats:
        """The number of ratings of each movie."""
        return self.vectors[:, self.rank + 1]

    @property
    def lifts(self) -> Floats:
        """What the scores of each movie are multiplied by for its popularity."""
        return (1 + self.popularity) ** np.float32(self.popularity_exponent)

    @property
    def factors(self) -> Floats:
        """The latent factors as they were fitted, a row a movie; zeros where a movie has none."""
        return self.vectors[:, : self.rank] / self.lifts[:, None]


def build_catalogue(
    movies: DataFrame, popularity: DataFrame, factors: DataFrame, rank: int, popularity_exponent: float = 0.0
) -> Catalogue:
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
    catalogue = Catalogue(ids, vectors, popularity_exponent)
    vectors[:, :rank] *= catalogue.lifts[:, None]
    return catalogue


def movie_blocks(movies: DataFrame, rank: int, most_bytes: int) -> list[DataFrame]:
    """The movies(movieId) as they are, or in blocks by movieId, so that each has a Catalogue of at most so many bytes.

    Reads the ids of the movies to the driver.
    """
    ids = np.sort(to_arrow(movies.select("movieId"))["movieId"].to_numpy())
    size = max(1, most_bytes // ((rank + 2) * np.dtype(np.float32).itemsize))
    if len(ids) <= size:
        return [movies]
    blocks = (ids[first : first + size] for first in range(0, len(ids), size))
    return [movies.filter(F.col("movieId").between(int(block[0]), int(block[-1]))) for block in blocks]


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
