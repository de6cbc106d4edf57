"""Ratings of files whose lines are mostly plain: read by numpy in blocks, and the other lines by the rules for rows.

Each line is read once. Good ratings are packed where they are read; one shuffle brings those of each user together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark import Accumulator, Broadcast, StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.data import aggregates, clean, latest
from spark_app.data.dialect import Dialect
from spark_app.data.ids import Codes
from spark_app.data.plain_lines import PlainForm, plain_form
from spark_app.platform import storage
from spark_app.platform.arrow_files import Mapped
from spark_app.platform.pieces import ByPart, partition_keys
from spark_app.platform.settings import Settings
from spark_app.platform.spark_versions import from_arrow, to_arrow
from spark_app.zones.checked import Checked
from spark_app.zones.raw import RawFile, RawTable, as_uri, fields_of, tasks_can_read

SPLIT_BYTES = 32 * 2**20
"""The size of what one task reads at a time, of a file that is not compressed."""

BLOCK_BYTES = 8 * 2**20
"""The size of what numpy judges at a time."""

LOCAL_BYTES = 32 * 2**20
"""The largest size of all files that are read on the driver: more are quicker in Spark's tasks."""

UNPACKED = 6
"""How many times as large as it is a compressed file of ratings is taken to be."""

SAMPLE_BYTES = 64 * 2**10

READ = pa.schema(
    [
        ("part", pa.int32()),
        ("rows", pa.int32()),
        ("packed", pa.binary()),
        ("file", pa.int32()),
        ("line", pa.binary()),
        ("place", pa.int64()),
    ]
)
"""What is read: packed good ratings of a part of the users, or else a line that is not plain, and where it stands."""

WHOLE = 2**62
"""The end of a split that is a whole file."""

PIECES = pa.schema([("part", pa.int32()), ("packed", pa.binary())])
"""Packed good ratings of a part of the users."""

SUMMED_MOVIES = 200_000
"""The largest number of movies in a part whose sums come to the driver: 4 MB."""

BATCH_ROWS = 200_000
"""The largest number of rows in a batch that goes to Spark."""


@dataclass(frozen=True)
class PlainFile:
    """A file that is read in blocks: its path, whether it has a header, and the form of its plain lines."""

    path: str
    has_header: bool
    form: PlainForm


