"""Fitted models in the processed zone: written whole, then published by one small file that names them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pyspark.ml.recommendation import ALSModel
from pyspark.sql import DataFrame, SparkSession

from spark_app.model.biases import BiasModel
from spark_app.model.catalogue import Catalogue, build_catalogue
from spark_app.model.stack import StackWeights
from spark_app.platform import storage
from spark_app.platform.errors import InputError
from spark_app.platform.settings import ImplicitAls
from spark_app.platform.zones import ProcessedZone

IMPLICIT, EXPLICIT = "implicit_als", "explicit_als"
"""Folders of the two factorisations; each holds `userFactors` and `itemFactors` (id, features)."""


@dataclass(frozen=True)
class Models:
    """What one fit gives: the ranking model with the settings of its fit, the two rating models, and their stack.

    Of counts there is no explicit model: nothing predicts ratings, and the biases tell the popularity only.
    """

    implicit: ALSModel
    implicit_settings: ImplicitAls
    explicit: ALSModel | None
    biases: BiasModel
    stack: StackWeights = field(default_factory=StackWeights)

    def catalogue(self, movies: DataFrame) -> Catalogue:
        """The movies(movieId) as the ranking model scores them."""
        exponent = self.implicit_settings.popularity_exponent
        return build_catalogue(movies, self.biases.movies, self.implicit.itemFactors, self.implicit.rank, exponent)


def save_models(
    models: Models, rating_model: str | None, zone: ProcessedZone, run_id: str, facts: dict[str, Any]
) -> str:
    """Write models, which of them predicts ratings, and the facts that admitted them (metrics, settings).

    Returns the folder.
    """
    folder = zone.model(run_id)
    models.implicit.write().overwrite().save(storage.join(folder, IMPLICIT))
    if models.explicit:
        models.explicit.write().overwrite().save(storage.join(folder, EXPLICIT))
    models.biases.users.write.mode("overwrite").parquet(storage.join(folder, "user_biases"))
    models.biases.movies.write.mode("overwrite").parquet(storage.join(folder, "movie_biases"))
    storage.write_json(
        storage.join(folder, "model.json"),
        {
            "run_id": run_id,
            "rating_model": rating_model,
            "mean_rating": models.biases.mean,
            "stack": asdict(models.stack),
            "implicit_als": models.implicit_settings.model_dump(mode="json"),
            **facts,
        },
    )
    return folder


def publish_models(zone: ProcessedZone, run_id: str) -> None:
    """Make saved models the ones that `recommend` takes."""
    storage.write_json(zone.current_model, {"run_id": run_id})


def published_models(zone: ProcessedZone) -> str:
    """The folder of the published models.

    Raises InputError where none are published.
    """
    if not storage.exists(zone.current_model):
        raise InputError(f"{zone.current_model} is missing: run the stage 'train' first")
    return zone.model(storage.read_json(zone.current_model)["run_id"])


def load_models(spark: SparkSession, folder: str) -> tuple[Models, str | None]:
    """The models in a folder, and which of them predicts ratings: one of RATING_MODELS, or None where none does.

    Raises InputError where they are not there.
    """
    facts_path = storage.join(folder, "model.json")
    if not storage.exists(facts_path):
        raise InputError(f"{facts_path} is missing: run the stage 'train' again")
    facts = storage.read_json(facts_path)
    biases = BiasModel(
        mean=facts["mean_rating"],
        users=spark.read.parquet(storage.join(folder, "user_biases")),
        movies=spark.read.parquet(storage.join(folder, "movie_biases")),
    )
    implicit = ALSModel.load(storage.join(folder, IMPLICIT))
    explicit = ALSModel.load(storage.join(folder, EXPLICIT)) if facts["rating_model"] else None
    # Models that say nothing of a lift were judged without one.
    settings = ImplicitAls(**{"popularity_exponent": 0.0, **facts["implicit_als"]})
    stack = StackWeights(**facts["stack"])
    return Models(implicit, settings, explicit, biases, stack), facts["rating_model"]
