"""The `train` stage: judges models on a holdout beside baselines, applies the gate, refits on all, publishes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pyspark.sql import SparkSession

from spark_app.model.evaluation import judge_ranking, judge_ratings, movie_facts, quality
from spark_app.model.fits import Models, fit_models
from spark_app.model.split import ratings_of_listed, split
from spark_app.model.stack import StackWeights
from spark_app.platform import storage
from spark_app.platform.errors import GateError, InputError
from spark_app.platform.log import logger
from spark_app.platform.settings import Settings
from spark_app.zones.manifest import RunRecord
from spark_app.zones.processed import ProcessedZone
from spark_app.zones.stored_models import load_models, publish_models, published_models, published_run, save_models


def run(spark: SparkSession, settings: Settings, record: RunRecord) -> None:
    """Fit, judge and publish the models under `models/`; a ranking that fails the gate is not published."""
    zone = ProcessedZone(settings.processed.path)
    ratings, movies = zone.input(spark, "ratings", record), zone.input(spark, "movies", record)
    ratings = ratings_of_listed(ratings, movies)

    # MLlib needs checkpoints if it does the fit; our solver does not.
    spark.sparkContext.setCheckpointDir(storage.join(zone.staging, "checkpoints"))
    training, holdout = (part.persist() for part in split(ratings, settings.train))
    record.rows["split"] = {"training": training.count(), "holdout": holdout.count()}
    logger.info("%s ratings to learn from, %s held out", *(f"{count:,}" for count in record.rows["split"].values()))
    if not all(record.rows["split"].values()):
        raise InputError(
            f"{zone.table('ratings')} cannot be split by train.holdout={settings.train.holdout}: "
            "deliver more ratings, or change train.holdout"
        )

    models = fit_models(training, settings, _published(spark, zone) if settings.train.start == "published" else None)
    facts = movie_facts(movies, models.biases.movies, models.biases.users.count())
    candidates = models.candidates(movies, settings.recommend.catalogue_bytes)
    judged = judge_ranking(spark, training, holdout, candidates, models.implicit.users, facts, settings)
    stack, errors = StackWeights(), None
    if models.explicit:
        stack, errors = judge_ratings(holdout, models.biases, models.explicit, facts, settings)
    record.metrics |= quality(judged, errors, facts, settings.train)
    _log_metrics(record.metrics)
    _check_gate(record.metrics, settings)
    training.unpersist()
    holdout.unpersist()

    if settings.train.refit:
        logger.info("fitting again on all ratings")
        models = fit_models(ratings, settings, start=models)
    models = replace(models, stack=stack)
    facts_of_fit = {
        "metrics": record.metrics,
        "settings": record.settings.model_dump(mode="json"),
        "fitted_to": zone.version(spark, "ratings") if settings.train.refit else None,
    }
    record.note_output(save_models(models, record.metrics.get("rating_model"), zone, record.run_id, facts_of_fit))
    publish_models(zone, record.run_id)
    record.note_output(zone.current_model)


def _published(spark: SparkSession, zone: ProcessedZone) -> Models | None:
    """The published models; None if there are none."""
    return None if published_run(zone) is None else load_models(spark, published_models(zone))[0]


def _log_metrics(metrics: dict[str, Any]) -> None:
    for task in ("rating", "ranking"):
        for model, values in metrics.get(task, {}).items():
            logger.info("%s by %s: %s", task, model, ", ".join(f"{name} {value:.4g}" for name, value in values.items()))
    logger.info("predicted_rating comes from: %s", metrics.get("rating_model", "no model"))


def _check_gate(metrics: dict[str, Any], settings: Settings) -> None:
    """Compare the ranking with popularity, and record the result in the metrics.

    Raises GateError if the ranking is not good enough and the gate is enforced.
    """
    metric = f"ndcg@{settings.train.k}"
    ours, baseline = metrics["ranking"]["implicit"][metric], metrics["ranking"]["popularity"][metric]
    passed = ours > settings.gate.min_lift * baseline
    metrics["gate"] = {
        "metric": metric,
        "implicit": ours,
        "popularity": baseline,
        "min_lift": settings.gate.min_lift,
        "passed": passed,
    }
    if passed:
        return
    verdict = (
        f"{metric} of the ranking is {ours:.4f}, not above {settings.gate.min_lift:g} x {baseline:.4f} of popularity"
    )
    if settings.gate.enforce:
        raise GateError(
            f"{verdict}: not published; what was published before stays; --set gate.enforce=false publishes anyway"
        )
    logger.warning("%s: published anyway, since gate.enforce is false", verdict)
