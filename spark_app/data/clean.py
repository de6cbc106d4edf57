"""From parsed lines to typed rows, each with a status: kept, superseded, rejected, or the header of its file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from spark_app.data import rules
from spark_app.data.ids import Codes, with_codes, with_original_ids
from spark_app.platform.settings import Clean, Input
from spark_app.platform.spark_versions import make_valid_utf8

KEPT, SUPERSEDED, REJECTED, HEADER = "kept", "superseded", "rejected", "header"


def checked_movies(fields: DataFrame, input_settings: Input, codes: Codes) -> DataFrame:
    """Movies from parsed lines, as rows of movieId, title, year, genres, status, reason, file, raw, raw_bytes.

    Takes the columns of `with_fields`, `is_header`, and `file`, `block_start`, `row`: where in the delivery a line is.
    Of several rows of one movie the last delivered is kept: last file by name, last line in it.
    """
    reason = rules.first_reason([*rules.line_rules(), *rules.movie_rules(input_settings, codes.by_column)])
    titled = fields if input_settings.title else fields.withColumn("title", F.col("movieId"))
    judged = titled.transform(rules.with_values, input_settings, codes.by_column).withColumn("reason", reason)
    typed = judged.transform(with_codes, codes).select(
        _if_good(F.col("movieId").cast("int")).alias("movieId"),
        _if_good(F.col("title")).alias("title"),
        _if_good(rules.as_year("title")).alias("year"),
        _if_good(rules.as_genres("genres")).alias("genres"),
        _listed(),
        _turned_away(),
    )
    return _with_status(typed, ["movieId"], [F.desc("listed")]).drop("listed")


def checked_ratings(
    fields: DataFrame, movies: DataFrame | None, input_settings: Input, clean: Clean, today: date, codes: Codes
) -> DataFrame:
    """Ratings from parsed lines: userId, movieId, rating, timestamp, status, reason, file, raw, raw_bytes.

    Takes the columns of `with_fields`, `is_header`, and `file`, `block_start`, `row`; `movies` gives the movieId that
    ratings may name, None means any. Of several ratings of one movie by one user the latest is kept, and of those of
    one second the highest, so that the choice does not depend on the order of rows; without timestamps, the last
    delivered. Of counts it is their sum that is kept. The rows of one user lie in one partition, in the order of
    movieId.
    """
    own_rules = [*rules.line_rules(), *rules.rating_rules(input_settings, clean, today, codes.by_column)]
    time = (
        rules.as_time("timestamp", input_settings.time_format)
        if input_settings.timestamp
        else F.lit(None).cast("timestamp")
    )
    values = fields.transform(rules.with_values, input_settings, codes.by_column)
    judged = values.withColumn("reason", rules.first_reason(own_rules)).transform(with_codes, codes)
    judged = judged.withColumn("movieId", _if_good(F.col("movieId").cast("int")))
    located = (
        judged if movies is None else judged.transform(_without_unknown, movies, rules.unknown_movie(input_settings))
    )
    typed = located.select(
        _if_good(F.col("userId").cast("int")).alias("userId"),
        _if_good(F.col("movieId")).alias("movieId"),
        _if_good(F.col("rating") if input_settings.rating else F.lit(1.0)).alias("rating"),
        _if_good(time).alias("timestamp"),
        *([] if input_settings.timestamp else [_listed()]),
        _turned_away(),
    )
    newest_first = [F.desc("timestamp"), F.desc("rating")] if input_settings.timestamp else [F.desc("listed")]
    added_up = ("rating",) if input_settings.feedback == "counts" else ()
    return _with_status(typed, ["userId", "movieId"], newest_first, added_up).drop("listed")


def _without_unknown(typed: DataFrame, movies: DataFrame, reason: str) -> DataFrame:
    """Turn away ratings of movies that are not listed: they have no title to show and no row in the aggregates."""
    known = movies.select("movieId", F.lit(True).alias("is_known"))
    is_unknown = F.col("reason").isNull() & F.col("is_known").isNull()
    return typed.join(F.broadcast(known), on="movieId", how="left").withColumn(
        "reason", F.when(is_unknown, F.lit(reason)).otherwise(F.col("reason"))
    )


def rated_movies(ratings: DataFrame, codes: Codes) -> DataFrame:
    """The movies of a data set that lists none: movieId, title (the id as delivered), year (null), genres (empty)."""
    rated = ratings.select("movieId", F.col("movieId").alias("known_as")).distinct()
    return rated.transform(with_original_ids, codes).select(
        F.col("known_as").alias("movieId"),
        F.col("movieId").cast("string").alias("title"),
        F.lit(None).cast("int").alias("year"),
        F.array().cast("array<string>").alias("genres"),
    )


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


def _listed() -> Column:
    """Where in the delivery a line is: a later one is greater."""
    return F.struct("file", "block_start", "row").alias("listed")


def _turned_away() -> Column:
    """What a reject keeps of its line, `is_header` too. Null for good rows: their text would only be carried about."""
    kept = F.struct(
        "is_header",
        "reason",
        _plain_path(F.col("file")).alias("file"),
        make_valid_utf8("value").alias("raw"),
        F.when(~F.col("is_utf8"), F.col("value").cast("binary")).alias("raw_bytes"),
    )
    return F.when(F.col("reason").isNotNull(), kept).alias("turned_away")


def _plain_path(uri: Column) -> Column:
    """The path in a URI as Spark gives it: `file:/a%20b` is `/a b`. A plus sign is no escape in a path."""
    unescaped = F.url_decode(F.replace(uri, F.lit("+"), F.lit("%2B")))
    return F.regexp_replace(unescaped, "^file:/*", "/")


def _with_status(typed: DataFrame, keys: list[str], order: list[Column], added_up: Sequence[str] = ()) -> DataFrame:
    """Number the rows of each key and say what becomes of each: replaces `turned_away` by status, reason and evidence.

    The columns `added_up` become their sums over all rows of the key.

    One shuffle by the first key. Rejects have no key: they meet in one partition, header lines numbered by file, since
    only the first of each file is a header.
    """
    is_header = F.coalesce(F.col("turned_away.is_header"), F.lit(False))
    # Both ids in one number: eight bytes that the sort compares before it looks at a row at all.
    key = F.shiftleft(F.col(keys[0]).cast("bigint"), 32) + F.col(keys[-1])
    of_key = Window.partitionBy("key", *keys, F.when(is_header, F.col("turned_away.file")))
    is_first = F.col("version") == 1
    status = (
        F.when(is_header & is_first, F.lit(HEADER))
        .when(F.col("turned_away").isNotNull(), F.lit(REJECTED))
        .when(is_first, F.lit(KEPT))
        .otherwise(F.lit(SUPERSEDED))
    )
    numbered = typed.repartition(keys[0]).withColumn("key", key)
    numbered = numbered.withColumn("version", F.row_number().over(of_key.orderBy(*order)))
    numbered = numbered.withColumns({column: F.sum(column).over(of_key) for column in added_up})
    return numbered.select(
        *(column for column in typed.columns if column != "turned_away"),
        status.alias("status"),
        *(F.col(f"turned_away.{part}").alias(part) for part in ("reason", "file", "raw", "raw_bytes")),
    )
