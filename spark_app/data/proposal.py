"""Proposes settings for files of an unknown form: which file is what, what its columns are, what its values mean."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spark_app.data.contract import EARLY_SECOND
from spark_app.data.ids import is_plain_id
from spark_app.data.looks import (
    COUNTS,
    GENRES,
    ITEMS,
    MISSING,
    MOST,
    RATINGS,
    TIMES,
    TITLES,
    USERS,
    Column,
    Look,
    as_number,
    is_matrix,
    plain_name,
)
from spark_app.platform.settings import Input

NAMES_OF_RATINGS = re.compile(r"rating|votes?\b|u\.data|plays|user_artists|events|interactions|reviews|purchases|steam")
SCALES = (
    (0.5, 5, 0.5), (1, 5, 1), (1, 5, 0.5), (0, 5, 1), (0, 5, 0.5), (1, 10, 1), (0, 10, 1), (1, 10, 0.5), (0, 10, 0.5),
    (0, 1, 1), (1, 7, 1), (1, 100, 1), (0, 100, 1), (1, 5, 0.1), (0, 5, 0.1),
    (1, 10, 0.1), (0, 10, 0.1), (0, 1, 0.1), (0, 1, 0.01), (-1, 1, 1), (-10, 10, 0.01),
)  # fmt: skip
"""Usual scales: lowest, highest, step. The first one that has all values is proposed."""

ISO = re.compile(r"\d{4}-?(?:0\d|1[0-2])-?[0-3]\d(?:[Tt ].{4,})?")

STEPS = (1, 0.5, 0.25, 0.1, 0.05, 0.01, 0.001)
NO_RATINGS = (99, 999, 9999)
"""Numbers that stand for no rating, where all others are far smaller."""

NO_RATING_SHARE = 0.2
"""If more than this share of the ratings are 0 and no other is below 1, 0 is taken for seen without a rating."""

IN_RATINGS = {"user": "userId", "item": "movieId", "rating": "rating", "timestamp": "timestamp"}
IN_MOVIES = {"item": "movieId", "title": "title", "genres": "genres"}
"""The names that columns get by their roles in files without a header."""

ID_ROLES = ("user", "item")
SCALE = ("scale_min", "scale_max", "scale_step")
MANY_VALUES, FEW, FAR, HIGHEST_RATING, MOST_GENRES, ROUNDING = 30, 2, 5, 100, 200, 1e-6
OF_A_FILE = {"encoding": "utf-8", "delimiter": ",", "escape": "doubled", "skip_blanks": False}
SEPARATORS = ("|", ",", ";", "/")
SEPARATED_SHARE = 0.1


@dataclass
class Proposal:
    """Sections of settings, and what was seen: sentences by the section that they explain."""

    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    seen: dict[str, list[str]] = field(default_factory=dict)
    used: list[Look] = field(default_factory=list)

    def set(self, section: str, **values: Any) -> None:
        """Add settings to a section."""
        self.sections.setdefault(section, {}).update(values)

    def see(self, section: str, sentence: str) -> None:
        """Add a sentence to what was seen."""
        self.seen.setdefault(section, []).append(sentence)


@dataclass(frozen=True)
class Table:
    """A file with the places of its columns by what they are: user, item, rating, timestamp, title, genres.

    `points` say how well it fits, `guessed` the roles of ids that no usual name tells.
    """

    look: Look
    places: Mapping[str, int]
    points: int
    is_counts: bool = False
    guessed: tuple[str, ...] = ()

    def column(self, role: str) -> Column:
        """The column of a role."""
        return self.look.columns[self.places[role]]

    def name(self, role: str, usual: str) -> str:
        """The name of the column of a role in the header, or the usual one without a header; empty without a column."""
        if role not in self.places:
            return ""
        return self.look.header[self.places[role]] if self.look.header else usual


def propose(looks: Sequence[Look]) -> Proposal | None:
    """Settings that read the files as they look; None if none of them seems to hold ratings."""
    ratings = max(
        filter(None, map(_as_ratings, looks)), key=lambda table: (table.points, table.look.size), default=None
    )
    if ratings is None:
        return None
    items = _items_of(ratings)
    others = (look for look in looks if look.name != ratings.look.name)
    movies = max(
        (table for look in others if (table := _as_movies(look, ratings, items))),
        key=lambda table: (table.points, table.look.size),
        default=None,
    )
    found = Proposal(used=[table.look for table in (movies, ratings) if table])
    found.set("raw", movies=movies.look.name if movies else "", ratings=_all_parts(ratings.look, looks))
    if movies is None:
        found.see("raw", "No file lists the items of the ratings: each has its id as its title.")
    _propose_ratings(found, ratings)
    _propose_file(found, "ratings_file", ratings, IN_RATINGS)
    if movies:
        _propose_movies(found, movies, ratings)
        _propose_encoding_of_ids(found, movies, ratings)
        _propose_file(found, "movies_file", movies, IN_MOVIES)
    _leave_out_defaults(found)
    return found


def _as_ratings(look: Look) -> Table | None:
    """A file as ratings; None if it cannot be that."""
    points = 3 if NAMES_OF_RATINGS.search(look.name.lower()) else 0
    if look.dialect.layout == "netflix":
        return Table(look, {"item": 0, "user": 1, "rating": 2, "timestamp": 3}, points + 9)
    if is_matrix(look) and not any(plain_name(name) in ITEMS for name in look.header or ()):
        return Table(look, {}, points + 2)
    places = _named(look, {"user": USERS, "item": ITEMS, "rating": [*RATINGS, *COUNTS], "timestamp": TIMES})
    points += 2 * len(places)
    free = [place for place in range(len(look.columns)) if place not in places.values()]
    for place in list(free):
        if "timestamp" not in places and _is_time(look.columns[place]):
            places["timestamp"] = place
            free.remove(place)
    unnamed = [role for role in ID_ROLES if role not in places]
    ids = [place for place in free if look.columns[place].is_full and look.columns[place].distinct > 1]
    if len(ids) < len(unnamed):
        return None
    guessed = dict(zip(unnamed, ids, strict=False))
    places |= guessed
    keys = [look.columns[places[role]].is_key for role in ID_ROLES]
    if guessed and (any(keys) if look.header else all(keys)):
        return None  # each user or each item has one row: this is a table of them
    free = [place for place in free if place not in guessed.values()]
    if "rating" not in places:
        numeric = [place for place in free if _may_be_a_rating(look, place)]
        if numeric:
            places["rating"] = numeric[0]
    is_counts = "rating" not in places or _is_count(look, places["rating"])
    return Table(look, places, points + len(places), is_counts, tuple(guessed))


def _named(look: Look, roles: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The places of the columns whose names are usual ones for a role, by role; the first usual name is preferred."""
    names = [plain_name(name) for name in look.header or ()]
    found = {}
    for role, usual in roles.items():
        known = [name for name in usual if name in names]
        if known:
            found[role] = names.index(known[0])
    return found


