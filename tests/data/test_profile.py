from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from spark_app.data import profile


def test_concentration_of_equals_is_none() -> None:
    found = profile.concentration({5: 100})
    assert found["gini"] == pytest.approx(0)
    assert found["top_10_percent"] == pytest.approx(0.1)
    assert (found["min"], found["median"], found["max"]) == (5, 5, 5)


def test_concentration_where_one_of_ten_has_all() -> None:
    found = profile.concentration({0: 9, 50: 1})
    assert found["gini"] == pytest.approx(0.9)
    assert found["top_10_percent"] == pytest.approx(1)
    assert found["top_1_percent"] == pytest.approx(0.1)  # a tenth of one user
    assert (found["median"], found["p90"], found["max"]) == (0, 0, 50)


def test_concentration_of_nothing_is_empty() -> None:
    assert profile.concentration({}) == {}
    assert profile.concentration({0: 3}) == {}


def test_ratings_are_counted_lowest_first() -> None:
    assert list(profile.rating_histogram({4.0: 2, 0.5: 1}, "ratings").items()) == [("0.5", 1), ("4", 2)]


def test_ratings_that_read_alike_are_counted_together() -> None:
    assert profile.rating_histogram({3.9: 1, 3.9000000954: 1, 4.0: 1}, "ratings") == {"3.9": 2, "4": 1}


def activity(*rows: tuple[int, float | None, datetime | None]) -> profile.Activity:
    """The activity of users, or movies, with these numbers of ratings, averages and first times; a batch each."""
    types = (pa.int64(), pa.float64(), pa.timestamp("us", "UTC"))
    names = ["rating_count", "average_rating", "first_rated"]
    return profile.activity(
        pa.record_batch([pa.array([value], kind) for value, kind in zip(row, types, strict=True)], names)
        for row in rows
    )


def test_activity_is_summed_up_over_batches() -> None:
    last_second, march = datetime(2020, 1, 31, 23, 59, 59, tzinfo=UTC), datetime(2020, 3, 1, tzinfo=UTC)
    found = activity((3, 4.0, last_second), (1, 2.0, march), (0, None, None), (1, 2.0, last_second))
    assert list(found.holders.items()) == [(0, 1), (1, 2), (3, 1)]
    assert found.average_rating == 3.2
    assert found.arrivals == {"2020-01": 2, "2020-03": 1}
    assert activity() == profile.Activity({}, None, Counter())


def test_counts_go_by_powers_of_two() -> None:
    counts = dict.fromkeys([0.2, 1.0, 2.0, 3.0, 4.0, 7.5, 1024.0], 1)
    expected = {"<1": 1, "1": 1, "2-3": 2, "4-7": 2, "1024-2047": 1}
    assert list(profile.rating_histogram(counts, "counts").items()) == list(expected.items())


def test_genres_and_decades() -> None:
    genres = [["War"], ["War", "Drama"], ["Noir"], []]
    movies = pa.table({"movieId": [1, 2, 3, 4], "genres": pa.array(genres, pa.list_(pa.string()))})
    features = pa.table(
        {
            "movieId": [1, 2, 3, 4],
            "year": pa.array([1999, 1990, None, 2001], pa.int32()),
            "rating_count": [1, 3, 0, 0],
            "average_rating": [4.0, 2.0, None, None],
        }
    )
    assert list(profile.genres(movies, features).items()) == [
        ("War", {"movies": 2, "ratings": 4, "average_rating": 2.5}),
        ("Drama", {"movies": 1, "ratings": 3, "average_rating": 2.0}),
        ("Noir", {"movies": 1, "ratings": 0, "average_rating": None}),
    ]
    assert list(profile.decades(features).items()) == [
        ("1990s", {"movies": 2, "ratings": 4}),
        ("2000s", {"movies": 1, "ratings": 0}),
    ]
    assert profile.genres(movies[3:], features[3:]) == profile.decades(features[2:3]) == {}


def test_months_have_those_who_are_new() -> None:
    last_second, march = datetime(2020, 1, 31, 23, 59, 59, tzinfo=UTC), datetime(2020, 3, 1, tzinfo=UTC)
    active = {"1969-12": (1, 1), "2020-01": (2, 2), "2020-03": (1, 1)}
    users = activity((1, 3.0, last_second), (1, 3.0, last_second), (1, 3.0, None))
    movies = activity((1, 3.0, last_second), (2, 3.0, march))
    assert profile.months(active, users, movies) == [
        {"month": "1969-12", "ratings": 1, "active_users": 1, "new_users": 0, "new_movies": 0},
        {"month": "2020-01", "ratings": 2, "active_users": 2, "new_users": 2, "new_movies": 1},
        {"month": "2020-03", "ratings": 1, "active_users": 1, "new_users": 0, "new_movies": 1},
    ]
    assert profile.months({}, users, movies) == []
