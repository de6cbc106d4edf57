"""The processed zone, tidied: what old runs have left, many small files made few, versions that nobody goes back to."""

from __future__ import annotations

from collections.abc import Collection

from delta.tables import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_app.platform import s3, storage
from spark_app.platform.log import logger
from spark_app.platform.settings import Settings
from spark_app.zones.deliveries import read_taken
from spark_app.zones.manifest import RunRecord
from spark_app.zones.processed import MADE_BY, ProcessedZone
from spark_app.zones.stored_models import published_run


def run(spark: SparkSession, settings: Settings, record: RunRecord) -> None:
    """Forget old runs, compact every Delta table, and remove versions older than `storage.history_days`.

    Results stay as they are. What a killed run has begun to upload to S3, which costs until it is given up, goes too.
    """
    zone = ProcessedZone(settings.processed.path)
    forget_old_runs(spark, settings, record)
    for name in MADE_BY:
        if zone.has_table(spark, name):
            zone.compact(spark, name, settings.storage.history_days)
            record.note_output(zone.table(name))
    if s3.is_s3(zone.root) and (given_up := s3.give_up_uploads(zone.root)):
        logger.info("%d uploads given up that were never completed", given_up)


def forget_old_runs(spark: SparkSession, settings: Settings, record: RunRecord) -> None:
    """Remove the models, reports and rejects of all runs but the last `storage.keep_runs` that have left some.

    What is published stays, however old it is: the models that `recommend` takes, and the rejects of the deliveries
    that the table of ratings is made of. Manifests are small, and stay.
    """
    zone, most = ProcessedZone(settings.processed.path), settings.storage.keep_runs
    models = _older(storage.list_folders(zone.models), most, {published_run(zone)})
    reports = _older(storage.list_files(zone.reports), most)
    for path in (*models, *reports):
        storage.remove(path)
    rejects = _forget_rejects(spark, zone, most)
    if models or reports or rejects:
        record.rows["forgotten"] = {"models": len(models), "reports": len(reports), "rejects": rejects}
        logger.info(
            "forgot the models of %d runs, the reports of %d and the rejects of %d: storage.keep_runs=%d",
            len(models),
            len(reports),
            rejects,
            most,
        )


def _older(paths: list[str], most: int, kept: Collection[str | None] = ()) -> list[str]:
    """All but the last so many of some paths that are named after their runs, whose names begin with the time."""
    return [path for path in sorted(paths)[:-most] if storage.name_of(path) not in kept]


def _forget_rejects(spark: SparkSession, zone: ProcessedZone, most: int) -> int:
    """Delete the rejects of old runs in one commit; returns of how many."""
    if not zone.has_table(spark, "rejects"):
        return 0
    runs = sorted(row["run_id"] for row in zone.read(spark, "rejects").select("run_id").distinct().collect())
    if len(runs) <= most:
        return 0
    taken = read_taken(spark, zone)
    if taken is None and zone.has_table(spark, "ratings"):
        return 0  # restored by hand: whose rejects count is not known until the next etl
    old = _older(runs, most, taken.runs if taken else ())
    if old:
        DeltaTable.forPath(spark, zone.table("rejects")).delete(F.col("run_id").isin(old))
    return len(old)
