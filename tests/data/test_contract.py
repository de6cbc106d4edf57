from __future__ import annotations

import pytest

from spark_app.data import contract
from spark_app.data.contract import EMPTY, INTEGER, NUMBER, TEXT, movies_contract, ratings_contract
from spark_app.platform.errors import InputError
from spark_app.platform.settings import Input

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


def test_missing_header_is_named_with_the_line_that_stands_there() -> None:
    assert header_error(["1", "31", "2.5", "1260759144"]) == (
        "raw/ratings.csv: the first line is not a header: "
        "expected userId,movieId,rating,timestamp, found 1,31,2.5,1260759144" + WHERE
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
    found = contract.infer_columns(["title", "movieId", "stars"], rows)
    assert list(found.items()) == [("title", TEXT), ("movieId", INTEGER), ("stars", NUMBER)]


def test_types_narrower_than_agreed_and_empty_columns_are_accepted() -> None:
    types = {"userId": INTEGER, "movieId": INTEGER, "rating": INTEGER, "timestamp": EMPTY, "note": TEXT}
    contract.check_types(RATINGS, types, "raw/ratings.csv")
    contract.check_types(MOVIES, {"movieId": INTEGER, "title": INTEGER, "genres": EMPTY}, "raw/movies.csv")


def test_swapped_columns_are_found_by_their_types() -> None:
    types = {"userId": INTEGER, "movieId": INTEGER, "rating": INTEGER, "timestamp": NUMBER}
    with pytest.raises(InputError) as caught:
        contract.check_types(RATINGS, types, "raw/ratings.csv")
    assert str(caught.value) == (
        "raw/ratings.csv: column 'timestamp' should be BIGINT but most of its values are DOUBLE: "
        "check that the values stand under their own header"
    )


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ('1,"American President, The (1995)",Comedy', ["1", "American President, The (1995)", "Comedy"]),
        ('"say ""hi""",2', ['say "hi"', "2"]),
        ("", []),
        ("x" * 200_000, []),
    ],
)
def test_one_line_is_parsed_into_its_fields(line: str, fields: list[str]) -> None:
    assert contract.parse_line(line) == fields
