"""What one generation of Spark wrote, the other can read and extend."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from deltalake import DeltaTable

from spark_app.cli import run_job
from spark_app.platform.spark_versions import IS_3
from tests.pipeline.conftest import ROOT, Zones

pytestmark = pytest.mark.long

OTHER = ROOT / (".venv" if IS_3 else ".venv-3.5")
OTHER_CONF = ROOT / "conf" if IS_3 else OTHER / "conf"
MORE = "userId,movieId,rating,timestamp\n1,1,4.5,1700000000\n1,2,0.5,1700000000\n151,3,5.0,1700000000\n"


@pytest.fixture
def other_generation(tmp_path: Path) -> None:
    if not (OTHER / "stamps" / "jars-of-local").exists():
        pytest.skip(f"needs {OTHER.name}: make setup SPARK={'4.1' if IS_3 else '3.5'}")


def submit_to_other(job: str, *options: str, folder: Path) -> str:
    """Run a job on the other generation of Spark, in the folder; returns its output. The job must succeed."""
    mine = ("PYSPARK", "SPARK", "PYTHON")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
    done = subprocess.run(
        ["spark-submit", "--driver-memory", "2g", str(ROOT / "jobs" / f"{job}.py"), *options],
        cwd=folder,
        env={
            **environment,
            "PATH": f"{OTHER / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "SPARK_CONF_DIR": str(OTHER_CONF / "local"),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.mark.usefixtures("other_generation")
def test_tables_and_models_of_one_generation_are_read_and_written_by_the_other(
    zones: Zones, tmp_path: Path, config: str
) -> None:
    assert run_job("ingest", zones.options("--config", config)) == 0
    options = zones.options("--config", config, "--set", "raw.ratings=ratings*.csv")
    for stage in ("etl", "train", "recommend"):
        assert run_job(stage, options) == 0
    ours = zones.recommendations()

    # The same models give the same lists.
    submit_to_other("recommend", *options, folder=tmp_path)
    assert zones.manifests()[-1]["versions"]["spark"][0] == ("4" if IS_3 else "3")
    assert lists_of(zones) == [(row["userId"], row["rank"], row["movieId"], row["reason"]) for row in ours]

    # A further delivery is merged into the same tables, and models are fitted to them.
    (zones.raw / "ratings_more.csv").write_text(MORE)
    submit_to_other("etl", *options, folder=tmp_path)
    assert zones.manifests()[-1]["rows"]["delivery"]["good"] == 3
    submit_to_other("train", *options, folder=tmp_path)

    # The first generation reads and extends the result.
    assert run_job("recommend", options) == 0
    assert zones.manifests()[-1]["versions"]["spark"][0] == ("3" if IS_3 else "4")
    assert "151" in {row["userId"] for row in zones.recommendations()}
    for stage in ("etl", "explore", "maintain"):
        assert run_job(stage, options) == 0
    submit_to_other("recommend", *options, folder=tmp_path)

    # No table has a feature that only one generation knows.
    for table in (zones.processed / "delta").iterdir():
        protocol = DeltaTable(table).protocol()
        assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2)


def lists_of(zones: Zones) -> list[tuple[str, ...]]:
    return [(row["userId"], row["rank"], row["movieId"], row["reason"]) for row in zones.recommendations()]
