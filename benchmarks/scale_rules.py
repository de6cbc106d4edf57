"""The rules of `etl` in Python, for the lines that the peers cannot judge by an expression.

DuckDB and Polars check plainly written lines themselves, and pass the few others to `judge_all`. The rules, their order
and their reasons are those of `spark_app.data.rules` with the default settings. The benchmark fails where the results
differ.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

MAX_ID = 2**31 - 1
SCALE_MIN, SCALE_MAX, STEP = 0.5, 5.0, 0.5
FIRST_SECOND, LAST_SECOND = 631_152_000, 1_893_455_999
FIRST_MILLISECOND = 10**11
"""A time from this number on is in milliseconds. (No line has a time in ISO 8601, which `etl` takes as well.)"""

EARLIEST, LATEST = "1990-01-01", "2029-12-31"
"""The first and the last day that a rating may have.

`etl` gets LATEST as a setting, because its default is the day after the run.
"""

DAMPING = 10.0
COLUMNS = ("userId", "movieId", "rating", "timestamp")
HEADER = ",".join(COLUMNS)
PLAIN_LINE = r"^[0-9]{1,10},[0-9]{1,10},[0-9](?:\.[0-9])?,[0-9]{1,10}$"
"""A line that every parser reads the same way. Most lines match, so the others can be judged slowly."""

NOT_UTF8 = "the line is not in the encoding of its file (UTF-8 unless set)"
REASONS = (
    f"userId is not an integer from 0 to {MAX_ID}",
    f"movieId is not an integer from 0 to {MAX_ID}",
    f"rating is not on the scale {SCALE_MIN:g} to {SCALE_MAX:g} by {STEP:g}",
    f"timestamp is not a time from {EARLIEST} to {LATEST}",
    "movieId is not in the movies table",
)

_FIELD = r'(?:"[^"]*(?:""[^"]*)*"|(?!")[^,]*)'
_WELL_QUOTED = re.compile(rf"{_FIELD}(?:,{_FIELD})*")
_INTEGER = re.compile(r"\s*[-+]?[0-9]+\s*")
_NUMBER = re.compile(r"\s*[-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?\s*")

Row = tuple[int, int, float, int]


@dataclass
class Judged:
    """The result of judging lines: good rows, and rejects as (file, raw, reason)."""

    good: list[Row] = field(default_factory=list)
    rejects: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def reasons(self) -> dict[str, int]:
        """The number of rejected lines by reason."""
        return dict(Counter(reason for _, _, reason in self.rejects))


def judge_all(lines: Iterable[tuple[str, bytes]], movies: Collection[int]) -> Judged:
    """Judge (file, line) pairs; `movies` are the known movieIds. The first header of a file is not a row."""
    judged, files_with_header = Judged(), set()
    for file, line in lines:
        if line == HEADER.encode() and file not in files_with_header:
            files_with_header.add(file)
            continue
        row_or_reason = judge(line, movies)
        if isinstance(row_or_reason, str):
            judged.rejects.append((file, line.decode(errors="replace"), row_or_reason))
        else:
            judged.good.append(row_or_reason)
    return judged


def judge(line: bytes, movies: Collection[int]) -> Row | str:
    """The row (userId, movieId, rating, timestamp) of a line, or the reason to reject it."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return NOT_UTF8
    if text == HEADER:
        return "the header line is repeated"
    if not _WELL_QUOTED.fullmatch(text):
        return "a quote is unbalanced or out of place"
    fields = next(csv.reader([text]))
    if len(fields) != len(COLUMNS):
        return "the line has too few or too many fields"
    return _typed(fields, movies)


def _typed(fields: Sequence[str], movies: Collection[int]) -> Row | str:
    user, movie, rating, second = fields
    numbers = [int(text) if _INTEGER.fullmatch(text) else -1 for text in (user, movie, second)]
    if numbers[2] >= FIRST_MILLISECOND:
        numbers[2] //= 1_000
    stars = float(rating) if _NUMBER.fullmatch(rating) else 0.0
    passed = (
        0 <= numbers[0] <= MAX_ID,
        0 <= numbers[1] <= MAX_ID,
        SCALE_MIN <= stars <= SCALE_MAX and (stars / STEP).is_integer(),
        FIRST_SECOND <= numbers[2] <= LAST_SECOND,
        numbers[1] in movies,
    )
    for reason, is_passed in zip(REASONS, passed, strict=True):
        if not is_passed:
            return reason
    return numbers[0], numbers[1], stars, numbers[2]
