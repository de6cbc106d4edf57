"""What a row must be. A rule is a condition that a row breaks, with the reason given when it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from pyspark.sql import Column
from pyspark.sql import functions as F

from spark_app.platform.settings import Clean

MAX_ID = 2**31 - 1
"""Largest userId and movieId: MLlib's ALS takes 32-bit integers only."""

NO_GENRES = "(no genres listed)"
SCALE_TOLERANCE = 1e-6
PLAIN_NUMBER = r"^\s*[-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?\s*$"
"""Casts in Spark also take NaN, Infinity, 4.0f and 0x1p2, which are no ratings in a CSV file."""

LAST_SECOND = 86_399
"""Of a day, the first being 0."""

UNKNOWN_MOVIE = "movieId is not in the movies table"


@dataclass(frozen=True)
class Rule:
    """A reason to turn a row away, and the condition (never null) under which it applies."""

    reason: str
    broken: Column


def line_rules() -> list[Rule]:
    """Rules of every CSV line, on the columns that `with_fields` adds, and `is_header`."""
    return [
        Rule("the line is not UTF-8", ~F.col("is_utf8")),
        Rule("the header line is repeated", F.col("is_header")),
        Rule("a quote is unbalanced or out of place", ~F.col("is_well_quoted")),
        Rule("the line has too few or too many fields", ~F.col("has_all_fields")),
    ]


def rating_rules(clean: Clean, today: date) -> list[Rule]:
    """Rules of userId, movieId, rating and timestamp, all as text; `today` is the day of the run (UTC)."""
    latest = clean.latest or today + timedelta(days=1)
    scale = f"rating is not on the scale {clean.scale_min:g} to {clean.scale_max:g} by {clean.scale_step:g}"
    period = f"timestamp is not a second from {clean.earliest} to {latest}"
    return [
        _id_rule("userId"),
        _id_rule("movieId"),
        Rule(scale, ~_is_on_scale("rating", clean)),
        Rule(
            period,
            ~_is_between(as_integer("timestamp"), _second(clean.earliest), _second(latest) + LAST_SECOND),
        ),
    ]


def movie_rules() -> list[Rule]:
    """Rules of movieId and title, as text. Genres may be anything."""
    return [_id_rule("movieId"), Rule("title is empty", ~F.coalesce(F.col("title").rlike(r"\S"), F.lit(False)))]


def first_reason(rules: Sequence[Rule]) -> Column:
    """The reason of the first rule that a row breaks; null where it breaks none."""
    return F.coalesce(*(F.when(rule.broken, F.lit(rule.reason)) for rule in rules))


def as_integer(column: str) -> Column:
    """A text as a 64-bit integer; null where it is none."""
    return F.col(column).try_cast("bigint")


def as_number(column: str) -> Column:
    """A text as a double; null where it is no plain decimal number."""
    return F.when(F.col(column).rlike(PLAIN_NUMBER), F.col(column).try_cast("double"))


def as_genres(column: str) -> Column:
    """`A|B` as an array without doubles; empty for `(no genres listed)` and for nothing at all."""
    names = F.transform(F.split(F.coalesce(F.col(column), F.lit("")), r"\|"), _trimmed)
    return F.array_distinct(F.filter(names, lambda name: ~name.isin("", NO_GENRES)))


def _trimmed(text: Column) -> Column:
    # F.trim itself takes a second argument, which F.transform would fill with the place in the array.
    return F.trim(text)


def as_year(title: str) -> Column:
    """The year in brackets at the end of a title, the first of a span such as (2006-2007); null where there is none."""
    year = F.regexp_extract(title, r"\((\d{4})(?:\s?[-\u2013]\s?(?:\d{4})?)?\)\s*$", 1)
    return year.try_cast("int")


def _id_rule(column: str) -> Rule:
    return Rule(f"{column} is not an integer from 1 to {MAX_ID}", ~_is_between(as_integer(column), 1, MAX_ID))


def _is_on_scale(column: str, clean: Clean) -> Column:
    value = as_number(column)
    steps = (value - clean.scale_min) / clean.scale_step
    is_step = F.abs(steps - F.round(steps)) < SCALE_TOLERANCE
    return F.coalesce(value.between(clean.scale_min, clean.scale_max) & is_step, F.lit(False))


def _is_between(value: Column, low: int, high: int) -> Column:
    return F.coalesce(value.between(low, high), F.lit(False))


def _second(day: date) -> int:
    return (day - date(1970, 1, 1)).days * (LAST_SECOND + 1)
