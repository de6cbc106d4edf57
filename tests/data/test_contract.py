from __future__ import annotations

import re

import pytest

from spark_app.data import contract
from spark_app.data.contract import EMPTY, INTEGER, NUMBER, TEXT, movies_contract, ratings_contract
from spark_app.platform.errors import InputError
from spark_app.platform.settings import Input, RatingsFile

MOVIES, RATINGS = movies_contract(Input()), ratings_contract(Input())
WHERE = "; set the names of the columns under [input]"


def header_error(header: list[str]) -> str:
    with pytest.raises(InputError) as caught:
        contract.check_header(RATINGS, header, "raw/ratings.csv")
    return str(caught.value)


def test_header_as_agreed_is_accepted() -> None:
    contract.check_header(RATINGS, ["userId", "movieId", "rating", "timestamp"], "raw/ratings.csv")
    contract.check_header(MOVIES, ["movieId", "title", "genres"], "raw/movies.csv")


def test_order_of_columns_is_free_and_further_ones_are_reported() -> None:
    header = ["timestamp", "device", "rating", "movieId", "userId", "tags"]
    contract.check_header(RATINGS, header, "raw/ratings.csv")
    assert contract.new_columns(RATINGS, header) == ["device", "tags"]


@pytest.mark.parametrize(
    ("user", "time", "complaint"),
    [
        ("1.0", "964982703.0", ""),
        ("1.", "964982703.5", ""),
        ("1", "964982703000", ""),
        ("ann", "2001-09-09T01:46:40Z", ""),
        ("7.5", "964982703", "column 'userId' should be id (an integer or a text) but most of its values are DOUBLE"),
        (
            "7",
            "4.5",
            "column 'timestamp' should be a time (a number since 1970 or ISO 8601) but most of its values are DOUBLE",
        ),
        (
            "7",
            "tv",
            "column 'timestamp' should be a time (a number since 1970 or ISO 8601) but most of its values are STRING",
        ),
    ],
)
def test_ids_and_times_may_be_numbers_with_decimals(user: str, time: str, complaint: str) -> None:
    header, rows = ["userId", "movieId", "rating", "timestamp"], [[user, "1.0", "4.5", time]] * 3
    types = contract.infer_types(RATINGS, header, rows)
    if complaint:
        with pytest.raises(InputError, match=re.escape(complaint)):
            contract.check_types(RATINGS, header, types, "raw/ratings.csv", rows)
    else:
        contract.check_types(RATINGS, header, types, "raw/ratings.csv", rows)
    assert contract.coded_ids(RATINGS, header, rows) == ({"userId"} if user in ("ann", "7.5") else set())


def test_missing_header_is_named_with_the_line_that_stands_there() -> None:
    assert header_error(["1", "31", "2.5", "1260759144"]) == (
        "raw/ratings.csv: the first line is not a header: "
        "expected userId,movieId,rating,timestamp, found 1,31,2.5,1260759144; if the file has no header, "
        "set ratings_file.header = false and name its columns in ratings_file.columns"
    )


def test_missing_column_is_named() -> None:
    assert header_error(["userId", "movieId", "rating"]) == (
        "raw/ratings.csv: column 'timestamp' is missing: "
        "expected userId,movieId,rating,timestamp, found userId,movieId,rating" + WHERE
    )


def test_renamed_column_is_named_with_its_new_name() -> None:
    assert header_error(["user_id", "movieId", "rating", "timestamp"]) == (
        "raw/ratings.csv: column 'userId' is missing (renamed to 'user_id'?): "
        "expected userId,movieId,rating,timestamp, found user_id,movieId,rating,timestamp" + WHERE
    )


def test_doubled_column_is_named() -> None:
    assert header_error(["userId", "movieId", "rating", "timestamp", "rating"]) == (
        "raw/ratings.csv: column 'rating' appears more than once: rename one of them"
    )


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "2", "-3"], INTEGER),
        (["1", "2", "3", "oops", "NaN"], INTEGER),
        (["4.0", "3.5", "1"], NUMBER),
        (["4", "3", "3.5"], INTEGER),
        (["4", "3.5"], NUMBER),
        (["4", "x"], TEXT),
        (["Heat", "1984", "Alien"], TEXT),
        (["", " ", "7"], INTEGER),
        (["", "  "], EMPTY),
        ([], EMPTY),
    ],
)
def test_type_is_the_narrowest_that_most_values_have(values: list[str], kind: str) -> None:
    assert contract.infer_type(values) == kind


