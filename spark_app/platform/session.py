"""The Spark session, and Spark's failures in plain words. How Spark runs is decided by SPARK_CONF_DIR, not here."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from pyspark.sql import SparkSession

from spark_app.platform.errors import InputError, JobError, LockedError, StorageError, UsageError

DELTA_EXTENSION = "io.delta.sql.DeltaSparkSessionExtension"


@contextlib.contextmanager
def spark_session(app: str, *, catalogued: bool) -> Iterator[SparkSession]:
    """A session for one job, stopped at the end; one that was there before is used and left running.

    `catalogued` opens the metastore too, which takes seconds: for jobs that register tables.
    """
    existing = SparkSession.getActiveSession()
    builder = SparkSession.builder.appName(app)
    spark = (builder.enableHiveSupport() if catalogued else builder).getOrCreate()
    try:
        if DELTA_EXTENSION not in (spark.conf.get("spark.sql.extensions", "") or ""):
            raise UsageError(
                f"Spark runs without Delta Lake (SPARK_CONF_DIR={os.environ.get('SPARK_CONF_DIR', 'is not set')}): "
                "set SPARK_CONF_DIR to the folder conf/local of movie-reco, as an absolute path"
            )
        spark.sparkContext.setLogLevel("ERROR")
        yield spark
    finally:
        if existing is None:
            spark.stop()


def check_schemes(*roots: str) -> None:
    """Refuse roots that this configuration of Spark cannot reach, before anything runs."""
    for root in roots:
        try:
            scheme = urlsplit(root).scheme
        except ValueError as error:
            raise UsageError(f"{root} is neither a path nor a URI ({error})") from error
        if scheme not in ("", "file"):
            raise UsageError(f"{root}: this version reads and writes local paths only, not {scheme}://")


_KNOWN_FAILURES: tuple[tuple[str, type[JobError], str], ...] = (
    (r"No space left on device", StorageError, "the disk is full: free space and run again"),
    (
        r"Another instance of Derby",
        LockedError,
        "the metastore (metastore/db) is in use by another process: wait for it",
    ),
    (r"Unexpected end of input stream", InputError, "a compressed input is truncated: deliver it again"),
    (r"(AccessDenied|AccessControl)Exception|Permission denied", StorageError, "access was refused: check permissions"),
    (
        r"UnknownHostException|ConnectException",
        StorageError,
        "storage cannot be reached: check the address and network",
    ),
    (
        r"ModuleNotFoundError: No module named",
        UsageError,
        "the executors' Python lacks a module: give --py-files what `make package` makes, and spark.pyspark.python a "
        "Python with requirements/runtime.lock",
    ),
    (
        r"on a stopped SparkContext",
        JobError,
        "the cluster does not answer, or has ended the job: check --master, and that master and workers run",
    ),
    (r"Mkdirs failed|Not a directory", StorageError, "cannot create a folder: check the path and its permissions"),
)


def explain(error: Exception) -> JobError | None:
    """The plain words for a failure of Spark or of the system, or None where it is not one that is expected."""
    # Spark's own errors name the cause in their Java stack trace only.
    text = f"{error}\n{getattr(error, '_stackTrace', None) or ''}"
    for pattern, kind, advice in _KNOWN_FAILURES:
        if found := re.search(pattern, text):
            start, stop = text.rfind("\n", 0, found.start()) + 1, text.find("\n", found.end())
            line = text[start : stop if stop > 0 else len(text)].strip()
            return kind(f"{advice} ({line[:300]})")
    if isinstance(error, OSError):
        return StorageError(f"storage refused: {str(error)[:300]}; check the path and its permissions")
    return None
