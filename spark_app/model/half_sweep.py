"""One half sweep of alternating least squares: the factors of some users, with those of all movies held fixed.

With users and movies exchanged it is the other half. For the factors y_j of the movies that a user has rated, the
user's factors x minimise

    sum over rated j of (w_j (y_j'x)^2 - 2 t_j y_j'x)  +  x'G x  +  reg n^power |x|^2

A `Loss` says what the weights w and the targets t are, which ratings count for n, and whether G is Y'Y of all movies
(preferences: a pair without a rating is a weak no) or nothing (ratings). The power is that of frequency scaling:
S. Rendle, W. Krichene, L. Zhang, Y. Koren: Revisiting the Performance of iALS on Item Recommendation Benchmarks,
RecSys 2022. With power 1 it is ALS-WR, as in MLlib: Y. Zhou, D. Wilkinson, R. Schreiber, R. Pan: Large-scale Parallel
Collaborative Filtering for the Netflix Prize, 2008.

All of this is numpy on what one task holds. Users with about as many ratings are solved together: their movies'
factors are gathered into one padded array (users, ratings, rank), so that a whole group is a few matrix products.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Places = NDArray[np.int32]
Bools = NDArray[np.bool_]

GROUP_FLOATS = 2**18
"""Size of the factors that are gathered at a time, padding included: a megabyte stays in the cache of a core."""

GROUP_USERS = 256
"""Most users solved exactly at a time: each has a matrix of rank x rank."""


@dataclass(frozen=True)
class Block:
    """The ratings of some users, those of each user together.

    `own` says which users these are; `starts[i]` to `starts[i + 1]` are the ratings of the i-th in `others` (movies)
    and `values`. Users and movies are places: row numbers of the matrices of factors.
    """

    own: Places
    starts: Ints
    others: Places
    values: Floats

    @property
    def lengths(self) -> Ints:
        """Ratings of each user."""
        return np.diff(self.starts)

    def sums(self, values: NDArray[np.generic]) -> Doubles:
        """The sum over the ratings of each user."""
        up_to = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
        found: Doubles = up_to[self.starts[1:]] - up_to[self.starts[:-1]]
        return found


@dataclass(frozen=True)
class Terms:
    """What ratings are in the sum above: w and t, what each adds to the objective whatever x is, which count for n."""

    weights: Floats
    targets: Floats
    constants: Doubles
    counted: Bools


class Loss(Protocol):
    """What is minimised."""

    @property
    def over_all_pairs(self) -> bool:
        """Whether pairs without a rating are part of it, which is Y'Y of all movies in each problem."""

    def terms(self, values: Floats) -> Terms:
        """The terms of so many ratings."""


@dataclass(frozen=True)
class SquaredError:
    """The squared error of predicted ratings: w = 1, t = rating, and every rating counts."""

    over_all_pairs: bool = False

    def terms(self, values: Floats) -> Terms:
        """The terms of so many ratings."""
        every = np.ones(len(values), dtype=bool)
        return Terms(np.ones_like(values), values, values.astype(np.float64) ** 2, every)


@dataclass(frozen=True)
class Preference:
    """Preferences held with confidence: r = rating - neutral is a like above 0, a dislike below, and c = alpha |r|.

    Y. Hu, Y. Koren, C. Volinsky: Collaborative Filtering for Implicit Feedback Datasets, ICDM 2008, with dislikes as
    MLlib has them: w = c; t = 1 + c for a like and 0 for a dislike; likes count. With `logarithmic` r is sign(r)
    ln(1 + |r|), as in section 4, equation 6, for epsilon 1.
    """

    alpha: float
    neutral: float = 0.0
    logarithmic: bool = False
    over_all_pairs: bool = True

    def terms(self, values: Floats) -> Terms:
        """The terms of so many ratings."""
        distances = values - np.float32(self.neutral)
        sizes = np.log1p(np.abs(distances)) if self.logarithmic else np.abs(distances)
        confidences = np.float32(self.alpha) * sizes
        is_like = distances > 0
        targets = np.where(is_like, 1 + confidences, np.float32(0))
        return Terms(confidences, targets, targets.astype(np.float64), is_like)


