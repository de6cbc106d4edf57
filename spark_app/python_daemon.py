"""The daemon that forks Spark's Python workers on one machine: pyspark's own, without two costs of each task.

`session.daemon_settings` selects it. After each task a worker collects garbage, which walks through everything that
was ever imported. Before each task it makes Python read the directories of Spark's zip files again, which up to
Python 3.12 takes longer than many a task. This daemon imports what workers need once, before it forks them, and hides
that from the garbage collector. It reads the directories of zip files once.
"""

from __future__ import annotations

import gc
import os
import zipimport
from collections.abc import Callable
from typing import Any

import pandas as pd  # noqa: F401
from pyspark import daemon
from pyspark.sql.pandas import serializers  # noqa: F401

# The modules whose functions run in tasks.
from spark_app.data import features  # noqa: F401
from spark_app.model import evaluation, fits  # noqa: F401
from spark_app.platform import arrow_files  # noqa: F401
from spark_app.zones import plain_ratings  # noqa: F401


def _read_once() -> None:
    """Make Python keep the directories of zip files: Spark's zip files do not change while it runs."""
    zipimport.zipimporter.invalidate_caches = lambda self: None  # type: ignore[method-assign] # noqa: ARG005


def _end_quietly(worker: Callable[[Any, bool], int]) -> Callable[[Any, bool], int]:
    """Make a worker end without a stack trace where Spark has stopped and closed the socket during a message."""

    def ended(connection: Any, authenticated: bool) -> int:
        try:
            return worker(connection, authenticated)
        except (BrokenPipeError, ConnectionResetError):
            os._exit(0)

    return ended


if __name__ == "__main__":
    _read_once()
    daemon.worker = _end_quietly(daemon.worker)
    gc.collect()
    gc.freeze()
    daemon.manager()  # type: ignore[no-untyped-call]
