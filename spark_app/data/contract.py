"""The contract of the raw files: their columns and types, and the checks of a delivery against it."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from spark_app.data.dialect import PLAIN, Dialect, movies_dialect, ratings_dialect, split_fields
from spark_app.data.ids import is_plain_id
from spark_app.platform.errors import InputError
from spark_app.platform.settings import Input, MoviesFile, RatingsFile

INTEGER, NUMBER, TEXT, EMPTY = "BIGINT", "DOUBLE", "STRING", "VOID"
"""The types of a CSV column, by their names in Spark SQL; VOID if it has no values."""

ID = "id (an integer or a text)"
"""The type of a column of ids that may be integers or texts, but not fractions."""

TIME = "a time (a number since 1970 or ISO 8601)"
ISO = "ISO 8601"
"""The type of a column of times of any form, and of texts that begin with a year."""

ACCEPTED = {
    INTEGER: (INTEGER, EMPTY),
    NUMBER: (INTEGER, NUMBER, EMPTY),
    TEXT: (INTEGER, NUMBER, TEXT, ISO, EMPTY),
    ID: (INTEGER, TEXT, EMPTY),
    TIME: (INTEGER, ISO, EMPTY),
}
"""By expected type, the types that a column of a file may have."""

ID_COLUMNS = frozenset({"userId", "movieId"})
ID_KINDS = {"integer": INTEGER, "auto": ID, "any": TEXT}
TIME_KINDS = {"auto": TIME, "seconds": INTEGER, "milliseconds": INTEGER, "iso": TEXT}
"""The type of a column, by the settings input.ids and input.time_format."""

GENRE = "genre "
"""How our names of columns begin that each stand for a genre."""

NO_DECIMALS = r"\.0*$"
YEAR = r"[+-]?\d{4}"
EARLY_SECOND = 100_000_000
"""Numbers from here on may be times: as seconds they are in 1973 or later. No rating is as large."""

OTHER_FORMATS = {"{": "JSON", "[": "JSON", "<": "HTML or XML"}
"""What a text is, by its first character, that is no table of lines."""

DELIMITERS = ("\t", ";", "::", "|", ",")
"""What divides fields most often, to tell from a line which it may be."""

COMMA_AND_POINT = str.maketrans(",.", ".,")
"""Exchanges commas and points: a number with a decimal comma becomes one with a point, and the other way round."""

MAX_SHOWN = 200
"""How many characters of a wrong header an error shows."""


@dataclass(frozen=True)
class Column:
    """A column of a raw file: its name in the file, and its type."""

    name: str
    kind: str


@dataclass(frozen=True)
class Contract:
    """A raw table: its name in the catalogue, its columns by our names for them, and our names of columns it lacks.

    `dialect` says how its files are written. `marks` are the values of a rating or a time that stand for none.
    """

    table: str
    columns: dict[str, Column]
    absent: tuple[str, ...] = ()
    dialect: Dialect = PLAIN
    marks: frozenset[str] = frozenset()

    @property
    def names(self) -> dict[str, str]:
        """The name of each column in the file, by our name for it."""
        return {ours: column.name for ours, column in self.columns.items()}


def movies_contract(input_settings: Input, file: MoviesFile | None = None) -> Contract:
    """The table of movies: movieId, title, genres; and the columns that each stand for a genre, as `genre NAME`."""
    file = file or MoviesFile()
    wanted = {
        "movieId": Column(file.item or input_settings.item, ID_KINDS[input_settings.ids]),
        "title": Column(input_settings.title, TEXT),
        "genres": Column(input_settings.genres, TEXT),
        **{f"{GENRE}{name}": Column(name, TEXT) for name in file.genre_columns},
    }
    return _contract("movies_csv", wanted, movies_dialect(input_settings, file))


def ratings_contract(input_settings: Input, file: RatingsFile | None = None) -> Contract:
    """The table of ratings: userId, movieId, rating, timestamp."""
    wanted = {
        "userId": Column(input_settings.user, ID_KINDS[input_settings.ids]),
        "movieId": Column(input_settings.item, ID_KINDS[input_settings.ids]),
        "rating": Column(input_settings.rating, NUMBER),
        "timestamp": Column(input_settings.timestamp, TIME_KINDS[input_settings.time_format]),
    }
    made = _contract("ratings_csv", wanted, ratings_dialect(input_settings, file or RatingsFile()))
    return replace(made, marks=frozenset([*input_settings.unrated_values, *input_settings.missing_values]))


def _contract(table: str, wanted: dict[str, Column], dialect: Dialect) -> Contract:
    """A contract of the columns that have a name in the files, according to the settings."""
    present = {ours: column for ours, column in wanted.items() if column.name}
    return Contract(table, present, tuple(ours for ours in wanted if ours not in present), dialect)


def columns_of(contract: Contract, first: str, rows: Sequence[Sequence[str]], file: str) -> tuple[str, ...]:
    """The columns of a file in their order: from its first record or, for files without a header, from the settings.

    `rows` are the fields of the first records. Columns that the settings do not name have empty names. Raises
    InputError that names the file, and what is missing, renamed or repeated.
    """
    dialect = contract.dialect
    header = tuple(split_fields(first, dialect) or first.split(dialect.delimiter))
    if dialect.columns is None:
        check_header(contract, header, file)
        return header
    if set(contract.names.values()) <= set(header):
        raise InputError(f"{file}: the first line is a header: leave out {dialect.section}.header = false")
    usual_width = Counter(map(len, rows)).most_common(1)[0][0] if rows else len(header)
    width = len(dialect.columns) if dialect.rest_in_last else usual_width
    if width < len(dialect.columns):
        raise InputError(
            f"{file}: lines have {width} fields divided by {dialect.delimiter!r}, but {dialect.section}.columns names "
            f"{len(dialect.columns)}: {first[:MAX_SHOWN]}"
        )
    return (*dialect.columns, *[""] * (width - len(dialect.columns)))


def infer_type(values: Sequence[str]) -> str:
    """The narrowest type that more than half of the values have; EMPTY if there are none. Empty values do not count.

    A few broken values do not change the type of a column: their rows are rejected later.
    """
    filled = [value for value in values if value.strip()]
    if not filled:
        return EMPTY
    for kind, converts in ((INTEGER, int), (NUMBER, float)):
        if 2 * sum(_converts(value, converts) for value in filled) > len(filled):
            return kind
    return TEXT


def infer_types(contract: Contract, header: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The type of each column, in the order of the file; skips rows with another number of fields."""
    whole = [row for row in rows if len(row) == len(header)]
    values = [[row[place] for row in whole] for place in range(len(header))]
    if "rating" in contract.columns and contract.dialect.decimal == ",":
        place = header.index(contract.columns["rating"].name)
        values[place] = [value.translate(COMMA_AND_POINT) for value in values[place]]
    return tuple(
        infer_type([value for value in of_column if value.strip() not in contract.marks]) for of_column in values
    )


