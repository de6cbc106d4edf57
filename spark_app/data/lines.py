"""Parses lines of text into CSV fields, without losing a line.

Spark's CSV reader does not keep the text of a row that it parsed, so a row that breaks a rule later could not be shown
as delivered. Files are therefore read as text, one record per line, and parsed by `from_csv`, which is the same parser.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_app.data.dialect import PLAIN, Dialect, literally, well_quoted
from spark_app.data.records import KEPT_BYTES, NO_TEXT
from spark_app.platform.spark_versions import is_valid_utf8

MAX_FIELDS = 20_000
"""A line with more fields is not passed to the parser, which fails at 20,480 columns."""

SHORT_LINE_BYTES = MAX_FIELDS
"""A line of at most this many bytes cannot have more fields than MAX_FIELDS, so they need not be counted."""

UPPER_BYTES = range(0x80, 0x100)


@functools.cache
def upper_half(encoding: str) -> str:
    """What the bytes from 0x80 on mean in an encoding of one byte a character that has ASCII for the others.

    A byte that means nothing there is a lone surrogate. Empty for all other encodings.
    """
    every = bytes(range(0x100)).decode(encoding, KEPT_BYTES)
    upper = every[UPPER_BYTES.start :]
    is_of_one_byte = len(every) == UPPER_BYTES.stop
    has_ascii_below = every[: UPPER_BYTES.start] == bytes(range(UPPER_BYTES.start)).decode("ascii")
    means_anything = encoding == "ascii" or NO_TEXT.sub("", upper) != ""
    return upper if is_of_one_byte and has_ascii_below and means_anything else ""


def as_text(lines: DataFrame, encoding: str) -> DataFrame:
    """Decode `value`, which has the bytes of lines as Spark reads them; adds `is_text` (boolean, never null).

    `encoding` is UTF-8 or one that `upper_half` knows. A line that is no text in it stays as it is.
    """
    if encoding == "utf-8":
        return lines.withColumn("is_text", is_valid_utf8("value"))
    latin, real = "".join(map(chr, UPPER_BYTES)), upper_half(encoding)
    nothing = "".join(byte for byte, letter in zip(latin, real, strict=True) if NO_TEXT.match(letter))
    other = "".join(byte for byte, letter in zip(latin, real, strict=True) if byte != letter and byte not in nothing)
    # Spark 4 decodes few encodings, but ISO 8859-1, which gives each byte the character of its number.
    text = F.decode(F.col("value").cast("binary"), "ISO-8859-1")
    is_text = ~text.rlike(f"[{nothing}]") if nothing else F.lit(True)
    means = "".join(real[ord(byte) - UPPER_BYTES.start] for byte in other)
    decoded = F.translate(text, other, means) if other else text
    return lines.withColumn("is_text", is_text).withColumn(
        "value", F.when(F.col("is_text"), decoded).otherwise(F.col("value"))
    )


def with_fields(
    lines: DataFrame, header: Sequence[str], wanted: Mapping[str, str], dialect: Dialect = PLAIN
) -> DataFrame:
    """Parse lines of files that have the same columns, `header`.

    Takes `value` (a line, or a record of several) and any other columns. Adds each column of `wanted` (the name in the
    header by our name) as text, null if the field is empty; `is_well_quoted`, `has_all_fields` (booleans, never null).
    """
    # The parser gets column names of our own: the names in the file may be empty, or differ only in case.
    names = [f"field_{place}" for place in range(len(header))]
    # A line without quotes is only split at its delimiters: the parser takes several times as long for it.
    has_no_quotes = ~F.contains("value", F.lit(dialect.quote)) & _is_short() if dialect.quote else F.lit(True)
    parts = F.split("value", literally(dialect.delimiter), len(header) if dialect.rest_in_last else -1)
    split = lines.withColumn("is_bare", has_no_quotes).withColumn("parts", F.when(F.col("is_bare"), parts))
    parsed = split.withColumn("csv", _parsed(names, dialect)) if dialect.quote else split
    fields = {ours: _field(header.index(column), names, dialect) for ours, column in wanted.items()}
    checks = {
        "is_well_quoted": F.lit(True),
        "has_all_fields": F.size("parts") == len(header),
    }
    if dialect.quote:
        is_whole = F.col("csv").isNotNull() & F.col("csv.misfit").isNull()
        checks = {
            "is_well_quoted": F.col("is_bare") | F.col("value").rlike(rf"^{well_quoted(dialect)}\z"),
            "has_all_fields": F.when(F.col("is_bare"), checks["has_all_fields"]).otherwise(is_whole),
        }
    return parsed.withColumns({**fields, **checks}).drop("is_bare", "parts", "csv")


def _parsed(names: Sequence[str], dialect: Dialect) -> Column:
    """The fields of a line with quotes, by Spark's parser of CSV; null where the line is bare, or has too many."""
    schema = ", ".join([*(f"{name} STRING" for name in names), "misfit STRING"])
    options = {
        "columnNameOfCorruptRecord": "misfit",
        "escape": dialect.quote,
        "quote": dialect.quote,
        "mode": "PERMISSIVE",
        "sep": dialect.delimiter,
        "ignoreLeadingWhiteSpace": str(dialect.skip_blanks).lower(),
    }
    value = F.col("value")
    if dialect.escapes_by_backslash:
        # The parser takes one way of escaping: a quote becomes two, and so does a backslash, which `_field` takes back.
        value = F.regexp_replace(value, rf"\\([\\{literally(dialect.quote)}])", "$1$1")
    return F.from_csv(F.when(~F.col("is_bare") & _few_fields(dialect.delimiter), value), schema, options)


def _field(place: int, names: Sequence[str], dialect: Dialect) -> Column:
    part = F.get("parts", F.lit(place))
    if dialect.blanks:
        part = F.ltrim(part) if dialect.blanks == " " else F.regexp_replace(part, rf"^[{dialect.blanks}]+", "")
    part = F.when(part != "", part)
    field = F.when(F.col("is_bare"), part).otherwise(F.col(f"csv.{names[place]}")) if dialect.quote else part
    return F.replace(field, F.lit("\\\\"), F.lit("\\")) if dialect.escapes_by_backslash else field


def _is_short() -> Column:
    return F.octet_length("value") <= SHORT_LINE_BYTES


def _few_fields(delimiter: str) -> Column:
    without = F.length("value") - F.length(F.replace(F.col("value"), F.lit(delimiter)))
    return _is_short() | (without < MAX_FIELDS * len(delimiter))
