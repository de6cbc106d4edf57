from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pytest

from spark_app.data.plain_lines import PlainForm, plain_form
from spark_app.platform.settings import Clean, Input, RatingsFile

TODAY = date(2025, 6, 1)
COLUMNS = ("userId", "movieId", "rating", "timestamp")
NOON = 1_000_000_000


def form(columns: tuple[str | None, ...] = COLUMNS, **settings: object) -> PlainForm:
    made = plain_form(columns, Input.model_validate(settings), RatingsFile(), Clean(), TODAY)
    assert made is not None
    return made


def split(block: bytes, *known: int, of: PlainForm | None = None) -> tuple[list[tuple[float, ...]], list[bytes]]:
    """The plain ratings (user, movie, rating, recency) and the other lines of a block."""
    movies = np.array(known, dtype=np.int32) if known else None
    ratings, others = (of or form()).split(block, 0, 0, movies)
    columns: list[Any] = [ratings.users, ratings.movies, ratings.ratings, *ratings.recency]
    return list(zip(*(column.tolist() for column in columns), strict=True)), others.lines.to_pylist()


PLAIN = [
    (b"1,2,3.5,1000000000", (1, 2, 3.5, NOON * 10**6)),
    (b'"1","2","3.5","1000000000"', (1, 2, 3.5, NOON * 10**6)),
    (b"2147483647,0,5,1000000000", (2**31 - 1, 0, 5.0, NOON * 10**6)),
]


@pytest.mark.parametrize(("line", "row"), PLAIN)
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\r"])
def test_plain_lines_are_read(line: bytes, row: tuple[float, ...], end: bytes) -> None:
    assert split(line + end) == ([row], [])


OTHERS = [
    b"userId,movieId,rating,timestamp",
    b"007,2,3.5,1000000000",
    b"+1,2,3.5,1000000000",
    b"1.0,2,3.5,1000000000",
    b" 1,2,3.5,1000000000",
    b"-1,2,3.5,1000000000",
    b"2147483648,2,3.5,1000000000",
    b"1,,3.5,1000000000",
    b"1,2,3.7,1000000000",
    b"1,2,NaN,1000000000",
    b"1,2,5.5,1000000000",
    b"1,2,3.5e0,1000000000",
    b"1,2,3.5,1000000000000",
    b"1,2,3.5,",
    b"1,2,3.5",
    b"1,2,3.5,1000000000,x",
    b'"1,2,3.5,1000000000',
    b"1,2,3.5,1000000000\x00",
    b"\xff1,2,3.5,1000000000",
]


@pytest.mark.parametrize("line", OTHERS)
def test_every_other_line_is_left_to_the_rules_as_delivered(line: bytes) -> None:
    assert split(b"1,2,3.5,1000000000\r\n" + line + b"\r\n1,3,4.0,1000000000\n") == (
        [(1, 2, 3.5, NOON * 10**6), (1, 3, 4.0, NOON * 10**6)],
        [line],
    )


def test_blank_lines_are_skipped_and_all_line_ends_count() -> None:
    block = b"1,1,1.0,1000000000\r\r\n\n2,1,1.0,1000000000\rx\ny\r\r3,1,1.0,1000000000"
    rows, others = split(block)
    assert [row[0] for row in rows] == [1, 2, 3]
    assert others == [b"x", b"y"]


def test_ratings_of_unknown_movies_are_left_to_the_rules() -> None:
    block = b"1,2,3.5,1000000000\n1,3,3.5,1000000000\n1,2147483647,3.5,1000000000\n"
    assert split(block, 2) == ([(1, 2, 3.5, NOON * 10**6)], block.splitlines()[1:])
    # Too large for a table.
    assert [row[1] for row in split(block, 2, 2**31 - 1)[0]] == [2, 2**31 - 1]


def test_without_times_ratings_have_a_position() -> None:
    of = form(("userId", "movieId", "rating"), timestamp="")
    ratings, others = of.split(b"1,2,3.5\nx\n1,3,4.0\n", 100, 7, None)
    files, places = ratings.recency
    assert files.tolist() == [7, 7]
    assert places.tolist() == [100, 110]
    assert others.places.tolist() == [108]


def test_columns_that_are_not_read_may_have_any_text_without_quotes_or_line_ends() -> None:
    of = form((None, *COLUMNS, None), delimiter="\t")
    first = "é\t1\t2\t3.5\t1000000000\tzwölf, drei".encode()
    quoted = b'"\t1\t2\t3.5\t1000000000\tx'
    assert split(first + b"\n" + quoted, of=of) == ([(1, 2, 3.5, NOON * 10**6)], [quoted])
    # In a block with a line that is not UTF-8, only ASCII is plain.
    plain = b"x]^-\\\t1\t2\t3.5\t1000000000\t"
    assert split(b"\n".join([first, plain, b"\xff"]), of=of) == ([(1, 2, 3.5, NOON * 10**6)], [first, b"\xff"])


def test_counts_and_milliseconds() -> None:
    of = form(feedback="counts", time_format="milliseconds")
    block = b"1,2,350,1000000000000\n1,2,0,1000000000000\n1,2,3,1000000000\n"
    assert split(block, of=of) == ([(1, 2, 350.0, NOON * 10**6)], block.splitlines()[1:])


def test_texts_as_times_have_no_plain_form() -> None:
    assert plain_form(COLUMNS, Input(time_format="iso"), RatingsFile(), Clean(), TODAY) is None


@pytest.mark.parametrize(
    "settings", [{"encoding": "latin-1"}, {"layout": "netflix"}, {"decimal": ","}, {"quote": "'"}, {"delimiter": "§"}]
)
def test_files_in_other_dialects_have_no_plain_form(settings: dict[str, Any]) -> None:
    assert plain_form(COLUMNS, Input(), RatingsFile(**settings), Clean(), TODAY) is None


def test_a_delimiter_of_several_characters() -> None:
    of = form((*COLUMNS, None), delimiter="::")
    block = (
        b'1::2::3.5::1000000000::x\n1::"2"::3.5::1000000000::\n1::2::3.5::1000000000::a:b\n1:2::3.5::1000000000::x\n'
    )
    row = (1, 2, 3.5, NOON * 10**6)
    assert split(block, of=of) == ([row, row], block.splitlines()[2:])


def test_without_a_quote_character_a_quote_is_never_plain() -> None:
    of = plain_form(COLUMNS, Input(), RatingsFile(quote=""), Clean(), TODAY)
    assert split(b'1,"2",3.5,1000000000\n1,2,3.5,1000000000\n', of=of) == (
        [(1, 2, 3.5, NOON * 10**6)],
        [b'1,"2",3.5,1000000000'],
    )


def test_nothing_is_read_from_nothing() -> None:
    assert split(b"") == ([], [])
