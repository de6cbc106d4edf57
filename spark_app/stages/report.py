"""What a run did and what is published, as one page for people: `reports/RUN_ID.html`. Without Spark."""

from __future__ import annotations

import itertools
from typing import Any

from spark_app.platform import storage
from spark_app.platform.run import Run
from spark_app.platform.settings import Settings
from spark_app.platform.zones import ProcessedZone
from spark_app.report.comparison import compare
from spark_app.report.page import Facts, render
from spark_app.stages import published

MOST_RATED = 7
SAMPLE = (0.1, 0.5, 0.9)
"""Users shown: where they stand between the least and the most active."""

EARLIER_RUNS = 50
"""How far back is looked for what this run has not done itself."""


def write(settings: Settings, run: Run, status: str = "done", error: str | None = None) -> None:
    """Compare the run with the one before, and write its report with what is published by now."""
    zone = ProcessedZone(settings.processed.path)
    earlier = list(itertools.islice(published.earlier_manifests(zone, run.run_id), EARLIER_RUNS))
    if before := _before(run, earlier):
        run.comparison = compare(run.manifest(status, error), before)
    model = published.model_facts(zone)
    facts = Facts(
        manifest=run.manifest(status, error),
        rows=_latest("rows", run, earlier),
        rejects=_latest("rejects", run, earlier),
        metrics=run.metrics or model.get("metrics", {}),
        model_run=run.run_id if run.metrics else model.get("run_id", ""),
        users_by_activity=published.users_by_activity(zone),
        ratings_of_movies=published.ratings_of_movies(zone),
        most_rated=published.most_rated(zone, MOST_RATED),
        users=published.sample_users(zone, SAMPLE),
        lists_are_new=run.has_written(zone.table("recommendations")),
    )
    storage.write_text(zone.report(run.run_id), render(facts))
    run.wrote(zone.report(run.run_id))


def _latest(key: str, run: Run, earlier: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Rows, or rejects, by what they are of: of this run, or else of the latest one that counted them."""
    found: dict[str, dict[str, int]] = {}
    for counted in (*(manifest[key] for manifest in reversed(earlier)), getattr(run, key)):
        if "ratings" in counted:  # counted by an etl, with the movies where there is a table of them
            found.pop("movies", None)
        found |= counted
    return found


def _before(run: Run, earlier: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The run to compare with: the latest that has looked at the data, and has judged models where this one has."""
    profiled = [manifest for manifest in earlier if manifest.get("profile")]
    judged = [manifest for manifest in profiled if "ranking" in manifest["metrics"]]
    return next(iter(judged if run.metrics and judged else profiled), None)
