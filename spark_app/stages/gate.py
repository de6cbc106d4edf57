"""The gate of `train`: compares a ranking with popularity and with the published one, and stops a worse one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from spark_app.model.fits import Models, with_fold_in
from spark_app.model.gate import METRIC, PairedComparison, Verdict, compare_rankings, why_not_comparable
from spark_app.model.metrics import Judged
from spark_app.platform.errors import GateError, InputError
from spark_app.platform.log import logger
from spark_app.platform.settings import Settings
from spark_app.zones.processed import ProcessedZone
from spark_app.zones.stored_models import facts_of, load_judged, published_run


@dataclass(frozen=True)
class Published:
    """The run that fitted the published models, and its models as they were judged: they have not seen the holdout.

    `models` is None, and `why_not` says why, where they cannot be judged on today's holdout. Without a run nothing is
    published.
    """

    run_id: str | None = None
    models: Models | None = None
    why_not: str | None = None


def published(spark: SparkSession, zone: ProcessedZone, settings: Settings, held_out_from: int | None) -> Published:
    """The published models, as far as they can be judged on a holdout that begins at `held_out_from`.

    The models that are served have learned from all ratings, so from most of the holdout. Those that were judged before
    them have not: a hash puts a rating into the same part in each run, and a later holdout by time begins later.
    """
    run_id = published_run(zone)
    if run_id is None:
        return Published()
    folder = zone.model(run_id)
    try:
        facts = facts_of(folder)
    except InputError as error:
        return Published(run_id, why_not=str(error))
    if why_not := why_not_comparable(settings, facts["settings"], held_out_from, facts.get("held_out_from")):
        return Published(run_id, why_not=why_not)
    models = load_judged(spark, folder)
    return Published(run_id, models, None if models else "an earlier version did not keep the models that it judged")


def check(
    judged: Judged,
    earlier: Published,
    training: DataFrame,
    judge: Callable[[Models], Judged],
    metrics: dict[str, Any],
    settings: Settings,
) -> None:
    """Hold the ranking's judgement against popularity and, as `gate.against` wants, the published models.

    Takes the ratings that the ranking has learned from, and a function that judges other models on the same holdout.
    Records the comparisons in the metrics. Raises GateError if the ranking fails, and the gate is enforced.
    """
    failures = [_beside_popularity(judged, metrics, settings)]
    if settings.gate.against == "published" and earlier.run_id:
        failures.append(_beside_published(judged, earlier, training, judge, metrics, settings))
    failed = [failure for failure in failures if failure]
    metrics["gate"]["passed"] = not failed
    if not failed:
        return
    verdict = "; ".join(failed)
    if settings.gate.enforce:
        raise GateError(
            f"{verdict}: not published; what was published before stays; --set gate.enforce=false publishes anyway"
        )
    logger.warning("%s: published anyway, since gate.enforce is false", verdict)


def _beside_popularity(judged: Judged, metrics: dict[str, Any], settings: Settings) -> str | None:
    """Compare the ranking with popularity, and record it in the metrics; returns why it fails, or None."""
    name, lift = f"{METRIC}@{settings.train.k}", settings.gate.min_lift
    found = compare_rankings(judged, judged, "popularity", settings.train.seed, lift)
    metrics["gate"] = {
        "metric": name,
        "implicit": found.ours,
        "popularity": found.reference,
        "min_lift": lift,
        **_as_values(found),
    }
    text = f"{name} of the ranking is {found.ours:.4f}"
    if found.verdict == Verdict.TIE:
        logger.warning(
            "%s, that of popularity %.4f: no real difference, %s", text, lift * found.reference, _interval(found)
        )
    if found.verdict != Verdict.WORSE:
        return None
    return f"{text}, not above {lift:g} x {found.reference:.4f} of popularity: {_interval(found)}"


def _beside_published(
    judged: Judged,
    earlier: Published,
    training: DataFrame,
    judge: Callable[[Models], Judged],
    metrics: dict[str, Any],
    settings: Settings,
) -> str | None:
    """Compare the ranking with the published one, and record it in the metrics; returns why it fails, or None.

    The published models get the users of today by fold-in, as `recommend` would serve them.
    """
    if earlier.models is None:
        logger.warning("not compared with the models of run %s: %s", earlier.run_id, earlier.why_not)
        metrics["gate"]["published"] = {"run_id": earlier.run_id, "withheld": earlier.why_not}
        return None
    fold_in = settings.recommend.fold_in
    served = earlier.models if fold_in == "none" else with_fold_in(earlier.models, training, fold_in)[0]
    found = compare_rankings(judged, judge(served), "implicit", settings.train.seed)
    metrics["gate"]["published"] = {"run_id": earlier.run_id, "implicit": found.reference, **_as_values(found)}
    text = (
        f"{METRIC}@{settings.train.k} of the ranking is {found.ours:.4f}, that of the published one (run "
        f"{earlier.run_id}) {found.reference:.4f} on the same users: {_interval(found)}"
    )
    logger.info(text)
    return text if found.verdict == Verdict.WORSE else None


def _as_values(found: PairedComparison) -> dict[str, Any]:
    """A comparison as JSON values; without users there is no interval."""
    low, high = found.interval
    interval = None if math.isnan(low) else [low, high]
    return {"verdict": found.verdict.value, "difference": found.difference, "interval": interval}


def _interval(found: PairedComparison) -> str:
    low, high = found.interval
    if math.isnan(low):
        return "nobody likes anything in the holdout"
    return f"a difference of {found.difference:+.4f} (95 % interval {low:+.4f} to {high:+.4f})"
