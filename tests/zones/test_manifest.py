from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from spark_app.platform.log import logger, set_up
from spark_app.platform.settings import Log, Settings
from spark_app.zones.manifest import SCHEMA_VERSION, RunRecord, read_manifest


def test_runs_have_ids_of_their_own_that_begin_with_the_time() -> None:
    first, second = RunRecord("etl", Settings()), RunRecord("etl", Settings())
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{4}", first.run_id)
    assert first.run_id != second.run_id


def test_stages_are_noted_with_how_they_ended() -> None:
    run = RunRecord("pipeline", Settings())
    with run.stage("ingest"):
        pass
    with pytest.raises(RuntimeError), run.stage("etl"):
        raise RuntimeError
    assert [(stage["stage"], stage["status"]) for stage in run.stages] == [("ingest", "done"), ("etl", "failed")]
    assert all(0 <= stage["seconds"] < 5 for stage in run.stages)


def test_manifest_is_json_that_tells_what_the_run_did(tmp_path: Path) -> None:
    run = RunRecord("etl", Settings(), run_id="20250601T120000Z-0001")
    run.rows["movies"] = {"in": 3, "good": 2, "rejected": 1, "superseded": 0}
    run.note_output("/out/delta/movies")
    path = tmp_path / "runs" / "manifest.json"
    run.write_manifest(str(path), "failed", "the disk is full")
    found = json.loads(path.read_text())
    assert (found["run_id"], found["job"]) == ("20250601T120000Z-0001", "etl")
    assert (found["status"], found["error"]) == ("failed", "the disk is full")
    assert found["rows"] == {"movies": {"in": 3, "good": 2, "rejected": 1, "superseded": 0}}
    assert found["outputs"] == ["/out/delta/movies"]
    assert found["settings"]["clean"]["earliest"] == "1990-01-01"


@pytest.fixture
def restored_logger() -> object:
    kept = logger.handlers, logger.level, logger.propagate
    yield
    logger.handlers, logger.level, logger.propagate = kept


@pytest.mark.usefixtures("restored_logger")
def test_log_is_a_readable_line_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(Log(level="warning"))
    logger.info("too small to tell")
    logger.warning("3 rejected: %s", "title is empty")
    assert re.fullmatch(r"\d\d:\d\d:\d\d WARNING 3 rejected: title is empty\n", capsys.readouterr().err)

    set_up(Log(format="json"), job="etl", run_id="7")
    logger.info("Am\u00e9lie")
    event = json.loads(capsys.readouterr().err)
    assert datetime.fromisoformat(event.pop("time")).tzinfo == UTC
    assert event == {"level": "INFO", "message": "Am\u00e9lie", "job": "etl", "run_id": "7"}
    assert logger.level == logging.INFO


def test_a_manifest_of_the_first_schema_is_read_by_the_names_of_today(tmp_path: Path) -> None:
    old = {
        "run_id": "1",
        "metrics": {
            "ranking": {"als": {"ndcg@10": 0.3}, "popularity": {"ndcg@10": 0.2}},
            "rating": {"als": {"rmse": 0.9}, "bias": {"rmse": 0.95}},
            "intervals": {"ranking": {"als": {"ndcg@10": [0.2, 0.4]}}, "rating": {"als": {"rmse": [0.8, 1.0]}}},
            "slices": [
                {"slice": "few", "metric": "ndcg@10", "count": 1, "values": {"als": 0.1}},
                {"slice": "few", "metric": "rmse", "count": 1, "values": {"als": 0.9, "stacked": 0.8}},
            ],
            "gate": {"metric": "ndcg@10", "als": 0.3, "popularity": 0.2, "passed": True},
            "rating_model": "als",
        },
    }
    (tmp_path / "1.json").write_text(json.dumps(old))
    metrics = read_manifest(str(tmp_path / "1.json"))["metrics"]
    assert metrics["ranking"] == {"implicit": {"ndcg@10": 0.3}, "popularity": {"ndcg@10": 0.2}}
    assert metrics["rating"] == {"explicit": {"rmse": 0.9}, "bias": {"rmse": 0.95}}
    assert metrics["intervals"]["ranking"] == {"implicit": {"ndcg@10": [0.2, 0.4]}}
    assert metrics["intervals"]["rating"] == {"explicit": {"rmse": [0.8, 1.0]}}
    assert [each["values"] for each in metrics["slices"]] == [{"implicit": 0.1}, {"explicit": 0.9, "stacked": 0.8}]
    assert metrics["gate"]["implicit"] == 0.3
    assert metrics["rating_model"] == "explicit"


def test_a_manifest_of_today_is_read_as_it_is(tmp_path: Path) -> None:
    run = RunRecord("train", Settings())
    run.metrics = {"ranking": {"implicit": {"ndcg@10": 0.3}}}
    run.write_manifest(str(tmp_path / "2.json"), "done")
    found = read_manifest(str(tmp_path / "2.json"))
    assert found["schema_version"] == SCHEMA_VERSION
    assert found["metrics"] == run.metrics
