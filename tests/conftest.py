"""Fixtures for all tests: one private Spark session, one S3 server, one browser, and the log messages of a test.

The session has real Delta, one shuffle partition, no adaptive plans and temporary folders.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from playwright.sync_api import Browser, Error, sync_playwright
from pyspark.sql import SparkSession
from s3fs import S3FileSystem

from spark_app.platform import s3
from spark_app.platform.log import logger
from spark_app.platform.session import DAEMON, SHORT_TRACES
from tools.conf import CONF
from tools.s3_server import S3Server

os.environ.setdefault("SPARK_CONF_DIR", str(CONF / "local"))
# Jobs on a few rows end before Java's second compiler pays off: without that compiler they take half the CPU time. To
# verify Spark's classes again at each of some hundred starts would take an eighth of the rest.
os.environ.setdefault(
    "JDK_JAVA_OPTIONS",
    "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m "
    "-XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote",
)

FEW_USERS, FEW_RATINGS = 150, 6000
FEW = f"""
[ingest]
source = ["synthetic"]
users = {FEW_USERS}
movies = 200
ratings = {FEW_RATINGS}

[implicit_als]
rank = 8
iterations = 3

[explicit_als]
rank = 8
iterations = 3
"""
"""Settings with which the whole pipeline takes little more time than Spark's start."""

BUCKET = "tests"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of whole jobs, the longest: a process that got one last would keep the others waiting."""
    items.sort(key=lambda item: "pipeline" not in item.path.parts)


def pytest_make_parametrize_id(val: object) -> str | None:
    """The name of a parameter. Bytes have none of their own: packed ones hold the time, and workers must agree."""
    return "bytes" if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    session = (
        SparkSession.builder.appName("tests")
        .master("local[2]")
        .config("spark.driver.memory", "2g")
        .config("spark.python.daemon.module", DAEMON)
        .config(SHORT_TRACES, False)
        .config("spark.sql.shuffle.partitions", 1)
        .config("spark.sql.adaptive.enabled", False)
        .config("spark.sql.warehouse.dir", str(tmp_path_factory.mktemp("warehouse")))
        .getOrCreate()
    )
    yield session
    session.stop()


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that `make` fills once. The first process of the suite calls `make`; the others wait, and only read."""
    folders = factory.getbasetemp()
    folder = (folders.parent if "PYTEST_XDIST_WORKER" in os.environ else folders) / name
    complete = folder / "is-complete"
    with FileLock(f"{folder}.lock"):
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            complete.touch()
    return folder


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server on the loopback, with an empty bucket."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    server.make_bucket(BUCKET)
    yield server
    server.stop()


@pytest.fixture
def in_s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of a new prefix in the bucket for this test only; variables point this process at the server."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    forget_s3()
    yield f"s3://{BUCKET}/{secrets.token_hex(4)}"
    forget_s3()


def forget_s3() -> None:
    """Drop clients and options that were made with other environment variables."""
    s3.endpoint.cache_clear()
    s3.fsspec_options.cache_clear()
    S3FileSystem.clear_instance_cache()


class _Collector(logging.Handler):
    """Collects log messages."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture
def said() -> Iterator[list[str]]:
    """The messages that the package logs during a test, at any level."""
    collector, level_before = _Collector(), logger.level
    logger.addHandler(collector)
    logger.setLevel(logging.DEBUG)
    yield collector.messages
    logger.removeHandler(collector)
    logger.setLevel(level_before)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium, the system's or else Playwright's; one for all tests, since Playwright starts only once."""
    installed = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    with sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=installed, args=list(FLAGS))
        except Error as error:
            pytest.skip(f"needs Chromium, which `make setup-dev` installs: {error.message.splitlines()[0]}")
        yield started
        started.close()
