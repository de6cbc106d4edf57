"""What figures say, in words: whether one is really better than another, and how a ranking stood at its gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spark_app.model.metrics import OF_ERRORS, label_of, metric_of
from spark_app.report.words import THIN

BETTER, WORSE, SAME = "better", "worse", "same"
NO_DIFFERENCE = "no real difference"

TWICE = 2.0
"""From this ratio on, a figure is told as a multiple and not as a percentage."""

LEAST_SHARE = 0.0005
"""A smaller change would read as 0 %."""

Bounds = Sequence[float] | None


def verdict(
    name: str,
    value: float,
    reference: float,
    bounds: Bounds = None,
    reference_bounds: Bounds = None,
    difference: Bounds = None,
) -> tuple[str, str]:
    """How a metric compares with its reference: (BETTER, WORSE or SAME, and the same in words).

    `name` is that of the manifest, such as `ndcg@10`. If the interval of their `difference` on the same users
    holds 0, or is not known and the intervals of both overlap, the difference may be chance: it is SAME.
    """
    if value == reference:
        return SAME, "the same"
    may_be_chance = False
    if difference:
        may_be_chance = difference[0] <= 0 <= difference[1]
    elif bounds and reference_bounds:
        may_be_chance = bounds[0] <= reference_bounds[1] and reference_bounds[0] <= bounds[1]
    if may_be_chance:
        return SAME, NO_DIFFERENCE
    known = metric_of(name)
    is_better = known.is_better(value, reference) if known else value > reference
    return (BETTER if is_better else WORSE), _change(name, value, reference)


def _change(name: str, value: float, reference: float) -> str:
    """The change as `3.1 % lower error`, `12 % higher` or `2.0 times`."""
    if not reference:
        return f"from {reference:g} to {value:.4g}"
    ratio = value / reference
    if ratio >= TWICE:
        return f"{ratio:.1f} times"
    change = abs(ratio - 1)
    if change < LEAST_SHARE:
        return "nearly the same"
    way = "higher" if ratio > 1 else "lower"
    share = f"{100 * change:.1f}{THIN}% {way}"
    return f"{share} error" if metric_of(name) in OF_ERRORS else share


def at_the_gate(gate: Mapping[str, Any]) -> list[str]:
    """How a ranking stood at its gate, in sentences: beside popularity, and beside the published ranking."""
    passed = "It passed its gate" if gate["passed"] else "It failed its gate"
    lift = "" if gate["min_lift"] == 1 else f"{gate['min_lift']} times "
    beside = (
        f"{label_of(gate['metric'])} {gate['implicit']:.3f}, beside {lift}the {gate['popularity']:.3f} of popularity"
    )
    sentences = [f"{passed}: {beside}{_difference(gate)}."]
    if published := gate.get("published"):
        run = f"published before (run {published['run_id']})"
        if "withheld" in published:
            sentences.append(f"It was not compared with the ranking {run}: {published['withheld']}.")
        else:
            sentences.append(
                f"On the same users the ranking {run} has {published['implicit']:.3f}{_difference(published)}."
            )
    return sentences


def _difference(comparison: Mapping[str, Any]) -> str:
    """The difference with its interval; empty where an earlier version did not compute it."""
    if not comparison.get("interval"):
        return ""
    low, high = comparison["interval"]
    interval = f"{comparison['difference']:+.4f} (95{THIN}% interval {low:+.4f} to {high:+.4f})"
    said = {"better": "better by", "worse": "worse by"}.get(comparison["verdict"], f"{NO_DIFFERENCE},")
    return f": {said} {interval}"
