"""The `explore` stage: computes features of every user and movie, and a profile of the data set."""

from __future__ import annotations

from typing import Any

from pyspark.sql import SparkSession

import spark_app
from spark_app.data import profile
from spark_app.data.features import features
from spark_app.data.ids import with_original_ids
from spark_app.platform.log import logger
from spark_app.platform.settings import Settings
from spark_app.report.words import percent
from spark_app.zones.id_codes import read_codes
from spark_app.zones.manifest import RunRecord
from spark_app.zones.processed import ProcessedZone


def run(spark: SparkSession, settings: Settings, record: RunRecord) -> None:
    """Write `delta/user_features` and `delta/movie_features`, and the profile into the manifest."""
    zone = ProcessedZone(settings.processed.path)
    ratings, movies = zone.input(spark, "ratings", record), zone.input(spark, "movies", record)

    codes = read_codes(spark, zone)
    found = features(ratings, movies)
    users = found.users.transform(with_original_ids, codes).persist()
    made_from = _made_from(settings)
    zone.overwrite(users, "user_features", made_from=made_from)
    record.note_output(zone.table("user_features"))
    rated_movies = found.movies.transform(with_original_ids, codes).persist()
    zone.overwrite(rated_movies, "movie_features", made_from=made_from)
    record.note_output(zone.table("movie_features"))

    histogram = profile.rating_histogram(found.values, settings.input.feedback)
    by_user, by_movie = profile.holders(users), profile.holders(rated_movies)
    user_count, movie_count = sum(by_user.values()), sum(by_movie.values())
    rated_count = movie_count - by_movie.get(0, 0)
    record.profile = {
        "ratings": sum(histogram.values()),
        "average_rating": profile.average_rating(users),
        "users": user_count,
        "movies": movie_count,
        "share_of_movies_rated": rated_count / movie_count if movie_count else 0.0,
        "density": sum(histogram.values()) / (user_count * rated_count) if rated_count else 0.0,
        "rating_histogram": histogram,
        "user_activity": profile.concentration(by_user),
        "movie_popularity": profile.concentration(by_movie),
        "genres": profile.genres(movies.transform(with_original_ids, codes), rated_movies),
        "decades": profile.decades(rated_movies),
        "months": profile.months(found.months, users, rated_movies),
    }
    users.unpersist()
    rated_movies.unpersist()
    found.unpersist()
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
