"""The `tune` stage: searches for the settings that do best on a validation part of the training ratings."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import optuna
import tomlkit
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from sqlalchemy import URL

from spark_app.model import als
from spark_app.model.als import TrainingSet
from spark_app.model.biases import fit_biases
from spark_app.model.candidates import candidate_blocks
from spark_app.model.evaluation import judge_ranking, movie_facts
from spark_app.model.fits import training_set
from spark_app.model.metrics import MovieFacts
from spark_app.model.split import ratings_of_listed, split, validation_split
from spark_app.model.stack import fit_stack, with_both_predictions
from spark_app.platform import storage
from spark_app.platform.errors import InputError, UsageError
from spark_app.platform.log import logger
from spark_app.platform.progress import format_duration
from spark_app.platform.settings import Input, Settings, Train
from spark_app.platform.spark_versions import to_arrow
from spark_app.zones.manifest import RunRecord
from spark_app.zones.processed import ProcessedZone

Values = dict[str, Any]
Space = dict[str, BaseDistribution]
"""The keys of both are names of settings, SECTION.KEY."""

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
MIN_RANK = 8
RUN_SECTIONS = ("processed", "storage", "log", "tune")
"""Sections about where and how a run works, not about data and models: they are not written to `best.toml`."""


@dataclass
class Packed:
    """The packed ratings of the last trial; the next trial reuses them if it leaves out the same users and movies."""

    minimums: tuple[int, int] | None = None
    last: TrainingSet | None = None

    def training_set(self, ratings: DataFrame, train: Train) -> TrainingSet:
        """The packed ratings that a trial with these settings is fitted to. Raises InputError if none are left."""
        minimums = (train.min_user_ratings, train.min_movie_ratings)
        if self.last is None or self.minimums != minimums:
            if self.last is not None:
                self.last.blocks.unpersist()
            self.minimums, self.last = None, None
            self.last = training_set(ratings, train)
            self.minimums = minimums
        return self.last


@dataclass(frozen=True)
class Data:
    """Ratings to fit to and to validate on, cached parts of the training part; and what metrics need of the movies."""

    fitted: DataFrame
    validation: DataFrame
    facts: MovieFacts
    fitted_count: int
    lowest: float
    highest: float
    unrated: DataFrame | None = None
    packed: Packed = field(default_factory=Packed)


@dataclass(frozen=True)
class Objective:
    """One search: its metric, the direction that is better, the settings it tries and how it measures a trial."""

    name: str
    metric: str
    direction: Literal["maximize", "minimize"]
    space: Callable[[Data, Settings], Space]
    measure: Callable[[SparkSession, Data, Settings], float]


def run(spark: SparkSession, settings: Settings, record: RunRecord) -> None:
    """Search, resuming where an earlier run stopped, and write `tuning/best.toml` for `--config`."""
    zone = ProcessedZone(settings.processed.path)
    ratings, movies = zone.input(spark, "ratings", record), zone.input(spark, "movies", record)
    ratings = ratings_of_listed(ratings, movies)
    # MLlib needs checkpoints if it does the fit; our solver does not.
    spark.sparkContext.setCheckpointDir(storage.join(zone.staging, "checkpoints"))
    unrated = zone.input(spark, "unrated", record) if zone.has_table("unrated") else None
    data = replace(_validation_data(ratings, movies, settings), unrated=unrated)
    record.rows["validation"] = {"training": data.fitted_count, "validation": data.validation.count()}
    if not all(record.rows["validation"].values()):
        raise InputError(
            f"{zone.table('ratings')} has too few ratings for a holdout and a validation part: deliver more ratings"
        )

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with storage.edited(zone.trials) as (file, save):
        trials = optuna.storages.RDBStorage(URL.create("sqlite", database=file).render_as_string())
        best, outcomes = _search_all(spark, trials, data, settings, record, save)
    record.metrics["tuning"] = outcomes
    record.note_output(zone.trials)
    zone.write_best_settings(as_toml(best, outcomes))
    record.note_output(zone.best_settings)


def _search_all(
    spark: SparkSession,
    trials: optuna.storages.BaseStorage,
    data: Data,
    settings: Settings,
    record: RunRecord,
    save: Callable[[], None],
) -> tuple[Settings, dict[str, Values]]:
    """Search for each objective in turn, with the settings that earlier ones found; calls `save` after each trial."""
    best = settings
    outcomes: dict[str, Values] = {}
    for objective in _objectives(settings):
        study = _study(objective, trials, _fingerprint(record.inputs, best))
        _search(spark, study, objective, data, best, save)
        if not study.get_trials(states=(TrialState.COMPLETE,)):
            raise InputError(
                f"no trial for {objective.name} left any ratings to fit: lower train.min_user_ratings or "
                "implicit_als.neutral, or deliver more ratings"
            )
        best = with_values(best, study.best_params)
        outcomes[objective.name] = _outcome(study, objective)
        logger.info(
            "%s: %s", objective.name, ", ".join(f"{key} {value}" for key, value in outcomes[objective.name].items())
        )
    return best, outcomes


def _validation_data(ratings: DataFrame, movies: DataFrame, settings: Settings) -> Data:
    """Split the training part of `train` into ratings to fit to and to validate on; the holdout is not used."""
    training, _ = split(ratings, settings.train)
    fitted, validation = (part.drop("timestamp").persist() for part in validation_split(training, settings.train))
    (row,) = fitted.agg(
        F.count("*").alias("count"),
        F.countDistinct("userId").alias("users"),
        F.min("rating").alias("lowest"),
        F.max("rating").alias("highest"),
    ).collect()
    facts = movie_facts(movies, _popularity(fitted), row["users"])
    return Data(fitted, validation, facts, row["count"], row["lowest"] or 0.0, row["highest"] or 0.0)


def _popularity(ratings: DataFrame) -> DataFrame:
    return ratings.groupBy("movieId").agg(F.count("*").alias("rating_count"))


def _objectives(settings: Settings) -> tuple[Objective, ...]:
    """The searches to do, ranking first: the rating models use the minimum counts of ratings that it finds."""
    ranking = Objective("ranking", f"ndcg@{settings.train.k}", "maximize", _ranking_space, _measure_ranking)
    rating = Objective("rating", "rmse", "minimize", _rating_space, _measure_rating)
    wanted = settings.tune.objective
    possible = (ranking, rating) if settings.input.feedback == "ratings" else (ranking,)
    chosen = tuple(objective for objective in possible if wanted in ("both", objective.name))
    if not chosen:
        raise UsageError(f"tune.objective={wanted}: no ratings are predicted from counts; leave this setting out")
    return chosen


def _ranking_space(data: Data, settings: Settings) -> Space:
    model, train = settings.implicit_als, settings.train
    likeable = data.lowest + 0.75 * (data.highest - data.lowest)
    # Every count is a like, however small, so counts have no neutral value to search for.
    neutral = {"implicit_als.neutral": _real(model.neutral, data.lowest, likeable)}
    return {
        "implicit_als.rank": _rank(model.rank, settings),
        "implicit_als.reg": _real(model.reg, 0.05, 20.0, log=True),
        "implicit_als.reg_power": _real(model.reg_power, 0.3, 1.0),
        "implicit_als.alpha": _real(model.alpha, 0.1, 20.0, log=True),
        **(neutral if settings.input.feedback == "ratings" else {}),
        "implicit_als.popularity_exponent": _real(model.popularity_exponent, 0.0, 0.3),
        "train.min_user_ratings": _minimum(train.min_user_ratings),
        "train.min_movie_ratings": _minimum(train.min_movie_ratings),
    }


def _rating_space(data: Data, settings: Settings) -> Space:
    model, biases = settings.explicit_als, settings.biases
    return {
        "explicit_als.rank": _rank(model.rank, settings),
        "explicit_als.reg": _real(model.reg, 0.02, 5.0, log=True),
        "explicit_als.reg_power": _real(model.reg_power, 0.3, 1.0),
        "biases.movie_reg": _real(biases.movie_reg, 0.0, 30.0),
        "biases.user_reg": _real(biases.user_reg, 0.0, 30.0),
    }


def _rank(start: int, settings: Settings) -> IntDistribution:
    """Ranks to try, up to `tune.max_rank`, even if the start is above it."""
    max_rank = settings.tune.max_rank
    return IntDistribution(min(MIN_RANK, start, max_rank), max_rank, log=True)


def _minimum(start: int) -> IntDistribution:
    """Minimum numbers of ratings to try, on a log scale, so that small numbers are tried as closely as large ones."""
    return IntDistribution(1, max(20, start), log=True)


def _real(start: float, low: float, high: float, *, log: bool = False) -> FloatDistribution:
    """Numbers to try, from `low` to `high`; the range is widened if `start` is outside of it."""
    return FloatDistribution(min(low, start), max(high, start), log=log)


def _measure_ranking(spark: SparkSession, data: Data, settings: Settings) -> float:
    """NDCG@k of implicit ALS on the validation part."""
    training = data.packed.training_set(data.fitted, settings.train)
    model = als.fit_implicit(training, settings.implicit_als, settings.train).factors
    popularity = to_arrow(_popularity(training.ratings))
    exponent = settings.implicit_als.popularity_exponent
    max_bytes = settings.recommend.catalogue_bytes
    candidates = candidate_blocks(data.facts.movie_ids, popularity, model, exponent, max_bytes)
    judged = judge_ranking(
        spark, data.fitted, data.validation, candidates, model.users, data.facts, settings, data.unrated
    )
    return judged.mean("implicit", "ndcg")


def _measure_rating(spark: SparkSession, data: Data, settings: Settings) -> float:
    """RMSE of the stack, out of fold, on the validation part."""
    training = data.packed.training_set(data.fitted, settings.train)
    biases = fit_biases(training.blocks, settings.biases, spark)
    explicit = als.fit_explicit(training, settings.explicit_als, settings.train, biases.mean).factors
    both = with_both_predictions(data.validation, biases, explicit).persist()
    _, predicted = fit_stack(both, settings.input.scale)
    (row,) = predicted.agg(F.sqrt(F.avg((F.col("stacked") - F.col("rating")) ** 2)).alias("rmse")).collect()
    for frame in (both, biases.users):
        frame.unpersist()
    return float(row["rmse"])


def _fingerprint(inputs: list[dict[str, Any]], settings: Settings) -> str:
    """A digest that keeps searches apart if they differ in the ratings, the split, the starting point or the ranges."""
    facts = settings.model_dump(
        mode="json", exclude={"raw", "processed", "ingest", "gate", "recommend", "storage", "log"}
    )
    facts["tune"].pop("trials")
    facts["tune"].pop("objective")
    text = json.dumps([inputs, facts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _study(objective: Objective, trials: optuna.storages.BaseStorage, fingerprint: str) -> optuna.Study:
    """The study of an earlier run, or a new one; a trial that the earlier run did not finish counts as failed."""
    study = optuna.create_study(
        study_name=f"{objective.name}-{fingerprint}", storage=trials, direction=objective.direction, load_if_exists=True
    )
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def _search(
    spark: SparkSession,
    study: optuna.Study,
    objective: Objective,
    data: Data,
    settings: Settings,
    save: Callable[[], None],
) -> None:
    """Run trials until the study has `tune.trials` of them; the first one tries the settings of the run.

    Each trial is drawn from the trials finished before it and a seed of its own. So a search that was stopped and
    resumed finds the same as an uninterrupted one.
    """
    space = objective.space(data, settings)
    done = len(study.get_trials(states=FINISHED))
    if done:
        logger.info("%s: resuming after %d trials", objective.name, done)
    while done < settings.tune.trials:
        started = time.monotonic()
        study.sampler = optuna.samplers.TPESampler(seed=settings.train.seed + done)
        if not done and not study.get_trials(states=(TrialState.WAITING,)):
            study.enqueue_trial(_start(space, settings))
        trial = study.ask(space)
        try:
            value = objective.measure(spark, data, with_values(settings, trial.params))
            study.tell(trial, value)
            told = f"{objective.metric} {value:.4f}, the best is {study.best_value:.4f}"
        except InputError:  # these settings leave nothing to fit
            study.tell(trial, state=TrialState.PRUNED)
            told = "leaves no ratings to fit"
        save()
        done += 1
        duration = format_duration(time.monotonic() - started)
        logger.info("%s: trial %d of %d: %s, %s", objective.name, done, settings.tune.trials, told, duration)


def _start(space: Space, settings: Settings) -> Values:
    """The settings of the run as the first trial, within the ranges of the search."""
    sections = settings.model_dump()
    start: Values = {}
    for name, tried in space.items():
        section, _, key = name.partition(".")
        value = sections[section][key]
        start[name] = min(value, tried.high) if isinstance(tried, IntDistribution) else value
    return start


def with_values(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """The settings with these values (by SECTION.KEY) replaced."""
    sections = settings.model_dump()
    for name, value in values.items():
        section, _, key = name.partition(".")
        sections[section][key] = value
    return Settings.model_validate(sections)


def _outcome(study: optuna.Study, objective: Objective) -> Values:
    """The results of a search, for the manifest."""
    return {
        "metric": objective.metric,
        "start": study.get_trials(states=FINISHED)[0].value,
        "best": study.best_value,
        "trials": len(study.get_trials(states=FINISHED)),
        **study.best_params,
    }


def as_toml(settings: Settings, outcomes: Mapping[str, Any]) -> str:
    """The text of a file for `--config`: the settings that were found, and all others that are not defaults."""
    document = tomlkit.document()
    for objective, outcome in outcomes.items():
        document.add(
            tomlkit.comment(
                f"{objective}: {outcome['metric']} {outcome['best']:.4f} on the validation part after "
                f"{outcome['trials']} trials, {_score(outcome['start'])} at the start"
            )
        )
    tried = {name for outcome in outcomes.values() for name in outcome}
    default = Settings.model_validate({"input": settings.input.model_dump()}).model_dump()
    default["input"] = Input().model_dump()
    for section, values in settings.model_dump().items():
        changed = {
            key: value
            for key, value in values.items()
            if section not in RUN_SECTIONS
            and key != "path"
            and value is not None
            and (f"{section}.{key}" in tried or value != default[section][key])
        }
        if changed:
            document.add(section, tomlkit.item(changed))
    return tomlkit.dumps(document)


def _score(value: float | None) -> str:
    return "nothing to fit" if value is None else f"{value:.4f}"
