from __future__ import annotations

import re
import tempfile
from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path

from chispa import assert_df_equality
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.data import clean
from spark_app.data.contract import INTEGER, NUMBER, movies_contract, ratings_contract
from spark_app.data.ids import Codes
from spark_app.data.lines import as_text, with_fields
from spark_app.platform.settings import Clean, Input, MoviesFile
from spark_app.zones.raw import RawFile, RawTable, read_fields

TODAY = date(2025, 6, 1)
MOVIES_HEADER = "movieId,title,genres"
RATINGS_HEADER = "userId,movieId,rating,timestamp"
NOON = datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC)  # 1000000000


def delivered(spark: SparkSession, header: str, files: dict[str, list[str | bytes]]) -> DataFrame:
    """Parsed lines of files, each with its header line first, as `read_fields` gives them."""
    rows = []
    for file, lines in files.items():
        for number, line in enumerate([header, *lines]):
            value = line if isinstance(line, bytes) else line.encode()
            rows.append((file, 0, number, bytearray(value), line == header))
    frame = spark.createDataFrame(rows, "file string, block_start long, row long, value binary, is_header boolean")
    columns = {name: name for name in header.split(",")}
    records = as_text(frame.withColumn("value", F.col("value").cast("string")), "utf-8")
    return with_fields(records, list(columns), columns)


def known_movies(spark: SparkSession, *ids: int) -> DataFrame:
    return spark.createDataFrame([(movie,) for movie in ids], "movieId int")


def check_ratings(spark: SparkSession, files: dict[str, list[str | bytes]], *movies: int) -> DataFrame:
    fields = delivered(spark, RATINGS_HEADER, files)
    return clean.checked_ratings(fields, known_movies(spark, *movies), Input(), Clean(), TODAY, Codes())


def test_movies_are_typed_and_the_last_delivered_of_each_is_kept(spark: SparkSession) -> None:
    fields = delivered(
        spark,
        MOVIES_HEADER,
        {
            "file:/raw/b.csv": ['1,"Heat, The (1995)",Action|Crime'],
            "file:/raw/a.csv": ["1,Old (1990),Drama", "2,First (1990),Drama", "2,Second (1991),(no genres listed)"],
        },
    )
    expected = [
        (1, "Heat, The (1995)", 1995, ["Action", "Crime"], "kept"),
        (1, "Old (1990)", 1990, ["Drama"], "superseded"),
        (2, "Second (1991)", 1991, [], "kept"),
        (2, "First (1990)", 1990, ["Drama"], "superseded"),
        (None, None, None, None, "header"),
        (None, None, None, None, "header"),
    ]
    schema = "movieId int, title string, year int, genres array<string>, status string"
    assert_df_equality(
        clean.checked_movies(fields, Input(), Codes()).select("movieId", "title", "year", "genres", "status"),
        spark.createDataFrame(expected, schema),
        ignore_nullable=True,
        ignore_row_order=True,
    )


def test_a_column_may_stand_for_a_genre(spark: SparkSession) -> None:
    header = "movieId,title,Film-Noir,Children's"
    file = MoviesFile(genre_columns=["Film-Noir", "Children's"])
    given = Input(genres="")
    names = movies_contract(given, file).names
    lines = [header, "1,Heat,1,0", "2,Up, 1 ,1", "3,Cube,0,", "4,Pi,yes,01"]
    rows = [("file:/raw/m.csv", 0, number, line, line == header) for number, line in enumerate(lines)]
    schema = "file string, block_start long, row long, value string, is_header boolean"
    fields = with_fields(as_text(spark.createDataFrame(rows, schema), "utf-8"), header.split(","), names)
    checked = clean.checked_movies(fields.withColumn("genres", F.lit(None).cast("string")), given, Codes())
    found = {row["title"]: row["genres"] for row in clean.kept(checked, ["title", "genres"]).collect()}
    assert found == {"Heat": ["Film-Noir"], "Up": ["Film-Noir", "Children's"], "Cube": [], "Pi": []}


def test_a_rejected_movie_does_not_supersede_a_good_one(spark: SparkSession) -> None:
    fields = delivered(spark, MOVIES_HEADER, {"file:/raw/a.csv": ["1,Heat (1995),Action", "1,,Action"]})
    movies = clean.kept(clean.checked_movies(fields, Input(), Codes()), ["movieId", "title"])
    assert_df_equality(movies, spark.createDataFrame([(1, "Heat (1995)")], "movieId int, title string"))


