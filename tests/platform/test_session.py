from __future__ import annotations

import threading
from pathlib import Path
from socketserver import BaseRequestHandler

import pytest
from pyspark.accumulators import AccumulatorUnixServer
from pyspark.errors.exceptions.captured import AnalysisException
from pyspark.sql import SparkSession

from spark_app.platform import session
from spark_app.platform.errors import InputError, JobError, LockedError, StorageError, UsageError
from spark_app.platform.session import check_schemes, explain, spark_session


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        (
            "Job aborted.\n  java.io.IOException: No space left on device\n\tat java.base/sun.nio",
            StorageError,
            "the disk is full: free space and run again (java.io.IOException: No space left on device)",
        ),
        (
            "ERROR XSDB6: Another instance of Derby may have already booted the database metastore/db.",
            LockedError,
            "the metastore (metastore/db) is in use by another process: wait for it "
            "(ERROR XSDB6: Another instance of Derby may have already booted the database metastore/db.)",
        ),
        (
            "java.io.EOFException: Unexpected end of input stream",
            InputError,
            "a compressed input is truncated: deliver it again (java.io.EOFException: Unexpected end of input stream)",
        ),
        (
            "org.apache.hadoop.security.AccessControlException: Permission denied: user=x",
            StorageError,
            "access was refused: check permissions "
            "(org.apache.hadoop.security.AccessControlException: Permission denied: user=x)",
        ),
        (
            "org.apache.spark.shuffle.FetchFailedException: Failed to connect to worker: java.net.ConnectException",
            JobError,
            "executors were lost, most often for lack of memory: give each more memory, or use more executors "
            "(org.apache.spark.shuffle.FetchFailedException: Failed to connect to worker: java.net.ConnectException)",
        ),
        (
            "Task 3 in stage 5.0 failed 8 times: ExecutorLostFailure (executor 2 exited) Reason: exit code 137",
            JobError,
            "executors were lost, most often for lack of memory: give each more memory, or use more executors "
            "(Task 3 in stage 5.0 failed 8 times: ExecutorLostFailure (executor 2 exited) Reason: exit code 137)",
        ),
        (
            "Container marked as failed: container_1_0001_01_000002 on host: worker. Exit status: 137",
            JobError,
            "executors were lost, most often for lack of memory: give each more memory, or use more executors "
            "(Container marked as failed: container_1_0001_01_000002 on host: worker. Exit status: 137)",
        ),
        (
            "java.net.UnknownHostException: storage.invalid",
            StorageError,
            "storage cannot be reached: check the address and network (java.net.UnknownHostException: storage.invalid)",
        ),
        (
            "PythonException:\nModuleNotFoundError: No module named 'spark_app'\n",
            UsageError,
            "the executors' Python lacks a module: set --py-files to the zip that `make package` makes, and "
            "spark.pyspark.python to a Python with the packages of requirements/runtime.lock "
            "(ModuleNotFoundError: No module named 'spark_app')",
        ),
        (
            "java.lang.IllegalStateException: Cannot call methods on a stopped SparkContext.",
            JobError,
            "the cluster does not answer, or has ended the job: check --master, and that master and workers run "
            "(java.lang.IllegalStateException: Cannot call methods on a stopped SparkContext.)",
        ),
        (
            "java.io.IOException: Mkdirs failed to create file:/out/delta",
            StorageError,
            "cannot create a folder: check the path and its permissions "
            "(java.io.IOException: Mkdirs failed to create file:/out/delta)",
        ),
    ],
)
def test_expected_failures_are_told_in_plain_words(text: str, kind: type[JobError], message: str) -> None:
    failure = explain(RuntimeError(text))
    assert type(failure) is kind
    assert str(failure) == message


def test_the_cause_of_a_failure_of_spark_is_looked_for_in_its_java_stack_trace(spark: SparkSession) -> None:
    trace = (
        "HiveException: top\n\tat org.apache\nCaused by: ERROR XSDB6: Another instance of Derby may have booted db\n"
    )
    failure = explain(AnalysisException(desc="Unable to instantiate SessionHiveMetaStoreClient", stackTrace=trace))
    assert isinstance(failure, LockedError)
    assert str(failure).endswith("(Caused by: ERROR XSDB6: Another instance of Derby may have booted db)")


def test_system_errors_of_python_are_told_too() -> None:
    failure = explain(PermissionError(13, "Permission denied", "/out/runs"))
    assert isinstance(failure, StorageError)
    assert str(failure) == "access was refused: check permissions ([Errno 13] Permission denied: '/out/runs')"


def test_other_system_errors_are_refusals_of_storage() -> None:
    failure = explain(OSError(30, "Read-only file system", "/raw/x"))
    assert isinstance(failure, StorageError)
    assert str(failure) == (
        "storage refused: [Errno 30] Read-only file system: '/raw/x'; check the path and its permissions"
    )


