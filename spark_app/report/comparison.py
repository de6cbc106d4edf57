"""What changed since the run before: volumes, metrics, and the distribution of ratings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spark_app.report.drift import population_stability_index, verdict

VOLUMES = ("ratings", "users", "movies", "share_of_movies_rated", "density")
"""The keys of a profile that are compared."""


def compare(manifest: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """The comparison of a run with an earlier one, from their manifests.

    It holds `run_id` and `started` of the earlier run, `volumes`, `metrics` and `drift`. `volumes` and `metrics` have
    `before` and `after` for each figure that both runs have. `drift` has the population stability index of the rating
    distribution and its verdict; it is empty where a run has no ratings.
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
        "volumes": _both({key: before[key] for key in VOLUMES if key in before}, after),
        "metrics": _both(headline_metrics(earlier["metrics"]), headline_metrics(manifest["metrics"])),
        "drift": drift,
    }


def headline_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of the published models, by name: those of the ranking, and RMSE and MAE of the rating model."""
    ranking: dict[str, float] = metrics.get("ranking", {}).get("implicit", {})
    rating: dict[str, dict[str, float]] = metrics.get("rating", {})
    of_lists = {name: value for name, value in ranking.items() if name != "users"}
    return of_lists | rating.get(metrics.get("rating_model", ""), {})


def _both(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, dict[str, float]]:
    return {key: {"before": value, "after": after[key]} for key, value in before.items() if key in after}
