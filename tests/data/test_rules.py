from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from chispa import assert_column_equality
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_app.data import rules
from spark_app.platform.settings import Clean, Input

Row = tuple[str | None, ...]
TODAY = date(2025, 6, 1)
INPUT, CLEAN = Input(), Clean()
BAD_USER = "userId is not an integer from 0 to 2147483647"
BAD_MOVIE = "movieId is not an integer from 0 to 2147483647"
OFF_SCALE = "rating is not on the scale 0.5 to 5 by 0.5"
BAD_TIME = "timestamp is not a time from 1990-01-01 to 2025-06-02"


def check_ratings(
    spark: SparkSession, rows: Sequence[Row], given: Input = INPUT, clean: Clean = CLEAN, coded: Sequence[str] = ()
) -> None:
    """Check rows of userId, movieId, rating, timestamp and the expected reason."""
    frame = spark.createDataFrame(
        rows, "userId string, movieId string, rating string, timestamp string, expected string"
    )
    values = frame.transform(rules.with_values, given, coded)
    checked = values.withColumn("reason", rules.first_reason(rules.rating_rules(given, clean, TODAY, coded)))
    assert_column_equality(checked, "reason", "expected")


def test_ids_are_integers_from_0_to_2_to_the_31_minus_1(spark: SparkSession) -> None:
    good = ["0", "1", "2147483647", "1.0", "2147483647.", " 7.000 "]
    bad = [
        "-1",
        "-0.5",
        "-1.0",
        "2147483648.0",
        ".0",
        "1.0.0",
        "1.01",
        "2147483648",
        "9223372036854775808",
        "1.5",
        "1e3",
        "0x10",
        "seven",
        "",
        "  ",
        None,
    ]
    users: list[Row] = [(value, "1", "4.0", "1000000000", None) for value in good]
    users += [(value, "1", "4.0", "1000000000", BAD_USER) for value in bad]
    movies: list[Row] = [("1", value, "4.0", "1000000000", None) for value in good]
    movies += [("1", value, "4.0", "1000000000", BAD_MOVIE) for value in bad]
    check_ratings(spark, [*users, *movies])


def test_rating_lies_on_the_scale(spark: SparkSession) -> None:
    good = ["0.5", "1", "3.50", "4e0", " 4.0 ", "5.0"]
    bad = ["0", "0.3", "4.25", "5.5", "-1.0", "NaN", "Infinity", "-Infinity", "1e400", "4.0f", "4.0d", "0x1p1", "4,5"]
    empty = ["", "  ", None]
    rows: list[Row] = [("1", "1", value, "1000000000", None) for value in good]
    rows += [("1", "1", value, "1000000000", OFF_SCALE) for value in [*bad, *empty]]
    check_ratings(spark, rows)


def test_scale_is_configurable(spark: SparkSession) -> None:
    off_scale = "rating is not on the scale 1 to 10 by 1"
    expected = {"1": None, "10": None, "7.0": None, "0": off_scale, "0.5": off_scale, "7.5": off_scale, "11": off_scale}
    scale = Input(scale_min=1, scale_max=10, scale_step=1)
    check_ratings(spark, [("1", "1", value, "1000000000", reason) for value, reason in expected.items()], scale)


def test_steps_that_are_no_binary_fractions_are_on_the_scale(spark: SparkSession) -> None:
    off_scale = "rating is not on the scale 0 to 1 by 0.1"
    tenths = ["0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1.0"]
    rows = [("1", "1", value, "1000000000", None) for value in tenths]
    scale = Input(scale_min=0, scale_max=1, scale_step=0.1)
    check_ratings(spark, [*rows, ("1", "1", "0.15", "1000000000", off_scale)], scale)


def test_timestamp_is_a_second_from_the_earliest_day_to_the_day_after_the_run(spark: SparkSession) -> None:
    first_second, last_second = "631152000", "1748908799"  # 1990-01-01 00:00:00, 2025-06-02 23:59:59
    good = (first_second, "1000000000", "1000000000.0", "1000000000.75", last_second, f"{last_second}.999")
    bad = ["631151999", "1748908800", "1000000000000", "9223372036854775807", "-1", "0", "2001-09-09", "1e9", "", None]
    bad += ["631151999.999", "1748908800.0", f"1{'0' * 400}.0", "10000000000000000000000"]
    bad_time = "timestamp is not a second from 1990-01-01 to 2025-06-02"
    rows: list[Row] = [("1", "1", "4.0", value, None) for value in good]
    rows += [("1", "1", "4.0", value, bad_time) for value in bad]
    check_ratings(spark, rows, Input(time_format="seconds"))


