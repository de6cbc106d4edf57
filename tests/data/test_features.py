from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pyspark.sql import DataFrame, SparkSession

from spark_app.data.features import movie_features, user_features

DAY_1, DAY_2 = datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 2, tzinfo=UTC)


@pytest.fixture(scope="module")
def movies(spark: SparkSession) -> DataFrame:
    rows = [(1, 1999, ["Comedy", "Drama"]), (2, 2000, ["Drama"]), (3, None, []), (4, 2001, ["War"])]
    return spark.createDataFrame(rows, "movieId int, year int, genres array<string>")


@pytest.fixture(scope="module")
def ratings(spark: SparkSession) -> DataFrame:
    rows = [(7, 1, 5.0, DAY_1), (7, 2, 2.0, DAY_2), (7, 3, 2.0, DAY_2), (8, 1, 4.0, DAY_2)]
    return spark.createDataFrame(rows, "userId int, movieId int, rating double, timestamp timestamp")


def test_features_of_users(ratings: DataFrame, movies: DataFrame) -> None:
    seven, eight = user_features(ratings, movies).orderBy("userId").collect()
    assert (seven.rating_count, seven.average_rating) == (3, 3.0)
    assert seven.rating_stddev == pytest.approx(3**0.5)  # deviations 2, -1, -1
    assert seven.last_rated - seven.first_rated == DAY_2 - DAY_1
    assert seven.favourite_genres == ["Comedy", "Drama"]  # 2 above the average; 2 - 1 above it
    assert (eight.rating_count, eight.rating_stddev, eight.favourite_genres) == (1, None, [])


def test_features_of_movies_have_a_row_for_those_that_nobody_rated(ratings: DataFrame, movies: DataFrame) -> None:
    rows = movie_features(ratings, movies).orderBy("movieId").collect()
    assert [(row.movieId, row.year, row.rating_count, row.average_rating) for row in rows] == [
        (1, 1999, 2, 4.5),
        (2, 2000, 1, 2.0),
        (3, None, 1, 2.0),
        (4, 2001, 0, None),
    ]
