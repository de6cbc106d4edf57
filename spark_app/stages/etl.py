"""The `etl` stage: cleans the raw zone into typed tables, with one row per movie and per (userId, movieId)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

import spark_app
from spark_app.data import clean, rules
from spark_app.data.aggregates import final_movies, movie_stats
from spark_app.data.ids import Codes, are_ids, with_original_ids
from spark_app.platform import storage
from spark_app.platform.errors import TooManyRejectsError
from spark_app.platform.log import logger
from spark_app.platform.settings import Settings
from spark_app.zones.checked import Checked
from spark_app.zones.deliveries import (
    Delivery,
    digest,
    find_delivery,
    has_taken_all,
    read_taken,
    why_movies_need_all,
)
from spark_app.zones.id_codes import check_no_codes, coded_before, find_codes, keep_codes, texts_in
from spark_app.zones.manifest import RunRecord
from spark_app.zones.plain_ratings import check_plain_files, plain_files
from spark_app.zones.processed import ProcessedZone
from spark_app.zones.raw import RawTable, note_inputs, read_fields
from spark_app.zones.raw_check import advice, surveyed

MOVIE_COLUMNS = ("movieId", "title", "year", "genres")
RATING_COLUMNS = ("userId", "movieId", "rating", "timestamp")
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
    Each file is parsed once: the checked rows are counted, and only then published. Only where ids turn out to be
    texts, although the first lines of the files have integers, everything is read again. If too many rows are rejected,
    only the rejects are written.
    """
    zone = ProcessedZone(settings.processed.path)
    tables = note_inputs(record, *surveyed(settings))
    if settings.input.ids == "integer":
        check_no_codes(spark, zone)
    coded = coded_before(zone).union(*(table.coded for table in tables if table))
    judged = _judge(spark, zone, settings, record, tables, coded)
    while settings.input.ids == "auto" and (texts := _columns_of_texts(judged, settings, record)):
        judged.unpersist()
        coded |= texts
        judged = _judge(spark, zone, settings, record, tables, coded)
    movies_from = _movies_from(tables[0], settings, coded)
    checked, movies, codes, delivery = judged.checked, judged.movies, judged.codes, judged.delivery
    for table in checked:
        _log_rejects(table, record, settings)
    _publish_rejects(checked, zone, record)
    _check_lost_share(record, checked, zone, settings)
    _check_reject_share(record, checked, zone, settings)

    keep_codes(zone, record, judged.new_codes)
    if movies is not None:
        _warn_of_genres(movies, settings)
        _note_kept(record, "movies", checked["movies"])
        _publish_movies(movies, zone, record, movies_from)
    if delivery.is_new:
        _publish_ratings(spark, checked["ratings"], delivery, settings, zone, record)
        _note_kept(record, "ratings", checked["ratings"])
    if delivery.taken is None and checked["ratings"].is_at_hand:
        ratings = checked["ratings"].kept  # all there are
    else:
        ratings = zone.read(spark, "ratings")
    if delivery.taken is not None:
        unrated = zone.read(spark, "unrated").count() if zone.has_table(spark, "unrated") else 0
        _account_for_all(record, delivery, ratings.count(), unrated, settings)
    if movies is None:
        movies = clean.rated_movies(ratings, codes)
        _publish_movies(movies, zone, record, movies_from)
    stats = movie_stats(movies, ratings, settings.clean.damping).orderBy("movieId").persist()
    zone.replace_final(final_movies(movies, stats).transform(with_original_ids, codes))
    record.note_output(zone.final_file)
    # Last of all: its note says that everything before it is complete.
    zone.overwrite(stats, "movie_stats", made_from=_stats_from(zone, settings))
    record.note_output(zone.table("movie_stats"))
    judged.unpersist()
    stats.unpersist()


def is_current(settings: Settings, record: RunRecord) -> bool:
    """Whether the processed zone already holds what the stage would write, so that it need not run; without Spark.

    It does if the files and all that decides how rows are judged are those of the last time, and nobody else has
    changed the tables since.
    """
    zone = ProcessedZone(settings.processed.path)
    tables = note_inputs(record, *surveyed(settings))
    coded = coded_before(zone).union(*(table.coded for table in tables if table))
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
    has_unrated = zone.version("unrated") is not None
    unrated = zone.dataset("unrated").count_rows() if has_unrated else 0
    _account_for_all(record, delivery, zone.dataset("ratings").count_rows(), unrated, settings)
    return True


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


@dataclass(frozen=True)
class _Judged:
    """A delivery whose rows are judged and counted.

    `fields` has the parsed lines and `checked` the judged rows of each table that is read, `movies` the kept movies
    (None if there is no table of them).
    """

    delivery: Delivery
    fields: Mapping[str, DataFrame]
    checked: Mapping[str, Checked]
    movies: DataFrame | None
    codes: Codes
    new_codes: dict[str, DataFrame]

    def unpersist(self) -> None:
        for checked in self.checked.values():
            checked.unpersist()
        for codes in self.new_codes.values():
            codes.unpersist()


