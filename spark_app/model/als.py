"""The two factorisations of the product, by alternating least squares (ALS).

Explicit ALS predicts ratings. It ranks badly, because which movies people choose to rate says more about their taste
than the stars they give. Implicit ALS (Y. Hu, Y. Koren, C. Volinsky: Collaborative Filtering for Implicit Feedback
Datasets, ICDM 2008) fits that choice, and ranks. Our own `solver` solves both; MLlib does so where the factors are too
large to be broadcast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import numpy as np
from pyspark.sql import DataFrame

from spark_app.model import mllib, solver
from spark_app.model.factors import Factors, as_factors, as_solution
from spark_app.model.half_sweep import Preference, Problem, Ridge, SquaredError
from spark_app.model.rating_blocks import RatingBlocks
from spark_app.platform.errors import InputError
from spark_app.platform.log import logger
from spark_app.platform.progress import HalfSweeps
from spark_app.platform.settings import ExplicitAls, ImplicitAls, Train

FLOAT_BYTES = np.dtype(np.float32).itemsize

Als = TypeVar("Als", ExplicitAls, ImplicitAls)


@dataclass(frozen=True)
class TrainingSet:
    """The ratings(userId, movieId, rating) that models are fitted to, and the same ratings packed into blocks."""

    ratings: DataFrame
    blocks: RatingBlocks


def explicit_problem(als: ExplicitAls, mean: float) -> Problem:
    """The problem that explicit ALS solves. With `als.biases`, biases are offsets from `mean`, that of all ratings."""
    return Problem(SquaredError(), Ridge(als.reg, als.reg_power), mean if als.biases else None)


def implicit_problem(als: ImplicitAls) -> Problem:
    """The problem that implicit ALS solves."""
    loss = Preference(als.alpha, als.neutral, als.confidence == "log")
    return Problem(loss, Ridge(als.reg, als.reg_power))


@dataclass(frozen=True)
class Fit(Generic[Als]):
    """Factors, and the settings that the solver used: MLlib supports no biases and only reg_power 1."""

    factors: Factors
    als: Als


def fit_explicit(
    training: TrainingSet, als: ExplicitAls, train: Train, mean: float, start: Factors | None = None
) -> Fit[ExplicitAls]:
    """Fit explicit ALS, starting from random factors or from `start`.

    With `als.biases` the factors have two more columns for the biases. MLlib supports neither biases nor a reg_power
    other than 1: it fits without biases, with the regularisation of power 1 that is as strong in total.
    """
    solver_name = solver_for(training.blocks, als.rank, train)
    if solver_name == "mllib":
        als = als.model_copy(update={"biases": False})
        als = als.model_copy(update=_of_power_1("explicit", als, explicit_problem(als, 0.0), training))
    factors = _fit("explicit", solver_name, training, explicit_problem(als, mean), als, train, start)
    return Fit(factors, als)


def fit_implicit(
    training: TrainingSet, als: ImplicitAls, train: Train, start: Factors | None = None
) -> Fit[ImplicitAls]:
    """Fit implicit ALS, starting from random factors or from `start`.

    A rating above `als.neutral` is a like, a rating below it a dislike. The confidence grows with the distance from
    `als.neutral`. Users who like nothing and movies that nobody likes get no factors. MLlib supports only reg_power 1:
    it fits with the regularisation of power 1 that is as strong in total. Raises InputError if nobody likes anything.
    """
    problem = implicit_problem(als)
    if not solver.counts_of(training.blocks.movies, problem.loss).any():
        raise InputError(f"no rating is above implicit_als.neutral={als.neutral:g}: lower implicit_als.neutral")
    solver_name = solver_for(training.blocks, als.rank, train)
    if solver_name == "mllib":
        als = als.model_copy(update=_of_power_1("implicit", als, problem, training))
    factors = _fit("implicit", solver_name, training, implicit_problem(als), als, train, start)
    return Fit(factors, als)


def _of_power_1(kind: str, als: ExplicitAls | ImplicitAls, problem: Problem, training: TrainingSet) -> dict[str, float]:
    """The settings `reg` and `reg_power` to update: power 1, and a `reg` that regularises as strongly in total."""
    if als.reg_power == 1:
        return {}
    return {"reg": mllib.equal_reg(kind, problem, training.blocks), "reg_power": 1.0}


def _fit(
    kind: str,
    solver_name: Literal["own", "mllib"],
    training: TrainingSet,
    problem: Problem,
    als: ExplicitAls | ImplicitAls,
    train: Train,
    start: Factors | None,
) -> Factors:
    """Fit with the named solver. Our own makes at most `train.refit_sweeps` sweeps if it starts from other factors."""
    if solver_name == "mllib":
        return mllib.fit(kind, training.ratings, training.blocks, problem, als, train)
    sweeps = als.iterations if start is None else min(als.iterations, train.refit_sweeps)
    logger.info("fitting %s ALS: rank %d, at most %d sweeps", kind, als.rank, sweeps)
    options = solver.Options(als.rank, sweeps, train.seed, tolerance=train.tolerance)
    start_solution = None if start is None else as_solution(start, problem)
    progress = HalfSweeps(f"fitting {kind} ALS", 2 * sweeps)
    solution = solver.fit(training.blocks, problem, options, start_solution, progress)
    return as_factors(solution, problem, training.ratings.sparkSession)


def solver_for(blocks: RatingBlocks, rank: int, train: Train) -> Literal["own", "mllib"]:
    """Choose the solver for factors of this rank.

    With `train.solver` "auto" this is our own solver, unless the factors of users and movies together are larger than
    `train.broadcast_bytes`.
    """
    if train.solver != "auto":
        return train.solver
    users, movies = len(blocks.users.ids), len(blocks.movies.ids)
    factor_bytes = (users + movies) * rank * FLOAT_BYTES
    if factor_bytes <= train.broadcast_bytes:
        return "own"
    logger.info(
        "fitting with MLlib: factors of %s users and %s movies take %s bytes, more than train.broadcast_bytes=%s",
        *(f"{number:,}" for number in (users, movies, factor_bytes, train.broadcast_bytes)),
    )
    return "mllib"
