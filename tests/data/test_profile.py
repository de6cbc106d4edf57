from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pyspark.sql import SparkSession

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


def test_the_average_rating_is_that_of_all_ratings(spark: SparkSession) -> None:
    schema = "average_rating double, rating_count long"
    features = spark.createDataFrame([(4.0, 3), (2.0, 1)], schema)
    assert profile.average_rating(features) == 3.5
    assert profile.average_rating(spark.createDataFrame([], schema)) is None


def test_counts_go_by_powers_of_two() -> None:
    counts = dict.fromkeys([0.2, 1.0, 2.0, 3.0, 4.0, 7.5, 1024.0], 1)
    expected = {"<1": 1, "1": 1, "2-3": 2, "4-7": 2, "1024-2047": 1}
    assert list(profile.rating_histogram(counts, "counts").items()) == list(expected.items())


def test_without_times_there_are_no_months(spark: SparkSession) -> None:
    features = spark.createDataFrame([(None,)], "first_rated timestamp")
    assert profile.months({}, features, features) == []


def test_genres_and_decades(spark: SparkSession) -> None:
    movies = spark.createDataFrame(
        [(1, ["War"]), (2, ["War", "Drama"]), (3, ["Noir"])], "movieId int, genres array<string>"
    )
    features = spark.createDataFrame(
        [(1, 1999, 1, 4.0), (2, 1990, 3, 2.0), (3, None, 0, None)],
        "movieId int, year int, rating_count bigint, average_rating double",
    )
    assert list(profile.genres(movies, features).items()) == [
        ("War", {"movies": 2, "ratings": 4, "average_rating": 2.5}),
        ("Drama", {"movies": 1, "ratings": 3, "average_rating": 2.0}),
        ("Noir", {"movies": 1, "ratings": 0, "average_rating": None}),
    ]
    assert profile.decades(features) == {"1990s": {"movies": 2, "ratings": 4}}


def test_months_are_those_of_utc_whatever_the_session_says(spark: SparkSession) -> None:
    last_second = datetime(2020, 1, 31, 23, 59, 59, tzinfo=UTC)
    ratings = spark.createDataFrame(
        [(1, 10, last_second), (2, 10, last_second), (1, 11, datetime(2020, 3, 1, tzinfo=UTC))],
        "userId int, movieId int, timestamp timestamp",
    )
    of_users = ratings.groupBy("userId").agg({"timestamp": "min"}).withColumnRenamed("min(timestamp)", "first_rated")
    of_movies = ratings.groupBy("movieId").agg({"timestamp": "min"}).withColumnRenamed("min(timestamp)", "first_rated")
    before = spark.conf.get("spark.sql.session.timeZone")
    spark.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
    try:
        found = profile.months({"2020-01": (2, 2), "2020-03": (1, 1)}, of_users, of_movies)
    finally:
        spark.conf.set("spark.sql.session.timeZone", str(before))
    assert found == [
        {"month": "2020-01", "ratings": 2, "active_users": 2, "new_users": 2, "new_movies": 1},
        {"month": "2020-03", "ratings": 1, "active_users": 1, "new_users": 0, "new_movies": 1},
    ]
