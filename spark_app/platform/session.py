"""The Spark session, and Spark's failures in plain words. SPARK_CONF_DIR decides how Spark runs, not this module."""

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

SCALA_SUFFIX = re.compile(r"_2\.\d+:")
"""The part of a jar's coordinates that names its version of Scala."""


@contextlib.contextmanager
def spark_session(app: str, roots: Sequence[str], *, catalogued: bool) -> Iterator[SparkSession]:
    """A session for one job on the zones at `roots`. It is stopped at the end, unless it existed before.

    `catalogued` also opens the metastore, which takes seconds: only jobs that register tables need it. Raises
    UsageError where the configuration of Spark does not fit.
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
    """The setting that makes Spark fork its Python workers from `python_daemon`, on one machine.

    It is empty, and Spark uses its own daemon, on a cluster, where Spark starts another Python than this one, and where
    this package is in a zip file: only tasks can import from that.
    """
    SparkContext._ensure_initialized()  # SparkConf reads spark-defaults.conf only once Java is running
    master = SparkConf().get("spark.master", "") or ""
    python = shutil.which(os.environ.get("PYSPARK_PYTHON", "python3")) or ""
    is_this_python = Path(python).parent == Path(sys.executable).parent
    is_in_a_folder = Path(__file__).with_name("python_daemon.py").is_file()
    is_fit = master.startswith("local") and is_this_python and is_in_a_folder
    return {"spark.python.daemon.module": DAEMON} if is_fit else {}


def _check_generation(spark: SparkSession) -> None:
    """Raise UsageError for jars of another generation of Spark: sooner or later a class would be missing."""
    jars = spark.sparkContext.getConf().get("spark.jars.packages") or ""
    if {suffix.group() for suffix in SCALA_SUFFIX.finditer(jars)} - {SCALA}:
        raise UsageError(
            f"the jars in SPARK_CONF_DIR={_conf_dir()} are not for Spark {spark.version}: set SPARK_CONF_DIR to the "
            "folder conf/local of movie-reco for Spark 4.1, to .venv-3.5/conf/local for 3.5, as an absolute path"
        )


def check_schemes(*roots: str) -> None:
    """Raise UsageError for a root that is neither a path nor a URI in S3, before anything runs."""
    for root in roots:
        try:
            scheme = urlsplit(root).scheme
        except ValueError as error:
            raise UsageError(f"{root} is neither a path nor a URI ({error})") from error
        if scheme not in ("", "file", *s3.SCHEMES):
            raise UsageError(f"{root}: give a path, or a URI in S3 (s3://BUCKET/PREFIX), not {scheme}://")
        if s3.is_s3(root) and (not s3.split(root)[0] or ".." in s3.split(root)[1].split("/")):
            raise UsageError(f"{root} is not a URI in S3: give s3://BUCKET/PREFIX")


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
        # Must precede the next entry: a shuffle that asks a lost executor fails with a ConnectException too.
        r"ExecutorLostFailure|FetchFailed|Container (killed|marked as failed)",
        JobError,
        "executors were lost, most often for lack of memory: give each more memory, or use more executors",
    ),
    (
        r"UnknownHostException|ConnectException|SdkClientException|AWSClientIOException|HttpHostConnectException",
        StorageError,
        "storage cannot be reached: check the address and network",
    ),
    (
        r"ModuleNotFoundError: No module named",
        UsageError,
        "the executors' Python lacks a module: set --py-files to the zip that `make package` makes, and "
        "spark.pyspark.python to a Python with the packages of requirements/runtime.lock",
    ),
    (
        r"on a stopped SparkContext",
        JobError,
        "the cluster does not answer, or has ended the job: check --master, and that master and workers run",
    ),
    (r"Mkdirs failed|Not a directory", StorageError, "cannot create a folder: check the path and its permissions"),
)


def _one_line(text: str) -> str:
    """The text without line breaks and terminal colours."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())


def explain(error: Exception) -> JobError | None:
    """The expected failure, in plain words, behind an error of Spark or of the system; None where it is unexpected."""
    # Spark's own errors name the cause in their Java stack trace only.
    text = f"{error}\n{java_trace(error)}"
    for pattern, error_class, advice in _KNOWN_FAILURES:
        if match := re.search(pattern, text):
            start, stop = text.rfind("\n", 0, match.start()) + 1, text.find("\n", match.end())
            line = text[start : stop if stop > 0 else len(text)].strip()
            return error_class(f"{advice} ({line[:300]})")
    if why := s3.explain(error):
        return StorageError(why)
    if isinstance(error, OSError):
        return StorageError(f"storage refused: {_one_line(str(error))[:300]}; check the path and its permissions")
    return None
