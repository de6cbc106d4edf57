"""The comparison of a run with the run before."""

from __future__ import annotations

from typing import Any

from spark_app.platform.settings import build_settings
from spark_app.report.comparison import compare, headline_metrics
from tests.report.conftest import MANIFEST, METRICS


def with_ratings(histogram: dict[str, int], **more: Any) -> dict[str, Any]:
    profile = {"ratings": sum(histogram.values()), "users": 2, "rating_histogram": histogram}
    return {**MANIFEST, "profile": profile, **more}


def test_volumes_metrics_and_drift_of_both_runs() -> None:
    before = with_ratings({"1": 1, "2": 1}, run_id="before", started="2026-01-01T00:00:00+00:00")
    found = compare(with_ratings({"1": 3, "2": 1}), before)
    assert (found["run_id"], found["started"]) == ("before", "2026-01-01T00:00:00+00:00")
    assert found["volumes"] == {"ratings": {"before": 2, "after": 4}, "users": {"before": 2, "after": 2}}
    of_rmse = {"interval_before": [0.83, 0.85], "interval_after": [0.83, 0.85]}
    assert found["metrics"]["rmse"] == {"before": 0.84, "after": 0.84, **of_rmse}
    assert found["metrics"]["coverage"] == {"before": 0.4, "after": 0.4}
    assert found["changed"] == {}
    assert found["drift"]["rating_distribution"]["verdict"] == "another"
    assert round(found["drift"]["rating_distribution"]["psi"], 4) == 0.2747


def test_figures_that_only_one_run_has_are_left_out() -> None:
    before = with_ratings({}, metrics={"ranking": {"implicit": {"ndcg@10": 0.2, "users": 5}}})
    found = compare(with_ratings({"1": 1}), before)
    assert found["metrics"] == {"ndcg@10": {"before": 0.2, "after": 0.3}}
    assert found["drift"] == {}


def test_the_metrics_are_those_of_the_published_models() -> None:
    assert headline_metrics(METRICS)["mae"] == 0.65
    assert "users" not in headline_metrics(METRICS)
    assert headline_metrics({}) == {}
    assert headline_metrics({"ranking": {"implicit": {"ndcg@5": 0.1}}}) == {"ndcg@5": 0.1}


def test_settings_that_decide_what_is_measured_are_listed_where_they_changed() -> None:
    now = build_settings(
        assignments=["train.k=5", "train.holdout=time", "input.scale_min=1", "implicit_als.rank=2", "input.take=all"]
    )
    found = compare({**MANIFEST, "settings": now.model_dump(mode="json")}, MANIFEST)["changed"]
    assert found == {
        "train.holdout": {"before": "hash", "after": "time"},
        "train.k": {"before": 10, "after": 5},
        "input.scale_min": {"before": 0.5, "after": 1.0},
    }


def test_a_setting_that_an_earlier_version_did_not_have_is_no_change() -> None:
    earlier = {**MANIFEST, "settings": {"train": {"k": 10}}}
    assert compare(MANIFEST, earlier)["changed"] == {}
