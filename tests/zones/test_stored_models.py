"""Models on disk: they are read as they were saved, by this version or an earlier one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.ml.recommendation import ALSModel
from pyspark.sql import DataFrame, SparkSession

from spark_app.model.factors import Factors
from spark_app.model.fits import Models, fit_models
from spark_app.model.stack import StackWeights
from spark_app.platform.errors import InputError
from spark_app.platform.settings import Settings, build_settings
from spark_app.zones.processed import ProcessedZone
from spark_app.zones.stored_models import (
    fitted_to,
    load_models,
    publish_models,
    published_models,
    published_run,
    save_models,
)

SMALL = """
[train]
min_user_ratings = 3

[implicit_als]
rank = 2
iterations = 1
reg_power = 0.7
popularity_exponent = 0.25

[explicit_als]
rank = 3
iterations = 1
reg_power = 0.7
biases = true
"""
STACK = StackWeights(0.1, 0.2, 0.3)


@pytest.fixture(scope="module")
def ratings(spark: SparkSession) -> DataFrame:
    rows = [(user, movie, float(1 + (user + 2 * movie) % 5)) for user in range(1, 9) for movie in range(1, 9)]
    return spark.createDataFrame(rows, "userId INT, movieId INT, rating DOUBLE").coalesce(1).persist()


@pytest.fixture(scope="module")
def models(ratings: DataFrame) -> Models:
    return replace(fit_models(ratings, build_settings(SMALL)), stack=STACK)


@pytest.fixture
def zone(tmp_path: Path) -> ProcessedZone:
    return ProcessedZone(str(tmp_path))


def save(models: Models, zone: ProcessedZone, settings: Settings, rating_model: str | None = "stacked") -> Path:
    facts = {"settings": settings.model_dump(mode="json"), "metrics": {}, "fitted_to": "3 of today"}
    return Path(save_models(models, rating_model, zone, "run-1", facts))


def rows_of(frame: DataFrame) -> list[Any]:
    return sorted(frame.collect())


def test_saved_models_are_read_as_they_were(spark: SparkSession, models: Models, zone: ProcessedZone) -> None:
    folder = save(models, zone, build_settings(SMALL))
    found, rating_model = load_models(spark, str(folder))
    assert rating_model == "stacked"
    assert (found.settings, found.stack, found.biases.mean) == (models.settings, STACK, models.biases.mean)
    assert rows_of(found.biases.users) == rows_of(models.biases.users)
    assert rows_of(found.biases.movies) == rows_of(models.biases.movies)
    pairs: list[tuple[Factors | None, Factors | None, int]] = [
        (found.implicit, models.implicit, 2),
        (found.explicit, models.explicit, 5),
    ]
    for ours, theirs, rank in pairs:
        assert ours
        assert theirs
        assert ours.rank == theirs.rank == rank
        assert rows_of(ours.users) == rows_of(theirs.users)
        assert rows_of(ours.movies) == rows_of(theirs.movies)
    assert fitted_to(str(folder)) == "3 of today"


def test_factors_are_the_same_wherever_they_are(spark: SparkSession, models: Models, tmp_path: Path) -> None:
    """On the driver, in frames, or stored from either: the same rows, matrices and candidates."""
    assert models.implicit.matrices
    assert models.off_driver().implicit.matrices is None
    kept: list[Models] = [models, models.off_driver()]
    for number, fitted in enumerate(tuple(kept)):
        folder = save(fitted, ProcessedZone(str(tmp_path / str(number))), build_settings(SMALL))
        kept.append(load_models(spark, str(folder))[0])
    movies = np.sort(np.append(models.biases.movie_rows()["movieId"].to_numpy(), -3))
    whole = [one.candidates(movies, 10**9) for one in kept]
    in_blocks = models.candidates(movies, 1)
    assert [len(blocks) for blocks in (*whole, in_blocks)] == [1, 1, 1, 1, len(movies)]
    (first, *others), parts = [next(iter(blocks)) for blocks in whole], list(in_blocks)
    for other in others:
        np.testing.assert_array_equal(other.movie_ids, first.movie_ids)
        np.testing.assert_array_equal(other.vectors, first.vectors)
    np.testing.assert_array_equal(np.concatenate([part.movie_ids for part in parts]), first.movie_ids)
    np.testing.assert_array_equal(np.concatenate([part.vectors for part in parts]), first.vectors)
    for one in kept[1:]:
        assert rows_of(one.implicit.users) == rows_of(models.implicit.users)
        np.testing.assert_array_equal(one.implicit.movie_matrix().rows, models.implicit.movie_matrix().rows)


def test_both_factorisations_are_models_of_mllib(models: Models, zone: ProcessedZone) -> None:
    folder = save(models, zone, build_settings(SMALL))
    for name, rank in (("implicit_als", 2), ("explicit_als", 5)):
        model = ALSModel.load(str(folder / name))
        assert model.rank == rank
        assert model.userFactors.count() == 8


def test_models_of_counts_predict_no_ratings(
    spark: SparkSession, ratings: DataFrame, models: Models, zone: ProcessedZone
) -> None:
    folder = save(replace(models, explicit=None), zone, build_settings(SMALL), rating_model=None)
    found, rating_model = load_models(spark, str(folder))
    assert rating_model is None
    assert found.explicit is None
    assert not (folder / "explicit_als").exists()


def test_models_that_say_nothing_of_a_lift_or_a_power_have_none(
    spark: SparkSession, models: Models, zone: ProcessedZone
) -> None:
    folder = save(models, zone, build_settings(SMALL))
    facts = json.loads((folder / "model.json").read_text())
    del facts["explicit_als"]  # earlier versions stored these only among the settings of the run
    explicit = facts["settings"]["explicit_als"]
    for section, keys in ((facts["implicit_als"], ("popularity_exponent", "reg_power")), (explicit, ("reg_power",))):
        for key in keys:
            assert section.pop(key) in {0.25, 0.7}
    (folder / "model.json").write_text(json.dumps(facts))
    settings = load_models(spark, str(folder))[0].settings
    assert (settings.implicit.popularity_exponent, settings.implicit.reg_power) == (0.0, 1.0)
    assert settings.explicit.reg_power == 1.0


def test_models_that_are_not_whole_are_named(spark: SparkSession, zone: ProcessedZone) -> None:
    with pytest.raises(InputError) as caught:
        load_models(spark, zone.model("run-9"))
    assert str(caught.value) == f"{zone.root}/models/run-9/model.json is missing: run the stage 'train' again"


def test_published_models_are_those_that_were_named_last(zone: ProcessedZone) -> None:
    assert published_run(zone) is None
    with pytest.raises(InputError) as caught:
        published_models(zone)
    assert str(caught.value) == f"{zone.root}/models/current.json is missing: run the stage 'train' first"
    for run_id in ("run-1", "run-2"):
        publish_models(zone, run_id)
        assert published_run(zone) == run_id
        assert published_models(zone) == f"{zone.root}/models/{run_id}"
