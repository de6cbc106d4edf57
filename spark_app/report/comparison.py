"""What changed since the run before: settings, volumes, metrics, and the distribution of ratings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spark_app.data.rules import NOT_JUDGING
from spark_app.report.drift import population_stability_index, verdict

JUDGED_BY = {
    "raw": ("movies", "ratings"),
    "train": ("holdout", "holdout_share", "seed", "relevant", "k", "judged_users"),
}
"""The settings that decide what metrics are measured on, by section. Those of SECTIONS do too, but for NOT_JUDGING."""

SECTIONS = ("input", "ratings_file", "clean")

OF_THE_DAY = "clean.latest"
"""The setting that moves with the days, and changes nothing that is measured."""

VOLUMES = ("ratings", "users", "movies", "share_of_movies_rated", "density")
"""The keys of a profile that are compared."""


def compare(manifest: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """The comparison of a run with an earlier one, from their manifests.

    It holds `run_id` and `started` of the earlier run, and:

    - `changed`: `before` and `after` of the settings that differ and decide what metrics are measured on. If there are
      any, the metrics of the two runs cannot be compared.
    - `volumes`, `metrics`: `before` and `after` of each figure that both runs have; of metrics also `interval_before`
      and `interval_after` where both are known.
    - `drift`: the population stability index of the rating distribution and its verdict; empty where a run has no
      ratings.
    """
    before, after = earlier["profile"], manifest["profile"]
    histograms = [dict(profile.get("rating_histogram", {})) for profile in (before, after)]
    drift = {}
    if all(sum(histogram.values()) for histogram in histograms):
        index = population_stability_index(*histograms)
        drift["rating_distribution"] = {"psi": index, "verdict": verdict(index)}
    return {
        "run_id": earlier["run_id"],
        "started": earlier["started"],
        "changed": changed_settings(manifest.get("settings", {}), earlier.get("settings", {})),
        "volumes": _both({key: before[key] for key in VOLUMES if key in before}, after),
        "metrics": _with_intervals(
            _both(headline_metrics(earlier["metrics"]), headline_metrics(manifest["metrics"])), earlier, manifest
        ),
        "drift": drift,
    }


def compare_runs(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Two runs of any jobs, from their manifests, as JSON values.

    Keys: `runs` (the head of both), `settings` and `versions` (those that differ), `rows`, `seconds` (by stage), and
    what `compare` gives: `changed`, `volumes`, `metrics`, `drift`. A setting that one of two versions does not know is
    None there. Paths of the zones are left out.
    """
    old, new = (
        {
            f"{section}.{key}": value
            for section, group in run.get("settings", {}).items()
            for key, value in group.items()
        }
        for run in (before, after)
    )
    rows, seconds = ([dict(of(run)) for run in (before, after)] for of in (_rows, _seconds))
    head = ("run_id", "job", "status", "started", "seconds")
    profiled = [{**run, "profile": run.get("profile") or {}} for run in (before, after)]
    found = compare(profiled[1], profiled[0])
    return {
        "runs": [{key: run.get(key) for key in head} for run in (before, after)],
        "settings": _differing(old, new, leave_out=("raw.path", "processed.path")),
        "versions": _differing(*(run.get("versions", {}) for run in (before, after))),
        "rows": _both(*rows),
        "seconds": _both(*seconds),
        **{key: found[key] for key in ("changed", "volumes", "metrics", "drift")},
    }


def _rows(manifest: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for table, parts in manifest["rows"].items():
        for part, count in parts.items():
            yield f"{table}: {part}", count


def _seconds(manifest: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for stage in manifest["stages"]:
        yield stage["stage"], stage["seconds"]


def _differing(
    before: Mapping[str, Any], after: Mapping[str, Any], leave_out: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """`before` and `after` of each key whose values differ; None where a side does not have it."""
    return {
        key: {"before": before.get(key), "after": after.get(key)}
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key) and key not in leave_out
    }


def changed_settings(settings: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings that decide what metrics are measured on and that differ: `before` and `after` by `section.key`.

    A setting that one of two runs does not know is of another version, and left out.
    """
    names = [(section, key) for section, keys in JUDGED_BY.items() for key in keys]
    names += [(section, key) for section in SECTIONS for key in settings.get(section, {})]
    changed = {}
    for section, key in names:
        both = [values.get(section, {}) for values in (earlier, settings)]
        is_known = all(key in group for group in both)
        name = f"{section}.{key}"
        decides = name != OF_THE_DAY and key not in NOT_JUDGING.get(section, ())
        if is_known and decides and both[0][key] != both[1][key]:
            changed[name] = {"before": both[0][key], "after": both[1][key]}
    return changed


def headline_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of the published models, by name: those of the ranking, and RMSE and MAE of the rating model."""
    ranking: dict[str, float] = metrics.get("ranking", {}).get("implicit", {})
    rating: dict[str, dict[str, float]] = metrics.get("rating", {})
    of_lists = {name: value for name, value in ranking.items() if name != "users"}
    return of_lists | rating.get(metrics.get("rating_model", ""), {})


def _both(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, dict[str, float]]:
    return {key: {"before": value, "after": after[key]} for key, value in before.items() if key in after}


def _with_intervals(
    metrics: dict[str, dict[str, float]], earlier: Mapping[str, Any], manifest: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Add the 95 % intervals of both runs to each metric, where both are known."""
    before, after = (headline_metrics(_intervals(run["metrics"])) for run in (earlier, manifest))
    return {
        key: {**both, "interval_before": before[key], "interval_after": after[key]}
        if key in before and key in after
        else both
        for key, both in metrics.items()
    }


def _intervals(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The intervals in the form of the metrics themselves."""
    return {**metrics.get("intervals", {}), "rating_model": metrics.get("rating_model", "")}
