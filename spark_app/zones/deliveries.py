"""Which raw files the ratings table has taken, and whether new files can be added or all files must be read again.

Taken files are identified by their checksums. The Delta commit that takes files carries a note that lists them, so the
rows and the note of their origin appear in one step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from spark_app.data import rules
from spark_app.platform.log import logger
from spark_app.platform.settings import Settings
from spark_app.zones.processed import ProcessedZone
from spark_app.zones.raw import RawTable


@dataclass(frozen=True)
class Taken:
    """What the ratings table has taken: paths by SHA-256, a digest of the rules, rows delivered, rejects by reason.

    `missing` is how many of the rows had no rating, which is no reject.

    `runs` are the runs that took it; the table of rejects has the rows that they rejected.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    rules: str = ""
    rows: int = 0
    rejects: Mapping[str, int] = field(default_factory=dict)
    runs: Sequence[str] = ()
    missing: int = 0

    def with_delivery(
        self, files: Mapping[str, str], rules: str, rows: int, missing: int, rejects: Mapping[str, int], run_id: str
    ) -> Taken:
        """What is taken after a further delivery."""
        reasons = {**self.rejects, **rejects}
        added = {reason: self.rejects.get(reason, 0) + rejects.get(reason, 0) for reason in reasons}
        return Taken(
            {**self.files, **files}, rules, self.rows + rows, added, [*self.runs, run_id], self.missing + missing
        )

    def as_note(self) -> dict[str, Any]:
        """The values for the note of a commit."""
        return {
            "files": dict(self.files),
            "rules": self.rules,
            "rows": self.rows,
            "rejects": dict(self.rejects),
            "runs": list(self.runs),
            "missing": self.missing,
        }


@dataclass(frozen=True)
class Delivery:
    """What an etl takes: the files of `table`. `files` has their paths by checksum, `taken` what was taken before.

    If `taken` is None, the table of ratings is made anew and `table` has every file.
    """

    table: RawTable
    files: Mapping[str, str]
    rules: str
    taken: Taken | None = None

    @property
    def is_new(self) -> bool:
        """Whether there is any file to take."""
        return bool(self.table.files)

    def then_taken(self, rows: int, missing: int, rejects: Mapping[str, int], run_id: str) -> Taken:
        """What the table has taken once these rows of the delivery are in, of which `missing` have no rating."""
        return (self.taken or Taken()).with_delivery(self.files, self.rules, rows, missing, rejects, run_id)


def find_delivery(
    zone: ProcessedZone,
    settings: Settings,
    ratings: RawTable,
    coded: Collection[str],
) -> tuple[Delivery, Delivery]:
    """A delivery of the files that the ratings table has not taken, and a delivery of all files of the raw zone.

    `ratings` has the checksums of its files. `coded` names the columns, of userId and movieId, that need codes.

    Both deliveries are the same if the table must be made anew: there is none, a file that it took is gone, or the
    rules have changed, so that rows taken before might now be judged differently.
    """
    ratings = _without_copies(ratings)
    files = {file.sha256: file.path for file in ratings.files}
    all_files = Delivery(ratings, files, digest(settings, coded))
    taken = read_taken(zone) if settings.input.take == "new" else None
    if taken is None:
        return all_files, all_files
    new_files = {checksum: path for checksum, path in files.items() if checksum not in taken.files}
    if reason := _why_anew(taken, all_files, new_files, settings):
        logger.info("ratings: all files are read again, since %s", reason)
        return all_files, all_files
    table = replace(ratings, files=[file for file in ratings.files if file.path in new_files.values()])
    logger.info("ratings: %d of %d files are new", len(new_files), len(files))
    return Delivery(table, new_files, all_files.rules, taken), all_files


def has_taken_all(taken: Taken, ratings: RawTable, settings: Settings, coded: Collection[str]) -> bool:
    """Whether the ratings table has taken these files and no others, by the rules of today."""
    files = {file.sha256 for file in ratings.files}
    return settings.input.take == "new" and files == set(taken.files) and taken.rules == digest(settings, coded)


def why_movies_need_all(
    spark: SparkSession, zone: ProcessedZone, delivery: Delivery, movies: DataFrame, settings: Settings
) -> str | None:
    """Why ratings taken before might be judged differently with these movies(movieId); None if they would not."""
    if delivery.taken is None or not zone.has_table("movies"):
        return None
    before, now = zone.read(spark, "movies").select("movieId"), movies.select("movieId")
    if not before.join(now, on="movieId", how="left_anti").isEmpty():
        return "movies are no longer listed"
    begins = (rules.unknown_movie(settings.input), rules.lost_movie(settings.input))
    had_unknown_movies = any(reason.startswith(begins) for reason in delivery.taken.rejects)
    if had_unknown_movies and not now.join(before, on="movieId", how="left_anti").isEmpty():
        return "ratings were rejected for movies that were not listed, and more are listed now"
    return None


def _why_anew(taken: Taken, all_files: Delivery, new_files: Mapping[str, str], settings: Settings) -> str | None:
    if taken.rules != all_files.rules:
        return "settings of [input] or [clean], the type of ids, or the rules of this version have changed"
    gone = [path for checksum, path in taken.files.items() if checksum not in all_files.files]
    if gone:
        return f"{gone[0]} was taken before and is gone or changed"
    # Without timestamps the last delivered rating is kept, in the order of file names: new files must come last.
    known = [path for checksum, path in all_files.files.items() if checksum not in new_files]
    if (
        new_files
        and not settings.input.timestamp
        and settings.input.feedback == "ratings"
        and min(new_files.values()) < max(known)
    ):
        return f"{min(new_files.values())} comes before files that were taken, and ratings have no timestamps"
    return None


def _without_copies(table: RawTable) -> RawTable:
    """The table without copies: of several files with the same content, only the first is taken."""
    first: dict[str, str] = {}
    for file in table.files:
        original = first.setdefault(file.sha256, file.path)
        if original != file.path:
            logger.warning("%s is a copy of %s and is skipped", file.path, original)
    return replace(table, files=[file for file in table.files if file.path in first.values()])


def digest(settings: Settings, coded: Collection[str]) -> str:
    """Digest of everything that decides whether a row is accepted and which values it gets."""
    judged_by = {
        "rules": rules.RULES_VERSION,
        "input": settings.input.model_dump(mode="json", exclude=rules.NOT_JUDGING["input"]),
        "ratings_file": settings.ratings_file.model_dump(mode="json"),
        "clean": settings.clean.model_dump(mode="json", exclude=rules.NOT_JUDGING["clean"]),
        "movies": bool(settings.raw.movies),
        "coded": sorted(coded),
    }
    return hashlib.sha256(json.dumps(judged_by, sort_keys=True).encode()).hexdigest()


def read_taken(zone: ProcessedZone) -> Taken | None:
    """What the ratings table has taken, from the note of the latest commit that changed its rows, read without Spark.

    None if there is no table, or if a writer other than `etl` made that commit.
    """
    change = zone.last_change("ratings")
    if change is None:
        return None
    facts: dict[str, Any] = {key.name: change.note[key.name] for key in fields(Taken) if key.name in change.note}
    if not {"files", "rules"} <= facts.keys():
        logger.info("ratings: all files are read again, since the last %s was not by etl", change.operation)
        return None
    return Taken(**facts)
