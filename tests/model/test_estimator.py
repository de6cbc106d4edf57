"""The estimator replaces MLlib's: the same parameters, the same model, and the tools that work with them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from pyspark.errors import PySparkException
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.evaluation import RegressionEvaluator
from pyspark.ml.recommendation import ALS as MllibALS  # noqa: N811
from pyspark.ml.recommendation import ALSModel
from pyspark.ml.tuning import CrossValidator, ParamGridBuilder
from pyspark.sql import DataFrame, SparkSession

from spark_app.model.estimator import ALS, OF_MLLIB_ALONE, FactorModel

COLUMNS = {"userCol": "who", "itemCol": "what", "ratingCol": "stars"}


@pytest.fixture(scope="module")
def ratings(spark: SparkSession) -> DataFrame:
    """Ratings of 12 items by 20 users, for two thirds of the pairs: users like items of their own parity."""
    rows = [(u, i, 4.5 if (u + i) % 2 else 1.5) for u in range(20) for i in range(12) if (u + i) % 3]
    return spark.createDataFrame(rows, "who INT, what INT, stars DOUBLE").persist()


@pytest.fixture(scope="module")
def model(ratings: DataFrame) -> FactorModel:
    return ALS(rank=4, maxIter=4, regParam=0.05, **COLUMNS).fit(ratings)


def predicted(frame: DataFrame) -> dict[tuple[int, int], float]:
    return {(row.who, row.what): row.prediction for row in frame.collect()}


def test_parameters_have_the_names_and_defaults_of_mllib(spark: SparkSession) -> None:
    ours, theirs = ALS(), MllibALS()
    for param in theirs.params:
        assert ours.hasParam(param.name)
        assert hasattr(ours, f"set{param.name[0].upper()}{param.name[1:]}")
        if param.name != "seed":
            assert ours.getOrDefault(param.name) == theirs.getOrDefault(param)
    assert ALS().getSeed() == ALS().getSeed() == 42
    assert all(ours.hasParam(name) for name in OF_MLLIB_ALONE)


def test_parameters_are_set_by_name_and_by_setter(spark: SparkSession) -> None:
    als = ALS(rank=3).setRegPower(0.5).setRank(5)
    assert (als.getRank(), als.getOrDefault("regPower")) == (5, 0.5)
    with pytest.raises(ValueError, match=r"^ALS has no parameter rnak$"):
        ALS(rnak=3)


def test_a_model_predicts_as_mllib_does_from_the_same_factors(
    ratings: DataFrame, model: FactorModel, tmp_path: Path
) -> None:
    model.save(str(tmp_path / "model"))
    theirs = ALSModel.load(str(tmp_path / "model"))
    assert theirs.rank == model.rank == 4
    ours = predicted(model.transform(ratings))
    assert ours == pytest.approx(predicted(theirs.transform(ratings)), abs=1e-5)
    assert len(ours) == ratings.count()


def test_it_learns_who_likes_what(spark: SparkSession, model: FactorModel) -> None:
    asked = spark.createDataFrame([(3, 0), (3, 3)], "who INT, what INT")
    found = predicted(model.transform(asked))
    assert found[3, 0] > 4
    assert found[3, 3] < 2.5


def test_other_columns_stay_and_unknown_pairs_are_nan_or_dropped(spark: SparkSession, model: FactorModel) -> None:
    asked = spark.createDataFrame([("a", 1, 1), ("b", 1, 99), ("c", 99, 1)], "note STRING, who INT, what INT")
    found = {row.note: row.prediction for row in model.transform(asked).collect()}
    assert not math.isnan(found["a"])
    assert math.isnan(found["b"])
    assert math.isnan(found["c"])
    dropping = model.copy({model.coldStartStrategy: "drop"})
    assert [row.note for row in dropping.transform(asked).collect()] == ["a"]


def test_biases_are_two_more_columns_of_the_factors(ratings: DataFrame) -> None:
    fitted = ALS(rank=2, maxIter=3, biases=True, **COLUMNS).fit(ratings)
    assert fitted.rank == 4
    users = np.array([row.features for row in fitted.userFactors.collect()])
    items = np.array([row.features for row in fitted.itemFactors.collect()])
    np.testing.assert_array_equal(users[:, -1], 1)
    np.testing.assert_array_equal(items[:, -2], 1)


def test_pipelines_are_fitted_saved_and_loaded(ratings: DataFrame, tmp_path: Path) -> None:
    fitted = Pipeline(stages=[ALS(rank=2, maxIter=2, **COLUMNS)]).fit(ratings)
    fitted.write().save(str(tmp_path / "pipeline"))
    loaded = PipelineModel.load(str(tmp_path / "pipeline"))
    assert isinstance(loaded.stages[0], ALSModel)
    assert predicted(loaded.transform(ratings)) == pytest.approx(predicted(fitted.transform(ratings)), abs=1e-5)


def test_an_estimator_is_saved_and_loaded(spark: SparkSession, tmp_path: Path) -> None:
    ALS(rank=7, regPower=0.5, **COLUMNS).save(str(tmp_path / "als"))
    loaded = ALS.load(str(tmp_path / "als"))
    assert (loaded.getRank(), loaded.getOrDefault("regPower"), loaded.getUserCol()) == (7, 0.5, "who")


def test_cross_validation_tells_good_settings_from_bad_ones(ratings: DataFrame) -> None:
    als = ALS(rank=2, maxIter=5, coldStartStrategy="drop", **COLUMNS)
    grid = ParamGridBuilder().addGrid(als.regParam, [0.1, 50.0]).build()
    evaluator = RegressionEvaluator(labelCol="stars", predictionCol="prediction")
    validated = CrossValidator(estimator=als, estimatorParamMaps=grid, evaluator=evaluator, numFolds=3, seed=1)
    good, bad = validated.fit(ratings).avgMetrics
    assert good < bad


def test_starting_from_another_fit_goes_on_where_it_ended(ratings: DataFrame, model: FactorModel) -> None:
    again = ALS(rank=4, maxIter=1, regParam=0.05, **COLUMNS).startFrom(model.factors).fit(ratings)
    assert again.objective[0] <= model.objective[-1] * (1 + 1e-6)


def test_preferences_below_zero_are_dislikes(spark: SparkSession, ratings: DataFrame) -> None:
    preferences = ratings.selectExpr("who", "what", "stars - 2.5 AS stars")
    fitted = ALS(rank=4, maxIter=4, implicitPrefs=True, alpha=5.0, **COLUMNS).fit(preferences)
    found = predicted(fitted.transform(spark.createDataFrame([(3, 2), (3, 5)], "who INT, what INT")))
    assert found[3, 2] > 0.6
    assert found[3, 5] < 0.3


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"nonnegative": True}, "nonnegative factors are not supported: use pyspark.ml.recommendation.ALS"),
        (
            {"implicitPrefs": True, "biases": True},
            "biases are for explicit feedback: set implicitPrefs or biases to False",
        ),
    ],
)
def test_what_it_cannot_do_is_refused(ratings: DataFrame, params: dict[str, bool], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        ALS(**params, **COLUMNS).fit(ratings)


def test_no_ratings_are_refused(ratings: DataFrame) -> None:
    with pytest.raises(ValueError, match=r"^there are no ratings to fit to$"):
        ALS(**COLUMNS).fit(ratings.limit(0))


@pytest.mark.parametrize("who", ["1.5", "NULL", "3000000000"])
def test_ids_that_are_no_integers_are_refused(spark: SparkSession, who: str) -> None:
    rows = spark.sql(f"SELECT {who} AS who, 1 AS what, 3.0 AS stars")
    with pytest.raises(PySparkException):
        ALS(**COLUMNS).fit(rows)
