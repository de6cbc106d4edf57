"""Cuts the text of a file into records: lines, lines with breaks inside quotes, and layouts that are no columns.

Spark's reader of text takes each line for a record. It is the faster one, and reads all files whose records are lines.
The others are cut here, whole files at a time. In files without line breaks inside quotes both give the same records.
"""

from __future__ import annotations

import codecs
import io
import itertools
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

import numpy as np

from spark_app.data.dialect import Dialect, closing, for_python, kept_open, left_open, split_fields

MAX_RECORD = 1_000_000
"""The most characters of a record with line breaks. A quote that is not closed by then is one out of place."""

KEPT_BYTES = "movie_reco_kept_bytes"
"""The name by which Python knows how bytes are handled that are no text: each becomes one of 256 lone surrogates."""

FIRST_SURROGATE = 0xDC00
NO_TEXT = re.compile("[\\udc00-\\udcff]")
NO_TEXT_OR_TEXT = re.compile("[\\udc00-\\udcff]+|[^\\udc00-\\udcff]+")

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark is the start of this one
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte order marks, and the encodings that they stand for."""

WITHOUT_MARK = {"utf-8-sig": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}
"""What encodings with a byte order mark are where it is missing: little-endian, as Windows writes them."""

LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
FILLED_LINE = re.compile(rb"[^\r\n]+")

BLOCK = re.compile(r"\s*([^,\s][^,]*?)\s*:\s*")
"""The line above the ratings of an item, in the layout of the Netflix Prize."""


def _keep_bytes(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(FIRST_SURROGATE + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error(KEPT_BYTES, _keep_bytes)


def encoding_of(head: bytes, configured: str) -> str:
    """The encoding of a file that begins with `head`: that of its byte order mark, else the configured one."""
    by_mark = next((encoding for mark, encoding in MARKS if head.startswith(mark)), configured)
    return WITHOUT_MARK.get(by_mark, by_mark)


def is_text(record: str) -> bool:
    """Whether all bytes of a record were text in the encoding of its file."""
    return record.isascii() or not NO_TEXT.search(record)


def as_delivered(record: str, encoding: str) -> bytes:
    """The bytes of a record of which not all were text."""
    parts = NO_TEXT_OR_TEXT.findall(record)  # encoders of UTF-16 take no odd number of bytes from a handler of errors
    return b"".join(_kept(part) if NO_TEXT.match(part) else part.encode(encoding) for part in parts)


def _kept(part: str) -> bytes:
    return bytes(ord(letter) - FIRST_SURROGATE for letter in part)


def lines_of(stream: IO[bytes], encoding: str) -> Iterator[str]:
    r"""The lines of a file with their ends, which are `\n`, `\r\n` or `\r`; without a byte order mark."""
    text = io.TextIOWrapper(stream, encoding=encoding, errors=KEPT_BYTES, newline="")
    first = text.readline().removeprefix("\ufeff")
    if first:
        yield first
    yield from text


def records_of(stream: IO[bytes], encoding: str, dialect: Dialect, name: str) -> Iterator[str]:
    """The records of a file that are not blank, without their line ends. `name` is that of the file."""
    lines = lines_of(stream, encoding)
    if dialect.layout == "netflix":
        return netflix_records(lines)
    if dialect.cells:
        user = dialect.columns[0] if dialect.columns else ""
        return matrix_records(_not_blank(cut(lines, dialect.cells)), dialect.cells, user, name)
    return _not_blank(cut(lines, dialect))


def _not_blank(records: Iterable[str]) -> Iterator[str]:
    """Every reader of CSV skips blank lines: they are no records."""
    return (record for record in records if record)


def cut(lines: Iterable[str], dialect: Dialect) -> Iterator[str]:
    """Records from lines with their ends; a line break inside quotes is part of its record.

    A quote that opens a field and does not close it as it should is out of place. Its line is a record of its own,
    which is then rejected, and the lines below it are read as if they stood alone.
    """
    quotes = Quotes(dialect)
    source, ahead = iter(lines), deque[str]()
    while (line := ahead.popleft() if ahead else next(source, None)) is not None:
        record = line
        if dialect.quote and dialect.quote in line and quotes.leaves_open(line):
            more = quotes.more_lines(line, source, ahead)
            record += "".join(ahead.popleft() for _ in range(more))
        if not quotes.width:
            quotes.see(record)
        yield record.rstrip("\r\n")


class Quotes:
    """Which lines belong together in a dialect with quotes. `see` the first record first: it tells the usual width."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.width = 0
        if dialect.quote:
            self._left_open = for_python(left_open(dialect))
            self._kept_open = for_python(kept_open(dialect))
            self._closing = for_python(closing(dialect))

    def see(self, record: str) -> None:
        """Learn from the first record that is not blank how many fields there are."""
        if text := record.rstrip("\r\n"):
            self.width = len(split_fields(text, self.dialect) or ())

    def leaves_open(self, line: str) -> bool:
        """Whether a line, with its end, ends inside a quoted field."""
        return self._left_open.fullmatch(line) is not None

    def more_lines(self, line: str, source: Iterator[str], ahead: deque[str]) -> int:
        """How many of the lines ahead belong to a line that ends inside a quoted field; 0 if its quote is out of place.

        Fills `ahead` from `source` as far as needed.
        """
        size = len(line)
        for count in itertools.count(1):
            if count > len(ahead):
                following = next(source, None)
                if following is None:
                    return 0
                ahead.append(following)
            last = ahead[count - 1]
            size += len(last)
            if size > MAX_RECORD:
                return 0
            if self.dialect.quote not in last:
                continue
            if self._closing.fullmatch(last.rstrip("\r\n")):
                return 0 if self._are_records(list(itertools.islice(ahead, count - 1))) else count
            if not self._kept_open.fullmatch(last):
                return 0
        return 0

    def _are_records(self, lines: list[str]) -> bool:
        """Whether most lines inside a quoted field look like records, so that a quote must be missing above them."""
        widths = [len(split_fields(line.rstrip("\r\n"), self.dialect) or ()) for line in lines]
        return bool(lines) and self.width > 1 and 2 * widths.count(self.width) > len(lines)


