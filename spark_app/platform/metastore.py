"""The catalogue: registers tables by name, in Spark's metastore (Hive's, or the Glue Data Catalog)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pyspark.sql import SparkSession

from spark_app.platform import glue
from spark_app.platform.log import logger

RAW_DATABASE = "movie_reco_raw_db"
PROCESSED_DATABASE = "movie_reco_db"

DELTA_LOCATION = re.compile(r"^Provider: delta$.*?^Location: (?:file:)?(.*?)$", re.MULTILINE | re.DOTALL)
"""What Spark tells of a Delta table; its location is not escaped."""


def register_csv(
    spark: SparkSession, table: str, location: str, types: Mapping[str, str], options: Mapping[str, str]
) -> str:
    """Register the CSV files at a location (a path or glob, as Spark takes it) in the raw database; returns the name.

    `types` are the types of the columns in their order, `options` those of Spark's reader of CSV.
    """
    columns = ", ".join(f"{_quoted(column)} {column_type}" for column, column_type in types.items())
    if glue.is_metastore(spark):
        schema = spark.createDataFrame([], columns).schema
        glue.put(RAW_DATABASE, glue.csv_table(table, location, schema, options))
        return f"{RAW_DATABASE}.{table}"
    option_list = ", ".join(f"{key} {_literal(value)}" for key, value in {**options, "path": location}.items())
    name = _make_way(spark, RAW_DATABASE, table)
    spark.sql(f"CREATE TABLE {name} ({columns}) USING csv OPTIONS ({option_list})")
    return name


def drop_raw_table(spark: SparkSession, table: str) -> None:
    """Remove the entry of a raw table, if there is one; its files stay."""
    if glue.is_metastore(spark):
        glue.drop(RAW_DATABASE, table)
    else:
        _make_way(spark, RAW_DATABASE, table)


def register_table(spark: SparkSession, table: str, provider: str, location: str) -> str:
    """Register a table in the processed database; returns its name.

    `provider` is `delta` or `parquet`: the columns are read from the table itself.
    """
    if glue.is_metastore(spark):
        schema = spark.read.format(provider).load(location).schema
        glue.put(PROCESSED_DATABASE, glue.table(table, provider, location, schema))
        return f"{PROCESSED_DATABASE}.{table}"
    name = _make_way(spark, PROCESSED_DATABASE, table)
    spark.sql(f"CREATE TABLE {name} USING {provider} LOCATION {_literal(location)}")
    return name


def registered_delta(spark: SparkSession) -> dict[str, str]:
    """The Delta tables of the processed database, each with its location as a path or a URI in S3.

    Spark reads the columns of a Delta table from its log, so an entry stays right while the location does. Empty where
    the catalogue is in Glue.
    """
    if glue.is_metastore(spark) or not spark.catalog.databaseExists(PROCESSED_DATABASE):
        return {}
    tables = spark.sql(f"SHOW TABLE EXTENDED IN {PROCESSED_DATABASE} LIKE '*'").collect()
    found = {table.tableName: DELTA_LOCATION.search(table.information) for table in tables}
    return {name: match.group(1) for name, match in found.items() if match}


def start_crawler(spark: SparkSession, name: str) -> None:
    """Start a crawler of the Glue Data Catalog; only log a warning where the catalogue is another one."""
    if glue.is_metastore(spark):
        glue.start_crawler(name)
    else:
        logger.warning("catalog.crawler is %s, but the catalogue is not in Glue: no crawler is started", name)


def _make_way(spark: SparkSession, database: str, table: str) -> str:
    """Create the database and drop the old entry of a table; returns the full name. Tables are external: data stays."""
    spark.sql(f"CREATE DATABASE IF NOT EXISTS {database}")
    spark.sql(f"DROP TABLE IF EXISTS {database}.{table}")
    return f"{database}.{table}"


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
