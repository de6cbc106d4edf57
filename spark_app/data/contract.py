"""The contract of the raw files: their columns and types, and how a delivery is held against it."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from spark_app.platform.errors import InputError

INTEGER, NUMBER, TEXT, EMPTY = "BIGINT", "DOUBLE", "STRING", "VOID"
"""The types a CSV column may have, by their names in Spark SQL; VOID where it holds no value."""

MAX_SHOWN = 200
"""Characters of a line that is no header that an error shows."""


@dataclass(frozen=True)
class Contract:
    """A raw table: its name in the catalogue, and the columns that must be there, with their types."""

    table: str
    columns: dict[str, str]


MOVIES = Contract("movies_csv", {"movieId": INTEGER, "title": TEXT, "genres": TEXT})
RATINGS = Contract("ratings_csv", {"userId": INTEGER, "movieId": INTEGER, "rating": NUMBER, "timestamp": INTEGER})


def parse_line(line: str) -> list[str]:
    """The fields of one CSV line; none where the line is empty or no parser would take it."""
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []


def infer_type(values: Sequence[str]) -> str:
    """The narrowest type that most of the values have that are not empty; EMPTY where there are none.

    Most, not all: a few broken values are rows to reject later, not another type of column.
    """
    filled = [value for value in values if value.strip()]
    if not filled:
        return EMPTY
    for kind, converts in ((INTEGER, int), (NUMBER, float)):
        if 2 * sum(_converts(value, converts) for value in filled) > len(filled):
            return kind
    return TEXT


def infer_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, str]:
    """Each column of the header with its type, in the order of the file; rows of another length are passed over."""
    whole = [row for row in rows if len(row) == len(header)]
    return {column: infer_type([row[place] for row in whole]) for place, column in enumerate(header)}


def check_header(contract: Contract, header: Sequence[str], file: str) -> None:
    """Hold the header line of a file against the contract; the order of columns is free, further ones are too.

    Raises InputError naming the file and the column that is missing, renamed or doubled.
    """
    missing = [column for column in contract.columns if column not in header]
    if not missing:
        _check_doubled(header, file)
        return
    if len(missing) == len(contract.columns):
        raise InputError(f"{file}: the first line is no header: {_expected_and_found(contract, header)}")
    spare = [column for column in header if column not in contract.columns]
    nearest = difflib.get_close_matches(missing[0], spare, n=1, cutoff=0.5)
    hint = f" (renamed to '{nearest[0]}'?)" if nearest else ""
    raise InputError(f"{file}: column '{missing[0]}' is missing{hint}: {_expected_and_found(contract, header)}")


def _check_doubled(header: Sequence[str], file: str) -> None:
    doubled = sorted({column for column in header if header.count(column) > 1})
    if doubled:
        raise InputError(f"{file}: column '{doubled[0]}' is there more than once: rename one of them")


def _expected_and_found(contract: Contract, header: Sequence[str]) -> str:
    return f"expected {','.join(contract.columns)}, found {','.join(header)[:MAX_SHOWN]}"


def check_types(contract: Contract, types: dict[str, str], file: str) -> None:
    """Hold the types found in a file against the contract.

    Raises InputError naming the file and the column that changed its type.
    """
    narrower = {INTEGER: (INTEGER,), NUMBER: (INTEGER, NUMBER), TEXT: (INTEGER, NUMBER, TEXT)}
    for column, expected in contract.columns.items():
        if types[column] not in (*narrower[expected], EMPTY):
            raise InputError(
                f"{file}: column '{column}' should be {expected} but most of its values are {types[column]}: "
                "check that the values stand under their own header"
            )


def new_columns(contract: Contract, header: Sequence[str]) -> list[str]:
    """Columns that the contract does not know; they are reported, and not read."""
    return [column for column in header if column not in contract.columns]


def _converts(value: str, kind: type[int] | type[float]) -> bool:
    try:
        kind(value)
    except ValueError:
        return False
    return True
