"""The `catalog` stage: registers the files of both zones as tables, so that Spark SQL finds them by name."""

from __future__ import annotations

from pyspark.sql import SparkSession

from spark_app.data import contract
from spark_app.platform import storage
from spark_app.platform.log import logger
from spark_app.platform.metastore import (
    PROCESSED_DATABASE,
    drop_raw_table,
    register_csv,
    register_table,
    registered_delta,
    start_crawler,
)
from spark_app.platform.session import has_metastore, is_on_derby
from spark_app.platform.settings import Settings
from spark_app.zones.manifest import RunRecord
from spark_app.zones.processed import MADE_BY, ProcessedZone
from spark_app.zones.raw import RawTable, csv_options, note_inputs, why_not_as_csv
from spark_app.zones.raw_check import surveyed


def run(spark: SparkSession, settings: Settings, record: RunRecord) -> None:
    """Check the raw files against their contract, and register the tables of both zones."""
    tables = note_inputs(record, *surveyed(settings))
    if has_metastore(spark):
        record.outputs.extend(name for table in tables if table and (name := register_raw(spark, table)))
    record.outputs.extend(register_processed(spark, ProcessedZone(settings.processed.path)))
    if settings.catalog.crawler:
        start_crawler(spark, settings.catalog.crawler)


def register_processed(spark: SparkSession, zone: ProcessedZone) -> list[str]:
    """Register the tables of the processed zone that exist; returns their names.

    If another process holds the metastore, a mark in the zone says that this is still to do: tables that are registered
    already show new rows all the same.
    """
    if not has_metastore(spark):
        logger.warning(
            "another process holds the metastore (metastore/db): no tables are registered now; the next run of "
            "'catalog' or 'pipeline' does it"
        )
        storage.write_text(zone.owed_to_catalog, "")
        return []
    tables = [table for table in MADE_BY if zone.has_table(table)]
    known = registered_delta(spark) if tables else {}
    names = [
        f"{PROCESSED_DATABASE}.{table}"
        if known.get(table) == zone.table(table)
        else register_table(spark, table, "delta", zone.table(table))
        for table in tables
    ]
    if storage.exists(zone.final_file):
        names.append(register_table(spark, "final", "parquet", storage.spark_path(zone.final)))
    if is_on_derby(spark) and storage.exists(zone.owed_to_catalog):
        storage.remove(zone.owed_to_catalog)
    logger.info("registered %s of %s", ", ".join(names) or "no table yet", zone.root)
    return names


def is_owed(settings: Settings) -> bool:
    """Whether an earlier run could not register its tables."""
    return storage.exists(ProcessedZone(settings.processed.path).owed_to_catalog)


def register_raw(spark: SparkSession, table: RawTable) -> str:
    """Register a raw table; returns its name, empty if Spark's reader of CSV would read it otherwise than `etl`."""
    name, first = table.contract.table, table.files[0]
    for column in contract.new_columns(table.contract, first.columns):
        logger.warning("%s: column %s is new: it is registered, but not used", name, column)
    for file in table.files:
        if file.columns != first.columns:
            logger.warning("%s: its columns differ from those of %s", file.path, first.path)
    if reason := why_not_as_csv(table):
        drop_raw_table(spark, name)
        logger.warning(
            "%s is not registered: Spark SQL cannot read %s (%s). `etl` reads it: query what it writes instead",
            name,
            table.location,
            reason,
        )
        return ""
    columns = _registered_columns(table)
    for column, kind in columns.items():
        logger.info("%s: column %s is %s", name, column, kind)
    options = csv_options(table)
    # With `enforceSchema=false` Spark compares the header with the columns at each query; otherwise it would bind them
    # by position, and silently exchange two of them. It cannot compare names that had to be made different.
    if tuple(columns) == first.columns:
        options["enforceSchema"] = "false"
    elif first.header is not None:
        logger.warning("%s: some columns have no name or the same: Spark SQL reads them by their position", name)
    registered = register_csv(spark, name, table.location, columns, options)
    logger.info("registered %s (%d file(s) at %s)", registered, len(table.files), table.location)
    return registered


def _registered_columns(table: RawTable) -> dict[str, str]:
    """The type of each column by a name that is there once, whatever its case, as Spark SQL needs it."""
    expected = table.contract
    open_kinds = (contract.ID, contract.TIME)
    kinds = {column.name: column.kind for column in expected.columns.values() if column.kind not in open_kinds}
    kinds |= {expected.names[ours]: contract.TEXT for ours in table.coded}
    if expected.dialect.decimal == "," and "rating" in expected.names:
        kinds[expected.names["rating"]] = contract.TEXT  # Spark SQL reads no decimal commas
    columns = dict[str, str]()
    taken = {name.lower() for name in expected.names.values()}
    for place, (column, found) in enumerate(zip(table.files[0].columns, table.files[0].types, strict=True)):
        is_used = column in expected.names.values()
        name = column if is_used or (column and column.lower() not in taken) else f"{column}_{place + 1}"
        taken.add(name.lower())
        kind = kinds.get(column, found) if is_used else found
        columns[name] = "STRING" if kind == contract.EMPTY else kind
    return columns
