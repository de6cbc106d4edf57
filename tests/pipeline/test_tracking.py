"""What of a run goes to MLflow, and that a run without it, or without its server, ends well."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from spark_app.platform.settings import Settings
from spark_app.stages import tracking
from spark_app.zones.processed import ProcessedZone
from tests.conftest import FEW
from tests.pipeline.conftest import Zones
from tests.report.conftest import MANIFEST

Job = Callable[..., tuple[int, str]]
SERVER = os.environ.get("MLFLOW_SERVER") or shutil.which("mlflow")
"""An `mlflow` command that can serve: the extra has the client alone."""

STARTS_IN = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a tracking server on the loopback."""
    pytest.importorskip("mlflow", reason="needs MLflow: pip install -r requirements/mlflow.lock")
    if not SERVER:
        pytest.skip("needs a server of MLflow: pip install mlflow, or MLFLOW_SERVER=a command of another environment")
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = ["--backend-store-uri", f"sqlite:///{folder}/runs.db", "--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log").open("w") as log:
        serving = subprocess.Popen(
            [SERVER, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *store],
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    address, until = f"http://127.0.0.1:{port}", time.monotonic() + STARTS_IN
    while not is_up(address):
        assert serving.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < until, (folder / "log").read_text()
        time.sleep(0.5)
    yield address
    serving.terminate()
    serving.wait(30)


def is_up(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except OSError:
        return False


def test_a_pipeline_is_logged_with_its_settings_metrics_report_and_models(
    server: str, zones: Zones, job: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import mlflow  # noqa: PLC0415
    import mlflow.spark  # noqa: PLC0415

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    config = tmp_path / "few.toml"
    config.write_text(FEW)
    code, said = job("pipeline", "--config", str(config))
    assert (code, "logged to MLflow as run" in said) == (0, True), said
    manifest = zones.manifests()[-1]

    mlflow.set_tracking_uri(server)
    (run,) = mlflow.MlflowClient().search_runs([mlflow.get_experiment_by_name("movie-reco").experiment_id])
    assert (run.info.run_name, run.info.status) == (manifest["run_id"], "FINISHED")
    assert run.data.params["implicit_als.rank"] == "8"
    of_lists = manifest["metrics"]["ranking"]["implicit"]
    assert run.data.metrics["ranking/implicit/ndcg_at_10"] == pytest.approx(of_lists["ndcg@10"])
    assert run.data.metrics["rows/ratings/good"] == manifest["rows"]["ratings"]["good"]
    logged = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, dst_path=str(tmp_path / "logged")))
    assert json.loads((logged / "manifest.json").read_text())["run_id"] == manifest["run_id"]
    report = zones.processed / "reports" / f"{manifest['run_id']}.html"
    assert (logged / "report.html").read_text() == report.read_text()

    assert all((logged / model / "MLmodel").is_file() for model in ("ranking", "rating"))
    loaded = mlflow.spark.load_model(f"runs:/{run.info.run_id}/ranking", dfs_tmpdir=str(tmp_path / "dfs"))
    factors = loaded.stages[0].itemFactors.toPandas().sort_values("id")
    stored = pd.read_parquet(zones.processed / "models" / manifest["run_id"] / "implicit_als" / "itemFactors")
    np.testing.assert_array_equal(np.stack(factors.features), np.stack(stored.sort_values("id").features))


def test_a_run_that_its_gate_has_stopped_is_logged_as_failed(
    server: str, zones: Zones, job: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import mlflow  # noqa: PLC0415

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "stopped")
    config = tmp_path / "few.toml"
    config.write_text(FEW)
    assert job("pipeline", "--config", str(config), "--set", "gate.min_lift=100")[0] == 5
    mlflow.set_tracking_uri(server)
    (run,) = mlflow.MlflowClient().search_runs([mlflow.get_experiment_by_name("stopped").experiment_id])
    assert (run.info.run_name, run.info.status) == (zones.manifests()[-1]["run_id"], "FAILED")


def test_a_server_that_is_down_is_only_a_warning(monkeypatch: pytest.MonkeyPatch, said: list[str], spark: Any) -> None:
    pytest.importorskip("mlflow", reason="needs MLflow: pip install -r requirements/mlflow.lock")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracking.export(ProcessedZone("/nowhere"), MANIFEST)
    assert next(message.partition(":")[0] for message in said if "MLflow" in message) == "the run is not in MLflow"


def test_where_mlflow_is_not_installed_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mlflow" else find_spec(name))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracking.export(ProcessedZone("/nowhere"), MANIFEST)
    assert said == []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    tracking.export(ProcessedZone("/nowhere"), {**MANIFEST, "metrics": {}})
    assert said == []
    tracking.export(ProcessedZone("/nowhere"), MANIFEST)
    assert said == [
        "MLFLOW_TRACKING_URI is set, but MLflow is not installed: pip install 'movie-reco[mlflow]'",
    ]


def test_names_are_those_that_mlflow_takes() -> None:
    parameters = dict(tracking.parameters(Settings().model_dump(mode="json")))
    assert parameters["train.k"] == "10"
    assert "raw.path" not in parameters
    metrics = dict(tracking.metrics(MANIFEST))
    assert metrics["ranking/implicit/ndcg_at_10"] == 0.3
    assert metrics["rating/stacked/rmse"] == 0.84
    assert metrics["rows/ratings/good"] == 4
    assert metrics["seconds/etl"] == 12.5
    assert not any("@" in name for name in metrics)