def _is_time(column: Column) -> bool:
    numbers = column.numbers
    if column.is_numeric:
        return column.is_filled and sum(number >= EARLY_SECOND for number in numbers) >= MOST * len(numbers)
    is_iso = [ISO.fullmatch(value) is not None for value in column.filled]
    return bool(is_iso) and sum(is_iso) >= MOST * len(is_iso)


def _may_be_a_rating(look: Look, place: int) -> bool:
    column = look.columns[place]
    is_id = look.header is not None and plain_name(look.header[place]).endswith("id")
    return column.is_numeric and column.is_filled and column.distinct > 1 and not is_id


def _is_count(look: Look, place: int) -> bool:
    """Whether a column has counts: by its name, or by many values without an upper limit."""
    name = plain_name(look.header[place]) if look.header else ""
    if name in RATINGS or name in COUNTS:
        return name in COUNTS
    numbers = look.columns[place].numbers
    return min(numbers) >= 0 and max(numbers) > HIGHEST_RATING and len(set(numbers)) > MANY_VALUES


def _items_of(ratings: Table) -> set[str]:
    return set(ratings.column("item").filled) if "item" in ratings.places else set()


def _as_movies(look: Look, ratings: Table, items: set[str]) -> Table | None:
    """A file as the movies of the ratings; None if it lists none of their items, or has no titles."""
    wanted = plain_name(ratings.name("item", "movieId"))
    names = [plain_name(name) for name in look.header or ()]
    ids = [
        (len(items & set(column.filled)), names[place : place + 1] == [wanted], -place)
        for place, column in enumerate(look.columns)
        if column.is_key
    ]
    # A file that is cut short may list other items than the first ratings name.
    is_cut_short = sum(len(row) for row in look.rows) < look.size
    usable = [found for found in ids if found[0] or (found[1] and is_cut_short)]
    if not usable:
        return None
    overlap, has_name, place = max(usable, key=lambda found: (found[1], found[0], found[2]))
    places = {"item": -place}
    titles = _named(look, {"title": TITLES, "genres": GENRES})
    texts = [
        other
        for other, column in enumerate(look.columns)
        if other != -place and column.is_filled and not column.is_numeric and 2 * column.distinct >= len(column.filled)
        if not _is_time(column)
    ]
    if not titles.get("title") and (look.header or not texts):
        return None
    places["title"] = titles.get("title", texts[0] if texts else 0)
    rest = [other for other in range(len(look.columns)) if other not in places.values()]
    genres = [titles["genres"]] if "genres" in titles else [other for other in rest if _has_genres(look.columns[other])]
    if genres and (look.header is None or "genres" in titles):
        places["genres"] = genres[0]
    return Table(look, places, 3 * has_name + 2 * ("title" in titles) + bool(overlap))


