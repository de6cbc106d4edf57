"""A Spark standalone cluster of real processes. Jobs run there as users ship them: from a zip, with a separate Python.

All processes listen on the loopback only, and their files are in a temporary folder.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tools.conf import CONF

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 400
"""Seconds until a process or a job counts as stuck. On a quiet machine they take a fraction of it."""


@dataclass(frozen=True)
class Job:
    """A running job, and its log file."""

    process: subprocess.Popen[bytes]
    log: Path

    def output(self) -> str:
        return self.log.read_text()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition is true; fails where the job ends before."""
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            assert self.process.poll() is None, self.output()[-3000:]
            assert time.monotonic() < deadline, self.output()[-3000:]
            time.sleep(0.01)

    def check_done(self) -> None:
        """Wait for the end of the job; fails where the job fails."""
        assert self.process.wait(TIMEOUT) == 0, self.output()[-3000:]


@dataclass
class Cluster:
    """A master and its workers. Each worker leads a process group of its own, which contains its executors."""

    folder: Path
    python: Path
    master: str = ""
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    others: list[subprocess.Popen[bytes]] = field(default_factory=list)
    """The processes of the master and of all jobs."""
    started: int = 0

    def start(self) -> None:
        master, match = self._daemon("master.Master", "--port", "0", wait_for=r"Starting Spark master at (spark://\S+)")
        self.master = match[1]
        self.others.append(master)

    def have_workers(self, count: int) -> None:
        """Start workers with one core each until there are `count`."""
        while len(self.workers) < count:
            work = str(self.folder / f"work-{self.started}")
            size = ("--cores", "1", "--memory", "1g", "--work-dir", work)
            worker, _ = self._daemon(
                "worker.Worker", *size, self.master, wait_for="Successfully registered with master"
            )
            self.workers.append(worker)

    def kill_worker(self) -> None:
        """Kill a worker and its executor without a message to the master, as when a machine loses power."""
        worker = self.workers.pop()
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait(TIMEOUT)

    def submit(self, name: str, *options: str) -> Job:
        """Submit a job to the cluster, with a folder and a Python from which the checkout cannot be imported."""
        self.started += 1
        folder = self.folder / f"driver-{self.started}"
        folder.mkdir()
        log = folder / "log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [
                    *("spark-submit", "--master", self.master, "--deploy-mode", "client"),
                    *("--driver-memory", "1g", "--executor-memory", "1g", "--executor-cores", "1"),
                    *("--conf", "spark.driver.host=127.0.0.1", "--conf", "spark.driver.bindAddress=127.0.0.1"),
                    *("--conf", f"spark.pyspark.python={self.python}", "--conf", "spark.sql.shuffle.partitions=4"),
                    *("--py-files", str(self.folder / "movie_reco.zip"), str(ROOT / "jobs" / f"{name}.py"), *options),
                ],
                cwd=folder,
                env=self._environment(CONF / "cluster"),
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        self.others.append(process)
        return Job(process, log)

    def stop(self) -> None:
        for process in (*self.workers, *self.others):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(TIMEOUT)

    def _daemon(self, name: str, *options: str, wait_for: str) -> tuple[subprocess.Popen[bytes], re.Match[str]]:
        """Start a master or a worker; returns its process, and the match of `wait_for` in its log once it is up."""
        self.started += 1
        log = self.folder / f"{name}-{self.started}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [
                    "spark-class",
                    f"org.apache.spark.deploy.{name}",
                    "--host",
                    "127.0.0.1",
                    "--webui-port",
                    "0",
                    *options,
                ],
                cwd=self.folder,
                # An empty settings folder, so that Spark's defaults hold: with these it logs the line to wait for.
                env=self._environment(self.folder / "conf"),
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        deadline = time.monotonic() + TIMEOUT
        while not (match := re.search(wait_for, log.read_text())):
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.05)
        return process, match

    def _environment(self, conf: Path) -> dict[str, str]:
        scripts = sysconfig.get_path("scripts")
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYSPARK", "SPARK"))
        }
        path = os.pathsep.join([str(self.python.parent), scripts, inherited["PATH"]])
        return {**inherited, "PATH": path, "SPARK_CONF_DIR": str(conf), "SPARK_LOCAL_IP": "127.0.0.1"}


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "conf").mkdir()
    subprocess.run([sys.executable, ROOT / "tools" / "package.py", folder / "movie_reco.zip"], check=True)
    started = Cluster(folder, _python_without_the_package(folder / "python"))
    try:
        started.start()
        yield started
    finally:
        started.stop()


def _python_without_the_package(folder: Path) -> Path:
    """A Python that finds the locked packages, but not the package of this checkout.

    Its .pth file names the folder of the locked packages. Python searches such a folder for modules, but ignores the
    .pth files in it, and the checkout's editable install is one of these .pth files.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    (site_packages / "locked.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "bin" / "python"
    done = subprocess.run(
        [python, "-c", "import numpy, pyarrow; import spark_app"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "No module named 'spark_app'" in done.stderr
    return python