def _judge(
    spark: SparkSession,
    zone: ProcessedZone,
    settings: Settings,
    record: RunRecord,
    tables: tuple[RawTable | None, RawTable],
    coded: frozenset[str],
) -> _Judged:
    """Judge and count the rows of the delivery. `coded` names the columns, of userId and movieId, that need codes."""
    raw_movies, raw_ratings = tables
    delivery, all_files = find_delivery(zone, settings, raw_ratings, coded)
    movie_fields = read_fields(spark, raw_movies) if raw_movies else None
    rating_fields = read_fields(spark, delivery.table) if delivery.is_new else None
    codes, new_codes = find_codes(
        spark,
        zone,
        {"userId": rating_fields, "movieId": rating_fields if movie_fields is None else movie_fields},
        coded,
    )
    fields: dict[str, DataFrame] = {}
    checked: dict[str, Checked] = {}
    movies = lost = None
    if movie_fields is not None:
        fields["movies"] = movie_fields
        rows = clean.checked_movies(movie_fields, settings.input, codes).persist()
        checked["movies"] = Checked.of_rows(rows, MOVIE_COLUMNS)
        _note_lines(record, "movies", checked["movies"])
        lost = clean.lost_movies(rows) if record.rejects["movies"] else None
        movies = checked["movies"].kept
        if reason := why_movies_need_all(spark, zone, delivery, movies, settings):
            logger.info("ratings: all files are read again, since %s", reason)
            delivery = all_files
    if delivery.is_new:
        fields["ratings"] = read_fields(spark, delivery.table)
        checked["ratings"] = _checked_ratings(
            spark, delivery.table, fields["ratings"], movies, lost, settings, codes, record
        )
        _note_lines(record, "ratings", checked["ratings"])
    return _Judged(delivery, fields, checked, movies, codes, new_codes)


def _checked_ratings(
    spark: SparkSession,
    table: RawTable,
    fields: DataFrame,
    movies: DataFrame | None,
    lost: DataFrame | None,
    settings: Settings,
    codes: Codes,
    record: RunRecord,
) -> Checked:
    """The ratings of a table, checked: in blocks where most lines are plain, else by the rules for rows (`fields`)."""
    today = datetime.now(UTC).date()
    if files := plain_files(table, settings, codes, today):
        sizes = {noted["path"]: noted["bytes"] for noted in record.inputs if "bytes" in noted}
        return check_plain_files(spark, table, files, sizes, movies, lost, settings, today)
    rows = clean.checked_ratings(fields, movies, settings.input, settings.clean, today, codes, lost)
    return Checked.of_rows(rows, RATING_COLUMNS, has_marks=rules.has_marks(settings.input))


def _columns_of_texts(judged: _Judged, settings: Settings, record: RunRecord) -> frozenset[str]:
    """The columns, of userId and movieId, that were judged as integers and hold texts that are ids.

    A text is no reason to give codes where it is a broken integer. For a user, or where there is no table of movies,
    the number of such rows tells (`are_ids`). A movie is one that is both listed and rated. Reads the lines again, but
    only where some ids were rejected.
    """
    names = {"userId": settings.input.user, "movieId": settings.input.item}
    found = set()
    for column, name in names.items():
        reason = rules.not_an_integer(name)
        is_in_both = column == "movieId" and "movies" in judged.checked
        sources = ("movies", "ratings") if is_in_both else ("ratings",)
        if not all(table in judged.fields and reason in record.rejects[table] for table in sources):
            continue
        texts = [texts_in(judged.fields[table], column) for table in sources]
        if is_in_both:
            is_found = not texts[0].join(texts[1], on="id", how="left_semi").isEmpty()
        else:
            is_found = are_ids(texts[0].count(), record.rows["ratings"]["in"])
        if is_found:
            logger.info('%s: some ids are no integers: they get codes; input.ids = "integer" rejects them', name)
            found.add(column)
    return frozenset(found)


def _note_lines(record: RunRecord, table: str, checked: Checked) -> None:
    """Note how many lines of a table there are, and how many are rejected for which reason."""
    record.rows[table] = {"in": checked.lines, "rejected": checked.rejected_lines}
    record.rejects[table] = dict(checked.rejects)


def _note_kept(record: RunRecord, table: str, checked: Checked) -> None:
    """Note and log how many good lines of a table are kept, and how many are superseded."""
    kept = checked.count_kept()
    record.rows[table] = {
        "in": checked.lines,
        "good": kept,
        "rejected": checked.rejected_lines,
        "superseded": checked.good_lines - kept,
    }
    if checked.unrated is not None:
        record.rows[table] |= {"unrated": checked.unrated_rows, "missing": checked.missing_lines}
    _log_rows(table, record.rows[table])


def _log_rejects(table: str, record: RunRecord, settings: Settings) -> None:
    for reason, count in record.rejects[table].items():
        logger.warning("%s: %s rejected: %s", table, f"{count:,}", _with_remedy(reason, settings))


