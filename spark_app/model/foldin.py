"""Fold-in: compute factors for users whose ratings the fit has not seen, by the half sweep that ALS would make.

With the movies' factors fixed, each user is a separate small least squares problem. So users and ratings that came
after a fit can be served without another fit. Fold-in solves the problem exactly; a fit's last half sweep solves it
almost exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_app.model import half_sweep
from spark_app.model.als import explicit_problem, implicit_problem
from spark_app.model.biases import BiasModel, user_biases
from spark_app.model.factors import (
    FACTORS_SCHEMA,
    Factors,
    as_batch,
    collected,
    with_biases,
    without_biases,
)
from spark_app.model.half_sweep import Block, Problem, with_zero_row
from spark_app.model.matrices import FactorMatrix, found_among
from spark_app.model.solver import EXACT
from spark_app.platform.arrow_files import Mapped
from spark_app.platform.settings import Biases, ExplicitAls, ImplicitAls

SAME_BIAS = 1e-7
"""Largest difference between two biases of a user that comes only from adding the same ratings in another order."""


def outdated_users(ratings: DataFrame, biases: BiasModel, bias_settings: Biases, *, changed: bool) -> DataFrame:
    """The users(userId) in ratings(userId, movieId, rating) whom the fit has not seen.

    With `changed`, also the users whose ratings have changed since the fit: their number of ratings or their bias is
    different now. Only ratings of movies that the fit knows are considered. Takes the biases of the fit and their
    settings.
    """
    fitted = biases.users.select(
        "userId", F.col("rating_count").alias("fitted_count"), F.col("user_bias").alias("fitted_bias")
    )
    current = user_biases(ratings, biases, bias_settings).join(fitted, on="userId", how="left")
    is_outdated = F.col("fitted_count").isNull()
    if changed:
        has_other_count = F.col("rating_count") != F.col("fitted_count")
        has_other_bias = F.abs(F.col("user_bias") - F.col("fitted_bias")) > F.lit(SAME_BIAS)
        is_outdated = is_outdated | has_other_count | has_other_bias
    return current.filter(is_outdated).select("userId")


def fold_in_implicit(ratings: DataFrame, movies: DataFrame, als: ImplicitAls) -> DataFrame:
    """The factors(id, features) of implicit ALS for the users in ratings(userId, movieId, rating).

    Takes the fixed factors of the movies(id, features), which are collected to the driver, and the settings of their
    fit. Users who like no movie that has factors get no factors, as in a fit.
    """
    return _solved(ratings, Fixed.of(collected(movies, als.rank), implicit_problem(als)))


def fold_in_explicit(ratings: DataFrame, fitted: Factors, als: ExplicitAls, mean: float) -> DataFrame:
    """The factors(id, features) of explicit ALS for the users in ratings(userId, movieId, rating).

    Takes the factors of the fit, its settings, and the mean of its ratings. Users who have rated no movie that has
    factors get no factors.
    """
    return _solved(ratings, fixed_explicit(collected(fitted.movies, fitted.rank), als, mean))


@dataclass(frozen=True)
class Fixed:
    """The factors of movies against which users are solved, the problem, and Y'Y if its loss is over all pairs."""

    movies: FactorMatrix
    gram: half_sweep.Doubles | None
    problem: Problem

    @classmethod
    def of(cls, movies: FactorMatrix, problem: Problem) -> Fixed:
        """The factors with what the problem needs of them."""
        return cls(movies, half_sweep.gram_of(movies.rows) if problem.loss.over_all_pairs else None, problem)


def fixed_explicit(movies: FactorMatrix, als: ExplicitAls, mean: float) -> Fixed:
    """The factors of explicit ALS, as `Factors` has them (with or without biases), for `solve_users`."""
    has_biases = movies.rows.shape[1] > als.rank
    if has_biases:
        movies = replace(movies, rows=without_biases(movies.rows, None))
    return Fixed.of(movies, explicit_problem(als.model_copy(update={"biases": has_biases}), mean))


def _solved(ratings: DataFrame, fixed: Fixed) -> DataFrame:
    """Solve for the users in ratings(userId, movieId, rating), one partition at a time after one shuffle by user."""
    shared = ratings.sparkSession.sparkContext.broadcast(fixed)

    def solve_partition(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        tables = [batch for batch in batches if batch.num_rows]
        if tables:
            solved = solve_users(pa.Table.from_batches(tables), shared.value)
            yield as_batch(solved.ids, solved.rows)

    rows = ratings.select("userId", "movieId", F.col("rating").cast("float")).repartition("userId")
    return Mapped(rows, solve_partition, FACTORS_SCHEMA).frame


def solve_users(ratings: pa.Table, fixed: Fixed) -> FactorMatrix:
    """The factors of the users in ratings(userId INT, movieId INT, rating FLOAT), exactly, without Spark.

    Users without a rating that counts get none. With biases, the factors have the two columns of `with_biases`.
    """
    problem = fixed.problem
    users, movies, values = (ratings[name].to_numpy() for name in ("userId", "movieId", "rating"))
    places, has_factors = found_among(movies, fixed.movies.ids)
    users, places, values = users[has_factors], places[has_factors], values[has_factors]
    order = np.lexsort((places, users))
    user_ids, starts = np.unique(users[order], return_index=True)
    own = np.arange(len(user_ids), dtype=np.int32)
    block = Block(own, np.append(starts, len(order)), places[order].astype(np.int32), values[order])
    start = np.zeros((len(user_ids), fixed.movies.rows.shape[1]), dtype=np.float32)
    factors = half_sweep.solve(block, with_zero_row(fixed.movies.rows), fixed.gram, start, problem, EXACT).factors
    if problem.mean is not None:
        factors = with_biases(factors, problem.mean)
    is_solved = half_sweep.counted(block, problem.loss) > 0
    return FactorMatrix(user_ids[is_solved].astype(np.int32), factors[is_solved])
