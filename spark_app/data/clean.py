"""Turns parsed lines into typed rows, each with a status.

A row is kept, superseded, rejected, or the header of its file. Where the settings name values that are no ratings, it
can also be unrated (seen without a rating) or missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from spark_app.data import rules
from spark_app.data.contract import GENRE
from spark_app.data.ids import Codes, with_codes
from spark_app.platform.settings import Clean, Input
from spark_app.platform.spark_versions import make_valid_utf8

KEPT, SUPERSEDED, REJECTED, HEADER = "kept", "superseded", "rejected", "header"
UNRATED, MISSING = rules.UNRATED, rules.MISSING


def checked_movies(fields: DataFrame, input_settings: Input, codes: Codes) -> DataFrame:
    """Movies from parsed lines: movieId, title, year, genres, listed_as, status, reason, file, raw, raw_bytes.

    Takes the columns of `with_fields`, `is_header`, and the position of a line in the delivery: `file`, `block_start`,
    `row`. If a movie has several rows, the last delivered is kept: the last line in the last file by name. `listed_as`
    is the id, as text, in a line that was rejected.
    """
    reason = rules.first_reason([*rules.line_rules(), *rules.movie_rules(input_settings, codes.by_column)])
    titled = fields if input_settings.title else fields.withColumn("title", F.col("movieId"))
    judged = titled.transform(rules.with_values, input_settings, codes.by_column).withColumn("reason", reason)
    judged = judged.withColumn("listed_as", F.when(F.col("reason").isNotNull(), F.col("movieId").cast("string")))
    genres = rules.as_genres("genres", input_settings.genre_separator, input_settings.missing_values)
    if of_genres := [column for column in fields.columns if column.startswith(GENRE)]:
        genres = rules.flagged_genres({column: column.removeprefix(GENRE) for column in of_genres})
    typed = judged.transform(with_codes, codes).select(
        _if_good(F.col("movieId").cast("int")).alias("movieId"),
        _if_good(F.col("title")).alias("title"),
        _if_good(rules.as_year("title")).alias("year"),
        _if_good(genres).alias("genres"),
        "listed_as",
        _position(),
        _reject(),
    )
    return _with_status(typed, ["movieId"], [F.desc("position")]).drop("position")


def lost_movies(checked: DataFrame) -> DataFrame:
    """The movies of which some line was rejected, from `checked_movies`: listed_as (the id as text), why."""
    is_lost = (F.col("status") == REJECTED) & F.col("listed_as").isNotNull()
    return checked.filter(is_lost).groupBy("listed_as").agg(F.min("reason").alias("why"))


def checked_ratings(
    fields: DataFrame,
    movies: DataFrame | None,
    input_settings: Input,
    clean: Clean,
    today: date,
    codes: Codes,
    lost: DataFrame | None = None,
) -> DataFrame:
    """Ratings from parsed lines: userId, movieId, rating, timestamp, status, reason, file, raw, raw_bytes.

    Takes the columns of `with_fields`, `is_header`, and the position of a line in the delivery: `file`, `block_start`,
    `row`. `movies` has the movieIds that ratings may refer to; None allows any. The reason to reject a rating of any
    other movie is its own where the line of that movie was rejected; `lost` has these, from `lost_movies`.

    If a user rated a movie several times, the latest rating is kept, and the highest of those with the same timestamp,
    so that the choice does not depend on the order of rows. Without timestamps the last delivered rating is kept. Of
    counts, the sum is kept. The rows of one user lie in one partition, in the order of movieId.

    A row that is unrated supersedes others that are, and no rating.
    """
    judged = judged_ratings(fields, movies, input_settings, clean, today, codes, lost)
    newest_first = [F.desc("timestamp"), F.desc("rating")] if input_settings.timestamp else [F.desc("position")]
    summed = ("rating",) if input_settings.feedback == "counts" else ()
    return _with_status(judged, ["userId", "movieId"], newest_first, summed).drop("position", "mark")


def judged_ratings(
    fields: DataFrame,
    movies: DataFrame | None,
    input_settings: Input,
    clean: Clean,
    today: date,
    codes: Codes,
    lost: DataFrame | None = None,
) -> DataFrame:
    """Every line as a row: userId, movieId, rating, timestamp (null in rejected rows), `reject` (null in good rows).

    Takes what `checked_ratings` takes. `reject` has is_header, reason, file, raw and raw_bytes. Where the input has no
    timestamps there is `position`, which is greater in a line delivered later. Where some values are no ratings there
    is `mark`, as of `rules.with_values`; a missing rating has a `reject` too.
    """
    own_rules = [*rules.line_rules(), *rules.rating_rules(input_settings, clean, today, codes.by_column)]
    time = F.col("timestamp") if input_settings.timestamp else F.lit(None).cast("timestamp")
    values = fields.transform(rules.with_values, input_settings, codes.by_column)
    judged = values.withColumn("reason", rules.first_reason(own_rules))
    unlisted = F.lit(rules.unknown_movie(input_settings))
    if lost is not None:
        as_listed = F.col("movieId").cast("string") == F.col("listed_as")
        judged = judged.join(F.broadcast(lost), on=as_listed, how="left")
        unlisted = F.coalesce(F.concat(F.lit(rules.lost_movie(input_settings)), "why"), unlisted)
    judged = judged.withColumn("unlisted", unlisted).transform(with_codes, codes)
    judged = judged.withColumn("movieId", _if_good(F.col("movieId").cast("int")))
    located = judged if movies is None else judged.transform(_reject_unknown_movies, movies)
    has_marks = rules.has_marks(input_settings)
    if has_marks:
        mark = F.when(F.col("reason").isNull(), F.col("mark"))
        is_missing = F.coalesce(mark == MISSING, F.lit(False))
        why = F.when(is_missing, F.lit(f"{input_settings.rating} is missing")).otherwise(F.col("reason"))
        located = located.withColumn("mark", mark).withColumn("reason", why)
    rating = F.col("rating") if input_settings.rating else F.lit(1.0)
    return located.select(
        _if_good(F.col("userId").cast("int")).alias("userId"),
        _if_good(F.col("movieId")).alias("movieId"),
        _if_good(F.when(F.col("mark").isNull(), rating) if has_marks else rating).alias("rating"),
        _if_good(time).alias("timestamp"),
        *([] if input_settings.timestamp else [_position()]),
        *(["mark"] if has_marks else []),
        _reject(),
    )


def _reject_unknown_movies(judged: DataFrame, movies: DataFrame) -> DataFrame:
    """Reject ratings of movies that are not in `movies`, for the reason `unlisted`.

    They have no title to show and no row in the aggregates.
    """
    known = movies.select("movieId", F.lit(True).alias("is_known"))
    is_unknown = F.col("reason").isNull() & F.col("is_known").isNull()
    return judged.join(F.broadcast(known), on="movieId", how="left").withColumn(
        "reason", F.when(is_unknown, F.col("unlisted")).otherwise(F.col("reason"))
    )


def kept(checked: DataFrame, columns: Sequence[str]) -> DataFrame:
    """The rows that passed every rule and are not superseded."""
    return checked.filter(F.col("status") == KEPT).select(*columns)


def unrated(checked: DataFrame) -> DataFrame:
    """The pairs userId, movieId that were seen without a rating, each once."""
    return checked.filter(F.col("status") == UNRATED).select("userId", "movieId")


def rejected(checked: DataFrame) -> DataFrame:
    """The rejected rows: file, reason, raw (text), raw_bytes (only where the record is no text)."""
    return checked.filter(F.col("status") == REJECTED).select("file", "reason", "raw", "raw_bytes")


def _if_good(value: Column) -> Column:
    """The value if the row breaks no rule; else null, so that a rejected row does not affect any other."""
    return F.when(F.col("reason").isNull(), value)


def _position() -> Column:
    """The position of a line in the delivery; a later line has a greater one."""
    return F.struct("file", "block_start", "row").alias("position")


def _reject() -> Column:
    """What is kept of a rejected line, and `is_header`. Null for good rows, so that their text is not shuffled."""
    line = F.struct(
        "is_header",
        "reason",
        _plain_path(F.col("file")).alias("file"),
        make_valid_utf8("value").alias("raw"),
        F.when(~F.col("is_text"), F.col("value").cast("binary")).alias("raw_bytes"),
    )
    return F.when(F.col("reason").isNotNull(), line).alias("reject")


def _plain_path(uri: Column) -> Column:
    """The path in a URI of Spark: `/a b` for `file:/a%20b`. A plus sign in a path is not an escape."""
    unescaped = F.url_decode(F.replace(uri, F.lit("+"), F.lit("%2B")))
    return F.regexp_replace(unescaped, "^file:/*", "/")


def _with_status(typed: DataFrame, keys: list[str], order: list[Column], summed: Sequence[str] = ()) -> DataFrame:
    """Give each row a status: replaces `reject` by status, reason, file, raw and raw_bytes.

    Of the rows of one key, the first in `order` is kept and the others are superseded. The columns `summed` become
    their sums over all rows of the key.

    There is one shuffle, by the first key. Rejected rows have no key, so they all meet in one partition. Header lines
    are numbered by file, since only the first one of each file is its header. If there is a column `mark`, only
    rows with the same mark supersede each other.
    """
    is_header = F.coalesce(F.col("reject.is_header"), F.lit(False))
    # Both ids in one number of eight bytes, which the sort compares before it reads the rows.
    key = F.shiftleft(F.col(keys[0]).cast("bigint"), 32) + F.col(keys[-1])
    marks = [F.col("mark")] if "mark" in typed.columns else []
    rows_of_key = Window.partitionBy("key", *keys, F.when(is_header, F.col("reject.file")), *marks)
    is_first = F.col("version") == 1
    of_rejects, of_first = F.lit(REJECTED), F.lit(KEPT)
    for mark in marks:
        of_rejects, of_first = F.coalesce(mark, of_rejects), F.coalesce(mark, of_first)
    status = (
        F.when(is_header & is_first, F.lit(HEADER))
        .when(F.col("reject").isNotNull(), of_rejects)
        .when(is_first, of_first)
        .otherwise(F.lit(SUPERSEDED))
    )
    numbered = typed.repartition(keys[0]).withColumn("key", key)
    numbered = numbered.withColumn("version", F.row_number().over(rows_of_key.orderBy(*order)))
    numbered = numbered.withColumns({column: F.sum(column).over(rows_of_key) for column in summed})
    return numbered.select(
        *(column for column in typed.columns if column != "reject"),
        status.alias("status"),
        *(F.col(f"reject.{part}").alias(part) for part in ("reason", "file", "raw", "raw_bytes")),
    )