def _has_genres(column: Column) -> bool:
    separator = "" if column.is_key else _separator(column)
    tokens = [token for value in column.filled for token in value.split(separator)] if separator else []
    return len(tokens) > 0 and len(set(tokens)) <= min(MOST_GENRES, len(tokens) / 2)


def _separator(column: Column) -> str:
    """What stands between genres most often; empty if nothing seems to."""
    shares = {separator: sum(separator in value for value in column.filled) for separator in SEPARATORS}
    best = max(SEPARATORS, key=lambda separator: shares[separator])
    return best if shares[best] >= SEPARATED_SHARE * max(len(column.filled), 1) else ""


def _all_parts(chosen: Look, looks: Iterable[Look]) -> str:
    """The name of the file of ratings, or a glob if there are others of the same form and name but for its numbers."""
    folder, name = posixpath.split(chosen.name)
    stem, number, rest = re.fullmatch(r"(.*?)(\d+)(\D*)", name).groups() if re.search(r"\d", name) else (name, "", "")  # type: ignore[union-attr]
    parts = [
        look
        for look in looks
        if number and re.fullmatch(rf"{re.escape(stem)}\d+{re.escape(rest)}", posixpath.basename(look.name))
        if posixpath.dirname(look.name) == folder and len(look.columns) == len(chosen.columns)
    ]
    return posixpath.join(folder, f"{stem}*{rest}") if len(parts) > 1 and stem else chosen.name