def test_columns_are_inferred_in_the_order_of_the_file_from_whole_rows() -> None:
    rows = [["Heat", "1", "4.5"], ["Alien", "2", ""], ["too", "many", "fields", "here"], ["short"]]
    assert contract.infer_types(MOVIES, ["title", "movieId", "stars"], rows) == (TEXT, INTEGER, NUMBER)


def test_types_narrower_than_agreed_and_empty_columns_are_accepted() -> None:
    columns = ["userId", "movieId", "rating", "timestamp", "note"]
    contract.check_types(RATINGS, columns, [INTEGER, INTEGER, INTEGER, EMPTY, TEXT], "raw/ratings.csv")
    contract.check_types(MOVIES, ["movieId", "title", "genres"], [INTEGER, INTEGER, EMPTY], "raw/movies.csv")


def test_swapped_columns_are_found_by_their_types() -> None:
    columns = ["userId", "movieId", "rating", "timestamp"]
    with pytest.raises(InputError) as caught:
        contract.check_types(RATINGS, columns, [INTEGER, INTEGER, INTEGER, NUMBER], "raw/ratings.csv")
    assert str(caught.value) == (
        "raw/ratings.csv: column 'timestamp' should be a time (a number since 1970 or ISO 8601) but most of its values "
        "are DOUBLE: "
        "check that the values stand under their own header"
    )


def test_columns_that_nobody_reads_may_have_any_name() -> None:
    contract.check_header(RATINGS, ["note", "userId", "movieId", "rating", "Rating", "timestamp", "note", ""], "a.csv")


@pytest.mark.parametrize(
    ("header", "advice"),
    [
        (["196\t242\t3\t881250949"], "if fields are divided by '\\t', set ratings_file.delimiter"),
        (["userId;movieId;rating;timestamp"], "if fields are divided by ';', set ratings_file.delimiter"),
        (
            ["A1", "B2", "5.0", "1300000000"],
            "if the file has no header, set ratings_file.header = false and name its columns in ratings_file.columns",
        ),
        (["user", "item", "stars", "at"], "set the names of the columns under [input]"),
        (['{"user": 1', '"item": 2', '"stars": 3.5}'], "the file looks like JSON: deliver it as CSV"),
        (["<!DOCTYPE html>"], "the file looks like HTML or XML: deliver it as CSV"),
    ],
)
def test_a_first_line_that_is_no_header_names_the_setting_that_reads_it(header: list[str], advice: str) -> None:
    assert header_error(header).endswith(f"; {advice}")


def columns_by_position(columns: list[str], *rows: list[str]) -> tuple[str, ...]:
    expected = ratings_contract(Input(), RatingsFile(header=False, columns=columns))
    return contract.columns_of(expected, ",".join(rows[0]), rows, "a.csv")


def test_files_without_a_header_have_their_columns_by_position() -> None:
    names = ["userId", "movieId", "rating", "timestamp"]
    assert columns_by_position(names, ["1", "2", "3", "4"]) == tuple(names)
    assert columns_by_position(names, ["1", "2", "3"], *[["1", "2", "3", "4", "x", "y"]] * 2) == (*names, "", "")
    with pytest.raises(InputError) as caught:
        columns_by_position(names, ["1", "2", "3"])
    assert str(caught.value) == "a.csv: lines have 3 fields divided by ',', but ratings_file.columns names 4: 1,2,3"
    with pytest.raises(InputError) as caught:
        columns_by_position(names, names)
    assert str(caught.value) == "a.csv: the first line is a header: leave out ratings_file.header = false"


def test_a_rating_may_have_a_decimal_comma() -> None:
    expected = ratings_contract(Input(delimiter=";"), RatingsFile(decimal=","))
    columns = ["userId", "movieId", "rating", "timestamp"]
    assert contract.infer_types(expected, columns, [["1", "2", "3,5", "4"]] * 2) == (INTEGER, INTEGER, NUMBER, INTEGER)
    assert contract.infer_types(RATINGS, columns, [["1", "2", "3,5", "4"]] * 2)[2] == TEXT


def test_values_that_stand_for_none_do_not_decide_on_the_type_of_a_column() -> None:
    named = ratings_contract(Input(missing_values=["NA", "\\N"], unrated_values=["-1"]))
    header = ("userId", "movieId", "rating", "timestamp")
    rows = [["1", "1", "NA", "\\N"], ["1", "2", "NA", "\\N"], ["1", "3", "4.5", "1000000000"]]
    assert contract.infer_types(named, header, rows) == (INTEGER, INTEGER, NUMBER, INTEGER)
