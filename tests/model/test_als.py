"""The two factorisations of the product: what they learn, and which solver fits them."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession

from spark_app.model import als
from spark_app.model.als import TrainingSet, explicit_problem, fit_explicit, fit_implicit, implicit_problem, solver_for
from spark_app.model.factors import Factors, with_prediction
from spark_app.model.half_sweep import Preference, Ridge, SquaredError
from spark_app.model.rating_blocks import RatingBlocks, pack
from spark_app.platform.errors import InputError
from spark_app.platform.settings import ExplicitAls, ImplicitAls, Train

RATINGS = "userId INT, movieId INT, rating DOUBLE"
PAIRS = "userId INT, movieId INT"
TRAIN = Train(seed=42, tolerance=0.0, refit_sweeps=2)
EXPLICIT = ExplicitAls(rank=3, reg=0.1, reg_power=1.0, biases=False, iterations=3)
IMPLICIT = ImplicitAls(rank=3, reg=0.35, reg_power=1.0, alpha=2.0, neutral=2.5, confidence="linear", iterations=5)

OF_BOTH_SOLVERS = pytest.mark.parametrize("solver", ["own", "mllib"])
OF_BOTH_KINDS = pytest.mark.parametrize("kind", ["explicit", "implicit"])


def training_set(spark: SparkSession, rows: list[tuple[int, int, float]]) -> TrainingSet:
    ratings = spark.createDataFrame(rows, RATINGS)
    return TrainingSet(ratings, pack(ratings))


@pytest.fixture(scope="module")
def training(spark: SparkSession) -> TrainingSet:
    """Ratings of 12 movies by 20 users, for two thirds of the pairs."""
    rng = np.random.default_rng(3)
    pairs = [(user, movie) for user in range(1, 21) for movie in range(1, 13) if (user + movie) % 3]
    return training_set(spark, [(user, movie, float(rng.integers(1, 11)) / 2) for user, movie in pairs])


def train_by(solver: Literal["auto", "own", "mllib"], **more: int) -> Train:
    return TRAIN.model_copy(update={"solver": solver, **more})


def fit(kind: str, training: TrainingSet, train: Train = TRAIN, start: Factors | None = None) -> Factors:
    if kind == "explicit":
        return fit_explicit(training, EXPLICIT, train, 3.0, start).factors
    return fit_implicit(training, IMPLICIT, train, start).factors


def vectors(frame: DataFrame) -> dict[int, list[float]]:
    return {row.id: list(row.features) for row in frame.collect()}


def predicted(asked: DataFrame, factors: Factors) -> dict[tuple[int, int], float]:
    return {(row.userId, row.movieId): row.als for row in with_prediction(asked, factors, "als").collect()}


# What is learnt


@OF_BOTH_SOLVERS
def test_explicit_als_learns_who_likes_what(spark: SparkSession, solver: Literal["own", "mllib"]) -> None:
    # Odd users love odd movies and hate even ones; even users the other way round. (1, 1) and (1, 2) are not given.
    rows = [(u, m, 5.0 if (u + m) % 2 == 0 else 1.0) for u in range(1, 9) for m in range(1, 9) if (u, m) > (1, 2)]
    settings = EXPLICIT.model_copy(update={"rank": 4})
    factors = fit_explicit(training_set(spark, rows), settings, train_by(solver), mean=3.0).factors
    found = predicted(spark.createDataFrame([(1, 1), (1, 2)], PAIRS), factors)
    assert found[1, 1] > 4
    assert found[1, 2] < 2


def test_biases_learn_who_is_generous_and_what_is_good(spark: SparkSession) -> None:
    # A rating is the sum of what the user and the movie are worth; (1, 1) and (6, 6) are not given.
    rows = [(u, m, 0.5 + u / 3 + m / 3) for u in range(1, 7) for m in range(1, 7) if (u, m) not in ((1, 1), (6, 6))]
    mean = float(np.mean([rating for _, _, rating in rows]))
    settings = EXPLICIT.model_copy(update={"biases": True, "reg": 0.01, "iterations": 20})
    factors = fit_explicit(training_set(spark, rows), settings, TRAIN, mean).factors
    assert factors.rank == settings.rank + 2
    found = predicted(spark.createDataFrame([(1, 1), (6, 6), (1, 99)], PAIRS), factors)
    assert found[1, 1] == pytest.approx(0.5 + 2 / 3, abs=0.3)
    assert found[6, 6] == pytest.approx(4.5, abs=0.3)
    assert np.isnan(found[1, 99])


@OF_BOTH_SOLVERS
def test_implicit_als_takes_a_rating_below_neutral_for_a_no(
    spark: SparkSession, solver: Literal["own", "mllib"]
) -> None:
    # All users rate movie 1 (well), movie 2 (badly) and two other movies (well).
    rows = [(u, 1, 5.0) for u in range(1, 9)] + [(u, 2, 1.0) for u in range(1, 9)]
    rows += [(u, 3 + u % 4, 4.5) for u in range(1, 9)] + [(u, 7 + u % 3, 4.0) for u in range(1, 9)]
    # Somebody likes movie 2, so that it is a matter of taste.
    rows += [(9, 2, 5.0), (9, 10, 5.0), (10, 2, 4.5), (10, 10, 4.0)]
    training = training_set(spark, rows)
    asked = spark.createDataFrame([(u, m) for u in range(1, 9) for m in (1, 2)], PAIRS)

    def preference(neutral: float) -> dict[tuple[int, int], float]:
        settings = IMPLICIT.model_copy(update={"neutral": neutral})
        return predicted(asked, fit_implicit(training, settings, train_by(solver)).factors)

    found, all_yes = preference(neutral=2.5), preference(neutral=0.0)
    for user in range(1, 9):
        assert found[user, 1] > 0.7
        assert found[user, 2] < 0.4
        assert found[user, 2] < all_yes[user, 2]


@OF_BOTH_SOLVERS
def test_implicit_als_fits_where_somebody_likes_nothing_and_nobody_likes_a_movie(
    spark: SparkSession, solver: Literal["own", "mllib"]
) -> None:
    # Regularisation grows with likes: without any like the equations would be singular, or all factors zero.
    rows = [(1, 10, 5.0), (1, 20, 4.0), (2, 10, 4.0), (2, 30, 1.0), (3, 10, 1.0), (3, 20, 2.0)]
    settings = IMPLICIT.model_copy(update={"rank": 8, "iterations": 2})
    factors = fit_implicit(training_set(spark, rows), settings, train_by(solver)).factors
    users, movies = vectors(factors.users), vectors(factors.movies)
    assert users.keys() == {1, 2}
    assert movies.keys() == {10, 20}
    assert np.isfinite([*users.values(), *movies.values()]).all()


@OF_BOTH_SOLVERS
def test_where_nobody_likes_anything_there_is_nothing_to_learn_from(
    spark: SparkSession, solver: Literal["own", "mllib"]
) -> None:
    training = training_set(spark, [(1, 1, 2.5), (1, 2, 0.5), (2, 1, 1.0)])
    with pytest.raises(InputError) as caught:
        fit_implicit(training, IMPLICIT, train_by(solver))
    assert str(caught.value) == "no rating is above implicit_als.neutral=2.5: lower implicit_als.neutral"


def test_problems_are_what_the_settings_say() -> None:
    assert explicit_problem(EXPLICIT, 3.5).mean is None
    biased = explicit_problem(ExplicitAls(reg=0.2, reg_power=0.7, biases=True), 3.5)
    assert (biased.loss, biased.ridge, biased.mean) == (SquaredError(), Ridge(0.2, 0.7), 3.5)
    implicit = implicit_problem(ImplicitAls(reg=0.3, reg_power=0.6, alpha=4.0, neutral=1.5, confidence="log"))
    assert (implicit.loss, implicit.ridge, implicit.mean) == (Preference(4.0, 1.5, True), Ridge(0.3, 0.6), None)
    assert implicit_problem(IMPLICIT).loss == Preference(2.0, 2.5, False)


# Where a fit starts, and what it logs


@OF_BOTH_KINDS
def test_a_fit_says_what_it_does_and_how_far_it_is(training: TrainingSet, kind: str, said: list[str]) -> None:
    fit(kind, training)
    sweeps = (EXPLICIT if kind == "explicit" else IMPLICIT).iterations
    assert said[0] == f"fitting {kind} ALS: rank 3, at most {sweeps} sweeps"
    told = [message.partition(",")[0] for message in said[1:]]
    assert told == [f"fitting {kind} ALS: half sweep {done + 1} of {2 * sweeps}" for done in range(2 * sweeps)]
    assert all(", objective " in message for message in said[2::2])


@OF_BOTH_KINDS
def test_a_fit_that_starts_from_another_takes_the_sweeps_of_a_refit(
    training: TrainingSet, kind: str, said: list[str]
) -> None:
    first = fit(kind, training)
    del said[:]
    again = fit(kind, training, start=first)
    assert said[0] == f"fitting {kind} ALS: rank 3, at most 2 sweeps"
    assert said[-1].startswith(f"fitting {kind} ALS: half sweep 4 of 4, ")
    assert vectors(again.users) != vectors(first.users)
    fit(kind, training, TRAIN.model_copy(update={"refit_sweeps": 50}), first)
    assert f"fitting {kind} ALS: rank 3, at most {3 if kind == 'explicit' else 5} sweeps" in said


@OF_BOTH_KINDS
def test_the_seed_is_where_random_factors_come_from(training: TrainingSet, kind: str) -> None:
    one, same, other = (
        vectors(fit(kind, training, TRAIN.model_copy(update={"seed": seed})).users) for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other


# Which solver


@OF_BOTH_KINDS
def test_mllib_starts_anew(training: TrainingSet, kind: str, said: list[str]) -> None:
    train = train_by("mllib")
    first = fit(kind, training, train)
    assert said[0].startswith(f"fitting {kind} ALS by MLlib: rank 3, ")
    assert vectors(fit(kind, training, train, start=first).users) == vectors(first.users)


def test_mllib_fits_no_biases(training: TrainingSet) -> None:
    settings = EXPLICIT.model_copy(update={"biases": True})
    assert fit_explicit(training, settings, train_by("mllib"), 3.0).factors.rank == 3
    assert fit_explicit(training, settings, train_by("own"), 3.0).factors.rank == 5


def test_mllib_fits_factors_that_are_too_large_to_be_broadcast(training: TrainingSet, said: list[str]) -> None:
    # 20 users and 12 movies of 10 floats each
    assert solver_for(training.blocks, 10, train_by("auto", broadcast_bytes=1280)) == "own"
    assert said == []
    assert solver_for(training.blocks, 10, train_by("auto", broadcast_bytes=1279)) == "mllib"
    assert said == [
        "fitting with MLlib: factors of 20 users and 12 movies take 1,280 bytes, more than train.broadcast_bytes=1,279"
    ]


@pytest.mark.parametrize("solver", ["own", "mllib"])
def test_a_solver_that_is_named_is_taken_whatever_the_size(
    training: TrainingSet, said: list[str], solver: Literal["own", "mllib"]
) -> None:
    for most in (1, 10**9):
        assert solver_for(training.blocks, 10, train_by(solver, broadcast_bytes=most)) == solver
    assert said == []


@OF_BOTH_KINDS
def test_the_solver_that_is_chosen_is_the_one_that_fits(
    monkeypatch: pytest.MonkeyPatch, training: TrainingSet, kind: str
) -> None:
    asked: list[int] = []

    def mllib_for(blocks: RatingBlocks, rank: int, train: Train) -> str:
        asked.append(rank)
        return "mllib"

    expected = vectors(fit(kind, training, train_by("mllib")).users)
    monkeypatch.setattr(als, "solver_for", mllib_for)
    assert vectors(fit(kind, training).users) == expected
    assert set(asked) == {3}
