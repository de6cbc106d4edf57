"""The differences between Spark 3.5 and 4.x. All other code runs on both."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyspark
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema

IS_3 = pyspark.__version__.startswith("3.")
"""Whether this is Spark 3.5."""

SCALA = "_2.12:" if IS_3 else "_2.13:"
"""The version of Scala that Spark is built with, as the coordinates of its jars name it."""


def to_arrow(frame: DataFrame) -> pa.Table:
    """The rows of a frame, in its order, fetched to the driver."""
    return _fetched(frame) if IS_3 else frame.toArrow()


def from_arrow(spark: SparkSession, table: pa.Table) -> DataFrame:
    """A frame of rows that are on the driver, in their order."""
    if not IS_3:
        return spark.createDataFrame(table)
    batches = table.to_batches()
    return spark.range(1, numPartitions=1).mapInArrow(lambda _: batches, from_arrow_schema(table.schema))


def is_valid_utf8(text: str) -> Column:
    """Whether a text column is valid UTF-8: Spark reads any bytes as text."""
    return _through_java(text) == F.col(text) if IS_3 else F.is_valid_utf8(text)


def make_valid_utf8(text: str) -> Column:
    """A text column as valid UTF-8: U+FFFD replaces invalid bytes."""
    return _through_java(text) if IS_3 else F.make_valid_utf8(text)


def java_trace(error: Exception) -> str:
    """Java's stack trace of an error of Spark; empty for other errors."""
    return getattr(error, "stackTrace" if IS_3 else "_stackTrace", None) or ""


def _fetched(frame: Any) -> pa.Table:
    """The rows by the private method that `toArrow` of 4.x calls: 3.5 has only that."""
    batches = frame._collect_as_arrow()
    columns = to_arrow_schema(frame.schema)
    # Java gives times in the zone of the session.
    return pa.Table.from_batches(batches).cast(columns) if batches else columns.empty_table()


def _through_java(text: str) -> Column:
    """The text as Java decodes its bytes. On 3.5 this never fails."""
    return F.decode(F.col(text).cast("binary"), "UTF-8")
