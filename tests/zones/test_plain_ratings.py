"""Blocks of plain lines and the rules for rows come to the same result on the same files."""

from __future__ import annotations

import gzip
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from spark_app.data.aggregates import rating_sums
from spark_app.data.clean import checked_ratings
from spark_app.data.ids import Codes
from spark_app.platform.settings import Clean, Input, Raw, Settings
from spark_app.zones import plain_ratings
from spark_app.zones.checked import Checked
from spark_app.zones.plain_ratings import check_plain_files, plain_files
from spark_app.zones.raw import RawTable, read_fields, survey

TODAY = date(2025, 6, 1)
FIELDS = ("userId", "movieId", "rating", "timestamp")
COLUMNS = ("userId", "movieId", "rating", "timestamp")
REJECTED = ("file", "reason", "raw", "raw_bytes")


def by_blocks(spark: SparkSession, table: RawTable, movies: DataFrame | None, options: Settings) -> Checked:
    files = plain_files(table, options, Codes(), TODAY)
    assert files is not None
    sizes = {file.path: Path(file.path).stat().st_size for file in table.files}
    return check_plain_files(spark, table, files, sizes, movies, None, options, TODAY)


def by_rules(spark: SparkSession, table: RawTable, movies: DataFrame | None, options: Settings) -> Checked:
    fields = read_fields(spark, table)
    rows = checked_ratings(fields, movies, options.input, options.clean, TODAY, Codes())
    return Checked.of_rows(rows, COLUMNS)


def facts(checked: Checked) -> dict[str, Any]:
    """All that is known of checked rows, in an order of its own."""
    kept = [tuple(row) for row in checked.kept.select(*COLUMNS).collect()]
    rejected = [] if checked.rejected is None else checked.rejected.select(*REJECTED).collect()
    return {
        "kept": sorted(kept, key=repr),
        "rejected": sorted((tuple(row) for row in rejected), key=repr),
        "lines": checked.lines,
        "good": checked.good_lines,
        "rejects": dict(checked.rejects),
        "kept_rows": checked.count_kept(),
        "movie_sums": _movie_sums(checked),
    }


def _movie_sums(checked: Checked) -> list[tuple[Any, ...]]:
    """The sums by movie, rounded; those that were collected while the rows were read, if there are any."""
    rows = (
        checked.movie_sums().to_pylist() if checked.movie_sums else map(Row.asDict, rating_sums(checked.kept).collect())
    )
    return sorted((row["movieId"], round(row["rating_sum"], 6), row["rating_count"]) for row in rows)


def deliver(folder: Path, files: dict[str, bytes]) -> None:
    (folder / "ratings").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        packed = gzip.compress(content) if name.endswith(".gz") else content
        (folder / "ratings" / name).write_bytes(packed)


def agree(spark: SparkSession, folder: Path, movies: DataFrame | None = None, **columns: Any) -> dict[str, Any]:
    """The facts of the files, on which the two ways must agree."""
    options = Settings(
        raw=Raw(path=str(folder), movies="", ratings="ratings"), input=Input(ids="integer", **columns), clean=Clean()
    )
    _, table = survey(options)
    rules, blocks = by_rules(spark, table, movies, options), by_blocks(spark, table, movies, options)
    expected = facts(rules)
    assert facts(blocks) == expected
    for checked in (rules, blocks):
        checked.unpersist()
    return expected