def test_a_rating_whose_movie_was_rejected_has_a_reason_of_its_own(spark: SparkSession) -> None:
    lines: list[str | bytes] = ["1,,Drama", '2,"A" is for B,Drama', "3,,Drama", "3,Heat,Drama", ",No id,Drama"]
    checked = clean.checked_movies(delivered(spark, MOVIES_HEADER, {"file:/raw/m.csv": lines}), Input(), Codes())
    ratings: list[str | bytes] = [*(f"7,{movie},4.0,1000000000" for movie in (1, 2, 3, 4)), "7,1,9.0,1000000000"]
    fields = delivered(spark, RATINGS_HEADER, {"file:/raw/r.csv": ratings})
    movies, lost = clean.kept(checked, ["movieId"]), clean.lost_movies(checked)
    judged = clean.checked_ratings(fields, movies, Input(), Clean(), TODAY, Codes(), lost).collect()
    reasons = {row["raw"]: row["reason"] for row in judged if row["status"] == "rejected"}
    begin = "the line of this movieId in the movies was rejected: "
    assert reasons == {
        "7,1,4.0,1000000000": begin + "title is empty",
        "7,2,4.0,1000000000": begin + "a quote is unbalanced or out of place",
        "7,4,4.0,1000000000": "movieId is not in the movies table",
        "7,1,9.0,1000000000": "rating is not on the scale 0.5 to 5 by 0.5",
    }
    assert [row["movieId"] for row in judged if row["status"] == "kept"] == [3]


def test_latest_rating_counts_and_of_one_second_the_highest(spark: SparkSession) -> None:
    lines: list[str | bytes] = [
        "1,1,5.0,1000000000",
        "1,1,2.0,1000000001",
        "1,1,4.0,999999999",
        "1,2,2.5,1000000000",
        "1,2,3.5,1000000000",
        "2,1,3.0,1000000000",
        "2,1,3.0,1000000000",
        "2,2,9.0,1000000002",
        "2,2,1.0,1000000000",
    ]
    checked = check_ratings(spark, {"file:/raw/ratings.csv": lines}, 1, 2).persist()
    expected = [
        (1, 1, 2.0, datetime(2001, 9, 9, 1, 46, 41, tzinfo=UTC)),
        (1, 2, 3.5, NOON),
        (2, 1, 3.0, NOON),
        (2, 2, 1.0, NOON),
    ]
    assert_df_equality(
        clean.kept(checked, ["userId", "movieId", "rating", "timestamp"]),
        spark.createDataFrame(expected, "userId int, movieId int, rating double, timestamp timestamp"),
        ignore_nullable=True,
        ignore_row_order=True,
    )
    statuses = Counter(row["status"] for row in checked.select("status").collect())
    assert statuses == {"header": 1, "kept": 4, "superseded": 4, "rejected": 1}
    checked.unpersist()


def test_what_is_unrated_or_missing_supersedes_no_rating(spark: SparkSession) -> None:
    lines: list[str | bytes] = [
        "1,1,4.0,1000000000",
        "1,1,-1,1000000001",
        "1,1,-1,1000000002",
        "1,1,99,1000000003",
        "1,2,-1,1000000000",
        "1,9,-1,1000000000",
        "1,3,3.0,",
        "1,3,5.0,1000000000",
    ]
    fields = delivered(spark, RATINGS_HEADER, {"file:/raw/ratings.csv": lines})
    given = Input(unrated_values=["-1"], missing_values=["99", ""])
    checked = clean.checked_ratings(fields, known_movies(spark, 1, 2, 3), given, Clean(), TODAY, Codes()).persist()
    statuses = Counter(row["status"] for row in checked.collect())
    assert statuses == {"header": 1, "kept": 2, "superseded": 2, "unrated": 2, "missing": 1, "rejected": 1}
    kept = {tuple(row) for row in clean.kept(checked, ["userId", "movieId", "rating"]).collect()}
    assert kept == {(1, 1, 4.0), (1, 3, 5.0)}
    assert {tuple(row) for row in clean.unrated(checked).collect()} == {(1, 1), (1, 2)}
    (reject,) = clean.rejected(checked).collect()
    assert (reject["raw"], reject["reason"]) == ("1,9,-1,1000000000", "movieId is not in the movies table")
    checked.unpersist()


