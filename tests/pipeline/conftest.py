"""Fixtures that run whole jobs: in the session of the tests, or by spark-submit as users do."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from spark_app.cli import run_job
from tests.conftest import FEW, made_once
from tools.conf import CONF

ROOT = Path(__file__).resolve().parents[2]
MOVIELENS = Path(os.environ.get("MOVIELENS_DIR", ROOT.parent / "shared" / "data" / "ml-latest-small"))

MOVIES = '''movieId,title,genres
1,Toy Story (1995),Adventure|Animation|Children
2,"American President, The (1995)",Comedy|Drama|Romance
3,"""Great Performances"" Cats (1998)",Musical
4,Nothing Sacred,(no genres listed)
'''
RATINGS = """userId,movieId,rating,timestamp
1,1,4.0,964982703
1,2,3.5,964981247
2,1,5.0,964982224
2,3,0.5,964983815
"""

Submit = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Zones:
    """A raw and a processed zone in a temporary folder, and what a job wrote there."""

    raw: Path
    processed: Path

    def deliver(self, movies: str | bytes = MOVIES, ratings: str | bytes = RATINGS) -> None:
        self.raw.mkdir(parents=True, exist_ok=True)
        for name, content in (("movies.csv", movies), ("ratings.csv", ratings)):
            (self.raw / name).write_bytes(content.encode() if isinstance(content, str) else content)

    def options(self, *more: str) -> list[str]:
        return ["--raw-path", str(self.raw), "--processed-path", str(self.processed), *more]

    def manifests(self) -> list[dict[str, Any]]:
        files = sorted((self.processed / "runs").glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
        return [json.loads(file.read_text(encoding="utf-8")) for file in files]

    def recommendations(self) -> list[dict[str, str]]:
        path = self.processed / "recommendations" / "movie_recommendations.csv"
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file for `--config`: few generated ratings, small models."""
    path = tmp_path_factory.mktemp("config") / "small.toml"
    path.write_text(FEW)
    return str(path)


@pytest.fixture
def zones(tmp_path: Path) -> Zones:
    return Zones(tmp_path / "raw", tmp_path / "processed")


@pytest.fixture
def job(spark: SparkSession, zones: Zones, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run a job on `zones` in the session of the tests; returns its exit code and its output."""

    def run(name: str, *options: str) -> tuple[int, str]:
        code = run_job(name, zones.options(*options))
        return code, capsys.readouterr().err

    return run


@pytest.fixture(scope="session")
def submit(tmp_path_factory: pytest.TempPathFactory) -> Submit:
    """Run a job by spark-submit in a process and a folder of its own.

    Spark-submit writes both outputs of Python to its standard output; its standard error has only Spark's own messages.
    """
    shared = tmp_path_factory.mktemp("submit")

    def run(
        name: str, *options: str, command: str = "spark-submit", folder: Path = shared, conf: str = "local"
    ) -> subprocess.CompletedProcess[str]:
        target = [str(ROOT / "jobs" / f"{name}.py")] if command == "spark-submit" else []
        return subprocess.run(
            [command, "--driver-memory", "2g", *target, *options],
            cwd=folder,
            env={**os.environ, "SPARK_CONF_DIR": str(CONF / conf)},
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )

    return run


@pytest.fixture(scope="session")
def movielens(submit: Submit, tmp_path_factory: pytest.TempPathFactory) -> Zones:
    """MovieLens ml-latest-small, through the whole pipeline by spark-submit; its output is in `stdout.txt`.

    The metastore lies beside the processed zone, since other runs would register other tables under the same names.
    """
    if not MOVIELENS.is_dir():
        pytest.skip("needs ml-latest-small: set MOVIELENS_DIR")

    def make(folder: Path) -> None:
        zones = Zones(MOVIELENS, folder / "processed")
        done = submit("pipeline", *zones.options(), folder=folder)
        assert done.returncode == 0, done.stdout[-3000:]
        (zones.processed / "stdout.txt").write_text(done.stdout, encoding="utf-8")

    return Zones(MOVIELENS, made_once(tmp_path_factory, "movielens", make) / "processed")
