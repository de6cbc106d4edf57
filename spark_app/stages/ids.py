"""The tables of codes for ids that are no integers: read, and added to where a delivery brings new ids."""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession

from spark_app.data import ids, rules
from spark_app.data.ids import Codes
from spark_app.platform.log import logger
from spark_app.platform.run import Run
from spark_app.platform.zones import ProcessedZone

TABLES = {"userId": "user_ids", "movieId": "movie_ids"}
"""The Delta table (id, code) of each column of ids; it is there only where some of its ids need codes."""


def read_codes(spark: SparkSession, zone: ProcessedZone) -> Codes:
    """The codes that were given so far."""
    found = {column: zone.read(spark, table) for column, table in TABLES.items() if zone.has_table(spark, table)}
    return Codes(users=found.get("userId"), movies=found.get("movieId"))


def give_codes(
    spark: SparkSession, zone: ProcessedZone, run: Run, fields: dict[str, DataFrame], coded: frozenset[str]
) -> Codes:
    """Give codes to new ids of the columns that need them, or had some before; returns all codes.

    Takes for userId and movieId the parsed lines that decide which there are. Each column costs a pass over its files,
    which is not needed where all ids are integers.
    """
    for column, table in TABLES.items():
        if column in coded or zone.has_table(spark, table):
            logger.info("%s: ids that are no integers get codes in %s", column, zone.table(table))
            _add_codes(spark, zone, run, table, _ids_in(fields[column], column))
    return read_codes(spark, zone)


def _ids_in(fields: DataFrame, column: str) -> DataFrame:
    """The ids (id, text) in lines that could be read."""
    return fields.filter(rules.first_reason(rules.line_rules()).isNull()).selectExpr(f"{column} AS id")


def _add_codes(spark: SparkSession, zone: ProcessedZone, run: Run, table: str, found: DataFrame) -> None:
    is_there = zone.has_table(spark, table)
    known = zone.read(spark, table) if is_there else spark.createDataFrame([], ids.SCHEMA)
    fresh = ids.new_codes(found, known).persist()
    if not is_there or not fresh.isEmpty():
        zone.append(fresh, table)
        run.wrote(zone.table(table))
    fresh.unpersist()