def coded_ids(contract: Contract, header: Sequence[str], rows: Sequence[Sequence[str]]) -> frozenset[str]:
    """The columns, of userId and movieId, that need codes.

    A column of texts always does. A column that may have integers or texts does if fewer than half are integers.
    """
    whole = [row for row in rows if len(row) == len(header)]
    coded = set()
    for ours in ID_COLUMNS & contract.columns.keys():
        place = header.index(contract.columns[ours].name)
        values = [row[place].strip() for row in whole if row[place].strip()]
        are_mostly_plain = 2 * sum(map(_is_integer_id, values)) >= len(values)
        if contract.columns[ours].kind == TEXT or (contract.columns[ours].kind == ID and not are_mostly_plain):
            coded.add(ours)
    return frozenset(coded)


def check_header(contract: Contract, header: Sequence[str], file: str) -> None:
    """Check the header line of a file against the contract. Columns may be in any order, and there may be others.

    Raises InputError that names the file and the column that is missing, renamed or repeated.
    """
    expected = list(contract.names.values())
    missing = [name for name in expected if name not in header]
    if not missing:
        _check_repeated(expected, header, file)
        return
    if len(missing) == len(expected):
        raise InputError(f"{file}: the first line is not a header: {_expected_and_found(contract, header)}")
    spare = [column for column in header if column not in expected]
    nearest = difflib.get_close_matches(missing[0], spare, n=1, cutoff=0.5)
    hint = f" (renamed to '{nearest[0]}'?)" if nearest else ""
    raise InputError(f"{file}: column '{missing[0]}' is missing{hint}: {_expected_and_found(contract, header)}")