def test_period_is_configurable(spark: SparkSession) -> None:
    bad_time = "timestamp is not a time from 2000-01-01 to 2020-01-01"
    rows = [
        ("1", "1", "4.0", "946684799", bad_time),  # 1999-12-31 23:59:59
        ("1", "1", "4.0", "946684800", None),
        ("1", "1", "4.0", "1577923199", None),  # 2020-01-01 23:59:59
        ("1", "1", "4.0", "1577923200", bad_time),
    ]
    check_ratings(spark, rows, clean=Clean(earliest=date(2000, 1, 1), latest=date(2020, 1, 1)))


def test_the_first_rule_that_is_broken_gives_the_reason(spark: SparkSession) -> None:
    rows = [("-1", "-1", "9", "0", BAD_USER), ("1", "-1", "9", "0", BAD_MOVIE), ("1", "1", "9", "0", OFF_SCALE)]
    check_ratings(spark, rows)


def test_movie_has_an_id_and_a_title(spark: SparkSession) -> None:
    empty = "title is empty"
    rows = [
        ("2147483647", "Heat (1995)", None),
        ("2147483648", "Heat (1995)", BAD_MOVIE),
        (None, "Heat (1995)", BAD_MOVIE),
        ("1", "", empty),
        ("1", "   ", empty),
        ("1", "\t", empty),
        ("1", None, empty),
        ("-1", None, BAD_MOVIE),
    ]
    frame = spark.createDataFrame(rows, "movieId string, title string, expected string")
    values = frame.transform(rules.with_values, INPUT)
    checked = values.withColumn("reason", rules.first_reason(rules.movie_rules(INPUT)))
    assert_column_equality(checked, "reason", "expected")


def test_line_rules_name_what_keeps_a_line_from_being_parsed(spark: SparkSession) -> None:
    rows = [
        (True, False, True, True, None),
        (False, True, False, False, "the line is not in the encoding of its file (UTF-8 unless set)"),
        (True, True, False, False, "the header line is repeated"),
        (True, False, False, False, "a quote is unbalanced or out of place"),
        (True, False, True, False, "the line has too few or too many fields"),
    ]
    schema = "is_text boolean, is_header boolean, is_well_quoted boolean, has_all_fields boolean, expected string"
    checked = spark.createDataFrame(rows, schema).withColumn("reason", rules.first_reason(rules.line_rules()))
    assert_column_equality(checked, "reason", "expected")


def test_genres_split_on_the_bar(spark: SparkSession) -> None:
    rows = [
        ("Action|Crime|Thriller", ["Action", "Crime", "Thriller"]),
        ("Drama", ["Drama"]),
        (" Action | Crime ", ["Action", "Crime"]),
        ("Drama||Drama|", ["Drama"]),
        ("007|1|22", ["007", "1", "22"]),
        ("(no genres listed)", []),
        ("|", []),
        ("", []),
        (None, []),
    ]
    frame = spark.createDataFrame(rows, "genres string, expected array<string>")
    assert_column_equality(frame.withColumn("found", rules.as_genres("genres")), "found", "expected")


def test_genres_split_on_what_the_settings_say(spark: SparkSession) -> None:
    rows = [
        ("Drama, Music", ["Drama", "Music"]),
        ("Sci-Fi|Fantasy,", ["Sci-Fi|Fantasy"]),
        ("NA", []),
        ("Drama,NA", ["Drama"]),
    ]
    frame = spark.createDataFrame(rows, "genres string, expected array<string>")
    assert_column_equality(frame.withColumn("found", rules.as_genres("genres", ",", ["NA"])), "found", "expected")
    frame = spark.createDataFrame([("A.* / B", ["A.*", "B"])], "genres string, expected array<string>")
    assert_column_equality(frame.withColumn("found", rules.as_genres("genres", " / ")), "found", "expected")


