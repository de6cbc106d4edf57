"""Raw zone to processed zone: clean, typed, one row a movie and one a (userId, movieId), with aggregates."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import reduce

from pyspark.sql import DataFrame, SparkSession

from spark_app.data import clean
from spark_app.data.aggregates import final_movies, movie_stats
from spark_app.data.ids import with_original_ids
from spark_app.platform import storage
from spark_app.platform.errors import TooManyRejectsError
from spark_app.platform.log import logger
from spark_app.platform.run import Run
from spark_app.platform.settings import Settings
from spark_app.platform.zones import ProcessedZone
from spark_app.stages.ids import check_no_codes, find_codes, keep_codes
from spark_app.stages.raw_zone import note_inputs, read_fields, survey

MOVIE_COLUMNS = ("movieId", "title", "year", "genres")
RATING_COLUMNS = ("userId", "movieId", "rating", "timestamp")


def run(spark: SparkSession, settings: Settings, run: Run) -> None:
    """Clean the raw zone into `delta/movies`, `delta/ratings`, `delta/movie_stats`, `delta/rejects` and `final/`.

    The raw files are parsed once: the checked rows are persisted, counted, and only then published. Nothing but the
    rejects is written where there are too many of them.
    """
    zone = ProcessedZone(settings.processed.path)
    raw_movies, raw_ratings = survey(settings)
    note_inputs(run, raw_movies, raw_ratings)
    listed = read_fields(spark, raw_movies) if raw_movies else None
    rated = read_fields(spark, raw_ratings)
    coded = raw_ratings.coded.union(raw_movies.coded if raw_movies else ())
    if settings.input.ids == "integer":
        check_no_codes(spark, zone)
    codes, new_codes = find_codes(spark, zone, {"userId": rated, "movieId": rated if listed is None else listed}, coded)

    checked = {}
    if listed is not None:
        checked["movies"] = clean.checked_movies(listed, settings.input, codes).persist()
    movies = clean.kept(checked["movies"], MOVIE_COLUMNS) if listed is not None else None
    today = datetime.now(UTC).date()
    checked["ratings"] = clean.checked_ratings(rated, movies, settings.input, settings.clean, today, codes).persist()
    ratings = clean.kept(checked["ratings"], RATING_COLUMNS)
    if movies is None:
        movies = clean.rated_movies(ratings, codes)

    for table, rows in checked.items():
        _account(run, table, rows)
    rejects = [clean.rejected(rows, table, run.run_id) for table, rows in checked.items()]
    zone.append(reduce(DataFrame.union, rejects), "rejects")
    run.wrote(zone.table("rejects"))
    _check_reject_share(run, settings.clean.max_reject_share, zone.table("rejects"))

    keep_codes(zone, run, new_codes)
    zone.overwrite(movies.orderBy("movieId"), "movies")
    run.wrote(zone.table("movies"))
    zone.overwrite(ratings, "ratings")
    run.wrote(zone.table("ratings"))
    zone.overwrite(movie_stats(movies, ratings, settings.clean.damping).orderBy("movieId"), "movie_stats")
    run.wrote(zone.table("movie_stats"))
    final = final_movies(zone.read(spark, "movies"), zone.read(spark, "movie_stats"))
    _publish_final(final.transform(with_original_ids, codes), zone, run)
    for rows in checked.values():
        rows.unpersist()


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
    logger.info(
        "%s: %s rows in = %s good + %s rejected + %s superseded",
        table,
        *(f"{run.rows[table][part]:,}" for part in ("in", "good", "rejected", "superseded")),
    )
    for reason, count in run.rejects[table].items():
        logger.warning("%s: %s rejected: %s", table, f"{count:,}", reason)


def _check_reject_share(run: Run, most: float, rejects: str) -> None:
    for table, rows in run.rows.items():
        share = rows["rejected"] / rows["in"] if rows["in"] else 1.0
        if share > most:
            reason = next(iter(run.rejects[table]), "no row is left")
            raise TooManyRejectsError(
                f"{rows['rejected']:,} of {rows['in']:,} rows of {table} ({share:.1%}) were rejected, more than "
                f"clean.max_reject_share={most:g}; most often: {reason}. Nothing but these rejects was published: "
                f"see {rejects} where run_id = '{run.run_id}'"
            )


def _publish_final(final: DataFrame, zone: ProcessedZone, run: Run) -> None:
    """Write the aggregates as one Parquet file and put it in the place of the one before in a single step."""
    staging = storage.join(zone.staging, "final")
    final.coalesce(1).write.mode("overwrite").parquet(staging)
    (part,) = storage.list_files(staging)
    storage.publish(part, zone.final_file)
    run.wrote(zone.final_file)
