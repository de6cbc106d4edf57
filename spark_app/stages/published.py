"""What was published, read from its files without Spark: as JSON values, for programs and for people."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from spark_app.data.ids import is_plain_id
from spark_app.model.catalogue import as_matrix
from spark_app.platform import storage
from spark_app.platform.errors import InputError
from spark_app.platform.zones import MADE_BY, ProcessedZone
from spark_app.stages.ids import TABLES
from spark_app.stages.models import IMPLICIT, published_models

SIMILAR = 10
"""How many movies that are like another one are shown."""

NEIGHBOURS = 20
"""Among so many other numbers of ratings a user with a list is looked for."""

DECIMALS = 4
"""Of a similarity; what agrees in so many is a tie, and the lower movieId comes first."""


def user(zone: ProcessedZone, user_id: str) -> dict[str, Any]:
    """A user's ratings, the best and then the latest first, and their recommendations; ids are as delivered.

    Raises InputError where the user has no ratings.
    """
    code = _code(zone, "userId", user_id)
    ratings = _read(zone, "ratings", ds.field("userId") == code, ["movieId", "rating", "timestamp"])
    if not ratings.num_rows:
        raise InputError(f"user {user_id} has no ratings in {zone.table('ratings')}")
    titles = _titles(zone, ratings["movieId"])
    best_first = ratings.join(titles, keys="movieId", join_type="inner").sort_by(
        [("rating", "descending"), ("timestamp", "descending"), ("movieId", "ascending")]
    )
    recommended = _read(zone, "recommendations", _is_id("userId", user_id))
    history = _with_original_ids(zone, best_first).select(["movieId", "title", "genres", "rating", "timestamp"])
    return {
        "userId": user_id if _has_codes(zone, "userId") else code,
        "rating_count": history.num_rows,
        "average_rating": pc.mean(history["rating"]).as_py(),
        "history": [
            {**row, "timestamp": row["timestamp"] and row["timestamp"].isoformat()} for row in history.to_pylist()
        ],
        "recommendations": recommended.drop_columns(["userId"]).sort_by("rank").to_pylist(),
    }


def movie(zone: ProcessedZone, movie_id: str) -> dict[str, Any]:
    """A row of `final`, and the movies most like it: the cosine of their factors in the ranking model.

    Raises InputError where there is no such movie.
    """
    if not storage.exists(zone.final_file):
        raise InputError(f"{zone.final_file} is missing: run the stage 'etl' first")
    rows = storage.parquet(zone.final_file).to_table(filter=_is_id("movieId", movie_id)).to_pylist()
    if not rows:
        raise InputError(f"movie {movie_id} is not in {zone.final_file}")
    return {**rows[0], "similar": _similar(zone, _code(zone, "movieId", movie_id))}


def manifest(zone: ProcessedZone, run_id: str = "") -> Any:
    """The manifest of a run, or of the last one. Raises InputError where there is none."""
    path = zone.manifest(run_id)
    if not run_id:
        runs = storage.list_files(zone.runs) if storage.exists(zone.runs) else []
        path = max(runs, default="")  # names begin with the time
    if not path or not storage.exists(path):
        raise InputError(f"{path or zone.runs}: there is no manifest of a run; is {zone.root} a processed zone?")
    return storage.read_json(path)


def movie_factors(zone: ProcessedZone) -> tuple[list[int] | list[str], NDArray[np.float32]]:
    """The movieIds that the ranking model knows, as delivered, and their latent factors, a row a movie."""
    codes, vectors = _factors(zone)
    ids = _with_original_ids(zone, pa.table({"movieId": pa.chunked_array([codes])}))
    return ids["movieId"].to_pylist(), vectors


def _factors(zone: ProcessedZone) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The integers that stand for the movies that the ranking model knows, in order, and their latent factors."""
    folder = storage.join(published_models(zone), IMPLICIT, "itemFactors")
    factors = storage.parquet(storage.list_files(folder)).to_table().sort_by("id")
    return factors["id"].to_numpy(), as_matrix(factors["features"].combine_chunks(), len(factors["features"][0]))


