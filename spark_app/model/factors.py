"""Latent factors, the result of a factorisation by either solver: conversions, replacement of users, predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import to_arrow_schema

from spark_app.model.by_user import UserPartition, together_by_user
from spark_app.model.half_sweep import Floats, Problem
from spark_app.model.matrices import FactorMatrix, Ids, found_among, in_order
from spark_app.model.solver import Solution, SolvedSide
from spark_app.platform.arrow_files import Files, Mapped
from spark_app.platform.spark_versions import to_arrow

FACTORS_SCHEMA = pa.schema([("id", pa.int32()), ("features", pa.list_(pa.field("element", pa.float32())))])

FRAME_ROWS = 20_000
"""Rows of factors in each partition of a frame made from a matrix."""

BATCH_PAIRS = 50_000
"""Number of pairs whose factors are gathered together."""


@dataclass(frozen=True)
class Factors:
    """Factors of users and movies: frames of (id INT, features ARRAY<FLOAT> of length `rank`).

    The score or predicted rating of a pair is the dot product of both. A user or movie without factors has no row.
    `matrices` are those of users and movies, where they are on the driver already; `read_movies` reads that of the
    movies where it is stored. `user_files` has the users, if tasks can read it where it is stored.
    """

    rank: int
    users: DataFrame
    movies: DataFrame
    matrices: tuple[FactorMatrix, FactorMatrix] | None = None
    read_movies: Callable[[], FactorMatrix] | None = None
    user_files: Files | None = None

    @property
    def user_rows(self) -> DataFrame | Files:
        """The factors of the users, as userId and features."""
        return self.user_files or self.users.withColumnRenamed("id", "userId")

    def movie_matrix(self) -> FactorMatrix:
        """The factors of the movies as a matrix on the driver."""
        if self.matrices:
            return self.matrices[1]
        return self.read_movies() if self.read_movies else collected(self.movies, self.rank)

    def off_driver(self) -> Factors:
        """The same factors, without the matrices that take memory of the driver."""
        return replace(self, matrices=None)


def collected(factors: DataFrame, rank: int) -> FactorMatrix:
    """Collect factors(id, features) to the driver as a matrix."""
    rows = to_arrow(factors.select("id", "features"))
    return in_order(rows["id"], rows["features"], rank)


def as_factors(solution: Solution, problem: Problem, spark: SparkSession) -> Factors:
    """Convert a solution to frames without the rows that have no factors. Biases become two columns (`with_biases`)."""
    users, movies = (
        FactorMatrix(side.ids[side.has_factors], side.factors[side.has_factors])
        for side in (solution.users, solution.movies)
    )
    if problem.mean is not None:
        users = replace(users, rows=with_biases(users.rows, problem.mean))
        movies = replace(movies, rows=with_biases(movies.rows, None))
    return Factors(users.rows.shape[1], as_frame(spark, users), as_frame(spark, movies), (users, movies))


def as_solution(factors: Factors, problem: Problem) -> Solution:
    """Collect factors to the driver as a solution that the solver can start from: the inverse of `as_factors`."""
    users, movies = factors.matrices or (collected(factors.users, factors.rank), factors.movie_matrix())
    if problem.mean is not None:
        users = replace(users, rows=without_biases(users.rows, problem.mean))
        movies = replace(movies, rows=without_biases(movies.rows, None))
    of_users, of_movies = (
        SolvedSide(side.ids, side.rows, np.ones(len(side.ids), dtype=bool)) for side in (users, movies)
    )
    return Solution(of_users, of_movies, objective=())


def with_biases(rows: Floats, mean: float | None) -> Floats:
    """Replace the last column, the bias, by two columns, so that the product of both sides is a predicted rating.

    The two columns are (mean + bias, 1) for users, and (1, bias) for movies, which pass None as the mean.
    """
    bias, one = rows[:, -1], np.ones(len(rows), dtype=np.float32)
    columns = (one, bias) if mean is None else (bias + np.float32(mean), one)
    return np.column_stack([rows[:, :-1], *columns])


def without_biases(rows: Floats, mean: float | None) -> Floats:
    """Replace the last two columns by the bias: the inverse of `with_biases`."""
    bias = rows[:, -1] if mean is None else rows[:, -2] - np.float32(mean)
    return np.column_stack([rows[:, :-2], bias])


def as_frame(spark: SparkSession, matrix: FactorMatrix) -> DataFrame:
    """Make a frame(id, features) of a matrix. The matrix is broadcast, and each task takes its rows from it."""
    shared = spark.sparkContext.broadcast(matrix)
    parts = _parts(matrix)

    def rows(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for part in batch["id"].to_pylist():
                yield _part(shared.value, part)

    return Mapped(spark.range(0, parts, 1, parts), rows, FACTORS_SCHEMA).frame


def batches_of(matrix: FactorMatrix) -> Iterator[pa.RecordBatch]:
    """A matrix as record batches of FACTORS_SCHEMA."""
    return (_part(matrix, part) for part in range(_parts(matrix)))


def _parts(matrix: FactorMatrix) -> int:
    return max(1, -(-len(matrix.ids) // FRAME_ROWS))


def _part(matrix: FactorMatrix, part: int) -> pa.RecordBatch:
    rows = slice(part * FRAME_ROWS, (part + 1) * FRAME_ROWS)
    return as_batch(matrix.ids[rows], matrix.rows[rows])


def as_batch(ids: Ids, rows: Floats) -> pa.RecordBatch:
    """Factors as a record batch of FACTORS_SCHEMA."""
    ends = np.arange(len(ids) + 1, dtype=np.int32) * np.int32(rows.shape[1])
    features = pa.ListArray.from_arrays(pa.array(ends), pa.array(rows.ravel(), pa.float32()))
    return pa.RecordBatch.from_arrays([pa.array(ids, pa.int32()), features], names=["id", "features"])


def with_users(factors: Factors, outdated: DataFrame, replacements: DataFrame) -> Factors:
    """Remove the factors of the outdated users(userId), if they have any, and add replacements(id, features)."""
    unchanged = factors.users.join(outdated.selectExpr("userId AS id"), on="id", how="left_anti")
    return replace(factors, users=unchanged.unionByName(replacements), matrices=None, user_files=None)


def with_prediction(pairs: DataFrame, factors: Factors, column: str) -> DataFrame:
    """Add `column` to pairs(userId, movieId, ...): the product of the user's and the movie's factors, a float.

    It is NaN where the user or the movie has no factors. The pairs are packed and shuffled by user; the movies' factors
    are broadcast.
    """
    movies = pairs.sparkSession.sparkContext.broadcast(factors.movie_matrix())
    rank = factors.rank

    def predicted(part: UserPartition) -> Iterator[pa.RecordBatch]:
        users = in_order(part.users["userId"], part.users["features"], rank)
        for batch in part.rows.combine_chunks().to_batches(max_chunksize=BATCH_PAIRS):
            products = _products(batch, users, movies.value)
            yield pa.RecordBatch.from_arrays([*batch.columns, products], names=[*batch.schema.names, column])

    schema = to_arrow_schema(pairs.schema).append(pa.field(column, pa.float32()))
    return together_by_user(pairs.sparkSession, factors.user_rows, pairs).map(predicted, schema)


def _products(pairs: pa.RecordBatch, users: FactorMatrix, movies: FactorMatrix) -> pa.Array:
    of_user, has_user = found_among(pairs["userId"].to_numpy(), users.ids)
    of_movie, has_movie = found_among(pairs["movieId"].to_numpy(), movies.ids)
    is_known = has_user & has_movie
    products = np.full(len(of_user), np.nan, dtype=np.float32)
    products[is_known] = np.einsum("ij,ij->i", users.rows[of_user[is_known]], movies.rows[of_movie[is_known]])
    return pa.array(products, pa.float32(), from_pandas=False)
