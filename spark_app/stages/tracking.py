"""Export of a run to MLflow: its settings, metrics, report and models, where MLflow is installed and a server is set.

MLflow reads its own variables: MLFLOW_TRACKING_URI names the server, MLFLOW_EXPERIMENT_NAME the experiment, and others
hold credentials. So no secret is in the settings or in a manifest.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from pyspark.sql import SparkSession

from spark_app.platform import storage
from spark_app.platform.log import logger
from spark_app.zones.processed import ProcessedZone
from spark_app.zones.stored_models import EXPLICIT, IMPLICIT

SERVER, EXPERIMENT = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"
OUR_EXPERIMENT = "movie-reco"
MODELS = {IMPLICIT: "ranking", EXPLICIT: "rating"}
"""Names of the models in MLflow, by the folder of their factors."""

MAX_PARAM = 500
"""Characters of a parameter that every MLflow server takes."""


def export(zone: ProcessedZone, manifest: Mapping[str, Any]) -> None:
    """Log a run that judged models to MLflow; does nothing where no server is set.

    The results are published already, so a failure is only a warning.
    """
    if not os.environ.get(SERVER) or "ranking" not in manifest["metrics"]:
        return
    if importlib.util.find_spec("mlflow") is None:
        logger.warning("%s is set, but MLflow is not installed: pip install 'movie-reco[mlflow]'", SERVER)
        return
    try:
        _export(SparkSession.active(), zone, manifest)
    except Exception as error:
        logger.warning("the run is not in MLflow: %s: %s", type(error).__name__, " ".join(str(error).split())[:300])
        logger.debug("MLflow: caused by", exc_info=error)


def _export(spark: SparkSession, zone: ProcessedZone, manifest: Mapping[str, Any]) -> None:
    import mlflow  # noqa: PLC0415 - an extra: most installations do not have it
    import mlflow.spark  # noqa: PLC0415

    run_id = manifest["run_id"]
    mlflow.set_tracking_uri(os.environ[SERVER])
    mlflow.set_experiment(os.environ.get(EXPERIMENT, OUR_EXPERIMENT))
    tags = {"movie_reco.run_id": run_id, "movie_reco.job": manifest["job"], "movie_reco.status": manifest["status"]}
    with mlflow.start_run(run_name=run_id, tags=tags, description=manifest["error"]) as run:
        mlflow.log_params(dict(parameters(manifest["settings"])))
        mlflow.log_metrics(dict(metrics(manifest)))
        mlflow.log_text(json.dumps(manifest, indent=2), "manifest.json")
        if storage.exists(zone.report(run_id)):
            mlflow.log_text(storage.read_text(zone.report(run_id)), "report.html")
        for folder, name in MODELS.items():
            path = storage.join(zone.model(run_id), folder)
            if storage.exists(path):
                _log_model(spark, zone, path, name)
        if manifest["status"] != "done":
            mlflow.end_run("FAILED")
    logger.info("logged to MLflow as run %s", run.info.run_id)


def _log_model(spark: SparkSession, zone: ProcessedZone, path: str, name: str) -> None:
    """Log the factors in a folder as a model of MLlib, which `mlflow.spark.load_model` gives back."""
    import mlflow.spark  # noqa: PLC0415
    from pyspark.ml.recommendation import ALSModel  # noqa: PLC0415

    mlflow.spark.log_model(
        ALSModel.load(storage.spark_path(path)),
        name,
        dfs_tmpdir=storage.spark_path(storage.join(zone.staging, "mlflow")),
        # Else MLflow would look for them by loading the model in a process of its own.
        pip_requirements=[f"pyspark=={spark.version}"],
    )


def parameters(settings: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """The settings as parameters: (`section.key`, text); those that are not set are left out."""
    for section, values in settings.items():
        for key, value in values.items():
            if value not in (None, "", []):
                yield f"{section}.{key}", str(value)[:MAX_PARAM]


def metrics(manifest: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The figures of a manifest: (name, value), such as `ranking/implicit/ndcg_at_10`; MLflow allows no `@`."""
    for task in ("ranking", "rating"):
        for model, values in manifest["metrics"].get(task, {}).items():
            for name, value in values.items():
                yield f"{task}/{model}/{name.replace('@', '_at_')}", float(value)
    for table, parts in manifest["rows"].items():
        for part, count in parts.items():
            yield f"rows/{table}/{part}", float(count)
    for stage in manifest["stages"]:
        yield f"seconds/{stage['stage'].replace(' ', '_')}", float(stage["seconds"])
