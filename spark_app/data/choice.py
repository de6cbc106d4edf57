"""Which movies may be recommended: what each setting under `[recommend]` says of each movie."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from spark_app.platform.settings import Recommend

Bools = NDArray[np.bool_]
Ids = NDArray[np.int32]


def verdicts(movies: pa.Table, options: Recommend, listed: Ids | None, excluded: Ids | None) -> dict[str, Bools]:
    """Whether each movie may be recommended, by the setting that decides; settings that are not used are left out.

    Takes movies(movieId, genres list of text, year, rating_count), and the ids in the lists of `items` and of `exclude`
    (None: no list). A movie without a year is in no range of years.
    """
    return dict(_verdicts(movies, options, listed, excluded))


def _verdicts(
    movies: pa.Table, options: Recommend, listed: Ids | None, excluded: Ids | None
) -> Iterator[tuple[str, Bools]]:
    ids = movies["movieId"].to_numpy()
    if listed is not None:
        yield "items", np.isin(ids, listed)
    if excluded is not None:
        yield "exclude", ~np.isin(ids, excluded)
    if options.genres:
        yield "genres", _has_genre(movies["genres"], options.genres)
    if options.exclude_genres:
        yield "exclude_genres", ~_has_genre(movies["genres"], options.exclude_genres)
    years = pc.cast(movies["year"], pa.float64()).to_numpy()  # NaN, which no comparison is true for, without a year
    if options.min_year is not None:
        yield "min_year", years >= options.min_year
    if options.max_year is not None:
        yield "max_year", years <= options.max_year
    if options.min_ratings:
        yield "min_ratings", movies["rating_count"].to_numpy() >= options.min_ratings


def _has_genre(genres: pa.ChunkedArray, wanted: list[str]) -> Bools:
    """Whether each movie has one of the genres, in upper or lower case."""
    lists = genres.combine_chunks()
    is_wanted = pc.is_in(pc.utf8_lower(lists.flatten()), pa.array([genre.lower() for genre in wanted]))
    of_movies = pc.list_parent_indices(lists)
    has: Bools = np.zeros(len(lists), dtype=bool)
    has[np.asarray(of_movies)[np.asarray(is_wanted)]] = True
    return has


def unknown_genres(movies: pa.Table, options: Recommend) -> dict[str, str | None]:
    """The genres in the settings that no movie has, each with the nearest one that some movie has."""
    known = {
        str(genre).lower(): str(genre) for genre in pc.unique(movies["genres"].combine_chunks().flatten()).to_pylist()
    }
    asked = [*options.genres, *options.exclude_genres]
    unknown = [genre for genre in asked if genre.lower() not in known]
    nearest = {genre: difflib.get_close_matches(genre.lower(), known, n=1) for genre in unknown}
    return {genre: known[names[0]] if names else None for genre, names in nearest.items()}