def table(zone: ProcessedZone, name: str, columns: list[str] | None = None) -> pa.Table:
    """A whole Delta table, or some of its columns. Raises InputError where it is missing."""
    return _read(zone, name, None, columns)


def earlier_manifests(zone: ProcessedZone, run_id: str) -> Iterator[dict[str, Any]]:
    """The manifests of the runs before one that ended well, the latest first; each is read when it is asked for."""
    runs = storage.list_files(zone.runs) if storage.exists(zone.runs) else []
    for path in sorted(runs, reverse=True):
        if storage.name_of(path) < f"{run_id}.json":
            found = storage.read_json(path)
            if found["status"] == "done":
                yield found


def model_facts(zone: ProcessedZone) -> dict[str, Any]:
    """What is known of the published models: the run that fitted them, and the metrics that admitted them."""
    if not storage.exists(zone.current_model):
        return {}
    return dict(storage.read_json(storage.join(published_models(zone), "model.json")))


def users_by_activity(zone: ProcessedZone) -> dict[int, int]:
    """How many users have given so many ratings; what is held does not grow with the users."""
    found: Counter[int] = Counter()
    for batch in _dataset(zone, "user_features").scanner(columns=["rating_count"]).to_batches():
        counts, users = np.unique(batch["rating_count"].to_numpy(), return_counts=True)
        found.update(dict(zip(counts.tolist(), users.tolist(), strict=True)))
    return dict(sorted(found.items()))


def ratings_of_movies(zone: ProcessedZone) -> NDArray[np.int64]:
    """The ratings that every movie got, the most first."""
    counts = table(zone, "movie_features", ["rating_count"])["rating_count"].to_numpy()
    return np.sort(counts)[::-1]


def most_rated(zone: ProcessedZone, count: int) -> list[dict[str, Any]]:
    """The most rated movies: rows of `final`; ties by movieId."""
    if not storage.exists(zone.final_file):
        return []
    columns = ["movieId", "title", "genres", "average_rating", "rating_count"]
    table = storage.parquet(zone.final_file).to_table(filter=ds.field("rating_count") > 0, columns=columns)
    order = [("rating_count", "descending"), ("movieId", "ascending")]
    return list(table.sort_by(order).slice(0, count).to_pylist())


def sample_users(zone: ProcessedZone, places: Sequence[float]) -> list[dict[str, Any]]:
    """Users at these places between the least (0) and the most (1) active, as `user` gives them.

    Of users alike the one with the lowest userId who has a list is meant, and where none has one those next to them.
    None where nothing is recommended yet.
    """
    if not storage.is_delta_table(zone.table("recommendations")):
        return []
    by_activity = users_by_activity(zone)
    counts, up_to = np.array(list(by_activity), dtype=np.int64), np.cumsum(list(by_activity.values()))
    chosen: dict[str, None] = {}
    for place in places if len(counts) else ():
        wanted = counts[np.searchsorted(up_to, round(place * (up_to[-1] - 1)), side="right")]
        nearest = counts[np.argsort(np.abs(counts - wanted), kind="stable")][:NEIGHBOURS]
        served = (_served_user(zone, int(count)) for count in nearest)
        chosen |= dict.fromkeys(itertools.islice((user_id for user_id in served if user_id is not None), 1))
    return [user(zone, user_id) for user_id in chosen]


def _served_user(zone: ProcessedZone, count: int) -> str | None:
    """The lowest userId of those with so many ratings who have a list."""
    alike = _read(zone, "user_features", ds.field("rating_count") == count, ["userId"])["userId"]
    is_alike = ds.field("userId").cast(pa.string()).isin(pc.cast(alike.combine_chunks(), pa.string()))
    served = _read(zone, "recommendations", (ds.field("rank") == 1) & is_alike, ["userId"])["userId"]
    return str(pc.min(served).as_py()) if len(served) else None


