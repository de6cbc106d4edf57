"""The `maintain` stage: removes what old runs left, merges small files and deletes old versions of tables."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow.compute as pc
from pyspark.sql import SparkSession

from spark_app.platform import s3, storage
from spark_app.platform.log import logger
from spark_app.platform.settings import Settings
from spark_app.zones.deliveries import read_taken
from spark_app.zones.manifest import RunRecord
from spark_app.zones.processed import MADE_BY, ProcessedZone
from spark_app.zones.stored_models import published_run


def run(spark: SparkSession, settings: Settings, record: RunRecord) -> None:
    """Remove the files of old runs, compact every Delta table, and remove versions older than `storage.history_days`.

    Published results do not change. Unfinished uploads of killed runs are aborted too: S3 charges for them until then.
    """
    zone = ProcessedZone(settings.processed.path)
    forget_old_runs(spark, settings, record)
    for name in MADE_BY:
        if zone.has_table(name):
            zone.compact(spark, name, settings.storage.history_days)
            record.note_output(zone.table(name))
    if s3.is_s3(zone.root) and (given_up := s3.give_up_uploads(zone.root)):
        logger.info("aborted %d unfinished uploads to S3", given_up)


def forget_old_runs(spark: SparkSession, settings: Settings, record: RunRecord) -> None:
    """Remove models, reports and rejects of old runs; of each, the newest `storage.keep_runs` runs keep theirs.

    What is published stays, however old it is: the models that `recommend` takes, and the rejects of the deliveries
    that the table of ratings is made of. Manifests are small, and stay.
    """
    zone, keep_runs = ProcessedZone(settings.processed.path), settings.storage.keep_runs
    models = _older(storage.list_folders(zone.models), keep_runs, {published_run(zone)})
    reports = _older(storage.list_files(zone.reports), keep_runs)
    for path in (*models, *reports):
        storage.remove(path)
    rejects = _forget_rejects(spark, zone, keep_runs)
    if models or reports or rejects:
        record.rows["forgotten"] = {"models": len(models), "reports": len(reports), "rejects": rejects}
        logger.info(
            "removed the models of %d runs, the reports of %d and the rejects of %d: storage.keep_runs=%d",
            len(models),
            len(reports),
            rejects,
            keep_runs,
        )


def _older(paths: list[str], keep_runs: int, kept: Collection[str | None] = ()) -> list[str]:
    """All paths except the newest `keep_runs` and those named in `kept`. A path is named after its run.

    The ids of runs begin with the time.
    """
    return [path for path in sorted(paths)[:-keep_runs] if storage.name_of(path) not in kept]


def _forget_rejects(spark: SparkSession, zone: ProcessedZone, keep_runs: int) -> int:
    """Delete the rejects of old runs in one commit; returns the number of these runs."""
    if not zone.has_table("rejects"):
        return 0
    batches = zone.dataset("rejects").scanner(columns=["run_id"]).to_batches()
    runs = sorted({run for batch in batches for run in pc.unique(batch["run_id"]).to_pylist()})
    if len(runs) <= keep_runs:
        return 0
    taken = read_taken(zone)
    if taken is None and zone.has_table("ratings"):
        return 0  # restored by hand: only the next etl knows whose rejects belong to it
    old = _older(runs, keep_runs, taken.runs if taken else ())
    if old:
        zone.delete_rejects(spark, old)
    return len(old)
