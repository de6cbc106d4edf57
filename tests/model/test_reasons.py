"""Contributions add up to the score, and the reasons are the movies with the largest contributions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession

from spark_app.model.als import TrainingSet, fit_implicit, implicit_problem
from spark_app.model.candidates import CandidateBlocks, Candidates, candidate_blocks
from spark_app.model.factors import Factors
from spark_app.model.half_sweep import Block, Doubles, Floats, Ints
from spark_app.model.lists import Explain, recommend
from spark_app.model.rating_blocks import pack
from spark_app.model.reasons import Reasons
from spark_app.platform.settings import ImplicitAls, Train

LINEAR = ImplicitAls(
    rank=4,
    iterations=5,
    alpha=1.5,
    reg=0.2,
    reg_power=1.0,
    neutral=2.5,
    confidence="linear",
    popularity_exponent=0.3,
)
LOG = LINEAR.model_copy(update={"confidence": "log", "reg": 0.4, "reg_power": 0.5, "neutral": 2.0})
FITS = {
    "linear, by MLlib": (LINEAR, Train(seed=1, solver="mllib"), 1e-4),
    "linear": (LINEAR, Train(seed=1, solver="own"), 2e-3),
    "logarithmic, with a power": (LOG, Train(seed=1, solver="own"), 2e-3),
}
"""Settings, and the tolerance between the fitted user factors and those solved exactly from their history."""

USERS, MOVIES = 20, 30


@dataclass(frozen=True)
class Fitted:
    """A ranking model, its candidates, and the tolerance within which its user factors are exact."""

    settings: ImplicitAls
    factors: Factors
    candidates: Candidates
    within: float

    def reasons(self) -> Reasons:
        return Reasons(self.candidates.factors, implicit_problem(self.settings), 2, self.candidates.lifts)

    def explain(self) -> Explain:
        return Explain(implicit_problem(self.settings), max_reasons=2)

    def users(self) -> DataFrame:
        return self.factors.users.withColumnRenamed("id", "userId")

    def lifted_scores(self, user: Floats) -> Floats:
        """The score of each movie, by the product of both factors."""
        movies = {row.id: np.array(row.features) for row in self.factors.movies.collect()}
        scores = [movies[movie] @ user if movie in movies else 0.0 for movie in self.candidates.movie_ids]
        return np.asarray(scores * (1.0 + np.arange(1, MOVIES + 1)) ** 0.3)


@pytest.fixture(scope="module")
def ratings(spark: SparkSession) -> DataFrame:
    rng = np.random.default_rng(3)
    pairs = rng.choice(USERS * MOVIES, 200, replace=False)
    rows = [(int(p // MOVIES) + 1, int(p % MOVIES) + 1, float(rng.integers(1, 11)) / 2) for p in pairs]
    return spark.createDataFrame(rows, "userId INT, movieId INT, rating DOUBLE").coalesce(1).persist()


@pytest.fixture(scope="module", params=FITS)
def fitted(spark: SparkSession, ratings: DataFrame, request: pytest.FixtureRequest) -> Fitted:
    settings, train, within = FITS[request.param]
    factors = fit_implicit(TrainingSet(ratings, pack(ratings)), settings, train).factors
    movies = np.arange(1, MOVIES + 1)
    popularity = pa.table({"movieId": movies, "rating_count": movies})
    (candidates,) = candidate_blocks(movies, popularity, factors, settings.popularity_exponent, 10**9)
    return Fitted(settings, factors, candidates, within)


def history_of(ratings: DataFrame, candidates: Candidates, user: int) -> tuple[Ints, Floats]:
    """Places of the movies that a user has rated, ascending, and the ratings."""
    rows = sorted((row.movieId, row.rating) for row in ratings.filter(f"userId = {user}").collect())
    places = np.searchsorted(candidates.movie_ids, [movie for movie, _ in rows])
    return places, np.array([rating for _, rating in rows], dtype=np.float32)


def contributions_of(reasons: Reasons, history: Ints, given: Floats, recommended: Ints) -> Doubles:
    """What each liked movie adds to the score of each recommended one."""
    terms = reasons.problem.loss.terms(given)
    ridges = reasons.problem.ridge.of(np.array([terms.counted.sum()]))
    (added,) = reasons.contributions(history[None], terms.weights[None], terms.targets[None], ridges, recommended[None])
    assert not added[:, ~terms.counted].any()
    return np.asarray(added[:, terms.counted])


def test_weights_add_up_to_the_score_of_the_fit_lifted_by_popularity(ratings: DataFrame, fitted: Fitted) -> None:
    reasons, everything = fitted.reasons(), np.arange(MOVIES)
    vectors = {row.id: np.array(row.features) for row in fitted.factors.users.collect()}
    assert len(vectors) == USERS
    for user, vector in vectors.items():
        contributions = contributions_of(reasons, *history_of(ratings, fitted.candidates, user), everything)
        assert contributions.sum(axis=1) == pytest.approx(fitted.lifted_scores(vector), abs=fitted.within)


def test_lists_have_the_lifted_scores(spark: SparkSession, ratings: DataFrame, fitted: Fitted) -> None:
    scores = {row.id: fitted.lifted_scores(np.array(row.features)) for row in fitted.factors.users.collect()}
    for row in recommend(spark, fitted.users(), ratings, CandidateBlocks.of(fitted.candidates), 3, 7).collect():
        assert row.score == pytest.approx(scores[row.userId][row.movieId - 1], abs=1e-5)


def test_the_heaviest_likes_are_named_and_never_a_dislike(
    spark: SparkSession, ratings: DataFrame, fitted: Fitted
) -> None:
    lists = recommend(
        spark, fitted.users(), ratings, CandidateBlocks.of(fitted.candidates), 5, 7, fitted.explain()
    ).collect()
    assert len(lists) == 5 * USERS
    reasons, movie_ids = fitted.reasons(), fitted.candidates.movie_ids
    named = 0
    for row in lists:
        history, given = history_of(ratings, fitted.candidates, row.userId)
        contributions = contributions_of(reasons, history, given, np.searchsorted(movie_ids, [row.movieId]))[0]
        liked = movie_ids[history[given > fitted.settings.neutral]].tolist()
        by_weight = sorted(zip(-contributions, liked, strict=True))
        assert row.because == [movie for weight, movie in by_weight[:2] if weight < 0]
        named += len(row.because)
    assert named > USERS


def test_weights_of_two_likes_and_a_dislike_by_hand() -> None:
    # One factor: M = Y'Y + sum of c y^2 + 0.5 for each like = 9 + (2 x 4 + 1 x 1 + 1 x 4) + 1 = 23.
    factors = np.array([[2.0], [1.0], [2.0], [0.0]], dtype=np.float32)
    settings = LINEAR.model_copy(update={"alpha": 1.0, "reg": 0.5, "neutral": 3.0})
    reasons = Reasons(factors, implicit_problem(settings), max_reasons=2)
    contributions = contributions_of(
        reasons, np.array([0, 1, 2]), np.array([5.0, 4.0, 2.0], dtype=np.float32), np.array([1, 3])
    )
    # Of movie 1: (1 + 2) x 2 x 1 / 23 by the first, (1 + 1) x 1 x 1 / 23 by the second. Movie 3 has no factors.
    assert contributions == pytest.approx(np.array([[6 / 23, 2 / 23], [0, 0]]), abs=1e-6)


def test_fewer_likes_than_asked_for_leave_places_empty() -> None:
    factors = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]], dtype=np.float32)
    reasons = Reasons(factors, implicit_problem(LINEAR), max_reasons=2)
    # One user likes movie 0 and dislikes movie 2; another only dislikes movie 0, and a third has rated nothing.
    rated = Block(
        np.arange(3, dtype=np.int32),
        np.array([0, 2, 3, 3]),
        np.array([0, 2, 0], dtype=np.int32),
        np.array([4.5, 1.5, 1.5], dtype=np.float32),
    )
    named = reasons(rated, np.array([0, 1, 1, 2]), np.array([1, 1, 2, 1]))
    assert named.tolist() == [[0, -1], [-1, -1], [-1, -1], [-1, -1]]


def test_users_without_factors_and_lists_without_explanation_name_nothing(
    spark: SparkSession, ratings: DataFrame, fitted: Fitted
) -> None:
    cold = spark.createDataFrame([(1, None)], "userId INT, features ARRAY<FLOAT>")
    explained = recommend(spark, cold, ratings, CandidateBlocks.of(fitted.candidates), 3, 7, fitted.explain()).collect()
    assert [row.because for row in explained] == [[], [], []]
    warm = spark.createDataFrame([(1, [1.0] * LINEAR.rank)], "userId INT, features ARRAY<FLOAT>")
    assert [
        row.because for row in recommend(spark, warm, ratings, CandidateBlocks.of(fitted.candidates), 3, 7).collect()
    ] == [[], [], []]
