from __future__ import annotations

from typing import Any

import pytest
from chispa import assert_df_equality
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.data.dialect import PLAIN, Dialect, split_fields
from spark_app.data.lines import as_text, upper_half, with_fields

MOVIE_HEADER = ["movieId", "title", "genres"]
TITLE = {"title": "title"}


def as_lines(spark: SparkSession, lines: list[bytes], encoding: str = "utf-8") -> DataFrame:
    """Lines as Spark reads them, decoded: their bytes may be no text."""
    rows = [(number, bytearray(line)) for number, line in enumerate(lines)]
    raw = spark.createDataFrame(rows, "place int, value binary").withColumn("value", F.col("value").cast("string"))
    return as_text(raw, encoding)


def titles(spark: SparkSession, lines: list[str], header: list[str] = MOVIE_HEADER) -> list[str | None]:
    """Titles of lines, all of which must parse."""
    parsed = with_fields(as_lines(spark, [line.encode() for line in lines]), header, TITLE)
    rows = parsed.orderBy("place").collect()
    assert all(row["is_text"] and row["is_well_quoted"] and row["has_all_fields"] for row in rows)
    return [row["title"] for row in rows]


def checks(spark: SparkSession, lines: list[bytes]) -> list[tuple[bool, bool, bool]]:
    """(is_text, is_well_quoted, has_all_fields) of each line."""
    rows = with_fields(as_lines(spark, lines), MOVIE_HEADER, TITLE).orderBy("place").collect()
    return [(row["is_text"], row["is_well_quoted"], row["has_all_fields"]) for row in rows]


def test_fields_come_by_name_in_the_columns_asked_for(spark: SparkSession) -> None:
    lines = spark.createDataFrame([("a.csv", "Heat (1995),7,Action")], "file string, value string")
    expected: list[tuple[Any, ...]] = [("a.csv", "Heat (1995),7,Action", "7", "Heat (1995)", True, True)]
    schema = "file string, value string, movieId string, title string, is_well_quoted boolean, has_all_fields boolean"
    parsed = with_fields(lines, ["name", "id", "genres"], {"movieId": "id", "title": "name"})
    assert_df_equality(parsed, spark.createDataFrame(expected, schema), ignore_nullable=True)


def test_header_names_may_be_empty_or_differ_in_case_only(spark: SparkSession) -> None:
    assert titles(spark, ["1,2,3,Heat,Action"], ["MovieId", "movieId", "", "title", "genres"]) == ["Heat"]


def test_quotes_and_commas_in_titles(spark: SparkSession) -> None:
    expected = {
        "1,Heat (1995),Action": "Heat (1995)",
        '2,"American President, The (1995)",Comedy': "American President, The (1995)",
        '3,"Say ""Cheese"", Please (2001)",Comedy': 'Say "Cheese", Please (2001)',
        '4,"""Great Performances"" Cats (1998)",Musical': '"Great Performances" Cats (1998)',
        '5,5" of Fun (2001),Comedy': '5" of Fun (2001)',
        r"6,C:\new (2001),Comedy": r"C:\new (2001)",
        r'7,"Back\",Comedy': "Back\\",
        "#8,# of Days (2001),Comedy": "# of Days (2001)",
        "9, Padded ,Comedy": " Padded ",
        "10,,Comedy": None,
        '11,"",Comedy': None,
        "12,Am\u00e9lie \u96fb\u5f71 \U0001f3ac,": "Am\u00e9lie \u96fb\u5f71 \U0001f3ac",
        "13,null,Comedy": "null",
    }
    assert titles(spark, list(expected)) == list(expected.values())


def test_lines_that_do_not_parse_are_flagged(spark: SparkSession) -> None:
    expected = {
        b'1,"Heat (1995),Action': (True, False),  # never closed
        b'2,"Heat" (1995),Action': (True, False),  # closed before the field ends
        b'3,Heat (1995),"': (True, False),
        b'4,"Heat ("95")",Action': (True, False),  # not doubled
        b'5, "Heat (1995)",Action': (True, True),  # a field that begins with a space is not quoted
        b'6,Heat,"Action"\xe2\x80\xa8': (True, False),  # U+2028 after the closing quote
        b"7,Caf\xe9,Drama": (False, True),  # Latin-1
        b"8,\xff\xfe,Drama": (False, True),
        b"9,\xed\xa0\x80,Drama": (False, True),  # a lone surrogate
        b"10,Heat,Drama": (True, True),
    }
    assert [found[:2] for found in checks(spark, list(expected))] == list(expected.values())


def test_lines_of_too_few_or_too_many_fields_are_flagged(spark: SparkSession) -> None:
    expected = {
        b"1": False,
        b"1,Heat": False,
        b" ": False,
        b"1,Heat,Action": True,
        b",,": True,
        b"1,Heat,Action,": False,
        b"1,Heat,Action,1995": False,
        b"1" + b",x" * 19_999: False,
        b"1" + b",x" * 25_000: False,
        b",".join([b'"a"'] * 19_000): False,
        b"\x00": False,
    }
    assert [found[2] for found in checks(spark, list(expected))] == list(expected.values())


def test_a_title_of_a_megabyte_is_read_whole(spark: SparkSession) -> None:
    long, quotes, commas = "x" * 1_000_000, '"' * 500_000, "a," * 9_000
    lines = [f"1,{long},Drama", '2,"' + '""' * 500_000 + '",Drama', f'3,"{commas}",Drama']
    assert titles(spark, lines) == [long, quotes, commas]


