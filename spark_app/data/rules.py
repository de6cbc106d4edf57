"""The rules for rows. A rule has a condition under which a row is rejected, and the reason that is then reported."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_app.data.ids import MAX_ID
from spark_app.platform.settings import Clean, Input

RULES_VERSION = 6
"""Raise this number with every change to the code that judges any row differently: `etl` then reads all files again.

A test compares a digest of the code that judges rows with the digest of this version.
"""

NOT_JUDGING = {"input": {"take", "preset"}, "clean": {"max_reject_share", "max_lost_share", "damping"}}
"""The settings of [input] and [clean] that do not affect how a row is judged. All others do, also new ones."""

NO_TEXT = "the line is not in the encoding of its file (UTF-8 unless set)"
BAD_QUOTE = "a quote is unbalanced or out of place"
UNRATED, MISSING = "unrated", "missing"
"""What the text of a rating can stand for that is no rating: seen without a rating, or nothing at all."""

NO_GENRES = "(no genres listed)"
SCALE_TOLERANCE = 1e-6
PLAIN_NUMBER = r"^\s*[-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?\s*$"
"""Casts in Spark also take NaN, Infinity, 4.0f and 0x1p2, which are not ratings in a CSV file."""

LAST_SECOND = 86_399
"""The last second of a day; the first one is 0."""

WHOLE_NUMBER = r"^ *([0-9]+)[.]0* *$"
"""An integer as programs write it that took it for a fraction, such as `1.0`."""

DECIMAL_NUMBER = r"^\s*[-+]?[0-9]+\.[0-9]*\s*$"

DAY_NUMBER = r"^\s*((?:19|20)[0-9]{6})(?:\.0*)?\s*$"
"""A day as a number, such as 20050906. As a second, each such number would be in August 1970."""

LAST_DAY_NUMBER = 20_991_231

NAMES_ZONE = r":\d{2}(?:\.\d+)?\s*(?:Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)\s*$"
BEGINS_WITH_A_YEAR = r"^\s*[+-]?\d{4,}(?:-|\s*$)"
OTHER_ISO = (
    (r"(?i)\s*(?:z|utc|gmt)\s*$", "Z"),
    (r"^\s*(\d{4})(\d{2})(\d{2})(?=[Tt ]|$)", "$1-$2-$3"),
    (r"[Tt ]\s*(\d{2})(\d{2})(\d{2})(?!\d)", "T$1:$2:$3"),
    (r"[Tt ]\s*(\d{2}):?(\d{2})(?=\s*(?:$|[Z+-]))", "T$1:$2:00"),
    (r"(?<=\d)t(?=\d)", "T"),
    (r",(?=\d)", "."),
)
"""What turns other forms of ISO 8601 into one that Spark reads: no hyphens, no colons, no seconds, a comma."""

TIME_UNITS = {"seconds": "a second", "milliseconds": "a millisecond", "iso": "a time", "auto": "a time"}
SMALLER_UNIT_FROM = {"seconds": 10**11, "milliseconds": 10**14, "microseconds": 10**17, "nanoseconds": 9 * 10**18}
"""From which number on a time is of a smaller unit: 10**11 is in 5138 as a second, and in 1973 as a millisecond."""


@dataclass(frozen=True)
class Rule:
    """A reason to reject a row, and the condition (never null) under which it applies."""

    reason: str
    broken: Column


def line_rules() -> list[Rule]:
    """Rules for every CSV line, on `is_text`, `is_header` and the columns that `with_fields` adds."""
    return [
        Rule(NO_TEXT, ~F.col("is_text")),
        Rule("the header line is repeated", F.col("is_header")),
        Rule(BAD_QUOTE, ~F.col("is_well_quoted")),
        Rule("the line has too few or too many fields", ~F.col("has_all_fields")),
    ]


def with_values(fields: DataFrame, input_settings: Input, coded: Collection[str] = ()) -> DataFrame:
    """Replace the text of userId, movieId, rating and timestamp by values; null if a text is not a value.

    Ids become 64-bit integers, but ids of the columns in `coded` stay text. Ratings become doubles, and times
    timestamps. Columns that the input lacks are unchanged. An integer of at most ten digits is a second by the time
    format `auto` as by `seconds`, so both judge a plain line alike.

    If the settings name values that are no ratings (`has_marks`), even a plain line may have one: the column `mark` is
    then UNRATED, MISSING, or null for a rating, and `is_timeless` tells whether the time is missing.
    """
    values = {column: as_id(column) for column in ("userId", "movieId") if column not in coded}
    if input_settings.rating:
        values["rating"] = as_number("rating")
    if input_settings.timestamp:
        values["timestamp"] = as_time("timestamp", input_settings.time_format)
    if has_marks(input_settings) and "rating" in fields.columns:
        fields = fields.withColumn("is_timeless", _is_one_of("timestamp", input_settings.missing_values))
        values["mark"] = F.when(_is_one_of("rating", input_settings.unrated_values), F.lit(UNRATED)).when(
            _is_one_of("rating", input_settings.missing_values), F.lit(MISSING)
        )
    return fields.withColumns({ours: value for ours, value in values.items() if ours in [*fields.columns, "mark"]})


def has_marks(input_settings: Input) -> bool:
    """Whether some values of the rating stand for something else."""
    return bool(input_settings.rating and (input_settings.unrated_values or input_settings.missing_values))


def _is_one_of(column: str, values: Sequence[str]) -> Column:
    """Whether a text is one of the values, as it is written or as a number; false for null."""
    numbers = [float(value) for value in values if re.fullmatch(PLAIN_NUMBER, value)]
    is_text = F.trim(F.coalesce(F.col(column), F.lit(""))).isin(list(values))
    return is_text | F.coalesce(as_number(column).isin(numbers), F.lit(False))


def rating_rules(input_settings: Input, clean: Clean, today: date, coded: Collection[str] = ()) -> list[Rule]:
    """Rules for userId, movieId, rating and timestamp from `with_values`; `today` is the day of the run (UTC).

    `coded` names the columns, of userId and movieId, that may have any text. Columns that the input lacks
    have no rule.
    """
    rules = [_id_rule("userId", input_settings.user, coded), _id_rule("movieId", input_settings.item, coded)]
    of_rating, of_time = [], []
    if input_settings.rating:
        of_rating = [
            _count_rule(input_settings) if input_settings.feedback == "counts" else _scale_rule(input_settings)
        ]
    if input_settings.timestamp:
        of_time = [_time_rule(input_settings, clean.earliest, clean.latest or today + timedelta(days=1))]
    if has_marks(input_settings):
        of_rating = [replace(rule, broken=rule.broken & F.col("mark").isNull()) for rule in of_rating]
        of_time = [replace(rule, broken=rule.broken & ~F.col("is_timeless")) for rule in of_time]
    return [*rules, *of_rating, *of_time]


def movie_rules(input_settings: Input, coded: Collection[str] = ()) -> list[Rule]:
    """Rules for movieId, from `with_values`, and title. Genres may be anything."""
    rules = [_id_rule("movieId", input_settings.item, coded)]
    if input_settings.title:
        rules.append(Rule(f"{input_settings.title} is empty", ~_has_text("title")))
    return rules


def lost_movie(input_settings: Input) -> str:
    """How the reason begins to reject a good rating of a movie whose own line was rejected; why that was follows."""
    return f"the line of this {input_settings.item} in the movies was rejected: "


def not_an_integer(name: str) -> str:
    """The reason to reject a row whose id, in the column `name`, should be an integer and is none, or is empty."""
    return f"{name} is not an integer from 0 to {MAX_ID}"


def unknown_movie(input_settings: Input) -> str:
    """The reason to reject a rating of a movie that is not in the movies table."""
    return f"{input_settings.item} is not in the movies table"


def is_id(value: Column) -> Column:
    """Whether an integer can be an id that stands for itself; false for null."""
    return _is_between(value, 0, MAX_ID)


def remedy(reason: str, input_settings: Input) -> str:
    """What would take the rows that were rejected for a reason: the setting to change; empty if there is none."""
    remedies = {
        NO_TEXT: "encoding, under [ratings_file] or [movies_file], says which it is",
        BAD_QUOTE: "quote and escape, under [ratings_file] or [movies_file], say how quotes are written",
        not_an_integer(input_settings.user): 'input.ids = "any" takes ids of any kind',
        not_an_integer(input_settings.item): 'input.ids = "any" takes ids of any kind',
    }
    return remedies.get(reason.removeprefix(lost_movie(input_settings)), "")


def first_reason(rules: Sequence[Rule]) -> Column:
    """The reason of the first rule that a row breaks; null if it breaks none."""
    return F.coalesce(*(F.when(rule.broken, F.lit(rule.reason)) for rule in rules))


def as_integer(column: str) -> Column:
    """A text as a 64-bit integer; null if it is not one."""
    return _try_cast(column, "bigint")


def as_id(column: str) -> Column:
    """A text as a 64-bit integer, also where its decimals are all 0 (`1.0`); null if it is not one."""
    whole = F.expr(f"try_cast(regexp_extract(`{column}`, '{WHOLE_NUMBER}', 1) AS bigint)")
    return F.coalesce(as_integer(column), whole)


def as_number(column: str) -> Column:
    """A text as a double; null if it is not a plain decimal number."""
    return F.when(F.col(column).rlike(PLAIN_NUMBER), _try_cast(column, "double"))


def _try_cast(column: str, kind: str) -> Column:
    # Column.try_cast is new in Spark 4.
    return F.expr(f"try_cast(`{column}` AS {kind})")


def as_time(column: str, time_format: str) -> Column:
    """A text as a timestamp, in UTC if it names no zone; null if it is no time of this format."""
    if time_format == "iso":
        return _iso_time(column)
    units = list(SMALLER_UNIT_FROM) if time_format == "auto" else [time_format]
    # A double holds the times of our centuries to the microsecond.
    decimal = F.when(F.col(column).rlike(DECIMAL_NUMBER), _try_cast(column, "double"))
    micros = F.coalesce(_microseconds(as_integer(column), units), _microseconds(decimal, units))
    time = F.timestamp_micros(micros)
    return F.coalesce(_day(column), time, _iso_time(column)) if time_format == "auto" else time


def _day(column: str) -> Column:
    """A number such as 20050906 as the first moment of that day in UTC; null if it is no such day."""
    parsed = F.try_to_timestamp(F.regexp_extract(column, DAY_NUMBER, 1), F.lit("yyyyMMdd"))
    return F.when(F.col(column).rlike(DAY_NUMBER), F.from_utc_timestamp(parsed, F.current_timezone()))


def _microseconds(number: Column, units: Sequence[str]) -> Column:
    """A number since 1970, in the first of the units that is large enough for it, in microseconds; null if none is."""
    as_micros = {
        "seconds": number * 1_000_000,
        "milliseconds": number * 1_000,
        "microseconds": number,
        "nanoseconds": number / 1_000,
    }
    found = F.lit(None).cast("bigint")
    for unit in reversed(units):
        is_of_unit = (number > -SMALLER_UNIT_FROM[unit]) & (number < SMALLER_UNIT_FROM[unit])
        found = F.when(is_of_unit, F.round(as_micros[unit]).cast("bigint")).otherwise(found)
    return found


def as_genres(column: str, separator: str = "|", missing: Sequence[str] = ()) -> Column:
    """`A|B` as an array without repeats; empty for `(no genres listed)`, empty text, null and the `missing` values."""
    names = F.transform(F.split(F.coalesce(F.col(column), F.lit("")), re.escape(separator)), _trimmed)
    return F.array_distinct(F.filter(names, lambda name: ~name.isin("", NO_GENRES, *missing)))


def flagged_genres(names: Mapping[str, str]) -> Column:
    """The genres whose columns hold 1, as an array; `names` are the genres by column."""
    return F.array_compact(
        F.array(*(F.when(F.trim(f"`{column}`") == "1", F.lit(name)) for column, name in names.items()))
    )


def _trimmed(text: Column) -> Column:
    # F.trim itself takes a second argument, which F.transform would fill with the index in the array.
    return F.trim(text)


def as_year(title: str) -> Column:
    """The year in brackets at the end of a title, the first of a span such as (2006-2007); null if there is none."""
    year = F.regexp_extract(title, r"\((\d{4})(?:\s?[-\u2013]\s?(?:\d{4})?)?\)\s*$", 1)
    return F.nullif(year, F.lit("")).cast("int")


def _id_rule(column: str, name: str, coded: Collection[str]) -> Rule:
    if column in coded:
        return Rule(f"{name} is empty", ~_has_text(column))
    return Rule(not_an_integer(name), ~is_id(F.col(column)))


def _scale_rule(input_settings: Input) -> Rule:
    low, high, step = input_settings.scale_min, input_settings.scale_max, input_settings.scale_step
    value = F.col("rating")
    steps = (value - low) / step
    is_on_scale = value.between(low, high) & (F.abs(steps - F.rint(steps)) < SCALE_TOLERANCE)
    reason = f"{input_settings.rating} is not on the scale {low:g} to {high:g} by {step:g}"
    return Rule(reason, ~F.coalesce(is_on_scale, F.lit(False)))


def _count_rule(input_settings: Input) -> Rule:
    value = F.col("rating")
    is_count = (value > 0) & (value < float("inf"))
    return Rule(f"{input_settings.rating} is not a number above 0", ~F.coalesce(is_count, F.lit(False)))


def _time_rule(input_settings: Input, earliest: date, latest: date) -> Rule:
    is_in_period = _is_between(F.unix_seconds("timestamp"), second_of(earliest), second_of(latest) + LAST_SECOND)
    unit = TIME_UNITS[input_settings.time_format]
    return Rule(f"{input_settings.timestamp} is not {unit} from {earliest} to {latest}", ~is_in_period)


def _iso_time(column: str) -> Column:
    """A text of ISO 8601 as a timestamp, in UTC if it names no zone; null if it is not a time."""
    text = F.trim(F.col(column))
    rewritten = text
    for form, usual in OTHER_ISO:
        rewritten = F.regexp_replace(rewritten, form, usual)
    return F.coalesce(_usual_iso_time(text), _usual_iso_time(rewritten))


def _usual_iso_time(text: Column) -> Column:
    # Spark reads a text without a date, such as 12:30:00, as a time of today: tomorrow it would be another one.
    parsed = F.when(text.rlike(BEGINS_WITH_A_YEAR), F.try_to_timestamp(text))
    # Without a zone Spark reads the text in the session's zone; the same clock time is then taken in UTC.
    in_utc = F.from_utc_timestamp(parsed, F.current_timezone())
    return F.when(text.rlike(NAMES_ZONE), parsed).otherwise(in_utc)


def _has_text(column: str) -> Column:
    return F.coalesce(F.col(column).rlike(r"\S"), F.lit(False))


def _is_between(value: Column, low: int, high: int) -> Column:
    return F.coalesce(value.between(low, high), F.lit(False))


def second_of(day: date) -> int:
    """The first second of a day (UTC), since 1970."""
    return (day - date(1970, 1, 1)).days * (LAST_SECOND + 1)
