"""Answers about a user, a movie or a run, from the published files and without Spark, as JSON values."""

from __future__ import annotations

import re
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from spark_app.data.liked import titles_in
from spark_app.model.half_sweep import Floats
from spark_app.platform import storage
from spark_app.platform.errors import InputError
from spark_app.zones.id_codes import code_of, has_codes, is_delivered_id, with_delivered_movie_ids
from spark_app.zones.manifest import read_manifest
from spark_app.zones.processed import ProcessedZone
from spark_app.zones.stored_models import factors_of_movies

MADE_BY = ("run_id", "recommended_at")
"""The columns that say which run recommended a list, and when."""

PIPELINE = "pipeline"
"""The job whose last run is shown if no run is named."""

SEARCHED_RUNS = 50
"""How many runs are searched for a pipeline: where stages run one by one there may be none."""

FILES_AT_ONCE = 8


def user(zone: ProcessedZone, user_id: str) -> dict[str, Any]:
    """A user's ratings, the highest and then the latest first, and their recommendations; ids are as delivered.

    Each rating has `reason_for`: the positions of the recommendations whose reason names the movie.

    Raises InputError if the user has no ratings.
    """
    code = code_of(zone, "userId", user_id)
    ratings = zone.rows("ratings", ds.field("userId") == code, ["movieId", "rating", "timestamp"])
    if not ratings.num_rows and not _has_seen_any(zone, code):
        raise InputError(f"user {user_id} has no ratings in {zone.table('ratings')}")
    titles = _titles(zone, ratings["movieId"])
    best_first = ratings.join(titles, keys="movieId", join_type="inner").sort_by(
        [("rating", "descending"), ("timestamp", "descending"), ("movieId", "ascending")]
    )
    recommended = zone.rows("recommendations", is_delivered_id("userId", user_id)).sort_by("rank").to_pylist()
    history = with_delivered_movie_ids(zone, best_first).select(["movieId", "title", "genres", "rating", "timestamp"])
    positions = _reasons(recommended, set(history["title"].to_pylist()))
    return {
        "userId": user_id if has_codes(zone, "userId") else code,
        "rating_count": history.num_rows,
        "average_rating": pc.mean(history["rating"]).as_py(),
        "history": [
            {
                **row,
                "timestamp": row["timestamp"] and row["timestamp"].isoformat(),
                "reason_for": positions.get(row["title"], []),
            }
            for row in history.to_pylist()
        ],
        # Lists of an earlier version do not say who made them.
        **{column: str(row[column]) for row in recommended[:1] for column in MADE_BY if column in row},
        "recommendations": [
            {column: value for column, value in row.items() if column not in ("userId", *MADE_BY)}
            for row in recommended
        ],
    }


def _reasons(recommended: list[dict[str, Any]], titles: set[str]) -> dict[str, list[int]]:
    """The positions of the recommendations whose reason names each title."""
    positions: dict[str, list[int]] = {}
    for row in recommended:
        for title in titles_in(row["reason"], titles):
            positions.setdefault(title, []).append(row["rank"])
    return positions


def _has_seen_any(zone: ProcessedZone, user: int) -> bool:
    """Whether a user has seen a movie without a rating."""
    has_table = zone.has_table("unrated")
    return has_table and zone.rows("unrated", ds.field("userId") == user, ["movieId"]).num_rows > 0


def movie(zone: ProcessedZone, movie_id: str) -> dict[str, Any]:
    """A row of `final`, and `similar`: the rows of `similar_movies`, None if these are not published.

    Raises InputError if there is no such movie.
    """
    if not storage.exists(zone.final_file):
        raise InputError(f"{zone.final_file} is missing: run the stage 'etl' first")
    rows = storage.parquet(zone.final_file).to_table(filter=is_delivered_id("movieId", movie_id)).to_pylist()
    if not rows:
        raise InputError(f"movie {movie_id} is not in {zone.final_file}")
    return {**rows[0], "similar": _similar(zone, movie_id)}


def _similar(zone: ProcessedZone, movie_id: str) -> list[dict[str, Any]] | None:
    if not zone.has_table("similar_movies"):
        return None
    similar = zone.rows("similar_movies", is_delivered_id("movieId", movie_id)).sort_by("rank")
    renamed = similar.drop_columns(["movieId"]).rename_columns({"similarMovieId": "movieId"})
    return list(renamed.to_pylist())


