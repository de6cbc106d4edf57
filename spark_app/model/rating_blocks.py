"""Ratings packed into blocks, once by user and once by movie: the input of the solver's half sweeps.

The block of a user or a movie depends on the ratings, not on the machine, and the rows of a block are sorted. So
results computed from blocks are the same on any number of cores. The rows are packed before they are shuffled: each
task cuts its rows into one piece per block, and the shuffle moves only these few large values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import RDD, Broadcast, StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_app.model.blocks import Blocks, LocalBlocks, SparkBlocks
from spark_app.model.half_sweep import Block, Places
from spark_app.model.matrices import TABLE_SIZE, Ids
from spark_app.platform.pieces import cut
from spark_app.platform.spark_versions import to_arrow

MIN_BLOCKS = 4

BLOCK_RATINGS = 2_000_000

LOCAL_RATINGS = 500_000
"""The largest number of ratings whose blocks stay on the driver: more are quicker in Spark's tasks."""

USER, MOVIE = 0, 1
"""The two sides, and the positions of their id columns in a row of ratings."""

SURVEY = "count LONG, users BINARY, movies BINARY"

PIECES = "block INT, side INT, rows BINARY"


@dataclass(frozen=True)
class Side:
    """The ratings by user (or by movie), in blocks, and the ids of the users (or movies), ascending.

    The blocks refer to a user by its place: the position of the user's id in `ids`.
    """

    blocks: Blocks
    ids: Ids


@dataclass(frozen=True)
class RatingBlocks:
    """`count` ratings, packed by user (`Block.others` are movies) and by movie (they are users). Both are persisted."""

    count: int
    users: Side
    movies: Side

    def unpersist(self) -> None:
        """Free the memory of the blocks."""
        for side in (self.users, self.movies):
            side.blocks.unpersist()


def pack(ratings: DataFrame, block_ratings: int = BLOCK_RATINGS) -> RatingBlocks:
    """Pack ratings(userId, movieId, rating) into blocks of about `block_ratings`, at least MIN_BLOCKS on each side.

    Reads the ratings twice: first to count them and to collect the ids on the driver, then for the rows, which stay on
    the driver if they are at most LOCAL_RATINGS. Ids are 32-bit integers. A pair that occurs twice counts twice.
    Raises an error where an id or a rating is null.
    """
    rows = ratings.select(F.col("userId").cast("int"), F.col("movieId").cast("int"), F.col("rating").cast("float"))
    count, all_ids = _survey(rows)
    if count <= LOCAL_RATINGS:
        return _packed_here(to_arrow(rows), all_ids, block_ratings)
    blocks = blocks_for(count, block_ratings)
    shared = rows.sparkSession.sparkContext.broadcast(all_ids)
    pieces = rows.mapInArrow(_Cutter(blocks, shared), PIECES).rdd
    by_block = pieces.map(lambda row: (row.block, (row.side, row.rows))).partitionBy(blocks, int)
    sides = [_persisted(by_block, side, ids) for side, ids in zip((USER, MOVIE), all_ids, strict=True)]
    return RatingBlocks(count, *sides)


def blocks_for(ratings: int, block_ratings: int) -> int:
    """The number of blocks for this many ratings. It depends on the data only, so results agree between machines."""
    return max(MIN_BLOCKS, math.ceil(ratings / block_ratings))


def mean_of(ratings: RatingBlocks) -> float:
    """The mean of all ratings."""
    sums = ratings.users.blocks.each(lambda block: float(block.values.sum(dtype=np.float64)))
    return math.fsum(sums) / ratings.count


def places_among(all_ids: Ids) -> Callable[[Ids], Places]:
    """A function from ids to their positions in `all_ids`, which is ascending and contains every id asked for."""
    if not len(all_ids) or int(all_ids[-1]) - int(all_ids[0]) >= TABLE_SIZE:
        return lambda ids: np.searchsorted(all_ids, ids).astype(np.int32)
    low = all_ids[0]
    table = np.zeros(int(all_ids[-1]) - int(low) + 1, dtype=np.int32)
    table[all_ids - low] = np.arange(len(all_ids), dtype=np.int32)
    return lambda ids: table[ids - low]


def _survey(rows: DataFrame) -> tuple[int, tuple[Ids, Ids]]:
    """Count the ratings, and collect the ids of users and of movies, ascending."""
    count, ids = 0, ([np.empty(0, dtype=np.int32)], [np.empty(0, dtype=np.int32)])
    for row in rows.mapInArrow(_surveyed, SURVEY).collect():
        count += row["count"]
        for side, packed in zip(ids, (row["users"], row["movies"]), strict=True):
            side.append(np.frombuffer(packed, dtype=np.int32))
    users, movies = (np.unique(np.concatenate(side)) for side in ids)
    return count, (users, movies)