def test_rejects_keep_file_reason_and_text(spark: SparkSession) -> None:
    first, second = "file:/raw%20zone/caf%C3%A9+50%25.csv", "file:///raw/b.csv"
    files: dict[str, list[str | bytes]] = {
        first: [RATINGS_HEADER, "1,1,5.5,1000000000", "1,7,4.0,1000000000", b"1,1,4.0,\xff", '1,1,"4.0,1000000000'],
        second: ["1,1,4.0", "-1,1,4.0,1000000000", "1,1,4.0,10000000000", "1,1,4.0,1000000000"],
    }
    plain_first, plain_second = "/raw zone/caf\u00e9+50%.csv", "/raw/b.csv"
    expected = [
        (plain_first, "the header line is repeated", RATINGS_HEADER, None),
        (plain_first, "rating is not on the scale 0.5 to 5 by 0.5", "1,1,5.5,1000000000", None),
        (plain_first, "movieId is not in the movies table", "1,7,4.0,1000000000", None),
        (
            plain_first,
            "the line is not in the encoding of its file (UTF-8 unless set)",
            "1,1,4.0,\ufffd",
            bytearray(b"1,1,4.0,\xff"),
        ),
        (plain_first, "a quote is unbalanced or out of place", '1,1,"4.0,1000000000', None),
        (plain_second, "the line has too few or too many fields", "1,1,4.0", None),
        (plain_second, "userId is not an integer from 0 to 2147483647", "-1,1,4.0,1000000000", None),
        (
            plain_second,
            "timestamp is not a time from 1990-01-01 to 2025-06-02",
            "1,1,4.0,10000000000",
            None,
        ),
    ]
    schema = "file string, reason string, raw string, raw_bytes binary"
    assert_df_equality(
        clean.rejected(check_ratings(spark, files, 1)),
        spark.createDataFrame(expected, schema),
        ignore_nullable=True,
        ignore_row_order=True,
    )


def test_all_rows_bad_keeps_none(spark: SparkSession) -> None:
    rows = check_ratings(spark, {"file:/raw/a.csv": ["x,1,4.0,1000000000", ",,,"]}, 1).collect()
    assert Counter(row["status"] for row in rows) == {"header": 1, "rejected": 2}
    assert all(row["userId"] is None and row["rating"] is None for row in rows)


def spoilt(values: list[str]) -> st.SearchStrategy[bytes]:
    """Mostly a value from a list, sometimes any text or bytes; a line end in it splits its line in two."""
    odd = st.one_of(st.text(max_size=8).map(str.encode), st.binary(max_size=8))
    return st.one_of(*[st.sampled_from(values).map(str.encode)] * 9, odd)


FIELDS = (
    spoilt(["1", "2", "3", "2147483647", "2147483648", "0", "-1", '"2"', ""]),
    spoilt(["1", "2", "3", "4", "1.0", '"1"']),
    spoilt(["4.0", "0.5", "5.0", "3", "5.5", "0.3", "NaN", "Infinity", '"4.0"', "4.0f", ""]),
    spoilt(["1000000000", "1000000001", "1000000002", "1000000000000", "-1", "1.5"]),
)
LINES = st.one_of(
    st.tuples(*FIELDS).map(b",".join),
    st.tuples(*FIELDS).map(b",".join),
    st.tuples(*FIELDS).map(b",".join),
    st.lists(spoilt(["1", '"', '""', ",", " "]), max_size=6).map(b",".join),
    st.sampled_from([b"", b" ", b'"', b"\xef\xbb\xbf", RATINGS_HEADER.encode()]),
)


@settings(max_examples=5, deadline=None, database=None)
@given(lines=st.lists(LINES, min_size=40, max_size=120), line_end=st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_every_line_is_kept_superseded_or_rejected(spark: SparkSession, lines: list[bytes], line_end: bytes) -> None:
    content = line_end.join([RATINGS_HEADER.encode(), *lines])
    records = [line for line in re.split(rb"\r\n|\r|\n", content)[1:] if line]
    columns, types = tuple(RATINGS_HEADER.split(",")), (INTEGER, INTEGER, NUMBER, INTEGER)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ratings.csv"
        path.write_bytes(content)
        table = RawTable(ratings_contract(Input()), str(path), [RawFile(str(path), RATINGS_HEADER, columns, types)])
        movies = known_movies(spark, 1, 2, 3)
        fields = read_fields(spark, table)
        rows = clean.checked_ratings(fields, movies, Input(), Clean(), TODAY, Codes()).collect()

    statuses = Counter(row["status"] for row in rows)
    assert statuses.pop("header") == 1
    assert set(statuses) <= {"kept", "superseded", "rejected"}
    assert sum(statuses.values()) == len(records)

    rejects = [row for row in rows if row["status"] == "rejected"]
    assert all(row["reason"] and row["file"] == str(path) for row in rejects)
    turned_away = Counter(bytes(row["raw_bytes"] or row["raw"].encode()) for row in rejects)
    assert turned_away <= Counter(records)

    kept = [row for row in rows if row["status"] == "kept"]
    keys = [(row["userId"], row["movieId"]) for row in kept]
    assert len(set(keys)) == len(keys)
    assert all(0 <= user <= 2_147_483_647 and movie in (1, 2, 3) for user, movie in keys)
    assert all(row["rating"] in (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0) for row in kept)
    assert all(row["timestamp"].year == 2001 for row in kept)
