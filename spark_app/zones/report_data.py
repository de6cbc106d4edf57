"""The data of the report, read from the published files without Spark."""

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

from spark_app.data.profile import counted
from spark_app.platform import storage
from spark_app.zones.manifest import read_manifest
from spark_app.zones.processed import ProcessedZone
from spark_app.zones.published import user

NEIGHBOURS = 20
"""How many of the nearest numbers of ratings are searched for a user who has a list."""


def earlier_manifests(zone: ProcessedZone, run_id: str) -> Iterator[dict[str, Any]]:
    """The manifests of successful runs before the run `run_id`, the latest first; each is read when it is needed."""
    for path in zone.manifests():
        if storage.name_of(path) < f"{run_id}.json":
            manifest = read_manifest(path)
            if manifest["status"] == "done":
                yield manifest


def users_by_activity(zone: ProcessedZone) -> dict[int, int]:
    """The number of users by their number of ratings; memory does not grow with the number of users.

    Empty before `explore` has run.
    """
    if not zone.has_table("user_features"):
        return {}
    activity: Counter[int] = Counter()
    for batch in zone.dataset("user_features").scanner(columns=["rating_count"]).to_batches():
        activity.update(counted(batch["rating_count"].to_numpy()))
    return dict(sorted(activity.items()))


def ratings_of_movies(zone: ProcessedZone) -> NDArray[np.int64]:
    """The number of ratings of every movie, the largest first; empty before `explore` has run."""
    if not zone.has_table("movie_features"):
        return np.array([], dtype=np.int64)
    counts = zone.rows("movie_features", columns=["rating_count"])["rating_count"].to_numpy()
    return np.sort(counts)[::-1]


def most_rated(zone: ProcessedZone, count: int) -> list[dict[str, Any]]:
    """The most rated movies: rows of `final`; ties by movieId."""
    if not storage.exists(zone.final_file):
        return []
    columns = ["movieId", "title", "genres", "average_rating", "rating_count"]
    table = storage.parquet(zone.final_file).to_table(filter=ds.field("rating_count") > 0, columns=columns)
    order = [("rating_count", "descending"), ("movieId", "ascending")]
    return list(table.sort_by(order).slice(0, count).to_pylist())


def recommended(zone: ProcessedZone, count: int) -> dict[str, Any]:
    """What the published lists hold, movie by movie; empty before there are lists. Memory grows with the movies only.

    `users` have a list. `top` are the movies in most lists: (title, lists), ties by movieId. `lists` and `ratings` are
    the number of lists and of ratings of every movie, the most rated first.
    """
    if not (zone.has_table("recommendations") and storage.exists(zone.final_file)):
        return {}
    in_lists: Counter[Any] = Counter()
    users = 0
    for batch in zone.dataset("recommendations").scanner(columns=["movieId", "rank"]).to_batches():
        for found in pc.value_counts(batch["movieId"]).to_pylist():
            in_lists[found["values"]] += found["counts"]
        users += pc.sum(pc.equal(batch["rank"], 1)).as_py() or 0
    movies = storage.parquet(zone.final_file).to_table(columns=["movieId", "title", "rating_count"]).sort_by("movieId")
    lists = np.array([in_lists[movie] for movie in movies["movieId"].to_pylist()], dtype=np.int64)
    ratings = movies["rating_count"].to_numpy()
    titles, most_listed = movies["title"].to_pylist(), np.argsort(-lists, kind="stable")[:count]
    most_rated = np.argsort(-ratings, kind="stable")
    return {
        "users": users,
        "top": [(titles[place], int(lists[place])) for place in most_listed.tolist() if lists[place]],
        "lists": lists[most_rated],
        "ratings": ratings[most_rated],
    }


def sample_users(zone: ProcessedZone, places: Sequence[float]) -> list[dict[str, Any]]:
    """Users at these places between the least (0) and the most (1) active, as `user` returns them.

    Of the users with the same number of ratings, the lowest userId that has a list is taken. If none of them has a
    list, users with the nearest number of ratings are searched. Empty if nothing is recommended yet.
    """
    if not zone.has_table("recommendations"):
        return []
    by_activity = users_by_activity(zone)
    counts, cumulative = np.array(list(by_activity), dtype=np.int64), np.cumsum(list(by_activity.values()))
    chosen: dict[str, None] = {}
    for place in places if len(counts) else ():
        target = counts[np.searchsorted(cumulative, round(place * (cumulative[-1] - 1)), side="right")]
        nearest = counts[np.argsort(np.abs(counts - target), kind="stable")][:NEIGHBOURS]
        served = (_served_user(zone, int(count)) for count in nearest)
        chosen |= dict.fromkeys(itertools.islice((user_id for user_id in served if user_id is not None), 1))
    return [user(zone, user_id) for user_id in chosen]


def _served_user(zone: ProcessedZone, count: int) -> str | None:
    """The lowest userId that has `count` ratings and a list; None if there is none."""
    user_ids = zone.rows("user_features", ds.field("rating_count") == count, ["userId"])["userId"]
    has_count = ds.field("userId").cast(pa.string()).isin(pc.cast(user_ids.combine_chunks(), pa.string()))
    served = zone.rows("recommendations", (ds.field("rank") == 1) & has_count, ["userId"])["userId"]
    return str(pc.min(served).as_py()) if len(served) else None
