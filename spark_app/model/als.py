"""The two factorisations of the product, by alternating least squares.

One predicts ratings, one ranks. Explicit ALS fits the ratings that were given, and ranks badly, because which movies
people choose to rate says more about their taste than the stars do. Implicit ALS (Y. Hu, Y. Koren, C. Volinsky:
Collaborative Filtering for Implicit Feedback Datasets, ICDM 2008) fits that choice. Both are solved by `solver`, or by
MLlib where their factors are too large to be broadcast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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


@dataclass(frozen=True)
class TrainingSet:
    """What models are fitted to: ratings(userId, movieId, rating), and the same packed."""

    ratings: DataFrame
    blocks: RatingBlocks


def explicit_problem(als: ExplicitAls, mean: float) -> Problem:
    """What explicit ALS minimises; with biases they are counted from the `mean` of all ratings."""
    return Problem(SquaredError(), Ridge(als.reg, als.reg_power), mean if als.biases else None)


def implicit_problem(als: ImplicitAls) -> Problem:
    """What implicit ALS minimises."""
    loss = Preference(als.alpha, als.neutral, als.confidence == "log")
    return Problem(loss, Ridge(als.reg, als.reg_power))


@dataclass(frozen=True)
class ExplicitFit:
    """Factors, and the settings that they were fitted with, as far as the solver can follow them."""

    factors: Factors
    als: ExplicitAls


@dataclass(frozen=True)
class ImplicitFit:
    """The same of implicit ALS."""

    factors: Factors
    als: ImplicitAls


def fit_explicit(
    training: TrainingSet, als: ExplicitAls, train: Train, mean: float, start: Factors | None = None
) -> ExplicitFit:
    """Fit the ratings, from random factors or from those of another fit.

    With `als.biases` two columns more hold the biases, unless MLlib fits: it knows no biases, and no power of
    regularisation but 1.
    """
    solver_name = solver_for(training.blocks, als.rank, train)
    if solver_name == "mllib":
        als = als.model_copy(update={"biases": False})
        als = als.model_copy(update=_of_power_1("explicit", als, explicit_problem(als, 0.0), training))
    factors = _fit("explicit", solver_name, training, explicit_problem(als, mean), als, train, start)
    return ExplicitFit(factors, als)


def fit_implicit(training: TrainingSet, als: ImplicitAls, train: Train, start: Factors | None = None) -> ImplicitFit:
    """Fit preferences: a rating above `neutral` is a yes, one below it a no, more confident the further away.

    Users who like nothing, and movies that nobody likes, get no factors: regularisation grows with likes, so theirs
    would be zero. MLlib knows no power of regularisation but 1. Raises InputError where nobody likes anything.
    """
    problem = implicit_problem(als)
    if not solver.counts_of(training.blocks.movies, problem.loss).any():
        raise InputError(f"no rating is above implicit_als.neutral={als.neutral:g}: there is nothing to learn from")
    solver_name = solver_for(training.blocks, als.rank, train)
    if solver_name == "mllib":
        als = als.model_copy(update=_of_power_1("implicit", als, problem, training))
    factors = _fit("implicit", solver_name, training, implicit_problem(als), als, train, start)
    return ImplicitFit(factors, als)


def _of_power_1(kind: str, als: ExplicitAls | ImplicitAls, problem: Problem, training: TrainingSet) -> dict[str, float]:
    """The regularisation of power 1 that is as strong in all."""
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
    """Fit by a solver; ours makes `train.refit_sweeps` only where it starts from other factors."""
    if solver_name == "mllib":
        return mllib.fit(kind, training.ratings, training.blocks, problem, als, train)
    sweeps = als.iterations if start is None else min(als.iterations, train.refit_sweeps)
    logger.info("fitting %s ALS: rank %d, at most %d sweeps", kind, als.rank, sweeps)
    options = solver.Options(als.rank, sweeps, train.seed, tolerance=train.tolerance)
    known = None if start is None else as_solution(start, problem)
    progress = HalfSweeps(f"fitting {kind} ALS", 2 * sweeps)
    solution = solver.fit(training.blocks, problem, options, known, progress)
    return as_factors(solution, problem, training.ratings.sparkSession)


def solver_for(blocks: RatingBlocks, rank: int, train: Train) -> Literal["own", "mllib"]:
    """Which solver fits factors of this rank: ours, where those of both sides may be broadcast."""
    if train.solver != "auto":
        return train.solver
    users, movies = len(blocks.users.ids), len(blocks.movies.ids)
    size = (users + movies) * rank * FLOAT_BYTES
    if size <= train.broadcast_bytes:
        return "own"
    logger.info(
        "MLlib fits: the factors of %s users and %s movies are %s bytes, more than train.broadcast_bytes=%s",
        *(f"{number:,}" for number in (users, movies, size, train.broadcast_bytes)),
    )
    return "mllib"
