from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_app.model.catalogue import Catalogue
from spark_app.model.topn import TopN


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
    top = TopN(Catalogue(np.arange(len(scores), dtype=np.int32), vectors), n, 1)
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
    catalogue = Catalogue(np.arange(1, 1001, dtype=np.int32), movies)
    nothing = np.zeros(0, dtype=np.int64)

    def lists(block: int) -> list[tuple[int, float]]:
        top = TopN(catalogue, 10, block)
        found = [top(users[first : first + block], nothing, nothing) for first in range(0, 32, block)]
        return [pair for _, _, places, scores in found for pair in zip(places.tolist(), scores.tolist(), strict=True)]

    assert lists(1) == lists(32)
    assert lists(7) == lists(32)