def test_year_is_taken_from_the_end_of_the_title(spark: SparkSession) -> None:
    rows = [
        ("Heat (1995)", 1995),
        ("Heat (1995)  ", 1995),
        ("Fawlty Towers (1975-1979)", 1975),
        ("Diplomatic Immunity (2009\u2013 )", 2009),
        ("Big Bang Theory, The (2007-)", 2007),
        ("2001: A Space Odyssey (1968)", 1968),
        ("1984", None),
        ("Death Note: Desu n\u00f4to (2006 - 2007)", 2006),
        ("Heat (1995) (Director's Cut)", None),
        ("Heat (95)", None),
        ("Heat 1995", None),
        ("Heat", None),
    ]
    frame = spark.createDataFrame(rows, "title string, expected int")
    assert_column_equality(frame.withColumn("year", rules.as_year("title")), "year", "expected")


def test_reasons_name_the_columns_of_the_file(spark: SparkSession) -> None:
    given = Input(user="customer", item="isbn", rating="stars", timestamp="at")
    rows = [
        ("-1", "1", "4.0", "1000000000", "customer is not an integer from 0 to 2147483647"),
        ("1", "-1", "4.0", "1000000000", "isbn is not an integer from 0 to 2147483647"),
        ("1", "1", "9", "1000000000", "stars is not on the scale 0.5 to 5 by 0.5"),
        ("1", "1", "4.0", "0", "at is not a time from 1990-01-01 to 2025-06-02"),
    ]
    check_ratings(spark, rows, given)


def test_ids_that_have_codes_are_any_text_but_none(spark: SparkSession) -> None:
    rows: list[Row] = [
        (value, "1", "4.0", "1000000000", None) for value in ("seven", "0", "9223372036854775808", " a ")
    ]
    rows += [(value, "1", "4.0", "1000000000", "userId is empty") for value in ("", "  ", None)]
    check_ratings(spark, [*rows, ("seven", "x", "4.0", "1000000000", BAD_MOVIE)], coded=["userId"])


def test_counts_are_numbers_above_0(spark: SparkSession) -> None:
    bad_count = "rating is not a number above 0"
    rows: list[Row] = [("1", "1", value, "1000000000", None) for value in ("1", "0.5", "1e6")]
    rows += [("1", "1", value, "1000000000", bad_count) for value in ("0", "-1", "NaN", "1e999", "many", "", None)]
    check_ratings(spark, rows, Input(feedback="counts"))


def test_values_that_are_no_ratings_are_marked_and_judged_by_the_other_rules_alone(spark: SparkSession) -> None:
    given = Input(unrated_values=[-1], missing_values=["99", "NA", r"\N", ""])  # type: ignore[list-item]
    rows = [
        ("1", "1", "-1", "1000000000", "unrated", None),
        ("1", "1", " -1.0", "1000000000", "unrated", None),
        ("1", "1", "99", "1000000000", "missing", None),
        ("1", "1", "99.00", "1000000000", "missing", None),
        ("1", "1", "NA", r"\N", "missing", None),
        ("1", "1", None, "NA", "missing", None),
        ("1", "1", "4.0", "NA", None, None),
        ("1", "1", "4.0", "1000000000", None, None),
        ("1", "1", "na", "1000000000", None, OFF_SCALE),
        ("1", "1", "-2", "1000000000", None, OFF_SCALE),
        ("1", "1", "-1", "99999999999", "unrated", BAD_TIME),
        ("x", "1", "-1", "1000000000", "unrated", BAD_USER),
    ]
    schema = "userId string, movieId string, rating string, timestamp string, marked string, expected string"
    values = spark.createDataFrame(rows, schema).transform(rules.with_values, given)
    checked = values.withColumn("reason", rules.first_reason(rules.rating_rules(given, CLEAN, TODAY)))
    assert_column_equality(checked, "reason", "expected")
    assert_column_equality(checked, "mark", "marked")


def test_what_the_input_does_not_have_has_no_rule(spark: SparkSession) -> None:
    check_ratings(spark, [("1", "1", None, None, None)], Input(feedback="counts", rating="", timestamp=""))


