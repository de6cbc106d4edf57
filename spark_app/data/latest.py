"""Good ratings as packed pieces by user, and of several ratings of one movie by one user, the one that is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from spark_app.platform.pieces import cut, part_of

Column = NDArray[Any]
DATED = (np.int32, np.int32, np.float64, np.int64)
UNDATED = (np.int32, np.int32, np.float64, np.int32, np.int64)
"""The types of the columns: of ratings with a time, and with a position instead."""

FORMS: dict[str, tuple[tuple[type[Any], float], ...]] = {
    "i4": ((np.int32, 1),),
    "f8": ((np.uint8, 0.5), (np.float32, 1), (np.float64, 1)),
    "i8": ((np.int32, 1_000_000), (np.int64, 1)),
}
"""How a column may be stored in a piece, by its type, the smallest first: what is stored, and the factor to it.

Nearly all ratings are half stars, and nearly all times whole seconds: pieces take half of the space of their columns.
"""

TYPES = pa.schema(
    [
        ("userId", pa.int32()),
        ("movieId", pa.int32()),
        ("rating", pa.float64()),
        ("timestamp", pa.timestamp("us", tz="UTC")),
    ]
)


@dataclass(frozen=True)
class Ratings:
    """Ratings by column: users, movies, ratings, and what decides which of several is the latest.

    `recency` are the times in microseconds since 1970. Where the input has none, it is where each rating was delivered:
    the number of its file, in the order of their names, and the position of its line.
    """

    users: NDArray[np.int32]
    movies: NDArray[np.int32]
    ratings: NDArray[np.float64]
    recency: tuple[Column, ...]

    def __len__(self) -> int:
        return len(self.users)

    def pieces(self, parts: int) -> Iterator[tuple[int, int, bytes]]:
        """For each part of the users that has any of these ratings: its number, its number of ratings, and they."""
        columns: list[Column] = [self.users, self.movies, self.ratings, *self.recency]
        order, slices = cut(part_of(self.users, parts), parts)
        forms, stored = zip(*map(_stored, columns), strict=True)
        in_order = [column[order] for column in stored]
        for part, rows in slices:
            yield part, rows.stop - rows.start, bytes(forms) + b"".join(column[rows].tobytes() for column in in_order)


def _stored(column: Column) -> tuple[int, Column]:
    """A column as it is stored, and the number of that form: the smallest from which the same values come back."""
    forms = FORMS[column.dtype.str[1:]]
    for number, (kind, factor) in enumerate(forms[:-1]):
        with np.errstate(invalid="ignore", over="ignore"):
            stored = (column / factor).astype(kind)
        if np.array_equal(stored * column.dtype.type(factor), column):
            return number, stored
    return len(forms) - 1, column


def joined(pieces: Iterable[bytes], has_times: bool) -> Ratings:
    """The ratings of several pieces."""
    types = DATED if has_times else UNDATED
    columns: list[list[Column]] = [[np.empty(0, dtype=kind)] for kind in types]
    for piece in pieces:
        forms = [FORMS[np.dtype(kind).str[1:]][form] for kind, form in zip(types, piece, strict=False)]
        rows = (len(piece) - len(types)) // sum(np.dtype(kind).itemsize for kind, _ in forms)
        start = len(types)
        for column, kind, (stored, factor) in zip(columns, types, forms, strict=True):
            values = np.frombuffer(piece, dtype=stored, count=rows, offset=start)
            column.append(values if stored is kind else values * np.dtype(kind).type(factor))
            start += values.nbytes
    users, movies, ratings, *recency = (np.concatenate(column) for column in columns)
    return Ratings(users, movies, ratings, tuple(recency))


def latest(ratings: Ratings, has_times: bool, summed: bool = False) -> pa.Table:
    """One row per userId and movieId, in their order: userId, movieId, rating, timestamp (null where there are none).

    If a user rated a movie several times, the latest rating is kept, and the highest of those at the same time. Without
    times the last delivered is kept. With `summed` the rating is the sum of all.
    """
    keys = (ratings.users.astype(np.int64) << 32) + ratings.movies
    order = np.argsort(keys)
    differs = np.diff(keys[order]) != 0
    is_first, is_last = (np.append(True, differs)[: len(keys)], np.append(differs, True)[: len(keys)])
    if not differs.all():
        is_repeated = ~(is_first & is_last)
        rows = order[is_repeated]
        # The last column is compared first.
        by_recency = (ratings.ratings, *ratings.recency[::-1], keys)
        order[is_repeated] = rows[np.lexsort([column[rows] for column in by_recency])]
    kept = order[is_last]
    values = ratings.ratings[kept]
    if summed and len(order):
        values = np.add.reduceat(ratings.ratings[order], np.flatnonzero(is_first))
    times = pa.array(ratings.recency[0][kept]) if has_times else pa.nulls(len(kept), pa.int64())
    columns = [pa.array(ratings.users[kept]), pa.array(ratings.movies[kept]), pa.array(values), times]
    return pa.table([column.cast(kind) for column, kind in zip(columns, TYPES.types, strict=True)], schema=TYPES)


def as_ratings(table: pa.Table | pa.RecordBatch, has_times: bool) -> Ratings:
    """Ratings from columns userId, movieId, rating, and timestamp or else file_number and place."""
    users, movies, ratings = (table[name].to_numpy() for name in ("userId", "movieId", "rating"))
    if has_times:
        return Ratings(users, movies, ratings, (table["timestamp"].cast(pa.int64()).to_numpy(),))
    return Ratings(users, movies, ratings, (table["file_number"].to_numpy(), table["place"].to_numpy()))
