from __future__ import annotations

import pyarrow as pa

from spark_app.data.popular import popular_lists


def test_popular_lists_are_of_all_movies_and_of_each_genre() -> None:
    movies = pa.table(
        {
            "movieId": pa.array([1, 2, 3, 4, 5], pa.int32()),
            "title": ["A", "B", "C", "D", "E"],
            "genres": [["Drama"], ["Comedy", "Drama"], [], ["Comedy"], ["Horror"]],
            "year": pa.array([None] * 5, pa.int32()),
            "rating_count": pa.array([5, 9, 9, 5, 0], pa.int64()),
            "predicted_rating": [3.0, 4.0, 3.5, 2.0, 3.3],
        }
    )
    lists = popular_lists(movies, 2)
    assert [tuple(row.values()) for row in lists.to_pylist()] == [
        (None, 1, 2, "B", "Comedy|Drama", 9, 4.0),
        (None, 2, 3, "C", "", 9, 3.5),
        ("Comedy", 1, 2, "B", "Comedy|Drama", 9, 4.0),
        ("Comedy", 2, 4, "D", "Comedy", 5, 2.0),
        ("Drama", 1, 2, "B", "Comedy|Drama", 9, 4.0),
        ("Drama", 2, 1, "A", "Drama", 5, 3.0),
    ]
    assert popular_lists(movies.slice(4), 2).num_rows == 0