@dataclass(frozen=True)
class Ridge:
    """Regularisation: `reg` times the number of ratings that count, to the `power`."""

    reg: float
    power: float = 1.0

    def of(self, counts: NDArray[np.generic]) -> Doubles:
        """The regularisation of users with so many ratings that count."""
        return self.reg * np.power(counts.astype(np.float64), self.power)


@dataclass(frozen=True)
class Problem:
    """What a fit minimises.

    With a `mean` the last column of the factors is the bias, solved in the same equations: a rating is predicted by the
    product of the other columns, plus both biases, plus the mean. This is for the squared error.
    """

    loss: Loss
    ridge: Ridge
    mean: float | None = None

    @property
    def extra_columns(self) -> int:
        """Columns of the factors beside those of the rank."""
        return int(self.mean is not None)


@dataclass(frozen=True)
class SolvedBlock:
    """The factors of the users of a block, a row each; what they add to the objective, and of it their penalty."""

    factors: Floats
    objective: float
    penalty: float


def with_zero_row(factors: Floats) -> Floats:
    """Factors as `solve` takes those that are held: a row of zeros more, which padding refers to."""
    return np.concatenate([factors, np.zeros((1, factors.shape[1]), dtype=np.float32)])


def gram_of(factors: Floats) -> Doubles:
    """Y'Y of some factors, in double precision."""
    doubles = factors.astype(np.float64)
    product: Doubles = doubles.T @ doubles
    return product


def counted(block: Block, loss: Loss) -> Ints:
    """How many ratings of each user count: those with none get no factors."""
    return block.sums(loss.terms(block.values).counted).astype(np.int64)


def solve(block: Block, held: Floats, gram: Doubles | None, start: Floats, problem: Problem, steps: int) -> SolvedBlock:
    """Solve for the factors of the users of a block.

    Takes the factors of all movies `with_zero_row`, their Y'Y where the loss is over all pairs, and the factors to
    start from, a row a user. `steps` are those of conjugate gradients (G. Takacs, I. Pilaszy, D. Tikk: Applications of
    the Conjugate Gradient Method for Implicit Feedback Collaborative Filtering, RecSys 2011), in single precision; with
    0 the equations are solved exactly, in double precision. Users without a rating that counts get zeros.
    """
    terms = problem.loss.terms(block.values)
    counts = block.sums(terms.counted)
    is_solved, ridges = counts > 0, problem.ridge.of(counts)
    others = np.append(block.others, np.int32(len(held) - 1))
    weights, targets = (np.append(part, np.float32(0)) for part in (terms.weights, terms.targets))
    factors = np.zeros_like(start)
    objective = 0.0 if problem.mean is not None else float(block.sums(terms.constants)[is_solved].sum())
    if gram is not None and steps:
        gram = gram.astype(np.float32)
    for users, rows in _groups(block, is_solved, start.shape[1], most_users=None if steps else GROUP_USERS):
        vectors, to_fit = held[others[rows]], targets[rows]
        if problem.mean is not None:
            is_rating = rows < len(block.others)
            to_fit = np.where(is_rating, to_fit - np.float32(problem.mean) - vectors[:, :, -1], np.float32(0))
            vectors[:, :, -1] = is_rating
            objective += float(np.einsum("ij,ij->", to_fit, to_fit, dtype=np.float64))
        equations = _Equations(vectors, weights[rows], to_fit, gram, ridges[users])
        solved = _conjugate_gradients(equations, start[users], steps) if steps else _exact(equations)
        factors[users], value = solved
        objective += value
    penalty = float(ridges @ np.einsum("ij,ij->i", factors, factors, dtype=np.float64))
    return SolvedBlock(factors, objective, penalty)


