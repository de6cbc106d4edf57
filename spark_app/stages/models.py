"""Fitted models in the processed zone: written whole, then published by one small file that names them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal

from pyspark.ml.recommendation import ALSModel
from pyspark.sql import DataFrame, SparkSession

from spark_app.model.biases import BiasModel, user_biases
from spark_app.model.catalogue import Catalogue, build_catalogue, movie_blocks
from spark_app.model.foldin import fold_in_explicit, fold_in_implicit, outdated_users, with_users
from spark_app.model.split import keep_active
from spark_app.model.stack import StackWeights
from spark_app.platform import storage
from spark_app.platform.errors import InputError
from spark_app.platform.settings import Biases, ExplicitAls, ImplicitAls, Settings
from spark_app.platform.zones import ProcessedZone

IMPLICIT, EXPLICIT = "implicit_als", "explicit_als"
"""Folders of the two factorisations; each holds `userFactors` and `itemFactors` (id, features)."""


@dataclass(frozen=True)
class FitSettings:
    """What a fit was told, as far as it matters to those who use its models."""

    implicit: ImplicitAls
    explicit: ExplicitAls
    biases: Biases
    min_user_ratings: int


def fit_settings(settings: Settings) -> FitSettings:
    """The settings of a fit that a run makes."""
    return FitSettings(settings.implicit_als, settings.explicit_als, settings.biases, settings.train.min_user_ratings)


@dataclass(frozen=True)
class Models:
    """What one fit gives: the settings of the fit, the ranking model, the two rating models, and their stack.

    Of counts there is no explicit model: nothing predicts ratings, and the biases tell the popularity only.
    """

    settings: FitSettings
    implicit: ALSModel
    explicit: ALSModel | None
    biases: BiasModel
    stack: StackWeights = field(default_factory=StackWeights)

    def catalogue(self, movies: DataFrame) -> Catalogue:
        """The movies(movieId) as the ranking model scores them."""
        exponent = self.settings.implicit.popularity_exponent
        return build_catalogue(movies, self.biases.movies, self.implicit.itemFactors, self.implicit.rank, exponent)

    def catalogues(self, movies: DataFrame, most_bytes: int) -> list[Callable[[], Catalogue]]:
        """What makes the catalogue, or each block of it where it is larger than so many bytes."""
        return [partial(self.catalogue, block) for block in movie_blocks(movies, self.implicit.rank, most_bytes)]


def save_models(
    models: Models, rating_model: str | None, zone: ProcessedZone, run_id: str, facts: dict[str, Any]
) -> str:
    """Write models, which of them predicts ratings, and the facts of their fit: metrics that admitted them, settings.

    `fitted_to` is the version of the ratings, None where they were not fitted to all of it. Returns the folder.
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
            "implicit_als": models.settings.implicit.model_dump(mode="json"),
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
    version: str | None = storage.read_json(storage.join(folder, "model.json")).get("fitted_to")
    return version


def load_models(spark: SparkSession, folder: str) -> tuple[Models, str | None]:
    """The models in a folder, and which of them predicts ratings: one of RATING_MODELS, or None where none does.

    Raises InputError where they are not there.
    """
    facts_path = storage.join(folder, "model.json")
    if not storage.exists(facts_path):
        raise InputError(f"{facts_path} is missing: run the stage 'train' again")
    facts, place = storage.read_json(facts_path), storage.spark_path(folder)
    biases = BiasModel(
        mean=facts["mean_rating"],
        users=spark.read.parquet(storage.join(place, "user_biases")),
        movies=spark.read.parquet(storage.join(place, "movie_biases")),
    )
    fitted = facts["settings"]
    settings = FitSettings(
        # Models that say nothing of a lift were judged without one.
        ImplicitAls(**{"popularity_exponent": 0.0, **facts["implicit_als"]}),
        ExplicitAls(**fitted["explicit_als"]),
        Biases(**fitted["biases"]),
        fitted["train"]["min_user_ratings"],
    )
    implicit = ALSModel.load(storage.join(place, IMPLICIT))
    explicit = ALSModel.load(storage.join(place, EXPLICIT)) if facts["rating_model"] else None
    stack = StackWeights(**facts["stack"])
    return Models(settings, implicit, explicit, biases, stack), facts["rating_model"]


def with_fold_in(models: Models, ratings: DataFrame, whose: Literal["new", "changed"]) -> tuple[Models, int]:
    """The models with factors and biases for users whose ratings the fit has not seen, and how many get a ranking.

    Takes ratings(userId, movieId, rating) as they are now. `new`: users whom the fit has not seen; `changed`: also
    those who had other ratings then. Users whom a fit would leave out are in none of the models any more.
    """
    fitted = models.settings
    outdated = outdated_users(ratings, models.biases, fitted.biases, changed=whose == "changed").persist()
    if outdated.isEmpty():
        return models, 0
    theirs = ratings.join(outdated, on="userId", how="left_semi")
    theirs = keep_active(theirs, fitted.min_user_ratings, 1).persist()
    ranking = fold_in_implicit(theirs, models.implicit.itemFactors, fitted.implicit).persist()
    explicit = None
    if models.explicit:
        rating = fold_in_explicit(theirs, models.explicit.itemFactors, fitted.explicit)
        explicit = with_users(models.explicit, outdated, rating)
    others = models.biases.users.join(outdated, on="userId", how="left_anti")
    biases = others.unionByName(user_biases(theirs, models.biases, fitted.biases))
    implicit = with_users(models.implicit, outdated, ranking)
    extended = replace(models, implicit=implicit, explicit=explicit, biases=replace(models.biases, users=biases))
    return extended, ranking.count()
