"""Plain lines: ratings in so simple a form that numpy can read and judge them, a block of a file at a time.

A plain line matches one strict pattern, and its values break no rule. Every other line is left to the rules for rows
(`rules`, `clean`), which alone decide what is rejected and why; they would also accept each plain line, with the same
values. In most files nearly every line is plain, and numpy takes a fraction of the time of the rules.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from spark_app.data.ids import MAX_ID
from spark_app.data.latest import Ratings
from spark_app.data.rules import LAST_DAY_NUMBER, SCALE_TOLERANCE, SMALLER_UNIT_FROM, has_marks, second_of
from spark_app.platform.settings import Clean, Input, RatingsFile

INTEGER = "(?:0|[1-9][0-9]{0,14})"
NUMBER = r"(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?"
PRINTABLE = "".join(map(chr, range(ord(" "), ord("~") + 1)))

LAST_SECOND = SMALLER_UNIT_FROM["seconds"]
MILLISECONDS, MICROSECONDS = 1_000, 1_000_000
SEPARATOR = "\x1f"
"""What stands in for a delimiter of several characters, which Arrow's parser does not know."""

LINE_END, CARRIAGE_RETURN = b"\n", b"\r"

PATTERNS = {"userId": INTEGER, "movieId": INTEGER, "rating": NUMBER, "timestamp": INTEGER}
KINDS = {"userId": pa.int64(), "movieId": pa.int64(), "rating": pa.float64(), "timestamp": pa.int64()}

LARGEST_TABLE = 2**24
"""Largest id of a movie up to which known movies are looked up in a table; others are searched."""


@dataclass(frozen=True)
class OtherLines:
    """Lines that are not plain, without their ends (binary), and the positions of their first bytes."""

    lines: pa.Array
    places: NDArray[np.int64]


@dataclass(frozen=True)
class PlainForm:
    """The pattern of plain lines of files with one header, and the ranges in which values break no rule.

    `columns` are our names of the columns in the order of the file, None for a column that is not read. `is_quoted`
    says whether quotes may enclose fields. Times are in the unit of the file, `microseconds` long.
    """

    columns: tuple[str | None, ...]
    delimiter: str
    is_quoted: bool
    scale: tuple[float, float, float] | None
    times: tuple[int, int]
    microseconds: int

    def split(self, block: bytes, start: int, file: int, known: NDArray[np.int32] | None) -> tuple[Ratings, OtherLines]:
        """The good ratings of a block of whole lines, and its other lines. Blank lines are skipped.

        `file` is the number of the file, `start` the position of the block in it. `known` are the movies that ratings
        may refer to, ascending; None allows any.
        """
        lines, places = _lines(block)
        is_plain = self._matches(lines, block)
        table = self._values(lines, block, is_plain)
        is_good = self._breaks_no_rule(table, known)
        if not is_good.all():
            matching = np.flatnonzero(is_plain)
            is_plain[matching[~is_good]] = False
            table = table.filter(pa.array(is_good))
        return self._ratings(table, file, places[is_plain] + start), _others(lines, places + start, ~is_plain)

    def is_plain(self, line: str) -> bool:
        """Whether a line is plain."""
        return len(self.split(line.encode(), 0, 0, None)[0]) > 0

    def _matches(self, lines: pa.Array, block: bytes) -> NDArray[np.bool_]:
        pattern = self._pattern(is_text=block.isascii() or _is_utf8(block))
        matches = pc.match_substring_regex(lines, pattern)
        return np.array(matches.to_numpy(zero_copy_only=False), dtype=bool)

    def _pattern(self, is_text: bool) -> str:
        """The pattern of a line. A column that is not read may have any text, but in a block that is not UTF-8, ASCII.

        Quotes enclose a whole field of a plain line, and no delimiter, line break or further quote. Columns that are
        not read have no character of a longer delimiter.
        """
        delimiter = re.escape(self.delimiter)
        letters = re.escape("".join(letter for letter in PRINTABLE if letter not in self.delimiter + '"'))
        other = rf'[^{delimiter}{SEPARATOR}"\r\n]*' if is_text else f"[{letters}]*"
        values = (other if ours is None else PATTERNS[ours] for ours in self.columns)
        fields = (f'(?:{value}|"{value}")' if self.is_quoted else value for value in values)
        return rf"\A{delimiter.join(fields)}\r?\n?\z"

    def _values(self, lines: pa.Array, block: bytes, is_plain: NDArray[np.bool_]) -> pa.Table:
        """The columns of the plain lines."""
        read = [ours for ours in self.columns if ours is not None]
        kinds = {ours: KINDS[ours] for ours in read}
        if not is_plain.any():
            return pa.table({ours: pa.array([], kind) for ours, kind in kinds.items()})
        content = pa.py_buffer(block) if is_plain.all() else _bytes_of(lines.filter(pa.array(is_plain)))
        if len(self.delimiter) > 1:
            content = pa.py_buffer(content.to_pybytes().replace(self.delimiter.encode(), SEPARATOR.encode()))
        names = [ours or f"other {place}" for place, ours in enumerate(self.columns)]
        return pyarrow.csv.read_csv(
            pa.BufferReader(content),
            pyarrow.csv.ReadOptions(use_threads=False, block_size=max(len(block) + 1, 2), column_names=names),
            pyarrow.csv.ParseOptions(
                delimiter=self.delimiter if len(self.delimiter) == 1 else SEPARATOR,
                quote_char='"' if self.is_quoted else False,
            ),
            pyarrow.csv.ConvertOptions(column_types=kinds, include_columns=read, null_values=[]),
        )

    def _breaks_no_rule(self, table: pa.Table, known: NDArray[np.int32] | None) -> NDArray[np.bool_]:
        """Whether each row breaks no rule: the conditions of `rules.rating_rules`, on values that are never null."""
        users, movies = (table[column].to_numpy() for column in ("userId", "movieId"))
        is_good = (users <= MAX_ID) & (movies <= MAX_ID)
        if "rating" in table.column_names:
            ratings = table["rating"].to_numpy()
            if self.scale is None:
                is_good &= ratings > 0
            else:
                low, high, step = self.scale
                steps = (ratings - low) / step
                is_good &= (ratings >= low) & (ratings <= high) & (np.abs(steps - np.rint(steps)) < SCALE_TOLERANCE)
        if "timestamp" in table.column_names:
            times = table["timestamp"].to_numpy()
            is_good &= (times >= self.times[0]) & (times <= self.times[1])
        return np.asarray(is_good if known is None else is_good & _is_among(movies, known))

    def _ratings(self, table: pa.Table, file: int, places: NDArray[np.int64]) -> Ratings:
        recency: tuple[NDArray[Any], ...] = (np.full(table.num_rows, file, dtype=np.int32), places)
        if "timestamp" in table.column_names:
            recency = (table["timestamp"].to_numpy() * self.microseconds,)
        return Ratings(
            table["userId"].to_numpy().astype(np.int32),
            table["movieId"].to_numpy().astype(np.int32),
            table["rating"].to_numpy() if "rating" in table.column_names else np.ones(table.num_rows),
            recency,
        )