def _check_repeated(expected: Sequence[str], header: Sequence[str], file: str) -> None:
    """Raise InputError for a column that is needed and there more than once. What nobody reads may have any name."""
    repeated = [column for column in expected if header.count(column) > 1]
    if repeated:
        raise InputError(f"{file}: column '{repeated[0]}' appears more than once: rename one of them")


def _expected_and_found(contract: Contract, header: Sequence[str]) -> str:
    dialect = contract.dialect
    expected, found = (dialect.delimiter.join(names) for names in (contract.names.values(), header))
    return f"expected {expected}, found {found[:MAX_SHOWN]}; {_advice(contract, header)}"


def _advice(contract: Contract, header: Sequence[str]) -> str:
    """The setting that a first line asks for which is not the header that it should be."""
    section, found = contract.dialect.section, contract.dialect.delimiter.join(header)
    if other := next((kind for start, kind in OTHER_FORMATS.items() if found.lstrip().startswith(start)), None):
        return f"the file looks like {other}: deliver it as CSV"
    others = [delimiter for delimiter in DELIMITERS if delimiter in found and delimiter != contract.dialect.delimiter]
    if len(header) == 1 and others and len(contract.columns) > 1:
        return f"if fields are divided by {others[0]!r}, set {section}.delimiter"
    if any(_converts(field, float) for field in header):
        return f"if the file has no header, set {section}.header = false and name its columns in {section}.columns"
    return "set the names of the columns under [input]"


def check_types(
    contract: Contract, header: Sequence[str], types: Sequence[str], file: str, rows: Sequence[Sequence[str]] = ()
) -> None:
    """Check the types of the columns of a file, in its order, against the contract; `rows` are its first rows.

    Raises InputError that names the file and the column that has another type.
    """
    for ours, column in contract.columns.items():
        place = header.index(column.name)
        values = [row[place].strip() for row in rows if len(row) == len(header)]
        found = _standing_for(ours, types[place], [value for value in values if value])
        if found not in ACCEPTED[column.kind]:
            raise InputError(
                f"{file}: column '{column.name}' should be {column.kind} but most of its values are "
                f"{found}: check that the values stand under their own header"
            )


def _standing_for(ours: str, found: str, values: Sequence[str]) -> str:
    """The type of a column for what it is to us: INTEGER for ids such as `1.0` and times such as `964982703.5`.

    ISO for times that begin with a year; else the type that was found.
    """
    tests: dict[tuple[str, str], tuple[Callable[[str], bool], str]] = {
        ("userId", NUMBER): (_is_integer_id, INTEGER),
        ("movieId", NUMBER): (_is_integer_id, INTEGER),
        ("timestamp", NUMBER): (lambda value: _converts(value, float) and float(value) >= EARLY_SECOND, INTEGER),
        ("timestamp", TEXT): (lambda value: re.match(YEAR, value) is not None, ISO),
    }
    is_one, kind = tests.get((ours, found), (None, found))
    return kind if is_one and 2 * sum(map(is_one, values)) > len(values) else found


def _is_integer_id(text: str) -> bool:
    """Whether an id is an integer, also if it has decimals that are all 0."""
    return is_plain_id(re.sub(NO_DECIMALS, "", text))


def new_columns(contract: Contract, header: Sequence[str]) -> list[str]:
    """Columns that are not in the contract; they are reported, but not read."""
    return [column for column in header if column and column not in contract.names.values()]


def _converts(value: str, kind: type[int] | type[float]) -> bool:
    try:
        kind(value)
    except ValueError:
        return False
    return True
