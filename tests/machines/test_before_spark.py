"""What conf/machine.sh settles or refuses before Spark starts, without Spark."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machines.conftest import ROOT, SUBMIT, start
from tools.conf import CONF

JOB = (SUBMIT, str(ROOT / "jobs" / "etl.py"))


@pytest.fixture
def reachable(tmp_path: Path) -> Iterator[Path]:
    """A copy of the settings in a folder that other users may read."""
    folder = Path("/var/tmp") / f"movie-reco-{tmp_path.parent.name}-{tmp_path.name}"
    shutil.copytree(CONF, folder / "conf", ignore=shutil.ignore_patterns("aws"))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    yield folder / "conf" / "local"
    shutil.rmtree(folder)


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_usual_machine_is_left_as_it_is() -> None:
    code, told, error = start(*JOB)
    assert (code, error) == (0, "")
    assert "SPARK_SUBMIT_OPTS" not in told
    assert "LD_PRELOAD" not in told
    assert told["SPARK_LOCAL_IP"] == "127.0.0.1"
    assert not [name for name in told if "movie_reco" in name]


def test_settings_of_hadoop_are_left_aside_on_one_machine() -> None:
    _, told, _ = start(*JOB, HADOOP_CONF_DIR="/etc/hadoop", YARN_CONF_DIR="/etc/hadoop")
    assert not {"HADOOP_CONF_DIR", "YARN_CONF_DIR"} & set(told)


def test_on_a_cluster_addresses_and_settings_of_hadoop_stay() -> None:
    code, told, _ = start(*JOB, conf=CONF / "cluster", HADOOP_CONF_DIR="/etc/hadoop")
    assert code == 0
    assert "SPARK_LOCAL_IP" not in told
    assert told["HADOOP_CONF_DIR"] == "/etc/hadoop"


def test_a_driver_that_is_no_python_is_named(tmp_path: Path) -> None:
    jupyter = program(tmp_path / "jupyter", "echo 'no such command' >&2; exit 1")
    code, _, error = start(*JOB, PYSPARK_DRIVER_PYTHON=str(jupyter))
    assert code == 2
    assert error == (
        f"movie-reco: PYSPARK_DRIVER_PYTHON={jupyter} is no Python that can run a job: unset it, and put .venv/bin of "
        "movie-reco first on PATH"
    )


def test_a_python_without_the_packages_is_named(tmp_path: Path) -> None:
    bare = program(tmp_path / "python3", "printf '3.11\\nlacks pyspark\\n'; exit 1")
    code, _, error = start(*JOB, PYSPARK_PYTHON=str(bare))
    assert code == 2
    assert f"PYSPARK_PYTHON={bare} has not the packages of movie-reco (it lacks pyspark): unset it" in error
    code, _, error = start(*JOB, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert code == 2
    assert f"the first python3 on PATH ({bare}) has not the packages" in error


def test_workers_of_another_python_are_named_before_anything_is_fitted(tmp_path: Path) -> None:
    other = program(tmp_path / "python", "echo 3.7")
    code, _, error = start(*JOB, PYSPARK_DRIVER_PYTHON="python3", PYSPARK_PYTHON=str(other))
    assert code == 2
    assert f"PYSPARK_PYTHON={other} is Python 3.7, but the job runs on Python 3." in error


def test_another_spark_is_named(tmp_path: Path) -> None:
    (tmp_path / "jars").mkdir()
    (tmp_path / "jars" / "spark-core_2.12-3.3.4.jar").touch()
    code, _, error = start(*JOB, SPARK_HOME=str(tmp_path))
    assert code == 2
    assert f"SPARK_HOME={tmp_path} is not Spark " in error
    assert error.endswith("unset SPARK_HOME, and put .venv/bin of movie-reco first on PATH")


def test_spark_connect_is_named() -> None:
    code, _, error = start(*JOB, SPARK_REMOTE="sc://host")
    assert code == 2
    assert "SPARK_REMOTE=sc://host sends jobs to Spark Connect" in error


def test_other_commands_of_spark_may_run_on_other_pythons(tmp_path: Path) -> None:
    jupyter = program(tmp_path / "jupyter", "exit 1")
    code, _, error = start(SUBMIT, "pyspark-shell-main", PYSPARK_DRIVER_PYTHON=str(jupyter))
    assert (code, error) == (0, "")


@pytest.mark.skipif(shutil.which("java") is None, reason="set-up's own Java goes first")
def test_an_old_java_is_named_with_its_version(tmp_path: Path) -> None:
    java = program(tmp_path / "java-11" / "bin" / "java", "echo 'openjdk version \"11.0.2\" 2019-01-15' >&2")
    code, _, error = start(*JOB, JAVA_HOME=str(tmp_path / "java-11"))
    assert code == 2
    assert f"{java} is Java 11, and Spark needs Java 17 or 21: set JAVA_HOME" in error
    (tmp_path / "java-11" / "release").write_text('JAVA_VERSION="1.8.0_392"\n')
    assert "is Java 1, and" in start(*JOB, JAVA_HOME=str(tmp_path / "java-11"))[2]
    assert "there is no Java (JAVA_HOME=/nowhere" in start(*JOB, JAVA_HOME="/nowhere")[2]


def test_help_starts_no_spark() -> None:
    code, told, error = start(*JOB, "--help", JAVA_HOME="/nowhere")
    assert (code, error) == (0, "")
    assert next(iter(told)).startswith("usage: spark-submit jobs/etl.py")


def as_user(uid: int) -> tuple[str, ...]:
    return ("setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups")


@pytest.mark.usefixtures("may_unshare")
def test_a_user_without_an_entry_gets_one_or_is_told(reachable: Path, tmp_path: Path) -> None:
    code, told, error = start("org.Other", conf=reachable, before=as_user(54321))
    if code:
        assert error == (
            "movie-reco: user 54321 has no entry in /etc/passwd, which Java needs: start as a user that has one, add "
            "one, or install libnss-wrapper"
        )
    else:
        assert told["LD_PRELOAD"].endswith("/libnss_wrapper.so")
        shutil.rmtree(told["HOME"])


@pytest.mark.usefixtures("may_unshare")
def test_a_user_without_a_home_gets_a_private_one(reachable: Path) -> None:
    nobody = 65534
    code, told, error = start(
        "org.Other", conf=reachable, before=as_user(nobody), HOME="/nonexistent", TMPDIR="/var/tmp"
    )
    assert (code, error) == (0, "")
    home = Path(f"/var/tmp/movie-reco-{nobody}")
    assert told["HOME"] == str(home)
    assert told["SPARK_SUBMIT_OPTS"].strip() == f'-Duser.home="{home}"'
    assert home.stat().st_mode & 0o777 == 0o700
    assert home.stat().st_uid == nobody
    home.rmdir()


@pytest.mark.usefixtures("may_unshare")
def test_a_home_that_others_prepared_is_refused(reachable: Path) -> None:
    home = Path("/var/tmp/movie-reco-65534")
    home.mkdir()
    code, _, error = start("org.Other", conf=reachable, before=as_user(65534), HOME="/nonexistent", TMPDIR="/var/tmp")
    home.rmdir()
    assert code == 2
    assert "the temporary folder /var/tmp cannot be written" in error


@pytest.mark.usefixtures("may_unshare")
def test_java_unpacks_its_programs_where_they_may_run(reachable: Path, tmp_path: Path) -> None:
    noexec = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs -o noexec,mode=1777 none /tmp; exec "$@"', "sh")
    code, told, error = start("org.Other", conf=reachable, before=noexec, TMPDIR="/var/tmp")
    assert (code, error) == (0, "")
    assert told["SPARK_SUBMIT_OPTS"].strip() == '-Djava.io.tmpdir="/var/tmp"'


@pytest.mark.usefixtures("may_unshare")
def test_no_folder_that_runs_programs_is_told(reachable: Path) -> None:
    mount = "mount --bind $folder $folder && mount -o remount,bind,noexec $folder"
    mounts = f"for folder in /tmp /var/tmp /root; do {mount}; done"
    nowhere = ("unshare", "-m", "sh", "-c", f'{mounts}; cd /tmp; exec "$@"', "sh")
    code, _, error = start("org.Other", conf=reachable, before=nowhere)
    assert code == 2
    assert error == (
        "movie-reco: /tmp cannot be written or allows no programs (noexec), nor does another folder: "
        "set TMPDIR to one that does"
    )