def plain_form(
    columns: tuple[str | None, ...], input_settings: Input, file: RatingsFile, clean: Clean, today: date
) -> PlainForm | None:
    """The form of plain lines in files with these columns; None where the settings ask for more than numbers in UTF-8.

    `columns` are our names of the columns in the order of the file, None for a column that is not read.
    """
    delimiter = file.delimiter or input_settings.delimiter
    has_usual_quotes = file.quote == "" or (file.quote == '"' and file.escape == "doubled")
    is_simple = file.encoding == "utf-8" and file.layout == "lines" and file.decimal == "." and has_usual_quotes
    has_texts = bool(input_settings.timestamp) and input_settings.time_format == "iso"
    if not is_simple or not delimiter.isascii() or has_texts or has_marks(input_settings):
        return None
    scale = (input_settings.scale_min, input_settings.scale_max, input_settings.scale_step)
    units = MILLISECONDS if input_settings.time_format == "milliseconds" else 1
    first, after = second_of(clean.earliest), second_of((clean.latest or today + timedelta(days=1)) + timedelta(days=1))
    if input_settings.time_format == "auto":
        first = max(first, LAST_DAY_NUMBER + 1)  # a smaller number may be a day
    return PlainForm(
        columns,
        delimiter,
        file.quote == '"',
        None if input_settings.feedback == "counts" else scale,
        (first * units, min(after, LAST_SECOND) * units - 1),
        MICROSECONDS // units,
    )


def _lines(block: bytes) -> tuple[pa.Array, NDArray[np.int64]]:
    """The lines of a block, with their ends, and the positions of their first bytes."""
    numbers = np.frombuffer(block, dtype=np.uint8)
    ends = np.flatnonzero(numbers == LINE_END[0]) + 1
    if (returns := np.flatnonzero(numbers == CARRIAGE_RETURN[0])).size:
        # A carriage return ends a line too, unless a line feed follows, which then does.
        follows = numbers[np.minimum(returns + 1, len(numbers) - 1)]
        alone = returns[(follows != LINE_END[0]) | (returns + 1 == len(numbers))] + 1
        ends = np.union1d(ends, alone) if alone.size else ends
    if len(numbers) and (not ends.size or ends[-1] < len(numbers)):
        ends = np.append(ends, len(numbers))
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), ends.astype(np.int64)])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(block)]
    return pa.Array.from_buffers(pa.large_binary(), len(ends), buffers), offsets[:-1]


def _others(lines: pa.Array, places: NDArray[np.int64], is_other: NDArray[np.bool_]) -> OtherLines:
    """The lines that are not plain; blank lines are none of them."""
    found = pc.replace_substring_regex(lines.filter(pa.array(is_other)), r"\r?\n?\z", "")
    has_text = pc.greater(pc.binary_length(found), 0)
    return OtherLines(
        found.filter(has_text).cast(pa.binary()), places[is_other][has_text.to_numpy(zero_copy_only=False)]
    )


def _bytes_of(lines: pa.Array) -> Any:
    """The bytes of all lines of an array, one after the other; each line must have its end, but the last."""
    offsets = np.frombuffer(lines.buffers()[1], dtype=np.int64)[lines.offset : lines.offset + len(lines) + 1]
    return lines.buffers()[2].slice(int(offsets[0]), int(offsets[-1] - offsets[0]))


def _is_utf8(block: bytes) -> bool:
    try:
        block.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _is_among(movies: NDArray[np.int64], known: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Whether each movie is among the known ones, which are ascending."""
    if not len(known):
        return np.zeros(len(movies), dtype=bool)
    largest = int(known[-1])
    if largest > LARGEST_TABLE:
        return np.asarray(known[np.minimum(np.searchsorted(known, movies), len(known) - 1)] == movies)
    table = np.zeros(largest + 2, dtype=bool)
    table[known[known >= 0]] = True
    return table[np.minimum(movies, largest + 1)]
