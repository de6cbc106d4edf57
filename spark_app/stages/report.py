"""The report of a run, made without Spark: what it did and what is published, as one page `reports/RUN_ID.html`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from spark_app.platform.settings import Settings
from spark_app.report.comparison import changed_settings, compare, headline_metrics
from spark_app.zones import report_data
from spark_app.zones.manifest import NOTHING_NEW, RunRecord
from spark_app.zones.processed import ProcessedZone
from spark_app.zones.stored_models import model_facts

MOST_RATED = 7
MOST_RECOMMENDED = 15
SHOWN_RUNS = 20
"""How many runs the small lines go back."""

SAMPLE = (0.1, 0.5, 0.9)
"""The users to show, by their place between the least (0) and the most (1) active."""

STAGES = ("catalog", "etl", "explore", "train", "recommend")
"""The stages that the report tells of, in their order."""

EARLIER_RUNS = 50
"""How many earlier runs are searched for counts that this run does not have."""


def write(settings: Settings, record: RunRecord, status: str = "done", error: str | None = None) -> None:
    """Compare the run with an earlier one, and write its report on what is published now.

    A stage that runs alone leaves the report that a pipeline would: what other stages noted comes from their own runs.
    """
    from spark_app.report.page import Facts, render  # noqa: PLC0415 - it brings Matplotlib, which few jobs need

    zone = ProcessedZone(settings.processed.path)
    earlier = list(itertools.islice(report_data.earlier_manifests(zone, record.run_id), EARLIER_RUNS))
    model = model_facts(zone)
    manifest = _with_other_stages(record.manifest(status, error), earlier, model)
    if before := _before(manifest, earlier):
        record.comparison = compare(manifest, before)
    facts = Facts(
        manifest={**manifest, "comparison": record.comparison},
        rows=_latest("rows", record, earlier),
        rejects=_latest("rejects", record, earlier),
        metrics=record.metrics or model.get("metrics", {}),
        model_run=record.run_id if manifest["metrics"] else model.get("run_id", ""),
        users_by_activity=report_data.users_by_activity(zone),
        ratings_of_movies=report_data.ratings_of_movies(zone),
        most_rated=report_data.most_rated(zone, MOST_RATED),
        users=report_data.sample_users(zone, SAMPLE),
        lists_are_new=record.has_written(zone.table("recommendations")),
        recommended=report_data.recommended(zone, MOST_RECOMMENDED),
        history=_history(manifest, earlier),
    )
    record.note_output(zone.write_report(record.run_id, render(facts)))


def _history(manifest: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The figures of the last runs whose metrics can be compared with those of this one, the earliest first."""
    runs = []
    for run in (manifest, *earlier):
        is_part = run is not manifest and run["run_id"] in manifest["runs"]
        is_alike = not changed_settings(manifest["settings"], run.get("settings", {}))
        if not is_part and is_alike and "ranking" in run["metrics"]:
            good = run["rows"].get("ratings", {}).get("good")
            counted = {} if good is None else {"ratings": good}
            runs.append({"started": run["started"], "figures": headline_metrics(run["metrics"]) | counted})
    return runs[:SHOWN_RUNS][::-1]


def _with_other_stages(
    manifest: dict[str, Any], earlier: Sequence[Mapping[str, Any]], model: Mapping[str, Any]
) -> dict[str, Any]:
    """The manifest of a run, with what its other stages noted if they ran alone before it.

    That is their times, the files that `etl` read, and the metrics of the published models. These runs are later than
    the last one that did what this run does; `runs` names them. The profile is the last one that there is.
    """
    own = [entry["stage"] for entry in manifest["stages"] if entry["status"] == "done" and entry["stage"] in STAGES]
    last = _last_with(own[-1], earlier) if own else None
    recent = [run for run in earlier if last is None or run["run_id"] > last["run_id"]]
    known = {stage: run for stage in STAGES if stage not in own and (run := _last_with(stage, recent))}
    times = [entry for stage, run in known.items() for entry in run["stages"] if entry["stage"] == stage]
    files = [file for run in known.values() for file in run["inputs"] if "bytes" in file]
    added: dict[str, Any] = {
        "stages": [*times, *(entry for entry in manifest["stages"] if entry["status"] != NOTHING_NEW)],
        "inputs": list({file["path"]: file for file in (*files, *manifest["inputs"])}.values()),
        "runs": [manifest["run_id"], *dict.fromkeys(run["run_id"] for run in known.values())],
    }
    if not manifest["profile"]:
        profiled = next((run for run in earlier if run.get("profile")), None)
        if profiled:
            added |= {"profile": profiled["profile"], "profile_run": profiled["run_id"]}
            if profiled["run_id"] in added["runs"]:
                added["profile_run"] = manifest["run_id"]
    if not manifest["metrics"] and model.get("run_id") in added["runs"]:
        added["metrics"] = model["metrics"]
    return {**manifest, **added}


def _last_with(stage: str, earlier: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The latest run in which a stage did its work."""
    done = {"stage": stage, "status": "done"}
    return next((run for run in earlier if any(done.items() <= entry.items() for entry in run["stages"])), None)


def _latest(key: str, record: RunRecord, earlier: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """The `rows` or `rejects` of each table, from this run or else from the latest earlier run that counted them."""
    latest: dict[str, dict[str, int]] = {}
    for counted in (*(manifest[key] for manifest in reversed(earlier)), getattr(record, key)):
        if "ratings" in counted:  # from an etl, which counts the movies too if there is a movies file
            latest.pop("movies", None)
        latest |= counted
    return latest


def _before(manifest: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """What to compare a run with: the latest earlier profile and, if it has judged models, the latest earlier metrics.

    Runs that are part of this one, because their stages ran alone before it, are not earlier.
    """
    others = [run for run in earlier if run["run_id"] not in manifest["runs"]]
    profiled = next((run for run in others if run.get("profile")), None)
    judged = next((run for run in others if "ranking" in run["metrics"]), None)
    if profiled is None or judged is None or not manifest["metrics"]:
        return profiled
    return {**judged, "profile": profiled["profile"]}