def _propose_ratings(found: Proposal, ratings: Table) -> None:
    look = ratings.look
    if is_matrix(look) and not ratings.places:
        _propose_matrix(found, look)
        return
    found.set(
        "input",
        user=ratings.name("user", "userId"),
        item=ratings.name("item", "movieId"),
        rating=ratings.name("rating", "rating"),
        timestamp=ratings.name("timestamp", "timestamp"),
    )
    if ratings.guessed:
        found.see("input", f"No usual name tells the column of the {' and the '.join(ratings.guessed)}: it is guessed.")
    for role in ID_ROLES:
        texts = [value for value in ratings.column(role).filled if not is_plain_id(re.sub(r"\.0*$", "", value))]
        if texts:
            found.see("input", f"Some {role}s have ids that are no integers, such as {texts[0]!r}: they get codes.")
    if "timestamp" in ratings.places:
        found.see("input", f"Times are written as {ratings.column('timestamp').filled[0]!r}.")
    if ratings.is_counts:
        found.set("input", feedback="counts")
        why = "there is no column of ratings" if "rating" not in ratings.places else "the numbers have no upper limit"
        found.see("input", f"Each row is a count: {why}.")
    if "rating" in ratings.places:
        values = ratings.column("rating").values
        _propose_values(found, values, has_scale=not ratings.is_counts)
        if ratings.column("rating").has_decimal_commas:
            found.set("ratings_file", decimal=",")


def _propose_matrix(found: Proposal, look: Look) -> None:
    named = _named(look, {"user": USERS})
    user = look.header[named["user"]] if look.header and named else "user"
    found.set("input", user=user, item="item", timestamp="")
    found.set("ratings_file", layout="matrix")
    found.see("ratings_file", f"Each line is a user, and each of {len(look.columns)} columns an item.")
    cells = [value for place, column in enumerate(look.columns) if place for value in column.values if value.strip()]
    _propose_values(found, cells, has_scale=True)


def _propose_values(found: Proposal, values: Sequence[str], *, has_scale: bool) -> None:
    """Propose the scale, and the values that are no ratings."""
    missing = sorted({value.strip() for value in values if value.strip() in MISSING})
    numbers = [number for value in values if (number := as_number(value)) is not None]
    unrated, extra = _no_ratings(numbers) if has_scale else ([], [])
    left = [number for number in numbers if number not in (*unrated, *extra)]
    if unrated:
        found.set("input", unrated_values=[f"{number:g}" for number in unrated])
        share = sum(number in unrated for number in numbers) / len(numbers)
        found.see("input", f"{unrated[0]:g} in {share:.0%} of the rows is taken for: seen without a rating.")
    if missing or extra:
        found.set("input", missing_values=[*missing, *(f"{number:g}" for number in extra)])
        found.see("input", "Some rows have no rating.")
    if has_scale and left:
        low, high, step = _scale(left)
        found.set("input", scale_min=low, scale_max=high, scale_step=step)
        found.see(
            "input", f"Ratings from {min(left):g} to {max(left):g}: the scale is {low:g} to {high:g} by {step:g}."
        )


def _no_ratings(numbers: Sequence[float]) -> tuple[list[float], list[float]]:
    """The values that stand for seen without a rating, and those that stand for none."""
    distinct = sorted(set(numbers))
    unrated, missing = [], []
    if len(distinct) > FEW and distinct[0] == -1 and distinct[1] >= 0:
        unrated.append(distinct.pop(0))
    if len(distinct) > FEW and distinct[-1] in NO_RATINGS and FAR * max(abs(distinct[-2]), 1) < distinct[-1]:
        missing.append(distinct.pop())
    is_often_0 = sum(number == 0 for number in numbers) > NO_RATING_SHARE * len(numbers)
    if not unrated and len(distinct) > FEW and distinct[0] == 0 and distinct[1] >= 1 and is_often_0:
        unrated.append(distinct.pop(0))
    return unrated, missing


