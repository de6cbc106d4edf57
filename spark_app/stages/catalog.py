"""The `catalog` stage: registers the files of both zones as tables, so that Spark SQL finds them by name."""

from __future__ import annotations

from pyspark.sql import SparkSession

from spark_app.data import contract
from spark_app.platform import storage
from spark_app.platform.log import logger
from spark_app.platform.metastore import register_csv, register_table, start_crawler
from spark_app.platform.settings import Settings
from spark_app.zones.manifest import RunRecord
from spark_app.zones.processed import MADE_BY, ProcessedZone
from spark_app.zones.raw import RawTable, note_inputs, survey


def run(spark: SparkSession, settings: Settings, record: RunRecord) -> None:
    """Check the raw files against their contract, and register the tables of both zones."""
    tables = survey(settings)
    note_inputs(record, *tables)
    record.outputs.extend(_register_raw(spark, table) for table in tables if table)
    record.outputs.extend(register_processed(spark, ProcessedZone(settings.processed.path)))
    if settings.catalog.crawler:
        start_crawler(spark, settings.catalog.crawler)


def register_processed(spark: SparkSession, zone: ProcessedZone) -> list[str]:
    """Register the tables of the processed zone that exist; returns their names."""
    names = [
        register_table(spark, table, "delta", zone.table(table)) for table in MADE_BY if zone.has_table(spark, table)
    ]
    if storage.exists(zone.final_file):
        names.append(register_table(spark, "final", "parquet", storage.spark_path(zone.final)))
    logger.info("registered %s of %s", ", ".join(names) or "no table yet", zone.root)
    return names


def _register_raw(spark: SparkSession, table: RawTable) -> str:
    types = table.files[0].types
    for column in contract.new_columns(table.contract, list(types)):
        logger.warning("%s: column %s is new: it is registered, but not used", table.contract.table, column)
    for file in table.files:
        if list(file.types) != list(types):
            logger.warning("%s: its columns differ from those of %s", file.path, table.files[0].path)
    contract_types = {
        column.name: column.kind for column in table.contract.columns.values() if column.kind != contract.ID
    }
    contract_types |= {table.contract.names[ours]: contract.TEXT for ours in table.coded}
    types_by_column = {column: contract_types.get(column, kind) for column, kind in types.items()}
    registered = {column: "STRING" if kind == contract.EMPTY else kind for column, kind in types_by_column.items()}
    for column, kind in registered.items():
        logger.info("%s: column %s is %s", table.contract.table, column, kind)
    name = register_csv(spark, table.contract.table, table.location, registered, table.contract.delimiter)
    logger.info("registered %s (%d file(s) at %s)", name, len(table.files), table.location)
    return name
