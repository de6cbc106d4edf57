"""The Spark session, and Spark's failures in plain words. SPARK_CONF_DIR decides how Spark runs, not this module."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from spark_app.platform import s3
from spark_app.platform.errors import InputError, JobError, LockedError, StorageError, UsageError
from spark_app.platform.spark_versions import SCALA, java_trace

DELTA_EXTENSION = "io.delta.sql.DeltaSparkSessionExtension"

METASTORE = "spark.hadoop.javax.jdo.option.ConnectionURL"

DAEMON = "spark_app.python_daemon"
SHORT_TRACES = "spark.sql.execution.pyspark.udf.simplifiedTraceback.enabled"
"""The setting for stack traces of Python workers without Spark's own lines. Spark has it on for frames alone."""

ASK_SECONDS = 60
"""Seconds after which another Python that is asked for its version is given up."""

START_SECONDS = 60
"""Seconds after which the end of a session no longer waits for workers that start."""

SOCKET_NAME_BYTES = len("/.") + 36 + len(".sock")
MAX_SOCKET_BYTES = 103
"""The longest path of a Unix socket on macOS; Linux takes 107 bytes."""

NO_METASTORE = "spark.movie-reco.noMetastore"
"""Our mark of a session that runs without the metastore, because another process holds it."""

METASTORE_TAKEN = r"Another instance of Derby"

SCALA_SUFFIX = re.compile(r"_2\.\d+:")
"""The part of a jar's coordinates that names its version of Scala."""


@contextlib.contextmanager
def spark_session(app: str, roots: Sequence[str], *, catalogued: bool) -> Iterator[SparkSession]:
    """A session for one job on the zones at `roots`. It is stopped at the end, unless it existed before.

    `catalogued` also opens the metastore, which takes seconds: only jobs that register tables need it. If another
    process holds it, the session has none, and `has_metastore` says so. Raises UsageError where the configuration of
    Spark does not fit.
    """
    existing = SparkSession.getActiveSession()
    if existing is None:
        _check_worker_python()
        if catalogued:
            _check_metastore()
    in_s3 = [root for root in roots if s3.is_s3(root)]
    options: dict[str, Any] = {
        **(daemon_settings() if existing is None else {}),
        **_socket_settings(),
        **(s3.spark_settings() if in_s3 else {}),
    }
    builder = SparkSession.builder.appName(app).config(map=options)
    spark = (builder.enableHiveSupport() if catalogued else builder).getOrCreate()
    started = start_workers(spark) if existing is None and DAEMON in options.values() else None
    if catalogued and existing is None and _is_metastore_taken(spark):
        _wait_for(started)
        spark.stop()
        options |= {"spark.sql.catalogImplementation": "in-memory", NO_METASTORE: "true"}
        spark = SparkSession.builder.appName(app).config(map=options).getOrCreate()
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
        _check_local_paths(spark, [root for root in roots if root and not s3.is_s3(root)])
        spark.sparkContext.setLogLevel("ERROR")
        yield spark
    finally:
        _wait_for(started)
        if existing is None:
            _stop(spark)


def start_workers(spark: SparkSession) -> threading.Thread:
    """Make Spark start the daemon of its Python workers now, beside what Java does next: its imports take a second.

    The thread that is returned ends once a worker is there.
    """

    def start() -> None:
        # What fails here fails again, and is told, when the first worker is needed.
        with contextlib.suppress(Exception):
            spark.sparkContext.parallelize([0], 1).map(abs).collect()

    thread = threading.Thread(target=start, name="start-workers", daemon=True)
    thread.start()
    return thread


def _wait_for(started: threading.Thread | None) -> None:
    """Wait until the workers have started: a session that stops meanwhile would log errors of their job."""
    if started is not None:
        started.join(START_SECONDS)


