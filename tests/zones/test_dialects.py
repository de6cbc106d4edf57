"""Files as people have them, from the first look to checked rows: formats, packings, encodings and layouts."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections import Counter
from datetime import date
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession

from spark_app.data import clean
from spark_app.data.ids import Codes
from spark_app.platform.errors import InputError
from spark_app.platform.settings import Settings, build_settings
from spark_app.zones.manifest import RunRecord
from spark_app.zones.raw import RawTable, note_inputs, read_fields, survey
from tests.platform.test_packed import by_arrow, zipped

TODAY = date(2025, 6, 1)
RATINGS = "userId,movieId,rating,timestamp\n1,2,3.5,1000000001\n2,1,4.0,1000000002\n"
MOVIES = "movieId,title,genres\n1,Heat (1995),Action\n2,Alien (1979),Horror\n"
FOUR = '["userId", "movieId", "rating", "timestamp"]'


def tables(root: Path, files: dict[str, bytes], *assignments: str) -> tuple[RawTable | None, RawTable, Settings]:
    """The tables of a raw zone with these files beside a good movies.csv and ratings.csv, as etl knows them."""
    usual = {"movies.csv": MOVIES.encode(), "ratings.csv": RATINGS.encode()}
    given = {name.split("/")[0].split(".")[0] for name in files}
    for name, content in {**{name: c for name, c in usual.items() if name.split(".")[0] not in given}, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    settings = build_settings(assignments=[f"raw.path={root}", *assignments])
    return *note_inputs(RunRecord("etl", settings), *survey(settings)), settings


def ratings(spark: SparkSession, root: Path, files: dict[str, bytes], *assignments: str) -> DataFrame:
    _, table, settings = tables(root, files, *assignments)
    known = spark.createDataFrame([(1,), (2,)], "movieId int")
    fields = read_fields(spark, table)
    return clean.checked_ratings(fields, known, settings.input, settings.clean, TODAY, Codes())


def movies(spark: SparkSession, root: Path, files: dict[str, bytes], *assignments: str) -> DataFrame:
    table, _, settings = tables(root, files, *assignments)
    assert table
    return clean.checked_movies(read_fields(spark, table), settings.input, Codes())


def kept_ratings(checked: DataFrame) -> list[tuple[int, int, float]]:
    rows = checked.collect()
    assert {row["status"] for row in rows} <= {"kept", "header"}
    return sorted((row["userId"], row["movieId"], row["rating"]) for row in rows if row["status"] == "kept")


def kept_titles(checked: DataFrame) -> dict[int, str]:
    rows = checked.collect()
    assert {row["status"] for row in rows} <= {"kept", "header"}
    return {row["movieId"]: row["title"] for row in rows if row["status"] == "kept"}


def rejects(checked: DataFrame) -> list[tuple[str, str, bytes | None]]:
    rows = checked.filter("status = 'rejected'").collect()
    return sorted((row["reason"], row["raw"], row["raw_bytes"] and bytes(row["raw_bytes"])) for row in rows)


def error_of(root: Path, files: dict[str, bytes], *assignments: str) -> str:
    with pytest.raises(InputError) as caught:
        tables(root, files, *assignments)
    return str(caught.value).removeprefix(f"{root}/")


BOTH = [(1, 2, 3.5), (2, 1, 4.0)]


@pytest.mark.parametrize(
    ("file", "assignments"),
    [
        ("1\t2\t3.5\t1000000001\n2\t1\t4\t1000000002\n", [r'ratings_file.delimiter="\t"']),
        ("1::2::3.5::1000000001\n2::1::4::1000000002\n", ["ratings_file.delimiter=::", "ratings_file.quote="]),
        ("1,2,3.5,1000000001\n2,1,4.0,1000000002\n", []),
        ("1|2|3.5|1000000001|x|\n2|1|4.0|1000000002|y|\n", ["ratings_file.delimiter=|"]),
        ("1; 2; 3,5; 1000000001\n2; 1; 4,0; 1000000002\n", ["ratings_file.delimiter=;", "ratings_file.decimal=,"]),
        ('"1"; "2"; "3,5"; "1000000001"\n"2"; "1"; "4"; "1000000002"\n',
         ["ratings_file.delimiter=;", "ratings_file.decimal=,", "ratings_file.skip_blanks=true"]),
        ("1,2,3.5,1000000001\r2,1,4.0,1000000002\r", []),
    ],
)  # fmt: skip
def test_ratings_without_a_header(spark: SparkSession, tmp_path: Path, file: str, assignments: list[str]) -> None:
    by_position = ["ratings_file.header=false", f"ratings_file.columns={FOUR}", *assignments]
    checked = ratings(spark, tmp_path, {"ratings.csv": file.encode()}, *by_position)
    assert kept_ratings(checked) == BOTH


def test_columns_by_position_may_leave_some_out(spark: SparkSession, tmp_path: Path) -> None:
    columns = [
        "ratings_file.header=false",
        'ratings_file.columns=["movieId", "", "userId", "rating"]',
        "input.timestamp=",
    ]
    checked = ratings(spark, tmp_path, {"ratings.csv": b"2,x,1,3.5,y\n1,x,2,4.0,y\n1,x,2,4.0\n"}, *columns)
    assert checked.filter("status = 'kept'").count() == 2
    assert rejects(checked) == [("the line has too few or too many fields", "1,x,2,4.0", None)]


def test_without_a_header_the_first_line_is_a_rating_like_any_other(spark: SparkSession, tmp_path: Path) -> None:
    by_position = ["ratings_file.header=false", f"ratings_file.columns={FOUR}"]
    line = b"1,2,3.5,1000000001\n"
    rows = ratings(spark, tmp_path, {"ratings.csv": line * 2}, *by_position).collect()
    assert Counter(row["status"] for row in rows) == {"kept": 1, "superseded": 1}


@pytest.mark.parametrize(
    ("content", "assignments"),
    [
        ("movieId,title,genres\n1,Amélie (2001),Drama\n".encode("latin-1"), ["movies_file.encoding=latin-1"]),
        ("movieId,title,genres\n1,Amélie (2001),Drama\n".encode("cp1252"), ["movies_file.encoding=cp1252"]),
        ("movieId,title,genres\n1,Amélie (2001),Drama\n".encode("utf-8-sig"), ["movies_file.encoding=cp1252"]),
        ("movieId\ttitle\tgenres\r\n1\tAmélie (2001)\tDrama\r\n".encode("utf-16"), [r'movies_file.delimiter="\t"']),
        ("movieId,title,genres\n1,Amélie (2001),Drama\n".encode("utf-16-be"), ["movies_file.encoding=utf-16-be"]),
        (
            "1|Amélie (2001)|01-Jan-2001||http://x|0|1|0\n".encode("latin-1"),
            ["movies_file.encoding=latin-1", "movies_file.delimiter=|", "movies_file.header=false", "input.genres=",
             'movies_file.columns=["movieId", "title"]'],
        ),
        (
            "MAL_ID,Name,Genres\n1,Amélie (2001),Drama\n".encode(),
            ["movies_file.item=MAL_ID", "input.title=Name", "input.genres=Genres"],
        ),
    ],
)  # fmt: skip
def test_movies_in_other_encodings_and_by_other_names(
    spark: SparkSession, tmp_path: Path, content: bytes, assignments: list[str]
) -> None:
    assert kept_titles(movies(spark, tmp_path, {"movies.csv": content}, *assignments)) == {1: "Amélie (2001)"}


def test_what_is_no_text_is_rejected_with_its_bytes(spark: SparkSession, tmp_path: Path) -> None:
    reason = "the line is not in the encoding of its file (UTF-8 unless set)"
    lines = b"movieId,title,genres\n1,Heat \x81,Action\n2,Caf\xe9,Drama\n"
    checked = movies(spark, tmp_path / "a", {"movies.csv": lines}, "movies_file.encoding=cp1252")
    assert rejects(checked) == [(reason, "1,Heat \ufffd,Action", b"1,Heat \x81,Action")]
    assert [row["title"] for row in checked.filter("status = 'kept'").collect()] == ["Caf\u00e9"]
    lone = "movieId,title,genres\n1,Heat ".encode("utf-16") + b"\x00\xdc" + ",Action\n2,Alien,\n".encode("utf-16-le")
    checked = movies(spark, tmp_path / "b", {"movies.csv": lone})
    ((why, _, raw),) = rejects(checked)
    assert (why, raw) == (reason, "1,Heat ".encode("utf-16-le") + b"\x00\xdc" + ",Action".encode("utf-16-le"))
    assert [row["title"] for row in checked.filter("status = 'kept'").collect()] == ["Alien"]


def test_line_breaks_inside_quotes(spark: SparkSession, tmp_path: Path) -> None:
    content = b'movieId,title,genres,plot\n1,"Heat\r\n(1995)",Action,"one\n\ntwo"\n2,Alien,Horror,\nx,"bad\nid",,\n'
    checked = movies(spark, tmp_path, {"movies.csv": content})
    assert {row["title"] for row in checked.filter("status = 'kept'").collect()} == {"Heat\r\n(1995)", "Alien"}
    assert rejects(checked) == [("movieId is not an integer from 0 to 2147483647", 'x,"bad\nid",,', None)]
    table, _, _ = tables(tmp_path, {"movies.csv": content})
    assert table
    assert table.files[0].has_line_breaks


def test_a_quote_that_is_never_closed_costs_its_line_alone(spark: SparkSession, tmp_path: Path) -> None:
    content = b'movieId,title,genres\n1,"Heat,Action\n2,Alien,Horror\n3,Seven,Crime\n4,Fargo",Crime\n'
    checked = movies(spark, tmp_path, {"movies.csv": content})
    assert {row["title"] for row in checked.filter("status = 'kept'").collect()} == {"Alien", "Seven", 'Fargo"'}
    assert [raw for _, raw, _ in rejects(checked)] == ['1,"Heat,Action']


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ratings.csv.gz", gzip.compress(RATINGS.encode())),
        ("ratings.csv.bz2", bz2.compress(RATINGS.encode())),
        ("ratings.csv.xz", lzma.compress(RATINGS.encode())),
        ("ratings.csv.zst", by_arrow("zstd", RATINGS.encode())),
        ("ratings.csv.lz4", by_arrow("lz4", RATINGS.encode())),
        ("ratings.csv.zip", zipped({"ml/ratings.csv": RATINGS.encode()})),
        ("ratings.csv", gzip.compress(RATINGS.encode())),
        ("ratings.csv.gz", RATINGS.encode()),
        ("ratings/a b%20#.csv.zip", zipped({"ratings.csv": RATINGS.encode("utf-16")})),
    ],
)
def test_packed_files(spark: SparkSession, tmp_path: Path, name: str, content: bytes) -> None:
    checked = ratings(spark, tmp_path, {name: content + b""})
    assert kept_ratings(checked) == BOTH


def test_files_that_are_read_differently_are_named_and_ordered_alike(spark: SparkSession, tmp_path: Path) -> None:
    parts = {
        "ratings/a 1.csv": RATINGS.encode(),
        "ratings/b 2.csv.zip": zipped({"r.csv": RATINGS.replace("3.5", "5.0").encode() + b"bad\n"}),
        "ratings/c 3.csv": RATINGS.replace("3.5", "2.0").encode() + b"bad\n",
        "ratings/d 4.csv.xz": lzma.compress(RATINGS.replace("3.5", "1.0").encode()),
    }
    checked = ratings(spark, tmp_path, parts, "input.timestamp=")
    rows = checked.filter("status = 'kept'").collect()
    assert {(row["userId"], row["movieId"]): row["rating"] for row in rows} == {(1, 2): 1.0, (2, 1): 4.0}
    files = {row["file"] for row in checked.filter("status = 'rejected'").collect()}
    assert files == {f"{tmp_path}/ratings/b 2.csv.zip", f"{tmp_path}/ratings/c 3.csv"}


def test_columns_that_nobody_reads_do_not_matter(spark: SparkSession, tmp_path: Path) -> None:
    content = (
        b"note,userId,movieId,Rating,rating,timestamp,note,,\na,1,2,x,3.5,1000000001,b,,\n,2,1,,4.0,1000000002,,,\n"
    )
    assert kept_ratings(ratings(spark, tmp_path, {"ratings.csv": content})) == BOTH


def test_the_blocks_of_the_netflix_prize(spark: SparkSession, tmp_path: Path) -> None:
    netflix = ["ratings_file.layout=netflix", "input.time_format=iso", "raw.ratings=combined_data_*.txt"]
    parts = {
        "combined_data_1.txt": b"1:\n2,4,2005-09-06\n3,5,2005-05-13\n",
        "combined_data_2.txt": b"2:\n1,3.5,2005-10-19\n1,9,2005-10-19\n9:\n1,3,2005-10-19\nbad\n",
    }
    checked = ratings(spark, tmp_path, parts, *netflix)
    kept = checked.filter("status = 'kept'").collect()
    assert sorted((row["userId"], row["movieId"], row["rating"]) for row in kept) == [
        (1, 2, 3.5),
        (2, 1, 4.0),
        (3, 1, 5.0),
    ]
    assert [(reason, raw) for reason, raw, _ in rejects(checked)] == [
        ("movieId is not in the movies table", "9,1,3,2005-10-19"),
        ("rating is not on the scale 0.5 to 5 by 0.5", "2,1,9,2005-10-19"),
        ("the line has too few or too many fields", "9,bad"),
    ]
    titles = ["movies_file.header=false", 'movies_file.columns=["movieId", "", "title"]', "input.genres="]
    rest = ["movies_file.quote=", "movies_file.rest_in_last=true", "movies_file.encoding=latin-1"]
    content = b'1,2003,Dinosaur Planet\n2,1974,At Home, A "Stranger" Caf\xe9\n'
    assert kept_titles(movies(spark, tmp_path / "b", {"movies.csv": content}, *titles, *rest)) == {
        1: "Dinosaur Planet",
        2: 'At Home, A "Stranger" Caf\u00e9',
    }


def test_a_matrix_of_jokes(spark: SparkSession, tmp_path: Path) -> None:
    scale = ["input.scale_min=-10", "input.scale_max=10", "input.scale_step=0.01", "input.timestamp=", "raw.movies="]
    matrix = ["ratings_file.layout=matrix", "ratings_file.header=false", "ratings_file.columns=rated", *scale]
    _, table, _ = tables(tmp_path, {"ratings.csv": b"2,-7.82,99,8.79\n1,,4.08,99\n1,2\n"}, *matrix)
    rows = read_fields(spark, table).collect()
    whole = sorted((row["userId"], row["movieId"], row["rating"]) for row in rows if row["has_all_fields"])
    assert whole == [
        ("ratings.csv:1", "1", "-7.82"),
        ("ratings.csv:1", "2", "99"),
        ("ratings.csv:1", "3", "8.79"),
        ("ratings.csv:2", "2", "4.08"),
        ("ratings.csv:2", "3", "99"),
    ]
    assert [row["value"] for row in rows if not row["has_all_fields"]] == ['ratings.csv:3,"1,2"']
    assert table.coded == {"userId"}


@pytest.mark.parametrize(
    ("name", "content", "assignments", "message"),
    [
        (
            "ratings.csv",
            b"1,2,3.5,1000000001\n",
            [],
            "ratings.csv: the first line is not a header: expected userId,movieId,rating,timestamp, found "
            "1,2,3.5,1000000001; if the file has no header, set ratings_file.header = false and name its columns in "
            "ratings_file.columns",
        ),
        (
            "ratings.csv",
            RATINGS.encode(),
            ["ratings_file.header=false", f"ratings_file.columns={FOUR}"],
            "ratings.csv: the first line is a header: leave out ratings_file.header = false",
        ),
        (
            "ratings.csv",
            b"",
            ["ratings_file.header=false", f"ratings_file.columns={FOUR}"],
            "ratings.csv is empty: expected lines with userId,movieId,rating,timestamp",
        ),
        (
            "movies.csv",
            "movieId,title,genres,café\n1,a,b,c\n".encode("latin-1"),
            [],
            "movies.csv: the first line is not UTF-8: name the encoding in movies_file.encoding",
        ),
        (
            "movies.csv",
            MOVIES.encode("utf-16-le"),
            [],
            "movies.csv: the first line has NUL characters: if the file is UTF-16 without a byte order mark, set "
            "movies_file.encoding to utf-16-le or utf-16-be",
        ),
        (
            "ratings.csv.zip",
            zipped({"movies.csv": b"a", "ratings.csv": b"b"}),
            [],
            "ratings.csv.zip is a zip of 2 files (movies.csv, ratings.csv): unpack it, and deliver one file for "
            "a table",
        ),
    ],
)
def test_what_cannot_be_read_so_names_the_setting(
    tmp_path: Path, name: str, content: bytes, assignments: list[str], message: str
) -> None:
    assert error_of(tmp_path, {name: content}, *assignments) == message
