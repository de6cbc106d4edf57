"""Predicted ratings: by the biases, by explicit ALS, and by a stack of the two.

Explicit ALS predicts well for active users and popular movies; the biases predict better for others. So the stack mixes
the two predictions, with a weight w that depends on the numbers of ratings n of the user and of the movie:

    stacked = bias + w (explicit - bias),    w = w0 + w1 ln(1 + n_user) + w2 ln(1 + n_movie),  clipped to [0, 1]

J. Sill, G. Takacs, L. Mackey, D. Lin: Feature-Weighted Linear Stacking, 2009 (arXiv:0911.0460).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_app.model.biases import BiasModel, with_bias_prediction
from spark_app.model.factors import Factors, with_prediction

RATING_MODELS = ("explicit", "bias", "stacked")
"""The columns of predicted ratings. The published ratings are those of one of these models."""

WEIGHT_DECIMALS = 6
"""The weights are rounded, because Spark adds up their sums in any order, and two runs should agree."""


@dataclass(frozen=True)
class StackWeights:
    """w0, w1 and w2 of the formula above. With the defaults the stack is explicit ALS."""

    constant: float = 1.0
    user: float = 0.0
    movie: float = 0.0


def weights_of(rating_model: str, stack: StackWeights) -> StackWeights:
    """The weights with which the formula gives the predictions of one of RATING_MODELS."""
    return {"explicit": StackWeights(), "bias": StackWeights(constant=0.0), "stacked": stack}[rating_model]


def with_both_predictions(pairs: DataFrame, biases: BiasModel, explicit: Factors) -> DataFrame:
    """Add bias, explicit, user_ratings and movie_ratings to pairs(userId, movieId, ...); predictions are not clipped.

    Where ALS cannot predict, `explicit` is the bias prediction. So neither prediction is ever null or NaN.
    """
    predicted = with_prediction(with_bias_prediction(pairs, biases), explicit, "explicit")
    return predicted.withColumn("explicit", F.nanvl(F.col("explicit").cast("double"), F.col("bias")))


def with_predicted_ratings(
    pairs: DataFrame, biases: BiasModel, explicit: Factors, weights: StackWeights, scale: tuple[float, float]
) -> DataFrame:
    """Add RATING_MODELS to pairs(userId, movieId, ...): the rating that each model predicts, clipped to the scale."""
    both = with_both_predictions(pairs, biases, explicit)
    return _clipped(both.withColumn("stacked", _stacked(weights)), scale).drop("user_ratings", "movie_ratings")


def fit_stack(predicted: DataFrame, scale: tuple[float, float]) -> tuple[StackWeights, DataFrame]:
    """Fit the weights by least squares; return them, and the pairs with RATING_MODELS, clipped to the scale.

    Takes the result of `with_both_predictions` for pairs(userId, movieId, rating, ...) that neither model was fitted
    to. In the returned pairs, `stacked` is out of fold: a hash of the keys splits the pairs into two halves, and the
    weights fitted to one half predict the other half. So no rating is predicted with weights that have seen it. The
    fit makes one pass over the pairs.
    """
    fold = F.pmod(F.xxhash64(F.lit("stack"), "movieId", "userId"), F.lit(2))
    gap, target = F.col("explicit") - F.col("bias"), F.col("rating") - F.col("bias")
    terms = [gap * feature for feature in _features()]
    sums = [F.sum(left * right) for left in terms for right in (*terms, target)]
    rows = predicted.groupBy(fold.alias("fold")).agg(F.array(*sums).alias("sums")).collect()
    by_fold = {row["fold"]: np.array(row["sums"]).reshape(len(terms), len(terms) + 1) for row in rows}
    total = sum(by_fold.values(), np.zeros((len(terms), len(terms) + 1)))
    out_of_fold = F.when(fold == 0, _stacked(_solve(total - by_fold.get(0, 0.0)))).otherwise(
        _stacked(_solve(total - by_fold.get(1, 0.0)))
    )
    return _solve(total), _clipped(predicted.withColumn("stacked", out_of_fold), scale)


def _features() -> tuple[Column, Column, Column]:
    return F.lit(1.0), F.log1p("user_ratings"), F.log1p("movie_ratings")


def _solve(sums: NDArray[np.float64]) -> StackWeights:
    """The weights with the least squared error; if several have it, those with the smallest norm."""
    weights = np.linalg.lstsq(sums[:, :-1], sums[:, -1], rcond=None)[0]
    return StackWeights(*(round(float(weight), WEIGHT_DECIMALS) for weight in weights))


def _stacked(weights: StackWeights) -> Column:
    constant, user, movie = _features()
    weight = weights.constant * constant + weights.user * user + weights.movie * movie
    return F.col("bias") + _within(weight, (0.0, 1.0)) * (F.col("explicit") - F.col("bias"))


def _clipped(predicted: DataFrame, scale: tuple[float, float]) -> DataFrame:
    return predicted.withColumns({model: _within(F.col(model), scale) for model in RATING_MODELS})


def _within(value: Column, bounds: tuple[float, float]) -> Column:
    return F.greatest(F.lit(bounds[0]), F.least(F.lit(bounds[1]), value))
