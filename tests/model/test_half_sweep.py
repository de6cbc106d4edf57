"""One half sweep against textbook equations, written out for each user alone over all movies; numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spark_app.model import half_sweep
from spark_app.model.half_sweep import (
    Block,
    Doubles,
    Floats,
    Preference,
    Problem,
    Ridge,
    SolvedBlock,
    SquaredError,
    counted,
    solve,
    with_zero_row,
)
from spark_app.model.solver import EXACT

Rated = list[tuple[int, float]]
"""What one user has rated: places of movies, and ratings."""

MEAN = 2.9

PROBLEMS = {
    "ratings": Problem(SquaredError(), Ridge(0.1)),
    "ratings, as much for all": Problem(SquaredError(), Ridge(2.0, power=0.0)),
    "ratings, with biases": Problem(SquaredError(), Ridge(0.1), mean=MEAN),
    "ratings, with biases and a power": Problem(SquaredError(), Ridge(0.3, power=0.4), mean=MEAN),
    "preferences": Problem(Preference(alpha=2.0, neutral=2.5), Ridge(0.3)),
    "preferences, with a power": Problem(Preference(alpha=2.0, neutral=2.5), Ridge(0.3, power=0.5)),
    "preferences, logarithmic": Problem(Preference(alpha=1.5, neutral=2.0, logarithmic=True), Ridge(0.3)),
    "counts": Problem(Preference(alpha=5.0, logarithmic=True), Ridge(0.3)),
}
OF_EACH = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)


def block_of(users: list[Rated]) -> Block:
    """A block of the ratings of users who each have at least one."""
    starts = np.cumsum([0, *(len(rated) for rated in users)])
    pairs = [pair for rated in users for pair in sorted(rated)]
    others = np.array([place for place, _ in pairs], dtype=np.int32)
    values = np.array([rating for _, rating in pairs], dtype=np.float32)
    return Block(np.arange(len(users), dtype=np.int32), starts, others, values)


def movies_of(movies: int, rank: int, problem: Problem, seed: int = 0) -> Floats:
    """Random factors of movies; the last column is the bias if the problem has one."""
    columns = rank + problem.extra_columns
    return np.random.default_rng(seed).normal(0, 0.5, (movies, columns)).astype(np.float32)


def users_of(lengths: list[int], movies: int, seed: int = 0) -> list[Rated]:
    """Users with the given numbers of ratings, which are from 0.5 to 5 in steps of 0.5."""
    rng = np.random.default_rng(seed)
    chosen = [rng.choice(movies, length, replace=False).tolist() for length in lengths]
    return [[(place, float(rng.integers(1, 11)) / 2) for place in places] for places in chosen]


def solved(
    users: list[Rated], held: Floats, problem: Problem, steps: int = EXACT, start: Floats | None = None
) -> SolvedBlock:
    doubles = held.astype(np.float64)
    gram = doubles.T @ doubles if problem.loss.over_all_pairs else None
    start = np.zeros((len(users), held.shape[1]), dtype=np.float32) if start is None else start
    return solve(block_of(users), with_zero_row(held), gram, start, problem, steps)


@dataclass(frozen=True)
class Textbook:
    """One user's problem, as the papers state it: sum of c (p - y'x)^2 over movies, plus ridge |x|^2.

    `vectors` has one row per movie: all movies for preferences, the rated ones for ratings.
    """

    vectors: Doubles
    confidences: Doubles
    preferences: Doubles
    ridge: float

    def solution(self) -> Doubles:
        left = self.vectors.T @ (self.confidences[:, None] * self.vectors) + self.ridge * np.eye(self.vectors.shape[1])
        return np.asarray(np.linalg.solve(left, self.vectors.T @ (self.confidences * self.preferences)))

    def value(self, x: NDArray[np.generic]) -> float:
        """The objective, including the penalty."""
        return self.error(x) + self.penalty(x)

    def error(self, x: NDArray[np.generic]) -> float:
        return float(self.confidences @ (self.preferences - self.vectors @ x.astype(np.float64)) ** 2)

    def penalty(self, x: NDArray[np.generic]) -> float:
        return float(self.ridge * (x.astype(np.float64) ** 2).sum())


def textbook(rated: Rated, held: Floats, problem: Problem) -> Textbook | None:
    """The problem of one user; None if none of their ratings counts."""
    places, ratings = [place for place, _ in rated], np.array([rating for _, rating in rated])
    vectors, reg, power = held.astype(np.float64), problem.ridge.reg, problem.ridge.power
    loss = problem.loss
    if isinstance(loss, Preference):
        distances = ratings - loss.neutral
        likes = int((distances > 0).sum())
        confidences, preferences = np.ones(len(held)), np.zeros(len(held))
        confidences[places] += loss.alpha * (np.log(1 + abs(distances)) if loss.logarithmic else abs(distances))
        preferences[places] = distances > 0
        return Textbook(vectors, confidences, preferences, reg * likes**power) if likes else None
    theirs, ones = vectors[places], np.ones(len(rated))
    if problem.mean is not None:
        ratings = ratings - problem.mean - theirs[:, -1]
        theirs = np.column_stack([theirs[:, :-1], ones])
    return Textbook(theirs, ones, ratings, reg * len(rated) ** power)


def objective(users: list[Rated], held: Floats, factors: Floats, problem: Problem) -> float:
    """The objective of all users, computed independently."""
    problems = (textbook(rated, held, problem) for rated in users)
    return sum(of_one.value(row) for of_one, row in zip(problems, factors, strict=True) if of_one)


@OF_EACH
def test_the_exact_solution_is_that_of_the_textbook(problem: Problem) -> None:
    users, held = users_of([3, 40, 1, 12, 12], movies=50), movies_of(50, rank=6, problem=problem)
    found = solved(users, held, problem).factors
    assert found.dtype == np.float32
    for rated, row in zip(users, found, strict=True):
        of_one = textbook(rated, held, problem)
        expected = of_one.solution() if of_one else np.zeros(held.shape[1])
        assert row == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_a_like_and_a_dislike_by_hand() -> None:
    # Movies 1 and 2 are alike, and a user loves the one and hates the other: c = 2 x 2 = 4 and 2 x 1 = 2.
    problem = Problem(Preference(alpha=2.0, neutral=3.0), Ridge(0.5))
    held = np.ones((2, 1), dtype=np.float32)
    # (Y'Y + 4 + 2 + 0.5 for the one like) x = 1 + 4
    assert solved([[(0, 5.0), (1, 2.0)]], held, problem).factors == pytest.approx(np.array([[5 / 8.5]]))


def test_a_bias_by_hand() -> None:
    # Movies without factors: a user's bias is the damped mean of what the mean and the movies' biases leave, 1 and 2.
    problem = Problem(SquaredError(), Ridge(1.0, power=0.0), mean=2.0)
    held = np.array([[0.0, 0.5], [0.0, -1.0]], dtype=np.float32)
    assert solved([[(0, 3.5), (1, 3.0)]], held, problem).factors == pytest.approx(np.array([[0.0, 3 / 3]]))


@OF_EACH
def test_the_objective_told_is_the_objective(problem: Problem) -> None:
    users, held = users_of([3, 30, 1, 12], movies=40), movies_of(40, rank=5, problem=problem)
    start = np.random.default_rng(1).normal(0, 0.3, (len(users), held.shape[1])).astype(np.float32)
    for steps in (EXACT, 1, 3, 8):
        found = solved(users, held, problem, steps, start)
        assert found.objective == pytest.approx(objective(users, held, found.factors, problem), rel=1e-5)
        parts = ((textbook(rated, held, problem), row) for rated, row in zip(users, found.factors, strict=True))
        assert found.penalty == pytest.approx(sum(one.penalty(row) for one, row in parts if one), rel=1e-5)


@OF_EACH
def test_conjugate_gradients_end_at_the_exact_solution_and_never_raise_the_objective(problem: Problem) -> None:
    users, held = users_of([3, 60, 1, 12, 25], movies=80), movies_of(80, rank=6, problem=problem)
    start = np.random.default_rng(2).normal(0, 1, (len(users), held.shape[1])).astype(np.float32)
    exact = solved(users, held, problem)
    values = [objective(users, held, start, problem)]
    for steps in range(1, 13):
        found = solved(users, held, problem, steps, start)
        values.append(objective(users, held, found.factors, problem))
        assert values[-1] <= values[-2] * (1 + 1e-6)
    assert values[0] > 1.2 * values[-1]
    assert values[-1] == pytest.approx(exact.objective, rel=1e-6)
    assert found.factors == pytest.approx(exact.factors, rel=1e-3, abs=1e-3)


@OF_EACH
def test_conjugate_gradients_stay_at_the_solution(problem: Problem) -> None:
    users, held = users_of([3, 30, 12], movies=40), movies_of(40, rank=5, problem=problem)
    exact = solved(users, held, problem).factors
    assert solved(users, held, problem, 3, exact).factors == pytest.approx(exact, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("steps", [EXACT, 3])
@OF_EACH
def test_users_are_solved_alike_in_any_company(monkeypatch: pytest.MonkeyPatch, problem: Problem, steps: int) -> None:
    lengths = [1, 2, 3, 100, 5, 8, 13, 90, 7, 7, 7, 55]
    users, held = users_of(lengths, movies=120), movies_of(120, rank=5, problem=problem)
    start = np.random.default_rng(2).normal(0, 0.3, (len(users), held.shape[1])).astype(np.float32)
    together = solved(users, held, problem, steps, start)
    alone = [solved([rated], held, problem, steps, start[[i]]) for i, rated in enumerate(users)]
    assert together.factors == pytest.approx(np.concatenate([one.factors for one in alone]), rel=1e-4, abs=1e-5)
    assert together.objective == pytest.approx(sum(one.objective for one in alone), rel=1e-5)
    for most_users, most_floats in ((2, half_sweep.GROUP_FLOATS), (half_sweep.GROUP_USERS, 200)):
        monkeypatch.setattr(half_sweep, "GROUP_USERS", most_users)
        monkeypatch.setattr(half_sweep, "GROUP_FLOATS", most_floats)
        in_groups = solved(users, held, problem, steps, start)
        assert in_groups.factors == pytest.approx(together.factors, rel=1e-4, abs=1e-5)
        assert in_groups.objective == pytest.approx(together.objective, rel=1e-5)


@pytest.mark.parametrize("name", ["ratings", "ratings, with biases", "preferences"])
def test_a_user_with_30_000_ratings_beside_one_with_a_single_one(name: str) -> None:
    problem = PROBLEMS[name]
    users, held = users_of([1, 30_000, 1], movies=40_000), movies_of(40_000, rank=8, problem=problem)
    expected = [one.solution() if (one := textbook(rated, held, problem)) else 0.0 for rated in users]
    exact = solved(users, held, problem)
    stepped = solved(users, held, problem, 12)
    for place, of_one in enumerate(expected):
        assert exact.factors[place] == pytest.approx(of_one, rel=1e-4, abs=1e-5)
        assert stepped.factors[place] == pytest.approx(of_one, rel=1e-3, abs=1e-4)
    assert exact.objective == pytest.approx(objective(users, held, exact.factors, problem), rel=1e-5)


@pytest.mark.parametrize("steps", [EXACT, 3])
def test_users_with_nothing_that_counts_get_zeros(steps: int) -> None:
    problem = PROBLEMS["preferences"]
    users: list[Rated] = [[(0, 1.0), (1, 2.5)], [(1, 4.0)], [(2, 0.5)]]
    held = movies_of(4, rank=3, problem=problem)
    assert counted(block_of(users), problem.loss).tolist() == [0, 1, 0]
    found = solved(users, held, problem, steps, np.ones((3, 3), dtype=np.float32))
    assert found.factors[[0, 2]].tolist() == [[0, 0, 0]] * 2
    assert found.factors[1].any()
    # They add nothing to the objective either.
    assert found.objective == pytest.approx(objective([users[1]], held, found.factors[[1]], problem), rel=1e-5)


def test_of_ratings_all_count() -> None:
    assert counted(block_of([[(0, 0.5)], [(0, 0.5), (3, 5.0)]]), SquaredError()).tolist() == [1, 2]


@pytest.mark.parametrize("steps", [EXACT, 3])
@OF_EACH
def test_a_block_without_users(problem: Problem, steps: int) -> None:
    held = movies_of(4, rank=3, problem=problem)
    found = solved([], held, problem, steps)
    assert found.factors.shape == (0, held.shape[1])
    assert (found.objective, found.penalty) == (0, 0)


@OF_EACH
def test_more_factors_than_movies(problem: Problem) -> None:
    users, held = users_of([1, 2, 3], movies=3), movies_of(3, rank=12, problem=problem)
    exact = solved(users, held, problem)
    for rated, row in zip(users, exact.factors, strict=True):
        if of_one := textbook(rated, held, problem):
            assert row == pytest.approx(of_one.solution(), rel=1e-4, abs=1e-5)
    assert solved(users, held, problem, 8).factors == pytest.approx(exact.factors, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("steps", [EXACT, 3])
def test_ratings_that_all_are_the_mean_leave_nothing_to_learn(steps: int) -> None:
    problem = Problem(SquaredError(), Ridge(0.1), mean=3.0)
    held = movies_of(5, rank=3, problem=problem)
    held[:, -1] = 0
    found = solved([[(place, 3.0) for place in range(5)]] * 2, held, problem, steps)
    assert found.factors.tolist() == [[0, 0, 0, 0]] * 2
    assert found.objective == 0


@pytest.mark.parametrize("steps", [EXACT, 3])
@OF_EACH
def test_movies_whose_factors_are_zeros(problem: Problem, steps: int) -> None:
    users, held = users_of([1, 4], movies=5), np.zeros((5, 3 + problem.extra_columns), dtype=np.float32)
    found = solved(users, held, problem, steps)
    assert not found.factors[:, :3].any()
    assert found.objective == pytest.approx(objective(users, held, found.factors, problem))


@settings(deadline=None, max_examples=200)
@given(
    problem=st.sampled_from(list(PROBLEMS.values())),
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    rank=st.integers(1, 12),
    size=st.sampled_from([0.0, 1e-20, 1e-3, 1.0, 30.0]),
    reg=st.sampled_from([1e-6, 0.1, 1e4]),
    steps=st.integers(0, 9),
)
def test_factors_are_finite_and_never_worse_than_the_start(
    problem: Problem, seed: int, lengths: list[int], rank: int, size: float, reg: float, steps: int
) -> None:
    problem = Problem(problem.loss, Ridge(reg, problem.ridge.power), problem.mean)
    users = users_of(lengths, movies=30, seed=seed)
    held = np.float32(size) * movies_of(30, rank, problem, seed)
    start = np.random.default_rng(seed).normal(0, 1, (len(users), held.shape[1])).astype(np.float32)
    start *= counted(block_of(users), problem.loss)[:, None] > 0
    found = solved(users, held, problem, steps, start)
    assert np.isfinite(found.factors).all()
    assert np.isfinite([found.objective, found.penalty]).all()
    before = objective(users, held, start, problem)
    assert objective(users, held, found.factors, problem) <= before * (1 + 1e-5) + 1e-9
