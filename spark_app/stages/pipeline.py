"""The jobs: each stage alone, and all of them in one session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from pyspark.sql import SparkSession

from spark_app.platform.errors import GateError
from spark_app.platform.log import logger
from spark_app.platform.settings import Settings
from spark_app.stages import catalog, etl, explore, ingest, maintain, recommend, report, summary, train, tune
from spark_app.zones.manifest import RunRecord
from spark_app.zones.processed import ProcessedZone

REPORT = "report"
"""Name of the step that writes the report, among the stages in a manifest."""

StageFunction = Callable[[SparkSession, Settings, RunRecord], None]


@dataclass(frozen=True)
class Job:
    """What an entry point runs, which roots it needs, and whether it registers tables in a catalogue."""

    name: str
    purpose: str
    run: StageFunction
    needs_raw: bool = True
    needs_processed: bool = True
    catalogued: bool = False


def _run_all(spark: SparkSession, settings: Settings, record: RunRecord) -> None:
    try:
        for stage in STAGES:
            stage.run(spark, settings, record)
    except GateError as failed:
        try:
            with record.stage(REPORT):
                report.write(settings, record, "failed", str(failed))
        except Exception:
            # The error to report is the failed gate, even if the report cannot be written.
            logger.exception("the report could not be written")
        raise
    # The stage `catalog` ran before these tables existed, so they are registered here.
    with record.stage("catalog of results"):
        record.outputs.extend(catalog.register_processed(spark, ProcessedZone(settings.processed.path)))
    with record.stage(REPORT):
        report.write(settings, record)
    maintain.forget_old_runs(spark, settings, record)
    summary.show(settings, record)


def _explore_and_report(spark: SparkSession, settings: Settings, record: RunRecord) -> None:
    """Run `explore` as a job of its own, with a report. In a pipeline, one report at the end covers all stages."""
    EXPLORE.run(spark, settings, record)
    with record.stage(REPORT):
        report.write(settings, record)


def _stage(
    name: str,
    purpose: str,
    function: StageFunction,
    *,
    raw: bool = True,
    processed: bool = True,
    catalogued: bool = False,
) -> Job:
    """A stage as a job of its own, which logs its start and end and records its duration."""

    def timed(spark: SparkSession, settings: Settings, record: RunRecord) -> None:
        with record.stage(name):
            function(spark, settings, record)

    return Job(name, purpose, timed, needs_raw=raw, needs_processed=processed, catalogued=catalogued)


EXPLORE = _stage(
    "explore", "delta/ratings -> features of users and movies, a profile, a report.", explore.run, raw=False
)

STAGES = (
    _stage("ingest", "A download, a folder, a zip or the generator -> raw zone.", ingest.run, processed=False),
    _stage("catalog", "Files of both zones -> tables by name for Spark SQL.", catalog.run, catalogued=True),
    _stage("etl", "Raw zone -> delta/ratings, movies, movie_stats, rejects, and final/.", etl.run),
    EXPLORE,
    _stage("train", "delta/ratings -> models that beat their baselines.", train.run, raw=False),
    _stage("recommend", "Models -> delta/recommendations and the CSV.", recommend.run, raw=False),
)
"""Every stage, in an order in which each finds its inputs."""

PIPELINE = Job("pipeline", "All stages, in order, in one Spark session.", _run_all, catalogued=True)

TUNE = _stage("tune", "delta/ratings -> tuning/best.toml, settings for --config.", tune.run, raw=False)

MAINTAIN = _stage(
    "maintain", "Processed zone -> the same zone, without the leftovers of old runs.", maintain.run, raw=False
)

JOBS = {job.name: job for job in (*STAGES, replace(EXPLORE, run=_explore_and_report), PIPELINE, TUNE, MAINTAIN)}
