"""Fold-in: factors for users whose ratings the fit has not seen, by the half sweep that ALS would give them.

With the movies' factors held fixed each user is a small least squares problem of their own, so what came after a fit
can be served without another one. MLlib's fit ends with this very step for all its users.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.ml.recommendation import ALSModel
from pyspark.ml.wrapper import JavaWrapper
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_app.model import normal_equations
from spark_app.model.als import preference
from spark_app.model.biases import BiasModel, user_biases
from spark_app.model.catalogue import Floats, as_matrix, found_among
from spark_app.model.normal_equations import Doubles
from spark_app.platform.generations import to_arrow
from spark_app.platform.settings import Biases, ExplicitAls, ImplicitAls

FACTORS_SCHEMA = "id INT, features ARRAY<FLOAT>"

BLOCK_USERS = 1_000
"""Users in a record batch of factors."""

SAME_BIAS = 1e-7
"""How far two biases of a user may be apart that come from the same ratings, added up in another order."""

Problem = Callable[[Floats, Floats], tuple[Doubles, Doubles]]
"""From the factors of what a user has rated, and the values, to the matrix and the terms of the normal equations."""


@dataclass(frozen=True)
class _Fixed:
    """The movies that have factors, in the order of movieId."""

    movie_ids: NDArray[np.int32]
    factors: Floats


def outdated_users(ratings: DataFrame, biases: BiasModel, settings: Biases, *, changed: bool) -> DataFrame:
    """The users(userId) in ratings(userId, movieId, rating) whom the fit has not seen, or not as they are now.

    With `changed` these are also users whose ratings of movies that the fit knows are others than they were, as their
    number and the user's bias tell. Takes the models of the fit, and its settings.
    """
    fitted = biases.users.select(
        "userId", F.col("rating_count").alias("fitted_count"), F.col("user_bias").alias("fitted_bias")
    )
    now = user_biases(ratings, biases, settings).join(fitted, on="userId", how="left")
    is_outdated = F.col("fitted_count").isNull()
    if changed:
        has_other_count = F.col("rating_count") != F.col("fitted_count")
        has_other_bias = F.abs(F.col("user_bias") - F.col("fitted_bias")) > F.lit(SAME_BIAS)
        is_outdated = is_outdated | has_other_count | has_other_bias
    return now.filter(is_outdated).select("userId")


def fold_in_implicit(ratings: DataFrame, movie_factors: DataFrame, settings: ImplicitAls) -> DataFrame:
    """The users' factors(id, features) of implicit ALS, for users in ratings(userId, movieId, rating).

    Takes the fixed movie_factors(id, features), which are collected, and the settings of their fit. Users who like no
    movie with factors get none, as in a fit.
    """
    fixed = _collected(movie_factors, settings.rank)
    problem = partial(_implicit_problem, normal_equations.gram(fixed.factors), settings)
    return _solved(ratings.withColumn("rating", preference(settings)), fixed, problem)


def fold_in_explicit(ratings: DataFrame, movie_factors: DataFrame, settings: ExplicitAls) -> DataFrame:
    """The users' factors(id, features) of explicit ALS; takes the same.

    Users who have rated no movie with factors get none.
    """
    return _solved(ratings, _collected(movie_factors, settings.rank), partial(_explicit_problem, settings))


def with_users(model: ALSModel, outdated: DataFrame, factors: DataFrame) -> ALSModel:
    """The model with factors(id, features) in the place of those of the outdated users(userId), if they had any."""
    others = model.userFactors.join(outdated.select(F.col("userId").alias("id")), on="id", how="left_anti")
    users = others.unionByName(factors)
    # MLlib has a constructor for this, but pyspark has no name for it.
    java_model = JavaWrapper._new_java_obj(
        "org.apache.spark.ml.recommendation.ALSModel", model.uid, model.rank, users._jdf, model.itemFactors._jdf
    )
    extended: ALSModel = model._copyValues(ALSModel(java_model))
    return extended


def _implicit_problem(
    gram: Doubles, settings: ImplicitAls, rated: Floats, preferences: Floats
) -> tuple[Doubles, Doubles]:
    return normal_equations.implicit(gram, rated, preferences, settings)


def _explicit_problem(settings: ExplicitAls, rated: Floats, ratings: Floats) -> tuple[Doubles, Doubles]:
    return normal_equations.explicit(rated, ratings, settings)


def _collected(factors: DataFrame, rank: int) -> _Fixed:
    rows = to_arrow(factors.orderBy("id"))
    return _Fixed(rows["id"].to_numpy().astype(np.int32), as_matrix(rows["features"].combine_chunks(), rank))


def _solved(ratings: DataFrame, fixed: _Fixed, problem: Problem) -> DataFrame:
    """Factors(id, features) of the users in ratings(userId, movieId, rating): one shuffle, a partition at a time."""
    shared = ratings.sparkSession.sparkContext.broadcast((fixed, problem))

    def solve_partition(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return _solve_partition(batches, *shared.value)

    # MLlib takes ratings in single precision.
    rows = ratings.select("userId", "movieId", F.col("rating").cast("float")).repartition("userId")
    return rows.mapInArrow(solve_partition, FACTORS_SCHEMA)


def _solve_partition(batches: Iterable[pa.RecordBatch], fixed: _Fixed, problem: Problem) -> Iterator[pa.RecordBatch]:
    """The factors of all users of one partition, a record batch for each block of them."""
    tables = [batch for batch in batches if batch.num_rows]
    if not tables or not len(fixed.movie_ids):
        return
    rows = pa.Table.from_batches(tables)
    users, movies, values = (rows[name].to_numpy() for name in ("userId", "movieId", "rating"))
    places, has_factors = found_among(movies, fixed.movie_ids)
    users, places, values = users[has_factors], places[has_factors], values[has_factors]
    order = np.lexsort((places, users))
    users, places, values = users[order], places[order], values[order]
    user_ids, starts = np.unique(users, return_index=True)
    ends = np.append(starts[1:], len(users))
    for first in range(0, len(user_ids), BLOCK_USERS):
        found: dict[int, Floats] = {}
        for user in range(first, min(first + BLOCK_USERS, len(user_ids))):
            own = slice(starts[user], ends[user])
            matrix, terms = problem(fixed.factors[places[own]], values[own])
            if len(terms):
                found[user_ids[user]] = np.linalg.solve(matrix, terms.sum(axis=0)).astype(np.float32)
        yield _as_batch(found, fixed.factors.shape[1])


def _as_batch(factors: dict[int, Floats], rank: int) -> pa.RecordBatch:
    """Factors by user as a record batch of FACTORS_SCHEMA."""
    values = np.concatenate([np.empty(0, dtype=np.float32), *factors.values()])
    ends = np.arange(len(factors) + 1) * rank
    features = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(values))
    return pa.RecordBatch.from_arrays([pa.array(list(factors), pa.int32()), features], names=["id", "features"])
