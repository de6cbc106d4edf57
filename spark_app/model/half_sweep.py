"""One half sweep of alternating least squares: solve for the factors of some users, with all movie factors fixed.

The other half sweep is the same with users and movies exchanged. With the factors y_j of the movies that a user has
rated, the user's factors x minimise

    sum over rated j of (w_j (y_j'x)^2 - 2 t_j y_j'x)  +  x'G x  +  reg n^power |x|^2

A `Loss` defines the weights w, the targets t, which ratings count for n, and G. For preferences G is Y'Y of all movies,
because a pair without a rating is a weak dislike; for ratings G is 0. The power is that of frequency scaling:
S. Rendle, W. Krichene, L. Zhang, Y. Koren: Revisiting the Performance of iALS on Item Recommendation Benchmarks,
RecSys 2022. With power 1 it is ALS-WR, as in MLlib: Y. Zhou, D. Wilkinson, R. Schreiber, R. Pan: Large-scale Parallel
Collaborative Filtering for the Netflix Prize, 2008.

All of this is numpy, on the data of one task. Users with similar numbers of ratings are solved as a group: the factors
of their movies are gathered into one padded array (users, ratings, rank), so a group needs only a few matrix products.
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
"""Maximum size of the gathered array, padding included. It is a megabyte, which stays in the cache of a core."""

GROUP_USERS = 256
"""Maximum number of users solved exactly together: each needs a matrix of rank x rank."""


@dataclass(frozen=True)
class Block:
    """The ratings of some users, grouped by user.

    `own` are the users. The i-th user has rated the movies `others[starts[i]:starts[i + 1]]`, with the ratings in the
    same slice of `values`. Users and movies are places: row numbers in their matrices of factors.
    """

    own: Places
    starts: Ints
    others: Places
    values: Floats

    @classmethod
    def of_one(cls, others: Ints, values: Floats) -> Block:
        """The ratings of a single user."""
        return cls(np.zeros(1, np.int32), np.array([0, len(others)]), others.astype(np.int32), values)

    @property
    def lengths(self) -> Ints:
        """The number of ratings of each user."""
        return np.diff(self.starts)

    def sums(self, values: NDArray[np.generic]) -> Doubles:
        """Sum `values`, one per rating, over the ratings of each user."""
        up_to = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
        sums: Doubles = up_to[self.starts[1:]] - up_to[self.starts[:-1]]
        return sums


@dataclass(frozen=True)
class Terms:
    """The terms of ratings in the formula above: the weights w, the targets t, and which ratings count for n.

    `constants` is what each rating adds to the objective independently of x.
    """

    weights: Floats
    targets: Floats
    constants: Doubles
    counted: Bools


class Loss(Protocol):
    """A loss function: how ratings become the terms of the objective."""

    @property
    def over_all_pairs(self) -> bool:
        """Whether pairs without a rating are part of the loss: then G is Y'Y of all movies, otherwise 0."""

    def terms(self, values: Floats) -> Terms:
        """The terms of these ratings."""


@dataclass(frozen=True)
class SquaredError:
    """The squared error of predicted ratings: w = 1, t = rating, and every rating counts."""

    over_all_pairs: bool = False

    def terms(self, values: Floats) -> Terms:
        """The terms of these ratings."""
        counted = np.ones(len(values), dtype=bool)
        return Terms(np.ones_like(values), values, values.astype(np.float64) ** 2, counted)


@dataclass(frozen=True)
class Preference:
    """Preferences with confidence: r = rating - neutral is a like above 0 and a dislike below; c = alpha |r|.

    Y. Hu, Y. Koren, C. Volinsky: Collaborative Filtering for Implicit Feedback Datasets, ICDM 2008. Dislikes are
    treated as in MLlib: w = c; t = 1 + c for a like and 0 for a dislike; only likes count for n. With `logarithmic`, r
    is replaced by sign(r) ln(1 + |r|), as in section 4, equation 6, with epsilon 1.
    """

    alpha: float
    neutral: float = 0.0
    logarithmic: bool = False
    over_all_pairs: bool = True

    def terms(self, values: Floats) -> Terms:
        """The terms of these ratings."""
        distances = values - np.float32(self.neutral)
        sizes = np.log1p(np.abs(distances)) if self.logarithmic else np.abs(distances)
        confidences = np.float32(self.alpha) * sizes
        is_like = distances > 0
        targets = np.where(is_like, 1 + confidences, np.float32(0))
        return Terms(confidences, targets, targets.astype(np.float64), is_like)