def test_long_lines_are_cut() -> None:
    failure = explain(RuntimeError("No space left on device" + "x" * 1_000))
    assert len(str(failure)) < 400


def test_unexpected_failures_are_not_explained_away() -> None:
    assert explain(RuntimeError("division by zero")) is None


@pytest.mark.parametrize("root", ["", "out", "/data/out", "file:///data/out", "s3://bucket", "s3a://bucket/a/b"])
def test_folders_and_places_in_s3_are_accepted(root: str) -> None:
    check_schemes(root)


def test_other_roots_are_refused() -> None:
    with pytest.raises(UsageError) as caught:
        check_schemes("/data/raw", "gs://bucket/processed")
    assert str(caught.value) == ("gs://bucket/processed: give a path, or a URI in S3 (s3://BUCKET/PREFIX), not gs://")


@pytest.mark.parametrize("root", ["s3://", "s3a:///processed", "s3://bucket/../other"])
def test_uris_that_name_no_place_in_s3_are_refused(root: str) -> None:
    with pytest.raises(UsageError, match="is not a URI in S3: give s3://BUCKET/PREFIX"):
        check_schemes(root)


def test_what_is_no_uri_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"//x\[y/z is neither a path nor a URI"):
        check_schemes("//x[y/z")


def test_a_session_that_is_there_is_used_and_left_running(spark: SparkSession) -> None:
    with spark_session("a job", [], catalogued=False) as session:
        assert session is spark
    assert spark.range(3).count() == 3


def test_the_server_for_accumulators_ends_beside_and_leaves_no_socket(tmp_path: Path) -> None:
    server = AccumulatorUnixServer(str(tmp_path / "s"), BaseRequestHandler)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    assert (tmp_path / "s").is_socket()
    session._end_beside(server)
    assert not (tmp_path / "s").exists()
    serving.join(5)
    assert not serving.is_alive()


def test_a_session_without_delta_is_a_usage_error(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spark_app.platform.session.DELTA_EXTENSION", "some.other.Extension")
    monkeypatch.delenv("SPARK_CONF_DIR")
    with pytest.raises(UsageError) as caught, spark_session("a job", [], catalogued=False):
        pytest.fail("there is no Delta Lake")
    assert str(caught.value) == (
        "Spark runs without Delta Lake (SPARK_CONF_DIR=is not set): "
        "set SPARK_CONF_DIR to the folder conf/local of movie-reco, as an absolute path"
    )


def test_jars_for_another_generation_of_spark_are_a_usage_error(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spark_app.platform.session.SCALA", "_2.11:")
    monkeypatch.setenv("SPARK_CONF_DIR", "/some/conf/local")
    with pytest.raises(UsageError) as caught, spark_session("a job", [], catalogued=False):
        pytest.fail("these are jars of another Scala")
    assert str(caught.value) == (
        f"the jars in SPARK_CONF_DIR=/some/conf/local are not for Spark {spark.version}: set SPARK_CONF_DIR to the "
        "folder conf/local of movie-reco for Spark 4.1, to .venv-3.5/conf/local for 3.5, as an absolute path"
    )


def test_long_temporary_folders_take_no_unix_sockets(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    assert session._socket_settings() == {}
    monkeypatch.setattr(session, "MAX_SOCKET_BYTES", len("/tmp") + session.SOCKET_NAME_BYTES - 1)
    assert session._socket_settings() == {"spark.python.unix.domain.socket.enabled": "false"}


def test_a_default_file_system_that_is_none_of_this_machine_is_named(spark: SparkSession) -> None:
    hadoop = spark.sparkContext._jsc.hadoopConfiguration()
    before = hadoop.get("fs.defaultFS")
    hadoop.set("fs.defaultFS", "hdfs://name-node:8020")
    try:
        session._check_local_paths(spark, [])
        with pytest.raises(UsageError) as caught:
            session._check_local_paths(spark, ["/shared/raw"])
    finally:
        hadoop.set("fs.defaultFS", before)
    assert str(caught.value) == (
        "Hadoop's default file system is hdfs://name-node:8020, so Spark would look there for /shared/raw: give "
        "spark-submit --conf spark.hadoop.fs.defaultFS=file:///, or unset HADOOP_CONF_DIR"
    )


def test_workers_of_another_python_are_told_before_a_session_starts(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    session._check_worker_python()
    other = tmp_path / "python3"
    other.write_text("#!/bin/sh\necho 3.7\n")
    other.chmod(0o755)
    monkeypatch.setenv("PYSPARK_PYTHON", str(other))
    with pytest.raises(
        UsageError, match=f"Spark's workers would run {other}, which is Python 3.7; the job runs Python"
    ):
        session._check_worker_python()
