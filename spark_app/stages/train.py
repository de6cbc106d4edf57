"""The `train` stage: judges models on a holdout beside baselines, applies the gate, refits on all, publishes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

import spark_app
from spark_app.model.bootstrap import RESAMPLES
from spark_app.model.evaluation import judge_ranking, judge_ratings, movie_facts, quality
from spark_app.model.fits import Models, fit_models
from spark_app.model.metrics import Judged
from spark_app.model.split import ratings_of_listed, split
from spark_app.model.stack import StackWeights
from spark_app.platform import storage
from spark_app.platform.errors import InputError
from spark_app.platform.log import logger
from spark_app.platform.progress import announced
from spark_app.platform.settings import Settings
from spark_app.stages import gate
from spark_app.zones.manifest import RunRecord
from spark_app.zones.processed import ProcessedZone
from spark_app.zones.stored_models import model_facts, publish_models, save_judged, save_models

PERSISTED_RATINGS = 2_000_000
"""The largest number of ratings whose two parts are persisted. To split more again, for each of the few readers, takes
less time and memory."""


def run(spark: SparkSession, settings: Settings, record: RunRecord) -> None:
    """Fit, judge and publish the models under `models/`; a ranking that fails the gate is not published."""
    zone = ProcessedZone(settings.processed.path)
    ratings, movies = zone.input(spark, "ratings", record), zone.input(spark, "movies", record)
    ratings = ratings_of_listed(ratings, movies)

    # MLlib needs checkpoints if it does the fit; our solver does not.
    spark.sparkContext.setCheckpointDir(storage.join(zone.staging, "checkpoints"))
    training, holdout = split(ratings, settings.train)
    record.rows["split"] = {"training": training.count(), "holdout": holdout.count()}
    logger.info("%s ratings to learn from, %s held out", *(f"{count:,}" for count in record.rows["split"].values()))
    if not all(record.rows["split"].values()):
        raise InputError(
            f"{zone.table('ratings')} cannot be split by train.holdout={settings.train.holdout}: "
            "deliver more ratings, or change train.holdout"
        )

    if sum(record.rows["split"].values()) <= PERSISTED_RATINGS:
        training.persist()
        holdout.persist()
    held_out_from = _held_out_from(holdout, settings)
    published = gate.published(spark, zone, settings, held_out_from)
    starts_from_published = settings.train.start == "published"
    if starts_from_published and published.why_not:
        logger.warning("the fit starts from random factors, not from run %s: %s", published.run_id, published.why_not)
    models = fit_models(training, settings, published.models if starts_from_published else None)
    facts = movie_facts(movies, models.biases.movies, models.biases.users.count())
    unrated = zone.input(spark, "unrated", record) if zone.has_table("unrated") else None

    def judge(ranked_by: Models) -> Judged:
        candidates = ranked_by.candidates(facts.movie_ids, settings.recommend.catalogue_bytes)
        users = ranked_by.implicit.users
        with announced(f"judging the ranking: lists from {len(facts.movie_ids):,} movies beside what was held out"):
            return judge_ranking(spark, training, holdout, candidates, users, facts, settings, unrated)

    judged = judge(models)
    stack, errors, calibrated = StackWeights(), None, None
    if models.explicit:
        with announced(f"judging the predicted ratings: {record.rows['split']['holdout']:,} held out"):
            stack, errors, calibrated = judge_ratings(holdout, models.biases, models.explicit, facts, settings)
    with announced(f"computing metrics and their intervals: {RESAMPLES:,} samples of {len(judged.seen):,} users"):
        record.metrics |= quality(judged, errors, facts, settings.train)
    if calibrated:
        record.metrics["calibration"] = calibrated
    _log_metrics(record.metrics)
    gate.check(judged, published, training, judge, record.metrics, settings)
    training.unpersist()
    holdout.unpersist()

    of_judged: dict[str, Any] = {}
    if settings.train.refit:
        of_judged = save_judged(models, zone, record.run_id)
        models = models.off_driver()
        logger.info("fitting again on all ratings")
        models = fit_models(ratings, settings, start=models)
    models = replace(models, stack=stack)
    facts_of_fit = {
        **of_judged,
        "metrics": record.metrics,
        "settings": record.settings.model_dump(mode="json"),
        "fitted_to": zone.version("ratings") if settings.train.refit else None,
        "held_out_from": held_out_from,
        "made_from": _made_from(settings),
    }
    record.note_output(save_models(models, record.metrics.get("rating_model"), zone, record.run_id, facts_of_fit))
    publish_models(zone, record.run_id)
    record.note_output(zone.current_model)


def is_current(settings: Settings, record: RunRecord) -> bool:
    """Whether the published models are fitted to the ratings of today as they are set (`train.when` = "new").

    It needs no Spark.
    """
    zone = ProcessedZone(settings.processed.path)
    return settings.train.when == "new" and model_facts(zone).get("made_from") == _made_from(settings)


def _made_from(settings: Settings) -> dict[str, Any]:
    """What the models are made from, as JSON values."""
    sections = ("input", "train", "explicit_als", "implicit_als", "biases")
    return {
        **ProcessedZone(settings.processed.path).versions("ratings", "movies"),
        "settings": settings.model_dump(mode="json", include=set(sections), exclude={"train": {"when"}}),
        "version": spark_app.__version__,
    }


def _held_out_from(holdout: DataFrame, settings: Settings) -> int | None:
    """The first second (since 1970) of a holdout by time; None for a holdout by hash."""
    if settings.train.holdout == "hash":
        return None
    first: int = holdout.agg(F.min(F.unix_seconds("timestamp"))).collect()[0][0]
    return first


def _log_metrics(metrics: dict[str, Any]) -> None:
    for task in ("rating", "ranking"):
        for model, values in metrics.get(task, {}).items():
            logger.info("%s by %s: %s", task, model, ", ".join(f"{name} {value:.4g}" for name, value in values.items()))
    logger.info("predicted_rating comes from: %s", metrics.get("rating_model", "no model"))