@pytest.fixture(params=["driver", "tasks"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the lines are read: on the driver, or in tasks, in many small splits and blocks."""
    if request.param == "tasks":
        for name, size in {"LOCAL_BYTES": 0, "SPLIT_BYTES": 701, "BLOCK_BYTES": 211}.items():
            monkeypatch.setattr(plain_ratings, name, size)
    return str(request.param)


HEAD = [",".join(FIELDS).encode(), *(b"%d,1,4.0,1000000000" % user for user in range(1, 31))]
"""A header and enough plain lines for a file to be read in blocks."""


def values(*usual: str) -> st.SearchStrategy[bytes]:
    """Mostly a usual value, sometimes any text or bytes; a line end in it splits its line in two."""
    odd = st.one_of(st.text(max_size=6).map(str.encode), st.binary(max_size=6))
    return st.one_of(*[st.sampled_from(usual).map(str.encode)] * 9, odd)


LINES = st.one_of(
    st.tuples(
        values("1", "2", "3", "2147483647", "2147483648", "0", "-1", '"2"', "007", " 1", "1.0", ""),
        values("1", "2", "4", "1.0", '"1"', "+1", "99999999999999999999"),
        values("4.0", "0.5", "5.0", "3", "5.5", "0.3", "NaN", "Infinity", '"4.0"', "4e0", ".5", "3.", "-0.5", ""),
        values("1000000000", "1000000001", "1000000000000", "-1", "1.5", '"1000000000"', "1000000000 ", "20050906"),
    ).map(b",".join),
    st.lists(values("1", '"', '""', ",", " "), max_size=6).map(b",".join),
    st.sampled_from([b"", b" ", b'"', b"\xef\xbb\xbf", HEAD[0], b"\x00", b"\\", b'1,1,"4.0"", 1000000000']),
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@settings(
    max_examples=4,
    deadline=None,
    phases=[Phase.generate],
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    files=st.lists(st.tuples(st.lists(LINES, max_size=60), ENDS, st.booleans(), st.booleans()), min_size=1, max_size=3)
)
def test_generated_bytes(spark: SparkSession, place: str, files: list[tuple[list[bytes], bytes, bool, bool]]) -> None:
    movies = spark.createDataFrame([(1,), (2,), (2_147_483_647,)], "movieId int")
    with tempfile.TemporaryDirectory() as folder:
        for number, (lines, end, is_packed, is_ended) in enumerate(files):
            content = end.join([*HEAD, *lines]) + (end if is_ended else b"")
            deliver(Path(folder), {f"{number}.csv{'.gz' if is_packed else ''}": content})
        found = agree(spark, Path(folder), movies)
    assert found["kept_rows"] >= 30


def test_a_file_of_plain_lines_needs_no_rules_for_rows(
    spark: SparkSession, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(tmp_path, {"a.csv": b"\xef\xbb\xbf" + b"\r\n".join([*HEAD, b"", *HEAD[1:]])})
    agree(spark, tmp_path)
    monkeypatch.setattr(plain_ratings, "_fields", lambda *_: pytest.fail("there are only plain lines"))
    options = Settings(raw=Raw(path=str(tmp_path), movies="", ratings="ratings"))
    checked = by_blocks(spark, survey(options)[1], None, options)
    assert (checked.lines, checked.count_kept(), checked.rejected) == (60, 30, None)


def test_without_times_the_last_delivered_is_kept(spark: SparkSession, tmp_path: Path, place: str) -> None:
    head = [b"userId,movieId,rating,note", *(b"%d,1,4.0,x" % user for user in range(1, 21))]
    first = [*head, b"1,2,1.0,x", b' 1,2,2.0,"odd, but good"', b"2,2,1.0,x"]
    second = [*head, b' 2,2,3.0,"odd"', b"3,3,0.5,x", b' 3,3,1.5,"odd"', b"3,3,2.5,x"]
    deliver(tmp_path, {"b c+%.csv": b"\n".join(first), "é.csv.gz": b"\r\n".join(second)})
    kept = agree(spark, tmp_path, timestamp="")["kept"]
    assert {row[:3] for row in kept if row[1] > 1} == {(1, 2, 2.0), (2, 2, 3.0), (3, 3, 2.5)}


def test_counts_are_summed_over_both_kinds_of_lines(spark: SparkSession, tmp_path: Path, place: str) -> None:
    lines = [*HEAD, b"1,1,1000,1000000002", b" 1,1,0.25,1000000001", b"1,1,-2,1000000000"]
    deliver(tmp_path, {"a.csv": b"\n".join(lines)})
    kept = agree(spark, tmp_path, feedback="counts")["kept"]
    assert next(row[2] for row in kept if row[0] == 1) == 1004.25


def test_files_with_different_headers(spark: SparkSession, tmp_path: Path, place: str) -> None:
    swapped = [b"timestamp,rating,movieId,userId", *(b"1000000000,3.0,2,%d" % user for user in range(1, 9)), b"x,y"]
    deliver(tmp_path, {"a.csv": b"\n".join([*HEAD, b"x,y"]), "b.csv": b"\n".join(swapped)})
    found = agree(spark, tmp_path)
    assert (found["kept_rows"], found["rejects"]) == (38, {"the line has too few or too many fields": 2})


@pytest.mark.parametrize(
    ("lines", "columns"),
    [
        (HEAD, {"ids": "any"}),
        ([HEAD[0], b"1,1,4.0,2001-09-09"], {"time_format": "iso"}),
        ([HEAD[0], b" 1,1,4.0,1000000000", b" 2,1,4.0,1000000000", HEAD[1]], {}),
    ],
    ids=["codes", "times as texts", "mostly other lines"],
)
def test_some_files_are_left_to_the_rules(
    spark: SparkSession, tmp_path: Path, lines: list[bytes], columns: dict[str, Any]
) -> None:
    deliver(tmp_path, {"a.csv": b"\n".join(lines)})
    options = Settings(raw=Raw(path=str(tmp_path), movies="", ratings="ratings"), input=Input(**columns))
    codes = Codes(users=spark.createDataFrame([], "id string, code int")) if columns.get("ids") else Codes()
    assert plain_files(survey(options)[1], options, codes, TODAY) is None


def test_rows_of_a_user_lie_together_in_order(spark: SparkSession, tmp_path: Path, place: str) -> None:
    lines = [HEAD[0], *(b"%d,%d,4.0,1000000000" % (user, movie) for movie in range(9, 0, -1) for user in range(40))]
    deliver(tmp_path, {"a.csv": b"\n".join(lines)})
    options = Settings(raw=Raw(path=str(tmp_path), movies="", ratings="ratings"))
    kept = by_blocks(spark, survey(options)[1], None, options).kept
    rows = [tuple(row) for row in kept.select(F.spark_partition_id(), "userId", "movieId").collect()]
    assert rows == sorted(rows)
    assert len({(part, user) for part, user, _ in rows}) == 40


def test_a_header_of_numbers_is_no_rating(spark: SparkSession, tmp_path: Path) -> None:
    deliver(tmp_path, {"a.csv": b"0,1,2\n1,5,4.0\n2,5,4.0\nx,y\n"})
    names: dict[str, Any] = {"user": "0", "item": "1", "rating": "2", "timestamp": ""}
    options = Settings(raw=Raw(path=str(tmp_path), movies="", ratings="ratings"), input=Input(ids="integer", **names))
    _, table = survey(options)
    assert plain_files(table, options, Codes(), TODAY) is None
    assert facts(by_rules(spark, table, None, options))["lines"] == 3