@contextlib.contextmanager
def set_for_now(spark: SparkSession, values: Mapping[str, str]) -> Iterator[None]:
    """Set settings of Spark for a while, and give them their values of before after it."""
    before = {key: spark.conf.get(key, None) for key in values}
    for key, value in values.items():
        spark.conf.set(key, value)
    try:
        yield
    finally:
        # After Ctrl-C there may be no Java left; what fails here must not hide why a run ends.
        with contextlib.suppress(Exception):
            for key, earlier in before.items():
                if earlier is None:
                    spark.conf.unset(key)
                else:
                    spark.conf.set(key, earlier)


@contextlib.contextmanager
def quiet_console(spark: SparkSession) -> Iterator[None]:
    """While the block runs, show nothing that Java's side prints on its console: Delta prints there past any log."""
    console, io = java_console(spark), _jvm(spark).java.io
    shown = console.out()
    console.setOutDirect(io.PrintStream(io.OutputStream.nullOutputStream()))
    try:
        yield
    finally:
        console.setOutDirect(shown)


def java_console(spark: SparkSession) -> Any:
    """Scala's console, to which code on Java's side prints. It is set for each thread apart."""
    return _jvm(spark).java.lang.Class.forName("scala.Console$").getField("MODULE$").get(None)


def _jvm(spark: SparkSession) -> Any:
    return spark.sparkContext._jvm


def _stop(spark: SparkSession) -> None:
    """Stop a session. After Ctrl-C there may be no Java left to stop; what fails here must not hide why a run ends."""
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        context = spark.sparkContext
        server = getattr(context, "_accumulatorServer", None)
        context._accumulatorServer = None  # type: ignore[assignment]
        spark.stop()
        if server is not None:
            _end_beside(server)


def _end_beside(accumulators: Any) -> None:
    """End Python's server for accumulators in a thread: it looks once a second whether to end, and `stop` would wait.

    Its socket is removed here, because the process may end before the thread does.
    """
    threading.Thread(target=accumulators.shutdown, name="end-accumulators", daemon=True).start()
    if isinstance(accumulators.server_address, str):
        Path(accumulators.server_address).unlink(missing_ok=True)


def has_metastore(spark: SparkSession) -> bool:
    """Whether tables that are registered in a session stay: not if another process holds the metastore."""
    return spark.conf.get(NO_METASTORE, None) is None


def is_on_one_machine(spark: SparkSession) -> bool:
    """Whether all tasks run on the machine of the driver, where they see its disk and have its credentials."""
    return str(spark.sparkContext.master).startswith("local")


def is_on_derby(spark: SparkSession) -> bool:
    """Whether the metastore is one on embedded Derby, not the Glue Data Catalog or a server's."""
    return "derby" in (spark.sparkContext.getConf().get(METASTORE) or "")


def _is_metastore_taken(spark: SparkSession) -> bool:
    """Whether another process holds the metastore. Only Derby is asked: it lets one process in at a time."""
    if not is_on_derby(spark):
        return False
    try:
        spark.sql("SHOW DATABASES").collect()
    except Exception as error:
        if re.search(METASTORE_TAKEN, f"{error}\n{java_trace(error)}"):
            return True
        raise
    return False


def daemon_settings() -> Mapping[str, str]:
    """The settings that make Spark fork all its Python workers from one `python_daemon`, on one machine.

    Workers for frames and for RDDs would come from two daemons, each with its own imports, if stack traces of frames
    alone were short. There are no settings, and Spark uses its own daemon, on a cluster, where Spark starts another
    Python than this one, and where this package is in a zip file: only tasks can import from that.
    """
    is_in_a_folder = Path(__file__).parents[1].joinpath("python_daemon.py").is_file()
    is_fit = _will_be_on_one_machine() and _workers_run_this_python() and is_in_a_folder
    return {"spark.python.daemon.module": DAEMON, SHORT_TRACES: "false"} if is_fit else {}


def _socket_settings() -> Mapping[str, str]:
    """The setting that makes Spark use TCP where the paths of its Unix sockets would be longer than a system takes."""
    SparkContext._ensure_initialized()
    jvm = SparkContext._jvm
    folder = jvm.java.lang.System.getProperty("java.io.tmpdir") if jvm else ""
    is_too_long = len(os.fsencode(folder)) + SOCKET_NAME_BYTES > MAX_SOCKET_BYTES
    return {"spark.python.unix.domain.socket.enabled": "false"} if is_too_long else {}


