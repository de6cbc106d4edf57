"""A delivery whose rows are judged and counted, and not yet published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pyspark.sql import DataFrame, SparkSession

from spark_app.data import clean, rules
from spark_app.data.ids import Codes, are_ids
from spark_app.platform.log import logger
from spark_app.platform.session import set_for_now
from spark_app.platform.settings import Settings
from spark_app.zones.checked import Checked
from spark_app.zones.deliveries import Delivery, find_delivery, why_movies_need_all
from spark_app.zones.id_codes import coded_before, find_codes, texts_in
from spark_app.zones.manifest import RunRecord
from spark_app.zones.plain_ratings import check_plain_files, plain_files
from spark_app.zones.processed import ProcessedZone
from spark_app.zones.raw import RawTable, read_fields

MOVIE_COLUMNS = ("movieId", "title", "year", "genres")
RATING_COLUMNS = ("userId", "movieId", "rating", "timestamp")

PARTITIONS = "spark.sql.shuffle.partitions"

SMALL_BYTES = 32 * 2**20
"""The largest size of all files of movies that are checked in one partition: more tasks would only take time."""


@dataclass(frozen=True)
class Judged:
    """A delivery whose rows are judged and counted.

    `checked` has the judged rows of each table that is read, `movies` the kept movies (None if there is no table of
    them), `coded` the columns, of userId and movieId, that need codes.
    """

    delivery: Delivery
    checked: Mapping[str, Checked]
    movies: DataFrame | None
    new_codes: dict[str, DataFrame]
    coded: frozenset[str]

    def unpersist(self) -> None:
        """Free the memory of the rows."""
        for checked in self.checked.values():
            checked.unpersist()
        for codes in self.new_codes.values():
            codes.unpersist()


def judge(
    spark: SparkSession,
    zone: ProcessedZone,
    settings: Settings,
    record: RunRecord,
    tables: tuple[RawTable | None, RawTable],
) -> Judged:
    """Judge and count the rows of a delivery, and note in the record how many are rejected for which reason.

    Each file is parsed once. Only where ids turn out to be texts, although the first lines of the files have integers,
    everything is read again.
    """
    judged = _judge_once(spark, zone, settings, record, tables, columns_coded(zone, tables))
    while settings.input.ids == "auto" and (texts := _columns_of_texts(judged, settings, record)):
        judged.unpersist()
        judged = _judge_once(spark, zone, settings, record, tables, judged.coded | texts)
    return judged


def columns_coded(zone: ProcessedZone, tables: tuple[RawTable | None, RawTable]) -> frozenset[str]:
    """The columns, of userId and movieId, that need codes: for an earlier delivery, or for the first lines of this."""
    return coded_before(zone).union(*(table.coded for table in tables if table))


def _judge_once(
    spark: SparkSession,
    zone: ProcessedZone,
    settings: Settings,
    record: RunRecord,
    tables: tuple[RawTable | None, RawTable],
    coded: frozenset[str],
) -> Judged:
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
    sizes = {noted["path"]: noted["bytes"] for noted in record.inputs if "bytes" in noted}
    checked: dict[str, Checked] = {}
    movies = lost = None
    if movie_fields is not None:
        is_small = raw_movies is not None and sum(sizes[file.path] for file in raw_movies.files) <= SMALL_BYTES
        with set_for_now(spark, {PARTITIONS: "1"} if is_small else {}):
            rows = clean.checked_movies(movie_fields, settings.input, codes).persist()
            checked["movies"] = Checked.of_rows(rows, MOVIE_COLUMNS, fields=movie_fields)
        _note_lines(record, "movies", checked["movies"])
        lost = clean.lost_movies(rows) if record.rejects["movies"] else None
        movies = checked["movies"].kept
        if reason := why_movies_need_all(spark, zone, delivery, movies, settings):
            logger.info("ratings: all files are read again, since %s", reason)
            delivery, rating_fields = all_files, read_fields(spark, all_files.table)
    if rating_fields is not None:
        checked["ratings"] = _checked_ratings(
            spark, delivery.table, rating_fields, movies, lost, settings, codes, sizes
        )
        _note_lines(record, "ratings", checked["ratings"])
    return Judged(delivery, checked, movies, new_codes, coded)


def _checked_ratings(
    spark: SparkSession,
    table: RawTable,
    fields: DataFrame,
    movies: DataFrame | None,
    lost: DataFrame | None,
    settings: Settings,
    codes: Codes,
    sizes: Mapping[str, int],
) -> Checked:
    """The ratings of a table, checked: in blocks where most lines are plain, else by the rules for rows (`fields`).

    `sizes` are the bytes of files by path.
    """
    today = datetime.now(UTC).date()
    if files := plain_files(table, settings, codes, today):
        return check_plain_files(spark, table, files, sizes, movies, lost, settings, today)
    rows = clean.checked_ratings(fields, movies, settings.input, settings.clean, today, codes, lost)
    return Checked.of_rows(rows, RATING_COLUMNS, has_marks=rules.has_marks(settings.input), fields=fields)


def _columns_of_texts(judged: Judged, settings: Settings, record: RunRecord) -> frozenset[str]:
    """The columns, of userId and movieId, that were judged as integers and hold texts that are ids.

    A text is no reason to give codes where it is a broken integer. For a user, or where there is no table of movies,
    the number of such rows tells (`are_ids`). A movie is one that is both listed and rated. Reads the lines again,
    without those that are plain, but only where some ids were rejected.
    """
    names = {"userId": settings.input.user, "movieId": settings.input.item}
    found = set()
    for column, name in names.items():
        reason = rules.not_an_integer(name)
        is_in_both = column == "movieId" and "movies" in judged.checked
        sources = ("movies", "ratings") if is_in_both else ("ratings",)
        lines = [judged.checked[table].fields for table in sources if reason in record.rejects.get(table, {})]
        texts = [texts_in(fields, column) for fields in lines if fields is not None]
        if len(texts) < len(sources):
            continue
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
