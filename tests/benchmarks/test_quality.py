"""The comparison of quality: EASE against its definition, lists and figures by hand. No other library is needed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from benchmarks.quality import (
    OURS,
    PLANS,
    Judged,
    Part,
    Plan,
    as_markdown,
    best_places,
    best_unseen,
    figures,
    part_of,
    rating_pairs,
    scale_of,
    search,
    sources,
)
from benchmarks.quality_peers import Peer, Ratings, ease, popularity, weights_of
from spark_app.model.metrics import MovieFacts
from spark_app.platform.settings import Settings


def some_ratings(users: int, movies: int) -> Ratings:
    rng = np.random.default_rng(1)
    pairs = np.sort(rng.choice(users * movies, users * movies // 3, replace=False))
    return Ratings(pairs // movies, pairs % movies, rng.integers(1, 11, len(pairs)) / 2, (users, movies), 4.0)


@pytest.mark.parametrize(("users", "movies"), [(8, 20), (30, 12)])
@pytest.mark.parametrize("weighting", ["all", "graded"])
def test_ease_minimises_its_objective(users: int, movies: int, weighting: str) -> None:
    """Each column of B is a ridge regression of a movie on all others; so the diagonal of B is 0."""
    ratings, ridge = some_ratings(users, movies), 3.0
    x = np.zeros((users, movies))
    x[ratings.users, ratings.movies] = weights_of(ratings, weighting)
    rated = x.any(axis=0)
    expected = np.full((users, movies), -1e9)
    for movie in np.flatnonzero(rated):
        others = x[:, np.arange(movies) != movie]
        solved = np.linalg.solve(others.T @ others + ridge * np.eye(movies - 1), others.T @ x[:, movie])
        expected[:, movie] = others @ solved
    assert ease(ratings, weighting, ridge) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [("all", [1, 1, 1]), ("stars", [1, 3, 4]), ("graded", [1 / 16, 9 / 16, 1]), ("liked", [0, 1, 1])],
)
def test_a_rating_counts_by_its_stars_and_the_scale_of_its_set(weighting: str, expected: list[float]) -> None:
    ratings = Ratings(np.array([0, 0, 1]), np.array([0, 1, 1]), np.array([1.0, 3, 4]), (2, 2), 3.0)
    found = weights_of(ratings, weighting)
    assert found.tolist() == expected
    assert ratings.matrix(found).nnz == np.count_nonzero(expected)


def part(k: int = 2) -> Part:
    """Movies 10, 20, 30, 40. User 1 knows 10, 2 knows 10 and 20, 3 is cold. 1 likes 20, 2 and 3 like 30."""
    facts = MovieFacts(np.array([10, 20, 30, 40]), np.array([2.0, 1, 0, 0]), np.ones((4, 1), dtype=np.float32), 2)
    known = Ratings(np.array([0, 1, 1]), np.array([0, 0, 1]), np.array([4.0, 4, 4]), (3, 4), 4.0)
    judged = Ratings(np.array([0, 1, 1, 2]), np.array([1, 2, 3, 2]), np.array([5.0, 4, 1, 4.5]), (3, 4), 4.0)
    return Part(known, judged, np.array([1, 2, 3]), facts, k)


def test_lists_hold_the_best_unseen_movies_and_popular_ones_for_cold_users() -> None:
    scores = np.array([[9, 1, 5, 5], [9, 9, 1, 2], [0, 0, 1, 2]], dtype=np.float32)
    listed = best_unseen(scores, part())
    assert listed.movies.reshape(3, 2).tolist() == [[30, 40], [40, 30], [10, 20]]
    assert part().wanted.movies.tolist() == [20, 30, 30]
    assert part().wanted.lengths.tolist() == [1, 1, 1]
    assert popularity(part().known).tolist() == [[2, 1, 0, 0]] * 3


def test_the_best_places_are_those_of_a_stable_sort_also_with_ties() -> None:
    assert best_places(np.array([[1, 3, 3, 2], [5, 5, 5, 5]], dtype=np.float32), 2).tolist() == [[1, 2], [0, 1]]
    scores = np.random.default_rng(1).integers(0, 4, (50, 30)).astype(np.float32)
    scores[:10, 5:] = -np.inf
    scores[10:20, 3:28] = np.nan
    for k in (1, 7, 30):
        assert best_places(scores, k).tolist() == np.argsort(-scores, axis=1, kind="stable")[:, :k].tolist()
    assert best_places(scores, 99).shape == (50, 30)


def test_a_search_runs_its_trials_or_one_where_there_is_nothing_to_search() -> None:
    tried: list[float] = []

    def objective(options: dict[str, float]) -> float:
        tried.append(options.get("x", 0.0))
        return (tried[-1] - 1) ** 2

    found = search(Peer("p", popularity, lambda trial: {"x": trial.suggest_float("x", 0, 4)}), 5, objective, "minimize")
    assert len(tried) == 5
    assert found["x"] == min(tried, key=lambda x: abs(x - 1))
    tried.clear()
    assert search(Peer("p", popularity, lambda _: {}), 5, objective, "minimize") == {}
    assert len(tried) == 1


def test_the_sets_are_those_beside_the_checkout_unless_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.quality.DATA", tmp_path)
    monkeypatch.delenv("MOVIELENS_DIR", raising=False)
    assert sources() == []
    for name in ("other", "ml-1m", "ml-latest-small"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ratings.csv").touch()
    assert sources() == [tmp_path / "ml-latest-small", tmp_path / "ml-1m"] == [tmp_path / name for name in PLANS]
    monkeypatch.setenv("MOVIELENS_DIR", str(tmp_path / "other"))
    assert sources() == [tmp_path / "other"]


@pytest.mark.parametrize(("stars", "scale"), [([4.5, 0.5, 5, 5, 4], (0.5, 5, 0.5)), ([5, 1, 3, 2, np.nan], (1, 5, 1))])
def test_the_scale_comes_from_the_ratings(stars: list[float], scale: tuple[float, float, float]) -> None:
    found = scale_of(np.array(stars))
    assert found == dict(zip(("scale_min", "scale_max", "scale_step"), scale, strict=True))
    assert Settings.model_validate({"input": found}).train.relevant == 4


def test_figures_add_up_over_splits_and_ours_is_ahead_by_the_difference() -> None:
    # Squared errors over two splits: ours 1 and 1 of user 1, 0 of user 2; theirs 4, 4 and 0.
    ours = Judged(
        {}, [np.array([1, 2]), np.array([1])], [np.array([[1.0, 1, 1], [0, 0, 1]]), np.array([[1.0, 1, 1]])], []
    )
    theirs = Judged(
        {"k": 3}, [np.array([1, 2]), np.array([1])], [np.array([[4.0, 2, 1], [0, 0, 1]]), np.array([[4.0, 2, 1]])], []
    )
    found = figures({OURS: ours, "them": theirs}, rating_pairs, "mse")
    assert found[OURS]["rmse"]["value"] == pytest.approx((2 / 3) ** 0.5)
    assert found["them"]["rmse"]["value"] == pytest.approx((8 / 3) ** 0.5)
    assert found["them"]["mae"]["value"] == pytest.approx(4 / 3)
    assert found["them"]["ahead"]["value"] == pytest.approx(-2)
    assert found["them"]["ahead"]["interval"] == pytest.approx([-3, 0])
    facts = {"k": 10, "date": "", "machine": "", "versions": {}}
    judged = {
        "ratings": 1234,
        "scale": {"scale_min": 1.0, "scale_max": 5.0, "scale_step": 0.5},
        "relevant": 4.0,
        "plan": asdict(Plan(trials=9)),
        "results": {"hash": {"rating": found}},
    }
    lines = as_markdown({"this": judged, "that": judged}, facts).splitlines()
    assert [line for line in lines if line.startswith("## ")] == ["## this", "## that"]
    assert lines.count("### hash: rating") == 2
    assert any(line.startswith("1,234 ratings from 1 to 5 by 0.5; 4 or more is relevant.") for line in lines)
    assert any("the best options of 9 trials on a validation part" in line for line in lines)
    rows = [line for line in lines if line.startswith("| ") and "_" not in line][1:]
    assert rows[0].startswith(f"| **{OURS}** | 0.8165 (")
    assert rows[1].startswith("| them | 1.6330 (")
    assert lines.count("- hash, rating, them: k 3") == 2


def test_a_split_becomes_arrays_in_the_order_of_users_and_movies(spark: SparkSession) -> None:
    schema = "userId INT, movieId INT, rating DOUBLE"
    known = spark.createDataFrame([(7, 30, 1.0), (5, 10, 4.0), (7, 10, 2.0)], schema)
    judged = spark.createDataFrame([(9, 20, 5.0), (7, 20, 3.0)], schema)
    movies = spark.createDataFrame([(m, ["Drama"]) for m in (30, 10, 20)], "movieId INT, genres ARRAY<STRING>")
    found = part_of(known, judged, movies, Settings())
    assert found.user_ids.tolist() == [5, 7, 9]
    assert (found.known.users.tolist(), found.known.movies.tolist()) == ([0, 1, 1], [0, 0, 2])
    assert (found.known.stars.tolist(), found.facts.popularity.tolist()) == ([4.0, 2.0, 1.0], [2, 0, 1])
    assert (found.judged.users.tolist(), found.judged.movies.tolist()) == ([1, 2], [1, 1])
    assert found.likers.tolist() == [2]
    assert found.facts.users == 2
