"""Alternating least squares on packed ratings: each half sweep is at most one Spark job, computed in numpy.

MLlib shuffles the factors in every half sweep, and forms and solves the equations of each user separately. Here the
factors of the fixed side are broadcast, and each task solves for the users of its block (`half_sweep`). A few steps of
conjugate gradients suffice, because they start from the result of the previous sweep. The solved factors come back to
the driver. So no lineage grows, no checkpoints are needed, and a lost executor costs only its tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from spark_app.model import half_sweep
from spark_app.model.blocks import Shared
from spark_app.model.half_sweep import Block, Bools, Doubles, Floats, Ints, Loss, Places, Problem
from spark_app.model.matrices import Ids
from spark_app.model.rating_blocks import RatingBlocks, Side

CG_STEPS = 3
"""Steps of conjugate gradients in a half sweep."""

LAST_STEPS = 8
"""Steps of conjugate gradients in the last half sweep of a fit."""

EXACT = 0
"""As the number of steps: solve exactly, without conjugate gradients."""


@dataclass(frozen=True)
class Options:
    """How a problem is solved.

    A half sweep makes `steps` steps of conjugate gradients, or solves exactly (EXACT). A fit ends after `sweeps`
    sweeps, or after a sweep that lowers the objective by no more than the share `tolerance`. The last half sweep solves
    for the users, and makes `last_steps` steps: the published user factors then agree with those that fold-in solves
    exactly to about four digits.
    """

    rank: int
    sweeps: int
    seed: int
    steps: int = CG_STEPS
    tolerance: float = 0.0
    last_steps: int = LAST_STEPS


@dataclass(frozen=True)
class SolvedSide:
    """The factors of users or movies: one row per id, ids ascending; zeros for ids without a rating that counts."""

    ids: Ids
    factors: Floats
    has_factors: Bools

    def of(self, ids: Ids) -> Floats:
        """The factors of the given ids (ascending), one row per id; zeros for ids that this side does not have."""
        factors = np.zeros((len(ids), self.factors.shape[1]), dtype=np.float32)
        _, places, own = np.intersect1d(ids, self.ids, assume_unique=True, return_indices=True)
        factors[places] = self.factors[own]
        return factors


@dataclass(frozen=True)
class Solution:
    """The factors of users and of movies, and the value of the objective after each sweep."""

    users: SolvedSide
    movies: SolvedSide
    objective: tuple[float, ...]


HalfSweepDone = Callable[[int, "float | None"], None]
"""Called after each half sweep with the number of half sweeps so far, and the objective (None after the movies)."""


def fit(
    ratings: RatingBlocks,
    problem: Problem,
    options: Options,
    start: Solution | None = None,
    on_half_sweep: HalfSweepDone | None = None,
) -> Solution:
    """Fit factors to packed ratings, starting from random factors or from `start`, which must have the same rank.

    A sweep solves for the movies, then for the users, as in MLlib. The result depends only on the ratings, the problem,
    the options and the start. It does not depend on the order of the rows or the number of cores.
    """
    users = _Side(ratings.users, problem, _first_users(ratings.users.ids, problem, options, start))
    movies = _Side(ratings.movies, problem, _first_movies(ratings.movies.ids, problem, options, start))
    objective: list[float] = []
    report = on_half_sweep or (lambda *_: None)
    for sweep in range(1, options.sweeps + 1):
        penalty = movies.solve(users, options.steps).penalty
        report(2 * sweep - 1, None)
        is_last = sweep == options.sweeps
        objective.append(penalty + users.solve(movies, options.last_steps if is_last else options.steps).value)
        report(2 * sweep, objective[-1])
        if not is_last and _has_converged(objective, options.tolerance):
            objective[-1] = penalty + users.solve(movies, options.last_steps).value
            break
    solution = Solution(users.solved(), movies.solved(), tuple(objective))
    users.close()
    movies.close()
    return solution


def objective_with(ratings: RatingBlocks, problem: Problem, movie_ids: Ids, movies: Floats) -> float:
    """The minimum of the objective over all user factors, with these movie factors fixed (movie ids ascending)."""
    solved_movies = SolvedSide(movie_ids, movies, np.ones(len(movie_ids), dtype=bool))
    fixed = _Side(ratings.movies, problem, solved_movies.of(ratings.movies.ids))
    users = _Side(ratings.users, problem, np.zeros((len(ratings.users.ids), movies.shape[1]), dtype=np.float32))
    ridges = problem.ridge.of(fixed.counts)
    penalty = float(ridges @ np.einsum("ij,ij->i", fixed.factors, fixed.factors, dtype=np.float64))
    value = users.solve(fixed, EXACT).value
    users.close()
    fixed.close()
    return penalty + value


def counts_of(side: Side, loss: Loss) -> Ints:
    """The number of ratings that count (`Loss`) for each id, ids ascending."""
    counts = np.zeros(len(side.ids), dtype=np.int64)
    for own, of_block in side.blocks.each(lambda block: (block.own, half_sweep.counted(block, loss))):
        counts[own] = of_block
    return counts


def _has_converged(objective: list[float], tolerance: float) -> bool:
    return len(objective) > 1 and objective[-2] - objective[-1] <= tolerance * abs(objective[-2])


def _first_users(ids: Ids, problem: Problem, options: Options, start: Solution | None) -> Floats:
    """The user factors before the first sweep: those of `start`, or random ones of length 1, as in MLlib."""
    if start is not None:
        return start.users.of(ids)
    return random_factors(len(ids), problem, options)


def random_factors(count: int, problem: Problem, options: Options) -> Floats:
    """`count` rows of random factors of length 1; biases are 0."""
    random = np.random.default_rng(options.seed).standard_normal((count, options.rank), dtype=np.float32)
    random /= np.sqrt(np.einsum("ij,ij->i", random, random))[:, None]
    return np.pad(random, ((0, 0), (0, problem.extra_columns)))


def _first_movies(ids: Ids, problem: Problem, options: Options, start: Solution | None) -> Floats:
    """The movie factors before the first sweep: those of `start`, or zeros, since the movies are solved first."""
    if start is not None:
        return start.movies.of(ids)
    return np.zeros((len(ids), options.rank + problem.extra_columns), dtype=np.float32)


@dataclass(frozen=True)
class _Sums:
    """The objective and its penalty, summed over the blocks of a half sweep in their order."""

    value: float
    penalty: float


class _Side:
    """One side of a fit: its factors, on the driver and broadcast, and their Y'Y if the loss is over all pairs."""

    def __init__(self, ratings: Side, problem: Problem, factors: Floats) -> None:
        self.ratings = ratings
        self.problem = problem
        self.counts = counts_of(ratings, problem.loss)
        self._gram: Doubles | None = None
        self._share(np.where(self.counts[:, None] > 0, factors, np.float32(0)))

    def solve(self, other: _Side, steps: int) -> _Sums:
        """Make a half sweep: solve for the factors of this side, with those of `other` fixed."""
        task = _HalfSweep(self.problem, steps, self.shared, other.shared, other.gram())
        parts = self.ratings.blocks.each(task)
        factors = np.zeros_like(self.factors)
        for part in parts:
            factors[part.own] = part.solved.factors
        self.shared.destroy()
        self._share(factors)
        grams = [part.gram for part in parts if part.gram is not None]
        self._gram = np.sum(grams, axis=0) if grams else None
        return _Sums(sum(part.solved.objective for part in parts), sum(part.solved.penalty for part in parts))

    def gram(self) -> Doubles | None:
        """Y'Y of the factors if the loss is over all pairs, else None. A job computes it unless a half sweep has."""
        if self._gram is None and self.problem.loss.over_all_pairs:
            shared = self.shared
            grams = self.ratings.blocks.each(lambda block: half_sweep.gram_of(shared.value[block.own]))
            self._gram = np.sum(grams, axis=0)
        return self._gram

    def solved(self) -> SolvedSide:
        """The current factors."""
        return SolvedSide(self.ratings.ids, self.factors, self.counts > 0)

    def close(self) -> None:
        """Free what was broadcast."""
        self.shared.destroy()

    def _share(self, factors: Floats) -> None:
        self.factors = factors
        self.shared: Shared[Floats] = self.ratings.blocks.share(half_sweep.with_zero_row(factors))


@dataclass(frozen=True)
class _Part:
    """The result of a half sweep for one block. `gram` is its part of Y'Y, None if the loss is not over all pairs."""

    own: Places
    solved: half_sweep.SolvedBlock
    gram: Doubles | None


@dataclass(frozen=True)
class _HalfSweep:
    """Solves for one block, inside a task. `gram` is Y'Y of the fixed side."""

    problem: Problem
    steps: int
    start: Shared[Floats]
    fixed: Shared[Floats]
    gram: Doubles | None

    def __call__(self, block: Block) -> _Part:
        start = self.start.value[block.own]
        solved = half_sweep.solve(block, self.fixed.value, self.gram, start, self.problem, self.steps)
        gram = half_sweep.gram_of(solved.factors) if self.problem.loss.over_all_pairs else None
        return _Part(block.own, solved, gram)
