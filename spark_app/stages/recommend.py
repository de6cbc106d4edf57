"""The `recommend` stage: publishes every user's top N from the published models, as a Delta table and one CSV file."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

import spark_app
from spark_app.data.ids import Codes, with_original_ids
from spark_app.data.liked import AND, YOU_LIKED
from spark_app.data.popular import popular_lists
from spark_app.model.als import implicit_problem
from spark_app.model.candidates import Candidates
from spark_app.model.fits import Models, with_fold_in
from spark_app.model.lists import LAST_OF_CHOICE, LAST_REASON, Explain, recommend
from spark_app.model.matrices import FactorMatrix, Ids
from spark_app.model.predicted import RATING_DECIMALS, RatingModel
from spark_app.model.similarity import similar_movies
from spark_app.model.stack import weights_of
from spark_app.model.topn import SCORE_DECIMALS
from spark_app.platform import storage
from spark_app.platform.arrow_files import Files
from spark_app.platform.errors import InputError
from spark_app.platform.log import logger
from spark_app.platform.settings import Recommend, Settings, Similar
from spark_app.platform.spark_versions import from_arrow, to_arrow
from spark_app.zones import csv_files
from spark_app.zones.choice import chosen_movies, chosen_users, movies_with_counts, tell_unknown
from spark_app.zones.csv_files import CsvFile
from spark_app.zones.id_codes import read_codes
from spark_app.zones.manifest import RunRecord
from spark_app.zones.processed import ProcessedZone
from spark_app.zones.stored_models import fitted_to, load_models, published_models, published_run

COLUMNS = ("userId", "rank", "movieId", "title", "genres", "predicted_rating", "score", "reason")

SIMILAR = pa.schema(
    [
        *((name, pa.int32()) for name in ("movieId", "rank", "similarMovieId")),
        ("title", pa.string()),
        ("genres", pa.string()),
        ("score", pa.float64()),
        ("rating_count", pa.int64()),
    ]
)
"""Title, genres, score and number of ratings are those of the similar movie."""


def run(spark: SparkSession, settings: Settings, record: RunRecord) -> None:
    """Write the lists of users, of popular movies and of similar movies as Delta tables, the first and last as CSV."""
    zone = ProcessedZone(settings.processed.path)
    rated = zone.input_by_user(spark, "ratings", record)
    movies, _ = (zone.input(spark, name, record) for name in ("movies", "movie_stats"))
    folder = published_models(zone)
    models, rating_model_name = load_models(spark, folder)
    if not record.has_written(folder):
        record.note_input(folder)
    logger.info("models in %s, ratings predicted by: %s", folder, rating_model_name or "no model")
    options, folded_in = settings.recommend, 0
    _note_lists(options, record)
    chosen = chosen_movies(zone, options, settings.input)
    rating_model = _rating_model(models, rating_model_name, settings)
    all_ratings = rated.frame(spark) if isinstance(rated, Files) else rated
    ratings = _of_chosen_users(spark, zone, all_ratings, settings)
    if options.fold_in != "none" and fitted_to(folder) != zone.version("ratings"):
        models, folded_in = with_fold_in(models, ratings, options.fold_in)
        logger.info("folded in %s users who have ratings that the fit has not seen", f"{folded_in:,}")

    seen: DataFrame | Files = (rated if ratings is all_ratings else ratings).select("userId", "movieId", "rating")
    if zone.has_table("unrated"):
        seen = _with_unrated(ratings, zone.input(spark, "unrated", record), options)
    top = _lists(spark, models, rating_model, seen, zone.movie_ids(), chosen, options)
    if options.has_lowest_rating:
        top = _not_empty(top.persist(), options)
    explained = _with_liked_movies_as_reason(top, movies, options)
    codes = read_codes(spark, zone)
    made_by = {"run_id": F.lit(record.run_id), "recommended_at": F.lit(record.started)}
    published = _as_published(explained, movies).transform(with_original_ids, codes).withColumns(made_by)
    made_from = _made_from(settings)
    zone.overwrite(published, "recommendations", made_from=made_from)
    record.note_output(zone.table("recommendations"))

    published = zone.read(spark, "recommendations")
    of_rank = (F.count(F.when(F.col("rank") == rank, 1)) for rank in (1, options.n))
    rows, users_served, users_in_full = published.agg(F.count("*"), *of_rank).collect()[0]
    record.rows["recommendations"] = {"rows": rows, "users": users_served, "folded_in": folded_in}
    if chosen is not None:
        record.rows["recommendations"]["chosen_movies"] = len(chosen)
    logger.info("%s recommendations for %s users", f"{rows:,}", f"{users_served:,}")
    if options.leaves_out_movies:
        everybody = seen.frame(spark) if isinstance(seen, Files) else seen
        _warn_of_short_lists(everybody, users_served, users_served - users_in_full, options)
    csv_files.write(spark, zone, _recommendations(zone))
    record.note_output(zone.recommendations_csv)

    if settings.similar.n or zone.has_table("similar_movies"):
        # Without any, what an earlier run has published gives way to an empty table.
        _publish_similar(spark, zone, _similar(spark, zone, models, chosen, settings.similar), codes, record)
    popular = popular_lists(_movies_for_anyone(zone, models, rating_model, chosen), options.n)
    # Last of all: its note says that everything before it is complete.
    popular_movies = from_arrow(spark, popular).transform(with_original_ids, codes)
    zone.overwrite(popular_movies, "popular_movies", made_from=made_from)
    record.note_output(zone.table("popular_movies"))


def _note_lists(options: Recommend, record: RunRecord) -> None:
    """Note the lists of ids as inputs; files with their size and checksum. Lists that are missing are told later."""
    for path in map(storage.normalise, (*options.items, *options.exclude, *options.users)):
        facts = asdict(storage.fingerprint(path)) if storage.is_file(path) else {"path": path}
        record.note_input(**facts)


def _warn_of_short_lists(seen: DataFrame, users_served: int, with_fewer: int, options: Recommend) -> None:
    """Log how many users have a short list, and how many of those in seen(userId) have none."""
    with_none = seen.select("userId").distinct().count() - users_served
    if with_fewer or with_none:
        logger.warning(
            "%s users have a list of fewer than %d movies, and %s have none: nothing else is left for them",
            f"{with_fewer:,}",
            options.n,
            f"{with_none:,}",
        )


def is_current(settings: Settings, record: RunRecord) -> bool:
    """Whether the published lists are those that the stage would make (`train.when` = "new"); without Spark.

    They are not if settings name files: nobody has noted what was in these.
    """
    zone, options = ProcessedZone(settings.processed.path), settings.recommend
    return (
        settings.train.when == "new"
        and not (options.items or options.exclude or options.users)
        and published_run(zone) is not None
        and zone.is_made_from("recommendations", _made_from(settings))
        and storage.exists(zone.recommendations_csv)
        and zone.is_made_from("popular_movies", _made_from(settings))
    )


def _made_from(settings: Settings) -> dict[str, Any]:
    """What the lists are made from."""
    zone = ProcessedZone(settings.processed.path)
    return {
        "models": published_run(zone),
        **zone.versions("ratings", "movies", "movie_stats"),
        "settings": settings.model_dump(mode="json", include={"recommend", "similar", "input"}),
        "version": spark_app.__version__,
    }


def _rating_model(models: Models, name: str | None, settings: Settings) -> RatingModel | None:
    """The model that predicts the published ratings, with the lowest rating that may be recommended; None for counts.

    Raises InputError if a lowest rating is set and the models predict none.
    """
    options = settings.recommend
    if name is None or models.explicit is None:
        if options.has_lowest_rating:
            raise InputError(
                "the published models predict no ratings: leave out recommend.min_predicted_rating and "
                "recommend.min_above_mean, or run the stage 'train' on ratings"
            )
        return None
    return RatingModel.of(models.biases.mean, settings.input.scale, weights_of(name, models.stack), options)


def _of_chosen_users(spark: SparkSession, zone: ProcessedZone, ratings: DataFrame, settings: Settings) -> DataFrame:
    """The ratings of the users who get lists. Raises InputError if there are none."""
    options, of_chosen = settings.recommend, ratings
    if options.users:
        listed = chosen_users(zone, options, settings.input)
        users = from_arrow(spark, pa.table({"userId": listed}))
        of_chosen = of_chosen.join(F.broadcast(users), on="userId", how="left_semi")
        known = to_arrow(of_chosen.select("userId").distinct())["userId"].to_numpy()
        unknown = np.setdiff1d(listed, known)
        tell_unknown("users", [str(user) for user in unknown.tolist()], len(listed))
    if options.active_since:
        day = F.to_timestamp(F.lit(f"{options.active_since.isoformat()} 00:00:00"))
        active = of_chosen.groupBy("userId").agg(F.max("timestamp").alias("last")).filter(F.col("last") >= day)
        of_chosen = of_chosen.join(active.select("userId"), on="userId", how="left_semi")
    if of_chosen is not ratings and of_chosen.isEmpty():
        (latest,) = ratings.agg(F.max("timestamp")).collect()[0]
        raise InputError(
            "no user gets a list: nobody is in recommend.users and has rated anything since recommend.active_since; "
            f"the latest rating is of {latest.date() if latest else 'no known day'}"
        )
    return of_chosen


def _with_unrated(ratings: DataFrame, unrated: DataFrame, options: Recommend) -> DataFrame:
    """The ratings as userId, movieId, rating, and what was seen without one, with null for the rating.

    Where the settings choose users by their ratings only what these have seen is added.
    """
    if options.users or options.active_since:
        unrated = unrated.join(ratings.select("userId").distinct(), on="userId", how="left_semi")
    return ratings.select("userId", "movieId", "rating").unionByName(
        unrated.withColumn("rating", F.lit(None).cast("double"))
    )


def _lists(
    spark: SparkSession,
    models: Models,
    rating_model: RatingModel | None,
    seen: DataFrame | Files,
    movie_ids: Ids,
    chosen: Ids | None,
    options: Recommend,
) -> DataFrame:
    """The top N of every user who has rated or seen anything, of the chosen movies."""
    factors = models.implicit.user_rows
    candidates = models.candidates(movie_ids, options.catalogue_bytes)
    if chosen is not None:

        def of_chosen(block: Candidates) -> Candidates:
            return replace(block, is_chosen=np.isin(block.movie_ids, chosen))

        candidates = candidates.each(of_chosen)
    predict = None
    if rating_model:
        candidates, predict = models.with_ratings(candidates, rating_model), models.predict(rating_model)
    explain = Explain(implicit_problem(models.settings.implicit), options.reasons) if options.reasons else None
    return recommend(spark, factors, seen, candidates, options.n, options.block_users, explain, predict, everyone=True)


def _not_empty(top: DataFrame, options: Recommend) -> DataFrame:
    """The lists. Raises InputError if all of them are empty, before anything is published."""
    if top.isEmpty():
        lowest = {"min_predicted_rating": options.min_predicted_rating, "min_above_mean": options.min_above_mean}
        used = " and ".join(f"recommend.{name}={value:g}" for name, value in lowest.items() if value is not None)
        raise InputError(f"no movie may be recommended to anybody with {used}: lower this")
    return top


def _with_liked_movies_as_reason(top: DataFrame, movies: DataFrame, options: Recommend) -> DataFrame:
    """Put the titles of the first movies in `because` into `reason`; without any, `reason` stays."""
    liked = [f"liked_{place}" for place in range(options.reasons)]
    for place, title in enumerate(liked):
        named = F.broadcast(movies.select(F.col("movieId").alias("because_id"), F.col("title").alias(title)))
        with_id = top.withColumn("because_id", F.get("because", F.lit(place)))
        top = with_id.join(named, on="because_id", how="left").drop("because_id")
    titles = F.array_compact(F.array(*liked)) if liked else F.array()
    you_liked = F.concat(F.lit(YOU_LIKED), F.array_join(titles.cast("array<string>"), AND))
    reason = F.when(F.size(titles) > 0, you_liked)
    if options.leaves_out_movies:
        reason = reason.when(F.col("reason") == LAST_REASON, LAST_OF_CHOICE)
    return top.withColumn("reason", reason.otherwise(F.col("reason"))).drop(*liked)


def _as_published(rated: DataFrame, movies: DataFrame) -> DataFrame:
    """Add title and genres, and select the published columns (`COLUMNS`)."""
    described = rated.join(F.broadcast(movies), on="movieId", how="inner")
    return described.withColumn("genres", F.concat_ws("|", "genres")).select(*COLUMNS)


def _recommendations(zone: ProcessedZone) -> CsvFile:
    decimals = {"predicted_rating": RATING_DECIMALS, "score": SCORE_DECIMALS}
    return CsvFile(zone.recommendations_csv, "recommendations", COLUMNS, ("userId", "rank"), decimals)


def _similar_movies(zone: ProcessedZone) -> CsvFile:
    decimals = {"score": SCORE_DECIMALS}
    return CsvFile(zone.similar_movies_csv, "similar_movies", tuple(SIMILAR.names), ("movieId", "rank"), decimals)


def _movies_for_anyone(
    zone: ProcessedZone, models: Models, rating_model: RatingModel | None, chosen: Ids | None
) -> pa.Table:
    """The movies that may be recommended to a user without ratings, with their predicted rating (null for counts)."""
    movies = movies_with_counts(zone)
    if chosen is not None:
        movies = movies.filter(pa.array(np.isin(movies["movieId"].to_numpy(), chosen)))
    if rating_model is None:
        return movies.append_column("predicted_rating", pa.nulls(len(movies), pa.float64()))
    predicted = models.predicted_for_anyone(movies["movieId"].to_numpy(), rating_model)
    movies = movies.append_column("predicted_rating", pa.array(predicted))
    return movies if rating_model.least is None else movies.filter(pa.array(predicted >= rating_model.least))


def _similar(
    spark: SparkSession, zone: ProcessedZone, models: Models, chosen: Ids | None, options: Similar
) -> DataFrame:
    """The movies most similar to each movie that has enough ratings, of those that may be recommended."""
    movies = movies_with_counts(zone)
    known = movies["movieId"].to_numpy()[movies["rating_count"].to_numpy() >= options.min_ratings]
    factors = models.implicit.movie_matrix()
    is_known = np.isin(factors.ids, known)
    factors = FactorMatrix(factors.ids[is_known], factors.rows[is_known])
    is_chosen = None if chosen is None else np.isin(factors.ids, chosen)
    if not options.n:
        return from_arrow(spark, SIMILAR.empty_table())
    logger.info("searching the %d most similar of %s movies", options.n, f"{len(factors.ids):,}")
    described = movies.set_column(
        movies.column_names.index("genres"), "genres", pc.binary_join(movies["genres"].combine_chunks(), "|")
    ).select(["movieId", "title", "genres", "rating_count"])
    of_similar = from_arrow(spark, described).withColumnRenamed("movieId", "similarMovieId")
    similar = similar_movies(spark, factors, options.n, is_chosen)
    return similar.join(F.broadcast(of_similar), on="similarMovieId", how="inner").select(*SIMILAR.names)


def _publish_similar(
    spark: SparkSession, zone: ProcessedZone, similar: DataFrame, codes: Codes, record: RunRecord
) -> None:
    zone.overwrite(similar.transform(_with_original_ids_of_both, codes), "similar_movies")
    record.note_output(zone.table("similar_movies"))
    csv_files.write(spark, zone, _similar_movies(zone))
    record.note_output(zone.similar_movies_csv)


def _with_original_ids_of_both(similar: DataFrame, codes: Codes) -> DataFrame:
    """Replace movieId and similarMovieId by the ids as delivered."""
    other = {"movieId": "similarMovieId", "similarMovieId": "movieId"}
    for _ in other:
        delivered = with_original_ids(similar, codes)
        similar = delivered.select(*(F.col(name).alias(other.get(name, name)) for name in delivered.columns))
    return similar.select(*SIMILAR.names)
