"""Whole jobs on machines that are set up unlike any developer's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machines.conftest import LEFT_BY_OTHERS, ROOT
from tests.pipeline.conftest import MOVIES, RATINGS
from tools.conf import CONF

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("may_unshare")]

NOBODY = 65534
IVY = ".ivy2" if "3.5" in str(CONF) else ".ivy2.5.2"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a raw zone that every user may enter, outside of /tmp."""
    path = Path("/var/tmp") / f"movie-reco-tests-{os.getpid()}"
    (path / "raw").mkdir(parents=True)
    (path / "raw" / "movies.csv").write_text(MOVIES)
    (path / "raw" / "ratings.csv").write_text(RATINGS)
    (path / "out").mkdir()
    (path / "hadoop").mkdir()
    (path / "hadoop" / "core-site.xml").write_text(
        "<configuration><property><name>fs.defaultFS</name><value>hdfs://no-such-host:8020</value></property></configuration>"
    )
    home = path / "tmp" / f"movie-reco-{NOBODY}"
    home.mkdir(parents=True)
    shutil.copytree(Path.home() / IVY, home / IVY)
    for entry in (path / "out", home, *home.rglob("*")):
        os.chown(entry, NOBODY, NOBODY)
    home.chmod(0o700)
    yield path
    shutil.rmtree(path)


def in_a_container(folder: Path, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command as nobody, who has no home, in a read-only folder, under a host name that does not resolve.

    /tmp runs no programs, and the checkout lies in `it's mine`.
    """
    checkout = folder / "it's mine"
    python = Path(sys.base_prefix)
    script = f"""
        set -e
        mount --make-rprivate /
        mkdir -p "{folder}/python" "{checkout}" && mount --bind "{python}" "{folder}/python"
        mount --bind "{ROOT}" "{checkout}"
        mount -t tmpfs -o mode=755 none /root
        mkdir -p "{python}" && mount --bind "{folder}/python" "{python}"
        mount -t tmpfs -o noexec,mode=1777 none /tmp
        mkdir -p "{ROOT}" && mount --bind "{checkout}" "{ROOT}"  # where the environment looks for the package
        mount -t tmpfs -o mode=755 none /mnt && mkdir /mnt/read-only && mount -o remount,ro /mnt
        hostname no-such-host
        cd /mnt/read-only
        exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups bash -c "$1"
    """
    clean = {name: value for name, value in os.environ.items() if name not in (*LEFT_BY_OTHERS, "HOME")}
    return subprocess.run(
        ["unshare", "-m", "-u", "bash", "-c", script, "container", command],
        env={
            **clean,
            "SPARK_CONF_DIR": str(checkout / "conf" / "local"),
            "PATH": f"{checkout}/.venv/bin:{os.environ['PATH']}",
            "TMPDIR": str(folder / "tmp"),
            "HADOOP_CONF_DIR": str(folder / "hadoop"),
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )


def test_a_job_runs_in_a_bare_container(folder: Path) -> None:
    options = f"--raw-path {folder}/raw --processed-path {folder}/out"
    done = in_a_container(folder, f'spark-submit --driver-memory 1g "{folder}/it\'s mine/jobs/etl.py" {options}')
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ratings: 4 rows in = 4 good" in done.stdout
    assert (folder / "out" / "final" / "movies.parquet").stat().st_uid == NOBODY


def test_a_metastore_in_a_read_only_folder_is_told(folder: Path) -> None:
    options = f"--raw-path {folder}/raw --processed-path {folder}/out"
    done = in_a_container(folder, f'spark-submit --driver-memory 1g "{folder}/it\'s mine/jobs/catalog.py" {options}')
    assert done.returncode == 7, done.stdout + done.stderr
    (error,) = [line for line in done.stdout.splitlines() if " ERROR " in line]
    assert "the metastore cannot be created in /mnt/read-only" in error
    assert "start the job from a folder that you may write" in error
    assert "\tat " not in done.stdout + done.stderr
