"""Errors name what is wrong with an input, and no data is lost."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from spark_app.cli import run_job
from tests.pipeline.conftest import MOVIES, RATINGS, Zones

Job = Callable[..., tuple[int, str]]
HEADER = "userId,movieId,rating,timestamp\n"


def ratings_of(spark: SparkSession, zones: Zones) -> list[tuple[int, int, float]]:
    table = spark.read.format("delta").load(str(zones.processed / "delta" / "ratings"))
    return [tuple(row) for row in table.select("userId", "movieId", "rating").orderBy("userId", "movieId").collect()]


def rejects_of(spark: SparkSession, zones: Zones) -> list[tuple[str, str, str]]:
    table = spark.read.format("delta").load(str(zones.processed / "delta" / "rejects"))
    return sorted((row["file"], row["raw"], row["reason"]) for row in table.collect())


GOOD = [(1, 1, 4.0), (1, 2, 3.5), (2, 1, 5.0), (2, 3, 0.5)]


@pytest.mark.parametrize(
    ("ratings", "complaint"),
    [
        pytest.param(RATINGS.removeprefix(HEADER), "the first line is not a header", id="header missing"),
        pytest.param(
            RATINGS.replace("movieId", "movie_id"), "column 'movieId' is missing (renamed to 'movie_id'?)", id="renamed"
        ),
        pytest.param(
            HEADER + "1,1,964982703,4.0\n" * 3, "column 'timestamp' should be a time (a number since 1970 or ISO 8601)",
            id="values under the wrong header",
        ),
        pytest.param("", "ratings.csv is empty", id="empty file"),
        pytest.param(HEADER, "has a header and no rows", id="header only"),
        pytest.param("user".encode("utf-16"), "the first line is not a header", id="UTF-16"),
        pytest.param(b"\xfaserId,movieId\n", "the first line is not UTF-8", id="another encoding"),
    ],
)  # fmt: skip
def test_a_broken_contract_is_exit_3_and_nothing_is_written(
    job: Job, zones: Zones, ratings: str | bytes, complaint: str
) -> None:
    zones.deliver(ratings=ratings)
    code, said = job("etl")
    assert code == 3
    assert complaint in said
    assert "ratings.csv" in said
    assert "Traceback" not in said
    assert not (zones.processed / "delta").exists()


def test_the_crawler_holds_the_same_contract(job: Job, zones: Zones) -> None:
    zones.deliver(movies=MOVIES.replace("genres", "kinds", 1))
    code, said = job("catalog")
    assert code == 3
    assert "movies.csv: column 'genres' is missing" in said


@pytest.mark.parametrize(
    "ratings",
    [
        pytest.param(
            "timestamp,rating,movieId,userId\n964982703,4.0,1,1\n964981247,3.5,2,1\n964982224,5.0,1,2\n964983815,0.5,3,2\n",
            id="reordered columns",
        ),
        pytest.param(
            "userId,movieId,device,rating,timestamp\n1,1,tv,4.0,964982703\n1,2,,3.5,964981247\n"
            '2,1,"a,b",5.0,964982224\n2,3,tv,0.5,964983815\n',
            id="extra column",
        ),
        pytest.param(b"\xef\xbb\xbf" + RATINGS.replace("\n", "\r\n").encode(), id="CRLF and byte order mark"),
        pytest.param(RATINGS.rstrip("\n") + "\n\n\n", id="blank lines at the end"),
    ],
)
def test_harmless_differences_change_nothing(job: Job, zones: Zones, spark: SparkSession, ratings: str | bytes) -> None:
    zones.deliver(ratings=ratings)
    assert job("etl")[0] == 0
    assert ratings_of(spark, zones) == GOOD
    assert zones.manifests()[-1]["rows"]["ratings"] == {"in": 4, "good": 4, "rejected": 0, "superseded": 0}


def test_a_folder_of_parts_with_different_headers_and_gzip(job: Job, zones: Zones, spark: SparkSession) -> None:
    zones.deliver()
    (zones.raw / "ratings.csv").unlink()
    parts = zones.raw / "ratings"
    parts.mkdir()
    (parts / "part-1.csv").write_text(HEADER + "1,1,4.0,964982703\n1,2,3.5,964981247\n")
    (parts / "part-2.csv.gz").write_bytes(
        gzip.compress(b"movieId,userId,timestamp,rating\n1,2,964982224,5.0\n3,2,964983815,0.5\n")
    )
    (parts / "part-3.csv").write_text("")
    (parts / "_SUCCESS").write_text("")
    code, said = job("etl")
    assert code == 0
    assert ratings_of(spark, zones) == GOOD
    assert "part-3.csv is empty and is skipped" in said


def test_a_truncated_gzip_is_exit_3(job: Job, zones: Zones) -> None:
    zones.deliver()
    (zones.raw / "ratings.csv").unlink()
    whole = gzip.compress((HEADER + "".join(f"1,{movie},4.0,964982703\n" for movie in range(9999))).encode())
    (zones.raw / "ratings.csv.gz").write_bytes(whole[: len(whole) // 2])
    code, said = job("etl")
    assert code == 3
    assert "ratings.csv.gz is truncated or damaged" in said


def test_every_bad_row_is_kept_with_its_text_and_reason(job: Job, zones: Zones, spark: SparkSession) -> None:
    bad = {
        b"1,1,5.5,964982703": "rating is not on the scale 0.5 to 5 by 0.5",
        b"1,1,0.3,964982703": "rating is not on the scale 0.5 to 5 by 0.5",
        b"1,1,NaN,964982703": "rating is not on the scale 0.5 to 5 by 0.5",
        b"1,1,,964982703": "rating is not on the scale 0.5 to 5 by 0.5",
        b"2147483648,1,4.0,964982703": "userId is not an integer from 0 to 2147483647",
        b"1,x,4.0,964982703": "movieId is not an integer from 0 to 2147483647",
        b"1,99,4.0,964982703": "movieId is not in the movies table",
        b"1,1,4.0,96498270300": None,
        b'1,"1,4.0,964982703': "a quote is unbalanced or out of place",
        b"1,1,4.0": "the line has too few or too many fields",
        b"1,1,4.0,964982703,9": "the line has too few or too many fields",
        b"1,1,4.0,\xff": "the line is not in the encoding of its file (UTF-8 unless set)",
        HEADER.strip().encode(): "the header line is repeated",
    }
    kept = b"2147483647,4,4.0,964982703\n"
    zones.deliver(ratings=RATINGS.encode() + kept + b"\n".join(bad))
    assert job("etl", "--set", "clean.max_reject_share=1", "--set", "input.ids=integer")[0] == 0

    assert ratings_of(spark, zones) == [*GOOD, (2147483647, 4, 4.0)]
    found = {raw: reason for _, raw, reason in rejects_of(spark, zones)}
    for line, reason in bad.items():
        text = line.decode(errors="replace")
        assert found[text] == reason if reason else found[text].startswith("timestamp is not a time from 1990-01-01")
    assert {file for file, _, _ in rejects_of(spark, zones)} == {str(zones.raw / "ratings.csv")}
    assert zones.manifests()[-1]["rows"]["ratings"] == {"in": 18, "good": 5, "rejected": 13, "superseded": 0}


def test_rated_twice_and_listed_twice_the_latest_counts(job: Job, zones: Zones, spark: SparkSession) -> None:
    zones.deliver(
        movies=MOVIES + "1,Toy Story: Special Edition (1995),Animation\n",
        ratings=RATINGS + "1,1,1.5,964982704\n1,1,5.0,964982702\n",
    )
    assert job("etl")[0] == 0
    assert ratings_of(spark, zones) == [(1, 1, 1.5), *GOOD[1:]]
    final = spark.read.parquet(str(zones.processed / "final")).orderBy("movieId").collect()
    assert [(row.movieId, row.title, row.rating_count, row.average_rating) for row in final] == [
        (1, "Toy Story: Special Edition (1995)", 2, 3.25),
        (2, "American President, The (1995)", 1, 3.5),
        (3, '"Great Performances" Cats (1998)', 1, 0.5),
        (4, "Nothing Sacred", 0, None),
    ]
    rows = zones.manifests()[-1]["rows"]
    assert rows["ratings"] == {"in": 6, "good": 4, "rejected": 0, "superseded": 2}
    assert rows["movies"] == {"in": 5, "good": 4, "rejected": 0, "superseded": 1}


def test_all_rows_bad_is_exit_4_and_what_was_published_stays(job: Job, zones: Zones, spark: SparkSession) -> None:
    zones.deliver()
    assert job("etl")[0] == 0
    before = (zones.processed / "final" / "movies.parquet").read_bytes()

    zones.deliver(ratings=HEADER + "1,1,9.9,964982703\n" * 3)
    code, said = job("etl")
    assert code == 4
    assert "3 of 3 rows of ratings (100.0%) were rejected" in said
    assert "most often: rating is not on the scale 0.5 to 5 by 0.5" in said
    assert ratings_of(spark, zones) == GOOD
    assert (zones.processed / "final" / "movies.parquet").read_bytes() == before
    assert len(rejects_of(spark, zones)) == 3
    assert [manifest["status"] for manifest in zones.manifests()] == ["done", "failed"]


@pytest.mark.parametrize("ids", [range(100, 300), [f"0-{book}" for book in range(200)]], ids=["integers", "codes"])
def test_good_ratings_that_are_lost_with_the_line_of_their_movie_are_exit_4(
    job: Job, zones: Zones, ids: Sequence[int | str]
) -> None:
    lines = [f"{movie},Title,Drama" for movie in ids[1:]] + [rf'{ids[0]},"\"A\" is for B",X']
    ratings = [f"{user},{movie},4.0,964982703" for user, movie in enumerate([*ids, ids[0]])]
    zones.deliver("\n".join(["movieId,title,genres", *lines, ""]), HEADER + "\n".join([*ratings, ""]))
    code, said = job("etl", "--set", "clean.max_reject_share=0.5")
    assert code == 4
    assert "2 of 201 rows of ratings (1.0%) are good but for their movie" in said
    assert (
        "the line of this movieId in the movies was rejected: a quote is unbalanced or out of place (quote and" in said
    )
    code, said = job("etl", "--set", "clean.max_lost_share=0.01")
    assert code == 0
    assert zones.manifests()[-1]["rows"]["ratings"] == {"in": 201, "good": 199, "rejected": 2, "superseded": 0}

    zones.deliver(
        "\n".join(["movieId,title,genres", *lines[:-1], f"{ids[0]},A,X", ""]), (zones.raw / "ratings.csv").read_bytes()
    )
    code, said = job("etl", "--set", "clean.max_lost_share=0.01")
    assert "all files are read again, since ratings were rejected for movies that were not listed" in said
    assert zones.manifests()[-1]["rows"]["ratings"] == {"in": 201, "good": 201, "rejected": 0, "superseded": 0}


def test_a_missing_raw_path_is_exit_3_and_names_ingest(job: Job) -> None:
    code, said = job("etl")
    assert code == 3
    assert "movies.csv is missing: check --raw-path, or run the stage 'ingest' first" in said


def test_an_unreadable_raw_file_is_exit_3(job: Job, zones: Zones) -> None:
    zones.deliver()
    zones.processed.mkdir()
    (zones.raw / "ratings.csv").chmod(0)
    is_root = os.geteuid() == 0
    if is_root:  # root may read anything, so the job runs as another user
        for folder in (zones.processed, *zones.processed.parents[:4]):
            folder.chmod(0o777)
        os.seteuid(65534)
    try:
        code, said = job("etl")
    finally:
        if is_root:
            os.seteuid(0)
    assert code == 3
    assert f"cannot read {zones.raw / 'ratings.csv'}: Permission denied" in said


def test_a_processed_path_that_cannot_be_written_is_exit_7(job: Job, zones: Zones) -> None:
    zones.deliver()
    zones.processed.write_text("a file where a folder should be")
    code, said = job("etl")
    assert code == 7
    assert f"cannot write to the processed zone {zones.processed}" in said


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--raw-pth", "x"], "unknown option --raw-pth; did you mean --raw-path?"),
        (["--set", "gate.enforced=false"], "unknown setting gate.enforced; did you mean gate.enforce?"),
        (["--set", "recommend.n=many"], "setting recommend.n: "),
        (["--set", "nonsense"], "--set takes SECTION.KEY=VALUE"),
        (["--config", "no-such-file.toml"], "cannot read the --config file no-such-file.toml"),
        (["--config", "gs://bucket/my.toml"], "gs://bucket/my.toml: give a path, or a URI in S3 (s3://BUCKET/PREFIX)"),
        (["extra"], "unexpected argument 'extra'"),
        (["true"], "unexpected argument 'true'"),
    ],
)
def test_mistyped_options_are_exit_2(job: Job, options: list[str], complaint: str) -> None:
    code, said = job("etl", *options)
    assert code == 2
    assert complaint in said


def test_arguments_of_glue_are_accepted_and_ignored(job: Job, zones: Zones) -> None:
    code, said = job(
        "train",
        *("--JOB_NAME", "reco", "--TempDir", "s3://x/y", "--WORKFLOW_NAME", "nightly", "--conf", "a=b --conf c=d"),
        *("--enable-metrics", "true", "--enable-auto-scaling", "--continuous-log-logGroup", "/aws/x"),
        *("--enable-glue-datacatalog=true", "--enable-spark-ui", "", "--custom-logGroup-prefix", "/reco"),
        *("--additional-python-modules", "s3://x/requirements.txt", "--python-modules-installer-option", "-r"),
        *("true", "--job-bookmark-option", "job-bookmark-disable", "--of-a-later-glue", "x", "true"),
    )
    assert code == 3
    assert f"{zones.processed}/delta/ratings is missing: run the stage 'etl' first" in said


@pytest.mark.parametrize(
    ("mistyped", "meant"),
    [
        *(("--raw_pat", "--raw-path"), ("--RAW_PATH", "--raw-path"), ("--raw", "--raw-path")),
        *(("--SET", "--set"), ("-set", "--set"), ("--settings", "--set"), ("--configuration", "--config")),
    ],
)
def test_one_of_our_options_that_is_mistyped_on_glue_is_exit_2(job: Job, mistyped: str, meant: str) -> None:
    code, said = job("train", "--JOB_NAME", "reco", "true", mistyped, "x", "--conf", "a=b")
    assert code == 2
    assert f"unknown option {mistyped}; did you mean {meant}?" in said


def test_underscores_are_as_good_as_hyphens(spark: SparkSession, zones: Zones, tmp_path: Path) -> None:
    zones.deliver()
    assert run_job("etl", ["--raw_path", str(zones.raw), "--processed_path", str(tmp_path / "other")]) == 0
    assert (tmp_path / "other" / "final" / "movies.parquet").exists()


def test_a_stage_without_its_input_names_the_stage_that_makes_it(job: Job, zones: Zones) -> None:
    zones.deliver()
    assert "delta/ratings is missing: run the stage 'etl' first" in job("recommend")[1]
    assert job("etl")[0] == 0
    code, said = job("recommend")
    assert code == 3
    assert "models/current.json is missing: run the stage 'train' first" in said


@pytest.mark.parametrize("stage", ["explore", "train", "recommend", "tune", "maintain"])
def test_a_mistyped_processed_path_leaves_nothing_behind(job: Job, zones: Zones, stage: str) -> None:
    code, said = job(stage)
    assert code == 3
    assert f"{zones.processed}/delta/ratings is missing: run the stage 'etl' first, or correct --processed-path" in said
    assert not zones.processed.exists()
    zones.processed.mkdir()
    assert job(stage)[0] == 3
    assert not list(zones.processed.iterdir())
