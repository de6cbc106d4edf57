"""The tables of codes for ids that are not integers, for Spark and for readers without it.

`etl` adds a code for each new id of a delivery. Everything that is published or shown has the ids as delivered.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.dataset as ds
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.data import ids, rules
from spark_app.data.ids import Codes
from spark_app.platform.errors import InputError, UsageError
from spark_app.platform.log import logger
from spark_app.zones.manifest import RunRecord
from spark_app.zones.processed import ProcessedZone

TABLES = {"userId": "user_ids", "movieId": "movie_ids"}
"""The Delta table (id, code) of each column of ids. It exists only if some ids of the column need codes."""


def read_codes(spark: SparkSession, zone: ProcessedZone) -> Codes:
    """All codes given so far."""
    tables = {column: zone.read(spark, table) for column, table in TABLES.items() if zone.has_table(table)}
    return Codes(users=tables.get("userId"), movies=tables.get("movieId"))


def coded_before(zone: ProcessedZone) -> frozenset[str]:
    """The columns, of userId and movieId, of which some ids have codes since an earlier run; found without Spark."""
    return frozenset(column for column, table in TABLES.items() if zone.has_table(table))


def texts_in(fields: DataFrame, column: str) -> DataFrame:
    """The ids of a column, as id (text), that are not empty and no integers: a row for each line that has one."""
    return _ids_in(fields, column).filter(~rules.is_id(rules.as_id("id")))


def find_codes(
    spark: SparkSession, zone: ProcessedZone, fields: dict[str, DataFrame | None], coded: frozenset[str]
) -> tuple[Codes, dict[str, DataFrame]]:
    """All codes, and the new codes by table, for the columns in `coded` and the columns that have codes already.

    `fields` has the parsed lines from which the ids of userId and movieId come, None if none are read. Each such column
    costs a pass over its files; a column without codes costs none. The new codes stay persisted until `keep_codes` has
    written them.
    """
    all_codes, new_codes = {}, {}
    for column, table in TABLES.items():
        is_there = zone.has_table(table)
        if column in coded or is_there:
            known = zone.read(spark, table) if is_there else spark.createDataFrame([], ids.SCHEMA)
            lines = fields[column]
            fresh = ids.new_codes(_ids_in(lines, column), known).persist() if lines is not None else None
            if fresh is not None and not fresh.isEmpty():
                new_codes[table] = fresh
                all_codes[column] = known.union(fresh)
            elif is_there:
                all_codes[column] = known
            if column in all_codes:
                logger.info("%s: ids that are not integers have codes in %s", column, zone.table(table))
    return Codes(users=all_codes.get("userId"), movies=all_codes.get("movieId")), new_codes


def keep_codes(zone: ProcessedZone, record: RunRecord, new_codes: dict[str, DataFrame]) -> None:
    """Add new codes to their tables. Call this before any row with these codes is published."""
    for table, codes in new_codes.items():
        zone.append(codes, table)
        record.note_output(zone.table(table))
        codes.unpersist()


def check_no_codes(zone: ProcessedZone) -> None:
    """Raise UsageError if the zone has codes, which do not fit the setting that all ids are integers."""
    for table in TABLES.values():
        if zone.has_table(table):
            raise UsageError(
                f'input.ids = "integer", but {zone.table(table)} has codes for other ids: leave input.ids out, '
                "or choose another --processed-path"
            )


def _ids_in(fields: DataFrame, column: str) -> DataFrame:
    """The ids, as id (text), in the lines that can be parsed."""
    is_read = rules.first_reason(rules.line_rules()).isNull()
    return fields.filter(is_read & (F.col(column) != "")).select(F.col(column).alias("id"))


def has_codes(zone: ProcessedZone, column: str) -> bool:
    """Whether some ids of userId or movieId have codes. If not, all are integers that stand for themselves."""
    return zone.has_table(TABLES[column])


def code_of(zone: ProcessedZone, column: str, delivered: str) -> int:
    """The integer that stands for an id in the tables. Raises InputError if the id is unknown."""
    if has_codes(zone, column):
        codes = zone.rows(TABLES[column], ds.field("id") == delivered)
        if codes.num_rows:
            return int(codes["code"][0].as_py())
    if not ids.is_plain_id(delivered):
        raise InputError(f"{column} {delivered} is not known in {zone.root}")
    return int(delivered)


def codes_of(zone: ProcessedZone, column: str, delivered: Iterable[str]) -> dict[str, int]:
    """The integers that stand for ids in the tables, by id as delivered; ids that cannot be in the tables are left out.

    An id that is an integer stands for itself, whether or not the tables have it.
    """
    codes = {name: int(name) for name in delivered if ids.is_plain_id(name)}
    if has_codes(zone, column):
        others = pa.array([name for name in delivered if name not in codes], pa.string())
        known = zone.rows(TABLES[column], ds.field("id").isin(others))
        codes |= dict(zip(known["id"].to_pylist(), known["code"].to_pylist(), strict=True))
    return codes


def is_delivered_id(column: str, delivered: str) -> ds.Expression:
    """A filter for rows with an id as delivered, which is text in tables with codes and else an integer."""
    return ds.field(column).cast(pa.string()) == delivered


def with_delivered_movie_ids(zone: ProcessedZone, rows: pa.Table) -> pa.Table:
    """The rows with each movieId as delivered, in the same order."""
    if not has_codes(zone, "movieId"):
        return rows
    codes = zone.rows(TABLES["movieId"], ds.field("code").isin(rows["movieId"].combine_chunks()))
    names = dict(zip(codes["code"].to_pylist(), codes["id"].to_pylist(), strict=True))
    original = [names.get(movie, str(movie)) for movie in rows["movieId"].to_pylist()]
    return rows.set_column(rows.column_names.index("movieId"), "movieId", pa.array(original, pa.string()))