@dataclass(frozen=True)
class _Reader:
    """Reads splits of files, by their numbers, into record batches of READ. `keys` are the numbers of the parts."""

    files: Sequence[PlainFile]
    splits: Sequence[tuple[int, int, int]]
    known: Broadcast[NDArray[np.int32]] | None
    keys: NDArray[np.int32]

    def __call__(self, numbers: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in numbers:
            for number in batch["id"].to_pylist():
                yield from self._read(*self.splits[number])

    def _read(self, number: int, begin: int, end: int) -> Iterator[pa.RecordBatch]:
        file = self.files[number]
        is_first = begin == 0 and file.has_header
        known = None if self.known is None else self.known.value
        for place, block in storage.line_blocks(file.path, begin, end, BLOCK_BYTES):
            ratings, others = file.form.split(block, place, number, known)
            lines, places = others.lines, others.places
            if is_first and len(lines):
                # The first line of a file that is not blank is its header. It is never plain.
                lines, places, is_first = lines[1:], places[1:], False
            yield self._batch(number, list(ratings.pieces(len(self.keys))), lines, places)

    def _batch(
        self, number: int, pieces: list[tuple[int, int, bytes]], lines: pa.Array, places: NDArray[np.int64]
    ) -> pa.RecordBatch:
        parts, rows, packed = zip(*pieces, strict=True) if pieces else ((), (), ())
        none, without = pa.nulls, len(lines)
        columns = [
            [pa.array(self.keys[list(parts)], pa.int32()), none(without, pa.int32())],
            [pa.array(rows, pa.int32()), none(without, pa.int32())],
            [pa.array(packed, pa.binary()), none(without, pa.binary())],
            [pa.array(np.full(len(parts) + without, number), pa.int32())],
            [none(len(parts), pa.binary()), lines],
            [none(len(parts), pa.int64()), pa.array(places)],
        ]
        return pa.RecordBatch.from_arrays([pa.concat_arrays(column) for column in columns], schema=READ)


@dataclass(frozen=True)
class _Packer:
    """Packs good ratings from `judged_ratings` (userId, movieId, rating, and timestamp or file and place)."""

    keys: NDArray[np.int32]
    has_times: bool

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            pieces = list(latest.as_ratings(batch, self.has_times).pieces(len(self.keys)))
            parts, _, packed = zip(*pieces, strict=True) if pieces else ((), (), ())
            columns = [pa.array(self.keys[list(parts)], pa.int32()), pa.array(packed, pa.binary())]
            yield pa.RecordBatch.from_arrays(columns, names=["part", "packed"])


@dataclass(frozen=True)
class _Merger:
    """Turns the pieces of a part into its kept ratings, and collects their sums by movie on the driver."""

    has_times: bool
    summed: bool
    sums: Accumulator[dict[int, pa.Table]]

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        pieces = [
            (part.as_py(), packed.as_py()) for batch in batches for part, packed in zip(*batch.columns, strict=True)
        ]
        if not pieces:
            return
        part = pieces[0][0]
        ratings = latest.joined((packed for _, packed in pieces), self.has_times)
        del pieces
        kept = latest.latest(ratings, self.has_times, self.summed)
        sums = aggregates.sums_of(kept["movieId"].to_numpy(), kept["rating"].to_numpy())
        if len(sums) <= SUMMED_MOVIES:
            self.sums.add({part: sums})
        yield from kept.to_batches(max_chunksize=BATCH_ROWS)


def plain_files(table: RawTable, settings: Settings, codes: Codes, today: date) -> list[PlainFile] | None:
    """The files of a table of ratings, to be read in blocks; None where the rules for rows must read every line.

    That is where ids need codes or times are texts, where Spark's tasks may not be able to read the files by
    themselves, where a record may be more than a line, and where fewer than half of the first lines are plain.
    """
    if codes.by_column or not tasks_can_read(table.files):
        return None
    files = []
    for file in table.files:
        if not _has_plain_text(file, table.contract.dialect):
            return None
        ours = {column.name: name for name, column in table.contract.columns.items()}
        columns = tuple(ours.get(column) for column in file.columns)
        form = plain_form(columns, settings.input, settings.ratings_file, settings.clean, today)
        if form is None:
            return None
        if file.header is not None and form.is_plain(file.header):
            return None  # the reader knows a header by its not being plain
        files.append(PlainFile(file.path, file.header is not None, form))
    return files if files and _is_mostly_plain(files[0]) else None


def check_plain_files(
    spark: SparkSession,
    table: RawTable,
    files: Sequence[PlainFile],
    sizes: Mapping[str, int],
    movies: DataFrame | None,
    lost: DataFrame | None,
    settings: Settings,
    today: date,
) -> Checked:
    """The ratings of plain files, checked: as `clean.checked_ratings` decides on the same lines.

    `sizes` are the bytes of the files by path. `movies` and `lost` are those of `checked_ratings`.
    Ratings of small files stay on the driver. The rows of one user lie in one partition, in the order of movieId.
    """
    known = None if movies is None else spark.sparkContext.broadcast(_ascending(movies))
    has_times, summed = bool(settings.input.timestamp), settings.input.feedback == "counts"
    splits = list(_splits(files, sizes))
    sums = spark.sparkContext.accumulator({}, ByPart())
    merger = _Merger(has_times, summed, sums)

    def movie_sums() -> pa.Table:
        return aggregates.added(of_part for _, of_part in sorted(sums.value.items()))

    def judged(fields: DataFrame) -> DataFrame:
        return clean.judged_ratings(fields, movies, settings.input, settings.clean, today, Codes(), lost).persist()

    if sum(sizes[file.path] * _growth(file.path) for file in files) <= LOCAL_BYTES:
        keys = np.zeros(1, dtype=np.int32)
        reader, packer = _Reader(files, splits, known, keys), _Packer(keys, has_times)
        read = pa.Table.from_batches(reader([pa.record_batch({"id": range(len(splits))})]), READ)
        plain, lines = read.filter(pc.is_valid(read["packed"])), read.filter(pc.is_valid(read["line"]))
        pieces, fields, others = plain.select(["part", "packed"]).to_batches(), None, None
        if len(lines):
            fields = _fields(from_arrow(spark, lines), table, files)
            others = judged(fields)
            pieces += packer(to_arrow(_good(others, files, has_times)).to_batches())
        rows = pa.Table.from_batches(merger(pieces), latest.TYPES)
        plain_rows = pc.sum(plain["rows"]).as_py() or 0
        return Checked.of_judged(from_arrow(spark, rows), others, fields, plain_rows, len(rows), movie_sums)

    keys = partition_keys(spark)
    reader, packer = _Reader(files, splits, known, keys), _Packer(keys, has_times)
    numbers = spark.range(0, len(splits), 1, len(splits))  # a task reads one split
    in_tasks = Mapped(numbers, reader, READ).frame.persist(StorageLevel.MEMORY_AND_DISK)
    plain_rows, line_count = in_tasks.agg(F.sum("rows"), F.count("line")).collect()[0]
    packed, fields, others = in_tasks.filter(F.col("packed").isNotNull()).select("part", "packed"), None, None
    if line_count:
        fields = _fields(in_tasks.filter(F.col("line").isNotNull()), table, files)
        others = judged(fields)
        packed = packed.union(Mapped(_good(others, files, has_times), packer, PIECES).frame)
    kept = Mapped(packed.repartition(len(keys), "part"), merger, latest.TYPES, grouped_by="userId")
    return Checked.of_judged(kept, others, fields, plain_rows or 0, None, movie_sums, in_tasks)


def _fields(lines: DataFrame, table: RawTable, files: Sequence[PlainFile]) -> DataFrame:
    """The lines that are not plain, parsed."""
    uris = F.create_map(*(F.lit(word) for number, file in enumerate(files) for word in (number, as_uri(file.path))))
    placed = lines.select(
        F.col("line").cast("string").alias("value"),
        uris[F.col("file")].alias("file"),
        F.col("place").alias("block_start"),
        F.lit(0).cast("bigint").alias("row"),
        F.col("file").alias("number"),
    )
    alike: dict[tuple[str | None, tuple[str, ...]], list[int]] = defaultdict(list)
    for number, file in enumerate(table.files):
        alike[file.header, file.columns].append(number)
    return reduce(
        DataFrame.unionByName,
        (
            fields_of(placed.filter(F.col("number").isin(numbers)), table.files[numbers[0]], table.contract)
            for numbers in alike.values()
        ),
    )


def _good(judged: DataFrame, files: Sequence[PlainFile], has_times: bool) -> DataFrame:
    """The good rows of `judged_ratings`, as `latest.as_ratings` takes them."""
    good = judged.filter(F.col("reject").isNull())
    if has_times:
        return good.select("userId", "movieId", "rating", "timestamp")
    numbers = F.create_map(*(F.lit(word) for number, file in enumerate(files) for word in (as_uri(file.path), number)))
    place = F.col("position.block_start").alias("place")
    return good.select("userId", "movieId", "rating", numbers[F.col("position.file")].alias("file_number"), place)


def _splits(files: Sequence[PlainFile], sizes: Mapping[str, int]) -> Iterator[tuple[int, int, int]]:
    """What is read at a time: the number of a file, and the positions between which lines begin."""
    for number, file in enumerate(files):
        if _growth(file.path) > 1:
            yield number, 0, WHOLE
            continue
        for begin in range(0, sizes[file.path], SPLIT_BYTES):
            yield number, begin, min(begin + SPLIT_BYTES, sizes[file.path])


def _growth(path: str) -> int:
    """How many times as large a file becomes when it is unpacked, roughly."""
    return UNPACKED if path.endswith(".gz") else 1


def _has_plain_text(file: RawFile, dialect: Dialect) -> bool:
    """Whether the records of a file are lines of UTF-8, as they are or packed by gzip."""
    return file.is_read_by_spark(dialect) and file.encoding == "utf-8" and file.packed_as in ("", "gzip")


def _is_mostly_plain(file: PlainFile) -> bool:
    """Whether at least half of the first lines are plain."""
    for place, block in storage.line_blocks(file.path, 0, SAMPLE_BYTES, SAMPLE_BYTES):
        ratings, others = file.form.split(block, place, 0, None)
        return len(ratings) >= len(others.lines)
    return False


def _ascending(movies: DataFrame) -> NDArray[np.int32]:
    return np.sort(to_arrow(movies.select("movieId"))["movieId"].to_numpy())
