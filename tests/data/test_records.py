"""Records: what belongs together in a file, and that nothing of it is lost."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spark_app.data import dialect as dialects
from spark_app.data import records
from spark_app.data.dialect import PLAIN, Dialect, movies_dialect, ratings_dialect
from spark_app.data.records import LineBreaks
from spark_app.platform.settings import Input, MoviesFile, RatingsFile

HEADER = "movieId,title,genres\n"


def cut(text: str, dialect: Dialect = PLAIN, encoding: str = "utf-8", name: str = "a.csv") -> list[str]:
    stream = io.BytesIO(text.encode(encoding))
    return list(records.records_of(stream, records.encoding_of(text.encode(encoding), encoding), dialect, name))


def has_breaks(text: str, dialect: Dialect = PLAIN, piece: int = 7) -> bool:
    breaks, content = LineBreaks(dialect, "utf-8"), text.encode()
    for start in range(0, len(content), piece):
        breaks.see(content[start : start + piece])
    return breaks.finish()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_records_and_blank_lines_are_none(end: str) -> None:
    assert cut(end.join(["a,b", "1,2", "", "3,\u2028\x0b\x85", ""])) == ["a,b", "1,2", "3,\u2028\x0b\x85"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('1,"two\nlines",x\n2,b,c\n', ['1,"two\nlines",x', "2,b,c"]),
        ('1,"a\r\n\r\nb","c\nd"\r\n2,b,c', ['1,"a\r\n\r\nb","c\nd"', "2,b,c"]),
        ('1,"say ""hi""\nagain",x\n', ['1,"say ""hi""\nagain",x']),
        ('1,"\n",x\n"2\n",y,z\n', ['1,"\n",x', '"2\n",y,z']),
        ('1,a,"ends\nhere"', ['1,a,"ends\nhere"']),
        ('5",a,"\n"\n', ['5",a,"\n"']),
        ('1,"one, two\nthree, four, five, six\nseven",x\n', ['1,"one, two\nthree, four, five, six\nseven",x']),
    ],
)
def test_a_line_break_inside_quotes_is_part_of_its_record(text: str, found: list[str]) -> None:
    assert cut(HEADER + text) == [HEADER.strip(), *found]
    assert has_breaks(HEADER + text)


@pytest.mark.parametrize(
    "lines",
    [
        ['1,"Heat,Action', "2,Alien,Horror"],  # never closed
        ['1,"Heat,Action', '2,"Alien",Horror', "3,x,y"],  # the next quote does not close it as it should
        ['1,Heat,"', "2,Alien,Horror", '3,"Seven"x,Crime'],
        ['5" of Fun,x,y', '6" of Fun,x,y'],  # quotes inside fields are letters
        ['1,"Heat,Action', "2,Alien,Horror", "3,Seven,Crime", '4,Fargo",Crime', "5,x,y"],  # other records would vanish
        ['1,"Heat" (1995),Action', "2,Alien,Horror"],
        ['"', "1,a,b"],
    ],
)
def test_a_quote_out_of_place_costs_no_line_below_it(lines: list[str]) -> None:
    text = HEADER + "\n".join(lines) + "\n"
    assert cut(text) == [HEADER.strip(), *lines]
    assert not has_breaks(text)


def test_a_quote_that_opens_too_much_is_out_of_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_RECORD", 200)
    lines = ['1,"Heat', *(f"line {number}" for number in range(40)), '2,the end",x']
    assert cut(HEADER + "\n".join(lines)) == [HEADER.strip(), *lines]
    assert not has_breaks(HEADER + "\n".join(lines))


def test_line_breaks_in_other_dialects() -> None:
    backslash = Dialect(";", escape="backslash")
    text = 'a;b\n1;"he said \\"no\\"\nand left"\n2;"C:\\\\"\n3;"x"\n'
    assert cut(text, backslash) == ["a;b", '1;"he said \\"no\\"\nand left"', '2;"C:\\\\"', '3;"x"']
    assert has_breaks(text, backslash)
    assert not has_breaks('a;b\n1;"\\"A\\" is for B"\n2;"C:\\\\"\n', backslash)
    assert cut('a\tb\n1\t"Heat\n2\t"x\n', Dialect("\t", quote="")) == ["a\tb", '1\t"Heat', '2\t"x']
    blanks = Dialect(",", quote="'", skip_blanks=True)
    assert cut("a,b\n1, 'x\ny'\n", blanks) == ["a,b", "1, 'x\ny'"]
    assert cut('a::b\n1::"x\ny"\n', Dialect("::")) == ["a::b", '1::"x\ny"']


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252", "shift_jis"])
def test_encodings(encoding: str) -> None:
    title = {"shift_jis": "\u96fb\u5f71", "cp1252": "\u201cAm\u00e9lie\u201d"}.get(encoding, "\u96fb\u5f71 \U0001f3ac")
    assert cut(f'movieId,title\r\n1,"{title}\r\n{title}"\r\n2,x\r\n', encoding=encoding) == [
        "movieId,title",
        f'1,"{title}\r\n{title}"',
        "2,x",
    ]


def test_a_byte_order_mark_says_more_than_the_settings() -> None:
    assert records.encoding_of(b"\xff\xfea\x00", "utf-8") == "utf-16-le"
    assert records.encoding_of(b"\xef\xbb\xbfa", "cp1252") == "utf-8"
    assert records.encoding_of(b"a", "cp1252") == "cp1252"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "cp1252", "ascii", "shift_jis", "utf-32-le"])
@settings(max_examples=60, deadline=None, database=None)
@given(
    content=st.lists(st.one_of(st.binary(max_size=9), st.sampled_from([b"\n", b'"', b",", b"\x00\xd8"]))).map(b"".join)
)
def test_bytes_that_are_no_text_are_kept(encoding: str, content: bytes) -> None:
    """Every byte is in a record, or is a line end; where a record is text it is that text."""
    lines = list(records.lines_of(io.BytesIO(content), encoding))
    if not content.decode(encoding, records.KEPT_BYTES).startswith("\ufeff"):
        assert b"".join(records.as_delivered(line, encoding) for line in lines) == content
    for line in lines:
        if records.is_text(line):
            line.encode(encoding)
            line.encode()


field = st.text(alphabet='ab",\n\r \\', max_size=6)
quoted = field.map(lambda text: '"' + text.replace('"', '""') + '"')
bare = st.text(alphabet='ab 5"', max_size=4).map(lambda text: text.lstrip('"'))


@settings(max_examples=200, deadline=None, database=None)
@given(st.lists(st.lists(st.one_of(quoted, bare), min_size=3, max_size=3), min_size=1, max_size=8))
def test_what_is_rfc_4180_is_read_as_such(rows: list[list[str]]) -> None:
    """Also where a file consists of nothing but quotes and line breaks: no line inside a record looks like a record."""
    found = [",".join(row) for row in [["x", "y", "z"], *rows]]
    assume(all(line.count(",") < 2 for row in found for line in re.split(r"\r\n|\r|\n", row)[1:-1]))
    assert cut("".join(f"{row}\n" for row in found)) == found


@settings(max_examples=300, deadline=None, database=None)
@given(
    st.text(alphabet='ab,"\n\r\\;', max_size=60),
    st.sampled_from([PLAIN, Dialect(";", escape="backslash"), Dialect(",", skip_blanks=True), Dialect(",,")]),
    st.integers(1, 9),
)
def test_files_without_line_breaks_inside_quotes_are_cut_as_spark_does(text: str, dialect: Dialect, piece: int) -> None:
    lines = [line for line in re.split(r"\r\n|\r|\n", text) if line]
    found = cut(text, dialect)
    assert "".join(found).replace("\r", "").replace("\n", "") == "".join(lines)
    assert has_breaks(text, dialect, piece) == (found != lines)


@pytest.mark.skipif(not dialects.HAS_POSSESSIVE_GROUPS, reason="this Python has no other way")
@settings(max_examples=500, deadline=None, database=None)
@given(
    st.text(alphabet='ab,"\n\r\\;', max_size=60),
    st.sampled_from([PLAIN, Dialect(";", escape="backslash"), Dialect(",", skip_blanks=True), Dialect(",,")]),
)
def test_a_python_whose_possessive_groups_are_broken_cuts_the_same(text: str, dialect: Dialect) -> None:
    as_always = cut(text, dialect), has_breaks(text, dialect)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dialects, "HAS_POSSESSIVE_GROUPS", False)
        assert (cut(text, dialect), has_breaks(text, dialect)) == as_always


def as_netflix(*lines: str) -> list[str]:
    dialect = ratings_dialect(Input(), RatingsFile(layout="netflix"))
    return cut("\n".join(lines), dialect)


def test_blocks_of_the_netflix_prize() -> None:
    assert as_netflix(
        "1:", "1488844,3,2005-09-06", "822109,5,2005-05-13", "", "17770:", "885013,4,2005-10-19", "bad"
    ) == [
        "1,1488844,3,2005-09-06",
        "1,822109,5,2005-05-13",
        "17770,885013,4,2005-10-19",
        "17770,bad",
    ]
    assert as_netflix("885013,4,2005-10-19", " 2: ", "1,2,3") == [",885013,4,2005-10-19", "2,1,2,3"]


def as_matrix(text: str, columns: Iterable[str] | None = None, delimiter: str = ",") -> list[str]:
    file = RatingsFile(layout="matrix", header=columns is None, columns=list(columns or ()), delimiter=delimiter)
    return cut(text, ratings_dialect(Input(timestamp=""), file), name="jester.csv")


def test_a_matrix_without_a_header_numbers_its_items() -> None:
    assert as_matrix("2,-7.82,99,8.79\n1,,4.08,99\n", ["rated"]) == [
        "jester.csv:1,1,-7.82",
        "jester.csv:1,2,99",
        "jester.csv:1,3,8.79",
        "jester.csv:2,2,4.08",
        "jester.csv:2,3,99",
    ]
    assert as_matrix("ann;2;1.5;\n", ["userId", "rated"], ";") == ["ann,1,1.5"]


def test_a_matrix_with_a_header_names_its_items() -> None:
    assert as_matrix('userId,"Heat, The",Alien,\nann,4.5,,9\n"b,b", ,"3",\n') == [
        'ann,"Heat, The",4.5',
        '"b,b",Alien,3',
    ]


def test_a_line_of_a_matrix_that_has_another_width_stays_whole() -> None:
    assert as_matrix('userId,Heat,Alien\nann,1\n"ann,1,2\nann,1,2\n') == [
        'a.csv:1,"ann,1"'.replace("a.csv", "jester.csv"),
        'jester.csv:2,"""ann,1,2"',
        "ann,Heat,1",
        "ann,Alien,2",
    ]


def test_the_dialect_of_each_table_comes_from_its_section() -> None:
    movies = movies_dialect(Input(delimiter="|"), MoviesFile(header=False, columns=["movieId", "title", "genres"]))
    assert (movies.delimiter, movies.columns, movies.section) == ("|", ("movieId", "title", "genres"), "movies_file")
    ratings = ratings_dialect(Input(delimiter="|"), RatingsFile(delimiter="\t", quote="", decimal=","))
    assert (ratings.delimiter, ratings.columns, ratings.quote, ratings.decimal) == ("\t", None, "", ",")
