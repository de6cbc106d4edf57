"""What a file of an unknown form looks like: its encoding, its dialect, whether it has a header, and its columns."""

from __future__ import annotations

import io
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from spark_app.data.dialect import PLAIN, Dialect, split_fields
from spark_app.data.records import BLOCK, encoding_of, records_of

DELIMITERS = ("::", "\t", ";", "|", ",")
"""What may divide fields; the first one is taken of those that do equally well."""

TRIED_RECORDS, READ_RECORDS = 300, 10_000
"""How many records each dialect is tried on, and how many are read with the one that is found."""

FEWEST_COLUMNS = 2
MATRIX_WIDTH = 20
MOST, NEARLY_ALL, ALL_BUT_A_FEW = 0.9, 0.98, 0.999
"""What holds for this share of the values of a column holds for the column."""

WIDE_ZEROS = 0.3
"""Of a text of two bytes a letter, more than this share of the bytes are 0."""

NUMBER = re.compile(r"\s*[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\s*")
DECIMAL_COMMA = re.compile(r"\s*[-+]?[0-9]+,[0-9]+\s*")
MISSING = frozenset({"", "NA", "N/A", "NULL", "null", "None", "none", "NaN", "nan", r"\N", "-"})
"""Texts that usually mean that there is no value."""


@dataclass(frozen=True)
class Look:
    """A file as it looks: `share` of its first records have as many fields as most have.

    `header` has the names of the columns, None if there seems to be no header; `rows` are the first rows. `name` is the
    file's under the raw root, `size` in bytes.
    """

    name: str
    size: int
    encoding: str
    dialect: Dialect
    share: float
    rows: list[list[str]]
    header: tuple[str, ...] | None = None
    has_mark: bool = False
    has_quotes: bool = False
    is_ascii: bool = False
    columns: list[Column] = field(default_factory=list)


@dataclass(frozen=True)
class Column:
    """The values of a column in the first rows, and what they have in common."""

    values: list[str]

    @property
    def filled(self) -> list[str]:
        """The values that are not missing, without blanks around them."""
        return [value.strip() for value in self.values if value.strip() not in MISSING]

    @property
    def is_filled(self) -> bool:
        """Whether most values are not missing."""
        return len(self.filled) >= MOST * len(self.values) > 0

    @property
    def is_full(self) -> bool:
        """Whether all values but a few are there, as ids must be."""
        return len(self.filled) >= ALL_BUT_A_FEW * len(self.values) > 0

    @property
    def numbers(self) -> list[float]:
        """The values that are numbers, also those with a decimal comma."""
        return [number for value in self.filled if (number := as_number(value)) is not None]

    @property
    def is_numeric(self) -> bool:
        """Whether most values are numbers."""
        return bool(self.filled) and len(self.numbers) >= MOST * len(self.filled)

    @property
    def has_decimal_commas(self) -> bool:
        """Whether numbers have a comma before their decimals."""
        return any(DECIMAL_COMMA.fullmatch(value) for value in self.filled) and self.is_numeric

    @property
    def distinct(self) -> int:
        """The number of different values."""
        return len(set(self.filled))

    @property
    def is_key(self) -> bool:
        """Whether each row has a value of its own."""
        return self.is_filled and self.distinct >= NEARLY_ALL * len(self.filled)


def as_number(value: str) -> float | None:
    """A text as a number; None if it is not one."""
    if DECIMAL_COMMA.fullmatch(value):
        value = value.replace(",", ".")
    return float(value) if NUMBER.fullmatch(value) else None