def _groups(block: Block, is_solved: Bools, rank: int, most_users: int | None) -> Iterator[tuple[Ints, Places]]:
    """The users to solve in groups, longest first: their rows in the block, and the ratings of each, padded.

    Padding is the number after the last rating.
    """
    lengths, starts, padding = block.lengths, block.starts.astype(np.int32), len(block.others)
    order = np.argsort(-lengths, kind="stable")
    order = order[is_solved[order]]
    first = 0
    while first < len(order):
        longest = int(lengths[order[first]])
        users = order[first : first + max(1, GROUP_FLOATS // (longest * rank))][:most_users]
        first += len(users)
        rows = starts[users, None] + np.arange(longest, dtype=np.int32)
        rows[np.arange(longest) >= lengths[users, None]] = padding
        yield users, rows.astype(np.int32, copy=False)


@dataclass(frozen=True)
class _Equations:
    """The normal equations of a group of users: A x = b with A = sum w y y' + G + ridge I and b = sum t y.

    `vectors` are (users, ratings, rank), `weights` and `targets` (users, ratings), `ridges` (users); G is in the
    precision that they are solved in, and None where it is nothing.
    """

    vectors: Floats
    weights: Floats
    targets: Floats
    gram: NDArray[Any] | None
    ridges: Doubles


def _conjugate_gradients(equations: _Equations, start: Floats, steps: int) -> tuple[Floats, float]:
    """The solution after so many steps from `start`, and the value there of x'A x - 2 b'x."""
    vectors, weights, gram = equations.vectors, equations.weights, equations.gram
    ridges = equations.ridges.astype(np.float32)[:, None]

    def over_ratings(x: Floats) -> Floats:
        return np.asarray(np.matmul(vectors, x[:, :, None])[:, :, 0])

    def over_factors(values: Floats) -> Floats:
        return np.asarray(np.matmul(values[:, None, :], vectors)[:, 0, :])

    def beside(x: Floats) -> Floats:
        return np.asarray(ridges * x if gram is None else x @ gram + ridges * x)

    fitted, aside = over_ratings(start), beside(start)
    weighted = weights * fitted
    value = _sum(weighted - 2 * equations.targets, fitted) + _sum(start, aside)
    solution, residual = start, over_factors(equations.targets - weighted) - aside
    direction, size = residual, _dots(residual, residual)
    for step in range(1, steps + 1):
        fitted, aside = over_ratings(direction), beside(direction)
        weighted = weights * fitted
        length = _ratio(size, _dots(weighted, fitted) + _dots(direction, aside))
        solution = solution + length[:, None] * direction
        value -= _sum(length, size)
        if step < steps:
            residual = residual - length[:, None] * (over_factors(weighted) + aside)
            previous, size = size, _dots(residual, residual)
            direction = residual + _ratio(size, previous)[:, None] * direction
    return solution, value


def _exact(equations: _Equations) -> tuple[Floats, float]:
    """The same, solved by LAPACK in double precision."""
    vectors = equations.vectors.astype(np.float64)
    matrices = normal_matrices(vectors, equations.weights, equations.gram, equations.ridges)
    right = np.matmul(equations.targets[:, None, :].astype(np.float64), vectors)[:, 0, :]
    solution = np.linalg.solve(matrices, right[:, :, None])[:, :, 0]
    return solution.astype(np.float32), -_sum(solution, right)


def normal_matrices(vectors: Doubles, weights: Floats, gram: Doubles | None, ridges: Doubles) -> Doubles:
    """A = sum w y y' + G + ridge I of each user, (users, rank, rank); takes what `_Equations` has."""
    matrices = np.matmul((vectors * weights[:, :, None]).transpose(0, 2, 1), vectors)
    if gram is not None:
        matrices += gram
    diagonal = np.arange(vectors.shape[2])
    matrices[:, diagonal, diagonal] += ridges[:, None]
    return np.asarray(matrices)


def _dots(one: Floats, other: Floats) -> Floats:
    """The products of rows."""
    return np.asarray(np.einsum("ij,ij->i", one, other))


def _sum(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The sum of products, in double precision."""
    return float(np.vdot(one.astype(np.float64), other.astype(np.float64)))


def _ratio(up: Floats, down: Floats) -> Floats:
    """The quotient, 0 where there is nothing to divide by: the solution is reached."""
    is_open = down > 0
    return np.asarray(np.where(is_open, up / np.where(is_open, down, 1), 0), dtype=np.float32)