def _surveyed(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    count, ids = 0, [np.empty(0, dtype=np.int32)] * 2
    for batch in batches:
        count += batch.num_rows
        ids = [np.union1d(known, batch[side].to_numpy()) for side, known in zip((USER, MOVIE), ids, strict=True)]
    columns = [pa.array([count], pa.int64()), *(pa.array([part.tobytes()], pa.binary()) for part in ids)]
    yield pa.RecordBatch.from_arrays(columns, names=["count", "users", "movies"])


@dataclass(frozen=True)
class _Cutter:
    """Cuts record batches of ratings into one piece per block of each side, with places instead of ids."""

    blocks: int
    all_ids: Broadcast[tuple[Ids, Ids]]

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        lookups = [places_among(known) for known in self.all_ids.value]
        for batch in batches:
            places = [lookups[side](batch[side].to_numpy()) for side in (USER, MOVIE)]
            columns = (*places, batch["rating"].to_numpy())
            cuts = [(block, side, rows) for side in (USER, MOVIE) for block, rows in self._cut(places[side], columns)]
            numbers, sides, pieces = zip(*cuts, strict=True) if cuts else ((), (), ())
            arrays = [pa.array(numbers, pa.int32()), pa.array(sides, pa.int32()), pa.array(pieces, pa.binary())]
            yield pa.RecordBatch.from_arrays(arrays, names=["block", "side", "rows"])

    def _cut(self, own: Places, columns: Iterable[NDArray[Any]]) -> Iterator[tuple[int, bytes]]:
        """Each block that gets rows, and these rows as bytes. `own` is the column of places that decides the block."""
        order, slices = cut((own % self.blocks).astype(np.uint16), self.blocks)
        columns = [column[order] for column in columns]
        for block, rows in slices:
            yield block, b"".join(column[rows].tobytes() for column in columns)


def _persisted(by_block: RDD[tuple[int, tuple[int, bytes]]], side: int, ids: Ids) -> Side:
    """One side of the shuffled pieces as sorted blocks, computed and persisted here."""

    def merged(pieces: Iterable[tuple[int, tuple[int, bytes]]]) -> Iterator[Block]:
        yield _in_order([piece for _, (of_side, piece) in pieces if of_side == side], side)

    blocks = by_block.mapPartitions(merged).persist(StorageLevel.MEMORY_AND_DISK)
    blocks.count()
    return Side(SparkBlocks(blocks), ids)


def _packed_here(rows: pa.Table, all_ids: tuple[Ids, Ids], block_ratings: int) -> RatingBlocks:
    """The same blocks, of rows that are on the driver."""
    if nulls := [name for name in rows.column_names if rows[name].null_count]:
        raise ValueError(f"{nulls[0]} must not be null: leave out such rows")
    users, movies, ratings = (column.to_numpy() for column in rows.columns)
    places = [places_among(known)(ids) for known, ids in zip(all_ids, (users, movies), strict=True)]
    columns = (*places, ratings)
    blocks = blocks_for(len(rows), block_ratings)

    def block_of(side: int, number: int) -> Block:
        is_own = places[side] % blocks == number
        return _in_order([b"".join(column[is_own].tobytes() for column in columns)], side)

    sides = (LocalBlocks([block_of(side, number) for number in range(blocks)]) for side in (USER, MOVIE))
    return RatingBlocks(len(rows), *(Side(side, ids) for side, ids in zip(sides, all_ids, strict=True)))


def _in_order(pieces: list[bytes], side: int) -> Block:
    """Join pieces to a block, sorted by the side's own place, then by the other place, then by value."""
    columns = [np.frombuffer(piece, dtype=np.int32).reshape(3, -1) for piece in pieces]
    rows = np.concatenate([np.empty((3, 0), dtype=np.int32), *columns], axis=1)
    own, others, values = rows[side], rows[1 - side], rows[2].view(np.float32)
    keys = (own.astype(np.int64) << 32) + others
    order = np.argsort(keys)
    if (np.diff(keys[order]) == 0).any():
        order = np.lexsort((values, keys))
    own = own[order]
    starts = np.flatnonzero(np.diff(own, prepend=-1))
    return Block(own[starts], np.append(starts, len(own)), others[order], values[order])
