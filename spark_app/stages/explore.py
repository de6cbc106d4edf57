"""The `explore` stage: computes features of every user and movie, and a profile of the data set."""

from __future__ import annotations

from typing import Any

from pyspark.sql import SparkSession

import spark_app
from spark_app.data import profile
from spark_app.data.features import features
from spark_app.data.ids import with_original_ids
from spark_app.platform.arrow_files import frame_of
from spark_app.platform.log import logger
from spark_app.platform.settings import Settings
from spark_app.report.words import percent
from spark_app.zones.id_codes import read_codes, with_delivered_movie_ids
from spark_app.zones.manifest import RunRecord
from spark_app.zones.processed import ProcessedZone


def run(spark: SparkSession, settings: Settings, record: RunRecord) -> None:
    """Write `delta/user_features` and `delta/movie_features`, and the profile into the manifest."""
    zone = ProcessedZone(settings.processed.path)
    ratings = zone.input_by_user(spark, "ratings", record)
    movies = zone.input_rows("movies", record, ["movieId", "year", "genres"]).sort_by("movieId")

    found = features(spark, ratings, movies)
    made_from, codes = _made_from(settings), read_codes(spark, zone)
    user_features = with_original_ids(frame_of(found.users), codes) if codes.by_column else found.users
    zone.overwrite(user_features, "user_features", made_from=made_from)
    record.note_output(zone.table("user_features"))
    totals = found.totals()
    found.unpersist()
    zone.overwrite(with_delivered_movie_ids(zone, totals.movies), "movie_features", made_from=made_from)
    record.note_output(zone.table("movie_features"))

    columns = ["rating_count", "average_rating", "first_rated"]
    of_users = profile.activity(zone.dataset("user_features").scanner(columns=columns).to_batches())
    of_movies = profile.activity(totals.movies.select(columns).to_batches())
    histogram = profile.rating_histogram(totals.values, settings.input.feedback)
    user_count, movie_count = sum(of_users.holders.values()), len(movies)
    rated_count = movie_count - of_movies.holders.get(0, 0)
    record.profile = {
        "ratings": sum(histogram.values()),
        "average_rating": of_users.average_rating,
        "users": user_count,
        "movies": movie_count,
        "share_of_movies_rated": rated_count / movie_count if movie_count else 0.0,
        "density": sum(histogram.values()) / (user_count * rated_count) if rated_count else 0.0,
        "rating_histogram": histogram,
        "user_activity": profile.concentration(of_users.holders),
        "movie_popularity": profile.concentration(of_movies.holders),
        "genres": profile.genres(movies, totals.movies),
        "decades": profile.decades(totals.movies),
        "months": profile.months(totals.months, of_users, of_movies),
    }
    logger.info(
        "%s users, %s movies of which %s are rated; the most rated 1 %% of movies have %s of the ratings",
        f"{user_count:,}",
        f"{movie_count:,}",
        percent(record.profile["share_of_movies_rated"]),
        percent(record.profile["movie_popularity"].get("top_1_percent", 0.0)),
    )


def is_current(settings: Settings, record: RunRecord) -> bool:
    """Whether the features are those that the stage would make (`train.when` = "new"); without Spark."""
    zone, made_from = ProcessedZone(settings.processed.path), _made_from(settings)
    tables = ("user_features", "movie_features")
    return settings.train.when == "new" and all(zone.is_made_from(table, made_from) for table in tables)


def _made_from(settings: Settings) -> dict[str, Any]:
    """What the features are made from."""
    tables = ProcessedZone(settings.processed.path).versions("ratings", "movies")
    return {**tables, "feedback": settings.input.feedback, "version": spark_app.__version__}
