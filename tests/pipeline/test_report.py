"""Reports of real runs: of the pipeline, of `explore` alone, and of a run that was stopped at its gate."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from playwright.sync_api import Browser

from spark_app.cli import run_job
from spark_app.report.words import reason_as_read
from spark_app.zones import report_data
from spark_app.zones.processed import ProcessedZone
from tests.pipeline.conftest import MOVIELENS, RATINGS, Zones

Job = Callable[..., tuple[int, str]]
SMALL = [
    *("--set", "ingest.source=synthetic", "--set", "ingest.users=80", "--set", "ingest.movies=100"),
    *("--set", "ingest.ratings=2000", "--set", "implicit_als.rank=4", "--set", "explicit_als.rank=4"),
]


def report(zones: Zones, manifest: dict[str, Any]) -> str:
    path = zones.processed / "reports" / f"{manifest['run_id']}.html"
    assert str(path) in manifest["outputs"]
    return path.read_text(encoding="utf-8")


def words(html: str) -> str:
    """The text of a page, tables and all, without its tags."""
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.DOTALL).replace("\u202f", " ").split())


def test_the_pipeline_reports_what_it_did(movielens: Zones) -> None:
    (manifest,) = movielens.manifests()
    text = words(report(movielens, manifest))
    metrics = manifest["metrics"]["ranking"]
    times = metrics["implicit"]["ndcg@10"] / metrics["popularity"]["ndcg@10"]
    assert f"the recommendations are {times:.2f} times as good as a list of the most popular movies" in text
    assert "4 is given most often, 27 % of the time. The mean is 3.50." in text
    assert "100,836 in = 100,836 good + 0 rejected + 0 superseded" in text
    assert "6,100 recommendations" in text
    assert "Since the last run" not in text
    assert manifest["comparison"] == {}
    assert f"reports/{manifest['run_id']}.html" in (movielens.processed / "stdout.txt").read_text(encoding="utf-8")
    (stage,) = [stage for stage in manifest["stages"] if stage["stage"] == "report"]
    assert stage["seconds"] < 15  # 2 on an idle machine


def test_the_users_shown_are_those_of_the_published_lists(movielens: Zones) -> None:
    text = words(report(movielens, movielens.manifests()[0]))
    ratings = pd.read_csv(MOVIELENS / "ratings.csv")
    counts = ratings.groupby("userId").size().reset_index(name="count").sort_values(["count", "userId"])
    lists = pd.DataFrame(movielens.recommendations())
    for place in (61, 304, 548):  # a tenth, half and nine tenths of the way from the first to the last of 610
        alike = counts[counts["count"] == counts["count"].iloc[place]]
        user = str(alike.userId.min())
        assert f"User {user} " in text
        first = lists[(lists.userId == user) & (lists["rank"] == "1")].iloc[0]
        assert (
            reason_as_read(first.reason).replace("'", "&#39;").replace("&", "&amp;").replace("&amp;#39;", "&#39;")
            in text
        )


@pytest.mark.parametrize("width", [360, 1280])
def test_the_report_of_a_real_run_fits_and_asks_for_nothing(
    movielens: Zones,
    browser: Browser,
    width: int,
) -> None:
    (path,) = (movielens.processed / "reports").iterdir()
    page = browser.new_page(viewport={"width": width, "height": 800})
    asked: list[str] = []
    page.on("request", lambda asking: asked.append(asking.url))
    page.on("console", lambda message: asked.append(message.text))
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    page.close()


def test_explore_alone_reports_the_data_and_compares_it_with_the_run_before(zones: Zones, job: Job) -> None:
    zones.deliver()
    assert job("etl")[0] == 0
    assert job("explore")[0] == 0
    first = zones.manifests()[-1]
    text = words(report(zones, first))
    assert first["comparison"] == {}
    assert "A look at the data: no model is published yet." in text
    assert "4 in = 4 good + 0 rejected + 0 superseded" in text  # the counts of the run before, of etl
    assert "What people get" not in text

    # So far 0.5, 3.5, 4 and 5 are given 1, 1, 1, 1 times; from now on 2, 1, 1, 1 times.
    zones.deliver(ratings=RATINGS + "1,3,0.5,964983900\n")
    assert job("etl")[0] == 0
    assert job("explore")[0] == 0
    second = zones.manifests()[-1]
    assert second["comparison"]["run_id"] == first["run_id"]
    assert second["comparison"]["volumes"]["ratings"] == {"before": 4, "after": 5}
    drift = second["comparison"]["drift"]["rating_distribution"]
    # 0.15 ln 1.6 + 3 x -0.05 ln 0.8
    assert drift == {"psi": pytest.approx(0.1039720771), "verdict": "moved"}
    assert "ratings 4 5 +25.0 %" in words(report(zones, second))


def test_a_run_stopped_at_its_gate_has_a_report_too(zones: Zones, job: Job) -> None:
    assert job("pipeline", *SMALL, "--set", "gate.min_lift=100")[0] == 5
    failed = zones.manifests()[-1]
    assert failed["status"] == "failed"
    text = words(report(zones, failed))
    assert "This run was stopped" in text
    assert "It failed its gate" in text
    assert [stage["stage"] for stage in failed["stages"]][-1] == "report"
    assert job("train", *SMALL, "--set", "gate.min_lift=100")[0] == 5
    alone = zones.manifests()[-1]
    assert "It failed its gate" in words(report(zones, alone))
    assert [stage["stage"] for stage in alone["stages"]] == ["train", "report"]


def test_the_latest_run_that_ended_well_comes_first(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    for run_id, status in (("1", "done"), ("2", "failed"), ("3", "done"), ("4", "done"), ("5", "done")):
        (tmp_path / "runs" / f"{run_id}.json").write_text(json.dumps({"run_id": run_id, "status": status}))
    earlier = report_data.earlier_manifests(ProcessedZone(str(tmp_path)), "4")
    assert [manifest["run_id"] for manifest in earlier] == ["3", "1"]
    assert list(report_data.earlier_manifests(ProcessedZone(str(tmp_path / "nothing")), "4")) == []


def test_where_there_is_no_data_there_is_no_report(zones: Zones) -> None:
    assert run_job("explore", zones.options()) == 3
    assert not (zones.processed / "reports").exists()
