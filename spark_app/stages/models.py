"""Fitted models in the processed zone: written whole, then published by one small file that names them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pyspark.ml.recommendation import ALSModel
from pyspark.sql import SparkSession

from spark_app.model.biases import BiasModel
from spark_app.platform import storage
from spark_app.platform.errors import InputError
from spark_app.platform.zones import ProcessedZone


@dataclass(frozen=True)
class Models:
    """What one fit gives: the ranking model, the two rating models, and which of those predicts."""

    implicit: ALSModel
    explicit: ALSModel
    biases: BiasModel
    rating_model: Literal["als", "bias"]

    @property
    def predictor(self) -> ALSModel | None:
        """The matrix factorisation that predicts ratings, or None where the biases alone do it better."""
        return self.explicit if self.rating_model == "als" else None


def save_models(models: Models, zone: ProcessedZone, run_id: str, facts: dict[str, Any]) -> str:
    """Write models and the facts that admitted them (metrics, settings) to a folder of their own; returns it."""
    folder = zone.model(run_id)
    models.implicit.write().overwrite().save(storage.join(folder, "implicit_als"))
    models.explicit.write().overwrite().save(storage.join(folder, "explicit_als"))
    models.biases.users.write.mode("overwrite").parquet(storage.join(folder, "user_biases"))
    models.biases.movies.write.mode("overwrite").parquet(storage.join(folder, "movie_biases"))
    storage.write_json(
        storage.join(folder, "model.json"),
        {"run_id": run_id, "rating_model": models.rating_model, "mean_rating": models.biases.mean, **facts},
    )
    return folder


def publish_models(zone: ProcessedZone, run_id: str) -> None:
    """Make saved models the ones that `recommend` takes."""
    storage.write_json(zone.current_model, {"run_id": run_id})


def load_models(spark: SparkSession, zone: ProcessedZone) -> tuple[str, Models]:
    """The run that fitted the published models, and the models.

    Raises InputError where none is published.
    """
    if not storage.exists(zone.current_model):
        raise InputError(f"{zone.current_model} is missing: run the stage 'train' first")
    run_id = storage.read_json(zone.current_model)["run_id"]
    folder = zone.model(run_id)
    facts = storage.read_json(storage.join(folder, "model.json"))
    biases = BiasModel(
        mean=facts["mean_rating"],
        users=spark.read.parquet(storage.join(folder, "user_biases")),
        movies=spark.read.parquet(storage.join(folder, "movie_biases")),
    )
    return run_id, Models(
        implicit=ALSModel.load(storage.join(folder, "implicit_als")),
        explicit=ALSModel.load(storage.join(folder, "explicit_als")),
        biases=biases,
        rating_model=facts["rating_model"],
    )
