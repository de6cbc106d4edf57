"""What a person sees of a long call into Spark, which says nothing until it is done."""

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

LOOK_EVERY = 10.0
"""Seconds between two looks at Spark; what is over before the first says nothing."""

SAY_EVERY = 60.0
"""Seconds after which a line is due although nothing has moved."""

GROUP = "spark.jobGroup.id"


class HalfSweeps:
    """Logs now and then how far a fit is, which calls it after each half sweep, and its objective after each sweep."""

    def __init__(self, what: str, total: int, say_every: float = LOOK_EVERY) -> None:
        self.what = what
        self.total = total
        self.say_every = say_every
        self.started = self.said_at = time.monotonic()

    def __call__(self, done: int, objective: float | None) -> None:
        """Say it where the last line is long enough ago; at the level `debug` each time."""
        now = time.monotonic()
        is_due = now - self.said_at >= self.say_every
        self.said_at = now if is_due else self.said_at
        logger.log(
            logging.INFO if is_due else logging.DEBUG,
            "%s: half sweep %d of %d, %s so far%s",
            *(self.what, done, self.total, as_time(now - self.started)),
            "" if objective is None else f", objective {objective:.6g}",
        )


@dataclass(frozen=True)
class Steps:
    """What a call does over and over, told by a stage of Spark that each step runs: once for each of its `parts`."""

    name: str
    total: int
    stage: str
    parts: int = 1

    def told(self, stages: int) -> str:
        """Where a call is that has finished so many of these stages."""
        step = min(-(-stages // self.parts), self.total)
        return f"{self.name} {step} of {self.total}" if step else "preparing"


@contextlib.contextmanager
def progress(spark: SparkSession, what: str, steps: Steps, look_every: float = LOOK_EVERY) -> Iterator[None]:
    """Log now and then, while the block runs, at which step it is and since when."""
    context = spark.sparkContext
    watch = _Watch(context.statusTracker(), context.getLocalProperty(GROUP), steps.stage)
    over = threading.Event()
    thread = threading.Thread(target=_tell, args=(watch, what, steps, look_every, over), name=what, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=LOOK_EVERY)


def _tell(watch: _Watch, what: str, steps: Steps, look_every: float, over: threading.Event) -> None:
    started, said, said_at = time.monotonic(), "", 0.0
    try:
        while not over.wait(look_every):
            where, now = steps.told(watch.finished_stages()), time.monotonic()
            if where != said or now - said_at >= SAY_EVERY:
                logger.info("%s: %s, %s so far", what, where, as_time(now - started))
                said, said_at = where, now
    except Exception:
        # To be watched is nothing that a call should fail of.
        logger.debug("%s: its progress cannot be told", what, exc_info=True)


@dataclass
class _Watch:
    """Counts the stages of one name that have been finished since it was made, in jobs of one group (None: of none).

    Stages that are run again after an executor was lost count again.
    """

    tracker: StatusTracker
    group: str | None
    stage: str
    counted: int = 0
    over: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.over.update(self.tracker.getJobIdsForGroup(self.group))

    def finished_stages(self) -> int:
        """How many there are by now; jobs that are over are not looked at again."""
        running = 0
        for job in set(self.tracker.getJobIdsForGroup(self.group)) - self.over:
            info = self.tracker.getJobInfo(job)
            if info is None:
                continue
            finished = sum(self._is_finished(stage) for stage in info.stageIds)
            if info.status == "RUNNING":
                running += finished
            else:
                self.counted += finished
                self.over.add(job)
        return self.counted + running

    def _is_finished(self, stage: int) -> bool:
        info = self.tracker.getStageInfo(stage)
        return info is not None and info.name.startswith(self.stage) and 0 < info.numTasks == info.numCompletedTasks


def as_time(seconds: float) -> str:
    """A duration for people: `50 s`, `2 min 10 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
