"""Evaluate models on a holdout: compute numbers for each user in Spark, from which `metrics` computes the figures.

`train` judges the models that it publishes this way, and `tune` judges each of its trials.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.model.biases import BiasModel
from spark_app.model.candidates import CandidateBlocks
from spark_app.model.factors import Factors
from spark_app.model.lists import JUDGED_MODELS, lists_to_judge
from spark_app.model.metrics import (
    LIST_NUMBERS,
    OF_ERRORS,
    Judged,
    Lists,
    MovieFacts,
    RatingErrors,
    list_numbers,
    ranking_quality,
    rating_errors,
    slices,
)
from spark_app.model.split import keep_judged
from spark_app.model.stack import RATING_MODELS, StackWeights, fit_stack, with_both_predictions
from spark_app.platform.settings import Settings, Train
from spark_app.platform.spark_versions import to_arrow

CALIBRATION_BINS = 10

BLOCK_USERS = 1_000
"""Number of users judged together. Diversity compares all pairs of a list, in memory of users x k x (k + genres)."""


def movie_facts(movies: DataFrame, popularity: DataFrame, users: int) -> MovieFacts:
    """Collect movies(movieId, genres array) and popularity(movieId, rating_count), one row per movie, to the driver.

    `users` is the number of users who gave the ratings that `rating_count` counts.
    """
    counts = popularity.select("movieId", "rating_count")
    counted = movies.select("movieId", "genres").join(counts, on="movieId", how="left")
    rows = to_arrow(counted.orderBy("movieId"))
    names = rows["genres"].combine_chunks()
    lengths = np.asarray(names.value_lengths().fill_null(0), dtype=np.int64)
    distinct, columns = np.unique(names.flatten().to_numpy(zero_copy_only=False).astype(str), return_inverse=True)
    genres = np.zeros((len(rows), len(distinct)), dtype=np.float32)
    genres[np.repeat(np.arange(len(rows)), lengths), columns] = 1.0
    ids, popular = rows["movieId"].to_numpy(), rows["rating_count"].fill_null(0).to_numpy()
    return MovieFacts(ids.astype(np.int64), popular.astype(np.float64), genres, users)


def judge_ranking(
    spark: SparkSession,
    training: DataFrame,
    holdout: DataFrame,
    candidates: CandidateBlocks,
    user_factors: DataFrame,
    facts: MovieFacts,
    settings: Settings,
    unrated: DataFrame | None = None,
) -> Judged:
    """Judge the lists of implicit ALS and of popularity for users of the holdout, over the whole catalogue.

    Takes training(userId, movieId, rating), holdout(userId, movieId, rating), the candidates, and user_factors(id,
    features); and unrated(userId, movieId), what users have seen without a rating, which no list has. If there are more
    users than `train.judged_users`, about that many are judged.
    """
    k = settings.train.k
    training, holdout = (keep_judged(part, facts.users, settings.train) for part in (training, holdout))
    relevant = relevant_movies(holdout, settings.train.relevant).persist()
    factors = user_factors.withColumnRenamed("id", "userId")
    users = relevant.select("userId").join(factors, on="userId", how="left")
    block_users = settings.recommend.block_users
    if unrated is not None:
        # A movie that was rated as well may be in the holdout, where a list must be able to name it.
        unrated = keep_judged(unrated, facts.users, settings.train)
        unrated = unrated.join(holdout, on=["userId", "movieId"], how="left_anti")
    lists = lists_to_judge(spark, users, training, candidates, k, block_users, unrated)
    judged = collect_judged(judge_lists(lists, JUDGED_MODELS, relevant, facts, k), JUDGED_MODELS, facts)
    relevant.unpersist()
    return judged


def relevant_movies(holdout: DataFrame, relevant: float) -> DataFrame:
    """The movies that each user rated at least `relevant`: userId, relevant (array of movieId). No row without any."""
    liked = holdout.filter(F.col("rating") >= relevant)
    return liked.groupBy("userId").agg(F.collect_list("movieId").alias("relevant"))


def judge_lists(lists: DataFrame, models: Sequence[str], relevant: DataFrame, facts: MovieFacts, k: int) -> DataFrame:
    """Compute the LIST_NUMBERS of each model for each user in `relevant`.

    Takes lists(userId, seen, seen_popularity, one array of movieId per model, the best first) and relevant(userId,
    relevant). Returns userId, seen, the lists cut to `k`, and a column `MODEL_NUMBER` for each model and number. Users
    without a row in `lists` get empty lists.
    """
    shared = relevant.sparkSession.sparkContext.broadcast(facts)
    judged = relevant.join(lists, on="userId", how="left").select(
        "userId",
        "relevant",
        F.coalesce("seen", F.lit(0)).alias("seen"),
        F.coalesce("seen_popularity", F.lit(0.0)).alias("seen_popularity"),
        *(F.coalesce(F.slice(model, 1, k), F.array().cast("array<int>")).alias(model) for model in models),
    )
    names = [f"{model}_{number}" for model in models for number in LIST_NUMBERS]
    columns = ["userId INT", "seen INT", *(f"{m} ARRAY<INT>" for m in models), *(f"{name} DOUBLE" for name in names)]

    def judge(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        blocks = (rows.slice(first, BLOCK_USERS) for rows in batches for first in range(0, len(rows), BLOCK_USERS))
        for batch in blocks:
            wanted, history = _as_lists(batch["relevant"]), batch["seen_popularity"].to_numpy()
            numbers = [list_numbers(_as_lists(batch[model]), wanted, history, shared.value, k) for model in models]
            values = [pa.array(column) for of_model in numbers for column in of_model.T]
            kept = [batch["userId"], batch["seen"], *(batch[model] for model in models)]
            yield pa.RecordBatch.from_arrays([*kept, *values], names=["userId", "seen", *models, *names])

    return judged.mapInArrow(judge, ", ".join(columns))


def _as_lists(column: pa.Array) -> Lists:
    return Lists.of(np.asarray(column.value_lengths(), dtype=np.int64), column.flatten().to_numpy().astype(np.int64))


def collect_judged(judged: DataFrame, models: Sequence[str], facts: MovieFacts) -> Judged:
    """Collect the numbers of each user, and how often each model lists each movie. `judged` is computed only once."""
    judged = judged.persist()
    numbers = [f"{model}_{number}" for model in models for number in LIST_NUMBERS]
    table = to_arrow(judged.select("userId", "seen", *numbers).orderBy("userId"))
    exposure = {}
    for model in models:
        shown = to_arrow(judged.select(F.explode(model).alias("movieId")).groupBy("movieId").count())
        exposure[model] = np.zeros(len(facts.movie_ids), dtype=np.int64)
        exposure[model][facts.places(shown["movieId"].to_numpy())] = shown["count"].to_numpy()
    judged.unpersist()
    by_model = {
        model: np.column_stack([table[f"{model}_{number}"].to_numpy() for number in LIST_NUMBERS]) for model in models
    }
    return Judged(table["seen"].to_numpy().astype(np.int64), by_model, exposure)


def judge_ratings(
    holdout: DataFrame, biases: BiasModel, explicit: Factors, facts: MovieFacts, settings: Settings
) -> tuple[StackWeights, RatingErrors, list[dict[str, float]]]:
    """Fit the stack of both rating models to the whole holdout; sum up the errors of all three, calibrate the best.

    Errors and calibration (see `calibration`) are those of the judged users only.
    """
    both = with_both_predictions(holdout.drop("timestamp"), biases, explicit).persist()
    stack, predicted = fit_stack(both, settings.input.scale)
    judged = keep_judged(predicted, facts.users, settings.train)
    errors = collect_rating_sums(rating_sums(judged, RATING_MODELS, facts.popular_from), RATING_MODELS)
    calibrated = calibration(judged, rating_model(errors), settings.input.scale)
    both.unpersist()
    return stack, errors, calibrated


def rating_model(errors: RatingErrors) -> str:
    """The rating model with the lowest RMSE."""
    of_all = errors.means("rmse", np.ones(len(errors.ratings), dtype=bool))
    return min(RATING_MODELS, key=lambda model: of_all[model])


def calibration(predicted: DataFrame, model: str, scale: tuple[float, float]) -> list[dict[str, float]]:
    """The mean rating where a model predicts about the same, in ascending order: `predicted`, `actual`, `ratings`.

    Takes predicted(rating, and a column for the model). The scale is cut into CALIBRATION_BINS parts of equal width;
    parts without a prediction are left out. It is the reliability diagram of A. Niculescu-Mizil,
    R. Caruana: Predicting Good Probabilities with Supervised Learning, ICML 2005.
    """
    low, high = scale
    share = (F.col(model) - F.lit(low)) / F.lit(high - low)
    part = F.least(F.floor(share * CALIBRATION_BINS), F.lit(CALIBRATION_BINS - 1))
    means = predicted.groupBy(part.alias("part")).agg(
        F.avg(model).alias("predicted"), F.avg("rating").alias("actual"), F.count("*").alias("ratings")
    )
    rows = means.orderBy("part").collect()
    return [
        {"predicted": round(row.predicted, 6), "actual": round(row.actual, 6), "ratings": row.ratings} for row in rows
    ]


def rating_sums(predicted: DataFrame, models: Sequence[str], popular_from: int) -> DataFrame:
    """Sum the errors of each model, for each user, separately for popular and rare movies.

    Takes predicted(userId, rating, user_ratings, movie_ratings, and a column for each model). Returns userId,
    is_popular, seen (the user's ratings in the training part), ratings (those predicted), and a column `MODEL_METRIC`
    for each model and each metric in OF_ERRORS. A movie is popular from `popular_from` ratings on.
    """
    errors = {model: F.col(model) - F.col("rating") for model in models}
    return predicted.groupBy("userId", (F.col("movie_ratings") >= popular_from).alias("is_popular")).agg(
        F.max("user_ratings").alias("seen"),
        F.count("*").alias("ratings"),
        *(
            F.sum(metric.by_error(error)).alias(f"{model}_{metric.name}")
            for metric in OF_ERRORS
            if metric.by_error
            for model, error in errors.items()
        ),
    )


def collect_rating_sums(sums: DataFrame, models: Sequence[str]) -> RatingErrors:
    """Collect the result of `rating_sums`: one or two rows per user."""
    table = to_arrow(sums.orderBy("userId", "is_popular"))
    return RatingErrors(
        table["userId"].to_numpy().astype(np.int64),
        table["is_popular"].to_numpy(zero_copy_only=False).astype(bool),
        table["seen"].to_numpy().astype(np.int64),
        table["ratings"].to_numpy().astype(np.float64),
        {
            model: np.column_stack([table[f"{model}_{metric.name}"].to_numpy() for metric in OF_ERRORS])
            for model in models
        },
    )


def quality(judged: Judged, errors: RatingErrors | None, facts: MovieFacts, train: Train) -> dict[str, Any]:
    """All figures for the manifest, with their intervals and slices; only those of the ranking if `errors` is None.

    Keys: ranking and rating (figures by model), intervals (of both, by model), differences (the intervals of their
    differences to the baseline), rating_model (the model with the lowest
    RMSE), slices.
    """
    found = {"ranking": ranking_quality(judged, train.k, train.seed)}
    if errors is not None:
        found["rating"] = rating_errors(errors, train.seed)
    figures: dict[str, Any] = {task: one.figures for task, one in found.items()}
    figures["intervals"] = {task: one.intervals for task, one in found.items()}
    figures["differences"] = {task: one.differences for task, one in found.items()}
    if errors is not None:
        figures["rating_model"] = rating_model(errors)
    return {**figures, "slices": slices(judged, errors, facts, train.k)}
