"""Fitted models in the processed zone: written completely, then published by one small file that names their run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from spark_app.model import mllib
from spark_app.model.biases import MOVIES_SCHEMA, USERS_SCHEMA, BiasModel
from spark_app.model.factors import FACTORS_SCHEMA, Factors, batches_of
from spark_app.model.fits import FitSettings, Models
from spark_app.model.matrices import FactorMatrix, in_order
from spark_app.model.predicted import KnownBiases, known_biases
from spark_app.model.stack import StackWeights, weights_of
from spark_app.platform import storage
from spark_app.platform.arrow_files import Files, can_read
from spark_app.platform.errors import InputError
from spark_app.platform.settings import Biases, ExplicitAls, ImplicitAls, Input
from spark_app.zones.manifest import SCHEMA_VERSION, with_current_names
from spark_app.zones.processed import ProcessedZone

IMPLICIT, EXPLICIT = "implicit_als", "explicit_als"
"""Folders of the two factorisations; each holds `userFactors` and `itemFactors` (id, features)."""

JUDGED = "judged"
"""Folder of the models that were fitted to the training part alone and judged, where others are published."""


def save_judged(models: Models, zone: ProcessedZone, run_id: str) -> dict[str, Any]:
    """Write the models that were judged, where others are published; returns the facts that `save_models` needs.

    Later runs compare theirs with them, because they have not learned from the holdout.
    """
    _write(models, storage.join(zone.model(run_id), JUDGED))
    return {"judged_mean_rating": models.biases.mean}


def save_models(
    models: Models, rating_model: str | None, zone: ProcessedZone, run_id: str, facts: dict[str, Any]
) -> str:
    """Write models, and `model.json` with `facts` of their fit: metrics, settings, `fitted_to`. Returns the folder.

    `rating_model` names the model that predicts ratings. `fitted_to` is the version of the ratings, None if the models
    were not fitted to all ratings of one version.
    """
    folder = zone.model(run_id)
    _write(models, folder)
    storage.write_json(
        storage.join(folder, "model.json"),
        {
            "schema_version": SCHEMA_VERSION,
            "run_id": run_id,
            "rating_model": rating_model,
            "mean_rating": models.biases.mean,
            "stack": asdict(models.stack),
            "implicit_als": models.settings.implicit.model_dump(mode="json"),
            "explicit_als": models.settings.explicit.model_dump(mode="json"),
            **facts,
        },
    )
    return folder


def _write(models: Models, folder: str) -> None:
    _write_factors(models.implicit, storage.join(folder, IMPLICIT))
    if models.explicit:
        _write_factors(models.explicit, storage.join(folder, EXPLICIT))
    models.biases.users.write.mode("overwrite").parquet(storage.join(folder, "user_biases"))
    models.biases.movies.write.mode("overwrite").parquet(storage.join(folder, "movie_biases"))


def _write_factors(factors: Factors, folder: str) -> None:
    """Write factors as MLlib does; those that are on the driver are written from there, without a pass through Java."""
    if factors.matrices is None:
        mllib.save(factors, folder)
        return
    for name, matrix in zip(mllib.SIDES, factors.matrices, strict=True):
        with (
            storage.writing(storage.join(folder, name, "part-00000.snappy.parquet")) as stream,
            # Each number occurs about once, so a dictionary of them would only take time.
            pq.ParquetWriter(stream, FACTORS_SCHEMA, use_dictionary=False, store_schema=False) as file,
        ):
            for batch in batches_of(matrix):
                file.write_batch(batch)
    storage.write_text(storage.join(folder, mllib.METADATA, "part-00000"), mllib.metadata_of(factors) + "\n")


def publish_models(zone: ProcessedZone, run_id: str) -> None:
    """Make the saved models of a run the ones that `recommend` takes."""
    storage.write_json(zone.current_model, {"run_id": run_id})


def published_run(zone: ProcessedZone) -> str | None:
    """The run that fitted the published models; None if none are published."""
    return str(storage.read_json(zone.current_model)["run_id"]) if storage.exists(zone.current_model) else None


def published_models(zone: ProcessedZone) -> str:
    """The folder of the published models.

    Raises InputError if none are published.
    """
    run_id = published_run(zone)
    if run_id is None:
        raise InputError(f"{zone.current_model} is missing: run the stage 'train' first")
    return zone.model(run_id)


def facts_of(folder: str) -> dict[str, Any]:
    """The facts of the models in a folder, read without Spark; with the names of the current schema.

    Raises InputError if they are missing.
    """
    path = storage.join(folder, "model.json")
    if not storage.exists(path):
        raise InputError(f"{path} is missing: run the stage 'train' again")
    facts: dict[str, Any] = storage.read_json(path)
    return with_current_names(facts)


def fitted_to(folder: str) -> str | None:
    """The version of the ratings to which the models in a folder were fitted; None if not to all ratings of one."""
    version: str | None = facts_of(folder).get("fitted_to")
    return version


def load_models(spark: SparkSession, folder: str) -> tuple[Models, str | None]:
    """The models in a folder, and the name of the model that predicts ratings: one of RATING_MODELS, or None.

    Raises InputError if the models are missing.
    """
    facts = facts_of(folder)
    models = _read(spark, folder, facts, facts["mean_rating"])
    return replace(models, stack=StackWeights(**facts["stack"])), facts["rating_model"]


def load_judged(spark: SparkSession, folder: str) -> Models | None:
    """The models in a folder as they were judged, before a fit to all ratings; None if they were not kept."""
    facts = facts_of(folder)
    if "judged_mean_rating" in facts:
        return _read(spark, storage.join(folder, JUDGED), facts, facts["judged_mean_rating"])
    return None if facts["settings"]["train"]["refit"] else load_models(spark, folder)[0]


def _read(spark: SparkSession, folder: str, facts: dict[str, Any], mean_rating: float) -> Models:
    """The models in a folder; `facts` are those of `model.json`."""
    place = storage.spark_path(folder)
    biases = BiasModel(
        mean=mean_rating,
        users=spark.read.schema(USERS_SCHEMA).parquet(storage.join(place, "user_biases")),
        movies=spark.read.schema(MOVIES_SCHEMA).parquet(storage.join(place, "movie_biases")),
        read_movies=partial(_read_movie_biases, folder),
        user_files=_files(
            spark,
            storage.join(folder, "user_biases"),
            userId="userId",
            user_bias="user_bias",
            rating_count="rating_count",
        ),
    )
    implicit = _read_factors(spark, storage.join(folder, IMPLICIT))
    explicit = _read_factors(spark, storage.join(folder, EXPLICIT)) if facts["rating_model"] else None
    return Models(fit_settings(facts), implicit, explicit, biases)


def _read_factors(spark: SparkSession, folder: str) -> Factors:
    """The factors in a folder as frames; those of the movies also as a matrix, where it is asked for."""
    factors = mllib.load(spark, folder)
    users = _files(spark, storage.join(folder, mllib.SIDES[0]), userId="id", features="features")
    return replace(factors, read_movies=partial(_read_movie_factors, folder, factors.rank), user_files=users)


def _files(spark: SparkSession, folder: str, **columns: str) -> Files | None:
    """`columns` of the Parquet files in a folder, as in `Files`; None if tasks cannot read them, or there is none."""
    if not can_read(spark, folder):
        return None
    paths = tuple(path for path in storage.list_files(folder) if path.endswith(".parquet"))
    return Files(paths, columns) if paths else None


def fit_settings(facts: dict[str, Any]) -> FitSettings:
    """The settings of the fit, from the facts of `model.json`."""
    fitted = facts["settings"]
    return FitSettings(
        # Models that were saved without these two settings were fitted without them.
        ImplicitAls(**{"popularity_exponent": 0.0, "reg_power": 1.0, **facts["implicit_als"]}),
        ExplicitAls(**{"reg_power": 1.0, **facts.get("explicit_als", fitted["explicit_als"])}),
        Biases(**fitted["biases"]),
        fitted["train"]["min_user_ratings"],
    )


def model_facts(zone: ProcessedZone) -> dict[str, Any]:
    """The facts of the published models, read without Spark: their run, metrics and settings.

    Empty if none are published, or if their files are gone.
    """
    run_id = published_run(zone)
    is_there = run_id is not None and storage.exists(storage.join(zone.model(run_id), "model.json"))
    return facts_of(zone.model(run_id)) if run_id is not None and is_there else {}


def factors_of_movies(zone: ProcessedZone) -> FactorMatrix:
    """The factors of the movies that the published ranking model knows.

    Read without Spark. Raises InputError if no models are published.
    """
    return _movie_factors(storage.join(published_models(zone), IMPLICIT))


@dataclass(frozen=True)
class LoadedModels:
    """The published models as arrays, without the users: what it takes to serve somebody by fold-in, without Spark.

    `explicit` is None if no ratings are predicted.
    """

    settings: FitSettings
    input: Input
    mean: float
    implicit: FactorMatrix
    explicit: FactorMatrix | None
    movie_biases: KnownBiases
    rating_weights: StackWeights


def fitted_input(zone: ProcessedZone) -> Input:
    """How the ratings to which the published models were fitted were read. Raises InputError if none are published."""
    return _fitted_input(facts_of(published_models(zone)))


def _fitted_input(facts: dict[str, Any]) -> Input:
    stored = facts["settings"]["input"]
    return Input(**{key: value for key, value in stored.items() if key in Input.model_fields})


def read_models(zone: ProcessedZone) -> LoadedModels:
    """The published models, read without Spark. Raises InputError if none are published."""
    folder = published_models(zone)
    facts = facts_of(folder)
    name = facts["rating_model"]
    return LoadedModels(
        fit_settings(facts),
        _fitted_input(facts),
        facts["mean_rating"],
        _movie_factors(storage.join(folder, IMPLICIT)),
        _movie_factors(storage.join(folder, EXPLICIT)) if name else None,
        known_biases(_read_movie_biases(folder), "movieId", "movie_bias"),
        weights_of(name, StackWeights(**facts["stack"])) if name else StackWeights(),
    )


def _read_movie_biases(folder: str) -> pa.Table:
    return storage.parquet(storage.list_files(storage.join(folder, "movie_biases"))).to_table()


def _movie_factors(folder: str) -> FactorMatrix:
    return _read_movie_factors(folder, mllib.rank_of(folder))


def _read_movie_factors(folder: str, rank: int) -> FactorMatrix:
    factors = storage.parquet(storage.list_files(storage.join(folder, "itemFactors"))).to_table()
    return in_order(factors["id"], factors["features"], rank)
