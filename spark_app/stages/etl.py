"""The `etl` stage: cleans the raw zone into typed tables, with one row per movie and per (userId, movieId)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

import spark_app
from spark_app.data.aggregates import final_movies, movie_stats, rating_sums
from spark_app.data.movies import other_separator, without_table
from spark_app.platform import storage
from spark_app.platform.arrow_files import Rows
from spark_app.platform.log import logger
from spark_app.platform.settings import Settings
from spark_app.platform.spark_versions import to_arrow
from spark_app.stages.accounts import account_for_all, check_lost_share, check_reject_share, log_rejects, note_kept
from spark_app.zones.checked import Checked
from spark_app.zones.deliveries import (
    Delivery,
    digest,
    find_delivery,
    has_taken_all,
    read_taken,
)
from spark_app.zones.id_codes import check_no_codes, keep_codes, with_delivered_movie_ids
from spark_app.zones.judged import columns_coded, judge
from spark_app.zones.manifest import RunRecord
from spark_app.zones.processed import ProcessedZone
from spark_app.zones.raw import RawTable, note_inputs
from spark_app.zones.raw_check import surveyed

KEYS = ("userId", "movieId")
UNRATED = "userId INT, movieId INT"
REJECT_COLUMNS = ("file", "reason", "raw", "raw_bytes")

IS_LATER = """
new.timestamp > old.timestamp OR (old.timestamp IS NULL AND new.timestamp IS NOT NULL)
OR (new.timestamp <=> old.timestamp AND new.rating > old.rating)
"""
"""When a new rating replaces the old one of the same user and movie: the rule of `clean.checked_ratings`, in SQL."""


def run(spark: SparkSession, settings: Settings, record: RunRecord) -> None:
    """Clean the raw zone into `delta/movies`, `delta/ratings`, `delta/movie_stats`, `delta/rejects` and `final/`.

    All movies are read. Of the ratings, only the new files are read if that gives the same result as reading all files.
    The rows are judged and counted, and only then published. If too many are rejected, only the rejects are written.
    """
    zone = ProcessedZone(settings.processed.path)
    tables = note_inputs(record, *surveyed(settings))
    if settings.input.ids == "integer":
        check_no_codes(zone)
    judged = judge(spark, zone, settings, record, tables)
    movies_from = _movies_from(tables[0], settings, judged.coded)
    checked, delivery = judged.checked, judged.delivery
    for table in checked:
        log_rejects(table, record, settings)
    _publish_rejects(checked, zone, record)
    check_lost_share(record, checked, zone, settings)
    check_reject_share(record, checked, zone, settings)

    keep_codes(zone, record, judged.new_codes)
    if judged.movies is not None:
        note_kept(record, "movies", checked["movies"])
        _publish_movies(judged.movies.coalesce(1).sortWithinPartitions("movieId"), zone, record, movies_from)
    if delivery.is_new:
        _publish_ratings(spark, checked["ratings"], delivery, settings, zone, record)
        note_kept(record, "ratings", checked["ratings"])
    if delivery.taken is not None:
        account_for_all(record, delivery, zone.dataset("ratings").count_rows(), _count_unrated(zone), settings)
    sums = _rating_sums(spark, zone, delivery, checked.get("ratings"))
    if judged.movies is None:
        delivered = with_delivered_movie_ids(zone, sums.select(["movieId"]))["movieId"]
        _publish_movies(without_table(sums["movieId"], delivered), zone, record, movies_from)
    movies = zone.rows("movies").sort_by("movieId")
    if judged.movies is not None:
        _warn_of_genres(movies["genres"], settings)
    stats = movie_stats(movies["movieId"], sums, settings.clean.damping)
    zone.replace_final(with_delivered_movie_ids(zone, final_movies(movies, stats)))
    record.note_output(zone.final_file)
    # Last of all: its note says that everything before it is complete.
    zone.overwrite(stats, "movie_stats", made_from=_stats_from(zone, settings))
    record.note_output(zone.table("movie_stats"))
    judged.unpersist()


def _rating_sums(spark: SparkSession, zone: ProcessedZone, delivery: Delivery, checked: Checked | None) -> pa.Table:
    """The sums of all published ratings by movie. What was summed up while it was written is not read again."""
    of_all = checked if delivery.taken is None else None
    if of_all and of_all.movie_sums:
        sums = of_all.movie_sums()
        if pc.sum(sums["rating_count"]).as_py() == of_all.kept_rows:
            return sums
    ratings = of_all.kept if of_all and of_all.is_at_hand else zone.read(spark, "ratings")
    return to_arrow(rating_sums(ratings)).sort_by("movieId")


def is_current(settings: Settings, record: RunRecord) -> bool:
    """Whether the processed zone already holds what the stage would write, so that it need not run; without Spark.

    It does if the files and all that decides how rows are judged are those of the last time, and nobody else has
    changed the tables since.
    """
    zone = ProcessedZone(settings.processed.path)
    tables = note_inputs(record, *surveyed(settings))
    coded = columns_coded(zone, tables)
    taken = read_taken(zone)
    if (
        taken is None
        or not has_taken_all(taken, tables[1], settings, coded)
        or not zone.is_made_from("movies", _movies_from(tables[0], settings, coded))
        or not zone.is_made_from("movie_stats", _stats_from(zone, settings))
        or not storage.exists(zone.final_file)
    ):
        return False
    delivery, _ = find_delivery(zone, settings, tables[1], coded)
    account_for_all(record, delivery, zone.dataset("ratings").count_rows(), _count_unrated(zone), settings)
    return True


def _count_unrated(zone: ProcessedZone) -> int:
    """The number of pairs that were seen without a rating, in all deliveries."""
    return zone.dataset("unrated").count_rows() if zone.version("unrated") is not None else 0


def _movies_from(movies: RawTable | None, settings: Settings, coded: Collection[str]) -> dict[str, Any]:
    """What the table of movies is made from: its files, or the ratings if there are none, and all that judges rows."""
    return {
        "files": sorted(file.sha256 for file in movies.files) if movies else None,
        "movies_file": settings.movies_file.model_dump(mode="json"),
        "rules": digest(settings, coded),
        "version": spark_app.__version__,
    }


def _stats_from(zone: ProcessedZone, settings: Settings) -> dict[str, Any]:
    """What the aggregates are made from."""
    return {**zone.versions("ratings", "movies"), "damping": settings.clean.damping, "version": spark_app.__version__}


def _publish_rejects(checked: Mapping[str, Checked], zone: ProcessedZone, record: RunRecord) -> None:
    """Add the rejected rows to `delta/rejects`."""
    rejects = [
        rows.rejected.select(F.lit(record.run_id).alias("run_id"), F.lit(table).alias("table"), *REJECT_COLUMNS)
        for table, rows in checked.items()
        if rows.rejected is not None
    ]
    if rejects:
        zone.append(reduce(DataFrame.union, rejects), "rejects")
        record.note_output(zone.table("rejects"))


def _warn_of_genres(genres: pa.ChunkedArray, settings: Settings) -> None:
    """Log a warning where the genres seem to be divided by something else than the settings say."""
    configured = settings.input.genre_separator
    if settings.input.genres and (other := other_separator(genres)):
        separator, count, example = other
        logger.warning(
            "movies: no %s has '%s' between genres, but %s have '%s', such as '%s': set input.genre_separator = \"%s\"",
            settings.input.genres,
            configured,
            f"{count:,}",
            separator,
            example,
            separator,
        )


def _publish_movies(movies: Rows, zone: ProcessedZone, record: RunRecord, made_from: Mapping[str, Any]) -> None:
    zone.overwrite(movies, "movies", made_from=made_from)
    record.note_output(zone.table("movies"))


def _publish_ratings(
    spark: SparkSession,
    checked: Checked,
    delivery: Delivery,
    settings: Settings,
    zone: ProcessedZone,
    record: RunRecord,
) -> None:
    """Replace the table of ratings, or merge a further delivery into it; the commit's note lists what is taken now.

    What was seen without a rating is published before: if a run ends between the two commits, the next one reads the
    delivery again, and adds no pair twice.
    """
    _publish_unrated(spark, checked.unrated, delivery, settings, zone, record)
    note = delivery.then_taken(checked.lines, checked.missing_lines, record.rejects["ratings"], record.run_id).as_note()
    if delivery.taken is not None:
        checked.hold()  # a merge reads it twice
    if delivery.taken is None:
        zone.overwrite(checked.made or checked.kept, "ratings", **note)
        checked.kept_rows = checked.kept_rows or zone.dataset("ratings").count_rows()  # from the facts of its files
    elif settings.input.feedback == "counts":
        sums = {"rating": "old.rating + new.rating", "timestamp": "greatest(old.timestamp, new.timestamp)"}
        zone.merge(checked.kept, "ratings", KEYS, "true", sums, note)
    else:
        is_later = IS_LATER if settings.input.timestamp else "true"
        values = {"rating": "new.rating", "timestamp": "new.timestamp"}
        zone.merge(checked.kept, "ratings", KEYS, is_later, values, note)
    record.note_output(zone.table("ratings"))


def _publish_unrated(
    spark: SparkSession,
    pairs: DataFrame | None,
    delivery: Delivery,
    settings: Settings,
    zone: ProcessedZone,
    record: RunRecord,
) -> None:
    """Replace the table of what was seen without a rating, or add the new pairs of a further delivery to it.

    There is a table only where the settings have ever named values for it.
    """
    is_there = zone.has_table("unrated")
    if not settings.input.unrated_values and not is_there:
        return
    if pairs is None:
        pairs = spark.createDataFrame([], UNRATED)
    if delivery.taken is None or not is_there:
        zone.overwrite(pairs, "unrated")
    else:
        zone.append(pairs.join(zone.read(spark, "unrated"), on=list(KEYS), how="left_anti"), "unrated")
    record.note_output(zone.table("unrated"))
