"""Jobs on a cluster of real processes give the same results as on one machine, and a lost machine costs only time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from spark_app.cli import run_job
from tests.cluster.conftest import Cluster
from tests.pipeline.conftest import Zones

pytestmark = pytest.mark.long

SMALL = (
    *("--set", "ingest.source=synthetic", "--set", "ingest.users=300"),
    *("--set", "ingest.movies=400", "--set", "ingest.ratings=15000"),
    *("--set", "explicit_als.rank=8", "--set", "implicit_als.rank=16"),
    *("--set", "explicit_als.iterations=6", "--set", "implicit_als.iterations=30", "--set", "train.tolerance=0"),
)
"""Generated ratings, and a fit that takes long enough to kill a worker meanwhile."""

BY_MLLIB = ("--set", "train.solver=mllib", "--set", "implicit_als.iterations=6")
"""Fits by MLlib with just enough iterations to reach a checkpoint."""

LOST = "Lost executor"
"""Spark's log message about an executor that was killed while a job runs."""


@pytest.fixture(scope="module")
def alone(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Zones:
    """The zones after each stage ran on one machine, in the session of the tests, on generated ratings."""
    folder = tmp_path_factory.mktemp("alone")
    zones = Zones(folder / "raw", folder / "processed")
    for stage in ("ingest", "etl", "train", "recommend"):
        assert run_job(stage, zones.options(*SMALL)) == 0
    return zones


def test_the_pipeline_gives_the_same_on_a_cluster_as_on_one_machine(
    cluster: Cluster, alone: Zones, tmp_path: Path
) -> None:
    cluster.have_workers(2)
    zones = Zones(tmp_path / "raw", tmp_path / "processed")
    job = cluster.submit("pipeline", *zones.options(*SMALL))
    job.check_done()
    assert LOST not in job.output()
    assert_same_results(zones, alone)


def test_a_worker_killed_while_models_are_fitted_and_one_while_lists_are_made_cost_only_time(
    cluster: Cluster, alone: Zones, tmp_path: Path
) -> None:
    zones = without_models(alone, tmp_path)
    cluster.have_workers(2)
    train = cluster.submit("train", *zones.options(*SMALL, "--set", "log.level=debug"))
    train.wait_until(lambda: "fitting implicit ALS: half sweep 5 of 60" in train.output())
    assert "fitting implicit ALS: half sweep 40 of 60" not in train.output()
    cluster.kill_worker()
    train.check_done()
    assert LOST in train.output()

    cluster.have_workers(2)
    recommend = cluster.submit("recommend", *zones.options(*SMALL))
    recommend.wait_until(lambda: any((zones.processed / "delta" / "recommendations").glob("*.parquet")))
    cluster.kill_worker()
    recommend.check_done()
    assert LOST in recommend.output()
    assert_same_results(zones, alone)


def test_a_worker_killed_while_mllib_fits_costs_only_time(cluster: Cluster, alone: Zones, tmp_path: Path) -> None:
    expected = without_models(alone, tmp_path / "alone")
    assert run_job("train", expected.options(*SMALL, *BY_MLLIB)) == 0

    zones = without_models(alone, tmp_path / "cluster")
    cluster.have_workers(2)
    train = cluster.submit("train", *zones.options(*SMALL, *BY_MLLIB))
    train.wait_until(lambda: "fitting implicit ALS" in train.output())
    before = checkpoints(zones)
    train.wait_until(lambda: checkpoints(zones) > before)
    cluster.kill_worker()
    train.check_done()
    assert LOST in train.output()
    assert metrics_of(zones) == pytest.approx(metrics_of(expected), rel=1e-3)


def without_models(alone: Zones, folder: Path) -> Zones:
    """A copy of the zones, without the results of `train` and `recommend`."""
    zones = Zones(alone.raw, folder / "processed")
    shutil.copytree(alone.processed, zones.processed)
    for result in ("models", "recommendations", "delta/recommendations"):
        shutil.rmtree(zones.processed / result)
    return zones


def checkpoints(zones: Zones) -> int:
    """The number of checkpoints that the fits of a running job have started to write."""
    return len(list((zones.processed / "_staging" / "checkpoints").glob("*/rdd-*")))


def assert_same_results(actual: Zones, expected: Zones) -> None:
    """Movies, metrics and lists agree, except in the last digits of sums; these can swap two movies of equal score."""
    actual_movies, expected_movies = (pd.read_parquet(zones.processed / "final") for zones in (actual, expected))
    pd.testing.assert_frame_equal(actual_movies, expected_movies, rtol=1e-9)
    assert metrics_of(actual) == pytest.approx(metrics_of(expected), rel=1e-3)

    numbers = ["predicted_rating", "score"]
    lists, expected_lists = (
        pd.DataFrame(zones.recommendations()).astype(dict.fromkeys(numbers, float)) for zones in (actual, expected)
    )
    assert len(lists) == len(expected_lists) > 0
    places = ["userId", "rank", "score"]
    pd.testing.assert_frame_equal(lists[places], expected_lists[places], atol=1e-3)
    both = lists.merge(
        expected_lists, on=["userId", "movieId", "title", "genres", "reason"], suffixes=("", "_expected")
    )
    assert len(both) >= 0.99 * len(lists)
    for number in numbers:
        assert both[number].to_numpy() == pytest.approx(both[f"{number}_expected"].to_numpy(), abs=2e-3)


def metrics_of(zones: Zones) -> dict[str, float]:
    """The metrics of the published models, by their path in the JSON."""
    folder = zones.processed / "models"
    run_id = json.loads((folder / "current.json").read_text())["run_id"]
    return dict(_flat("", json.loads((folder / run_id / "model.json").read_text())["metrics"]))


def _flat(name: str, value: Any) -> list[tuple[str, float]]:
    if isinstance(value, dict):
        return [entry for key, part in value.items() for entry in _flat(f"{name}.{key}", part)]
    if isinstance(value, list):
        return [entry for place, part in enumerate(value) for entry in _flat(f"{name}.{place}", part)]
    return [(name, value)] if isinstance(value, (int, float)) else []
