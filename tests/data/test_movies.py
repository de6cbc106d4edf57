from __future__ import annotations

import pyarrow as pa
import pytest

from spark_app.data.movies import other_separator, without_table


def lists(genres: list[str]) -> pa.ChunkedArray:
    """Genres as the rules cut them at `|`."""
    return pa.chunked_array([pa.array([text.split("|") if text else [] for text in genres], pa.list_(pa.string()))])


@pytest.mark.parametrize(
    ("genres", "expected"),
    [
        (["Drama, Music", "Drama", "", "Action, Drama"], (",", 2, "Action, Drama")),
        (["Drama;Music", "A, B;C", ""], (";", 2, "A, B;C")),
        (["Drama|Music", "Drama, Music"], None),  # the configured separator does occur
        (["Sci-Fi/Fantasy", *["Drama"] * 20], None),
        (["Drama", ""], None),
        ([], None),
    ],
)
def test_another_separator_of_genres_is_noticed(genres: list[str], expected: tuple[str, int, str] | None) -> None:
    assert other_separator(lists(genres)) == expected


def test_movies_without_a_table_are_called_by_their_ids() -> None:
    found = without_table(pa.array([-1, 7], pa.int32()), pa.array(["tt1", "7"]))
    assert found.to_pylist() == [
        {"movieId": -1, "title": "tt1", "year": None, "genres": []},
        {"movieId": 7, "title": "7", "year": None, "genres": []},
    ]
