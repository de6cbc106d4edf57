"""The gate: whether a ranking is worse than popularity, or than the published ranking, by more than chance.

Both rankings are judged on the same users and the same held-out ratings, so the test is paired: it asks how much the
mean of the users' differences would vary with another sample of users (`bootstrap`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from spark_app.model.bootstrap import ratio_intervals
from spark_app.model.metrics import Judged, ratio_of
from spark_app.platform.settings import Settings

METRIC = "ndcg"
"""The metric that the gate compares. Its denominators are 1, so it is a mean over users."""


class Verdict(StrEnum):
    """What a comparison says, in the words of the manifest."""

    BETTER = "better"
    TIE = "tie"
    WORSE = "worse"


@dataclass(frozen=True)
class PairedComparison:
    """A ranking beside a reference on the same users: both figures, their difference and its 95 % interval."""

    ours: float
    reference: float
    difference: float
    interval: tuple[float, float]

    @property
    def verdict(self) -> Verdict:
        """Better or worse if the whole interval lies above or below 0; else a tie. Without users it is worse."""
        low, high = self.interval
        if low > 0:
            return Verdict.BETTER
        return Verdict.TIE if low <= 0 <= high else Verdict.WORSE


def compare_rankings(ours: Judged, reference: Judged, model: str, seed: int, lift: float = 1.0) -> PairedComparison:
    """Compare our ranking (`implicit` of `ours`) with `lift` times that of `model` in `reference`.

    Both must be judged on the same users.
    """
    (values, _), (reference_values, _) = (
        ratio_of(judged.numbers[name], METRIC) for judged, name in ((ours, "implicit"), (reference, model))
    )
    differences = values - lift * reference_values
    low, high = ratio_intervals(differences[:, None], np.ones((len(differences), 1)), seed)[0]
    return PairedComparison(
        ours.mean("implicit", METRIC),
        reference.mean(model, METRIC),
        float(differences.mean()) if len(differences) else 0.0,
        (float(low), float(high)),
    )


def why_not_comparable(
    now: Settings, then: Mapping[str, Any], held_out_from: int | None, held_out_from_then: int | None
) -> str | None:
    """Why today's holdout cannot judge models of an earlier fit; None if it can.

    It can if the earlier models have seen none of it, and their ratings mean the same. `then` are the settings of the
    earlier fit. `held_out_from` is the first second (since 1970) of the holdout, now and then, for a split by time.
    """
    keys = ["train.holdout", *(f"input.{key}" for key in ("feedback", "scale_min", "scale_max"))]
    if now.train.holdout == "hash":
        keys += ["train.seed", "train.holdout_share"]
    settings = now.model_dump(mode="json")
    for section, key in (name.split(".") for name in keys):
        before, after = then.get(section, {}).get(key), settings[section][key]
        if before != after:
            return f"{section}.{key} was {before} and is {after} now"
    if now.train.holdout == "time" and (
        held_out_from is None or held_out_from_then is None or held_out_from < held_out_from_then
    ):
        return "the holdout begins before the one of its fit"
    return None
