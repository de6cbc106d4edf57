"""What a run did and what is published, as one page for people: `reports/RUN_ID.html`. Without Spark."""

from __future__ import annotations

import itertools
from typing import Any

from spark_app.platform import storage
from spark_app.platform.settings import Settings
from spark_app.report.comparison import compare
from spark_app.report.page import Facts, render
from spark_app.zones import report_data
from spark_app.zones.manifest import RunRecord
from spark_app.zones.processed import ProcessedZone
from spark_app.zones.stored_models import model_facts

MOST_RATED = 7
SAMPLE = (0.1, 0.5, 0.9)
"""Users shown: where they stand between the least and the most active."""

EARLIER_RUNS = 50
"""How far back is looked for what this run has not done itself."""


def write(settings: Settings, record: RunRecord, status: str = "done", error: str | None = None) -> None:
    """Compare the run with the one before, and write its report with what is published by now."""
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
    storage.write_text(zone.report(record.run_id), render(facts))
    record.note_output(zone.report(record.run_id))


def _latest(key: str, record: RunRecord, earlier: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Rows, or rejects, by what they are of: of this run, or else of the latest one that counted them."""
    found: dict[str, dict[str, int]] = {}
    for counted in (*(manifest[key] for manifest in reversed(earlier)), getattr(record, key)):
        if "ratings" in counted:  # counted by an etl, with the movies where there is a table of them
            found.pop("movies", None)
        found |= counted
    return found


def _before(record: RunRecord, earlier: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The run to compare with: the latest that has looked at the data, and has judged models where this one has."""
    profiled = [manifest for manifest in earlier if manifest.get("profile")]
    judged = [manifest for manifest in profiled if "ranking" in manifest["metrics"]]
    return next(iter(judged if record.metrics and judged else profiled), None)
