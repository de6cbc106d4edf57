"""The tables of codes for ids that are no integers, by Spark and without it.

`etl` adds to them where a delivery brings new ids; whatever is published or shown has the ids as they were delivered.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.dataset as ds
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.data import ids, rules
from spark_app.data.ids import Codes
from spark_app.platform import storage
from spark_app.platform.errors import InputError, UsageError
from spark_app.platform.log import logger
from spark_app.zones.manifest import RunRecord
from spark_app.zones.processed import ProcessedZone

TABLES = {"userId": "user_ids", "movieId": "movie_ids"}
"""The Delta table (id, code) of each column of ids; it is there only where some of its ids need codes."""


def read_codes(spark: SparkSession, zone: ProcessedZone) -> Codes:
    """The codes that were given so far."""
    found = {column: zone.read(spark, table) for column, table in TABLES.items() if zone.has_table(spark, table)}
    return Codes(users=found.get("userId"), movies=found.get("movieId"))


def find_codes(
    spark: SparkSession, zone: ProcessedZone, fields: dict[str, DataFrame | None], coded: frozenset[str]
) -> tuple[Codes, dict[str, DataFrame]]:
    """All codes, and by table those of them that are new: of the columns that need codes, or had some before.

    Takes for userId and movieId the parsed lines that decide which there are, None where none are to be read. Each
    column costs a pass over its files, which is not needed where all ids are integers. The new codes are persisted
    until `keep_codes` has written them.
    """
    found, fresh = {}, {}
    for column, table in TABLES.items():
        is_there = zone.has_table(spark, table)
        if column in coded or is_there:
            known = zone.read(spark, table) if is_there else spark.createDataFrame([], ids.SCHEMA)
            lines = fields[column]
            new = ids.new_codes(_ids_in(lines, column), known).persist() if lines is not None else None
            if new is not None and not new.isEmpty():
                fresh[table] = new
                found[column] = known.union(new)
            elif is_there:
                found[column] = known
            if column in found:
                logger.info("%s: ids that are no integers have codes in %s", column, zone.table(table))
    return Codes(users=found.get("userId"), movies=found.get("movieId")), fresh


def keep_codes(zone: ProcessedZone, record: RunRecord, fresh: dict[str, DataFrame]) -> None:
    """Add new codes to their tables; this comes before any row that they stand in is published."""
    for table, codes in fresh.items():
        zone.append(codes, table)
        record.note_output(zone.table(table))
        codes.unpersist()


def check_no_codes(spark: SparkSession, zone: ProcessedZone) -> None:
    """Raise UsageError where ids are to be integers and the zone has codes for others."""
    for table in TABLES.values():
        if zone.has_table(spark, table):
            raise UsageError(
                f'input.ids = "integer", but {zone.table(table)} has codes for other ids: leave input.ids out, '
                "or choose another --processed-path"
            )


def _ids_in(fields: DataFrame, column: str) -> DataFrame:
    """The ids (id, text) in lines that could be read."""
    is_read = rules.first_reason(rules.line_rules()).isNull()
    return fields.filter(is_read & (F.col(column) != "")).select(F.col(column).alias("id"))


def has_codes(zone: ProcessedZone, column: str) -> bool:
    """Whether some ids of userId or movieId have codes; else all are integers that stand for themselves."""
    return storage.is_delta_table(zone.table(TABLES[column]))


def code_of(zone: ProcessedZone, column: str, delivered: str) -> int:
    """The integer that stands for an id in the tables. Raises InputError where none does."""
    if has_codes(zone, column):
        codes = zone.rows(TABLES[column], ds.field("id") == delivered)
        if codes.num_rows:
            return int(codes["code"][0].as_py())
    if not ids.is_plain_id(delivered):
        raise InputError(f"{column} {delivered} is not known in {zone.root}")
    return int(delivered)


def is_delivered_id(column: str, delivered: str) -> ds.Expression:
    """Rows of an id as it was delivered: text in tables with codes, else an integer."""
    return ds.field(column).cast(pa.string()) == delivered


def with_delivered_movie_ids(zone: ProcessedZone, rows: pa.Table) -> pa.Table:
    """Rows with their movieId as it was delivered, in the same order."""
    if not has_codes(zone, "movieId"):
        return rows
    codes = zone.rows(TABLES["movieId"], ds.field("code").isin(rows["movieId"].combine_chunks()))
    names = dict(zip(codes["code"].to_pylist(), codes["id"].to_pylist(), strict=True))
    original = [names.get(movie, str(movie)) for movie in rows["movieId"].to_pylist()]
    return rows.set_column(rows.column_names.index("movieId"), "movieId", pa.array(original, pa.string()))
