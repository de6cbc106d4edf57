"""Raw zone to processed zone: clean, typed, one row a movie and one a (userId, movieId), with aggregates."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import reduce

from pyspark.sql import DataFrame, SparkSession

from spark_app.data import clean
from spark_app.data.aggregates import final_movies, movie_stats
from spark_app.data.ids import Codes, with_original_ids
from spark_app.platform import storage
from spark_app.platform.errors import TooManyRejectsError
from spark_app.platform.log import logger
from spark_app.platform.run import Run
from spark_app.platform.settings import Settings
from spark_app.platform.zones import ProcessedZone
from spark_app.stages.deliveries import Delivery, find_delivery, why_movies_need_all
from spark_app.stages.ids import check_no_codes, find_codes, keep_codes
from spark_app.stages.raw_zone import note_inputs, read_fields, survey

MOVIE_COLUMNS = ("movieId", "title", "year", "genres")
RATING_COLUMNS = ("userId", "movieId", "rating", "timestamp")
KEYS = ("userId", "movieId")

IS_LATER = "new.timestamp > old.timestamp OR (new.timestamp = old.timestamp AND new.rating > old.rating)"
"""Which of two ratings of one movie by one user is kept: as `clean.checked_ratings` has it within a delivery."""


def run(spark: SparkSession, settings: Settings, run: Run) -> None:
    """Clean the raw zone into `delta/movies`, `delta/ratings`, `delta/movie_stats`, `delta/rejects` and `final/`.

    Movies are read in full, of ratings the files that were not taken before, where that gives the same. They are parsed
    once: the checked rows are persisted, counted, and only then published. Nothing but the rejects is written where
    there are too many of them.
    """
    zone = ProcessedZone(settings.processed.path)
    raw_movies, raw_ratings = survey(settings)
    checksums = note_inputs(run, raw_movies, raw_ratings)
    coded = raw_ratings.coded.union(raw_movies.coded if raw_movies else ())
    if settings.input.ids == "integer":
        check_no_codes(spark, zone)
    delivery, everything = find_delivery(spark, zone, settings, raw_ratings, checksums, coded)
    listed = read_fields(spark, raw_movies) if raw_movies else None
    rated = read_fields(spark, delivery.table) if delivery.is_new else None
    codes, new_codes = find_codes(spark, zone, {"userId": rated, "movieId": rated if listed is None else listed}, coded)

    checked: dict[str, DataFrame] = {}
    movies = None
    if listed is not None:
        checked["movies"] = clean.checked_movies(listed, settings.input, codes).persist()
        movies = clean.kept(checked["movies"], MOVIE_COLUMNS)
        if why := why_movies_need_all(spark, zone, delivery, movies, settings):
            logger.info("ratings: all files are read again, since %s", why)
            delivery = everything
    if delivery.is_new:
        checked["ratings"] = _checked_ratings(spark, delivery, movies, settings, codes).persist()
    for table, rows in checked.items():
        _account(run, table, rows)
    _keep_rejects(checked, zone, run, settings.clean.max_reject_share)

    keep_codes(zone, run, new_codes)
    if movies is not None:
        _publish_movies(movies, zone, run)
    if delivery.is_new:
        _publish_ratings(clean.kept(checked["ratings"], RATING_COLUMNS), delivery, settings, zone, run)
    ratings = zone.read(spark, "ratings")
    if delivery.taken is not None:
        _account_for_all(run, delivery, ratings.count())
    if movies is None:
        movies = clean.rated_movies(ratings, codes)
        _publish_movies(movies, zone, run)
    zone.overwrite(movie_stats(movies, ratings, settings.clean.damping).orderBy("movieId"), "movie_stats")
    run.wrote(zone.table("movie_stats"))
    final = final_movies(zone.read(spark, "movies"), zone.read(spark, "movie_stats"))
    _publish_final(final.transform(with_original_ids, codes), zone, run)
    for rows in checked.values():
        rows.unpersist()


def _checked_ratings(
    spark: SparkSession, delivery: Delivery, movies: DataFrame | None, settings: Settings, codes: Codes
) -> DataFrame:
    today = datetime.now(UTC).date()
    fields = read_fields(spark, delivery.table)
    return clean.checked_ratings(fields, movies, settings.input, settings.clean, today, codes)


def _account(run: Run, table: str, checked: DataFrame) -> None:
    """Count what became of the rows of a table, and say it. This is the action that parses the files."""
    counts = {
        (row["status"], row["reason"]): row["count"] for row in checked.groupBy("status", "reason").count().collect()
    }
    of_status = {
        status: sum(count for (found, _), count in counts.items() if found == status)
        for status in (clean.KEPT, clean.REJECTED, clean.SUPERSEDED)
    }
    run.rows[table] = {
        "in": sum(of_status.values()),
        "good": of_status[clean.KEPT],
        "rejected": of_status[clean.REJECTED],
        "superseded": of_status[clean.SUPERSEDED],
    }
    run.rejects[table] = {
        reason: count
        for (status, reason), count in sorted(counts.items(), key=lambda item: -item[1])
        if status == clean.REJECTED
    }
    _tell(table, run.rows[table])
    for reason, count in run.rejects[table].items():
        logger.warning("%s: %s rejected: %s", table, f"{count:,}", reason)


def _tell(table: str, rows: Mapping[str, int]) -> None:
    logger.info(
        "%s: %s rows in = %s good + %s rejected + %s superseded",
        table,
        *(f"{rows[part]:,}" for part in ("in", "good", "rejected", "superseded")),
    )


def _account_for_all(run: Run, delivery: Delivery, good: int) -> None:
    """Count what became of all rows that were ever taken; those of this delivery stay beside it, as `delivery`."""
    run.rows["delivery"] = run.rows.get("ratings", dict.fromkeys(("in", "good", "rejected", "superseded"), 0))
    taken = delivery.then_taken(run.rows["delivery"]["in"], run.rejects.get("ratings", {}), run.run_id)
    rejected = sum(taken.rejects.values())
    superseded = taken.rows - rejected - good
    run.rows["ratings"] = {"in": taken.rows, "good": good, "rejected": rejected, "superseded": superseded}
    run.rejects["ratings"] = dict(sorted(taken.rejects.items(), key=lambda item: -item[1]))
    _tell("ratings, all deliveries", run.rows["ratings"])


def _keep_rejects(checked: Mapping[str, DataFrame], zone: ProcessedZone, run: Run, most: float) -> None:
    """Write what was turned away, and raise TooManyRejectsError where that is too large a share of a table."""
    if checked:
        rejects = [clean.rejected(rows, table, run.run_id) for table, rows in checked.items()]
        zone.append(reduce(DataFrame.union, rejects), "rejects")
        run.wrote(zone.table("rejects"))
    for table, rows in run.rows.items():
        share = rows["rejected"] / rows["in"] if rows["in"] else 1.0
        if share > most:
            reason = next(iter(run.rejects[table]), "no row is left")
            raise TooManyRejectsError(
                f"{rows['rejected']:,} of {rows['in']:,} rows of {table} ({share:.1%}) were rejected, more than "
                f"clean.max_reject_share={most:g}; most often: {reason}. Nothing but these rejects was published: "
                f"see {zone.table('rejects')} where run_id = '{run.run_id}'"
            )


def _publish_movies(movies: DataFrame, zone: ProcessedZone, run: Run) -> None:
    zone.overwrite(movies.orderBy("movieId"), "movies")
    run.wrote(zone.table("movies"))


def _publish_ratings(ratings: DataFrame, delivery: Delivery, settings: Settings, zone: ProcessedZone, run: Run) -> None:
    """Replace the table of ratings, or merge a further delivery into it; the commit says what is taken now."""
    note = delivery.then_taken(run.rows["ratings"]["in"], run.rejects["ratings"], run.run_id).to_json()
    if delivery.taken is None:
        zone.overwrite(ratings, "ratings", note)
    elif settings.input.feedback == "counts":
        added_up = {"rating": "old.rating + new.rating", "timestamp": "greatest(old.timestamp, new.timestamp)"}
        zone.merge(ratings, "ratings", KEYS, "true", added_up, note)
    else:
        is_later = IS_LATER if settings.input.timestamp else "true"
        values = {"rating": "new.rating", "timestamp": "new.timestamp"}
        zone.merge(ratings, "ratings", KEYS, is_later, values, note)
    run.wrote(zone.table("ratings"))


def _publish_final(final: DataFrame, zone: ProcessedZone, run: Run) -> None:
    """Write the aggregates as one Parquet file and put it in the place of the one before in a single step."""
    staging = storage.join(zone.staging, "final")
    final.coalesce(1).write.mode("overwrite").parquet(staging)
    (part,) = storage.list_files(staging)
    storage.publish(part, zone.final_file)
    run.wrote(zone.final_file)
