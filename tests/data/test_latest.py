from __future__ import annotations

import numpy as np
import pytest

from spark_app.data.latest import Ratings, joined, latest


def ratings(*rows: tuple[int, int, float, int]) -> Ratings:
    """Ratings of user, movie, rating, time in microseconds."""
    users, movies, values, times = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Ratings(
        np.array(users, dtype=np.int32),
        np.array(movies, dtype=np.int32),
        np.array(values, dtype=np.float64),
        (np.array(times, dtype=np.int64),),
    )


def rows_of(found: Ratings, summed: bool = False) -> list[tuple[int, int, float, int]]:
    table = latest(found, has_times=True, summed=summed).to_pydict()
    times = (int(time.timestamp() * 1_000_000) for time in table["timestamp"])
    return list(zip(table["userId"], table["movieId"], table["rating"], times, strict=True))


def test_rows_are_in_the_order_of_user_and_movie() -> None:
    assert rows_of(ratings((2, 1, 1.0, 5), (-3, 7, 2.0, 5), (1, 9, 3.0, 5), (1, 2, 4.0, 5))) == [
        (-3, 7, 2.0, 5),
        (1, 2, 4.0, 5),
        (1, 9, 3.0, 5),
        (2, 1, 1.0, 5),
    ]


def test_the_latest_and_then_the_highest_rating_is_kept() -> None:
    found = ratings((1, 1, 5.0, 10), (1, 1, 2.0, 20), (1, 1, 3.0, 20), (1, 1, 1.0, 20), (1, 2, 4.0, 1))
    assert rows_of(found) == [(1, 1, 3.0, 20), (1, 2, 4.0, 1)]


def test_counts_are_summed() -> None:
    assert rows_of(ratings((1, 1, 5.0, 10), (2, 1, 7.0, 1), (1, 1, 2.0, 20)), summed=True) == [
        (1, 1, 7.0, 20),
        (2, 1, 7.0, 1),
    ]


def test_without_times_the_last_delivered_is_kept() -> None:
    found = Ratings(
        np.array([1, 1, 1, 2], dtype=np.int32),
        np.array([1, 1, 1, 1], dtype=np.int32),
        np.array([5.0, 2.0, 3.0, 1.0]),
        (np.array([0, 1, 1, 0], dtype=np.int32), np.array([900, 10, 30, 5], dtype=np.int64)),
    )
    table = latest(found, has_times=False).to_pydict()
    assert table == {"userId": [1, 2], "movieId": [1, 1], "rating": [3.0, 1.0], "timestamp": [None, None]}


@pytest.mark.parametrize("parts", [1, 3, 8])
def test_pieces_hold_every_rating_once_and_each_user_in_one_part(parts: int) -> None:
    rng = np.random.default_rng(parts)
    found = ratings(*((int(user), int(user) % 7, 1.0, int(user)) for user in rng.integers(-50, 50, 200)))
    pieces = list(found.pieces(parts))
    assert sum(rows for _, rows, _ in pieces) == len(found)
    again = [joined([packed], has_times=True) for _, _, packed in pieces]
    users = [set(part.users.tolist()) for part in again]
    assert sum(len(of_part) for of_part in users) == len(set(found.users.tolist()))
    whole = joined([packed for _, _, packed in pieces], has_times=True)
    assert rows_of(whole) == rows_of(found)


@pytest.mark.parametrize(
    ("values", "times", "width"),
    [
        ([0.5, 5.0, 127.5, -0.0], [0, 1_000_000, -2_000_000, (2**31 - 1) * 1_000_000], 13),
        ([0.5, 128.0, 1.25, -3.0], [0, 1, -1, 5], 20),
        ([0.1, 1e300, -7.3, 4.0], [2**62, -(2**62), 10**15, 0], 24),
        ([float("inf"), 1.0, 2.0, 3.0], [2**31 * 1_000_000, 0, 0, 0], 20),
    ],
)
def test_pieces_are_small_and_give_the_same_values_back(values: list[float], times: list[int], width: int) -> None:
    found = ratings(*((user, -user, value, time) for user, (value, time) in enumerate(zip(values, times, strict=True))))
    ((_, rows, packed),) = found.pieces(1)
    assert len(packed) == 4 + rows * width
    again = joined([packed, packed], has_times=True)
    for before, after in (
        (found.users, again.users),
        (found.movies, again.movies),
        (found.ratings, again.ratings),
        (found.recency[0], again.recency[0]),
    ):
        assert after.dtype == before.dtype
        np.testing.assert_array_equal(after, np.tile(before, 2))


def test_nothing_is_made_of_nothing() -> None:
    assert rows_of(ratings()) == []
    assert list(ratings().pieces(4)) == []
    assert len(joined([], has_times=False)) == 0
