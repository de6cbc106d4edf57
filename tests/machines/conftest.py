"""Other machines, made from this one: another user, another root, folders that are read-only or run no programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyspark
import pytest

from tools.conf import CONF

ROOT = Path(__file__).resolve().parents[2]
SPARK_HOME = Path(pyspark.__file__).parent
SUBMIT = "org.apache.spark.deploy.SparkSubmit"
LEFT_BY_OTHERS = ("SPARK_HOME", "SPARK_ENV_LOADED", "PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON", "SPARK_SUBMIT_OPTS")

# What spark-class does before it starts Java.
START = r"""
set -a; . ${SPARK_CONF_DIR}/spark-env.sh; set +a
env -0; declare -F
"""


def start(
    *arguments: str, conf: Path = CONF / "local", before: tuple[str, ...] = (), **variables: str
) -> tuple[int, dict[str, str], str]:
    """What a command of Spark makes of its environment before Java: an exit code, the environment, standard error.

    `before` is a command that bash is started by.
    """
    clean = {name: value for name, value in os.environ.items() if name not in LEFT_BY_OTHERS}
    environment = {**clean, "SPARK_HOME": str(SPARK_HOME), "SPARK_CONF_DIR": str(conf), **variables}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [*before, "bash", "-c", START, "spark-class", *arguments],
        env={"PATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    pairs = (line.partition("=") for line in done.stdout.split("\0"))
    return done.returncode, {name: value for name, _, value in pairs}, done.stderr.strip()


@pytest.fixture(scope="session")
def may_unshare() -> None:
    """Skip a test where this user may not make mounts of its own."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to unshare mounts")
