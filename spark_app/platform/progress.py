"""Progress reports of a long call into Spark, which itself reports nothing until it is done."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from pyspark import StatusTracker
from pyspark.sql import SparkSession

from spark_app.platform.log import logger

POLL_SECONDS = 10.0
"""Seconds between two looks at Spark. A shorter call logs nothing."""

REPEAT_SECONDS = 60.0
"""Seconds after which the same step is logged again."""

GROUP = "spark.jobGroup.id"


class HalfSweeps:
    """Logs from time to time how far a fit is. The fit calls it after each half sweep."""

    def __init__(self, label: str, total: int, log_seconds: float = POLL_SECONDS) -> None:
        self.label = label
        self.total = total
        self.log_seconds = log_seconds
        self.started = self.logged_at = time.monotonic()

    def __call__(self, done: int, objective: float | None) -> None:
        """Log the half sweeps done, and the objective where it is known.

        Every half sweep is logged at the level `debug`. At `info`, two lines are at least `log_seconds` apart.
        """
        now = time.monotonic()
        is_due = now - self.logged_at >= self.log_seconds
        self.logged_at = now if is_due else self.logged_at
        logger.log(
            logging.INFO if is_due else logging.DEBUG,
            "%s: half sweep %d of %d, %s so far%s",
            *(self.label, done, self.total, format_duration(now - self.started)),
            "" if objective is None else f", objective {objective:.6g}",
        )


@dataclass(frozen=True)
class Steps:
    """The repeated steps of a call. Each step runs `parts` Spark stages whose names begin with `stage`."""

    name: str
    total: int
    stage: str
    parts: int = 1

    def describe(self, finished_stages: int) -> str:
        """The current step of a call, as text, by how many of these stages it has finished."""
        step = min(-(-finished_stages // self.parts), self.total)
        return f"{self.name} {step} of {self.total}" if step else "preparing"


@contextlib.contextmanager
def progress(spark: SparkSession, label: str, steps: Steps, poll_seconds: float = POLL_SECONDS) -> Iterator[None]:
    """While the block runs, log from time to time its current step and its duration so far."""
    context = spark.sparkContext
    watch = _Watch(context.statusTracker(), context.getLocalProperty(GROUP), steps.stage)
    ended = threading.Event()
    thread = threading.Thread(
        target=_log_steps, args=(watch, label, steps, poll_seconds, ended), name=label, daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=POLL_SECONDS)


@contextlib.contextmanager
def announced(step: str, repeat_seconds: float = REPEAT_SECONDS) -> Iterator[None]:
    """Log a step when the block begins, and again from time to time, with its duration so far."""
    logger.info(step)
    ended, started = threading.Event(), time.monotonic()

    def repeat() -> None:
        while not ended.wait(repeat_seconds):
            logger.info("%s: %s so far", step, format_duration(time.monotonic() - started))

    thread = threading.Thread(target=repeat, name=step, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _log_steps(watch: _Watch, label: str, steps: Steps, poll_seconds: float, ended: threading.Event) -> None:
    started, logged_step, logged_at = time.monotonic(), "", 0.0
    try:
        while not ended.wait(poll_seconds):
            step, now = steps.describe(watch.finished_stages()), time.monotonic()
            if step != logged_step or now - logged_at >= REPEAT_SECONDS:
                logger.info("%s: %s, %s so far", label, step, format_duration(now - started))
                logged_step, logged_at = step, now
    except Exception:
        # Progress reporting must never make the call fail.
        logger.debug("%s: its progress is unavailable", label, exc_info=True)


@dataclass
class _Watch:
    """Counts the stages of one name that finish after it is made, in the jobs of one group (None: jobs of no group).

    A stage that runs again because an executor was lost is counted again.
    """

    tracker: StatusTracker
    group: str | None
    stage: str
    counted: int = 0
    ended_jobs: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.ended_jobs.update(self.tracker.getJobIdsForGroup(self.group))

    def finished_stages(self) -> int:
        """The number of stages finished so far. Jobs that have ended are not looked at again."""
        running = 0
        for job in set(self.tracker.getJobIdsForGroup(self.group)) - self.ended_jobs:
            info = self.tracker.getJobInfo(job)
            if info is None:
                continue
            finished = sum(self._is_finished(stage) for stage in info.stageIds)
            if info.status == "RUNNING":
                running += finished
            else:
                self.counted += finished
                self.ended_jobs.add(job)
        return self.counted + running

    def _is_finished(self, stage: int) -> bool:
        info = self.tracker.getStageInfo(stage)
        return info is not None and info.name.startswith(self.stage) and 0 < info.numTasks == info.numCompletedTasks


def format_duration(seconds: float) -> str:
    """A duration as text for people: `50 s`, `2 min 10 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
