"""The Spark session, and Spark's failures in plain words. How Spark runs is decided by SPARK_CONF_DIR, not here."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from spark_app.platform import s3
from spark_app.platform.errors import InputError, JobError, LockedError, StorageError, UsageError
from spark_app.platform.spark_versions import SCALA, java_trace

DELTA_EXTENSION = "io.delta.sql.DeltaSparkSessionExtension"

DAEMON = "spark_app.platform.python_daemon"

OF_SCALA = re.compile(r"_2\.\d+:")
"""The version of Scala that a jar is for, in its coordinates."""


@contextlib.contextmanager
def spark_session(app: str, roots: Sequence[str], *, catalogued: bool) -> Iterator[SparkSession]:
    """A session for one job on these zones, stopped at the end; one that was there before is used and left running.

    `catalogued` opens the metastore too, which takes seconds: for jobs that register tables.
    """
    existing = SparkSession.getActiveSession()
    in_s3 = [root for root in roots if s3.is_s3(root)]
    builder = SparkSession.builder.appName(app).config(map=dict(daemon_settings()))
    if in_s3:
        builder = builder.config(map=dict(s3.spark_settings()))
    spark = (builder.enableHiveSupport() if catalogued else builder).getOrCreate()
    try:
        _check_generation(spark)
        if DELTA_EXTENSION not in (spark.conf.get("spark.sql.extensions", "") or ""):
            raise UsageError(
                f"Spark runs without Delta Lake (SPARK_CONF_DIR={_conf_dir()}): "
                "set SPARK_CONF_DIR to the folder conf/local of movie-reco, as an absolute path"
            )
        if in_s3 and not _knows_s3(spark):
            raise UsageError(
                f"Spark has no file system for {in_s3[0]} (SPARK_CONF_DIR={_conf_dir()}): "
                "set SPARK_CONF_DIR to the folder conf/s3 of movie-reco, as an absolute path"
            )
        spark.sparkContext.setLogLevel("ERROR")
        yield spark
    finally:
        if existing is None:
            spark.stop()


def daemon_settings() -> Mapping[str, str]:
    """The setting by which Python workers are forked from `python_daemon`, on one machine.

    There is none where Spark starts another Python than this one, or where this package is in a zip file, which only
    tasks are given: there Spark's own daemon does.
    """
    SparkContext._ensure_initialized()  # before Java is there SparkConf knows nothing of spark-defaults.conf
    master = SparkConf().get("spark.master", "") or ""
    python = shutil.which(os.environ.get("PYSPARK_PYTHON", "python3")) or ""
    is_this_python = Path(python).parent == Path(sys.executable).parent
    is_in_a_folder = Path(__file__).with_name("python_daemon.py").is_file()
    is_fit = master.startswith("local") and is_this_python and is_in_a_folder
    return {"spark.python.daemon.module": DAEMON} if is_fit else {}


def _check_generation(spark: SparkSession) -> None:
    """Refuse jars for another generation of Spark, whose classes would not be found sooner or later."""
    jars = spark.sparkContext.getConf().get("spark.jars.packages") or ""
    if {found.group() for found in OF_SCALA.finditer(jars)} - {SCALA}:
        raise UsageError(
            f"the jars in SPARK_CONF_DIR={_conf_dir()} are not for Spark {spark.version}: set SPARK_CONF_DIR to the "
            "folder conf/local of movie-reco for Spark 4.1, to .venv-3.5/conf/local for 3.5, as an absolute path"
        )


def check_schemes(*roots: str) -> None:
    """Refuse roots that this configuration of Spark cannot reach, before anything runs."""
    for root in roots:
        try:
            scheme = urlsplit(root).scheme
        except ValueError as error:
            raise UsageError(f"{root} is neither a path nor a URI ({error})") from error
        if scheme not in ("", "file", *s3.SCHEMES):
            raise UsageError(f"{root}: give a path, or a URI in S3 (s3://BUCKET/PREFIX), not {scheme}://")
        if s3.is_s3(root) and (not s3.split(root)[0] or ".." in s3.split(root)[1].split("/")):
            raise UsageError(f"{root} is no URI in S3: give s3://BUCKET/PREFIX")


def _conf_dir() -> str:
    return os.environ.get("SPARK_CONF_DIR", "is not set")


def _knows_s3(spark: SparkSession) -> bool:
    """Whether Spark is set up for `s3://`."""
    jvm = spark.sparkContext._jvm
    settings = spark.sparkContext._jsc.hadoopConfiguration()
    return jvm is None or settings.get(f"fs.{s3.SCHEME}.impl") is not None


_KNOWN_FAILURES: tuple[tuple[str, type[JobError], str], ...] = (
    (r"No space left on device", StorageError, "the disk is full: free space and run again"),
    (
        r"Another instance of Derby",
        LockedError,
        "the metastore (metastore/db) is in use by another process: wait for it",
    ),
    (r"Unexpected end of input stream", InputError, "a compressed input is truncated: deliver it again"),
    (r"(AccessDenied|AccessControl)Exception|Permission denied", StorageError, "access was refused: check permissions"),
    (r"NoAwsCredentialsException|NoAuthWithAWSException", StorageError, "there are no AWS credentials for Spark"),
    (r"UnknownStoreException|NoSuchBucket", StorageError, "a bucket does not exist: create it, or correct the path"),
    (
        # Before the next: who asks a lost executor for its part of a shuffle finds nobody.
        r"ExecutorLostFailure|FetchFailed|Container (killed|marked as failed)",
        JobError,
        "executors were lost, most often for want of memory: give them more of it, or more executors",
    ),
    (
        r"UnknownHostException|ConnectException|SdkClientException|AWSClientIOException|HttpHostConnectException",
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


def _one_line(text: str) -> str:
    """A text without line breaks and the colours of terminals."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())


def explain(error: Exception) -> JobError | None:
    """The plain words for a failure of Spark or of the system, or None where it is not one that is expected."""
    # Spark's own errors name the cause in their Java stack trace only.
    text = f"{error}\n{java_trace(error)}"
    for pattern, kind, advice in _KNOWN_FAILURES:
        if found := re.search(pattern, text):
            start, stop = text.rfind("\n", 0, found.start()) + 1, text.find("\n", found.end())
            line = text[start : stop if stop > 0 else len(text)].strip()
            return kind(f"{advice} ({line[:300]})")
    if why := s3.explain(error):
        return StorageError(why)
    if isinstance(error, OSError):
        return StorageError(f"storage refused: {_one_line(str(error))[:300]}; check the path and its permissions")
    return None