def _scale(numbers: Sequence[float]) -> tuple[float, float, float]:
    """The smallest usual scale that has all numbers, else their own."""
    distinct = sorted(set(numbers))
    low, high = distinct[0], distinct[-1]

    def has_all(scale: tuple[float, float, float]) -> bool:
        least, most, step = scale
        return least <= low and high <= most and all(_is_whole((number - least) / step) for number in distinct)

    usual = [scale for scale in SCALES if has_all(scale)]
    if usual:
        return min(usual, key=lambda scale: (scale[1] - scale[0]) / scale[2] * (1 + scale[1] - scale[0]))
    step = next((step for step in STEPS if all(_is_whole((number - low) / step) for number in distinct)), 0.001)
    return (low, high if high > low else low + step, step)


def _is_whole(number: float) -> bool:
    return abs(number - round(number)) < ROUNDING


def _propose_movies(found: Proposal, movies: Table, ratings: Table) -> None:
    found.set("input", title=movies.name("title", "title"), genres=movies.name("genres", "genres"))
    item = movies.name("item", "movieId")
    if movies.look.header and item != ratings.name("item", "movieId"):
        found.set("movies_file", item=item)
    if "genres" in movies.places:
        separator = _separator(movies.column("genres")) or "|"
        found.set("input", genre_separator=separator)


def _propose_encoding_of_ids(found: Proposal, movies: Table, ratings: Table) -> None:
    """Propose that ids that are texts are written alike in both files, if those of the ratings do not tell."""
    looks = (movies.look, ratings.look)
    has_texts = any(not is_plain_id(value) for value in ratings.column("item").filled) if ratings.places else False
    if has_texts and ratings.look.is_ascii and not any(look.has_mark for look in looks):
        found.set("ratings_file", encoding=movies.look.encoding)


def _propose_file(found: Proposal, section: str, table: Table, usual: Mapping[str, str]) -> None:
    """Propose how the files of a table are written."""
    look, dialect = table.look, table.look.dialect
    if look.has_mark:
        found.see(section, f"{look.name} begins with a byte order mark: it is {look.encoding}.")
    elif look.encoding != "utf-8":
        found.set(section, encoding=look.encoding)
        found.see(
            section, f"{look.name} is not UTF-8. It could have another encoding of one byte than {look.encoding}."
        )
    if dialect.layout == "netflix":
        found.set(section, layout="netflix")
        return
    found.set(section, delimiter=dialect.delimiter, escape=dialect.escape, skip_blanks=dialect.skip_blanks)
    if not dialect.quote or (dialect.delimiter in ("::", "\t", "|") and not look.has_quotes):
        found.set(section, quote="")
    if look.header is None:
        names = [""] * len(look.columns)
        for role, place in table.places.items():
            names[place] = usual[role]
        if section == "movies_file" and "item" in table.places:
            names[table.places["item"]] = found.sections["input"].get("item", "movieId")
        if not table.places:
            names = ["other"] if _counts_the_others(look) else []
        while names and not names[-1]:
            names.pop()
        found.set(section, header=False, columns=names)
        if section == "movies_file" and dialect.rest_in_last:
            found.set(section, rest_in_last=True)
    if look.share < 1:
        found.see(section, f"{1 - look.share:.0%} of the first lines of {look.name} have another number of fields.")


def _counts_the_others(look: Look) -> bool:
    """Whether the first column of a matrix says how many cells of the line are ratings, as in Jester."""
    first = look.columns[0]
    return first.is_numeric and min(first.numbers) >= 0 and max(first.numbers) <= len(look.columns)


def _leave_out_defaults(found: Proposal) -> None:
    """Leave out settings that are the defaults."""
    usual = {
        "input": Input().model_dump(),
        "ratings_file": OF_A_FILE,
        "movies_file": OF_A_FILE,
    }
    for section, defaults in usual.items():
        values = found.sections.get(section, {})
        is_other_scale = any(values.get(key, defaults.get(key)) != defaults.get(key) for key in SCALE)
        left = {
            key: value
            for key, value in values.items()
            if key not in defaults or defaults[key] != value or (key in SCALE and is_other_scale)
        }
        found.sections.pop(section, None)
        if left or section in found.seen:
            found.sections[section] = left
