"""Ids of any type as the 32-bit integers that MLlib takes.

Integers from 0 to 2^31-1, written plainly, stand for themselves. Every other text gets a code of its own, a negative
integer, so codes never collide with ids. A code never changes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

MAX_ID = 2**31 - 1
"""Largest userId and movieId: MLlib's ALS takes 32-bit integers only."""

PLAIN = r"(?:0|[1-9][0-9]{0,9})"
"""An integer written plainly. `007` is not: it would become 7, which may be another id."""

ROWS_PER_BROKEN_ID = 2_000
"""Where fewer than one row in so many has an id that is no integer, such ids are taken for broken ones."""

SCHEMA = "id STRING, code INT"
"""The schema of a table of codes."""


@dataclass(frozen=True)
class Codes:
    """The codes(id, code) of users and of movies; None if all ids stand for themselves."""

    users: DataFrame | None = None
    movies: DataFrame | None = None

    @property
    def by_column(self) -> dict[str, DataFrame]:
        """The codes of each column that has codes."""
        both = {"userId": self.users, "movieId": self.movies}
        return {column: codes for column, codes in both.items() if codes is not None}


def is_plain_id(text: str) -> bool:
    """Whether an id stands for itself."""
    return re.fullmatch(PLAIN, text) is not None and int(text) <= MAX_ID


def new_codes(ids: DataFrame, known: DataFrame) -> DataFrame:
    """Codes (id, code) for the ids(id, text or null) that need a code and have none in known(id, code).

    The codes continue below the lowest known code, in the order of the ids, so the same deliveries give the same codes.
    One task numbers the new ids; it sorts them on disk if there are many.
    """
    (lowest,) = known.agg(F.least(F.min("code"), F.lit(0))).collect()[0]
    uncoded = ids.filter(F.col("id").isNotNull() & ~_is_plain(F.col("id"))).distinct()
    uncoded = uncoded.join(known, on="id", how="left_anti")
    number = F.row_number().over(Window.orderBy("id"))
    return uncoded.select("id", (F.lit(lowest) - number).cast("int").alias("code"))


def are_ids(texts: int, rows: int) -> bool:
    """Whether `texts`, the number of ids of a column that are no integers, are ids and not integers that were spoilt.

    They are ids where at least one in ROWS_PER_BROKEN_ID of the `rows` has one.
    """
    return texts > 0 and texts * ROWS_PER_BROKEN_ID >= rows


def with_codes(frame: DataFrame, codes: Codes) -> DataFrame:
    """Replace the ids in userId and movieId (text) that need codes by their codes (text); null if an id has no code."""
    for column, known in codes.by_column.items():
        if column in frame.columns:
            named = known.select(F.col("id").alias(column), F.col("code").cast("string").alias("id_code"))
            coded = F.when(_is_plain(F.col(column)), F.col(column)).otherwise(F.col("id_code"))
            frame = frame.join(named, on=column, how="left").withColumn(column, coded).drop("id_code")
    return frame


def with_original_ids(frame: DataFrame, codes: Codes) -> DataFrame:
    """Replace userId and movieId by the ids as delivered, as text; columns without codes stay integers.

    The order of the columns does not change.
    """
    columns = frame.columns
    for column, known in codes.by_column.items():
        if column in columns:
            named = known.select(F.col("code").alias(column), F.col("id").alias("original_id"))
            original = F.coalesce("original_id", F.col(column).cast("string"))
            frame = frame.join(named, on=column, how="left").withColumn(column, original).drop("original_id")
    return frame.select(*columns)


def _is_plain(text: Column) -> Column:
    """Whether an id, as text, stands for itself; false for null."""
    is_written_plainly = text.rlike(rf"^{PLAIN}\z")
    return F.coalesce(F.when(is_written_plainly, text.cast("bigint") <= MAX_ID), F.lit(False))
