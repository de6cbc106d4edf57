"""The catalogue: tables by name, in a Hive metastore or, where Spark has that for one, in the Glue Data Catalog."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import SparkSession

from spark_app.platform import glue
from spark_app.platform.log import logger

RAW_DATABASE = "movie_reco_raw_db"
PROCESSED_DATABASE = "movie_reco_db"


def register_csv(spark: SparkSession, table: str, location: str, types: Mapping[str, str], delimiter: str) -> str:
    """Register the CSV files at a location (a path or glob, as Spark takes it) in the raw database; returns the name.

    The header is compared with the columns at each query (`enforceSchema=false`): Spark would otherwise bind columns
    by place and silently exchange two of them.
    """
    options = {"header": "true", "escape": '"', "enforceSchema": "false", "sep": delimiter}
    columns = ", ".join(f"{_quoted(column)} {kind}" for column, kind in types.items())
    if glue.is_metastore(spark):
        schema = spark.createDataFrame([], columns).schema
        glue.put(RAW_DATABASE, glue.csv_table(table, location, schema, options))
        return f"{RAW_DATABASE}.{table}"
    listed = ", ".join(f"{key} {_literal(value)}" for key, value in {**options, "path": location}.items())
    name = _replace(spark, RAW_DATABASE, table)
    spark.sql(f"CREATE TABLE {name} ({columns}) USING csv OPTIONS ({listed})")
    return name


def register_table(spark: SparkSession, table: str, kind: str, location: str) -> str:
    """Register a Delta or Parquet table, which knows its own columns, in the processed database; returns its name."""
    if glue.is_metastore(spark):
        schema = spark.read.format(kind).load(location).schema
        glue.put(PROCESSED_DATABASE, glue.table(table, kind, location, schema))
        return f"{PROCESSED_DATABASE}.{table}"
    name = _replace(spark, PROCESSED_DATABASE, table)
    spark.sql(f"CREATE TABLE {name} USING {kind} LOCATION {_literal(location)}")
    return name


def start_crawler(spark: SparkSession, name: str) -> None:
    """Start a crawler of the Glue Data Catalog; where the catalogue is another one, say that there is none."""
    if glue.is_metastore(spark):
        glue.start_crawler(name)
    else:
        logger.warning("catalog.crawler is %s, but the catalogue is not Glue's: no crawler is started", name)


def _replace(spark: SparkSession, database: str, table: str) -> str:
    """Make way for a table. All tables are external: only the entry goes, never the data."""
    spark.sql(f"CREATE DATABASE IF NOT EXISTS {database}")
    spark.sql(f"DROP TABLE IF EXISTS {database}.{table}")
    return f"{database}.{table}"


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
