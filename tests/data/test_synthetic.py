from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from spark_app.data import synthetic

HALF_STARS = {"0.5", "1.0", "1.5", "2.0", "2.5", "3.0", "3.5", "4.0", "4.5", "5.0"}


def generate(users: int, movies: int, ratings: int, seed: int = 42) -> pa.Table:
    world = synthetic.make_world(users, movies, ratings, seed)
    return pa.concat_tables(synthetic.rating_chunks(world, seed))


def different_pairs(ratings: pa.Table) -> int:
    return len(set(zip(ratings["userId"].to_pylist(), ratings["movieId"].to_pylist(), strict=True)))


@pytest.mark.parametrize(
    ("users", "movies", "ratings"),
    [
        (1_000, 500, 20_000),
        (20, 10, 100),  # half of all pairs, the maximum
        (50, 400, 10_000),  # the same, with users who draw nearly every movie
        (10, 10, 10),  # one each, the minimum
        (1, 2, 1),
        (3, 100_000, 1_000),  # many more movies than ratings
    ],
)
def test_exactly_as_many_ratings_as_asked_for_and_no_pair_twice(users: int, movies: int, ratings: int) -> None:
    found = generate(users, movies, ratings)
    assert found.num_rows == ratings
    assert different_pairs(found) == ratings
    assert set(found["userId"].to_pylist()) == set(range(1, users + 1))
    assert set(found["movieId"].to_pylist()) <= set(range(1, movies + 1))


def test_ratings_are_half_stars_at_plausible_times_in_the_order_of_users() -> None:
    found = generate(500, 200, 10_000)
    assert set(map(str, found["rating"].to_pylist())) == HALF_STARS
    users, seconds = found["userId"].to_numpy(), found["timestamp"].to_numpy()
    assert (np.diff(users) >= 0).all()
    assert seconds.min() >= 820_454_400
    assert seconds.max() < 1_735_689_600


def test_chunks_together_are_all_ratings_whatever_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "CHUNK_RATINGS", 300)
    world = synthetic.make_world(200, 100, 3_000, seed=1)
    chunks = list(synthetic.rating_chunks(world, seed=1))
    assert len(chunks) > 5
    assert different_pairs(pa.concat_tables(chunks)) == 3_000


def test_one_seed_gives_one_set() -> None:
    assert generate(200, 100, 2_000, seed=7).equals(generate(200, 100, 2_000, seed=7))
    assert not generate(200, 100, 2_000, seed=7).equals(generate(200, 100, 2_000, seed=8))


def gini(counts: np.ndarray) -> float:
    ordered, count = np.sort(counts), len(counts)
    return float(((2 * np.arange(1, count + 1) - count - 1) @ ordered) / (count * ordered.sum()))


def test_movies_have_the_long_tail_of_movielens() -> None:
    # As sparse as 8,000 users leave it; of MovieLens 25M: 0.942, half of the movies 6 ratings of a mean of 423, 50 %.
    found = generate(8_000, 12_000, 400_000)
    ratings = np.bincount(found["movieId"].to_numpy())
    rated = ratings[ratings > 0]
    assert 0.85 < gini(rated) < 0.95
    assert np.median(rated) <= 0.1 * rated.mean()
    assert rated.min() == 1
    assert 0.4 < rated.max() / 8_000 < 0.51
    assert 0.3 < 1 - len(rated) / 12_000 < 0.6, "of rare movies some have no rating"


def test_a_movie_in_twenty_has_no_rating_however_many_there_are() -> None:
    found = generate(1_000, 400, 100_000)
    assert len(set(found["movieId"].to_pylist())) == pytest.approx(0.946 * 400, abs=1)


def test_users_are_as_active_as_those_of_movielens() -> None:
    # Of MovieLens 25M: the least have 20, half 71 or fewer, of a mean of 153.8.
    found = generate(8_000, 12_000, 400_000)
    ratings = np.bincount(found["userId"].to_numpy())[1:]
    assert ratings.mean() == 50
    assert ratings.min() / 50 == pytest.approx(20 / 153.8, abs=0.03)
    assert np.median(ratings) / 50 == pytest.approx(71 / 153.8, abs=0.05)
    assert ratings.max() > 50 * 50


def test_stars_are_given_as_often_as_in_movielens() -> None:
    stars = np.array(generate(1_000, 2_000, 100_000)["rating"].cast(pa.float64()))
    given = np.bincount((stars * 2).astype(int), minlength=11)[1:] / len(stars)
    assert given == pytest.approx(np.array(synthetic.HALF_STAR_SHARES), abs=0.02)
    assert stars.mean() == pytest.approx(3.53, abs=0.1)


def test_movies_have_a_title_with_year_and_known_genres() -> None:
    table = synthetic.movie_rows(synthetic.make_world(10, 300, 100, seed=3), seed=3)
    assert table["movieId"].to_pylist() == list(range(1, 301))
    titles = table["title"].to_pylist()
    assert len(set(titles)) == 300
    assert all(1930 <= int(title[-5:-1]) < 2025 and title[-6] + title[-1] == "()" for title in titles)
    assert any("," in title for title in titles)
    assert {genre for genres in table["genres"].to_pylist() for genre in genres.split("|")} <= set(synthetic.GENRES)


@pytest.mark.parametrize("ratings", [9, 101])
def test_a_number_of_ratings_that_does_not_fit_is_refused(ratings: int) -> None:
    with pytest.raises(ValueError, match=r"must be from users") as caught:
        synthetic.make_world(10, 20, ratings, seed=1)
    assert str(caught.value) == f"ingest.ratings={ratings} must be from users (10) to half of users x movies (100)"