@dataclass(frozen=True)
class Ridge:
    """Regularisation: reg n^power, where n is the number of ratings of a user that count."""

    reg: float
    power: float = 1.0

    def of(self, counts: NDArray[np.generic]) -> Doubles:
        """The regularisation of users, from the number of ratings that count for each."""
        return self.reg * np.power(counts.astype(np.float64), self.power)


@dataclass(frozen=True)
class Problem:
    """The objective that a fit minimises.

    With a `mean`, the last column of the factors is the bias, solved in the same equations. The predicted rating is
    then the product of the other columns, plus both biases, plus the mean. Use a mean only with the squared error.
    """

    loss: Loss
    ridge: Ridge
    mean: float | None = None

    @property
    def extra_columns(self) -> int:
        """The number of columns of the factors beyond the rank."""
        return int(self.mean is not None)


@dataclass(frozen=True)
class SolvedBlock:
    """The factors of a block, one row per user, with the block's parts of the objective.

    `objective` is the loss plus the regularisation of these users; `penalty` is that regularisation alone.
    """

    factors: Floats
    objective: float
    penalty: float


def with_zero_row(factors: Floats) -> Floats:
    """Append a row of zeros, which padding refers to: the form in which `solve` takes the fixed factors."""
    return np.concatenate([factors, np.zeros((1, factors.shape[1]), dtype=np.float32)])


def gram_of(factors: Floats) -> Doubles:
    """Y'Y of the factors Y, in double precision."""
    doubles = factors.astype(np.float64)
    product: Doubles = doubles.T @ doubles
    return product


def counted(block: Block, loss: Loss) -> Ints:
    """The number of ratings of each user that count for n. Users with 0 get no factors."""
    return block.sums(loss.terms(block.values).counted).astype(np.int64)


def solve(
    block: Block, fixed: Floats, gram: Doubles | None, start: Floats, problem: Problem, steps: int
) -> SolvedBlock:
    """Solve for the factors of the users of a block.

    `fixed` are the factors of all movies, `with_zero_row`; `gram` is their Y'Y if the loss is over all pairs, else
    None; `start` has one row per user. `steps` is the number of steps of conjugate gradients (G. Takacs, I. Pilaszy, D.
    Tikk: Applications of the Conjugate Gradient Method for Implicit Feedback Collaborative Filtering, RecSys 2011), in
    single precision. With 0 steps the equations are solved exactly, in double precision. Users without a rating that
    counts get zeros.
    """
    terms = problem.loss.terms(block.values)
    counts = block.sums(terms.counted)
    is_solved, ridges = counts > 0, problem.ridge.of(counts)
    others = np.append(block.others, np.int32(len(fixed) - 1))
    weights, targets = (np.append(part, np.float32(0)) for part in (terms.weights, terms.targets))
    factors = np.zeros_like(start)
    objective = 0.0 if problem.mean is not None else float(block.sums(terms.constants)[is_solved].sum())
    if gram is not None and steps:
        gram = gram.astype(np.float32)
    for users, rows in groups(block, is_solved, start.shape[1], max_users=None if steps else GROUP_USERS):
        vectors, to_fit = fixed[others[rows]], targets[rows]
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


