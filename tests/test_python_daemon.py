"""Python workers have their imports when they are forked, and end quietly when Spark ends."""

from __future__ import annotations

import gc
import os
import sys
import zipimport
from typing import Any

import pytest
from pyspark import SparkConf
from pyspark.sql import SparkSession

from spark_app import python_daemon
from spark_app.platform.session import DAEMON, SHORT_TRACES, daemon_settings

LOADED = {
    "numpy",
    "pandas",
    "pyarrow",
    "spark_app.data.features",
    "spark_app.model.lists",
    "spark_app.zones.plain_ratings",
}


def test_workers_have_what_they_need_before_a_task_and_out_of_the_way_of_the_collector(spark: SparkSession) -> None:
    def seen(_: int) -> tuple[int, set[str], bool]:
        before = zipimport.zipimporter.invalidate_caches.__qualname__
        return gc.get_freeze_count(), LOADED & set(sys.modules), "_read_once" in before

    assert spark.conf.get("spark.python.daemon.module") == "spark_app.python_daemon"
    ((frozen, loaded, reads_once),) = spark.sparkContext.parallelize([0], 1).map(seen).collect()
    assert frozen > 10_000
    assert loaded == LOADED
    assert reads_once


def test_a_worker_whose_spark_has_stopped_ends_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)

    def cut_off(connection: Any, authenticated: bool) -> int:
        raise connection

    worker = python_daemon._end_quietly(cut_off)
    for error in (BrokenPipeError(), ConnectionResetError()):
        worker(error, False)
    assert ended == [0, 0]
    with pytest.raises(ZeroDivisionError):
        worker(ZeroDivisionError(), False)


def test_a_worker_that_ends_well_says_how() -> None:
    assert python_daemon._end_quietly(lambda *_: 7)(None, True) == 7


@pytest.mark.parametrize(("python", "is_there"), [(sys.executable, True), ("/usr/bin/env", False)])
def test_it_is_named_where_it_starts_with_this_python(
    spark: SparkSession, python: str, is_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYSPARK_PYTHON", python)
    assert (daemon_settings() == {"spark.python.daemon.module": DAEMON, SHORT_TRACES: "false"}) == is_there


def test_a_cluster_has_spark_s_own(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SparkConf, "get", lambda *_: "spark://somewhere:7077")
    assert daemon_settings() == {}
