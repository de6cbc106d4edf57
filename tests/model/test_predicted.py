"""Predicted ratings in numpy: compared with those of Spark, and the search with a lowest rating with a full sort."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession

from spark_app.model.biases import BiasModel
from spark_app.model.candidates import LAST, CandidateBlocks, Candidates
from spark_app.model.factors import Factors
from spark_app.model.fits import FitSettings, Models
from spark_app.model.lists import recommend
from spark_app.model.matrices import FactorMatrix
from spark_app.model.predicted import (
    KnownBiases,
    RatingFloor,
    RatingModel,
    RatingSide,
    lowest_ratings,
    predicted_for_anyone,
    predicted_ratings,
    rating_side,
)
from spark_app.model.stack import RATING_MODELS, StackWeights, weights_of, with_predicted_ratings
from spark_app.model.topn import CHUNK, TopN, UserRatings
from spark_app.platform.settings import Biases, ExplicitAls, ImplicitAls

SCALE = (0.5, 5.0)
STACK = StackWeights(0.25, 0.1, -0.05)


def frames(spark: SparkSession) -> tuple[DataFrame, BiasModel, Factors]:
    """Pairs of 12 users and 9 movies. Users 11 and 12 and movies 8 and 9 have no factors, user 12 no bias either."""
    rng = np.random.default_rng(4)
    pairs = [(user, movie) for user in range(1, 13) for movie in range(1, 10)]

    def factors(count: int) -> DataFrame:
        rows = [(i, rng.normal(0.8, 0.4, 3).astype(np.float32).tolist()) for i in range(1, count + 1)]
        return spark.createDataFrame(rows, "id INT, features ARRAY<FLOAT>")

    users = [(user, float(rng.normal(0, 0.5)), int(rng.integers(1, 300))) for user in range(1, 12)]
    movies = [(movie, float(rng.normal(0, 0.5)), int(rng.integers(1, 300))) for movie in range(1, 9)]
    biases = BiasModel(
        3.4,
        spark.createDataFrame(users, "userId INT, user_bias DOUBLE, rating_count LONG"),
        spark.createDataFrame(movies, "movieId INT, movie_bias DOUBLE, rating_count LONG"),
    )
    return spark.createDataFrame(pairs, "userId INT, movieId INT"), biases, Factors(3, factors(10), factors(7))


@pytest.mark.parametrize("name", RATING_MODELS)
def test_the_ratings_of_lists_are_those_of_the_judged_models(spark: SparkSession, name: str) -> None:
    pairs, biases, explicit = frames(spark)
    in_spark = with_predicted_ratings(pairs, biases, explicit, STACK, SCALE).collect()
    fitted = FitSettings(ImplicitAls(rank=2), ExplicitAls(rank=3), Biases(), 1)
    models = Models(fitted, Factors(2, explicit.users.limit(0), explicit.movies.limit(0)), explicit, biases, STACK)
    weights = weights_of(name, STACK)
    model = RatingModel(3.4, SCALE, weights.constant, weights.user, weights.movie)
    ids = np.arange(1, 10, dtype=np.int32)
    # Without ranking factors everybody gets the popular movies, so a list of nine has every movie.
    vectors = np.column_stack([np.zeros((9, 2)), np.zeros(9), np.arange(9)]).astype(np.float32)
    candidates = models.with_ratings(CandidateBlocks.of(Candidates(ids, vectors)), model)
    users = pairs.selectExpr("userId", "cast(null as array<float>) features").distinct()
    seen = spark.createDataFrame([(user, 99, 1.0) for user in range(1, 13)], "userId INT, movieId INT, rating DOUBLE")
    lists = recommend(spark, users, seen, candidates, 9, 5, predict=models.predict(model)).collect()
    found = {(row.userId, row.movieId): row.predicted_rating for row in lists}
    assert len(found) == 12 * 9
    assert found == {(row.userId, row.movieId): pytest.approx(row[name], abs=5.1e-4) for row in in_spark}


def test_a_rating_by_hand() -> None:
    known = KnownBiases(np.array([5], dtype=np.int32), np.array([0.5]), np.array([9]))
    nothing = KnownBiases(np.zeros(0, dtype=np.int32), np.zeros(0), np.zeros(0, dtype=np.int64))
    two = FactorMatrix(np.array([5], dtype=np.int32), np.array([[1.0, 2.0]], dtype=np.float32))
    users = rating_side(np.array([5, 6], dtype=np.int32), two, known, 3.0, (0.5, 0.0))
    movies = rating_side(np.array([5], dtype=np.int32), two, nothing, 0.0, (0.0, 0.0))
    # User 5: bias 3.5, factors give 1 + 4 = 5, so 3.5 + 0.5 x 1.5. User 6 is unknown.
    found = predicted_ratings(users, movies, np.array([0, 1]), np.array([0, 0]), (0.0, 10.0))
    assert found.tolist() == [4.25, 3.0]
    assert predicted_ratings(users, movies, np.array([0]), np.array([0]), (0.0, 4.0)).tolist() == [4.0]
    model = RatingModel(3.0, (0.0, 10.0), 0.5, 0.0, 0.0)
    assert predicted_for_anyone(np.array([4, 5], dtype=np.int32), known, model).tolist() == [3.0, 3.5]
    assert predicted_for_anyone(np.array([4, 5], dtype=np.int32), nothing, model).tolist() == [3.0, 3.0]


def test_the_lowest_rating_is_absolute_or_against_the_own_mean_or_the_higher_of_both() -> None:
    rows, ratings = np.array([1, 0, 1, 1]), np.array([4.0, 2.0, np.nan, 5.0], dtype=np.float32)

    def lowest(least: float | None, above_mean: float | None) -> list[float]:
        return list(lowest_ratings(RatingModel(3, SCALE, 0, 0, 0, least, above_mean), rows, ratings, 3))

    assert lowest(None, None) == [-np.inf, -np.inf, -np.inf]
    assert lowest(3.0, None) == [3.0, 3.0, 3.0]
    assert lowest(None, 0.25) == [2.25, 4.75, -np.inf]
    assert lowest(3.0, 0.25) == [3.0, 4.75, 3.0]


def sides(rng: np.random.Generator, count: int, constant: float) -> RatingSide:
    factors = rng.normal(0.7, 0.5, (count, 4)).astype(np.float32)
    trust = constant + rng.normal(0, 0.3, count)
    trust[rng.random(count) < 0.2] = -np.inf
    factors[np.isinf(trust)] = 0
    return RatingSide(factors, np.round(rng.normal(constant * 3, 0.3, count), 2), trust)


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 2**32 - 1), step=st.sampled_from([0.0, 0.5, 1e-3]))
def test_movies_below_the_lowest_rating_are_those_whose_published_rating_is(seed: int, step: float) -> None:
    # The lowest ratings are ratings that are predicted, or off the scale, where a rounded digit decides.
    rng = np.random.default_rng(seed)
    users, movies = sides(rng, 6, 1.0), sides(rng, 400, 0.0)
    rows, places = np.divmod(np.arange(6 * 400), 400)
    ratings = predicted_ratings(users, movies, rows, places, SCALE).reshape(6, 400)
    lowest = np.array([*(rng.choice(ratings[user]) + step for user in range(3)), 0.5, 5.0, 5.2])
    found = RatingFloor(movies, SCALE).is_below(users, lowest, 40, 390)
    assert found.tolist() == (ratings[:, 40:390] < lowest[:, None]).tolist()
    assert not found[3].any()
    assert found[5].all()


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.sampled_from([1, 5, 150]),
    movies=st.sampled_from([1, 300, CHUNK + 900]),
    share=st.sampled_from([0.02, 0.5, 1.0]),
    height=st.sampled_from([-np.inf, 3.0, 4.0, 4.9, 6.0]),
)
def test_lists_are_the_top_of_what_is_left(seed: int, n: int, movies: int, share: float, height: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = np.zeros((movies, 5), dtype=np.float32)
    vectors[:, :3] = rng.normal(size=(movies, 3)) * np.exp(-2 * rng.random((movies, 1)))
    vectors[:, 4] = rng.integers(0, 50, movies)
    unrated = rng.random(movies) < 0.1
    vectors[unrated, :3], vectors[unrated, 3] = 0.0, LAST
    users = np.zeros((5, 5), dtype=np.float32)
    users[:, :3], users[:, 3] = rng.normal(size=(5, 3)), 1.0
    users[4] = [0, 0, 0, 1, 1]
    of_movies, of_users = sides(rng, movies, 0.0), sides(rng, 5, 1.0)
    is_chosen = rng.random(movies) < share
    lowest = height + rng.normal(0, 0.2, 5)
    seen_users, seen_movies = rng.integers(0, 5, movies), rng.permutation(movies)
    candidates = Candidates(np.arange(movies, dtype=np.int32), vectors, is_chosen=is_chosen, ratings=of_movies)
    top = TopN(candidates, n, 5, SCALE)
    rows, positions, places, _ = top(users, seen_users, seen_movies, UserRatings(of_users, lowest))

    scores = np.round(users.astype(np.float64) @ vectors.T, 6)
    scores[:, unrated] = LAST
    pairs = np.divmod(np.arange(5 * movies), movies)
    ratings = predicted_ratings(of_users, of_movies, *pairs, SCALE).reshape(5, movies)
    is_left = is_chosen[None, :] & (ratings >= lowest[:, None])
    is_left[seen_users, seen_movies] = False
    for user in range(5):
        left = np.flatnonzero(is_left[user])
        best = left[np.lexsort((left, -scores[user, left]))][:n]
        assert places[rows == user].tolist() == best.tolist()
        assert positions[rows == user].tolist() == list(range(1, len(best) + 1))


@pytest.mark.parametrize("size", [2, 100])
def test_restricted_lists_end_to_end_in_any_blocks(spark: SparkSession, size: int) -> None:
    """User 1 rates 3 on average, user 2 has no factors at all. Movies 2 and 5 are not chosen, movie 6 is seen."""
    ids = np.arange(1, 8, dtype=np.int32)
    vectors = np.array([[movie, 0, 10 * movie] for movie in range(1, 8)], dtype=np.float32)
    ratings = RatingSide(
        np.zeros((7, 1), dtype=np.float32), np.array([1.0, 1.0, 0.2, -1.0, 1.0, 1.0, -0.1]), np.full(7, -np.inf)
    )
    is_chosen = np.array([True, False, True, True, False, True, True])
    blocks = [
        Candidates(ids[part], vectors[part], is_chosen=is_chosen[part], ratings=ratings[part])
        for part in (slice(first, first + size) for first in range(0, 7, size))
    ]
    users = spark.createDataFrame([(1, [1.0])], "userId INT, features ARRAY<FLOAT>")
    seen = spark.createDataFrame([(1, 6, 4.0), (1, 99, 2.0), (2, 6, None)], "userId INT, movieId INT, rating DOUBLE")
    biases = spark.createDataFrame([(1, 0.0, 2)], "userId INT, user_bias DOUBLE, rating_count LONG")
    models = Models(
        FitSettings(ImplicitAls(rank=1), ExplicitAls(rank=1), Biases(), 1),
        Factors(1, users.selectExpr("userId AS id", "features"), users.selectExpr("userId AS id", "features").limit(0)),
        Factors(1, users.selectExpr("userId AS id", "features").limit(0), users.limit(0)),
        BiasModel(3.0, biases, biases.limit(0)),
    )

    def lists(least: float | None, above_mean: float | None) -> list[tuple[int, int, int, float]]:
        predict = models.predict(RatingModel(3.0, SCALE, 0.0, 0.0, 0.0, least, above_mean))
        top = recommend(spark, users, seen, CandidateBlocks.of(*blocks), 3, 2, None, predict, everyone=True)
        return sorted((*tuple(row)[:3], row.predicted_rating) for row in top.collect())

    assert lists(None, None) == [
        *((1, 1, 7, 2.9), (1, 2, 4, 2.0), (1, 3, 3, 3.2)),
        *((2, 1, 7, 2.9), (2, 2, 4, 2.0), (2, 3, 3, 3.2)),
    ]
    assert lists(2.5, None) == [
        *((1, 1, 7, 2.9), (1, 2, 3, 3.2), (1, 3, 1, 4.0)),
        *((2, 1, 7, 2.9), (2, 2, 3, 3.2), (2, 3, 1, 4.0)),
    ]
    # User 2 has no mean, so nothing is below it.
    assert lists(None, 0.0) == [(1, 1, 3, 3.2), (1, 2, 1, 4.0), *((2, 1, 7, 2.9), (2, 2, 4, 2.0), (2, 3, 3, 3.2))]
    assert lists(3.5, 0.0) == [(1, 1, 1, 4.0), (2, 1, 1, 4.0)]