class LineBreaks:
    """Finds out whether any record of a file has a line break inside quotes, while the file is read piece by piece.

    It is for encodings that write quotes and line ends as ASCII does. A file without quotes costs a search for a byte.
    """

    def __init__(self, dialect: Dialect, encoding: str) -> None:
        self.found = False
        self._encoding = encoding
        self._quote = dialect.quote.encode("ascii")
        self._delimiter = dialect.delimiter.encode(encoding)
        self._quotes = Quotes(dialect)
        self._escaped = re.compile(rb"\\[\\%b]" % re.escape(self._quote)) if dialect.escapes_by_backslash else None
        self._rest = b""

    def see(self, piece: bytes) -> None:
        """Look at the next piece of the file."""
        if self._quote and not self.found:
            self._rest = self._look(self._rest + piece, is_last=False)

    def finish(self) -> bool:
        """Whether there is a line break inside quotes, after the last piece."""
        if self._quote and not self.found:
            self._look(self._rest, is_last=True)
        return self.found

    def _look(self, data: bytes, is_last: bool) -> bytes:
        """Look at the whole lines of `data`; returns from where on it must be seen again, with what follows."""
        end = len(data) if is_last else max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if not self._quotes.width and (first := FILLED_LINE.search(data, 0, end)):
            self._quotes.see(self._decoded(first[0]))
        for start in self._candidates(data[:end]):
            lines = Ahead(self._decoded(found[0]) for found in LINE.finditer(data, start, end))
            line = next(lines)
            if self._quotes.leaves_open(line):
                if self._quotes.more_lines(line, lines, deque()):
                    self.found = True
                    return b""
                if lines.is_at_end and not is_last:
                    return data[start:]
        return data[end:]

    def _candidates(self, data: bytes) -> Iterator[int]:
        """Where lines start that may end inside quotes.

        Such a line has an odd number of quotes, or a quote that is a letter of a field.
        """
        if self._quote not in data:
            return
        if self._escaped:
            data = self._escaped.sub(b"  ", data)
        letters = np.frombuffer(data, np.uint8)
        quotes = np.flatnonzero(letters == self._quote[0])
        is_end = (letters == ord("\n")) | (letters == ord("\r"))
        ends = np.append(np.flatnonzero(is_end), len(letters))
        quotes_before = np.searchsorted(quotes, ends)
        is_odd = np.diff(quotes_before, prepend=0) % 2 == 1
        is_letter = np.ones(len(quotes), dtype=bool)
        if len(self._delimiter) == 1:
            starts = np.concatenate([[0], np.flatnonzero(is_end | (letters == self._delimiter[0])) + 1])
            is_letter = letters[starts[np.searchsorted(starts, quotes, side="right") - 1]] != self._quote[0]
        is_odd[np.searchsorted(ends, quotes[is_letter])] = True
        for line in np.flatnonzero(is_odd):
            yield int(ends[line - 1]) + 1 if line else 0

    def _decoded(self, line: bytes) -> str:
        return line.decode(self._encoding, KEPT_BYTES)


class Ahead(Iterator[str]):
    """An iterator that knows whether it has been read to its end."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self.is_at_end = False

    def __next__(self) -> str:
        try:
            return next(self._lines)
        except StopIteration:
            self.is_at_end = True
            raise


def netflix_records(lines: Iterable[str]) -> Iterator[str]:
    """Records `ITEM,USER,RATING,DATE` from blocks of a line `ITEM:` and lines `USER,RATING,DATE`."""
    item = ""
    for line in lines:
        text = line.rstrip("\r\n")
        if ":" in text and (block := BLOCK.fullmatch(text)):
            item = block[1]
        elif text:
            yield f"{item},{text}"


def matrix_records(records: Iterable[str], dialect: Dialect, user: str, name: str) -> Iterator[str]:
    """Records `USER,ITEM,RATING`, as CSV, from records with a cell for each item; blank cells are no ratings.

    `user` is the name of the column of users. Where there is none, a user's id is `name` and the number of the record.
    A record with another number of cells than the first one stays whole: it becomes one of two fields, the user and it.
    """
    source = iter(records)
    header = None if dialect.columns is not None else split_fields(next(source, ""), dialect) or []
    names = list[str]()
    for number, record in enumerate(source, start=1):
        cells = split_fields(record, dialect)
        names = names or header or _numbered(dialect.columns or (), len(cells or ()), user)
        if cells is None or len(cells) != len(names):
            yield _as_csv(f"{name}:{number}", record)
            continue
        user_id = cells[names.index(user)].strip() if user in names else f"{name}:{number}"
        for item, cell in zip(names, cells, strict=True):
            if item not in (user, "") and cell.strip():
                yield _as_csv(user_id, item, cell.strip())


def _numbered(columns: Sequence[str], width: int, user: str) -> list[str]:
    """The columns of a matrix without a header: items have numbers, and named columns are empty except the user's."""
    number = itertools.count(1)
    names = [*columns, *[""] * (width - len(columns))]
    return [name if name == user else "" if name else str(next(number)) for name in names[:width]]


def _as_csv(*fields: str) -> str:
    quoted = ('"' + field.replace('"', '""') + '"' if set(field) & set(',"\r\n') else field for field in fields)
    return ",".join(quoted)
