from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_app.model.candidates import LAST, Candidates
from spark_app.model.topn import CHUNK, TopN


@settings(deadline=None, max_examples=150)
@given(
    base=st.sampled_from([0.0, 0.25, 1.0, -1.0]),
    steps=st.lists(st.integers(-30, 30), min_size=100, max_size=400),
    n=st.integers(1, 5),
)
def test_scores_that_agree_in_six_decimals_are_ties(base: float, steps: list[int], n: int) -> None:
    # Scores a tenth of the sixth decimal apart; a user with the single factor 1 has the movie's factor as score.
    scores = np.array([base + step * 1e-7 for step in steps], dtype=np.float32)
    vectors = np.stack([scores, np.zeros_like(scores), np.zeros_like(scores)], axis=1)
    top = TopN(Candidates(np.arange(len(scores), dtype=np.int32), vectors), n, 1)
    nothing = np.zeros(0, dtype=np.int64)
    _, positions, places, found = top(np.array([[1, 1, 0]], dtype=np.float32), nothing, nothing)
    best = sorted(range(len(scores)), key=lambda place: (-np.round(float(scores[place]), 6), place))[:n]
    assert places.tolist() == best
    assert positions.tolist() == list(range(1, n + 1))
    assert found.tolist() == [np.round(float(scores[place]), 6) for place in best]


def test_scores_do_not_depend_on_the_users_that_share_a_block() -> None:
    rng = np.random.default_rng(0)
    movies = np.zeros((1000, 66), dtype=np.float32)
    movies[:, :64] = rng.normal(size=(1000, 64)) / 8
    users = np.zeros((32, 66), dtype=np.float32)
    users[:, :64] = rng.normal(size=(32, 64)) / 8
    users[:, 64] = 1
    candidates = Candidates(np.arange(1, 1001, dtype=np.int32), movies)
    nothing = np.zeros(0, dtype=np.int64)

    def lists(block: int) -> list[tuple[int, float]]:
        top = TopN(candidates, 10, block)
        found = [top(users[first : first + block], nothing, nothing) for first in range(0, 32, block)]
        return [pair for _, _, places, scores in found for pair in zip(places.tolist(), scores.tolist(), strict=True)]

    assert lists(1) == lists(32)
    assert lists(7) == lists(32)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), n=st.sampled_from([1, 10, 200]), spread=st.sampled_from([0.0, 1.0, 3.0]))
def test_lists_over_many_chunks_are_those_of_a_full_sort(seed: int, n: int, spread: float) -> None:
    # With a spread the factors of most movies are short, so that most chunks are left out for most users.
    rng = np.random.default_rng(seed)
    movies = np.zeros((2 * CHUNK + 700, 6), dtype=np.float32)
    movies[:, :4] = rng.normal(size=(len(movies), 4)) * np.exp(-spread * rng.random((len(movies), 1)))
    movies[:, 5] = rng.integers(0, 1000, len(movies))
    unrated = rng.random(len(movies)) < 0.1
    movies[unrated, :4], movies[unrated, 4] = 0.0, LAST
    users = np.zeros((5, 6), dtype=np.float32)
    users[:, :4], users[:, 4] = rng.normal(size=(5, 4)), 1.0
    users[4] = [0, 0, 0, 0, 1, 1]
    seen_users, seen_movies = rng.integers(0, 5, 4000), rng.permutation(len(movies))[:4000]
    top = TopN(Candidates(np.arange(len(movies), dtype=np.int32), movies), n, 5)
    rows, _, places, _ = top(users, seen_users, seen_movies)
    scores = np.round(users.astype(np.float64) @ movies.T, 6)
    scores[:, unrated] = LAST
    scores[seen_users, seen_movies] = -np.inf
    for user in range(5):
        best = np.lexsort((np.arange(len(movies)), -scores[user]))[:n]
        assert places[rows == user].tolist() == best.tolist()
