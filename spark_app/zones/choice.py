"""Who gets what: the movies that may be recommended and the users who get lists, according to `[recommend]`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from spark_app.data.choice import unknown_genres, verdicts
from spark_app.model.matrices import Ids, found_among
from spark_app.platform.errors import InputError
from spark_app.platform.log import logger
from spark_app.platform.settings import Input, Recommend
from spark_app.zones.id_codes import codes_of
from spark_app.zones.id_lists import IdColumn, read_ids
from spark_app.zones.processed import ProcessedZone

NAMED = 5
"""Unknown ids that a message names."""


def chosen_movies(zone: ProcessedZone, options: Recommend, names: Input) -> Ids | None:
    """The movies that may be recommended, as integer ids in ascending order; None if all may.

    It reads the movies and their numbers of ratings without Spark. Ids and genres that are unknown are logged. Raises
    InputError if no movie is left, with what each setting leaves.
    """
    if not options.restricts_movies:
        return None
    movies = movies_with_counts(zone)
    for genre, nearest in unknown_genres(movies, options).items():
        hint = f"; did you mean {nearest}?" if nearest else ""
        setting = "genres" if genre in options.genres else "exclude_genres"
        logger.warning("no movie has the genre %s of recommend.%s%s", genre, setting, hint)
    known = movies["movieId"].to_numpy()
    listed = _listed(zone, options, names, "items", known) if options.items else None
    excluded = _listed(zone, options, names, "exclude", known) if options.exclude else None
    decided = verdicts(movies, options, listed, excluded)
    is_chosen = np.logical_and.reduce(list(decided.values()))
    left = ", ".join(f"{int(allows.sum()):,} by recommend.{setting}" for setting, allows in decided.items())
    if not is_chosen.any():
        raise InputError(
            f"no movie may be recommended: of {len(movies):,} movies, {left} are left, and none by all of these "
            "settings: change them"
        )
    logger.info("%s of %s movies may be recommended: %s", f"{int(is_chosen.sum()):,}", f"{len(movies):,}", left)
    chosen: Ids = np.sort(known[is_chosen]).astype(np.int32)
    return chosen


def chosen_users(zone: ProcessedZone, options: Recommend, names: Input) -> Ids:
    """The users in the lists of `recommend.users`, as integer ids in ascending order, whether they have ratings or not.

    Raises InputError if the zone knows none of them.
    """
    return _listed(zone, options, names, "users", None)


def movies_with_counts(zone: ProcessedZone) -> pa.Table:
    """All movies: movieId, title, genres (list), year, rating_count; ordered by movieId."""
    movies = zone.rows("movies", columns=["movieId", "title", "genres", "year"])
    counts = zone.rows("movie_stats", columns=["movieId", "rating_count"])
    movies, counts = movies.sort_by("movieId"), counts.sort_by("movieId")
    # Arrow joins no tables that have lists.
    places, is_counted = found_among(movies["movieId"].to_numpy(), counts["movieId"].to_numpy())
    found = np.where(is_counted, counts["rating_count"].to_numpy()[places], 0)
    return movies.append_column("rating_count", pa.array(found, pa.int64()))


def _listed(
    zone: ProcessedZone, options: Recommend, names: Input, setting: str, known: NDArray[np.int32] | None
) -> Ids:
    """The integer ids in the lists that a setting names. With `known`, only those among them."""
    lists: Sequence[str] = getattr(options, setting)
    column: IdColumn = "userId" if setting == "users" else "movieId"
    delivered = read_ids(lists, column, names)
    codes = codes_of(zone, column, delivered)
    if known is not None:
        wanted = set(known.tolist())
        codes = {name: code for name, code in codes.items() if code in wanted}
    unknown = [name for name in delivered if name not in codes]
    tell_unknown(setting, unknown, len(delivered))
    if not codes and setting != "exclude":
        raise InputError(f"none of the {len(delivered):,} ids in {', '.join(lists)} (recommend.{setting}) is known")
    return np.array(sorted(codes.values()), dtype=np.int32)


def tell_unknown(setting: str, unknown: Sequence[str], count: int) -> None:
    """Log which of the `count` ids that a setting names are unknown."""
    if unknown:
        logger.warning(
            "recommend.%s: %s of %s ids are unknown and are left out: %s%s",
            *(setting, f"{len(unknown):,}", f"{count:,}", ", ".join(unknown[:NAMED])),
            ", ..." if len(unknown) > NAMED else "",
        )
