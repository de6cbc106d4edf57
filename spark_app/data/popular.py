"""Lists for people who have no ratings yet: the most rated movies, over all genres and of each genre."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

SCHEMA = pa.schema(
    [
        ("genre", pa.string()),
        ("rank", pa.int32()),
        ("movieId", pa.int32()),
        ("title", pa.string()),
        ("genres", pa.string()),
        ("rating_count", pa.int64()),
        ("predicted_rating", pa.float64()),
    ]
)


def popular_lists(movies: pa.Table, n: int) -> pa.Table:
    """The `n` most rated movies over all genres (genre null), then those of each genre, ties by movieId (SCHEMA).

    Takes movies(movieId, title, genres list of text, rating_count, predicted_rating). Movies without ratings are in no
    list.
    """
    rated = movies.filter(pc.field("rating_count") > 0)
    ids, counts = rated["movieId"].to_numpy(), rated["rating_count"].to_numpy()
    best_first = np.lexsort((ids, -counts))
    genres = rated["genres"].combine_chunks()
    names = genres.flatten().to_numpy(zero_copy_only=False).astype(str)
    of_movies = np.asarray(pc.list_parent_indices(genres))
    position = np.empty(len(rated), dtype=np.int64)
    position[best_first] = np.arange(len(rated))
    lists: list[tuple[str | None, NDArray[np.int64]]] = [(None, best_first[:n])]
    for name in np.unique(names):
        members = of_movies[names == name]
        lists.append((str(name), members[np.argsort(position[members])][:n]))
    places = np.concatenate([listed for _, listed in lists])
    columns = {
        "genre": [name for name, listed in lists for _ in listed],
        "rank": [rank for _, listed in lists for rank in range(1, len(listed) + 1)],
        "movieId": rated["movieId"].take(places),
        "title": rated["title"].take(places),
        "genres": pc.binary_join(genres.take(pa.array(places)), "|"),
        "rating_count": rated["rating_count"].take(places),
        "predicted_rating": rated["predicted_rating"].take(places),
    }
    return pa.table(columns, schema=SCHEMA)
