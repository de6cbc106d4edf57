"""The nightly run of movie-reco as a DAG of Airflow 3: a task for each stage, which starts it by spark-submit.

Put this file into Airflow's folder of DAGs, and set these variables for its workers:

- MOVIE_RECO_HOME: a checkout of movie-reco after `make setup`, as an absolute path.
- MOVIE_RECO_RAW, MOVIE_RECO_PROCESSED: the roots of both zones, as absolute paths or URIs.
- MOVIE_RECO_CONFIG: settings for `--config`; left out: the defaults.
- MOVIE_RECO_FOLDER: where the jobs start, so where the metastore lies; left out: the checkout.
- MOVIE_RECO_SPARK_CONF: the folder for SPARK_CONF_DIR; left out: conf/local of the checkout.
- MOVIE_RECO_SCHEDULE: when it runs, as cron writes it; left out: each night at 3.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException

STAGES = ("catalog", "etl", "explore", "train", "recommend")
MAY_PASS = {6: "another run holds the lock", 7: "storage was unreachable"}
"""The exit codes after which another try may succeed. All others need a person, so they fail at once."""


def run_stage(stage: str) -> None:
    """Run a stage by spark-submit; a new try can follow only if that may help."""
    home = Path(os.environ["MOVIE_RECO_HOME"])
    zones = ["--raw-path", os.environ["MOVIE_RECO_RAW"], "--processed-path", os.environ["MOVIE_RECO_PROCESSED"]]
    config = ["--config", os.environ["MOVIE_RECO_CONFIG"]] if os.environ.get("MOVIE_RECO_CONFIG") else []
    environment = {
        **os.environ,
        "SPARK_CONF_DIR": os.environ.get("MOVIE_RECO_SPARK_CONF", str(home / "conf" / "local")),
        # The Python of the checkout, not that of Airflow.
        "PATH": f"{home / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    command = ["spark-submit", str(home / "jobs" / f"{stage}.py"), *zones, *config, "--set", "train.when=new"]
    folder = os.environ.get("MOVIE_RECO_FOLDER", home)
    code = subprocess.run(command, cwd=folder, env=environment, check=False).returncode  # noqa: S603
    if code in MAY_PASS:
        raise AirflowException(f"{stage}: {MAY_PASS[code]} (exit code {code})")
    if code:
        raise AirflowFailException(f"{stage} ended with exit code {code}: see its log above")


with DAG(
    "movie_reco",
    description="New ratings -> models and lists; where nothing is new, every stage ends in seconds.",
    schedule=os.environ.get("MOVIE_RECO_SCHEDULE", "0 3 * * *"),
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=10)},
    doc_md=__doc__,
) as dag:
    tasks = [task(task_id=stage)(run_stage)(stage) for stage in STAGES]
    for earlier, later in itertools.pairwise(tasks):
        earlier >> later
