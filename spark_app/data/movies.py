"""The kept movies, one row each, in memory."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

SEPARATORS = ("|", ",", ";", "/", "\t")
"""What usually stands between genres."""

MOVIES_PER_SEPARATED = 20


def other_separator(genres: pa.ChunkedArray) -> tuple[str, int, str] | None:
    """What seems to stand between genres where the configured separator never does; None if all is well.

    Takes the list of genres of each movie. Returns the separator, the number of movies whose genres have it, and such
    genres. It must be in one of MOVIES_PER_SEPARATED movies or more, since a genre may be called `Sci-Fi/Fantasy`.
    """
    sizes = pc.list_value_length(genres)
    if not len(genres) or (pc.max(sizes).as_py() or 0) > 1:
        return None
    alone = pc.list_flatten(genres)
    having = {separator: alone.filter(pc.match_substring(alone, separator)) for separator in SEPARATORS}
    separator = max(SEPARATORS, key=lambda one: len(having[one]))
    found = having[separator]
    is_frequent = len(found) > 0 and len(found) * MOVIES_PER_SEPARATED >= len(genres)
    return (separator, len(found), pc.min(found).as_py()) if is_frequent else None


def without_table(ids: pa.Array, delivered: pa.Array) -> pa.Table:
    """Movies of which only the ids are known: movieId, title (the id as delivered), year (null), genres (none)."""
    return pa.table(
        {
            "movieId": ids,
            "title": delivered.cast(pa.string()),
            "year": pa.nulls(len(ids), pa.int32()),
            "genres": pa.array([[]] * len(ids), pa.list_(pa.string())),
        }
    )
