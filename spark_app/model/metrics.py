"""How good predictions and rankings are, by MLlib's evaluators."""

from __future__ import annotations

from typing import Literal

from pyspark.ml.evaluation import RankingEvaluator, RegressionEvaluator
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

RankingMetric = Literal["ndcgAtK", "recallAtK", "meanAveragePrecisionAtK"]
RANKING_METRICS: dict[str, RankingMetric] = {"ndcg": "ndcgAtK", "recall": "recallAtK", "map": "meanAveragePrecisionAtK"}


def rating_errors(predicted: DataFrame, prediction: str) -> dict[str, float]:
    """RMSE and MAE, in stars, of a prediction column against `rating`."""
    evaluator = RegressionEvaluator(labelCol="rating", predictionCol=prediction)
    return {metric: evaluator.setMetricName(metric).evaluate(predicted) for metric in ("rmse", "mae")}


def relevant_movies(holdout: DataFrame, relevant: float) -> DataFrame:
    """What each user liked in the holdout: userId, relevant (array of movieId). No row for users who liked nothing."""
    liked = holdout.filter(F.col("rating") >= relevant)
    return liked.groupBy("userId").agg(F.collect_list(F.col("movieId").cast("double")).alias("relevant"))


def ranking_quality(top: DataFrame, relevant: DataFrame, k: int, catalogue_size: int) -> dict[str, float]:
    """NDCG@k, recall@k and MAP@k (0 to 1, means over the users in `relevant`), and the share of movies in any list.

    Takes top(userId, rank, movieId) and relevant(userId, relevant array). Relevance is binary.
    """
    ranked = F.transform(F.array_sort(F.collect_list(F.struct("rank", "movieId"))), lambda entry: entry.movieId)
    lists = top.filter(F.col("rank") <= k).groupBy("userId").agg(ranked.cast("array<double>").alias("listed"))
    no_list = F.array().cast("array<double>")
    judged = relevant.join(lists, on="userId", how="left").withColumn("listed", F.coalesce("listed", no_list)).persist()
    evaluator = RankingEvaluator(predictionCol="listed", labelCol="relevant", k=k)
    quality = {
        f"{name}@{k}": evaluator.setMetricName(metric).evaluate(judged) for name, metric in RANKING_METRICS.items()
    }
    covered = judged.select(F.explode("listed")).distinct().count()
    users = judged.count()
    judged.unpersist()
    return {**quality, "coverage": covered / catalogue_size, "users": users}
