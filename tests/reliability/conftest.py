"""Places where jobs run by spark-submit and are disturbed: a folder, and a prefix in a real S3 server.

With MOVIE_RECO_SOAK=1 (`make soak`) there are many more disturbances.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pytest

from spark_app.platform import s3, storage
from spark_app.zones.processed import ProcessedZone
from tests.conftest import FEW, FEW_RATINGS, made_once
from tools.conf import CONF, ROOT

SOAK = os.environ.get("MOVIE_RECO_SOAK") == "1"
TIMEOUT = 1800
"""Seconds until a run counts as stuck. A run for which S3 refuses every fifth request waits for minutes."""
LEASE = 10
LENGTHS = (10, 4)
"""Lengths of the lists in the two results between which jobs change; both are known byte for byte."""

ROWS = FEW_RATINGS
SMALL = f"""{FEW}
[storage]
lease_seconds = {LEASE}
"""


@dataclass(frozen=True)
class Place:
    """A raw and a processed zone, and the environment in which jobs find them."""

    root: str
    folder: Path
    environment: dict[str, str]
    spark: tuple[str, ...] = ()
    """Further options of spark-submit."""

    @property
    def zone(self) -> ProcessedZone:
        return ProcessedZone(f"{self.root}/processed")

    @property
    def conf(self) -> str:
        return "s3" if s3.is_s3(self.root) else "local"

    def start(self, job: str, *options: str) -> subprocess.Popen[str]:
        """Start a job, with both its outputs as one."""
        config = self.folder / "small.toml"
        config.write_text(SMALL)
        paths = ["--raw-path", f"{self.root}/raw", "--processed-path", self.zone.root, "--config", str(config)]
        submit = ["spark-submit", "--driver-memory", "1g"]
        return subprocess.Popen(
            [*submit, *self.spark, str(ROOT / "jobs" / f"{job}.py"), *paths, *options],
            cwd=self.folder,
            env={**os.environ, **self.environment, "SPARK_CONF_DIR": str(CONF / self.conf)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, job: str, *options: str) -> str:
        """Run a job, which must succeed; returns its output."""
        process = self.start(job, *options)
        try:
            said, _ = process.communicate(timeout=TIMEOUT)
        except BaseException:
            kill_all(process)
            raise
        assert process.returncode == 0, said[-3000:]
        return said

    def wait_for_lease(self) -> None:
        """Wait until the zone of a killed run is free; on a disk it is free at once."""
        if s3.is_s3(self.root):
            time.sleep(LEASE + 1)


def kill_all(process: subprocess.Popen[str]) -> None:
    """Kill a job as a power failure would: Java, Python and all workers."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(TIMEOUT)
    if process.stdout:
        process.stdout.close()


@dataclass(frozen=True)
class Made:
    """Zones on a disk after the whole pipeline, to be copied; and the CSV of both results, by the length of lists."""

    folder: Path
    csv: dict[int, str]

    def copy_to(self, place: Place) -> None:
        """Copy the zones to a place, with the lists of the second length."""
        target, _ = fsspec.core.url_to_fs(place.root, **(s3.fsspec_options() if s3.is_s3(place.root) else {}))
        target.put(f"{self.folder}/", f"{place.root}/", recursive=True)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    def make(folder: Path) -> None:
        place = Place(str(folder / "zones"), folder, {})
        for job, length in zip(("pipeline", "recommend"), LENGTHS, strict=True):
            place.run(job, "--set", f"recommend.n={length}")
            shutil.copy(place.zone.recommendations_csv, folder / f"{length}.csv")

    folder = made_once(tmp_path_factory, "made", make)
    return Made(folder / "zones", {length: storage.read_text(str(folder / f"{length}.csv")) for length in LENGTHS})


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty place of each kind."""
    if request.param == "disk":
        return Place(str(tmp_path / "zones"), tmp_path, {})
    root: str = request.getfixturevalue("in_s3")
    return Place(root, tmp_path, request.getfixturevalue("s3_server").environment())
