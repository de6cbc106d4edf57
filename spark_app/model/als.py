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


def explicit_problem(settings: ExplicitAls, mean: float) -> Problem:
    """What explicit ALS minimises; with biases they are counted from the `mean` of all ratings."""
    return Problem(SquaredError(), Ridge(settings.reg, settings.reg_power), mean if settings.biases else None)


def implicit_problem(settings: ImplicitAls) -> Problem:
    """What implicit ALS minimises."""
    loss = Preference(settings.alpha, settings.neutral, settings.confidence == "log")
    return Problem(loss, Ridge(settings.reg, settings.reg_power))


def fit_explicit(
    training: TrainingSet, settings: ExplicitAls, train: Train, mean: float, start: Factors | None = None
) -> Factors:
    """Fit the ratings, from random factors or from those of another fit.

    With `settings.biases` two columns more hold the biases, unless MLlib fits.
    """
    settings = explicit_as_fitted(training, settings, train)
    return _fit("explicit", training, explicit_problem(settings, mean), settings, train, start)


def fit_implicit(training: TrainingSet, settings: ImplicitAls, train: Train, start: Factors | None = None) -> Factors:
    """Fit preferences: a rating above `neutral` is a yes, one below it a no, more confident the further away.

    Users who like nothing, and movies that nobody likes, get no factors: regularisation grows with likes, so theirs
    would be zero. Raises InputError where nobody likes anything.
    """
    problem = implicit_problem(settings)
    if not solver.counts_of(training.blocks.movies, problem.loss).any():
        raise InputError(
            f"no rating is above implicit_als.neutral={settings.neutral:g}: there is nothing to learn from"
        )
    settings = implicit_as_fitted(training, settings, train)
    return _fit("implicit", training, implicit_problem(settings), settings, train, start)


def explicit_as_fitted(training: TrainingSet, settings: ExplicitAls, train: Train) -> ExplicitAls:
    """The settings that the solver can follow: MLlib knows no biases, and no power of regularisation but 1."""
    if solver_for(training.blocks, settings.rank, train) == "own":
        return settings
    without = settings.model_copy(update={"biases": False})
    return without.model_copy(update=_of_power_1("explicit", without, explicit_problem(without, 0.0), training))


def implicit_as_fitted(training: TrainingSet, settings: ImplicitAls, train: Train) -> ImplicitAls:
    """The same of implicit ALS."""
    if solver_for(training.blocks, settings.rank, train) == "own":
        return settings
    return settings.model_copy(update=_of_power_1("implicit", settings, implicit_problem(settings), training))


def _of_power_1(
    kind: str, settings: ExplicitAls | ImplicitAls, problem: Problem, training: TrainingSet
) -> dict[str, float]:
    """The regularisation of power 1 that is as strong in all."""
    if settings.reg_power == 1:
        return {}
    return {"reg": mllib.equal_reg(kind, problem, training.blocks), "reg_power": 1.0}


def _fit(
    kind: str,
    training: TrainingSet,
    problem: Problem,
    settings: ExplicitAls | ImplicitAls,
    train: Train,
    start: Factors | None,
) -> Factors:
    """Fit by the solver that is wanted; ours needs `train.refit_sweeps` only where it starts from other factors."""
    if solver_for(training.blocks, settings.rank, train) == "mllib":
        return mllib.fit(kind, training.ratings, training.blocks, problem, settings, train)
    sweeps = settings.iterations if start is None else min(settings.iterations, train.refit_sweeps)
    logger.info("fitting %s ALS: rank %d, at most %d sweeps", kind, settings.rank, sweeps)
    options = solver.Options(settings.rank, sweeps, train.seed, tolerance=train.tolerance)
    known = None if start is None else as_solution(start, problem)
    told = HalfSweeps(f"fitting {kind} ALS", 2 * sweeps)
    solution = solver.fit(training.blocks, problem, options, known, told)
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
