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


def test_movies_and_users_have_long_tails() -> None:
    found = generate(1_000, 1_000, 50_000)
    for column in ("movieId", "userId"):
        counts = np.sort(np.bincount(found[column].to_numpy(), minlength=1_001)[1:])[::-1]
        assert counts[:100].sum() > 0.25 * 50_000, f"the upper tenth by {column} has a large share"
        assert counts[500:].sum() < 0.3 * 50_000, f"the lower half by {column} has a small one"


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
