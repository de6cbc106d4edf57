from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession

from spark_app.data.features import features

DAY_1, DAY_2 = datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 2, tzinfo=UTC)


def as_table(rows: list[tuple[int, int | None, list[str]]]) -> pa.Table:
    ids, years, genres = zip(*rows, strict=True)
    return pa.table(
        {
            "movieId": pa.array(ids, pa.int32()),
            "year": pa.array(years, pa.int32()),
            "genres": pa.array(genres, pa.list_(pa.string())),
        }
    )


@pytest.fixture(scope="module")
def movies() -> pa.Table:
    return as_table([(4, 2001, ["War"]), (1, 1999, ["Comedy", "Drama", "Comedy"]), (2, 2000, ["Drama"]), (3, None, [])])


@pytest.fixture(scope="module")
def ratings(spark: SparkSession) -> DataFrame:
    rows = [(7, 1, 5.0, DAY_1), (7, 2, 2.0, DAY_2), (7, 3, 2.0, DAY_2), (8, 1, 4.0, DAY_2)]
    return spark.createDataFrame(rows, "userId int, movieId int, rating double, timestamp timestamp")


def test_features_of_users(ratings: DataFrame, movies: pa.Table) -> None:
    seven, eight = features(ratings, movies).users.orderBy("userId").collect()
    assert (seven.rating_count, seven.average_rating) == (3, 3.0)
    assert seven.rating_stddev == pytest.approx(3**0.5)  # deviations 2, -1, -1
    assert seven.last_rated - seven.first_rated == DAY_2 - DAY_1
    assert seven.favourite_genres == ["Comedy", "Drama"]  # 2 above the average; 2 - 1 above it
    assert (eight.rating_count, eight.rating_stddev, eight.favourite_genres) == (1, None, [])


def test_features_of_movies_have_a_row_for_those_that_nobody_rated(ratings: DataFrame, movies: pa.Table) -> None:
    found = features(ratings, movies).movies.select(["movieId", "year", "rating_count", "average_rating"])
    assert [tuple(row.values()) for row in found.to_pylist()] == [
        (1, 1999, 2, 4.5),
        (2, 2000, 1, 2.0),
        (3, None, 1, 2.0),
        (4, 2001, 0, None),
    ]


def test_values_and_months_are_counted(ratings: DataFrame, movies: pa.Table) -> None:
    found = features(ratings, movies)
    assert list(found.values.items()) == [(2.0, 2), (4.0, 1), (5.0, 1)]
    assert found.months == {"2020-01": (4, 2)}


def test_without_times_there_are_no_months(spark: SparkSession, movies: pa.Table) -> None:
    rows = [(7, 1, 5.0, None), (8, 9, 3.0, None)]
    undated = spark.createDataFrame(rows, "userId int, movieId int, rating double, timestamp timestamp")
    found = features(undated, movies)
    assert found.months == {}
    assert [(row.userId, row.first_rated) for row in found.users.orderBy("userId").collect()] == [(7, None), (8, None)]


def test_months_are_those_of_utc_and_may_lie_before_1970(spark: SparkSession, movies: pa.Table) -> None:
    times = [datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC), DAY_1, DAY_2]
    rows = [(user, 1, 4.0, time) for user, time in zip((7, 8, 8), times, strict=True)]
    dated = spark.createDataFrame(rows, "userId int, movieId int, rating double, timestamp timestamp")
    before = spark.conf.get("spark.sql.session.timeZone")
    spark.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
    try:
        found = features(dated, movies).months
    finally:
        spark.conf.set("spark.sql.session.timeZone", str(before))
    assert found == {"1969-12": (1, 1), "2020-01": (2, 1)}


@pytest.mark.parametrize("chunk_rows", [7, 1_000_000])
def test_sums_of_many_tasks_add_up(spark: SparkSession, monkeypatch: pytest.MonkeyPatch, chunk_rows: int) -> None:
    """Against numpy, on ratings of negative and large ids that lie in any order."""
    monkeypatch.setattr("spark_app.data.features.CHUNK_ROWS", chunk_rows)
    rng = np.random.default_rng(chunk_rows)
    users, movie_ids = rng.choice([-5, 0, 3, 2**31 - 1], 300), rng.choice([-9, 1, 2, 2**31 - 1], 300)
    values = rng.integers(1, 11, 300) / 2
    rows = list(zip(users.tolist(), movie_ids.tolist(), values.tolist(), [DAY_1] * 300, strict=True))
    schema = "userId int, movieId int, rating double, timestamp timestamp"
    ratings = spark.createDataFrame(rows, schema).repartition(5)
    genres = {-9: ["B"], 1: ["A", "B"], 2: [], 2**31 - 1: ["C"]}
    found = features(ratings, as_table([(movie, 2000, of) for movie, of in genres.items()]))
    for row in found.users.collect():
        own = values[users == row.userId]
        assert (row.rating_count, row.average_rating) == (len(own), own.mean())
        assert row.rating_stddev == pytest.approx(own.std(ddof=1))
        fondness = {
            genre: sum(
                value - own.mean()
                for user, movie, value in zip(users, movie_ids, values, strict=True)
                if user == row.userId and genre in genres[movie]
            )
            for genre in "ABC"
        }
        liked = sorted((-round(sum_, 6), genre) for genre, sum_ in fondness.items() if round(sum_, 6) > 0)
        assert row.favourite_genres == [genre for _, genre in liked]
    assert dict(zip(*found.movies.select(["movieId", "rating_count"]).to_pydict().values(), strict=True)) == {
        movie: int((movie_ids == movie).sum()) for movie in genres
    }
