"""The DAG for Airflow is loaded by Airflow, and its tasks run. Airflow has an environment of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import FEW
from tests.pipeline.conftest import ROOT, Zones

PYTHON = os.environ.get("AIRFLOW_PYTHON") or (sys.executable if importlib.util.find_spec("airflow") else None)
"""The Python of an environment with Airflow 3."""

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not PYTHON, reason="needs Airflow 3: set AIRFLOW_PYTHON to the Python of an environment with it"
    ),
]
DAG = ROOT / "conf" / "airflow" / "movie_reco.py"
STAGES = ["catalog", "etl", "explore", "train", "recommend"]

LOAD = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
dag = bag.dags["movie_reco"]
print(json.dumps({
    "errors": bag.import_errors,
    "order": [task.task_id for task in dag.topological_sort()],
    "after": {task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks},
    "retries": {task.task_id: task.retries for task in dag.tasks},
    "schedule": dag.schedule,
}))
"""
RUN = """
import sys
sys.path.insert(0, sys.argv[1])
import movie_reco
run = movie_reco.dag.test()
print("STATE", run.state)
"""
ONE = """
import sys
sys.path.insert(0, sys.argv[1])
import movie_reco
try:
    movie_reco.run_stage("etl")
except Exception as error:
    print(type(error).__name__, error)
else:
    print("done")
"""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of Airflow, with a database of its own."""
    home = tmp_path_factory.mktemp("airflow")
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAG.parent),
        "MOVIE_RECO_HOME": str(ROOT),
        "MOVIE_RECO_FOLDER": str(home),
    }
    environment.pop("PYTHONPATH", None)
    python(environment, "-m", "airflow", "db", "migrate")
    return environment


def python(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [str(PYTHON), *arguments], env=environment, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_airflow_loads_it(airflow: dict[str, str]) -> None:
    found = json.loads(python(airflow, "-c", LOAD, str(DAG.parent)).splitlines()[-1])
    assert found["errors"] == {}
    assert found["order"] == STAGES
    assert found["after"] == {stage: STAGES[place : place + 1] for place, stage in enumerate(STAGES, start=1)}
    assert set(found["retries"].values()) == {3}
    assert found["schedule"] == "0 3 * * *"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (0, "done"),
        (6, "AirflowException etl: another run holds the lock (exit code 6)"),
        (5, "AirflowFailException etl ended with exit code 5: see its log above"),
    ],
)
def test_only_what_may_pass_is_tried_again(airflow: dict[str, str], tmp_path: Path, code: int, said: str) -> None:
    bin_folder = tmp_path / ".venv" / "bin"
    bin_folder.mkdir(parents=True)
    spark_submit = bin_folder / "spark-submit"
    spark_submit.write_text(f'#!/bin/sh\necho "$PWD $SPARK_CONF_DIR $*" >{tmp_path}/call\nexit {code}\n')
    spark_submit.chmod(0o755)
    environment = {**airflow, "MOVIE_RECO_HOME": str(tmp_path), "MOVIE_RECO_RAW": "/r", "MOVIE_RECO_PROCESSED": "/p"}
    assert python(environment, "-c", ONE, str(DAG.parent)).splitlines()[-1] == said
    call = (tmp_path / "call").read_text().split()
    assert call[:2] == [airflow["AIRFLOW_HOME"], f"{tmp_path}/conf/local"]
    assert call[2] == f"{tmp_path}/jobs/etl.py"
    assert call[3:] == ["--raw-path", "/r", "--processed-path", "/p", "--set", "train.when=new"]


def test_its_tasks_run_the_stages(airflow: dict[str, str], zones: Zones, tmp_path: Path) -> None:
    config = tmp_path / "few.toml"
    config.write_text(FEW)
    submitted = subprocess.run(
        ["spark-submit", str(ROOT / "jobs" / "ingest.py"), "--raw-path", str(zones.raw), "--config", str(config)],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert submitted.returncode == 0
    environment = {
        **airflow,
        "MOVIE_RECO_RAW": str(zones.raw),
        "MOVIE_RECO_PROCESSED": str(zones.processed),
        "MOVIE_RECO_CONFIG": str(config),
        "SPARK_CONF_DIR": os.environ["SPARK_CONF_DIR"],
    }
    assert python(environment, "-c", RUN, str(DAG.parent)).splitlines()[-1].startswith("STATE success")
    assert [manifest["job"] for manifest in zones.manifests()] == STAGES
    assert all(manifest["status"] == "done" for manifest in zones.manifests())
    assert zones.recommendations()
    assert python(environment, "-c", RUN, str(DAG.parent)).splitlines()[-1].startswith("STATE success")
    again = zones.manifests()[len(STAGES) :]
    assert [manifest["status"] for manifest in again] == ["done", *["nothing new"] * 4]