def look_at(name: str, content: bytes, size: int) -> Look | None:
    """How a file looks that has `size` bytes and begins with `content`; None if it is not text in columns."""
    encoding = encoding_of(content, "") or _guessed_encoding(content, is_whole=len(content) == size)
    if encoding is None:
        return None
    if len(content) < size and encoding.startswith("utf-16"):
        content = content[: len(content) // 2 * 2]
    sample = _Sample(name, content, encoding, len(content) < size)
    if BLOCK.fullmatch(sample.text(1)):
        dialect = Dialect(layout="netflix", delimiter=",", quote="", columns=("item", "user", "rating", "date"))
        rows = [record.split(",") for record in sample.records(dialect, READ_RECORDS)]
        return _with_columns(Look(name, size, encoding, dialect, 1.0, rows))
    tried = [_tried(sample, dialect) for dialect in _dialects(sample)]
    if not tried or max(tried, key=lambda found: found[0])[0][0] == 0:
        return None
    (share, _), dialect = max(tried, key=lambda found: found[0])
    records = [split_fields(record, dialect) or [] for record in sample.records(dialect, READ_RECORDS)]
    usual = _usual_width(records)
    if _can_take_rest(records, usual, dialect, sample) and _header([r for r in records if len(r) == usual]) is None:
        dialect = replace(dialect, columns=("",) * usual, quote="", rest_in_last=True)
        records = [split_fields(record, dialect) or [] for record in sample.records(dialect, READ_RECORDS)]
        share = 1.0
    rows = [record for record in records if len(record) == usual]
    header = _header(rows)
    look = Look(name, size, encoding, dialect, share, rows[1:] if header else rows, header)
    return _with_columns(
        replace(
            look,
            has_mark=bool(encoding_of(content, "")),
            has_quotes='"' in sample.text(TRIED_RECORDS),
            is_ascii=content.isascii(),
        )
    )


@dataclass(frozen=True)
class _Sample:
    name: str
    content: bytes
    encoding: str
    is_cut: bool

    def records(self, dialect: Dialect, count: int) -> list[str]:
        """The first records in a dialect, without the last one if the file goes on."""
        found = list(
            itertools.islice(records_of(io.BytesIO(self.content), self.encoding, dialect, self.name), count + 1)
        )
        return found[:count] if len(found) > count or not self.is_cut else found[:-1]

    def text(self, count: int) -> str:
        """The first lines."""
        return "\n".join(self.records(replace(PLAIN, quote="", delimiter="\0"), count))


def _guessed_encoding(content: bytes, *, is_whole: bool) -> str | None:
    """The encoding of a text without a byte order mark; None if it is no text.

    One-byte encodings cannot be told apart by their bytes alone: Western ones are assumed.
    """
    zeros = content[:4096].count(0)
    if zeros:
        even, odd = content[:4096:2].count(0), content[1:4096:2].count(0)
        is_wide = zeros >= WIDE_ZEROS * len(content[:4096]) and max(even, odd) > 10 * min(even, odd)
        return ("utf-16-le" if odd > even else "utf-16-be") if is_wide else None
    try:
        content.decode()
    except UnicodeDecodeError as error:
        is_cut_letter = not is_whole and error.start >= len(content) - 3
        if not is_cut_letter:
            has_cp1252 = re.search(rb"[\x80-\x9f]", content) and not re.search(rb"[\x81\x8d\x8f\x90\x9d]", content)
            return "cp1252" if has_cp1252 else "latin-1"
    return "utf-8"


def _dialects(sample: _Sample) -> list[Dialect]:
    """The dialects that the first lines may have."""
    text = sample.text(TRIED_RECORDS)
    quotes = [PLAIN]
    if '"' in text:
        quotes += [replace(PLAIN, escape="backslash")] if '\\"' in text else []
        quotes = [replace(PLAIN, skip_blanks=True), *quotes] if re.search(r'[,;|\t] +"', text) else quotes
        quotes += [replace(PLAIN, quote="")]
    return [replace(quoted, delimiter=delimiter) for delimiter in DELIMITERS if delimiter in text for quoted in quotes]


def _tried(sample: _Sample, dialect: Dialect) -> tuple[tuple[float, int], Dialect]:
    """How well a dialect does: the share of records with as many fields as most, and whether there are several."""
    records = [split_fields(record, dialect) or [] for record in sample.records(dialect, TRIED_RECORDS)]
    usual = _usual_width(records)
    if usual < FEWEST_COLUMNS:
        return (0.0, 0), dialect
    share = sum(len(record) == usual for record in records) / len(records)
    return (round(share, 2), min(usual, 3)), dialect


def _usual_width(records: Sequence[Sequence[str]]) -> int:
    return Counter(map(len, records)).most_common(1)[0][0] if records else 0


def _can_take_rest(records: Sequence[Sequence[str]], usual: int, dialect: Dialect, sample: _Sample) -> bool:
    """Whether some records have more fields than most, and none has fewer, where quotes mean nothing."""
    widths = Counter(map(len, records))
    has_no_quotes = not dialect.quote or dialect.quote not in sample.text(TRIED_RECORDS)
    return dialect.delimiter == "," and len(widths) > 1 and min(widths) == usual > FEWEST_COLUMNS and has_no_quotes


def _header(rows: Sequence[Sequence[str]]) -> tuple[str, ...] | None:
    """The first row if it seems to name the columns: it has a text where others have numbers, or only usual names."""
    if not rows:
        return None
    first, rest = rows[0], rows[1:]
    columns = [Column([row[place] for row in rest]) for place in range(len(first))]
    numeric = [place for place, column in enumerate(columns) if column.is_numeric]
    if numeric:
        is_named = any(as_number(first[place]) is None and first[place].strip() not in MISSING for place in numeric)
    else:
        is_named = sum(plain_name(name) in USUAL_NAMES for name in first) >= FEWEST_COLUMNS
    return tuple(first) if is_named and all(as_number(name) is None for name in first if name.strip()) else None


def _with_columns(look: Look) -> Look:
    width = len(look.rows[0]) if look.rows else len(look.header or ())
    columns = [Column([row[place] for row in look.rows if len(row) == width]) for place in range(width)]
    return replace(look, columns=columns)


def is_matrix(look: Look) -> bool:
    """Whether each line seems to be a user and each column an item."""
    wide = look.columns[1:]
    return len(wide) >= MATRIX_WIDTH and sum(not column.filled or column.is_numeric for column in wide) >= MOST * len(
        wide
    )


def plain_name(name: str) -> str:
    """The name of a column in small letters and digits alone, to compare it with usual names."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


USERS = _words(
    "userid user uid username usersha1 reviewerid reviewer customerid customer visitorid visitor memberid member "
    "readerid reader listenerid listener profileid profile clientid client personid person"
)
ITEMS = _words(
    "itemid item movieid movie filmid film isbn bookid book animeid anime malid artistid artist trackid track songid "
    "song gameid game parentasin asin productid product articleid article jokeid joke showid show iid id"
)
RATINGS = _words("rating bookrating userrating starrating stars star score overall vote votes grade mark")
COUNTS = _words("plays playcount play weight listens hours clicks views quantity qty purchases count counts")
TIMES = _words(
    "timestamp time datetime date at ts ratedat createdat ratingdate ratingtime reviewtime unixreviewtime updatedat"
)
TITLES = _words(
    "title name movietitle booktitle itemtitle itemname moviename animename artistname productname originaltitle"
)
GENRES = _words("genres genre categories category")
"""Usual names of columns, as `plain_name` writes them; of several the first is preferred."""

USUAL_NAMES = frozenset((*USERS, *ITEMS, *RATINGS, *COUNTS, *TIMES, *TITLES, *GENRES))