def _with_remedy(reason: str, settings: Settings) -> str:
    """A reason, with the setting that would take such rows if there is one."""
    remedy = rules.remedy(reason, settings.input)
    return f"{reason} ({remedy})" if remedy else reason


def _log_rows(table: str, rows: Mapping[str, int]) -> None:
    parts = " + ".join(f"{count:,} {part}" for part, count in rows.items() if part != "in")
    logger.info("%s: %s rows in = %s", table, f"{rows['in']:,}", parts)


def _account_for_all(record: RunRecord, delivery: Delivery, good: int, unrated: int, settings: Settings) -> None:
    """Count the rows of all deliveries as `ratings`; the counts of this delivery alone move to `delivery`."""
    record.rows["delivery"] = record.rows.get("ratings", dict.fromkeys(("in", "good", "rejected", "superseded"), 0))
    delivered, missing = record.rows["delivery"]["in"], record.rows["delivery"].get("missing", 0)
    taken = delivery.then_taken(delivered, missing, record.rejects.get("ratings", {}), record.run_id)
    rejected = sum(taken.rejects.values())
    superseded = taken.rows - rejected - good - unrated - taken.missing
    record.rows["ratings"] = {"in": taken.rows, "good": good, "rejected": rejected, "superseded": superseded}
    if rules.has_marks(settings.input):
        record.rows["ratings"] |= {"unrated": unrated, "missing": taken.missing}
    record.rejects["ratings"] = dict(sorted(taken.rejects.items(), key=lambda item: -item[1]))
    _log_rows("ratings, all deliveries", record.rows["ratings"])


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


def _check_reject_share(
    record: RunRecord, checked: Mapping[str, Checked], zone: ProcessedZone, settings: Settings
) -> None:
    """Raise TooManyRejectsError if more than `clean.max_reject_share` of the rows of a table were rejected."""
    max_share = settings.clean.max_reject_share
    for table, rows in checked.items():
        share = rows.rejected_lines / rows.lines if rows.lines else 1.0
        if share > max_share:
            _note_all(record, checked)
            reason = _with_remedy(next(iter(rows.rejects), "there are no rows"), settings)
            raise TooManyRejectsError(
                f"{rows.rejected_lines:,} of {rows.lines:,} rows of {table} ({share:.1%}) were rejected, more than "
                f"clean.max_reject_share={max_share:g}; most often: {reason}. Only these rejects were published: "
                f"see {zone.table('rejects')} where run_id = '{record.run_id}'; {advice(settings.raw.path)}".rstrip(
                    "; "
                )
            )


def _check_lost_share(
    record: RunRecord, checked: Mapping[str, Checked], zone: ProcessedZone, settings: Settings
) -> None:
    """Raise TooManyRejectsError if more than `clean.max_lost_share` of the ratings were lost with their movies."""
    if "ratings" not in checked:
        return
    begin, rows = rules.lost_movie(settings.input), checked["ratings"].lines
    lost = {reason: count for reason, count in checked["ratings"].rejects.items() if reason.startswith(begin)}
    count = sum(lost.values())
    if count > settings.clean.max_lost_share * rows:
        _note_all(record, checked)
        raise TooManyRejectsError(
            f"{count:,} of {rows:,} rows of ratings ({count / rows:.1%}) are good but for their movie, more than "
            f"clean.max_lost_share={settings.clean.max_lost_share:g}; {_with_remedy(next(iter(lost)), settings)}. Mend "
            f"these lines of {settings.raw.movies}. Only the rejects were published: see {zone.table('rejects')} where "
            f"run_id = '{record.run_id}' and table = 'movies'"
        )


def _note_all(record: RunRecord, checked: Mapping[str, Checked]) -> None:
    """Note what would have been kept, for the manifest of a run that fails."""
    for table, rows in checked.items():
        _note_kept(record, table, rows)


def _warn_of_genres(movies: DataFrame, settings: Settings) -> None:
    """Log a warning where the genres seem to be divided by something else than the settings say."""
    configured = settings.input.genre_separator
    if settings.input.genres and (other := clean.other_separator(movies)):
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


def _publish_movies(movies: DataFrame, zone: ProcessedZone, record: RunRecord, made_from: Mapping[str, Any]) -> None:
    zone.overwrite(movies.orderBy("movieId"), "movies", made_from=made_from)
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
        zone.overwrite(checked.kept, "ratings", **note)
        checked.kept_rows = checked.kept_rows or zone.read(spark, "ratings").count()  # from the log of the table
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
    is_there = zone.has_table(spark, "unrated")
    if not settings.input.unrated_values and not is_there:
        return
    if pairs is None:
        pairs = spark.createDataFrame([], UNRATED)
    if delivery.taken is None or not is_there:
        zone.overwrite(pairs, "unrated")
    else:
        zone.append(pairs.join(zone.read(spark, "unrated"), on=list(KEYS), how="left_anti"), "unrated")
    record.note_output(zone.table("unrated"))