def groups(block: Block, is_solved: Bools, rank: int, max_users: int | None) -> Iterator[tuple[Ints, Places]]:
    """Group the users to solve, those with most ratings first.

    Yields the rows of the users in the block, and the indices of their ratings (users, ratings). Shorter rows are
    padded with the index after the last rating of the block.
    """
    lengths, starts, padding = block.lengths, block.starts.astype(np.int32), len(block.others)
    order = np.argsort(-lengths, kind="stable")
    order = order[is_solved[order]]
    first = 0
    while first < len(order):
        longest = int(lengths[order[first]])
        users = order[first : first + max(1, GROUP_FLOATS // (longest * rank))][:max_users]
        first += len(users)
        rows = starts[users, None] + np.arange(longest, dtype=np.int32)
        rows[np.arange(longest) >= lengths[users, None]] = padding
        yield users, rows.astype(np.int32, copy=False)


@dataclass(frozen=True)
class _Equations:
    """The normal equations of a group of users: A x = b with A = sum w y y' + G + ridge I and b = sum t y.

    Shapes: `vectors` (users, ratings, rank), `weights` and `targets` (users, ratings), `ridges` (users). `gram` is G in
    the precision of the solution, or None if G is 0.
    """

    vectors: Floats
    weights: Floats
    targets: Floats
    gram: NDArray[Any] | None
    ridges: Doubles


def _conjugate_gradients(equations: _Equations, start: Floats, steps: int) -> tuple[Floats, float]:
    """The solution x after `steps` steps from `start`, and the value of x'A x - 2 b'x at x, summed over users."""
    vectors, weights, gram = equations.vectors, equations.weights, equations.gram
    ridges = equations.ridges.astype(np.float32)[:, None]

    # A x = over_factors(weights * over_ratings(x)) + beyond_ratings(x)
    def over_ratings(x: Floats) -> Floats:
        return np.asarray(np.matmul(vectors, x[:, :, None])[:, :, 0])

    def over_factors(values: Floats) -> Floats:
        return np.asarray(np.matmul(values[:, None, :], vectors)[:, 0, :])

    def beyond_ratings(x: Floats) -> Floats:
        return np.asarray(ridges * x if gram is None else x @ gram + ridges * x)

    fitted, beyond = over_ratings(start), beyond_ratings(start)
    weighted = weights * fitted
    value = _sum(weighted - 2 * equations.targets, fitted) + _sum(start, beyond)
    solution, residual = start, over_factors(equations.targets - weighted) - beyond
    direction, size = residual, _dots(residual, residual)
    for step in range(1, steps + 1):
        fitted, beyond = over_ratings(direction), beyond_ratings(direction)
        weighted = weights * fitted
        length = _ratio(size, _dots(weighted, fitted) + _dots(direction, beyond))
        solution = solution + length[:, None] * direction
        value -= _sum(length, size)
        if step < steps:
            residual = residual - length[:, None] * (over_factors(weighted) + beyond)
            previous, size = size, _dots(residual, residual)
            direction = residual + _ratio(size, previous)[:, None] * direction
    return solution, value


def _exact(equations: _Equations) -> tuple[Floats, float]:
    """The exact solution, by LAPACK in double precision, and the value of x'A x - 2 b'x at it, summed over users."""
    vectors = equations.vectors.astype(np.float64)
    matrices = normal_matrices(vectors, equations.weights, equations.gram, equations.ridges)
    right = np.matmul(equations.targets[:, None, :].astype(np.float64), vectors)[:, 0, :]
    solution = np.linalg.solve(matrices, right[:, :, None])[:, :, 0]
    return solution.astype(np.float32), -_sum(solution, right)


def normal_matrices(vectors: Doubles, weights: Floats, gram: Doubles | None, ridges: Doubles) -> Doubles:
    """A = sum w y y' + G + ridge I of each user, (users, rank, rank). The arguments are those of `_Equations`."""
    # The product of an array and its own transpose takes BLAS half the time of another product.
    vectors = vectors * np.sqrt(weights, dtype=np.float64)[:, :, None]
    matrices = np.matmul(vectors.transpose(0, 2, 1), vectors)
    if gram is not None:
        matrices += gram
    diagonal = np.arange(vectors.shape[2])
    matrices[:, diagonal, diagonal] += ridges[:, None]
    return np.asarray(matrices)


def _dots(left: Floats, right: Floats) -> Floats:
    """The dot product of each row of `left` with the same row of `right`."""
    return np.asarray(np.einsum("ij,ij->i", left, right))


def _sum(left: NDArray[Any], right: NDArray[Any]) -> float:
    """The sum of the products of all elements, in double precision."""
    # A dot product of BLAS adds up in another order for each number of threads.
    return float(np.einsum("i,i->", left.astype(np.float64).ravel(), right.astype(np.float64).ravel()))


def _ratio(numerators: Floats, denominators: Floats) -> Floats:
    """The quotients; 0 where the denominator is 0, which means that the solution of that user is reached."""
    is_open = denominators > 0
    return np.asarray(np.where(is_open, numerators / np.where(is_open, denominators, 1), 0), dtype=np.float32)
