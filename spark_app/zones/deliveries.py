"""Which raw files the ratings table has taken, and whether what is new can be added to it or all has to be read again.

Taken files are known by their checksums. What was taken is written into the Delta commit that took it, so the rows and
the note of where they are from appear in one step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from spark_app.data import rules
from spark_app.platform.log import logger
from spark_app.platform.settings import Settings
from spark_app.zones.processed import ProcessedZone
from spark_app.zones.raw import RawTable

NEUTRAL = frozenset({"OPTIMIZE", "VACUUM START", "VACUUM END", "SET TBLPROPERTIES", "UNSET TBLPROPERTIES"})
"""Operations of Delta that leave the rows of a table as they are."""


NO_MATTER = {"input": {"take"}, "clean": {"max_reject_share", "damping"}}
"""The settings of [input] and [clean] that do not decide how a row is judged; any other one does, a new one too."""


@dataclass(frozen=True)
class Taken:
    """What the ratings table has taken: paths by SHA-256, a digest of the rules, rows delivered, rejects by reason.

    `runs` are those that took it: the table of rejects has what they turned away.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    rules: str = ""
    rows: int = 0
    rejects: Mapping[str, int] = field(default_factory=dict)
    runs: Sequence[str] = ()

    def and_also(
        self, files: Mapping[str, str], rules: str, rows: int, rejects: Mapping[str, int], run_id: str
    ) -> Taken:
        """What is taken with a further delivery."""
        reasons = {**self.rejects, **rejects}
        added = {reason: self.rejects.get(reason, 0) + rejects.get(reason, 0) for reason in reasons}
        return Taken({**self.files, **files}, rules, self.rows + rows, added, [*self.runs, run_id])

    def to_json(self) -> str:
        """The text that a commit carries."""
        return json.dumps(
            {
                "files": dict(self.files),
                "rules": self.rules,
                "rows": self.rows,
                "rejects": dict(self.rejects),
                "runs": list(self.runs),
            }
        )


@dataclass(frozen=True)
class Delivery:
    """What an etl takes: the files of `table`, by checksum in `files`, beside what was `taken` before.

    Where `taken` is None the table of ratings is made anew, and `table` has every file.
    """

    table: RawTable
    files: Mapping[str, str]
    rules: str
    taken: Taken | None = None

    @property
    def is_new(self) -> bool:
        """Whether there is any file to take."""
        return bool(self.table.files)

    def then_taken(self, rows: int, rejects: Mapping[str, int], run_id: str) -> Taken:
        """What the table has taken once these rows of the delivery are in."""
        return (self.taken or Taken()).and_also(self.files, self.rules, rows, rejects, run_id)


def find_delivery(
    spark: SparkSession,
    zone: ProcessedZone,
    settings: Settings,
    ratings: RawTable,
    checksums: Mapping[str, str],
    coded: Collection[str],
) -> tuple[Delivery, Delivery]:
    """The files of the raw zone that the ratings table has not taken, and all of them; `checksums` are by path.

    `coded` are those of userId and movieId that need codes.

    The two are the same where the table has to be made anew: where there is none, a file that it has taken is gone, or
    the rules have changed, so that rows taken before might now be judged otherwise.
    """
    ratings = _without_copies(ratings, checksums)
    files = {checksums[file.path]: file.path for file in ratings.files}
    everything = Delivery(ratings, files, _digest(settings, coded))
    taken = read_taken(spark, zone) if settings.input.take == "new" else None
    if taken is None:
        return everything, everything
    new = {checksum: path for checksum, path in files.items() if checksum not in taken.files}
    if why := _why_anew(taken, everything, new, settings):
        logger.info("ratings: all files are read again, since %s", why)
        return everything, everything
    table = replace(ratings, files=[file for file in ratings.files if file.path in new.values()])
    logger.info("ratings: %d of %d files are new", len(new), len(files))
    return Delivery(table, new, everything.rules, taken), everything


def why_movies_need_all(
    spark: SparkSession, zone: ProcessedZone, delivery: Delivery, movies: DataFrame, settings: Settings
) -> str | None:
    """Why ratings taken before might be judged otherwise beside these movies(movieId); None where they would not be."""
    if delivery.taken is None or not zone.has_table(spark, "movies"):
        return None
    before, now = zone.read(spark, "movies").select("movieId"), movies.select("movieId")
    if not before.join(now, on="movieId", how="left_anti").isEmpty():
        return "movies are no longer listed"
    was_turned_away = rules.unknown_movie(settings.input) in delivery.taken.rejects
    if was_turned_away and not now.join(before, on="movieId", how="left_anti").isEmpty():
        return "ratings were rejected for movies that were not listed, and more are listed now"
    return None


def _why_anew(taken: Taken, everything: Delivery, new: Mapping[str, str], settings: Settings) -> str | None:
    if taken.rules != everything.rules:
        return "settings of [input] or [clean], the kind of ids, or the rules of this version have changed"
    gone = [path for checksum, path in taken.files.items() if checksum not in everything.files]
    if gone:
        return f"{gone[0]} was taken before and is gone or changed"
    # Without times the last delivered counts: by name, so a new file has to come after those that were taken.
    known = [path for checksum, path in everything.files.items() if checksum not in new]
    if new and not settings.input.timestamp and settings.input.feedback == "ratings" and min(new.values()) < max(known):
        return f"{min(new.values())} comes before files that were taken, and there are no times to go by"
    return None


def _without_copies(table: RawTable, checksums: Mapping[str, str]) -> RawTable:
    """The files of a table, each content once: a file that was delivered twice is not taken twice."""
    first: dict[str, str] = {}
    for file in table.files:
        original = first.setdefault(checksums[file.path], file.path)
        if original != file.path:
            logger.warning("%s is a copy of %s and is passed over", file.path, original)
    return replace(table, files=[file for file in table.files if file.path in first.values()])


def _digest(settings: Settings, coded: Collection[str]) -> str:
    """Digest of everything that decides whether a row is accepted, and as what."""
    judged_by = {
        "rules": rules.RULES_VERSION,
        "input": settings.input.model_dump(mode="json", exclude=NO_MATTER["input"]),
        "clean": settings.clean.model_dump(mode="json", exclude=NO_MATTER["clean"]),
        "movies": bool(settings.raw.movies),
        "coded": sorted(coded),
    }
    return hashlib.sha256(json.dumps(judged_by, sort_keys=True).encode()).hexdigest()


def read_taken(spark: SparkSession, zone: ProcessedZone) -> Taken | None:
    """What the latest commit that changed the rows says; None where there is no table, or another hand changed it."""
    if not zone.has_table(spark, "ratings"):
        return None
    history = DeltaTable.forPath(spark, zone.table("ratings")).history().select("operation", "userMetadata")
    for commit in history.collect():
        if commit["operation"] not in NEUTRAL:
            noted = _from_json(commit["userMetadata"])
            if noted is None:
                logger.info("ratings: all files are read again, since the last %s was not by etl", commit["operation"])
            return noted
    return None


def _from_json(text: str | None) -> Taken | None:
    try:
        facts: dict[str, Any] = json.loads(text or "")
        return Taken(**facts)
    except (ValueError, TypeError):
        return None
