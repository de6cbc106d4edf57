"""The jobs: each stage alone, and all of them in one session."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from pyspark.sql import SparkSession

from spark_app.platform.errors import GateError
from spark_app.platform.log import logger
from spark_app.platform.settings import Settings
from spark_app.stages import catalog, etl, explore, ingest, maintain, recommend, report, summary, train
from spark_app.zones.manifest import NOTHING_NEW, RunRecord
from spark_app.zones.processed import ProcessedZone

REPORT = "report"
"""Name of the step that writes the report, among the stages in a manifest."""

StageFunction = Callable[[SparkSession, Settings, RunRecord], None]

IsCurrent = Callable[[Settings, RunRecord], bool]
"""Whether everything that a job would write is there already; found out without Spark."""


@dataclass(frozen=True)
class Job:
    """What an entry point runs, which roots it needs, and whether it registers tables in a catalogue.

    A job that `is_current` is done before Spark starts.
    """

    name: str
    purpose: str
    run: StageFunction
    needs_raw: bool = True
    needs_processed: bool = True
    catalogued: bool = False
    is_current: IsCurrent | None = None


def _run_all(spark: SparkSession, settings: Settings, record: RunRecord) -> None:
    with _reporting_failed_gate(settings, record):
        for stage in STAGES:
            stage.run(spark, settings, record)
    # The stage `catalog` ran before these tables existed, so they are registered here.
    with record.stage("catalog of results"):
        record.outputs.extend(catalog.register_processed(spark, ProcessedZone(settings.processed.path)))
    with record.stage(REPORT):
        report.write(settings, record)
    maintain.forget_old_runs(spark, settings, record)
    summary.show(settings, record)


@contextlib.contextmanager
def _reporting_failed_gate(settings: Settings, record: RunRecord) -> Iterator[None]:
    """Write the report of a run whose models fail their gate in the block."""
    try:
        yield
    except GateError as failed:
        try:
            with record.stage(REPORT):
                report.write(settings, record, "failed", str(failed))
        except Exception:
            # The error to report is the failed gate, even if the report cannot be written.
            logger.exception("the report could not be written")
        raise


def _reporting(stage: Job, *, only_failed_gate: bool = False) -> Job:
    """A stage as a job that leaves a report. In a pipeline, one report at the end covers all stages."""

    def run_and_report(spark: SparkSession, settings: Settings, record: RunRecord) -> None:
        with _reporting_failed_gate(settings, record):
            stage.run(spark, settings, record)
        if not (only_failed_gate or record.is_nothing_new):
            with record.stage(REPORT):
                report.write(settings, record)

    return replace(stage, run=run_and_report)


def _stage(
    name: str,
    purpose: str,
    function: StageFunction,
    *,
    raw: bool = True,
    processed: bool = True,
    catalogued: bool = False,
    is_current: IsCurrent | None = None,
) -> Job:
    """A stage as a job of its own, which logs its start and end and records its duration. If it is current, it ends."""

    def timed(spark: SparkSession, settings: Settings, record: RunRecord) -> None:
        with record.stage(name) as stage:
            if is_current and is_current(settings, record):
                stage.status = NOTHING_NEW
            else:
                function(spark, settings, record)

    return Job(
        name, purpose, timed, needs_raw=raw, needs_processed=processed, catalogued=catalogued, is_current=is_current
    )


def _all_is_current(settings: Settings, record: RunRecord) -> bool:
    """Whether every stage is current. Only a run that fetches files finds out whether its source has new ones."""
    return (
        not settings.ingest.source
        and settings.train.when == "new"
        and not catalog.is_owed(settings)
        and all(stage.is_current(settings, record) for stage in STAGES if stage.is_current)
    )


EXPLORE = _stage(
    "explore",
    "delta/ratings -> features of users and movies, a profile, a report.",
    explore.run,
    raw=False,
    is_current=explore.is_current,
)

TRAIN = _stage(
    "train", "delta/ratings -> models that beat their baselines.", train.run, raw=False, is_current=train.is_current
)

RECOMMEND = _stage(
    "recommend",
    "Models -> delta/recommendations and the CSV.",
    recommend.run,
    raw=False,
    is_current=recommend.is_current,
)

STAGES = (
    _stage("ingest", "A download, a folder, a zip or the generator -> raw zone.", ingest.run, processed=False),
    _stage("catalog", "Files of both zones -> tables by name for Spark SQL.", catalog.run, catalogued=True),
    _stage(
        "etl",
        "Raw zone -> delta/ratings, movies, movie_stats, rejects, and final/.",
        etl.run,
        is_current=etl.is_current,
    ),
    EXPLORE,
    TRAIN,
    RECOMMEND,
)
"""Every stage, in an order in which each finds its inputs."""

PIPELINE = Job(
    "pipeline", "All stages, in order, in one Spark session.", _run_all, catalogued=True, is_current=_all_is_current
)


def _tune(spark: SparkSession, settings: Settings, record: RunRecord) -> None:
    from spark_app.stages import tune  # noqa: PLC0415 - Optuna takes a quarter of a second, which no other job needs

    tune.run(spark, settings, record)


TUNE = _stage("tune", "delta/ratings -> tuning/best.toml, settings for --config.", _tune, raw=False)

MAINTAIN = _stage(
    "maintain", "Processed zone -> the same zone, without the leftovers of old runs.", maintain.run, raw=False
)

REPORTING = (_reporting(EXPLORE), _reporting(TRAIN, only_failed_gate=True), _reporting(RECOMMEND))

JOBS = {job.name: job for job in (*STAGES, *REPORTING, PIPELINE, TUNE, MAINTAIN)}
