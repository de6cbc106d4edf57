"""The report of a run, made without Spark: what it did and what is published, as one page `reports/RUN_ID.html`."""

from __future__ import annotations

import itertools
from typing import Any

from spark_app.platform.settings import Settings
from spark_app.report.comparison import compare
from spark_app.report.page import Facts, render
from spark_app.zones import report_data
from spark_app.zones.manifest import RunRecord
from spark_app.zones.processed import ProcessedZone
from spark_app.zones.stored_models import model_facts

MOST_RATED = 7
SAMPLE = (0.1, 0.5, 0.9)
"""The users to show, by their place between the least (0) and the most (1) active."""

EARLIER_RUNS = 50
"""How many earlier runs are searched for counts that this run does not have."""


def write(settings: Settings, record: RunRecord, status: str = "done", error: str | None = None) -> None:
    """Compare the run with an earlier one, and write its report on what is published now."""
    zone = ProcessedZone(settings.processed.path)
    earlier = list(itertools.islice(report_data.earlier_manifests(zone, record.run_id), EARLIER_RUNS))
    if before := _before(record, earlier):
        record.comparison = compare(record.manifest(status, error), before)
    model = model_facts(zone)
    facts = Facts(
        manifest=record.manifest(status, error),
        rows=_latest("rows", record, earlier),
        rejects=_latest("rejects", record, earlier),
        metrics=record.metrics or model.get("metrics", {}),
        model_run=record.run_id if record.metrics else model.get("run_id", ""),
        users_by_activity=report_data.users_by_activity(zone),
        ratings_of_movies=report_data.ratings_of_movies(zone),
        most_rated=report_data.most_rated(zone, MOST_RATED),
        users=report_data.sample_users(zone, SAMPLE),
        lists_are_new=record.has_written(zone.table("recommendations")),
    )
    record.note_output(zone.write_report(record.run_id, render(facts)))


def _latest(key: str, record: RunRecord, earlier: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """The `rows` or `rejects` of each table, from this run or else from the latest earlier run that counted them."""
    latest: dict[str, dict[str, int]] = {}
    for counted in (*(manifest[key] for manifest in reversed(earlier)), getattr(record, key)):
        if "ratings" in counted:  # from an etl, which counts the movies too if there is a movies file
            latest.pop("movies", None)
        latest |= counted
    return latest


def _before(record: RunRecord, earlier: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The earlier run to compare with: the latest with a profile; with judged models too if this run has some."""
    profiled = [manifest for manifest in earlier if manifest.get("profile")]
    judged = [manifest for manifest in profiled if "ranking" in manifest["metrics"]]
    return next(iter(judged if record.metrics and judged else profiled), None)
