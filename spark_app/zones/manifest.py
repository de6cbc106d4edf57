"""One run of a job: its id, what it did, and the manifest that records it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import SparkSession

import spark_app
from spark_app.platform import storage
from spark_app.platform.log import logger
from spark_app.platform.settings import Settings

SCHEMA_VERSION = 2
"""The version of manifests and of model.json. Version 1 has no such key, and calls both factorisations `als`."""


def _new_id() -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


NOTHING_NEW = "nothing new"
"""The status of a stage that found that all it would write is there already."""


@dataclass
class StageState:
    """How a stage ends if it does not fail."""

    status: str = "done"


@dataclass
class RunRecord:
    """What a run has done so far; every attribute except the clock is a key of the manifest."""

    job: str
    settings: Settings
    run_id: str = field(default_factory=_new_id)
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    versions: dict[str, str] = field(default_factory=dict)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    rejects: dict[str, dict[str, int]] = field(default_factory=dict)
    profile: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    comparison: dict[str, Any] = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    clock: float = field(default_factory=time.monotonic)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[StageState]:
        """Time a stage, and log its start and end. Within, its status can be set to NOTHING_NEW."""
        logger.info("%s: started", name)
        start, state, status = time.monotonic(), StageState(), "failed"
        try:
            yield state
            status = state.status
        finally:
            seconds = round(time.monotonic() - start, 1)
            self.stages.append({"stage": name, "status": status, "seconds": seconds})
            logger.info("%s: %s in %.1f s", name, status, seconds)

    @property
    def is_nothing_new(self) -> bool:
        """Whether every stage so far found nothing new."""
        return bool(self.stages) and all(stage["status"] == NOTHING_NEW for stage in self.stages)

    @property
    def seconds(self) -> float:
        """How long the run has taken so far."""
        return round(time.monotonic() - self.clock, 1)

    def note_input(self, path: str, **facts: Any) -> None:
        """Note a path that was read, with facts that identify its content; a second note of it changes nothing."""
        if not self.has_read(path):
            self.inputs.append({"path": path, **facts})

    def has_read(self, path: str) -> bool:
        """Whether a path was noted as read."""
        return any(noted["path"] == path for noted in self.inputs)

    def has_written(self, path: str) -> bool:
        """Whether this run published a path."""
        return path in self.outputs

    def note_output(self, path: str) -> None:
        """Note a path that was published."""
        self.outputs.append(path)
        logger.info("wrote %s", path)

    def manifest(self, status: str, error: str | None = None) -> dict[str, Any]:
        """The manifest as JSON values. Times are UTC, durations are seconds."""
        return {
            "schema_version": SCHEMA_VERSION,
            "run_id": self.run_id,
            "job": self.job,
            "status": status,
            "error": error,
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": self.seconds,
            "versions": self.versions,
            "settings": self.settings.model_dump(mode="json"),
            "inputs": self.inputs,
            "rows": self.rows,
            "rejects": self.rejects,
            "profile": self.profile,
            "metrics": self.metrics,
            "comparison": self.comparison,
            "stages": self.stages,
            "outputs": self.outputs,
        }

    def write_manifest(self, path: str, status: str, error: str | None = None) -> None:
        """Write the manifest of this run."""
        storage.write_json(path, self.manifest(status, error))


def versions(spark: SparkSession) -> dict[str, str]:
    """Versions of the software on which a result depends."""
    jvm = spark.sparkContext._jvm
    by_name = {
        "movie-reco": spark_app.__version__,
        "python": platform.python_version(),
        "spark": spark.version,
        "java": str(jvm.java.lang.System.getProperty("java.version")) if jvm else "unknown",
    }
    for package in ("delta-spark", "numpy", "pyarrow"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            by_name[package] = importlib.metadata.version(package)
    return by_name


def read_manifest(path: str) -> dict[str, Any]:
    """The manifest in a file, with the names of the current schema."""
    manifest: dict[str, Any] = storage.read_json(path)
    return with_current_names(manifest)


def with_current_names(facts: dict[str, Any]) -> dict[str, Any]:
    """A manifest, or the facts of stored models, of any schema version, with the names of the current schema."""
    if facts.get("schema_version", 1) >= SCHEMA_VERSION:
        return facts
    renamed = {**facts, "metrics": _metrics_by_current_names(facts.get("metrics", {}))}
    if renamed.get("rating_model") == "als":
        renamed["rating_model"] = "explicit"
    return renamed


def _metrics_by_current_names(metrics: dict[str, Any]) -> dict[str, Any]:
    """Metrics of version 1 with current names: `als` meant `implicit` among rankings, `explicit` among ratings."""
    names = {"ranking": {"als": "implicit"}, "rating": {"als": "explicit"}}

    def renamed(values: dict[str, Any], task: str) -> dict[str, Any]:
        return {names[task].get(model, model): value for model, value in values.items()}

    current = dict(metrics)
    for task in names:
        if task in current:
            current[task] = renamed(current[task], task)
    if "intervals" in current:
        current["intervals"] = {task: renamed(values, task) for task, values in current["intervals"].items()}
    if "slices" in current:
        current["slices"] = [
            {**part, "values": renamed(part["values"], "rating" if part["metric"] == "rmse" else "ranking")}
            for part in current["slices"]
        ]
    if "gate" in current:
        current["gate"] = renamed(current["gate"], "ranking")
    if current.get("rating_model") == "als":
        current["rating_model"] = "explicit"
    return current
