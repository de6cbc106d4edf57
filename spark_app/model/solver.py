"""Alternating least squares on packed ratings: half sweeps in numpy, each a Spark job of its own.

MLlib shuffles the factors in every half sweep, and forms and solves the equations of each user one by one. Here the
factors of the side that is held are broadcast, and each task solves for the users of its block (`half_sweep`), by a few
steps of conjugate gradients from where the sweep before has left them. The solved factors come back to the driver. No
lineage grows, so there are no checkpoints, and an executor that is lost costs its tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pyspark import Broadcast

from spark_app.model import half_sweep
from spark_app.model.half_sweep import Block, Bools, Doubles, Floats, Ints, Loss, Places, Problem
from spark_app.model.rating_blocks import Ids, RatingBlocks, Side

CG_STEPS = 3
"""Steps of conjugate gradients in a half sweep."""

LAST_STEPS = 8
"""The same in the last half sweep of all."""

EXACT = 0
"""In the place of a number of steps: solve exactly."""


@dataclass(frozen=True)
class Options:
    """How a problem is solved.

    `steps` are those of conjugate gradients in a half sweep; EXACT takes none. It ends after `sweeps`, or after one
    that has lowered the objective by no more than `tolerance` of it. The last half sweep, that of the users, takes
    `last_steps`: what is published of them, and what fold-in solves exactly, then agree to about four digits.
    """

    rank: int
    sweeps: int
    seed: int
    steps: int = CG_STEPS
    tolerance: float = 0.0
    last_steps: int = LAST_STEPS


@dataclass(frozen=True)
class SolvedSide:
    """The factors of one side, a row an id, ids ascending; zeros where no rating of an id counts."""

    ids: Ids
    factors: Floats
    has_factors: Bools

    def of(self, ids: Ids) -> Floats:
        """The factors of other ids, ascending; zeros where there are none."""
        found = np.zeros((len(ids), self.factors.shape[1]), dtype=np.float32)
        _, places, own = np.intersect1d(ids, self.ids, assume_unique=True, return_indices=True)
        found[places] = self.factors[own]
        return found


@dataclass(frozen=True)
class Solution:
    """The factors of users and of movies, and the value of the objective after each sweep."""

    users: SolvedSide
    movies: SolvedSide
    objective: tuple[float, ...]


HalfSweepDone = Callable[[int, "float | None"], None]
"""Is told after each half sweep how many there have been, and after those of the users the objective."""


def fit(
    ratings: RatingBlocks,
    problem: Problem,
    options: Options,
    start: Solution | None = None,
    on_half_sweep: HalfSweepDone | None = None,
) -> Solution:
    """Fit factors to packed ratings, from random ones or from those of another fit of the same rank.

    A half sweep solves for the movies, the next for the users, as in MLlib. The result depends on the ratings and the
    options alone: neither on the order of the rows nor on the number of cores.
    """
    users = _Side(ratings.users, problem, _first_users(ratings.users.ids, problem, options, start))
    movies = _Side(ratings.movies, problem, _first_movies(ratings.movies.ids, problem, options, start))
    objective: list[float] = []
    told = on_half_sweep or (lambda *_: None)
    for sweep in range(1, options.sweeps + 1):
        penalty = movies.solve(users, options.steps).penalty
        told(2 * sweep - 1, None)
        is_last = sweep == options.sweeps
        objective.append(penalty + users.solve(movies, options.last_steps if is_last else options.steps).value)
        told(2 * sweep, objective[-1])
        if not is_last and _has_converged(objective, options.tolerance):
            objective[-1] = penalty + users.solve(movies, options.last_steps).value
            break
    solution = Solution(users.solved(), movies.solved(), tuple(objective))
    users.close()
    movies.close()
    return solution


def objective_with(ratings: RatingBlocks, problem: Problem, movie_ids: Ids, movies: Floats) -> float:
    """The least objective that users can have with these factors of the movies, ids ascending."""
    found = SolvedSide(movie_ids, movies, np.ones(len(movie_ids), dtype=bool))
    held = _Side(ratings.movies, problem, found.of(ratings.movies.ids))
    users = _Side(ratings.users, problem, np.zeros((len(ratings.users.ids), movies.shape[1]), dtype=np.float32))
    ridges = problem.ridge.of(held.counts)
    penalty = float(ridges @ np.einsum("ij,ij->i", held.factors, held.factors, dtype=np.float64))
    value = users.solve(held, EXACT).value
    users.close()
    held.close()
    return penalty + value


def counts_of(side: Side, loss: Loss) -> Ints:
    """How many ratings of each id count, ids ascending."""
    counts = np.zeros(len(side.ids), dtype=np.int64)
    for own, of_block in side.blocks.map(lambda block: (block.own, half_sweep.counted(block, loss))).collect():
        counts[own] = of_block
    return counts


def _has_converged(objective: list[float], tolerance: float) -> bool:
    return len(objective) > 1 and objective[-2] - objective[-1] <= tolerance * abs(objective[-2])


def _first_users(ids: Ids, problem: Problem, options: Options, start: Solution | None) -> Floats:
    """The users' factors before the first sweep: those of another fit, or random ones of length 1, as in MLlib."""
    if start is not None:
        return start.users.of(ids)
    return random_factors(len(ids), problem, options)