def _will_be_on_one_machine() -> bool:
    SparkContext._ensure_initialized()  # SparkConf reads spark-defaults.conf only once Java is running
    return (SparkConf().get("spark.master", "") or "").startswith("local")


def _worker_python() -> str:
    """The Python that Spark's workers run on this machine, as a path or a name."""
    return os.environ.get("PYSPARK_PYTHON", "python3")  # spark-submit sets it from spark.pyspark.python


def _workers_run_this_python() -> bool:
    return Path(shutil.which(_worker_python()) or "").parent == Path(sys.executable).parent


def _check_worker_python() -> None:
    """Raise UsageError where workers on this machine would run another Python: else a task fails, minutes later."""
    if _workers_run_this_python() or not _will_be_on_one_machine():
        return
    ask = [_worker_python(), "-c", "import sys, numpy, pandas, pyarrow; print(*sys.version_info[:2], sep='.')"]
    try:
        told = subprocess.run(ask, capture_output=True, text=True, check=True, timeout=ASK_SECONDS).stdout.strip()  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        told = "none with numpy, pandas and pyarrow"
    this = f"{sys.version_info.major}.{sys.version_info.minor}"
    if told != this:
        raise UsageError(
            f"Spark's workers would run {_worker_python()}, which is Python {told}; the job runs Python {this}: unset "
            "PYSPARK_PYTHON and spark.pyspark.python, or set them to the Python of movie-reco"
        )


def _check_metastore() -> None:
    """Raise StorageError where the embedded metastore does not exist and cannot be created: Derby says it at length."""
    SparkContext._ensure_initialized()  # else SparkConf knows no spark-defaults.conf
    url = SparkConf().get(METASTORE, "") or ""
    named = re.match(r"jdbc:derby:;databaseName=([^;]+)", url)
    if named is None or Path(named.group(1)).exists():
        return
    folder = next(path for path in Path(named.group(1)).absolute().parents if path.exists())
    if not os.access(folder, os.W_OK):
        raise StorageError(
            f"the metastore cannot be created in {folder}: start the job from a folder that you may write, or set "
            f"{METASTORE} for spark-submit"
        )


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


def _check_local_paths(spark: SparkSession, roots: Sequence[str]) -> None:
    """Raise UsageError where Spark would look for a path of this machine in another file system."""
    default = spark.sparkContext._jsc.hadoopConfiguration().get("fs.defaultFS") or "file:///"
    if roots and not default.startswith("file:"):
        raise UsageError(
            f"Hadoop's default file system is {default}, so Spark would look there for {roots[0]}: give spark-submit "
            "--conf spark.hadoop.fs.defaultFS=file:///, or unset HADOOP_CONF_DIR"
        )


_KNOWN_FAILURES: tuple[tuple[str, type[JobError], str], ...] = (
    (r"No space left on device", StorageError, "the disk is full: free space and run again"),
    (
        METASTORE_TAKEN,
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
        r"Python in worker has different version",
        UsageError,
        "the executors run another Python than the driver: set spark.pyspark.python to one of the driver's version",
    ),
    (
        r"JAVA_GATEWAY_EXITED|Java gateway process exited",
        UsageError,
        "Java did not start: the lines above say why; SPARK_CONF_DIR must name a folder of conf/",
    ),
    (
        r"Invalid UID, could not determine effective user|invalid null input: name",
        UsageError,
        "this user has no entry in /etc/passwd, which Java needs: start as one that has, or add an entry",
    ),
    (
        r"failed to map segment from shared object|UnsatisfiedLinkError",
        UsageError,
        "Java's temporary folder allows no programs (noexec): set SPARK_CONF_DIR to conf/local, and TMPDIR to a folder "
        "that does",
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
