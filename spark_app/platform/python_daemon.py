"""Where Spark forks its Python workers from on one machine: pyspark's daemon, with two costs of each task taken away.

`session.daemon_settings` names it. After each task a worker collects garbage, which walks through all that was ever
imported; and before each task it makes Python read the directory of Spark's zip files again, which up to Python 3.12
takes longer than many a task. Here what workers need is imported once, before they are forked, and kept out of the
garbage collector's way, and directories of zip files are read once.
"""

from __future__ import annotations

import gc
import os
import zipimport
from collections.abc import Callable
from typing import Any

import numpy as np  # noqa: F401
import pandas as pd  # noqa: F401
import pyarrow as pa  # noqa: F401
from pyspark import daemon
from pyspark.sql.pandas import serializers  # noqa: F401


def _read_once() -> None:
    """Have Python keep the directories of zip files: those of Spark do not change while it runs."""
    zipimport.zipimporter.invalidate_caches = lambda self: None  # type: ignore[method-assign] # noqa: ARG005


def _end_quietly(worker: Callable[[Any, bool], int]) -> Callable[[Any, bool], int]:
    """Have a worker end without a trace where Spark has stopped, and closed its socket, in the middle of a message."""

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
