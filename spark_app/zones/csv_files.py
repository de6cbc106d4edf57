"""Tables as one CSV file each, in order.

The format is RFC 4180: commas, doubled quotes where needed. Cells have the data unchanged, even if a title begins with
a sign that a spreadsheet takes for a formula.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_app.platform import delta, storage
from spark_app.platform.arrow_files import READ_ROWS, Files
from spark_app.zones.processed import ProcessedZone

PRECISION = 20
"""The largest number of digits of a number with decimals."""

NEEDS_QUOTES = '[,"\r\n]'

ROWS_AT_ONCE = 2 * READ_ROWS
"""The number of rows that are merged at a time."""

MERGED_FILES = 32
"""The largest number of files that are merged: all are open at once, and each step looks at all."""


@dataclass(frozen=True)
class CsvFile:
    """A CSV file of a Delta table: these columns, in the order of the two keys (integers, or texts as delivered).

    `decimals` gives the number of decimals of the columns that are to be plain decimals.
    """

    path: str
    table: str
    columns: tuple[str, ...]
    keys: tuple[str, str]
    decimals: Mapping[str, int]


def write(spark: SparkSession, zone: ProcessedZone, csv: CsvFile) -> None:
    """Write a CSV file, which appears in one step.

    Where the files of the table are at hand, few, and each in order, they are merged on the driver. Otherwise Spark
    sorts the rows and writes them as parts, in parallel, which are then joined.
    """
    files = delta.files(spark, zone.table(csv.table))
    if files and len(files.paths) <= MERGED_FILES and _are_in_order(files, csv.keys):
        files = files.select(*{*csv.columns, *csv.keys})
        with storage.writing(csv.path) as stream:
            stream.write((",".join(csv.columns) + "\n").encode())
            for rows in _merged(files, csv.keys):
                stream.write(_as_text(rows.select(csv.columns), csv.decimals))
        return
    decimals = {name: F.col(name).cast(f"decimal({PRECISION},{places})") for name, places in csv.decimals.items()}
    rows = zone.read(spark, csv.table).withColumns(decimals).orderBy(*csv.keys).select(*csv.columns)
    zone.replace_csv(rows, csv.path)


def _are_in_order(files: Files, keys: tuple[str, str]) -> bool:
    """Whether each file is in the order of the keys."""
    if not all(pa.types.is_integer(files.schema.field(key).type) for key in keys):
        return False
    of_keys = files.select(*keys)
    return all(_is_in_order(of_keys.batches(path)) for path in files.paths)


def _is_in_order(batches: Iterator[pa.RecordBatch]) -> bool:
    """Whether rows of two integers ascend."""
    last = np.empty((2, 0), dtype=np.int64)
    for batch in batches:
        rows = np.hstack([last, [column.to_numpy() for column in batch.columns]])
        (first, second), (next_first, next_second) = rows[:, :-1], rows[:, 1:]
        if not ((next_first > first) | ((next_first == first) & (next_second > second))).all():
            return False
        last = rows[:, -1:]
    return True


@dataclass
class _Source:
    """A file that is in order, of which some rows are held; `is_read` where no more will come."""

    batches: Iterator[pa.RecordBatch]
    key: str
    held: pa.Table | None = field(default=None)
    is_read: bool = False

    def read_on(self) -> None:
        """Hold the next rows too."""
        batch = next(self.batches, None)
        if batch is None:
            self.is_read = True
        else:
            rows = pa.Table.from_batches([batch])
            self.held = rows if self.held is None else pa.concat_tables([self.held, rows])

    @property
    def last(self) -> int:
        """The highest key that is held."""
        return int(self.held[self.key][-1].as_py()) if self.held is not None and len(self.held) else -(2**63)

    def take_below(self, limit: int | None) -> pa.Table | None:
        """The rows that are held with keys below a limit (None: all); they are not held any longer."""
        if self.held is None:
            return None
        keys = self.held[self.key].to_numpy()
        end = len(keys) if limit is None else int(np.searchsorted(keys, limit))
        rows, self.held = self.held[:end], self.held[end:]
        return rows


def _merged(files: Files, keys: tuple[str, str]) -> Iterator[pa.Table]:
    """The rows of files that are each in the order of the keys, all in this order; a few of each file at a time."""
    rows_of_each = max(ROWS_AT_ONCE // len(files.paths), 1)
    sources = [_Source(files.batches(path, rows=rows_of_each), keys[0]) for path in files.paths]
    limit: int | None = -(2**63)
    while limit is not None:
        for source in sources:
            if not source.is_read and source.last == limit:
                source.read_on()
        limit = min((source.last for source in sources if not source.is_read), default=None)
        taken = [rows for source in sources if (rows := source.take_below(limit)) is not None]
        if sum(map(len, taken)):
            yield pa.concat_tables(taken).sort_by([(key, "ascending") for key in keys])


def _as_text(rows: pa.Table, decimals: Mapping[str, int]) -> pa.Buffer:
    """Rows as lines of CSV."""
    *cells, last = (_cells(rows[name], decimals.get(name)) for name in rows.column_names)
    ends = pc.binary_join_element_wise(last, pa.scalar("\n", pa.large_string()), pa.scalar("", pa.large_string()))
    lines = pc.binary_join_element_wise(*cells, ends, pa.scalar(",", pa.large_string())).combine_chunks()
    _, offsets, text = lines.buffers()
    places = np.frombuffer(offsets, dtype=np.int64)
    first, end = int(places[lines.offset]), int(places[lines.offset + len(lines)])
    return text.slice(first, end - first)


def _cells(column: pa.ChunkedArray, decimals: int | None) -> pa.ChunkedArray:
    """A column as the text of its cells. A null is an empty cell."""
    if decimals is not None:
        column = column.cast(pa.decimal128(PRECISION, decimals))
    text = column.cast(pa.large_string()).fill_null("")
    if not pa.types.is_string(column.type):
        return text
    doubled = pc.replace_substring(text, '"', '""')
    quote, nothing = pa.scalar('"', pa.large_string()), pa.scalar("", pa.large_string())
    quoted = pc.binary_join_element_wise(quote, doubled, quote, nothing)
    return pc.if_else(pc.match_substring_regex(text, NEEDS_QUOTES), quoted, text)
