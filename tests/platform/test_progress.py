"""The progress of a real call into Spark: what is logged, and that the watcher neither breaks nor outlives the call."""

from __future__ import annotations

import logging
import threading
import time
from types import SimpleNamespace

import pytest
from pyspark import StatusTracker
from pyspark.sql import SparkSession

from spark_app.platform.log import logger
from spark_app.platform.progress import GROUP, HalfSweeps, Steps, announced, format_duration, progress

LABEL = "counting"
COUNTS = Steps("count", 3, "count at", parts=2)


def count(spark: SparkSession, times: int) -> None:
    """Run stages named `count at`, each in a job of its own, and give the watcher time to see each."""
    for _ in range(times):
        assert spark.sparkContext.parallelize(range(4), 2).map(lambda _: time.sleep(0.05)).count() == 4
        time.sleep(0.25)


def wait_for_the_first_look(said: list[str]) -> None:
    """The watcher is a thread: on a busy machine it may begin after the first stages."""
    deadline = time.monotonic() + 10
    while not said and time.monotonic() < deadline:
        time.sleep(0.01)


def is_watched() -> bool:
    return any(thread.name == LABEL for thread in threading.enumerate())


def places(said: list[str]) -> list[str]:
    return [message.removeprefix(f"{LABEL}: ").partition(",")[0] for message in said]


def test_each_step_is_said_once_and_the_watcher_ends(spark: SparkSession, said: list[str]) -> None:
    count(spark, 2)  # stages before the block are not counted
    with progress(spark, LABEL, COUNTS, poll_seconds=0.03):
        assert is_watched()
        wait_for_the_first_look(said)
        count(spark, 6)
    assert not is_watched()
    assert places(said) == ["preparing", "count 1 of 3", "count 2 of 3", "count 3 of 3"]
    assert all(message.endswith(" s so far") for message in said)


def test_jobs_of_a_group_are_watched_and_others_are_not(spark: SparkSession, said: list[str]) -> None:
    spark.sparkContext.setJobGroup("somebody's", "a group that was set before")
    try:
        with progress(spark, LABEL, COUNTS, poll_seconds=0.03):
            wait_for_the_first_look(said)
            count(spark, 1)
            spark.sparkContext.setLocalProperty(GROUP, "another")
            count(spark, 3)
    finally:
        spark.sparkContext._jsc.clearJobGroup()
    assert places(said) == ["preparing", "count 1 of 3"]


def test_what_stands_still_is_said_again_after_a_while(
    spark: SparkSession, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spark_app.platform.progress.REPEAT_SECONDS", 0.2)
    with progress(spark, LABEL, COUNTS, poll_seconds=0.02):
        time.sleep(1)
    assert 2 <= len(said) <= 6
    assert set(places(said)) == {"preparing"}


def test_a_short_call_says_nothing(spark: SparkSession, said: list[str]) -> None:
    with progress(spark, LABEL, COUNTS):
        count(spark, 1)
    assert not is_watched()
    assert said == []


def test_a_failed_call_fails_as_it_would_unwatched(spark: SparkSession) -> None:
    with pytest.raises(ZeroDivisionError), progress(spark, LABEL, COUNTS, poll_seconds=0.03):
        _ = 1 / 0
    assert not is_watched()


def test_a_watcher_that_fails_breaks_nothing(
    spark: SparkSession, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ConnectionError("no answer")

    with progress(spark, LABEL, COUNTS, poll_seconds=0.03):
        monkeypatch.setattr(StatusTracker, "getJobIdsForGroup", fail)
        time.sleep(0.3)
        assert not is_watched()
        count(spark, 1)
    assert said == [f"{LABEL}: its progress is unavailable"]


@pytest.mark.parametrize(
    ("stages", "step"),
    [(0, "preparing"), (1, "count 1 of 3"), (2, "count 1 of 3"), (3, "count 2 of 3"), (9, "count 3 of 3")],
)
def test_a_step_begins_with_the_first_of_its_stages_and_is_never_beyond_the_last(stages: int, step: str) -> None:
    assert COUNTS.describe(stages) == step


# Our own fits, which call HalfSweeps


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, which a test sets."""
    now = [100.0]
    monkeypatch.setattr("spark_app.platform.progress.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_half_sweeps_are_said_now_and_then_and_the_objective_where_it_is_known(
    clock: list[float], said: list[str]
) -> None:
    logger.setLevel(logging.INFO)
    half_sweeps = HalfSweeps("fitting explicit ALS", total=20, log_seconds=10)
    for done, seconds, objective in ((1, 4, None), (2, 6, 98765.4), (3, 3, None), (4, 1, 1234567.8), (5, 70, None)):
        clock[0] += seconds
        half_sweeps(done, objective)
    assert said == [
        "fitting explicit ALS: half sweep 2 of 20, 10 s so far, objective 98765.4",
        "fitting explicit ALS: half sweep 5 of 20, 1 min 24 s so far",
    ]


def test_at_the_level_debug_each_half_sweep_is_said(clock: list[float], said: list[str]) -> None:
    half_sweeps = HalfSweeps("fitting", total=4)
    half_sweeps(1, None)
    half_sweeps(2, 1234567.8)
    assert said == [
        "fitting: half sweep 1 of 4, 0 s so far",
        "fitting: half sweep 2 of 4, 0 s so far, objective 1.23457e+06",
    ]


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (130, "2 min 10 s")])
def test_durations_are_told_in_minutes_and_seconds(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_a_long_step_is_announced_and_says_that_it_goes_on(said: list[str]) -> None:
    with announced("judging", repeat_seconds=0.05):
        time.sleep(0.3)
    assert said[0] == "judging"
    assert "judging: 0 s so far" in said[1:]
    told = len(said)
    time.sleep(0.2)
    assert len(said) == told
