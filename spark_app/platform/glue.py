"""The Glue Data Catalog: tables that both Athena and Spark can read, and the crawler.

Spark's own `CREATE TABLE ... USING delta` registers a table with one column, `col array<string>`, which Athena cannot
use. So this module registers tables by Glue's API. For Athena a table has its real columns, in lower case as in Hive.
For Spark it has the properties that Spark gives its own tables, so Spark reads it as from any other metastore.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from pyspark.sql import SparkSession
from pyspark.sql.types import StructType

from spark_app.platform import s3
from spark_app.platform.errors import JobError, StorageError, UsageError
from spark_app.platform.log import logger

METASTORE_CLIENT = "spark.hadoop.hive.metastore.client.factory.class"
CLIENT = "AWSGlueDataCatalogHiveClientFactory"
"""The setting that makes the Glue Data Catalog Spark's metastore, and the end of its value."""

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
"""Hive's classes to read, write and parse each format. Those of Delta are placeholders: its log lists the files."""

_MISSING = "EntityNotFoundException"
_RUNNING = "CrawlerRunningException"


def is_metastore(spark: SparkSession) -> bool:
    """Whether the Glue Data Catalog is the metastore of the session."""
    return (spark.conf.get(METASTORE_CLIENT, "") or "").endswith(CLIENT)


def csv_table(table: str, location: str, schema: StructType, options: Mapping[str, str]) -> dict[str, Any]:
    """Glue's TableInput for the CSV files at a location (a path or glob, as Spark takes it).

    Athena reads them by OpenCSVSerDe, which understands doubled quotes, and delimiters of one character in UTF-8; Spark
    by its own reader with these `options`.
    """
    table_input = _table(table, "csv", _prefix(location), schema)
    headers = "1" if options.get("header") == "true" else "0"
    table_input["Parameters"] |= {"skip.header.line.count": headers, "delimiter": options["sep"]}
    quoting = {"separatorChar": options["sep"], "quoteChar": options.get("quote") or "\0", "escapeChar": "\\"}
    table_input["StorageDescriptor"]["SerdeInfo"]["Parameters"] = {**quoting, **options, "path": location}
    return table_input


def table(name: str, provider: str, location: str, schema: StructType) -> dict[str, Any]:
    """Glue's TableInput for a table whose provider is `delta` or `parquet`.

    Athena recognises a Delta table by its `table_type`.
    """
    table_input = _table(name, provider, location, schema)
    if provider == "delta":
        table_input["Parameters"]["table_type"] = "DELTA"
    return table_input


def put(database: str, table_input: dict[str, Any]) -> None:
    """Create a table, or replace its entry where there is one.

    Raises UsageError where the database does not exist, StorageError where Glue refuses.
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
        raise _as_job_error(
            error, f"register {database}.{name}", f"there is no database {database}: create it"
        ) from error


def drop(database: str, name: str) -> None:
    """Remove a table from the Data Catalog, if it is there. Raises StorageError where Glue refuses."""
    try:
        _client().delete_table(DatabaseName=database, Name=name)
    except (ClientError, BotoCoreError) as error:
        if not (isinstance(error, ClientError) and _code(error) == _MISSING):
            raise _as_job_error(error, f"remove {database}.{name}", "it does not exist") from error


def start_crawler(name: str) -> None:
    """Start a crawler, unless it is running.

    Raises UsageError where it does not exist, StorageError where Glue refuses.
    """
    try:
        _client().start_crawler(Name=name)
    except (ClientError, BotoCoreError) as error:
        if isinstance(error, ClientError) and _code(error) == _RUNNING:
            logger.info("the crawler %s is already running", name)
            return
        raise _as_job_error(error, f"start the crawler {name}", "it does not exist: correct catalog.crawler") from error
    logger.info("started the crawler %s", name)


def _table(name: str, provider: str, location: str, schema: StructType) -> dict[str, Any]:
    input_format, output_format, serde = _FORMATS[provider]
    return {
        "Name": name,
        "TableType": "EXTERNAL_TABLE",
        "PartitionKeys": [],
        "StorageDescriptor": {
            "Columns": [{"Name": field.name.lower(), "Type": field.dataType.simpleString()} for field in schema.fields],
            "Location": location,
            "InputFormat": input_format,
            "OutputFormat": output_format,
            "SerdeInfo": {
                "SerializationLibrary": serde,
                "Parameters": {"serialization.format": "1", "path": location},
            },
        },
        # What Spark writes for its own tables: it reads the format from here, and the names in their own case.
        "Parameters": {
            "EXTERNAL": "TRUE",
            "classification": provider,
            "spark.sql.sources.provider": provider,
            "spark.sql.sources.schema": schema.json(),
        },
    }


def _prefix(location: str) -> str:
    """The location for Hive: that of a file or folder itself; for a glob, the folder above its first wildcard."""
    parts = location.split("/")
    depth = next((index for index, part in enumerate(parts) if re.search(r"(?<!\\)[*?\[{]", part)), len(parts))
    return re.sub(r"\\(.)", r"\1", "/".join(parts[:depth]))


def _client() -> Any:
    import boto3  # noqa: PLC0415 - its import takes a tenth of a second, and most runs have no Glue
    from botocore.config import Config  # noqa: PLC0415

    config = Config(retries={"total_max_attempts": s3.ATTEMPTS, "mode": "standard"})
    return boto3.Session().client("glue", config=config, region_name=s3.region())


def _code(error: ClientError) -> str:
    return str(error.response["Error"]["Code"])


def _as_job_error(error: ClientError | BotoCoreError, action: str, missing: str) -> JobError:
    if not isinstance(error, ClientError):
        return StorageError(f"cannot {action} in the Glue Data Catalog: {error}; check the region and the network")
    if _code(error) == _MISSING:
        return UsageError(f"cannot {action} in the Glue Data Catalog: {missing}, or deploy conf/aws")
    why = error.response["Error"].get("Message", "")
    return StorageError(f"the Glue Data Catalog refused to {action} ({_code(error)}): {why}; check the job's role")
