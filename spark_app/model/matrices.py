"""Ids, and factors as rows of a matrix, in numpy: found by id, and read from columns of lists."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from spark_app.model.half_sweep import Bools, Floats, Ints

Ids = NDArray[np.int32]

TABLE_SIZE = 2**24
"""Maximum number of entries in a table from ids to places. Ids with a wider range are found by binary search."""


@dataclass(frozen=True)
class FactorMatrix:
    """The factors of users or of movies as a matrix: one row per id, ids ascending."""

    ids: Ids
    rows: Floats


def in_order(ids: pa.ChunkedArray, features: pa.ChunkedArray, rank: int) -> FactorMatrix:
    """The factors in columns of ids and of lists of length `rank`."""
    unordered, rows = ids.to_numpy().astype(np.int32), as_matrix(features.combine_chunks(), rank)
    if np.all(unordered[1:] > unordered[:-1]):
        return FactorMatrix(unordered, rows)
    order = np.argsort(unordered)
    return FactorMatrix(unordered[order], rows[order])


def as_matrix(features: pa.Array, rank: int) -> Floats:
    """Convert a column of lists of length `rank` to a matrix; nulls are skipped."""
    values: Floats = features.drop_null().flatten().to_numpy().reshape(-1, rank).astype(np.float32)
    return values


def found_among(ids: Ids, among: Ids) -> tuple[Ints, Bools]:
    """The place of each id in the ascending array `among`, and whether the id is in it."""
    if not len(among):
        return np.zeros(len(ids), dtype=np.int64), np.zeros(len(ids), dtype=bool)
    low, high = int(among[0]), int(among[-1])
    if high - low < min(len(ids), TABLE_SIZE):
        # A table of all ids between the lowest and the highest is made quickly, and takes no search for each id.
        table = np.full(high - low + 1, -1, dtype=np.int64)
        table[among - low] = np.arange(len(among))
        is_between = (ids >= low) & (ids <= high)
        places: Ints = table[np.where(is_between, ids, low) - low]
        is_found = is_between & (places >= 0)
        return np.where(is_found, places, 0), is_found
    places = np.minimum(np.searchsorted(among, ids), len(among) - 1)
    return places, among[places] == ids
