"""Fitted models in the processed zone: written whole, then published by one small file that names them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from spark_app.model import mllib
from spark_app.model.biases import BiasModel
from spark_app.model.candidates import Floats, as_matrix
from spark_app.model.fits import FitSettings, Models
from spark_app.model.stack import StackWeights
from spark_app.platform import storage
from spark_app.platform.errors import InputError
from spark_app.platform.settings import Biases, ExplicitAls, ImplicitAls
from spark_app.zones.manifest import SCHEMA_VERSION, with_current_names
from spark_app.zones.processed import ProcessedZone

IMPLICIT, EXPLICIT = "implicit_als", "explicit_als"
"""Folders of the two factorisations; each holds `userFactors` and `itemFactors` (id, features)."""


def save_models(
    models: Models, rating_model: str | None, zone: ProcessedZone, run_id: str, facts: dict[str, Any]
) -> str:
    """Write models, which of them predicts ratings, and the facts of their fit: metrics that admitted them, settings.

    `fitted_to` is the version of the ratings, None where they were not fitted to all of it. Returns the folder.
    """
    folder = zone.model(run_id)
    mllib.save(models.implicit, storage.join(folder, IMPLICIT))
    if models.explicit:
        mllib.save(models.explicit, storage.join(folder, EXPLICIT))
    models.biases.users.write.mode("overwrite").parquet(storage.join(folder, "user_biases"))
    models.biases.movies.write.mode("overwrite").parquet(storage.join(folder, "movie_biases"))
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


def publish_models(zone: ProcessedZone, run_id: str) -> None:
    """Make saved models the ones that `recommend` takes."""
    storage.write_json(zone.current_model, {"run_id": run_id})


def published_run(zone: ProcessedZone) -> str | None:
    """The run that has fitted the published models; None where none are published."""
    return str(storage.read_json(zone.current_model)["run_id"]) if storage.exists(zone.current_model) else None


def published_models(zone: ProcessedZone) -> str:
    """The folder of the published models.

    Raises InputError where none are published.
    """
    run_id = published_run(zone)
    if run_id is None:
        raise InputError(f"{zone.current_model} is missing: run the stage 'train' first")
    return zone.model(run_id)


def fitted_to(folder: str) -> str | None:
    """The version of the ratings that the models in a folder were fitted to; None where it was not all of one."""
    version: str | None = _facts(folder).get("fitted_to")
    return version


def load_models(spark: SparkSession, folder: str) -> tuple[Models, str | None]:
    """The models in a folder, and which of them predicts ratings: one of RATING_MODELS, or None where none does.

    Raises InputError where they are not there.
    """
    facts_path = storage.join(folder, "model.json")
    if not storage.exists(facts_path):
        raise InputError(f"{facts_path} is missing: run the stage 'train' again")
    facts, place = _facts(folder), storage.spark_path(folder)
    biases = BiasModel(
        mean=facts["mean_rating"],
        users=spark.read.parquet(storage.join(place, "user_biases")),
        movies=spark.read.parquet(storage.join(place, "movie_biases")),
    )
    fitted = facts["settings"]
    settings = FitSettings(
        # Models that say nothing of a lift or of a power were fitted without them.
        ImplicitAls(**{"popularity_exponent": 0.0, "reg_power": 1.0, **facts["implicit_als"]}),
        ExplicitAls(**{"reg_power": 1.0, **facts.get("explicit_als", fitted["explicit_als"])}),
        Biases(**fitted["biases"]),
        fitted["train"]["min_user_ratings"],
    )
    implicit = mllib.load(spark, storage.join(place, IMPLICIT))
    explicit = mllib.load(spark, storage.join(place, EXPLICIT)) if facts["rating_model"] else None
    stack = StackWeights(**facts["stack"])
    return Models(settings, implicit, explicit, biases, stack), facts["rating_model"]


def model_facts(zone: ProcessedZone) -> dict[str, Any]:
    """What is known of the published models, without Spark: their run, the metrics that admitted them, settings.

    Empty where none are published.
    """
    return _facts(published_models(zone)) if published_run(zone) is not None else {}


def factors_of_movies(zone: ProcessedZone) -> tuple[NDArray[np.int32], Floats]:
    """The integers that stand for the movies which the published ranking model knows, ascending, and their factors.

    Read without Spark. Raises InputError where no models are published.
    """
    folder = storage.join(published_models(zone), IMPLICIT, "itemFactors")
    factors = storage.parquet(storage.list_files(folder)).to_table().sort_by("id")
    return factors["id"].to_numpy(), as_matrix(factors["features"].combine_chunks(), len(factors["features"][0]))


def _facts(folder: str) -> dict[str, Any]:
    """What `save_models` noted in a folder."""
    facts: dict[str, Any] = storage.read_json(storage.join(folder, "model.json"))
    return with_current_names(facts)
