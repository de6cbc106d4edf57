"""Lists of ids, as delivered, in the files and tables that settings name: text, CSV, Parquet or Delta.

The ids are in the column that has the name of the input's column of ids, or `movieId` or `userId`, or `id`. A list of a
single column needs no header.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from spark_app.platform import delta, s3, storage
from spark_app.platform.errors import InputError
from spark_app.platform.settings import Input

IdColumn = Literal["movieId", "userId"]

PARQUET = (".parquet", ".pq")
MANY = 10
"""Columns that are named in a message."""


def read_ids(lists: Iterable[str], column: IdColumn, names: Input) -> list[str]:
    """The distinct ids in the lists, as text, in the order in which they stand there.

    Raises InputError for a list that is missing, that cannot be read, or that has no column of ids; StorageError where
    S3 cannot be read.
    """
    ids: dict[str, None] = {}
    for path in lists:
        try:
            ids |= dict.fromkeys(_ids_in(storage.normalise(path), _accepted(column, names)))
        except s3.failures(pa.ArrowInvalid) as error:
            raise storage.unreadable(path, error) from error
    return list(ids)


def _accepted(column: IdColumn, names: Input) -> list[str]:
    """The names that the column of ids may have, the likeliest first."""
    return [names.item if column == "movieId" else names.user, column, "id"]


def _ids_in(path: str, accepted: list[str]) -> list[str]:
    table = None if storage.is_file(path) else delta.dataset(path)
    if table is not None:
        return _ids_of(table, path, accepted)
    files = storage.list_files(path)
    if not files:
        raise InputError(f"the list of ids {path} is missing: check the path")
    if all(file.endswith(PARQUET) for file in files):
        return _ids_of(storage.parquet(files), path, accepted)
    return [row for file in files for row in _ids_of_text(file, accepted)]


def _ids_of(table: ds.Dataset, path: str, accepted: list[str]) -> list[str]:
    """The ids in a table, as text. Whole numbers may be stored as floats, as pandas does where some are missing."""
    names = table.schema.names
    column = next((name for name in accepted if name in names), names[0] if len(names) == 1 else None)
    if column is None:
        raise _no_column(path, names, accepted)
    ids = table.to_table(columns=[column])[column].drop_null()
    if pa.types.is_floating(ids.type) or pa.types.is_decimal(ids.type):
        ids = pc.cast(ids, pa.int64())
    return [str(value) for value in pc.cast(ids, pa.string()).to_pylist()]


def _ids_of_text(path: str, accepted: list[str]) -> list[str]:
    rows = storage.read_csv(path)
    if not rows:
        return []
    header = rows[0]
    column = next((header.index(name) for name in accepted if name in header), None)
    if column is not None:
        return [row[column] for row in rows[1:] if len(row) > column and row[column]]
    if max(map(len, rows)) > 1:
        raise _no_column(path, header, accepted)
    return [row[0] for row in rows]


def _no_column(path: str, names: list[str], accepted: list[str]) -> InputError:
    return InputError(
        f"{path} has the columns {', '.join(names[:MANY])}: call the column of the ids {accepted[0]}, "
        "or give a list of one column"
    )
