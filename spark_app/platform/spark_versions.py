"""Where Spark 3.5 and 4.x differ. All other code is written so that both take it."""

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
"""The version of Scala that Spark is built with, as it stands in the coordinates of jars for it."""


def to_arrow(frame: DataFrame) -> pa.Table:
    """The rows of a frame, in its order, fetched to the driver."""
    return _fetched(frame) if IS_3 else frame.toArrow()


def from_arrow(spark: SparkSession, table: pa.Table) -> DataFrame:
    """A frame of rows that are on the driver: a row a movie, not more, since on 3.5 each passes through Python."""
    if not IS_3:
        return spark.createDataFrame(table)
    rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    return spark.createDataFrame(rows, from_arrow_schema(table.schema), verifySchema=False)


def is_valid_utf8(text: str) -> Column:
    """Whether a column of text is UTF-8: what Spark reads as text may be any bytes."""
    return _through_java(text) == F.col(text) if IS_3 else F.is_valid_utf8(text)


def make_valid_utf8(text: str) -> Column:
    """A column of text as UTF-8, with U+FFFD in the place of what is none."""
    return _through_java(text) if IS_3 else F.make_valid_utf8(text)


def java_trace(error: Exception) -> str:
    """The stack trace of Java behind an error of Spark's; empty for others."""
    return getattr(error, "stackTrace" if IS_3 else "_stackTrace", None) or ""


def _fetched(frame: Any) -> pa.Table:
    """What `toArrow` is made of, which 3.5 has for its own use."""
    batches = frame._collect_as_arrow()
    return pa.Table.from_batches(batches, batches[0].schema if batches else to_arrow_schema(frame.schema))


def _through_java(text: str) -> Column:
    """Text as Java's decoder understands its bytes; on 3.5 it never fails."""
    return F.decode(F.col(text).cast("binary"), "UTF-8")
