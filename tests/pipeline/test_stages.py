"""Each stage alone gives what the pipeline gives; and how jobs end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from spark_app.cli import run_job
from spark_app.platform.lock import holding
from tests.conftest import FEW_RATINGS
from tests.pipeline.conftest import ROOT, Submit, Zones
from tools.conf import CONF

JOB = str(ROOT / "jobs" / "pipeline.py")

Stop = Callable[["subprocess.Popen[bytes]"], None]


@pytest.fixture(scope="module")
def piped(spark: SparkSession, config: str, tmp_path_factory: pytest.TempPathFactory) -> Zones:
    """Generated ratings through the pipeline, in the session of the tests."""
    folder = tmp_path_factory.mktemp("piped")
    zones = Zones(folder / "raw", folder / "processed")
    assert run_job("pipeline", zones.options("--config", config)) == 0
    return zones


def published(zones: Zones) -> bytes:
    return (zones.processed / "recommendations" / "movie_recommendations.csv").read_bytes()


def test_raw_files_that_the_run_itself_delivered_are_among_its_inputs(piped: Zones) -> None:
    first = piped.manifests()[0]
    assert [noted["path"] for noted in first["inputs"]] == [
        str(piped.raw / "movies.csv"),
        str(piped.raw / "ratings.csv"),
    ]
    assert all(len(noted["sha256"]) == 64 for noted in first["inputs"])


def test_a_second_run_changes_no_result(piped: Zones, config: str) -> None:
    before = published(piped)
    assert run_job("pipeline", piped.options("--config", config)) == 0
    assert published(piped) == before


def test_each_stage_alone_gives_the_same_as_the_pipeline(piped: Zones, config: str, tmp_path: Path) -> None:
    apart = Zones(tmp_path / "raw", tmp_path / "processed")
    for stage in ("ingest", "catalog", "etl", "train", "recommend"):
        assert run_job(stage, apart.options("--config", config)) == 0
    ratings, model = apart.processed / "delta" / "ratings", apart.processed / "models"
    _, catalogued, _, trained, recommended = apart.manifests()
    assert [noted["path"] for noted in catalogued["inputs"]] == [
        str(apart.raw / f"{n}.csv") for n in ("movies", "ratings")
    ]
    assert {"path": str(ratings), "version": 0} in trained["inputs"]
    assert {"path": str(model / trained["run_id"])} in recommended["inputs"]
    assert (apart.raw / "ratings.csv").read_bytes() == (piped.raw / "ratings.csv").read_bytes()
    assert published(apart) == published(piped)


def test_a_model_beats_popularity_on_generated_ratings(piped: Zones) -> None:
    gate = piped.manifests()[0]["metrics"]["gate"]
    assert gate["passed"]
    assert gate["implicit"] > gate["popularity"]


def test_a_split_by_time_is_judged_too(piped: Zones, config: str) -> None:
    options = piped.options("--config", config, "--set", "train.holdout=time", "--set", "gate.enforce=false")
    assert run_job("train", options) == 0
    manifest = piped.manifests()[-1]
    assert sum(manifest["rows"]["split"].values()) == FEW_RATINGS
    assert manifest["rows"]["split"]["holdout"] == pytest.approx(0.2 * FEW_RATINGS, rel=0.05)


def test_a_failed_gate_is_exit_5_and_the_published_model_stays(
    piped: Zones, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    current = piped.processed / "models" / "current.json"
    before = current.read_bytes()
    assert run_job("train", piped.options("--config", config, "--set", "gate.min_lift=100")) == 5
    told = capsys.readouterr().err
    assert "not above 100 x" in told
    for step in ("judging the ranking: lists from 200 movies", "judging the predicted ratings", "1,000 samples of"):
        assert step in told
    assert current.read_bytes() == before
    failed = piped.manifests()[-1]
    assert failed["status"] == "failed"
    assert failed["metrics"]["gate"]["passed"] is False

    options = piped.options("--config", config, "--set", "gate.min_lift=100", "--set", "gate.enforce=false")
    assert run_job("train", options) == 0
    assert current.read_bytes() != before
    assert piped.manifests()[-1]["metrics"]["gate"]["passed"] is False


def test_users_with_too_few_ratings_get_popular_films_and_it_says_so(
    piped: Zones, config: str, spark: SparkSession
) -> None:
    options = piped.options("--config", config, "--set", "train.min_user_ratings=30", "--set", "recommend.n=3")
    # Without them the ranking is worse than the published one.
    assert run_job("train", [*options, "--set", "gate.against=popularity"]) == 0
    assert run_job("recommend", options) == 0
    ratings = spark.read.format("delta").load(str(piped.processed / "delta" / "ratings"))
    counts = {row["userId"]: row["count"] for row in ratings.groupBy("userId").count().collect()}
    rows = piped.recommendations()
    assert len(rows) == sum(min(3, 200 - count) for count in counts.values())
    for row in rows:
        assert (row["reason"] == "popular") == (counts[int(row["userId"])] < 30)


@pytest.mark.parametrize("solver", ["own", "mllib"])
def test_a_catalogue_that_runs_out_gives_fewer_films(
    zones: Zones, job: Callable[..., tuple[int, str]], solver: str
) -> None:
    movies = "movieId,title,genres\n" + "".join(f"{movie},Film {movie} (2000),Drama\n" for movie in range(1, 9))
    ratings = "userId,movieId,rating,timestamp\n" + "".join(
        f"{user},{movie},{1 + (user + movie) % 5},964982703\n"
        for user in range(1, 9)
        for movie in range(1, 8)
        if user == 1 or (user * movie) % 3
    )
    zones.deliver(movies, ratings)
    assert job("etl")[0] == 0
    code, told = job("train", "--set", "gate.enforce=false", "--set", f"train.solver={solver}")
    assert code == 0
    assert ("ALS by MLlib: rank " in told) == (solver == "mllib")
    assert job("recommend")[0] == 0
    lists: dict[str, list[tuple[str, str]]] = {}
    for row in zones.recommendations():
        lists.setdefault(row["userId"], []).append((row["movieId"], row["reason"]))
    assert lists["1"] == [("8", "all others are rated")]
    assert [movie for movie, _ in lists["2"]][-1] == "8"
    assert sorted(movie for movie, _ in lists["2"]) == ["3", "6", "8"]


def test_no_user_active_enough_is_exit_3(piped: Zones, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job("train", piped.options("--config", config, "--set", "train.min_user_ratings=100000")) == 3
    assert "no user with 100000 ratings has rated a movie with 1: lower train." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("job", "options", "code", "complaint"),
    [
        ("etl", ["--raw-pat", "x"], 2, "did you mean --raw-path?"),
        ("etl", ["--raw-path", "nowhere", "--processed-path", "out"], 3, "movies.csv is missing"),
        ("etl", ["--raw-path", "x", "--processed-path", "/proc/nope"], 7, "cannot write to the processed zone"),
    ],
)
def test_spark_submit_ends_with_the_exit_code_and_one_line(
    submit: Submit, job: str, options: list[str], code: int, complaint: str
) -> None:
    done = submit(job, *options)
    assert done.returncode == code
    errors = [line for line in done.stdout.splitlines() if " ERROR " in line]
    assert len(errors) == 1
    assert complaint in errors[0]
    assert "Traceback" not in done.stdout
    assert "\tat " not in done.stdout + done.stderr


def test_help_lists_the_options(submit: Submit) -> None:
    shown = submit("etl", "--help")
    assert shown.returncode == 0
    for option in ("--config", "--raw-path", "--processed-path", "--set"):
        assert option in shown.stdout
    assert "TempDir" not in shown.stdout


def test_a_second_run_at_once_is_exit_6_and_names_the_holder(zones: Zones, submit: Submit) -> None:
    zones.deliver()
    with holding("processed", str(zones.processed), "20260101T000000Z-beef", 60):
        done = submit("etl", *zones.options())
    assert done.returncode == 6
    assert "in use by run 20260101T000000Z-beef" in done.stdout


def test_events_are_json_lines_on_request(zones: Zones, submit: Submit) -> None:
    zones.deliver()
    done = submit("etl", *zones.options("--set", "log.format=json"))
    assert done.returncode == 0
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert {"etl: started", "ratings: 4 rows in = 4 good + 0 rejected + 0 superseded"} <= {
        event["message"] for event in events
    }


def test_spark_without_delta_is_exit_2_and_says_what_to_set(zones: Zones, tmp_path: Path) -> None:
    zones.deliver()
    done = subprocess.run(
        ["spark-submit", "--conf", "spark.ui.enabled=false", str(ROOT / "jobs" / "etl.py"), *zones.options()],
        cwd=tmp_path,
        env={**os.environ, "SPARK_CONF_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 2
    assert "set SPARK_CONF_DIR to the folder conf/local of movie-reco" in done.stdout


def test_tune_goes_on_where_it_was_and_writes_settings_that_train_takes(piped: Zones, config: str) -> None:
    small = ("--config", config, "--set", "tune.max_rank=12")
    current = (piped.processed / "models" / "current.json").read_bytes()
    assert run_job("tune", piped.options(*small, "--set", "tune.trials=1")) == 0
    assert run_job("tune", piped.options(*small, "--set", "tune.trials=3")) == 0
    first, second = (manifest["metrics"]["tuning"] for manifest in piped.manifests()[-2:])
    for objective, metric in (("ranking", "ndcg@10"), ("rating", "rmse")):
        assert second[objective]["metric"] == metric
        assert second[objective]["start"] == first[objective]["best"] == first[objective]["start"]
        assert (first[objective]["trials"], second[objective]["trials"]) == (1, 3)
    assert second["ranking"]["best"] >= first["ranking"]["best"] > 0
    assert second["rating"]["best"] <= first["rating"]["best"] < 2
    assert (piped.processed / "models" / "current.json").read_bytes() == current
    split = piped.manifests()[-1]["rows"]["validation"]
    assert sum(split.values()) == pytest.approx(0.8 * FEW_RATINGS, rel=0.05)  # the holdout is not among them
    best = piped.processed / "tuning" / "best.toml"
    assert run_job("train", piped.options("--config", str(best), "--set", "gate.enforce=false")) == 0
    assert piped.manifests()[-1]["settings"]["implicit_als"]["rank"] == second["ranking"]["implicit_als.rank"]


def by_a_terminal(running: subprocess.Popen[bytes]) -> None:
    """Ctrl-C goes to Spark and to its Python."""
    os.killpg(running.pid, signal.SIGINT)


def by_docker(running: subprocess.Popen[bytes]) -> None:
    """`docker stop` signals the first process only."""
    running.terminate()


@pytest.mark.parametrize(
    ("command", "stop", "exit_code", "how"),
    [
        (["spark-submit", "--driver-memory", "2g", JOB], by_a_terminal, 130, "interrupted by Ctrl-C"),
        (["movie-reco", "run", "--driver-memory", "2g", "pipeline"], by_docker, 143, "ended by SIGTERM"),
    ],
    ids=["Ctrl-C", "docker stop"],
)
def test_a_run_that_is_stopped_says_so_in_one_line_and_in_its_manifest(
    zones: Zones, config: str, tmp_path: Path, command: list[str], stop: Stop, exit_code: int, how: str
) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        running = subprocess.Popen(
            [*command, *zones.options("--config", config)],
            cwd=tmp_path,
            env={**os.environ, "SPARK_CONF_DIR": str(CONF / "local")},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        deadline = time.monotonic() + 200
        while b"ratings: " not in log.read_bytes() and running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        before = len(log.read_bytes())
        stop(running)
        assert running.wait(60) == exit_code
    deadline = time.monotonic() + 30
    while not zones.manifests() and time.monotonic() < deadline:
        time.sleep(0.1)  # Java may be gone first
    (manifest,) = zones.manifests()
    assert (manifest["status"], manifest["error"]) == ("interrupted", how)
    assert manifest["stages"][-1]["status"] == "interrupted"
    told = log.read_bytes()[before:].decode()
    assert told.count(f"pipeline: {how}; whatever it did not reach is unchanged") == 1
    assert not [line for line in told.splitlines() if "Traceback" in line or "\tat " in line], told
    with holding("processed", str(zones.processed), "20260101T000000Z-beef", 60):
        pass  # the lock is free
