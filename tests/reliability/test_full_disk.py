"""A full disk ends a job with one line; existing files stay, and a rerun with free space succeeds."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from spark_app.cli import run_job
from spark_app.platform.errors import StorageError
from tests.reliability.conftest import SMALL

pytestmark = pytest.mark.long

LEFT = 48 << 10
"""Free bytes: enough for the lock and a manifest, too few for any table."""

WRITING = ("ingest", "etl", "explore", "train", "recommend")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A separate disk of 64 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], check=False)
    if mounted.returncode:
        pytest.skip("needs to be allowed to mount a tmpfs")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(disk: Path) -> Path:
    """Fill a disk up to `LEFT` bytes; returns the file to remove."""
    ballast = disk / "ballast"
    free = os.statvfs(disk)
    with ballast.open("wb") as stream:
        stream.write(b"\0" * (free.f_bavail * free.f_frsize - LEFT))
    return ballast


def contents(folder: Path) -> dict[str, bytes]:
    """The published files by name, without manifests and locks."""
    files = (path for path in folder.rglob("*") if path.is_file())
    named = {str(path.relative_to(folder)): path for path in files}
    return {name: path.read_bytes() for name, path in named.items() if not name.startswith(("runs/", "_lock"))}


def test_a_full_disk_in_each_stage(
    spark: SparkSession, small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "small.toml"
    config.write_text(SMALL)
    raw, processed = small_disk / "raw", small_disk / "processed"
    options = ["--raw-path", str(raw), "--processed-path", str(processed), "--config", str(config)]
    for stage in WRITING:
        before = contents(processed)
        # Lists of another length, and all files once more, so that the stage has something to write.
        other = [*options, "--set", f"recommend.n={len(before) % 5 + 3}", "--set", "input.take=all"]
        ballast = fill(small_disk)
        capsys.readouterr()
        assert run_job(stage, other) == StorageError.exit_code
        said = capsys.readouterr().err
        assert "No space left on device" in said
        assert "Traceback" not in said
        assert {name: content for name, content in contents(processed).items() if name in before} == before
        ballast.unlink()
        assert run_job(stage, other) == 0
        if stage == "ingest":
            assert run_job("pipeline", options) == 0
