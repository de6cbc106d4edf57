from __future__ import annotations

import numpy as np
from chispa import assert_approx_df_equality, assert_df_equality
from pyspark.sql import DataFrame, SparkSession

from spark_app.data.aggregates import added, final_movies, movie_stats, rating_sums, sums_of

STATS = "movieId int, rating_count long, average_rating double, damped_rating double"


def movies(spark: SparkSession) -> DataFrame:
    return spark.createDataFrame([(1,), (2,), (3,)], "movieId int")


def sums(spark: SparkSession) -> DataFrame:
    """The sums of ratings whose mean is 4.0."""
    return rating_sums(spark.createDataFrame([(1, 4.0), (1, 5.0), (2, 3.0)], "movieId int, rating double"))


def test_sums_in_memory_are_those_of_a_table(spark: SparkSession) -> None:
    parts = [([2, 1], [3.0, 4.0]), ([], []), ([1], [5.0])]
    of_parts = [sums_of(np.array(ids, dtype=np.int32), np.array(values)) for ids, values in parts]
    expected = [
        {"movieId": 1, "rating_sum": 9.0, "rating_count": 2},
        {"movieId": 2, "rating_sum": 3.0, "rating_count": 1},
    ]
    assert added(of_parts).to_pylist() == expected
    assert [row.asDict() for row in sums(spark).orderBy("movieId").collect()] == expected
    assert added([]).num_rows == 0


def test_sums_of_movies_with_any_ids() -> None:
    high = sums_of(np.array([2**31 - 1, -5, 2**31 - 1], dtype=np.int32), np.array([1.0, 2.0, 4.0]))
    assert [tuple(row.values()) for row in high.to_pylist()] == [(-5, 2.0, 1), (2**31 - 1, 5.0, 2)]


def test_stats_have_a_row_a_movie_rated_or_not(spark: SparkSession) -> None:
    expected = [(1, 2, 4.5, 17 / 4), (2, 1, 3.0, 11 / 3), (3, 0, None, 4.0)]
    found = movie_stats(movies(spark), sums(spark), damping=2.0)
    assert_approx_df_equality(
        found, spark.createDataFrame(expected, STATS), 1e-12, ignore_nullable=True, ignore_row_order=True
    )


def test_without_damping_the_damped_rating_is_the_average(spark: SparkSession) -> None:
    expected = [(1, 2, 4.5, 4.5), (2, 1, 3.0, 3.0), (3, 0, None, None)]
    found = movie_stats(movies(spark), sums(spark), damping=0.0)
    assert_df_equality(found, spark.createDataFrame(expected, STATS), ignore_nullable=True, ignore_row_order=True)


def test_without_ratings_every_movie_has_count_0_and_no_average(spark: SparkSession) -> None:
    nothing = sums(spark).filter("rating_count < 0")
    expected = [(1, 0, None, None), (2, 0, None, None), (3, 0, None, None)]
    found = movie_stats(movies(spark), nothing, damping=10.0)
    assert_df_equality(found, spark.createDataFrame(expected, STATS), ignore_nullable=True, ignore_row_order=True)


def test_final_table_is_ordered_by_movie_with_genres_as_text(spark: SparkSession) -> None:
    described = spark.createDataFrame(
        [(10, "Alien (1979)", 1979, ["Horror", "Sci-Fi"]), (2, "Unseen", None, [])],
        "movieId int, title string, year int, genres array<string>",
    )
    stats = spark.createDataFrame([(10, 3, 4.0, 3.9), (2, 0, None, 3.5)], STATS)
    expected = [(2, "Unseen", "", None, 0, None, 3.5), (10, "Alien (1979)", "Horror|Sci-Fi", 4.0, 3, 1979, 3.9)]
    schema = (
        "movieId int, title string, genres string, average_rating double, rating_count long, year int, "
        "damped_rating double"
    )
    assert_df_equality(final_movies(described, stats), spark.createDataFrame(expected, schema), ignore_nullable=True)