@pytest.mark.parametrize("delimiter", [";", "\t", "|", "^", "-", "]", "\u00a7", "::", "||", "-*-"])
def test_fields_are_divided_by_the_delimiter_that_the_settings_name(spark: SparkSession, delimiter: str) -> None:
    fields = ["7", f'"Heat, {delimiter}The"', "Action"]
    lines = [delimiter.join(fields), delimiter.join([*fields, "more"]), delimiter.join(['"7', "Heat", "Action"])]
    parsed = with_fields(as_lines(spark, [line.encode() for line in lines]), MOVIE_HEADER, TITLE, Dialect(delimiter))
    rows = parsed.orderBy("place").collect()
    assert rows[0]["title"] == f"Heat, {delimiter}The"
    assert [row["has_all_fields"] and row["is_well_quoted"] for row in rows] == [True, False, False]


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        (
            Dialect("\t", quote=""),
            {
                '1\t"Heat\tAction': ["1", '"Heat', "Action"],
                '2\t"Heat" (1995)\t': ["2", '"Heat" (1995)', None],
                "3\tHeat": None,
            },
        ),
        (
            Dialect(";", escape="backslash"),
            {
                r'1;"\"A\" is for; B";"X"': ["1", '"A" is for; B', "X"],
                r'2;"C:\\";X': ["2", "C:\\", "X"],
                r'3;"C:\new";"say ""hi"""': ["3", r"C:\new", 'say "hi"'],
                r'4;"never closed\";X': None,
                r"5;C:\\new;\N": ["5", r"C:\new", r"\N"],
            },
        ),
        (
            Dialect(",", quote="'", skip_blanks=True),
            {
                "1, 'Heat, The',  Drama": ["1", "Heat, The", "Drama"],
                "2,\t'say ''hi''', ": ["2", "say 'hi'", None],
                '3, Heat "95" ,Drama': ["3", 'Heat "95" ', "Drama"],
                "4, 'Heat' x,Drama": None,
            },
        ),
        (
            Dialect("::", quote=""),
            {
                "1::Star Wars: IV::Action|Sci-Fi": ["1", "Star Wars: IV", "Action|Sci-Fi"],
                "2::::": ["2", None, None],
                "3::a:::b": ["3", "a", ":b"],
            },
        ),
        (
            Dialect(",", quote="", columns=("first", "second", "third"), rest_in_last=True),
            {
                "72,1974,At Home, A Stranger": ["72", "1974", "At Home, A Stranger"],
                '73,1974,"Heat': ["73", "1974", '"Heat'],
                "74,1974": None,
            },
        ),
        (
            Dialect(","),
            {
                '1,"two\r\nlines","three\n\nlines"': ["1", "two\r\nlines", "three\n\nlines"],
                '2,"one\rline",': ["2", "one\rline", None],
            },
        ),
    ],
)
def test_dialects(spark: SparkSession, dialect: Dialect, expected: dict[str, list[str | None] | None]) -> None:
    """Spark and Python read the same fields, and turn away the same records."""
    wanted = {"a": "first", "b": "second", "c": "third"}
    lines = as_lines(spark, [line.encode() for line in expected])
    rows = with_fields(lines, list(wanted.values()), wanted, dialect).orderBy("place").collect()
    for row, (line, fields) in zip(rows, expected.items(), strict=True):
        is_whole = row["is_well_quoted"] and row["has_all_fields"]
        assert is_whole == (fields is not None), line
        assert fields is None or [row["a"], row["b"], row["c"]] == fields, line
        by_python = split_fields(line, dialect)
        found = [field or None for field in by_python] if by_python and len(by_python) == len(wanted) else None
        assert found == fields, line


@pytest.mark.parametrize(
    ("encoding", "lines"),
    [
        ("utf-8", {b"Am\xc3\xa9lie": "Am\u00e9lie", b"Am\xe9lie": None}),
        ("iso8859-1", {b"Am\xe9lie": "Am\u00e9lie", b"\x85": "\x85"}),
        ("cp1252", {b"\x93Am\xe9lie\x94 \x80": "\u201cAm\u00e9lie\u201d \u20ac", b"caf\xe9 \x81": None}),
        ("cp1251", {b"\xd1\xf2\xe0\xeb\xea\xe5\xf0": "\u0421\u0442\u0430\u043b\u043a\u0435\u0440"}),
        ("ascii", {b"Amelie": "Amelie", b"Am\xe9lie": None}),
    ],
)
def test_lines_of_any_encoding_with_a_byte_a_character(
    spark: SparkSession, encoding: str, lines: dict[bytes, str | None]
) -> None:
    rows = as_lines(spark, list(lines), encoding).withColumn("bytes", F.col("value").cast("binary")).orderBy("place")
    for row, (line, text) in zip(rows.collect(), lines.items(), strict=True):
        assert row["is_text"] == (text is not None)
        assert bytes(row["bytes"]) == (line if text is None else text.encode())


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "shift_jis", "gbk", "big5", "iso2022_jp", "utf-7", "cp037"]
)
def test_encodings_of_several_bytes_are_not_for_spark(encoding: str) -> None:
    assert upper_half(encoding) == ""


def test_the_quotes_of_a_plain_line() -> None:
    assert split_fields('1,"American President, The",Comedy', PLAIN) == ["1", "American President, The", "Comedy"]
    assert split_fields('"say ""hi""",2', PLAIN) == ['say "hi"', "2"]
    assert split_fields('"say "hi"",2', PLAIN) is None
    assert split_fields('a,"b', PLAIN) is None
    assert split_fields('"a",', PLAIN) == ["a", ""]