def random_factors(count: int, problem: Problem, options: Options) -> Floats:
    """Random factors of length 1, a row each; biases are 0."""
    random = np.random.default_rng(options.seed).standard_normal((count, options.rank), dtype=np.float32)
    random /= np.sqrt(np.einsum("ij,ij->i", random, random))[:, None]
    return np.pad(random, ((0, 0), (0, problem.extra_columns)))


def _first_movies(ids: Ids, problem: Problem, options: Options, start: Solution | None) -> Floats:
    """The same of the movies, which are solved first: without another fit they are zeros."""
    if start is not None:
        return start.movies.of(ids)
    return np.zeros((len(ids), options.rank + problem.extra_columns), dtype=np.float32)


@dataclass(frozen=True)
class _Sums:
    """What a half sweep adds up over all blocks, in their order."""

    value: float
    penalty: float


class _Side:
    """One side of a fit: its factors, on the driver and broadcast, and their Y'Y where the loss is over all pairs."""

    def __init__(self, ratings: Side, problem: Problem, factors: Floats) -> None:
        self.ratings = ratings
        self.problem = problem
        self.counts = counts_of(ratings, problem.loss)
        self._gram: Doubles | None = None
        self._hold(np.where(self.counts[:, None] > 0, factors, np.float32(0)))

    def solve(self, other: _Side, steps: int) -> _Sums:
        """A half sweep: the factors of this side, with those of the other held."""
        task = _HalfSweep(self.problem, steps, self.shared, other.shared, other.gram())
        parts = self.ratings.blocks.map(task).collect()
        factors = np.zeros_like(self.factors)
        for part in parts:
            factors[part.own] = part.solved.factors
        self.shared.destroy()
        self._hold(factors)
        grams = [part.gram for part in parts if part.gram is not None]
        self._gram = np.sum(grams, axis=0) if grams else None
        return _Sums(sum(part.solved.objective for part in parts), sum(part.solved.penalty for part in parts))

    def gram(self) -> Doubles | None:
        """Y'Y of the factors, where the loss is over all pairs. Half sweeps tell it, before the first a job does."""
        if self._gram is None and self.problem.loss.over_all_pairs:
            shared = self.shared
            grams = self.ratings.blocks.map(lambda block: half_sweep.gram_of(shared.value[block.own])).collect()
            self._gram = np.sum(grams, axis=0)
        return self._gram

    def solved(self) -> SolvedSide:
        """The factors as they are now."""
        return SolvedSide(self.ratings.ids, self.factors, self.counts > 0)

    def close(self) -> None:
        """Free what was broadcast."""
        self.shared.destroy()

    def _hold(self, factors: Floats) -> None:
        self.factors = factors
        self.shared: Broadcast[Floats] = self.ratings.blocks.context.broadcast(half_sweep.with_zero_row(factors))


@dataclass(frozen=True)
class _Part:
    """What a half sweep has found for one block; `gram` is its part of Y'Y, None where nobody asks for it."""

    own: Places
    solved: half_sweep.SolvedBlock
    gram: Doubles | None


@dataclass(frozen=True)
class _HalfSweep:
    """Solves for one block, in a task."""

    problem: Problem
    steps: int
    start: Broadcast[Floats]
    held: Broadcast[Floats]
    gram: Doubles | None

    def __call__(self, block: Block) -> _Part:
        start = self.start.value[block.own]
        solved = half_sweep.solve(block, self.held.value, self.gram, start, self.problem, self.steps)
        gram = half_sweep.gram_of(solved.factors) if self.problem.loss.over_all_pairs else None
        return _Part(block.own, solved, gram)
