"""`show` on runs: one, the last ones, and two beside each other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from spark_app.ask import main
from spark_app.platform.settings import build_settings
from tests.report.conftest import MANIFEST, METRICS

DAY = "2026010{}T030000Z-aaaa"


@pytest.fixture
def zone(tmp_path: Path) -> Path:
    """A pipeline, another with other settings and metrics, an etl that failed, and one with nothing new."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "catalog.owed").touch()
    better = json.loads(json.dumps(METRICS))
    better["ranking"]["implicit"]["ndcg@10"] = 0.4
    better["intervals"]["ranking"]["implicit"]["ndcg@10"] = [0.38, 0.42]
    settings = build_settings(assignments=["implicit_als.rank=32"]).model_dump(mode="json")
    nothing_new = [{"stage": "etl", "status": "nothing new", "seconds": 1.0}]
    none: dict[str, Any] = {"rows": {}, "metrics": {}, "profile": {}}
    for day, changes in enumerate(
        (
            {},
            {"metrics": better, "settings": settings, "seconds": 80.4},
            {**none, "job": "etl", "status": "failed", "error": "x"},
            {**none, "job": "etl", "status": "nothing new", "stages": nothing_new, "seconds": 1.2},
        ),
        start=1,
    ):
        run_id = DAY.format(day)
        manifest = {
            **MANIFEST,
            "schema_version": 2,
            "run_id": run_id,
            "started": f"2026-01-0{day}T03:00:00+00:00",
            **changes,
        }
        (tmp_path / "runs" / f"{run_id}.json").write_text(json.dumps(manifest))
    return tmp_path


def ask(capsys: pytest.CaptureFixture[str], zone: Path, *question: str) -> str:
    main(["show", "--processed-path", str(zone), *question])
    return capsys.readouterr().out.replace("\u202f", " ")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("│┃ \n").split("│")]


def test_runs_are_one_in_a_line_the_latest_first(
    zone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    lines = [re.split(r" {2,}", line.strip()) for line in ask(capsys, zone, "--runs").splitlines() if "Z-aaaa" in line]
    assert lines == [
        [DAY.format(4), "2026-01-04 03:00", "etl", "nothing new", "-", "-", "-", "1"],
        [DAY.format(3), "2026-01-03 03:00", "etl", "failed", "-", "-", "-", "75"],
        [DAY.format(2), "2026-01-02 03:00", "pipeline", "done", "4", "0.4000", "0.8400", "80"],
        [DAY.format(1), "2026-01-01 03:00", "pipeline", "done", "4", "0.3000", "0.8400", "75"],
    ]
    monkeypatch.setenv("COLUMNS", "80")
    narrow = [line for line in ask(capsys, zone, "--runs").splitlines() if "Z-aaaa" in line]
    assert [line.split() for line in narrow][2] == [DAY.format(2), "pipeline", "done", "4", "0.4000", "0.8400", "80"]
    assert max(map(len, narrow)) <= 80
    assert "The last 1 of 4 runs" in ask(capsys, zone, "--runs", "1")
    assert [run["run_id"] for run in json.loads(ask(capsys, zone, "--runs", "2", "--json"))["runs"]] == [
        DAY.format(4),
        DAY.format(3),
    ]


def test_a_run_without_an_id_is_the_last_pipeline(zone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(ask(capsys, zone, "--run", "--json"))["run_id"] == DAY.format(2)
    assert f"etl {DAY.format(4)}: nothing new in 1 s" in ask(capsys, zone, "--run", DAY.format(4))


def test_two_runs_are_compared_by_settings_and_metrics(zone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = ask(capsys, zone, "--compare", DAY.format(1), DAY.format(2))
    lines = [cells(line) for line in said.splitlines() if line.startswith("│")]
    assert ["implicit_als.rank", "128", "32"] in lines
    assert ["NDCG@10", "0.3000", "0.4000", "33.3 % higher: better"] in lines
    assert ["RMSE", "0.8400", "0.8400", "the same"] in lines
    assert ["ratings: good", "4", "4"] in lines
    assert "cannot be compared" not in said


def test_what_was_measured_otherwise_has_no_verdict(zone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = zone / "runs" / f"{DAY.format(2)}.json"
    manifest = json.loads(path.read_text())
    manifest["settings"]["train"]["relevant"] = 3.5
    path.write_text(json.dumps(manifest))
    said = ask(capsys, zone, "--compare", DAY.format(1), DAY.format(2))
    assert "The metrics cannot be compared, because settings differ that decide on them: train.relevant" in " ".join(
        said.split()
    )
    assert ["NDCG@10", "0.3000", "0.4000", "not comparable"] in [cells(line) for line in said.splitlines()]
    answer = json.loads(ask(capsys, zone, "--compare", DAY.format(1), DAY.format(3), "--json"))
    assert answer["metrics"] == answer["volumes"] == answer["rows"] == {}


def test_what_is_not_there_is_exit_3(zone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for question in (("--compare", DAY.format(1), "nothing"), ("--run", "nothing")):
        with pytest.raises(SystemExit) as ended:
            ask(capsys, zone, *question)
        assert ended.value.code == 3
        assert "runs/nothing.json: there is no such run; `show --runs` lists all" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        ask(capsys, tmp_path / "empty", "--runs")
    assert ended.value.code == 3