def _similar(zone: ProcessedZone, movie_id: int) -> list[dict[str, Any]]:
    """The movies whose factors point most nearly the same way; none for a movie without factors."""
    ids, vectors = _factors(zone)
    lengths = np.linalg.norm(vectors, axis=1)
    (place,) = np.nonzero(ids == movie_id)
    if not len(place) or not lengths[place[0]]:
        return []
    cosines = vectors @ vectors[place[0]] / np.maximum(lengths * lengths[place[0]], np.finfo(np.float32).tiny)
    nearest = np.argsort(-np.round(cosines, DECIMALS), kind="stable")
    nearest = nearest[ids[nearest] != movie_id][:SIMILAR]
    found = pa.table(
        {"movieId": pa.array(ids[nearest]), "similarity": np.round(cosines[nearest].astype(float), DECIMALS)}
    )
    described = found.join(_titles(zone, found["movieId"]), keys="movieId", join_type="inner")
    ranked = _with_original_ids(zone, described.sort_by([("similarity", "descending"), ("movieId", "ascending")]))
    return list(ranked.select(["movieId", "title", "genres", "similarity"]).to_pylist())


def _titles(zone: ProcessedZone, movie_ids: pa.ChunkedArray) -> pa.Table:
    """movieId, title and genres (divided by `|`) of some movies, by the integers that stand for them."""
    is_wanted = ds.field("movieId").isin(movie_ids.combine_chunks())
    found = _read(zone, "movies", is_wanted, ["movieId", "title", "genres"])
    return found.set_column(2, "genres", pc.binary_join(found["genres"], "|"))


def _has_codes(zone: ProcessedZone, column: str) -> bool:
    """Whether some ids of userId or movieId have codes; else all are integers that stand for themselves."""
    return storage.is_delta_table(zone.table(TABLES[column]))


def _codes(zone: ProcessedZone, column: str, rows: ds.Expression) -> pa.Table | None:
    """Some of the codes(id, code) of userId or movieId; None where there are none at all."""
    return _read(zone, TABLES[column], rows) if _has_codes(zone, column) else None


def _code(zone: ProcessedZone, column: str, given: str) -> int:
    """The integer that stands for an id in the tables. Raises InputError where none does."""
    codes = _codes(zone, column, ds.field("id") == given)
    if codes is not None and codes.num_rows:
        return int(codes["code"][0].as_py())
    if not is_plain_id(given):
        raise InputError(f"{column} {given} is not known in {zone.root}")
    return int(given)


def _is_id(column: str, given: str) -> ds.Expression:
    """Rows of an id as it was delivered: text in a table that was made since there are codes, else an integer."""
    return ds.field(column).cast(pa.string()) == given


def _with_original_ids(zone: ProcessedZone, rows: pa.Table) -> pa.Table:
    """Rows with their movieId as it was delivered, in the same order."""
    codes = _codes(zone, "movieId", ds.field("code").isin(rows["movieId"].combine_chunks()))
    if codes is None:
        return rows
    names = dict(zip(codes["code"].to_pylist(), codes["id"].to_pylist(), strict=True))
    original = [names.get(movie, str(movie)) for movie in rows["movieId"].to_pylist()]
    return rows.set_column(rows.column_names.index("movieId"), "movieId", pa.array(original, pa.string()))


def _read(zone: ProcessedZone, name: str, rows: ds.Expression | None, columns: list[str] | None = None) -> pa.Table:
    """Some rows of a Delta table. Raises InputError naming the stage that makes the table where it is missing."""
    return _dataset(zone, name).to_table(filter=rows, columns=columns)


def _dataset(zone: ProcessedZone, name: str) -> ds.Dataset:
    found = storage.delta_table(zone.table(name))
    if found is None:
        raise InputError(f"{zone.table(name)} is missing: run the stage '{MADE_BY[name]}' first")
    return found
