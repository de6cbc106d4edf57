from __future__ import annotations

import codecs

import pytest

from spark_app.data.looks import look_at

MOVIES = "movieId,title,genres\n" + "".join(f'{i},"Film {i}, The (1995)",Drama|Comedy\n' for i in range(20))


def seen(content: bytes, name: str = "a.csv") -> tuple[str, str, str, str, tuple[str, ...] | None]:
    """Encoding, delimiter, quote, escape and header."""
    look = look_at(name, content, len(content))
    assert look
    return look.encoding, look.dialect.delimiter, look.dialect.quote, look.dialect.escape, look.header


def test_a_file_of_movielens() -> None:
    assert seen(MOVIES.encode()) == ("utf-8", ",", '"', "doubled", ("movieId", "title", "genres"))


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("utf-8-sig", "utf-8"), ("utf-16", "utf-16-le"), ("utf-16-le", "utf-16-le"), ("utf-16-be", "utf-16-be")],
)
def test_marks_and_zeros_tell_the_encoding(encoding: str, expected: str) -> None:
    assert seen(MOVIES.encode(encoding)) == (expected, ",", '"', "doubled", ("movieId", "title", "genres"))


@pytest.mark.parametrize(
    ("text", "encoding", "expected"),
    [
        ("Am\u00e9lie", "utf-8", "utf-8"),
        ("Am\u00e9lie", "latin-1", "latin-1"),
        ("Am\u00e9lie \u2013 \u20ac", "cp1252", "cp1252"),
    ],
)
def test_a_letter_late_in_the_file_tells_the_encoding(text: str, encoding: str, expected: str) -> None:
    assert seen(MOVIES.encode() * 200 + f"99,{text},Drama\n".encode(encoding))[0] == expected


def test_a_letter_that_the_sample_cuts_is_no_other_encoding() -> None:
    content = MOVIES.encode() + "99,Caf\u00e9".encode()[:-1]
    look = look_at("a.csv", content, len(content) + 100)
    assert look
    assert look.encoding == "utf-8"
    assert len(look.rows) == 20  # the cut line is none


@pytest.mark.parametrize("delimiter", ["::", "\t", ";", "|", ","])
def test_the_delimiter_divides_most_lines_alike(delimiter: str) -> None:
    titles = ["Heat: The, Movie; 2 | 3", "Heat", "A,B,C", "D;E", "F|G", "H: I"]
    rows = [(f"{user}", titles[user % 6].replace(delimiter, " "), "4.5", "964982703") for user in range(40)]
    content = "".join(delimiter.join(row) + "\n" for row in rows).encode()
    assert seen(content)[1] == delimiter
    assert seen(content)[4] is None


def test_how_quotes_are_written() -> None:
    doubled = "".join(f'{i};"say ""hi""; {i}";x\n' for i in range(30))
    backslash = "".join(rf'{i};"say \"hi\"; {i}";x' + "\n" for i in range(30))
    none = "".join(f'{i}\t"hi there\tx\n' for i in range(30))
    assert seen(doubled.encode())[1:4] == (";", '"', "doubled")
    assert seen(backslash.encode())[1:4] == (";", '"', "backslash")
    assert seen(none.encode())[1:3] == ("\t", "")
    look = look_at("a.csv", "".join(f'{i}, "Heat, The", x\n' for i in range(30)).encode(), 1)
    assert look
    assert look.dialect.skip_blanks


def test_a_last_column_may_take_the_rest_of_the_line() -> None:
    rows = [f"{i},19{i:02d},Title{', and more' if i % 9 == 0 else ''}" for i in range(10, 60)]
    look = look_at("movie_titles.csv", "\n".join(rows).encode(), 1)
    assert look
    assert look.dialect.rest_in_last
    assert ["18", "1918", "Title, and more"] in look.rows


@pytest.mark.parametrize(
    ("first", "is_header"),
    [("user,item,stars", True), ("User-ID,ISBN,Book-Rating", True), ("7,8,4.0", False), ("ann,B00X,4.0", False)],
)
def test_a_header_has_texts_where_the_rows_have_numbers(first: str, is_header: bool) -> None:
    content = "\n".join([first, *(f"u{i},B{i},{i % 5 + 1}.0" for i in range(30))]).encode()
    assert (seen(content)[4] is not None) == is_header


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"just words\nand more of them\n", b"\x00\x01\x02\xff" * 100, codecs.BOM_UTF8]
)
def test_what_is_no_table_is_none(content: bytes) -> None:
    assert look_at("a.csv", content, len(content)) is None
