from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession

from spark_app.data.aggregates import SUMS, added, final_movies, movie_stats, rating_sums, sums_of

MOVIES = pa.array([1, 2, 3], pa.int32())

SUMS_OF_TWO = sums_of(np.array([1, 1, 2], dtype=np.int32), np.array([4.0, 5.0, 3.0]))
"""The sums of ratings whose mean is 4.0; movie 3 has none."""


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


def stats(sums: pa.Table, damping: float) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in movie_stats(MOVIES, sums, damping).to_pylist()]


def test_stats_have_a_row_a_movie_rated_or_not() -> None:
    expected = [(1, 2, 4.5, 17 / 4), (2, 1, 3.0, 11 / 3), (3, 0, None, 4.0)]
    assert stats(SUMS_OF_TWO, damping=2.0) == expected


def test_stats_have_the_types_of_their_table() -> None:
    types = {"movieId": pa.int32(), "rating_count": pa.int64(), "average_rating": pa.float64()}
    assert dict(zip(*_schema(movie_stats(MOVIES, SUMS_OF_TWO, 2.0)), strict=True)) == types | {
        "damped_rating": pa.float64()
    }


def _schema(table: pa.Table) -> tuple[list[str], list[pa.DataType]]:
    return table.schema.names, table.schema.types


def test_without_damping_the_damped_rating_is_the_average() -> None:
    assert stats(SUMS_OF_TWO, damping=0.0) == [(1, 2, 4.5, 4.5), (2, 1, 3.0, 3.0), (3, 0, None, None)]


@pytest.mark.parametrize("damping", [0.0, 10.0])
def test_without_ratings_every_movie_has_count_0_and_no_average(damping: float) -> None:
    expected = [(1, 0, None, None), (2, 0, None, None), (3, 0, None, None)]
    assert stats(SUMS.empty_table(), damping) == expected


def test_without_movies_there_are_no_stats() -> None:
    assert movie_stats(MOVIES[:0], SUMS.empty_table(), 10.0).num_rows == 0


def test_final_table_has_genres_as_text() -> None:
    described = pa.table(
        {
            "movieId": pa.array([2, 10], pa.int32()),
            "title": ["Unseen", "Alien (1979)"],
            "year": pa.array([None, 1979], pa.int32()),
            "genres": pa.array([[], ["Horror", "Sci-Fi"]], pa.list_(pa.string())),
        }
    )
    of_movies = pa.table(
        {
            "movieId": pa.array([2, 10], pa.int32()),
            "rating_count": [0, 3],
            "average_rating": [None, 4.0],
            "damped_rating": [3.5, 3.9],
        }
    )
    assert [tuple(row.values()) for row in final_movies(described, of_movies).to_pylist()] == [
        (2, "Unseen", "", None, 0, None, 3.5),
        (10, "Alien (1979)", "Horror|Sci-Fi", 4.0, 3, 1979, 3.9),
    ]
