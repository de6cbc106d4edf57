"""From parsed lines to typed rows, each with a status: kept, superseded, rejected, or the header of its file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from spark_app.data import rules
from spark_app.platform.settings import Clean

KEPT, SUPERSEDED, REJECTED, HEADER = "kept", "superseded", "rejected", "header"


def checked_movies(fields: DataFrame) -> DataFrame:
    """Movies from parsed lines, as rows of movieId, title, year, genres, status, reason, file, raw, raw_bytes.

    Takes the columns of `with_fields`, `is_header`, and `file`, `block_start`, `row`: where in the delivery a line is.
    Of several rows of one movie the last delivered is kept: last file by name, last line in it.
    """
    listed = F.struct("file", "block_start", "row").alias("listed")
    reason = rules.first_reason([*rules.line_rules(), *rules.movie_rules()])
    typed = fields.withColumn("reason", reason).select(
        _if_good(rules.as_integer("movieId").cast("int")).alias("movieId"),
        _if_good(F.col("title")).alias("title"),
        _if_good(rules.as_year("title")).alias("year"),
        _if_good(rules.as_genres("genres")).alias("genres"),
        listed,
        "is_header",
        "reason",
        *_evidence(),
    )
    return _with_status(typed, ["movieId"], [F.desc("listed")]).drop("listed")


def checked_ratings(fields: DataFrame, movies: DataFrame, clean: Clean, today: date) -> DataFrame:
    """Ratings from parsed lines: userId, movieId, rating, timestamp, status, reason, file, raw, raw_bytes.

    Takes the columns of `with_fields`, `is_header`, `file`; `movies` gives the movieId that ratings may name. Of
    several ratings of one movie by one user the latest is kept, and of those of one second the highest, so that the
    choice does not depend on the order of rows. The rows of one user lie in one partition, in the order of movieId.
    """
    own_rules = [*rules.line_rules(), *rules.rating_rules(clean, today)]
    typed = fields.withColumn("reason", rules.first_reason(own_rules)).select(
        _if_good(rules.as_integer("userId").cast("int")).alias("userId"),
        _if_good(rules.as_integer("movieId").cast("int")).alias("movieId"),
        _if_good(rules.as_number("rating")).alias("rating"),
        _if_good(F.timestamp_seconds(rules.as_integer("timestamp"))).alias("timestamp"),
        "is_header",
        "reason",
        F.col("file").alias("origin"),
        "value",
        "is_utf8",
    )
    known = movies.select("movieId", F.lit(True).alias("is_known"))
    # An unknown movie is a reject, not a rating: it has no title to show and no row in the aggregates.
    is_unknown = F.col("reason").isNull() & F.col("is_known").isNull()
    joined = typed.join(F.broadcast(known), on="movieId", how="left").withColumn(
        "reason", F.when(is_unknown, F.lit(rules.UNKNOWN_MOVIE)).otherwise(F.col("reason"))
    )
    located = joined.select(
        _if_good(F.col("userId")).alias("userId"),
        _if_good(F.col("movieId")).alias("movieId"),
        "rating",
        "timestamp",
        "is_header",
        "reason",
        *_evidence("origin"),
    )
    newest_first = [F.desc("timestamp"), F.desc("rating")]
    return _with_status(located, ["userId", "movieId"], newest_first)


def kept(checked: DataFrame, columns: Sequence[str]) -> DataFrame:
    """The rows that passed every rule and are not superseded."""
    return checked.filter(F.col("status") == KEPT).select(*columns)


def rejected(checked: DataFrame, table: str, run_id: str) -> DataFrame:
    """The rows turned away: run_id, table, file, reason, raw (text), raw_bytes (only where the line is not UTF-8)."""
    return checked.filter(F.col("status") == REJECTED).select(
        F.lit(run_id).alias("run_id"), F.lit(table).alias("table"), "file", "reason", "raw", "raw_bytes"
    )


def _if_good(value: Column) -> Column:
    """A value of a row that breaks no rule; null otherwise, so that rejects do not take part in anything."""
    return F.when(F.col("reason").isNull(), value)


def _evidence(file: str = "file") -> list[Column]:
    """What a reject keeps of its line. Null for good rows: their text would only be carried about."""
    is_reject = F.col("reason").isNotNull()
    return [
        F.when(is_reject, _plain_path(F.col(file))).alias("file"),
        F.when(is_reject, F.make_valid_utf8("value")).alias("raw"),
        F.when(is_reject & ~F.col("is_utf8"), F.col("value").cast("binary")).alias("raw_bytes"),
    ]


def _plain_path(uri: Column) -> Column:
    """The path in a URI as Spark gives it: `file:/a%20b` is `/a b`. A plus sign is no escape in a path."""
    unescaped = F.url_decode(F.replace(uri, F.lit("+"), F.lit("%2B")))
    return F.regexp_replace(unescaped, "^file:/*", "/")


def _with_status(typed: DataFrame, keys: list[str], order: list[Column]) -> DataFrame:
    """Number the rows of each key and say what becomes of each; replaces `is_header` by `status`.

    One shuffle by the first key. Rejects have no key: they meet in one partition, header lines numbered by file, since
    only the first of each file is a header.
    """
    versions = Window.partitionBy(*keys, F.when(F.col("is_header"), F.col("file"))).orderBy(*order)
    is_first = F.col("version") == 1
    status = (
        F.when(F.col("is_header") & is_first, F.lit(HEADER))
        .when(F.col("reason").isNotNull(), F.lit(REJECTED))
        .when(is_first, F.lit(KEPT))
        .otherwise(F.lit(SUPERSEDED))
    )
    numbered = typed.repartition(keys[0]).withColumn("version", F.row_number().over(versions))
    return numbered.withColumn("status", status).drop("version", "is_header")
