"""The contract of the raw files: their columns and types, and the checks of a delivery against it."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from spark_app.data.ids import is_plain_id
from spark_app.platform.errors import InputError
from spark_app.platform.settings import Input

INTEGER, NUMBER, TEXT, EMPTY = "BIGINT", "DOUBLE", "STRING", "VOID"
"""The types of a CSV column, by their names in Spark SQL; VOID if it has no values."""

ID = "id (an integer or a text)"
"""The type of a column of ids that may be integers or texts, but not fractions."""

ACCEPTED = {
    INTEGER: (INTEGER, EMPTY),
    NUMBER: (INTEGER, NUMBER, EMPTY),
    TEXT: (INTEGER, NUMBER, TEXT, EMPTY),
    ID: (INTEGER, TEXT, EMPTY),
}
"""By expected type, the types that a column of a file may have."""

ID_COLUMNS = frozenset({"userId", "movieId"})
ID_KINDS = {"integer": INTEGER, "auto": ID, "any": TEXT}
TIME_KINDS = {"seconds": INTEGER, "milliseconds": INTEGER, "iso": TEXT}
"""The type of a column, by the settings input.ids and input.time_format."""

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

    `delimiter` separates two fields.
    """

    table: str
    columns: dict[str, Column]
    absent: tuple[str, ...] = ()
    delimiter: str = ","

    @property
    def names(self) -> dict[str, str]:
        """The name of each column in the file, by our name for it."""
        return {ours: column.name for ours, column in self.columns.items()}


def movies_contract(input_settings: Input) -> Contract:
    """The table of movies: movieId, title, genres."""
    wanted = {
        "movieId": Column(input_settings.item, ID_KINDS[input_settings.ids]),
        "title": Column(input_settings.title, TEXT),
        "genres": Column(input_settings.genres, TEXT),
    }
    return _contract("movies_csv", wanted, input_settings)


def ratings_contract(input_settings: Input) -> Contract:
    """The table of ratings: userId, movieId, rating, timestamp."""
    wanted = {
        "userId": Column(input_settings.user, ID_KINDS[input_settings.ids]),
        "movieId": Column(input_settings.item, ID_KINDS[input_settings.ids]),
        "rating": Column(input_settings.rating, NUMBER),
        "timestamp": Column(input_settings.timestamp, TIME_KINDS[input_settings.time_format]),
    }
    return _contract("ratings_csv", wanted, input_settings)


def _contract(table: str, wanted: dict[str, Column], input_settings: Input) -> Contract:
    """A contract of the columns that have a name in the files, according to the settings."""
    present = {ours: column for ours, column in wanted.items() if column.name}
    return Contract(table, present, tuple(ours for ours in wanted if ours not in present), input_settings.delimiter)


def parse_line(line: str, delimiter: str = ",") -> list[str]:
    """The fields of one CSV line; none if the line is empty or cannot be parsed."""
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


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


def infer_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, str]:
    """Each column of the header with its type, in the order of the file; skips rows with another number of fields."""
    whole = [row for row in rows if len(row) == len(header)]
    return {column: infer_type([row[place] for row in whole]) for place, column in enumerate(header)}


def coded_ids(contract: Contract, header: Sequence[str], rows: Sequence[Sequence[str]]) -> frozenset[str]:
    """The columns, of userId and movieId, that need codes.

    A column of texts always does. A column that may have integers or texts does if fewer than half are integers.
    """
    whole = [row for row in rows if len(row) == len(header)]
    coded = set()
    for ours in ID_COLUMNS & contract.columns.keys():
        place = header.index(contract.columns[ours].name)
        values = [row[place].strip() for row in whole if row[place].strip()]
        are_mostly_plain = 2 * sum(map(is_plain_id, values)) >= len(values)
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
        _check_repeated(header, file)
        return
    if len(missing) == len(expected):
        raise InputError(f"{file}: the first line is not a header: {_expected_and_found(contract, header)}")
    spare = [column for column in header if column not in expected]
    nearest = difflib.get_close_matches(missing[0], spare, n=1, cutoff=0.5)
    hint = f" (renamed to '{nearest[0]}'?)" if nearest else ""
    raise InputError(f"{file}: column '{missing[0]}' is missing{hint}: {_expected_and_found(contract, header)}")


def _check_repeated(header: Sequence[str], file: str) -> None:
    repeated = sorted({column for column in header if header.count(column) > 1})
    if repeated:
        raise InputError(f"{file}: column '{repeated[0]}' appears more than once: rename one of them")


def _expected_and_found(contract: Contract, header: Sequence[str]) -> str:
    expected, found = (contract.delimiter.join(names) for names in (contract.names.values(), header))
    return f"expected {expected}, found {found[:MAX_SHOWN]}; set the names of the columns under [input]"


def check_types(contract: Contract, types: dict[str, str], file: str) -> None:
    """Check the types found in a file against the contract.

    Raises InputError that names the file and the column that has another type.
    """
    for column in contract.columns.values():
        if types[column.name] not in ACCEPTED[column.kind]:
            raise InputError(
                f"{file}: column '{column.name}' should be {column.kind} but most of its values are "
                f"{types[column.name]}: check that the values stand under their own header"
            )


def new_columns(contract: Contract, header: Sequence[str]) -> list[str]:
    """Columns that are not in the contract; they are reported, but not read."""
    return [column for column in header if column not in contract.names.values()]


def _converts(value: str, kind: type[int] | type[float]) -> bool:
    try:
        kind(value)
    except ValueError:
        return False
    return True
