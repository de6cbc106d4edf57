"""Ratings to knowledge: features of every user and movie, and the profile of the data set."""

from __future__ import annotations

from pyspark.sql import SparkSession

from spark_app.data import profile
from spark_app.data.features import movie_features, user_features
from spark_app.data.ids import with_original_ids
from spark_app.platform.log import logger
from spark_app.platform.settings import Settings
from spark_app.zones.id_codes import read_codes
from spark_app.zones.manifest import RunRecord
from spark_app.zones.processed import ProcessedZone


def run(spark: SparkSession, settings: Settings, record: RunRecord) -> None:
    """Write `delta/user_features` and `delta/movie_features`, and the profile into the manifest."""
    zone = ProcessedZone(settings.processed.path)
    ratings, movies = zone.input(spark, "ratings", record), zone.input(spark, "movies", record)

    codes = read_codes(spark, zone)
    zone.overwrite(user_features(ratings, movies).transform(with_original_ids, codes), "user_features")
    record.note_output(zone.table("user_features"))
    zone.overwrite(movie_features(ratings, movies).transform(with_original_ids, codes), "movie_features")
    record.note_output(zone.table("movie_features"))

    of_users, of_movies = zone.read(spark, "user_features"), zone.read(spark, "movie_features")
    given = profile.rating_histogram(ratings, settings.input.feedback)
    catalogue = of_movies.count()
    rated = of_movies.filter("rating_count > 0").count()
    users = of_users.count()
    record.profile = {
        "ratings": sum(given.values()),
        "average_rating": profile.average_rating(of_users),
        "users": users,
        "movies": catalogue,
        "share_of_movies_rated": rated / catalogue if catalogue else 0.0,
        "density": sum(given.values()) / (users * rated) if rated else 0.0,
        "rating_histogram": given,
        "user_activity": profile.activity(of_users),
        "movie_popularity": profile.activity(of_movies),
        "genres": profile.genres(movies.transform(with_original_ids, codes), of_movies),
        "decades": profile.decades(of_movies),
        "months": profile.months(ratings, of_users, of_movies),
    }
    logger.info(
        "%s users, %s movies of which %.0f %% are rated; the most rated 1 %% of movies have %.0f %% of the ratings",
        f"{users:,}",
        f"{catalogue:,}",
        100 * record.profile["share_of_movies_rated"],
        100 * record.profile["movie_popularity"].get("top_1_percent", 0.0),
    )