def movies_called(zone: ProcessedZone, text: str) -> list[dict[str, Any]]:
    """The movies that a person means by an id or by words of a title, the most rated first: rows of `final`.

    An id, and a title, with or without its year, mean one movie, if only one has them. Else all movies are meant whose
    titles have all the words. Raises InputError if there are none.
    """
    if not storage.exists(zone.final_file):
        raise InputError(f"{zone.final_file} is missing: run the stage 'etl' first")
    movies = storage.parquet(zone.final_file)
    if by_id := movies.to_table(filter=is_delivered_id("movieId", text)).to_pylist():
        return list(by_id)
    table = movies.to_table()
    words = [plain_words(title) for title in table["title"].to_pylist()]
    wanted = plain_words(text)
    named = [place for place, title in enumerate(words) if wanted in (title, _without_year(title))]
    if len(named) != 1:
        named = [place for place, title in enumerate(words) if set(wanted) <= set(title)]
    if not wanted or not named:
        raise InputError(f"no movie in {zone.final_file} has the id or the title {text}")
    order = [("rating_count", "descending"), ("movieId", "ascending")]
    return list(table.take(named).sort_by(order).to_pylist())


def popular(zone: ProcessedZone, genre: str = "") -> dict[str, Any]:
    """The list of popular movies of a genre, in upper or lower case, or over all genres: rows of `popular_movies`.

    Raises InputError that names the genres where there is none of this name.
    """
    rows = zone.rows("popular_movies").sort_by("rank").to_pylist()
    by_genre: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_genre.setdefault(row.pop("genre") or "", []).append(row)
    name = next((known for known in by_genre if known.lower() == genre.lower()), None)
    if name is None and genre:
        raise InputError(
            f"no popular movie has the genre {genre}: there are {', '.join(sorted(filter(None, by_genre)))}"
        )
    return {"genre": name or None, "movies": by_genre.get(name or "", [])}


def _without_year(title: list[str]) -> list[str]:
    return title[:-1] if title and re.fullmatch(r"\d{4}", title[-1]) else title


def plain_words(text: str) -> list[str]:
    """The words of a title in lower case, without accents and signs: `Amélie (2001)` has amelie and 2001."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    return re.findall(r"\w+", "".join(letter for letter in letters if not unicodedata.combining(letter)))


def _titles(zone: ProcessedZone, movie_ids: pa.ChunkedArray) -> pa.Table:
    """movieId, title and genres (separated by `|`) of the movies with these integer ids."""
    is_wanted = ds.field("movieId").isin(movie_ids.combine_chunks())
    movies = zone.rows("movies", is_wanted, ["movieId", "title", "genres"])
    return movies.set_column(2, "genres", pc.binary_join(movies["genres"], "|"))


def manifest(zone: ProcessedZone, run_id: str = "") -> Any:
    """The manifest of a run; if `run_id` is empty, of the last pipeline, or of the last run if no pipeline is near.

    Raises InputError if there is no such run.
    """
    if run_id:
        path = zone.manifest(run_id)
        if not storage.exists(path):
            if not zone.manifests():
                raise _no_runs(zone)
            raise InputError(f"{path}: there is no such run; `show --runs` lists all")
        return read_manifest(path)
    last: Any = None
    for path in zone.manifests()[:SEARCHED_RUNS]:
        found = read_manifest(path)
        if found["job"] == PIPELINE:
            return found
        last = last or found
    if last is None:
        raise _no_runs(zone)
    return last


def runs(zone: ProcessedZone, count: int) -> dict[str, Any]:
    """The manifests of the last `count` runs of any job, the latest first, and the number of all runs.

    Raises InputError if there are none.
    """
    paths = zone.manifests()
    if not paths:
        raise _no_runs(zone)
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        return {"runs": list(pool.map(read_manifest, paths[:count])), "of": len(paths)}


def _no_runs(zone: ProcessedZone) -> InputError:
    return InputError(f"{zone.runs}: there is no manifest of a run; is {zone.root} a processed zone?")


def movie_factors(zone: ProcessedZone) -> tuple[list[int] | list[str], Floats]:
    """The movieIds that the ranking model knows, as delivered, and their latent factors, one row per movie."""
    factors = factors_of_movies(zone)
    ids = with_delivered_movie_ids(zone, pa.table({"movieId": pa.chunked_array([factors.ids])}))
    return ids["movieId"].to_pylist(), factors.rows
