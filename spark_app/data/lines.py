"""Parses lines of text into CSV fields, without losing a line.

Spark's CSV reader does not keep the text of a row that it parsed, so a row that breaks a rule later could not be shown
as delivered. Files are therefore read as text, one record per line, and parsed by `from_csv`, which is the same parser.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_app.platform.spark_versions import is_valid_utf8

MAX_FIELDS = 20_000
"""A line with more fields is not passed to the parser, which fails at 20,480 columns."""

SHORT_LINE_BYTES = MAX_FIELDS
"""A line of at most this many bytes cannot have more fields than MAX_FIELDS, so they need not be counted."""

QUOTED = r'"[^"]*+(?:""[^"]*+)*+"'
UNQUOTED = r'(?!")[^{delimiter}]*+'


def with_fields(lines: DataFrame, header: Sequence[str], wanted: Mapping[str, str], delimiter: str = ",") -> DataFrame:
    """Parse lines of files that share one header.

    Takes `value` (the line) and any other columns. Adds each column of `wanted` (the header's name by our name) as
    text, null if the field is empty; and `is_utf8`, `is_well_quoted`, `has_all_fields` (booleans, never null).
    """
    # The parser gets column names of our own: the names in the file may be empty, or differ only in case.
    names = [f"field_{place}" for place in range(len(header))]
    schema = ", ".join([*(f"{name} STRING" for name in names), "misfit STRING"])
    options = {"columnNameOfCorruptRecord": "misfit", "escape": '"', "mode": "PERMISSIVE", "sep": delimiter}
    # A line without quotes is only split at its delimiters: the parser takes several times as long for it.
    parsed = (
        lines.withColumn("is_bare", ~F.contains("value", F.lit('"')) & _is_short())
        .withColumn("parts", F.when(F.col("is_bare"), F.split("value", _literally(delimiter), -1)))
        .withColumn(
            "csv", F.from_csv(F.when(~F.col("is_bare") & _few_fields(delimiter), F.col("value")), schema, options)
        )
    )
    fields = {ours: _field(header.index(column), names) for ours, column in wanted.items()}
    is_whole = F.col("csv").isNotNull() & F.col("csv.misfit").isNull()
    checks = {
        "is_utf8": is_valid_utf8("value"),
        "is_well_quoted": F.col("is_bare") | F.col("value").rlike(_well_quoted(delimiter)),
        "has_all_fields": F.when(F.col("is_bare"), F.size("parts") == len(header)).otherwise(is_whole),
    }
    return parsed.withColumns({**fields, **checks}).drop("is_bare", "parts", "csv")


def _field(place: int, names: Sequence[str]) -> Column:
    part = F.get("parts", F.lit(place))
    return F.when(F.col("is_bare"), F.when(part != "", part)).otherwise(F.col(f"csv.{names[place]}"))


def _well_quoted(delimiter: str) -> str:
    """RFC 4180 as a regular expression: a field is quoted as a whole, with inner quotes doubled, or has no first quote.

    Every quantifier is possessive: Java's matcher recurses for others, and a long line would overflow its stack.
    """
    escaped = _literally(delimiter)
    field = f"(?:{QUOTED}|{UNQUOTED.format(delimiter=escaped)})"
    return rf"^{field}(?:{escaped}{field})*+\z"


def _literally(delimiter: str) -> str:
    """The delimiter as a regular expression, written so that Java splits without a matcher, in half the time."""
    return f"\\{delimiter}" if delimiter in string.punctuation else delimiter


def _is_short() -> Column:
    return F.octet_length("value") <= SHORT_LINE_BYTES


def _few_fields(delimiter: str) -> Column:
    delimiters = F.length("value") - F.length(F.replace(F.col("value"), F.lit(delimiter)))
    return _is_short() | (delimiters < MAX_FIELDS)
