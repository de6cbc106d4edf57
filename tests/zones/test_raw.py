from __future__ import annotations

import gzip
import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from functools import reduce
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.data.clean import checked_movies, checked_ratings, rejected
from spark_app.data.contract import INTEGER, NUMBER, TEXT
from spark_app.data.ids import Codes
from spark_app.platform.errors import InputError
from spark_app.platform.settings import Clean, Input, Raw, Settings
from spark_app.zones.manifest import RunRecord
from spark_app.zones.raw import RawTable, find_files, note_inputs, read_fields, survey

MOVIES = b"movieId,title,genres\n1,Heat (1995),Action\n"
RATINGS = b"userId,movieId,rating,timestamp\n1,1,4.0,1000000000\n"
HEADER = b"userId,movieId,rating,timestamp\n"
TODAY = date(2025, 6, 1)


def raw_zone(root: Path, files: dict[str, bytes]) -> Raw:
    """A raw zone with a good movies.csv and the given files."""
    for name, content in {"movies.csv": MOVIES, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return Raw(path=str(root))


def ratings_table(raw: Raw) -> RawTable:
    return survey(Settings(raw=raw))[1]


def movies_table(raw: Raw) -> RawTable:
    movies = survey(Settings(raw=raw))[0]
    assert movies
    return movies


def names(table: RawTable) -> list[str]:
    return [Path(file.path).name for file in table.files]


def error_of(raw: Raw) -> str:
    with pytest.raises(InputError) as caught:
        survey(Settings(raw=raw))
    return str(caught.value)


def checked(spark: SparkSession, table: RawTable) -> DataFrame:
    movies = spark.createDataFrame([(1,), (2,)], "movieId int")
    return checked_ratings(read_fields(spark, table), movies, Input(), Clean(), TODAY, Codes())


def ratings_in(spark: SparkSession, table: RawTable) -> list[tuple[int, int, float, int]]:
    """The rows that are kept; all other rows must be headers."""
    rows = checked(spark, table).withColumn("second", F.col("timestamp").cast("long")).collect()
    assert {row["status"] for row in rows} <= {"kept", "header"}
    kept = [(r["userId"], r["movieId"], r["rating"], r["second"]) for r in rows if r["status"] == "kept"]
    return sorted(kept)


def test_survey_gives_the_files_with_their_columns(tmp_path: Path) -> None:
    raw = raw_zone(tmp_path, {"ratings.csv": RATINGS})
    movies, ratings = movies_table(raw), ratings_table(raw)
    assert (movies.location, names(movies)) == (f"{tmp_path}/movies.csv", ["movies.csv"])
    assert movies.files[0].columns == ("movieId", "title", "genres")
    assert movies.files[0].types == (INTEGER, TEXT, TEXT)
    assert ratings.files[0].header == "userId,movieId,rating,timestamp"
    assert ratings.files[0].types == (INTEGER, INTEGER, NUMBER, INTEGER)


def test_missing_file_names_the_stage_that_makes_it(tmp_path: Path) -> None:
    assert error_of(raw_zone(tmp_path, {})) == (
        f"{tmp_path}/ratings.csv is missing: check --raw-path, or run the stage 'ingest' first"
    )


def test_missing_raw_path_is_named(tmp_path: Path) -> None:
    assert error_of(Raw(path=f"{tmp_path}/gone")) == (
        f"{tmp_path}/gone/movies.csv is missing: check --raw-path, or run the stage 'ingest' first"
    )


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\n\r\n\n"])
def test_empty_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    assert error_of(raw_zone(tmp_path, {"ratings.csv": content})) == (
        f"{tmp_path}/ratings.csv is empty: expected the header userId,movieId,rating,timestamp and rows"
    )


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n\n", b"\r\n\r\n"])
def test_header_without_rows_is_an_error(tmp_path: Path, end: bytes) -> None:
    assert error_of(raw_zone(tmp_path, {"ratings.csv": HEADER.strip() + end})) == (
        f"{tmp_path}/ratings.csv has a header and no rows: deliver the data and run again"
    )


def test_header_and_types_are_held_against_the_contract_naming_the_file(tmp_path: Path) -> None:
    renamed = raw_zone(
        tmp_path / "a", {"ratings/1.csv": RATINGS, "ratings/2.csv": RATINGS.replace(b"rating,", b"stars,")}
    )
    assert error_of(renamed) == (
        f"{tmp_path}/a/ratings/2.csv: column 'rating' is missing: "
        "expected userId,movieId,rating,timestamp, found userId,movieId,stars,timestamp; "
        "set the names of the columns under [input]"
    )
    swapped = raw_zone(tmp_path / "b", {"ratings.csv": HEADER + b"1,1,1000000000,4.5\n"})
    assert error_of(swapped) == (
        f"{tmp_path}/b/ratings.csv: column 'timestamp' should be a time (a number since 1970 or ISO 8601) "
        "but most of its values are DOUBLE: "
        "check that the values stand under their own header"
    )
    headless = raw_zone(tmp_path / "c", {"ratings.csv": b"1,1,4.0,1000000000\n2,1,4.0,1000000000\n"})
    assert error_of(headless) == (
        f"{tmp_path}/c/ratings.csv: the first line is not a header: "
        "expected userId,movieId,rating,timestamp, found 1,1,4.0,1000000000; "
        "if the file has no header, set ratings_file.header = false and name its columns in ratings_file.columns"
    )


@pytest.mark.parametrize(
    ("configured", "files", "found"),
    [
        ("ratings.csv", ["ratings.csv"], "ratings.csv"),
        ("ratings.csv", ["ratings.csv.gz"], "ratings.csv.gz"),
        ("ratings.csv", ["ratings/part-0.csv"], "ratings"),
        ("ratings.csv", ["ratings.csv/part-0.csv"], "ratings.csv"),
        ("ratings", ["ratings/part-0.csv"], "ratings"),
        ("ratings-*.csv", ["ratings-1.csv", "ratings-2.csv"], "ratings-*.csv"),
        ("ratings-*", ["ratings-1.csv", "ratings-2.csv.gz"], "ratings-*"),
        ("*/ratings.csv", ["2024/ratings.csv", "2025/ratings.csv"], "*/ratings.csv"),
        ("ratings-*.csv", ["ratings-1.csv.gz"], "ratings-*.csv.gz"),
        ("ratings.csv", ["_ratings/part-0.csv"], None),
    ],
)
def test_location_is_a_file_a_folder_or_a_glob(
    tmp_path: Path, configured: str, files: list[str], found: str | None
) -> None:
    raw = raw_zone(tmp_path, dict.fromkeys(files, RATINGS))
    name, paths = find_files(raw, configured)
    assert (name if paths else None) == found


@pytest.mark.parametrize(("other", "name"), [("ratings.csv.gz", "ratings.csv.gz"), ("ratings/part-0.csv", "ratings")])
def test_two_deliveries_of_one_table_are_an_error(tmp_path: Path, other: str, name: str) -> None:
    raw = raw_zone(tmp_path, {"ratings.csv": RATINGS, other: gzip.compress(RATINGS)})
    assert error_of(raw) == f"{tmp_path} holds both ratings.csv and {name}: remove one of them"


def test_part_files_are_read_together_the_empty_ones_passed_over(tmp_path: Path) -> None:
    parts = {"part-0.csv": RATINGS, "part-1.csv": b"", "part-2.csv": HEADER, "_SUCCESS": b"", ".part-0.csv.crc": b"x"}
    table = ratings_table(raw_zone(tmp_path, {f"ratings/{name}": content for name, content in parts.items()}))
    assert (table.location, names(table)) == (f"{tmp_path}/ratings", ["part-0.csv", "part-2.csv"])


def test_reading_minds_neither_line_ends_nor_byte_order_mark_nor_gzip_nor_order_of_columns(
    spark: SparkSession, tmp_path: Path
) -> None:
    mark = b"\xef\xbb\xbf"
    parts = {
        "1.csv": mark + b"userId,movieId,rating,timestamp\r\n1,1,4.0,1000000001\r\n\r\n",
        "2.csv.gz": gzip.compress(mark + b"userId,movieId,rating,timestamp\n2,1,3.5,1000000002"),
        "3.csv": b"rating,timestamp,userId,movieId\n3.0,1000000003,3,2\n",
        "4.csv": b'"note","userId","movieId","rating","timestamp"\n"a, b","4","2","0.5","1000000004"\n',
        "5.csv": b"\r\nuserId,movieId,rating,timestamp\r\n5,1,5.0,1000000005\r\n",
        "6.csv": b"userId,movieId,rating,timestamp\r6,1,5.0,1000000006\r",
        "7.csv": b"",
    }
    raw = raw_zone(tmp_path, {f"ratings/{name}": content for name, content in parts.items()})
    assert ratings_in(spark, ratings_table(raw)) == [
        (1, 1, 4.0, 1_000_000_001),
        (2, 1, 3.5, 1_000_000_002),
        (3, 2, 3.0, 1_000_000_003),
        (4, 2, 0.5, 1_000_000_004),
        (5, 1, 5.0, 1_000_000_005),
        (6, 1, 5.0, 1_000_000_006),
    ]


def test_header_that_is_no_utf8_is_an_error(tmp_path: Path) -> None:
    raw = raw_zone(tmp_path, {"ratings.csv": b"userId,movieId,rating,timestamp,caf\xe9\n1,1,4.0,1000000000,x\n"})
    assert error_of(raw) == (
        f"{tmp_path}/ratings.csv: the first line is not UTF-8: name the encoding in ratings_file.encoding"
    )


@pytest.mark.parametrize("name", ["_ratings.csv", ".ratings.csv", "a:b.csv"])
def test_file_that_spark_would_pass_over_is_refused(tmp_path: Path, name: str) -> None:
    raw = raw_zone(tmp_path, {name: RATINGS}).model_copy(update={"ratings": name})
    assert error_of(raw) == (
        f"{tmp_path}/{name}: Spark does not read names that begin with _ or . or contain a colon: rename it"
    )


def test_lines_are_held_against_the_width_of_their_own_file(spark: SparkSession, tmp_path: Path) -> None:
    parts = {
        "ratings/1.csv": RATINGS + b"1,2\n",
        "ratings/2.csv": b"userId,movieId,rating,timestamp,note\n2,1,4.0,1000000000,x\n2,2,4.0,1000000000\n",
    }
    rejects = rejected(checked(spark, ratings_table(raw_zone(tmp_path, parts)))).collect()
    assert {(row["raw"], row["reason"]) for row in rejects} == {
        ("1,2", "the line has too few or too many fields"),
        ("2,2,4.0,1000000000", "the line has too few or too many fields"),
    }


def test_the_movie_delivered_last_is_kept_over_files_and_lines(spark: SparkSession, tmp_path: Path) -> None:
    files = {
        "movies/1.csv": b"movieId,title,genres\n1,First (1990),Drama\n2,Alone (1990),Drama\n1,Second (1991),Drama\n",
        "movies/2.csv": b"title,movieId,genres\nThird (1992),1,Drama\nFourth (1993),1,Drama\n",
    }
    raw = raw_zone(tmp_path, {"ratings.csv": RATINGS, **files})
    (tmp_path / "movies.csv").unlink()
    rows = checked_movies(read_fields(spark, movies_table(raw)), Input(), Codes()).collect()
    assert {row["title"] for row in rows if row["status"] == "kept"} == {"Fourth (1993)", "Alone (1990)"}
    assert Counter(row["status"] for row in rows) == {"header": 2, "kept": 2, "superseded": 3}


def test_paths_with_any_characters_are_read_and_named_in_rejects(spark: SparkSession, tmp_path: Path) -> None:
    folders = ["a=1 50%20 50% c+d#e,f", "[old] {x,y}", "what? five* \\", "\u96fb\u5f71 \u00e9"]
    bad_line = b"1,1,9.0,1000000000\n"
    roots = [tmp_path / folder for folder in folders]
    raws = [raw_zone(root, {"ratings.csv": RATINGS + bad_line}) for root in roots]
    tables = [ratings_table(raw) for raw in raws]
    both = reduce(DataFrame.union, (checked(spark, table).select("status", "file", "raw") for table in tables))
    rows = both.collect()
    assert Counter(row["status"] for row in rows) == dict.fromkeys(("header", "kept", "rejected"), len(folders))
    found = {row["file"] for row in rows if row["status"] == "rejected"}
    assert found == {f"{root}/ratings.csv" for root in roots}


@pytest.mark.parametrize("folder", ["raw [old]", "what?", "five *"])
def test_folders_and_globs_under_a_root_that_looks_like_a_glob(tmp_path: Path, folder: str) -> None:
    root = tmp_path / folder
    raw = raw_zone(root, {"ratings/part-0.csv": RATINGS})
    assert names(ratings_table(raw)) == ["part-0.csv"]
    by_glob = raw.model_copy(update={"ratings": "ratings/part-*"})
    assert names(ratings_table(by_glob)) == ["part-0.csv"]


def test_files_are_described_for_the_manifest(tmp_path: Path) -> None:
    raw = raw_zone(tmp_path, {"ratings/1.csv": RATINGS, "ratings/2.csv": RATINGS})
    tables = movies_table(raw), ratings_table(raw)
    run = RunRecord("etl", Settings())
    note_inputs(run, *tables)
    note_inputs(run, *tables)
    facts = [(Path(noted["path"]).name, noted["bytes"]) for noted in run.inputs]
    assert facts == [("movies.csv", len(MOVIES)), ("1.csv", len(RATINGS)), ("2.csv", len(RATINGS))]
    assert run.inputs[0]["sha256"] == hashlib.sha256(MOVIES).hexdigest()


def test_truncated_gzip_is_an_error_of_the_survey_or_the_description(tmp_path: Path) -> None:
    short = raw_zone(tmp_path / "short", {"ratings.csv.gz": gzip.compress(RATINGS)[:-12]})
    assert error_of(short) == (
        f"{tmp_path}/short/ratings.csv.gz is truncated or damaged "
        "(Compressed file ended before the end-of-stream marker was reached); deliver the file again"
    )
    lines = b"".join(b"%d,1,4.0,%d\n" % (user, 1_000_000_000 + user * user) for user in range(1, 200_000))
    long = raw_zone(tmp_path / "long", {"ratings.csv.gz": gzip.compress(HEADER + lines)[:-12]})
    with pytest.raises(InputError) as caught:
        note_inputs(RunRecord("etl", Settings()), None, ratings_table(long))
    assert str(caught.value) == (
        f"{tmp_path}/long/ratings.csv.gz is truncated or damaged "
        "(Compressed file ended before the end-of-stream marker was reached); deliver the file again"
    )


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Make a file or folder unreadable, and drop the rights of root, who may read anything."""
    path.chmod(0o000)
    privileged = os.geteuid() == 0
    try:
        if privileged:
            os.seteuid(65534)
        yield
    finally:
        if privileged:
            os.seteuid(0)
        path.chmod(0o755)


@pytest.mark.parametrize("place", ["", "ratings", "ratings/part-0.csv"])
def test_what_may_not_be_read_is_an_input_error_that_says_so(place: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        raw = raw_zone(root, {"ratings/part-0.csv": RATINGS})
        with unreadable(root / place):
            message = error_of(raw)
    assert message.startswith("cannot read ")
    assert "Permission denied" in message
