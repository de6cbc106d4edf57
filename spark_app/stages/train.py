"""Ratings to models: judge on a holdout beside the baselines, hold the gate, fit again on everything, publish."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.model import metrics
from spark_app.model.biases import BiasModel
from spark_app.model.catalogue import Catalogue
from spark_app.model.factors import Factors
from spark_app.model.fits import Models, fit_models
from spark_app.model.lists import JUDGED_MODELS, lists_to_judge, lists_to_judge_in_turn
from spark_app.model.split import keep_judged, split
from spark_app.model.stack import RATING_MODELS, StackWeights, fit_stack, with_both_predictions
from spark_app.platform import storage
from spark_app.platform.errors import GateError, InputError
from spark_app.platform.log import logger
from spark_app.platform.run import Run
from spark_app.platform.settings import Settings, Train
from spark_app.platform.zones import ProcessedZone
from spark_app.stages.models import load_models, publish_models, published_models, published_run, save_models


def run(spark: SparkSession, settings: Settings, run: Run) -> None:
    """Fit, judge and publish the models under `models/`; a ranking that fails the gate is not published."""
    zone = ProcessedZone(settings.processed.path)
    ratings, movies = zone.input(spark, "ratings", run), zone.input(spark, "movies", run)
    ratings = ratings_of_listed(ratings, movies)

    spark.sparkContext.setCheckpointDir(storage.join(zone.staging, "checkpoints"))
    training, holdout = (part.persist() for part in split(ratings, settings.train))
    run.rows["split"] = {"training": training.count(), "holdout": holdout.count()}
    logger.info("%s ratings to learn from, %s held out", *(f"{count:,}" for count in run.rows["split"].values()))
    if not all(run.rows["split"].values()):
        raise InputError(
            f"{zone.table('ratings')} cannot be split by train.holdout={settings.train.holdout}: "
            "deliver more ratings, or split otherwise"
        )

    models = fit_models(training, settings, _published(spark, zone) if settings.train.start == "published" else None)
    facts = metrics.movie_facts(movies, models.biases.movies, models.biases.users.count())
    catalogues = models.catalogues(movies, settings.recommend.catalogue_bytes)
    judged = judge_ranking(spark, training, holdout, catalogues, models.implicit.users, facts, settings)
    stack, errors = StackWeights(), None
    if models.explicit:
        stack, errors = _judge_ratings(holdout, models.biases, models.explicit, facts, settings)
    run.metrics |= _quality(judged, errors, facts, settings.train)
    _log_metrics(run.metrics)
    _hold_gate(run.metrics, settings)
    training.unpersist()
    holdout.unpersist()

    if settings.train.refit:
        logger.info("fitting again on all ratings")
        models = fit_models(ratings, settings, start=models)
    models = replace(models, stack=stack)
    facts_of_fit = {
        "metrics": run.metrics,
        "settings": run.settings.model_dump(mode="json"),
        "fitted_to": zone.version(spark, "ratings") if settings.train.refit else None,
    }
    run.wrote(save_models(models, run.metrics.get("rating_model"), zone, run.run_id, facts_of_fit))
    publish_models(zone, run.run_id)
    run.wrote(zone.current_model)


def _published(spark: SparkSession, zone: ProcessedZone) -> Models | None:
    """The models that are published now; None where none are."""
    return None if published_run(zone) is None else load_models(spark, published_models(zone))[0]


def ratings_of_listed(ratings: DataFrame, movies: DataFrame) -> DataFrame:
    """The ratings of movies that are listed: all, but where an etl was cut short between the two tables."""
    return ratings.join(F.broadcast(movies.select("movieId")), on="movieId", how="left_semi")


def _judge_ratings(
    holdout: DataFrame, biases: BiasModel, explicit: Factors, facts: metrics.MovieFacts, settings: Settings
) -> tuple[StackWeights, metrics.RatingErrors]:
    """The stack of both rating models, fitted to all of the holdout, and the errors of all three for judged users."""
    both = with_both_predictions(holdout.drop("timestamp"), biases, explicit).persist()
    stack, predicted = fit_stack(both, settings.input.scale)
    judged = keep_judged(predicted, facts.users, settings.train)
    sums = metrics.rating_sums(judged, RATING_MODELS, facts.popular_from)
    errors = metrics.collect_rating_sums(sums, RATING_MODELS)
    both.unpersist()
    return stack, errors


def judge_ranking(
    spark: SparkSession,
    training: DataFrame,
    holdout: DataFrame,
    catalogues: Sequence[Callable[[], Catalogue]],
    user_factors: DataFrame,
    facts: metrics.MovieFacts,
    settings: Settings,
) -> metrics.Judged:
    """The lists for users of the holdout, over the whole catalogue, by implicit ALS and by popularity, judged.

    Takes training(userId, movieId, rating), holdout(userId, movieId, rating), what makes the blocks of the catalogue,
    and user_factors(id, features). Of many users some are judged, as `train.judged_users` says.
    """
    k = settings.train.k
    training, holdout = (keep_judged(part, facts.users, settings.train) for part in (training, holdout))
    relevant = metrics.relevant_movies(holdout, settings.train.relevant).persist()
    factors = user_factors.withColumnRenamed("id", "userId")
    users = relevant.select("userId").join(factors, on="userId", how="left")
    block_users = settings.recommend.block_users
    if len(catalogues) == 1:
        lists = lists_to_judge(spark, users, training, catalogues[0](), k, block_users)
    else:
        popularity = facts.popularity_frame(spark)
        lists = lists_to_judge_in_turn(spark, users, training, catalogues, popularity, k, block_users)
    judged = metrics.judge_lists(lists, JUDGED_MODELS, relevant, facts, k)
    found = metrics.collect_judged(judged, JUDGED_MODELS, facts)
    relevant.unpersist()
    return found


def _quality(
    judged: metrics.Judged, errors: metrics.RatingErrors | None, facts: metrics.MovieFacts, train: Train
) -> dict[str, Any]:
    """All figures for the manifest, with their intervals and slices; of counts those of the ranking alone."""
    ranking, ranking_intervals = metrics.ranking_quality(judged, train.k, train.seed)
    found: dict[str, Any] = {"ranking": ranking, "intervals": {"ranking": ranking_intervals}}
    if errors is not None:
        found["rating"], found["intervals"]["rating"] = metrics.rating_errors(errors, train.seed)
        found["rating_model"] = _best_rating_model(found["rating"])
    return {**found, "slices": metrics.slices(judged, errors, facts, train.k)}


def _best_rating_model(errors: dict[str, dict[str, float]]) -> str:
    """The model with the lowest RMSE."""
    return min(RATING_MODELS, key=lambda model: errors[model]["rmse"])


def _log_metrics(found: dict[str, Any]) -> None:
    for task in ("rating", "ranking"):
        for model, values in found.get(task, {}).items():
            logger.info("%s by %s: %s", task, model, ", ".join(f"{name} {value:.4g}" for name, value in values.items()))
    logger.info("predicted_rating comes from: %s", found.get("rating_model", "no model"))


def _hold_gate(found: dict[str, Any], settings: Settings) -> None:
    """Compare the ranking with popularity, and record how that went.

    Raises GateError where it is not good enough and the gate is enforced.
    """
    metric = f"ndcg@{settings.train.k}"
    ours, theirs = found["ranking"]["als"][metric], found["ranking"]["popularity"][metric]
    passed = ours > settings.gate.min_lift * theirs
    found["gate"] = {
        "metric": metric,
        "als": ours,
        "popularity": theirs,
        "min_lift": settings.gate.min_lift,
        "passed": passed,
    }
    if passed:
        return
    verdict = (
        f"{metric} of the ranking is {ours:.4f}, not above {settings.gate.min_lift:g} x {theirs:.4f} of popularity"
    )
    if settings.gate.enforce:
        raise GateError(
            f"{verdict}: not published; what was published before stays. --set gate.enforce=false overrides"
        )
    logger.warning("%s: published all the same, since gate.enforce is false", verdict)
