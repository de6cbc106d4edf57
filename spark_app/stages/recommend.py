"""The `recommend` stage: publishes every user's top N from the published models, as a Delta table and one CSV file."""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.data.ids import with_original_ids
from spark_app.model.als import implicit_problem
from spark_app.model.fits import Models, with_fold_in
from spark_app.model.lists import Explain, recommend
from spark_app.model.stack import with_predicted_ratings
from spark_app.model.topn import SCORE_DECIMALS
from spark_app.platform.log import logger
from spark_app.platform.settings import Recommend, Settings
from spark_app.zones.id_codes import read_codes
from spark_app.zones.manifest import RunRecord
from spark_app.zones.processed import ProcessedZone
from spark_app.zones.stored_models import fitted_to, load_models, published_models

COLUMNS = ("userId", "rank", "movieId", "title", "genres", "predicted_rating", "score", "reason")
RATING_DECIMALS = 3


def run(spark: SparkSession, settings: Settings, record: RunRecord) -> None:
    """Write `delta/recommendations` and `recommendations/movie_recommendations.csv`."""
    zone = ProcessedZone(settings.processed.path)
    ratings, movies = zone.input(spark, "ratings", record), zone.input(spark, "movies", record)
    folder = published_models(zone)
    models, rating_model = load_models(spark, folder)
    if not record.has_written(folder):
        record.note_input(folder)
    logger.info("models in %s, ratings predicted by: %s", folder, rating_model or "no model")
    options, folded_in = settings.recommend, 0
    if options.fold_in != "none" and fitted_to(folder) != zone.version(spark, "ratings"):
        models, folded_in = with_fold_in(models, ratings, options.fold_in)
        logger.info("folded in %s users who have ratings that the fit has not seen", f"{folded_in:,}")

    top = _lists(spark, models, ratings, movies, options)
    rated = _with_predicted_rating(top, models, rating_model, settings.input.scale)
    explained = _with_liked_movies_as_reason(rated, movies, options.reasons)
    published = _as_published(explained, movies).transform(with_original_ids, read_codes(spark, zone))
    zone.overwrite(published, "recommendations")
    record.note_output(zone.table("recommendations"))

    published = zone.read(spark, "recommendations")
    rows, users_served = published.agg(F.count("*"), F.count(F.when(F.col("rank") == 1, 1))).collect()[0]
    record.rows["recommendations"] = {"rows": rows, "users": users_served, "folded_in": folded_in}
    logger.info("%s recommendations for %s users", f"{rows:,}", f"{users_served:,}")
    zone.replace_recommendations_csv(_as_text(published))
    record.note_output(zone.recommendations_csv)


def _lists(spark: SparkSession, models: Models, ratings: DataFrame, movies: DataFrame, options: Recommend) -> DataFrame:
    """The top N of every user who has rated anything."""
    factors = models.implicit.users.withColumnRenamed("id", "userId")
    candidates = models.candidates(movies, options.catalogue_bytes)
    explain = Explain(implicit_problem(models.settings.implicit), options.reasons) if options.reasons else None
    return recommend(spark, factors, ratings, candidates, options.n, options.block_users, explain, everyone=True)


def _with_predicted_rating(
    top: DataFrame, models: Models, rating_model: str | None, scale: tuple[float, float]
) -> DataFrame:
    """Add `predicted_rating`, on the scale of the ratings; null if no model predicts ratings."""
    if rating_model is None or models.explicit is None:
        return top.withColumn("predicted_rating", F.lit(None).cast("double"))
    rated = with_predicted_ratings(top, models.biases, models.explicit, models.stack, scale)
    return rated.withColumnRenamed(rating_model, "predicted_rating")


def _with_liked_movies_as_reason(rated: DataFrame, movies: DataFrame, max_titles: int) -> DataFrame:
    """Put the titles of the first `max_titles` movies in `because` into `reason`; without any, `reason` stays."""
    liked = [f"liked_{place}" for place in range(max_titles)]
    for place, title in enumerate(liked):
        named = F.broadcast(movies.select(F.col("movieId").alias("because_id"), F.col("title").alias(title)))
        with_id = rated.withColumn("because_id", F.get("because", F.lit(place)))
        rated = with_id.join(named, on="because_id", how="left").drop("because_id")
    titles = F.array_compact(F.array(*liked)) if liked else F.array()
    you_liked = F.concat(F.lit("you liked "), F.array_join(titles.cast("array<string>"), " and "))
    return rated.withColumn("reason", F.when(F.size(titles) > 0, you_liked).otherwise(F.col("reason"))).drop(*liked)


def _as_published(rated: DataFrame, movies: DataFrame) -> DataFrame:
    """Add title and genres, round the predicted ratings, and select the published columns (`COLUMNS`)."""
    described = rated.join(F.broadcast(movies), on="movieId", how="inner")
    return described.withColumns(
        {
            "genres": F.concat_ws("|", "genres"),
            "predicted_rating": F.round("predicted_rating", RATING_DECIMALS),
        }
    ).select(*COLUMNS)


def _as_text(published: DataFrame) -> DataFrame:
    """Lists as they stand in the CSV: in order, with numbers as plain decimals."""
    as_text = published.withColumns(
        {
            "predicted_rating": F.col("predicted_rating").cast(f"decimal(10,{RATING_DECIMALS})"),
            "score": F.col("score").cast(f"decimal(20,{SCORE_DECIMALS})"),
        }
    )
    return as_text.orderBy("userId", "rank").select(*COLUMNS)