def test_times_may_be_milliseconds(spark: SparkSession) -> None:
    bad_time = "timestamp is not a millisecond from 1990-01-01 to 2025-06-02"
    good = ("631152000000", "1748908799999", "1748908799999.5")
    bad = ("631151999999", "1748908800000", "1000000000", "2001-09-09", "x", None)
    rows: list[Row] = [("1", "1", "4.0", value, None) for value in good]
    check_ratings(
        spark, [*rows, *(("1", "1", "4.0", value, bad_time) for value in bad)], Input(time_format="milliseconds")
    )


def test_the_size_of_a_time_tells_its_unit(spark: SparkSession) -> None:
    rows = [
        ("1000000000", 1_000_000_000_000_000),
        ("1000000000.5", 1_000_000_000_500_000),
        ("1000000000123", 1_000_000_000_123_000),
        ("1000000000123.0", 1_000_000_000_123_000),
        ("1000000000123456", 1_000_000_000_123_456),
        ("1000000000123456789", 1_000_000_000_123_457),
        ("2001-09-09T01:46:40.123Z", 1_000_000_000_123_000),
        ("20010909", 999_993_600_000_000),
        (" 20010909.0 ", 999_993_600_000_000),
        ("20011301", 20_011_301_000_000),  # no day: a second of 1970
        ("21010909", 21_010_909_000_000),
        ("9223372036854775807", None),
        ("-9223372036854775808", None),
        ("12:30:00", None),
        ("soon", None),
    ]
    frame = spark.createDataFrame(rows, "timestamp string, expected long")
    values = frame.transform(rules.with_values, Input()).withColumn("found", F.unix_micros("timestamp"))
    assert_column_equality(values, "found", "expected")


def test_times_may_be_iso_8601_in_utc_where_they_name_no_zone(spark: SparkSession) -> None:
    rows = [
        ("2001-09-09T01:46:40Z", 1_000_000_000),
        ("2001-09-09T03:46:40+02:00", 1_000_000_000),
        ("2001-09-09 01:46:40", 1_000_000_000),
        ("2001-09-09T01:46:40.5", 1_000_000_000),
        ("2001-09-09", 999_993_600),
        ("20010909", 999_993_600),
        ("2001-09", 999_302_400),
        ("2001-09-09T01:46Z", 999_999_960),
        ("2001-09-09T01:46+02", 999_992_760),
        ("2001-09-09 01:46", 999_999_960),
        ("2001-09-09T01:46:40,5", 1_000_000_000),
        ("2001-09-09T01:46:40.123456789Z", 1_000_000_000),
        ("2001-09-09 01:46:40 UTC", 1_000_000_000),
        ("2001-09-09T03:46:40 +0200", 1_000_000_000),
        ("20010909T014640Z", 1_000_000_000),
        ("20010909T014640,25Z", 1_000_000_000),
        ("20010909T034640+0200", 1_000_000_000),
        ("20010909T0146", 999_999_960),
        ("2001-09-09t01:46:40z", 1_000_000_000),
        ("2001-13-09", None),
        ("2001-09-09T25:00", None),
        ("2001", 978_307_200),
        ("12:30:00", None),  # a time of no day: Spark would take today
        ("T12:30", None),
        ("yesterday", None),
        ("", None),
        (None, None),
    ]
    frame = spark.createDataFrame(rows, "timestamp string, expected long")
    iso = Input(time_format="iso")
    kept_zone = spark.conf.get("spark.sql.session.timeZone")
    for zone in ("UTC", "America/New_York"):
        spark.conf.set("spark.sql.session.timeZone", zone)
        try:
            for given in (iso, Input()):
                values = frame.transform(rules.with_values, given).withColumn("found", F.unix_seconds("timestamp"))
                if given is not iso:
                    values = values.filter("expected IS NULL OR expected NOT IN (978307200)")  # 2001 is a second
                assert_column_equality(values, "found", "expected")
        finally:
            spark.conf.set("spark.sql.session.timeZone", kept_zone or "UTC")
    bad_time = "timestamp is not a time from 1990-01-01 to 2025-06-02"
    judged = [("1", "1", "4.0", "2001-09-09", None), ("1", "1", "4.0", "1989-12-31", bad_time)]
    check_ratings(spark, [*judged, ("1", "1", "4.0", "soon", bad_time)], iso)
