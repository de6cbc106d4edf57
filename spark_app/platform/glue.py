"""The Glue Data Catalog: tables as Athena and Spark read them, and the crawler.

Spark's own `CREATE TABLE ... USING delta` leaves a table there whose one column is `col array<string>`, of no use to
Athena. So tables are put there by Glue's API: with their real columns, in lower case as all of Hive's, for Athena; and
with the properties by which Spark knows its own tables, so that it reads them as those of any other metastore.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pyspark.sql import SparkSession
from pyspark.sql.types import StructType

from spark_app.platform import s3
from spark_app.platform.errors import JobError, StorageError, UsageError
from spark_app.platform.log import logger

METASTORE_CLIENT = "spark.hadoop.hive.metastore.client.factory.class"
CLIENT = "AWSGlueDataCatalogHiveClientFactory"
"""The setting by which Spark has the Glue Data Catalog for its metastore, and the name that its value ends with."""

_HIVE = "org.apache.hadoop.hive"
_FORMATS = {
    "csv": (
        "org.apache.hadoop.mapred.TextInputFormat",
        f"{_HIVE}.ql.io.HiveIgnoreKeyTextOutputFormat",
        f"{_HIVE}.serde2.OpenCSVSerde",
    ),
    "delta": (
        "org.apache.hadoop.mapred.SequenceFileInputFormat",
        f"{_HIVE}.ql.io.HiveSequenceFileOutputFormat",
        f"{_HIVE}.serde2.lazy.LazySimpleSerDe",
    ),
    "parquet": (
        f"{_HIVE}.ql.io.parquet.MapredParquetInputFormat",
        f"{_HIVE}.ql.io.parquet.MapredParquetOutputFormat",
        f"{_HIVE}.ql.io.parquet.serde.ParquetHiveSerDe",
    ),
}
"""How Hive reads and writes each kind of table, by class. Those of Delta stand for none: its log says what there is."""

_MISSING = "EntityNotFoundException"
_RUNNING = "CrawlerRunningException"


def is_metastore(spark: SparkSession) -> bool:
    """Whether the session has the Glue Data Catalog for its metastore."""
    return (spark.conf.get(METASTORE_CLIENT, "") or "").endswith(CLIENT)


def csv_table(table: str, location: str, schema: StructType, options: Mapping[str, str]) -> dict[str, Any]:
    """CSV files at a location (a path or glob, as Spark takes it), as Glue's TableInput.

    Athena reads them by OpenCSVSerDe, which knows quotes that are doubled; Spark by its own reader with the `options`.
    """
    found = _table(table, "csv", _prefix(location), schema)
    found["Parameters"] |= {"skip.header.line.count": "1", "delimiter": options["sep"]}
    quoting = {"separatorChar": options["sep"], "quoteChar": '"', "escapeChar": "\\"}
    found["StorageDescriptor"]["SerdeInfo"]["Parameters"] = {**quoting, **options, "path": location}
    return found


def table(name: str, kind: str, location: str, schema: StructType) -> dict[str, Any]:
    """A Delta or Parquet table as Glue's TableInput. Athena takes a table for Delta's by `table_type`."""
    found = _table(name, kind, location, schema)
    if kind == "delta":
        found["Parameters"]["table_type"] = "DELTA"
    return found


def put(database: str, table_input: dict[str, Any]) -> None:
    """Make a table, or replace its entry where there is one.

    Raises UsageError where there is no such database, StorageError where Glue refuses.
    """
    glue, name = _client(), table_input["Name"]
    try:
        try:
            glue.update_table(DatabaseName=database, TableInput=table_input, SkipArchive=True)
        except ClientError as error:
            if _code(error) != _MISSING:
                raise
            glue.create_table(DatabaseName=database, TableInput=table_input)
    except (ClientError, BotoCoreError) as error:
        raise _explained(error, f"register {database}.{name}", f"there is no database {database}: make it") from error


def start_crawler(name: str) -> None:
    """Start a crawler, unless it runs. Raises UsageError where there is none, StorageError where Glue refuses."""
    try:
        _client().start_crawler(Name=name)
    except (ClientError, BotoCoreError) as error:
        if isinstance(error, ClientError) and _code(error) == _RUNNING:
            logger.info("the crawler %s runs already", name)
            return
        raise _explained(error, f"start the crawler {name}", "catalog.crawler names none that is there") from error
    logger.info("started the crawler %s", name)


def _table(name: str, kind: str, location: str, schema: StructType) -> dict[str, Any]:
    reads, writes, serde = _FORMATS[kind]
    return {
        "Name": name,
        "TableType": "EXTERNAL_TABLE",
        "PartitionKeys": [],
        "StorageDescriptor": {
            "Columns": [{"Name": field.name.lower(), "Type": field.dataType.simpleString()} for field in schema.fields],
            "Location": location,
            "InputFormat": reads,
            "OutputFormat": writes,
            "SerdeInfo": {
                "SerializationLibrary": serde,
                "Parameters": {"serialization.format": "1", "path": location},
            },
        },
        # As Spark writes them for its own tables: by these it knows the format, and names in their own case.
        "Parameters": {
            "EXTERNAL": "TRUE",
            "classification": kind,
            "spark.sql.sources.provider": kind,
            "spark.sql.sources.schema": schema.json(),
        },
    }


def _prefix(location: str) -> str:
    """What Hive takes for the place of files: the file or folder, or of a glob the folder that all of it is in."""
    parts = location.split("/")
    plain = next((place for place, part in enumerate(parts) if re.search(r"(?<!\\)[*?\[{]", part)), len(parts))
    return re.sub(r"\\(.)", r"\1", "/".join(parts[:plain]))


def _client() -> Any:
    patience = Config(retries={"total_max_attempts": s3.ATTEMPTS, "mode": "standard"})
    return boto3.Session().client("glue", config=patience, region_name=s3.region())


def _code(error: ClientError) -> str:
    return str(error.response["Error"]["Code"])


def _explained(error: ClientError | BotoCoreError, what: str, missing: str) -> JobError:
    if not isinstance(error, ClientError):
        return StorageError(f"cannot {what} in the Glue Data Catalog: {error}; check the region and the network")
    if _code(error) == _MISSING:
        return UsageError(f"cannot {what} in the Glue Data Catalog: {missing}, or deploy conf/aws")
    why = error.response["Error"].get("Message", "")
    return StorageError(f"the Glue Data Catalog refused to {what} ({_code(error)}): {why}; check the job's role")
