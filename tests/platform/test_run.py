from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from spark_app.platform.log import logger, set_up
from spark_app.platform.run import Run
from spark_app.platform.settings import Log, Settings


def test_runs_have_ids_of_their_own_that_begin_with_the_time() -> None:
    first, second = Run("etl", Settings()), Run("etl", Settings())
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{4}", first.run_id)
    assert first.run_id != second.run_id


def test_stages_are_noted_with_how_they_ended() -> None:
    run = Run("pipeline", Settings())
    with run.stage("ingest"):
        pass
    with pytest.raises(RuntimeError), run.stage("etl"):
        raise RuntimeError
    assert [(stage["stage"], stage["status"]) for stage in run.stages] == [("ingest", "done"), ("etl", "failed")]
    assert all(0 <= stage["seconds"] < 5 for stage in run.stages)


def test_manifest_is_json_that_tells_what_the_run_did(tmp_path: Path) -> None:
    run = Run("etl", Settings(), run_id="20250601T120000Z-0001")
    run.rows["movies"] = {"in": 3, "good": 2, "rejected": 1, "superseded": 0}
    run.wrote("/out/delta/movies")
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
