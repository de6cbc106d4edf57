from __future__ import annotations

import gc
import sys

import pytest
from pyspark.sql import SparkSession

from spark_app.platform.python_daemon import _end_quietly


def test_workers_are_forked_from_the_daemon_that_has_imported_what_they_need(spark: SparkSession) -> None:
    def seen(_: int) -> tuple[bool, bool]:
        return gc.get_freeze_count() > 0, {"numpy", "pandas", "pyarrow"} <= sys.modules.keys()

    assert spark.sparkContext.parallelize([0], 1).map(seen).collect() == [(True, True)]


@pytest.mark.parametrize("error", [BrokenPipeError, ConnectionResetError])
def test_a_worker_whose_socket_was_closed_ends_without_a_trace(
    error: type[OSError], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr("os._exit", ended.append)

    def worker(connection: object, authenticated: bool) -> int:
        raise error

    _end_quietly(worker)(None, False)
    assert ended == [0]


def test_another_error_of_a_worker_is_its_own() -> None:
    def worker(connection: object, authenticated: bool) -> int:
        raise ValueError(authenticated)

    with pytest.raises(ValueError, match="True"):
        _end_quietly(worker)(None, True)
    assert _end_quietly(lambda _connection, _authenticated: 3)(None, True) == 3
