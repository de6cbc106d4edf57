"""Ratings that somebody gives on the spot, in a small CSV file."""

from __future__ import annotations

from spark_app.platform import storage
from spark_app.platform.errors import InputError
from spark_app.platform.settings import Input


def read_ratings(path: str, names: Input) -> list[tuple[str, float]]:
    """The ids and ratings in a CSV file of a movie and a rating per line, or with a header that names these columns.

    Raises InputError where the file cannot be read or a rating is not a number, StorageError where S3 cannot be read.
    """
    path = storage.normalise(path)
    rows = storage.read_csv(path)
    header = rows[0] if rows else []
    movie = next((header.index(name) for name in (names.item, "movieId") if name in header), None)
    rating = next((header.index(name) for name in (names.rating, "rating") if name in header), None)
    if movie is not None and rating is not None:
        rows = rows[1:]
    else:
        movie, rating = 0, 1
    return [_row(path, row, movie, rating) for row in rows]


def _row(path: str, row: list[str], movie: int, rating: int) -> tuple[str, float]:
    value = _as_number(row[rating]) if len(row) > max(movie, rating) else None
    if value is None or not row[movie]:
        raise InputError(f"{path}: '{','.join(row)}' is not a movie and a rating, such as 260,4.5")
    return row[movie], value


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
