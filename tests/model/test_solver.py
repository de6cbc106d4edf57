"""The solver against MLlib's ALS from the same start, against the objective written out, and on odd ratings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from pyspark.ml.recommendation import ALS, ALSModel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.model import rating_blocks
from spark_app.model.blocks import LocalBlocks
from spark_app.model.factors import collected
from spark_app.model.half_sweep import Floats, Preference, Problem, Ridge, SquaredError
from spark_app.model.rating_blocks import RatingBlocks, pack
from spark_app.model.solver import EXACT, Options, Solution, SolvedSide, counts_of, fit, objective_with

RATINGS = "userId INT, movieId INT, rating DOUBLE"
RANK, SWEEPS, SEED = 4, 4, 42
REG, ALPHA, NEUTRAL = 0.1, 2.0, 2.5

Row = tuple[int, int, float]

EXPLICIT = Problem(SquaredError(), Ridge(REG))
IMPLICIT = Problem(Preference(ALPHA, NEUTRAL), Ridge(REG))
LOGARITHMIC = Problem(Preference(ALPHA, NEUTRAL, logarithmic=True), Ridge(REG))
PROBLEMS = {
    "ratings": EXPLICIT,
    "ratings with biases": Problem(SquaredError(), Ridge(REG, power=0.5), mean=2.8),
    "preferences": IMPLICIT,
    "preferences with a power": Problem(Preference(ALPHA, NEUTRAL, logarithmic=True), Ridge(REG, power=0.5)),
}
OF_EACH = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Ratings of 24 movies by 40 users, half of all pairs; a user likes one half of the movies better."""
    rng = np.random.default_rng(3)
    pairs = rng.choice(40 * 24, 480, replace=False).tolist()
    chosen = [(pair // 24 + 1, pair % 24 + 1) for pair in pairs]
    return [(u, m, float(rng.integers(5, 11) if (u + m) % 2 else rng.integers(1, 7)) / 2) for u, m in chosen]


@pytest.fixture(scope="module")
def ratings(spark: SparkSession, rows: list[Row]) -> DataFrame:
    return spark.createDataFrame(rows, RATINGS).coalesce(2).persist()


@pytest.fixture(scope="module", autouse=True)
def in_tasks() -> Iterator[None]:
    """Even few ratings are solved in Spark's tasks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rating_blocks, "LOCAL_RATINGS", -1)
        yield


@pytest.fixture(scope="module")
def packed(ratings: DataFrame) -> RatingBlocks:
    return pack(ratings)


@OF_EACH
def test_few_ratings_are_solved_on_the_driver_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch, ratings: DataFrame, packed: RatingBlocks, problem: Problem
) -> None:
    monkeypatch.setattr(rating_blocks, "LOCAL_RATINGS", 480)
    here = pack(ratings)
    assert isinstance(here.users.blocks, LocalBlocks)
    for steps in (3, EXACT):
        solutions = [fit(blocks, problem, options(steps=steps)) for blocks in (here, packed)]
        assert bytes_of(solutions[0]) == bytes_of(solutions[1])
        assert solutions[0].objective == solutions[1].objective


def options(sweeps: int = SWEEPS, rank: int = RANK, steps: int = 3, tolerance: float = 0.0) -> Options:
    exact = {"last_steps": EXACT} if steps == EXACT else {}
    return Options(rank, sweeps, SEED, steps, tolerance, **exact)


def distance(found: Floats, expected: Floats) -> float:
    """The relative distance of two matrices, by the norm of Frobenius."""
    difference = found.astype(np.float64) - expected.astype(np.float64)
    return float(np.linalg.norm(difference) / np.linalg.norm(expected.astype(np.float64)))


def bytes_of(solution: Solution) -> list[bytes]:
    sides = (solution.users, solution.movies)
    return [part.tobytes() for side in sides for part in (side.ids, side.factors, side.has_factors)]


def is_finite(solution: Solution) -> bool:
    numbers = (solution.users.factors, solution.movies.factors, np.array(solution.objective))
    return all(bool(np.isfinite(part).all()) for part in numbers)


# As MLlib


def by_mllib(ratings: DataFrame, problem: Problem, sweeps: int) -> ALSModel:
    """MLlib's fit to the ratings, or to their distances from neutral. With 0 sweeps: its random start."""
    als = ALS(
        rank=RANK,
        maxIter=sweeps,
        regParam=REG,
        seed=SEED,
        implicitPrefs=problem.loss.over_all_pairs,
        alpha=ALPHA,
        numUserBlocks=2,
        numItemBlocks=2,
        userCol="userId",
        itemCol="movieId",
        ratingCol="rating",
    )
    if isinstance(problem.loss, Preference):
        above = F.col("rating") - F.lit(NEUTRAL)
        said = F.signum(above) * F.log1p(F.abs(above)) if problem.loss.logarithmic else above
        ratings = ratings.withColumn("rating", said)
    return als.fit(ratings)


@pytest.mark.parametrize("problem", [EXPLICIT, IMPLICIT, LOGARITHMIC], ids=["explicit", "implicit", "logarithmic"])
def test_exact_sweeps_from_the_start_of_mllib_reach_its_factors(
    ratings: DataFrame, packed: RatingBlocks, problem: Problem
) -> None:
    begun, expected = (by_mllib(ratings, problem, sweeps) for sweeps in (0, SWEEPS))
    first, users, movies = (
        collected(side, RANK) for side in (begun.userFactors, expected.userFactors, expected.itemFactors)
    )
    nobody = SolvedSide(np.empty(0, np.int32), np.empty((0, RANK), np.float32), np.empty(0, np.bool_))
    start = Solution(SolvedSide(first.ids, first.rows, np.ones(len(first.ids), np.bool_)), nobody, ())
    found = fit(packed, problem, options(steps=EXACT), start)
    for ours, theirs in ((found.users, users), (found.movies, movies)):
        assert ours.ids.tolist() == theirs.ids.tolist()
        assert ours.has_factors.all()
        assert distance(ours.factors, theirs.rows) < 1e-6


# The objective


def objective(rows: list[Row], solution: Solution, problem: Problem) -> float:
    """The objective over all ratings, or over all pairs, with its penalty, computed independently."""
    users, movies = (side.factors.astype(np.float64) for side in (solution.users, solution.movies))
    ratings = np.full((len(users), len(movies)), np.nan)
    of_user, of_movie, values = (np.array(column) for column in zip(*rows, strict=True))
    ratings[np.searchsorted(solution.users.ids, of_user), np.searchsorted(solution.movies.ids, of_movie)] = values
    is_rated, loss = ~np.isnan(ratings), problem.loss
    if isinstance(loss, Preference):
        distances = np.where(is_rated, ratings - loss.neutral, 0.0)
        sizes = np.log(1 + abs(distances)) if loss.logarithmic else abs(distances)
        counts, confidences, wanted = distances > 0, 1 + loss.alpha * sizes, distances > 0
        predicted = users @ movies.T
    elif problem.mean is None:
        counts, confidences, wanted, predicted = is_rated, is_rated, np.nan_to_num(ratings), users @ movies.T
    else:
        biases = problem.mean + users[:, -1:] + movies[:, -1]
        predicted = users[:, :-1] @ movies[:, :-1].T + biases
        counts, confidences, wanted = is_rated, is_rated, np.nan_to_num(ratings)
    error = (confidences * (wanted - predicted) ** 2).sum()
    ridges = (problem.ridge.reg * counts.sum(axis=axis) ** problem.ridge.power for axis in (1, 0))
    penalties = (ridge @ (side**2).sum(axis=1) for ridge, side in zip(ridges, (users, movies), strict=True))
    return float(error + sum(penalties))


@pytest.mark.parametrize("steps", [EXACT, 3])
@OF_EACH
def test_the_objective_told_is_the_objective(
    rows: list[Row], packed: RatingBlocks, problem: Problem, steps: int
) -> None:
    found = fit(packed, problem, options(sweeps=2, steps=steps))
    assert len(found.objective) == 2
    assert found.objective[-1] == pytest.approx(objective(rows, found, problem), rel=1e-5)


@OF_EACH
def test_the_least_objective_with_given_movies_is_that_of_exact_users(
    rows: list[Row], packed: RatingBlocks, problem: Problem
) -> None:
    exact = fit(packed, problem, options(sweeps=2, steps=EXACT))
    least = objective_with(packed, problem, exact.movies.ids, exact.movies.factors)
    assert least == pytest.approx(exact.objective[-1], rel=1e-6)
    assert least == pytest.approx(objective(rows, exact, problem), rel=1e-5)
    # Movies without given factors count as zeros.
    known = slice(3, None)
    some = exact.movies.factors.copy()
    some[:3] = 0
    without = objective_with(packed, problem, exact.movies.ids[known], exact.movies.factors[known])
    assert without == pytest.approx(objective_with(packed, problem, exact.movies.ids, some), rel=1e-9)
    assert without > least


@pytest.mark.parametrize("steps", [EXACT, 1, 3])
@OF_EACH
def test_the_objective_never_rises(packed: RatingBlocks, problem: Problem, steps: int) -> None:
    values = fit(packed, problem, options(sweeps=7, steps=steps)).objective
    assert len(values) > 2
    assert values[-1] < 0.9 * values[0]
    assert (np.diff(values) <= 1e-6 * values[0]).all()


@OF_EACH
def test_a_few_steps_of_conjugate_gradients_do_as_well_as_exact_solutions(
    packed: RatingBlocks, problem: Problem
) -> None:
    stepped, exact = (fit(packed, problem, options(sweeps=8, steps=steps)).objective[-1] for steps in (3, EXACT))
    assert stepped <= 1.02 * exact


# The same ratings give the same


@OF_EACH
def test_neither_the_order_of_rows_nor_partitions_change_a_byte(
    ratings: DataFrame, packed: RatingBlocks, problem: Problem
) -> None:
    expected = bytes_of(fit(packed, problem, options(sweeps=2)))
    shuffled = pack(ratings.orderBy(F.rand(7)).repartition(3, "movieId"))
    assert bytes_of(fit(shuffled, problem, options(sweeps=2))) == expected


def test_more_blocks_change_the_last_digits_at_most(ratings: DataFrame, packed: RatingBlocks) -> None:
    few, many = (fit(blocks, IMPLICIT, options()) for blocks in (packed, pack(ratings, block_ratings=60)))
    for one, other in ((few.users, many.users), (few.movies, many.movies)):
        assert distance(other.factors, one.factors) < 1e-4


def test_another_seed_starts_elsewhere_and_ends_as_well(packed: RatingBlocks) -> None:
    one, other = (fit(packed, EXPLICIT, replace(options(sweeps=12), seed=seed)) for seed in (SEED, SEED + 1))
    assert distance(other.users.factors, one.users.factors) > 0.1
    assert other.objective[-1] == pytest.approx(one.objective[-1], rel=0.1)


# When it ends


def test_a_sweep_that_lowers_the_objective_little_is_the_last(packed: RatingBlocks) -> None:
    everything = fit(packed, EXPLICIT, options(sweeps=12)).objective
    gains = -np.diff(everything) / everything[:-1]
    enough = int(np.flatnonzero(gains <= 0.01)[0]) + 2
    assert 2 < enough < 12
    found = fit(packed, EXPLICIT, options(sweeps=12, tolerance=0.01))
    assert len(found.objective) == enough
    assert found.objective[:-1] == everything[: enough - 1]
    # The last half sweep solves for the users with more steps.
    assert found.objective[-1] <= everything[enough - 1]


def test_the_users_are_nearly_exact_at_the_end(packed: RatingBlocks) -> None:
    for sweeps, tolerance in ((4, 0.0), (20, 0.01)):
        found = fit(packed, IMPLICIT, options(sweeps, tolerance=tolerance))
        assert (len(found.objective) < sweeps) == (tolerance > 0)
        exact = fit(packed, IMPLICIT, replace(options(sweeps, tolerance=tolerance), last_steps=EXACT))
        assert distance(found.users.factors, exact.users.factors) < 1e-3


@OF_EACH
def test_from_the_factors_of_another_fit_fewer_sweeps_are_needed(
    spark: SparkSession, rows: list[Row], problem: Problem
) -> None:
    before = [row for row in rows if row[0] <= 38 and row[:2] != (1, 1)]
    fitted = fit(pack(spark.createDataFrame(before, RATINGS)), problem, options(sweeps=20, tolerance=0.004))
    grown = pack(spark.createDataFrame(rows, RATINGS))
    anew, on = (fit(grown, problem, options(sweeps=20, tolerance=0.004), start) for start in (None, fitted))
    assert len(on.objective) < len(anew.objective)
    assert on.objective[-1] <= anew.objective[-1] * 1.02


def test_half_sweeps_are_told_and_the_objective_after_those_of_the_users(packed: RatingBlocks) -> None:
    told: list[tuple[int, float | None]] = []
    found = fit(packed, IMPLICIT, options(sweeps=3), on_half_sweep=lambda *half_sweep: told.append(half_sweep))
    values = found.objective
    assert told == [(1, None), (2, values[0]), (3, None), (4, values[1]), (5, None), (6, values[2])]


# Odd ratings


ODD: dict[str, list[Row]] = {
    "one rating": [(1, 1, 4.0)],
    "one user": [(7, movie, 3.0 + movie % 3) for movie in range(1, 9)],
    "one movie": [(user, 7, 3.0 + user % 3) for user in range(1, 9)],
    "all alike": [(user, movie, 4.0) for user in range(1, 7) for movie in range(1, 7)],
    "all at the mean": [(user, movie, 2.8) for user in range(1, 7) for movie in range(1, 7)],
    "fewer movies than factors": [(user, movie, 1.0 + user % 5) for user in range(1, 30) for movie in (1, 2)],
    "a user who likes nothing": [(1, 1, 5.0), (1, 2, 1.0), (2, 1, 1.0), (2, 3, 0.5), (3, 1, 4.0)],
}


@pytest.mark.parametrize("rows", ODD.values(), ids=ODD)
def test_odd_ratings_are_fitted_too(spark: SparkSession, rows: list[Row]) -> None:
    packed = pack(spark.createDataFrame(rows, RATINGS).coalesce(1))
    for problem in PROBLEMS.values():
        for steps in (EXACT, 3):
            found = fit(packed, problem, options(sweeps=3, rank=9, steps=steps))
            assert is_finite(found)
            assert found.objective[-1] == pytest.approx(objective(rows, found, problem), rel=1e-4, abs=1e-6)


def test_users_who_like_nothing_and_movies_that_nobody_likes_have_no_factors(spark: SparkSession) -> None:
    packed = pack(spark.createDataFrame(ODD["a user who likes nothing"], RATINGS))
    found = fit(packed, IMPLICIT, options())
    for side, liking in ((found.users, [True, False, True]), (found.movies, [True, False, False])):
        assert side.ids.tolist() == [1, 2, 3]
        assert side.has_factors.tolist() == liking
        assert side.factors.any(axis=1).tolist() == liking
    assert counts_of(packed.users, IMPLICIT.loss).tolist() == [1, 0, 1]
    assert counts_of(packed.movies, IMPLICIT.loss).tolist() == [2, 0, 0]
    assert counts_of(packed.users, EXPLICIT.loss).tolist() == [2, 2, 1]


def test_where_nobody_likes_anything_all_factors_are_zeros(spark: SparkSession) -> None:
    disliked = [(user, movie, 1.0) for user in (1, 2) for movie in (1, 2)]
    for start in (None, fit(pack(spark.createDataFrame([(1, 1, 5.0)], RATINGS)), IMPLICIT, options())):
        found = fit(pack(spark.createDataFrame(disliked, RATINGS)), IMPLICIT, options(), start)
        assert not found.users.factors.any()
        assert not found.movies.has_factors.any()
        assert set(found.objective) == {0.0}


def test_no_ratings_at_all_are_no_factors(spark: SparkSession) -> None:
    packed = pack(spark.createDataFrame([], RATINGS))
    for problem in PROBLEMS.values():
        found = fit(packed, problem, options())
        assert found.users.factors.shape == (0, RANK + problem.extra_columns)
        assert found.objective[-1] == 0.0


def test_the_factors_of_other_ids_are_zeros() -> None:
    ids = np.array([-3, 5, 9], dtype=np.int32)
    solved = SolvedSide(ids, np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32), np.ones(3, dtype=np.bool_))
    found = solved.of(np.array([-5, -3, 9, 10], dtype=np.int32))
    assert found.tolist() == [[0, 0], [1, 2], [5, 6], [0, 0]]
    assert found.dtype == np.float32
