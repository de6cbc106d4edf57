"""What the Makefile gives to spark-submit: paths with any letters, and no variable that others left. Without Spark."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.machines.conftest import ROOT

SHOW = r"""#!/bin/sh
printf '%s\n' "$@"
echo "SPARK_CONF_DIR=$SPARK_CONF_DIR"
env | grep -E '^(PYSPARK|SPARK_HOME|HADOOP|PYTHONPATH)'
"""


@pytest.fixture(params=["plain", "it's mine", "a  b"])
def checkout(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A checkout in folders of several names. Set-up does nothing; spark-submit shows what it is given."""
    folder: Path = tmp_path / request.param
    for name, text in (("tools/setup.sh", "#!/bin/sh\n"), (".venv/bin/spark-submit", SHOW)):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    shutil.copy(ROOT / "Makefile", folder)
    return folder


def make(checkout: Path, *words: str, **variables: str) -> list[str]:
    # The tests themselves may be run by make, which would tell an inner one of its options.
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", *words], cwd=checkout, env={**outer, **variables}, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 2), done.stderr
    return done.stdout.splitlines()


def test_make_takes_paths_with_any_letters(checkout: Path) -> None:
    raw, processed, source = "/data/it's raw; x", 's3://bucket/it\'s  "mine"', 'C:\\x "y"'
    shown = make(checkout, "ingest", f"RAW={raw}", f"PROCESSED={processed}", f"SOURCE={source}", "OPTIONS=--set a.b=1")
    assert shown[:9] == [
        "jobs/ingest.py",
        *("--config", "conf/pipeline.toml", "--raw-path", raw, "--processed-path", processed),
        *("--set", f"ingest.source={source}"),
    ]
    assert shown[9:11] == ["--set", "a.b=1"]
    conf = "conf/s3" if " " in checkout.name else f"{checkout}/conf/s3"
    assert shown[11] == f"SPARK_CONF_DIR={conf}"


def test_make_leaves_out_what_is_not_given(checkout: Path) -> None:
    shown = make(checkout, "etl", "PROCESSED=results")
    assert shown[:5] == ["jobs/etl.py", "--config", "conf/pipeline.toml", "--processed-path", "results"]
    conf = "conf/local" if " " in checkout.name else f"{checkout}/conf/local"
    assert shown[5] == f"SPARK_CONF_DIR={conf}"


def test_make_forgets_variables_that_others_left(checkout: Path) -> None:
    left = (
        "SPARK_HOME",
        "PYSPARK_PYTHON",
        "PYSPARK_DRIVER_PYTHON",
        "PYSPARK_SUBMIT_ARGS",
        "HADOOP_CONF_DIR",
        "PYTHONPATH",
    )
    shown = make(checkout, "etl", **dict.fromkeys(left, "/left/by/others"))
    assert not [line for line in shown if "/left/by/others" in line]


def test_the_demo_takes_ratings_from_a_folder_of_any_name(checkout: Path) -> None:
    shown = make(checkout, "demo", "MOVIELENS_DIR=/data/it's mine")
    assert 'ingest.source=["/data/it\'s mine"]' in shown
    assert 'ingest.source=["../shared/data/ml-latest-small","ml-latest-small","synthetic"]' in make(
        checkout, "demo", MOVIELENS_DIR=""
    )


def test_the_demo_in_s3_ends_with_how_to_look_at_it(checkout: Path) -> None:
    (checkout / ".venv" / "bin" / "python").write_text("#!/bin/sh\n")
    (checkout / ".venv" / "bin" / "python").chmod(0o755)
    _, command, _ = make(checkout, "demo-s3")
    assert command.split() == [
        *(".venv/bin/python", "tools/s3_server.py", "demo/s3", "--"),
        *(
            ".venv/bin/python",
            "-m",
            "spark_app",
            "show",
            "--processed-path",
            "s3://processed/movie-reco",
            "--user",
            "1",
        ),
    ]
