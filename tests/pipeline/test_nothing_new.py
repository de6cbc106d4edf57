"""Where nothing is new a job ends at once and writes nothing; stage by stage gives the report of the pipeline."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from delta.tables import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_app import cli
from spark_app.zones.processed import MADE_BY, ProcessedZone
from tests.conftest import FEW
from tests.pipeline.conftest import MOVIES, RATINGS, Zones

Job = Callable[..., tuple[int, str]]
NIGHTLY = ("--set", "train.when=new")
STAGES = ("catalog", "etl", "explore", "train", "recommend")


def files(zones: Zones) -> dict[str, int]:
    """When each file of the processed zone was written, but for the manifests."""
    found = (path for path in zones.processed.rglob("*") if path.is_file() and path.parent.name != "runs")
    return {str(path): path.stat().st_mtime_ns for path in found}


def statuses(zones: Zones) -> dict[str, str]:
    """How each stage of the last run ended."""
    return {stage["stage"]: stage["status"] for stage in zones.manifests()[-1]["stages"]}


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Zones:
    """Generated ratings, delivered as files, and the settings in `few.toml`; the pipeline has run."""
    folder = tmp_path_factory.mktemp("nightly")
    made = Zones(folder / "raw", folder / "processed")
    assert cli.run_job("ingest", ["--raw-path", str(made.raw), *from_text(folder, FEW)]) == 0
    assert cli.run_job("pipeline", options(made)) == 0
    return made


def from_text(folder: Path, settings: str) -> list[str]:
    (folder / "few.toml").write_text(settings)
    (folder / "nightly.toml").write_text(settings.replace('source = ["synthetic"]', "source = []"))
    return ["--config", str(folder / "few.toml")]


def options(zones: Zones, *more: str) -> list[str]:
    return zones.options("--config", str(zones.raw.parent / "nightly.toml"), *NIGHTLY, *more)


def no_session(*_: Any, **__: Any) -> None:
    raise AssertionError("Spark was started")


def test_a_pipeline_without_anything_new_writes_only_that(few: Zones, monkeypatch: pytest.MonkeyPatch) -> None:
    before, rows = files(few), few.manifests()[-1]["rows"]["ratings"]
    with monkeypatch.context() as patched:
        patched.setattr(cli, "spark_session", no_session)
        assert cli.run_job("pipeline", options(few)) == 0
        for stage in STAGES[1:]:
            assert cli.run_job(stage, options(few)) == 0
            assert statuses(few) == {stage: "nothing new"}
    assert files(few) == before
    last = few.manifests()[-5]
    assert (last["job"], last["status"], last["seconds"] < 5) == ("pipeline", "nothing new", True)
    assert last["rows"]["ratings"] == rows
    assert cli.run_job("pipeline", options(few, "--set", "train.when=always", "--set", "recommend.reasons=0")) == 0
    expected = dict.fromkeys(("train", "recommend", "explore"), "done")
    assert expected.items() <= statuses(few).items()
    assert statuses(few)["etl"] == "nothing new"


def test_only_stages_whose_input_or_settings_changed_work(few: Zones) -> None:
    assert cli.run_job("pipeline", options(few)) == 0
    assert cli.run_job("pipeline", options(few, "--set", "recommend.n=3")) == 0
    assert {name: status for name, status in statuses(few).items() if name in STAGES[1:]} == {
        **dict.fromkeys(("etl", "explore", "train"), "nothing new"),
        "recommend": "done",
    }
    assert max(int(row["rank"]) for row in few.recommendations()) == 3
    assert cli.run_job("pipeline", options(few, "--set", "explicit_als.reg=0.9", "--set", "gate.enforce=false")) == 0
    assert (statuses(few)["etl"], statuses(few)["train"], statuses(few)["recommend"]) == ("nothing new", "done", "done")


def test_a_table_that_somebody_else_changed_is_made_again(few: Zones, spark: SparkSession) -> None:
    assert cli.run_job("pipeline", options(few)) == 0
    movies = DeltaTable.forPath(spark, str(few.processed / "delta" / "movies"))
    movies.optimize().executeCompaction()
    assert cli.run_job("pipeline", options(few)) == 0
    assert few.manifests()[-1]["status"] == "nothing new"
    movies.delete(F.col("movieId") < 5)
    assert cli.run_job("pipeline", options(few)) == 0
    assert statuses(few)["etl"] == "done"
    (few.processed / "recommendations" / "movie_recommendations.csv").unlink()
    assert cli.run_job("pipeline", options(few)) == 0
    assert statuses(few)["recommend"] == "done"


@pytest.mark.parametrize(
    "change",
    [
        lambda zones: zones.deliver(movies=MOVIES + "5,New,Drama\n"),
        lambda zones: zones.deliver(ratings=RATINGS + "2,2,1.0,964983900\n"),
        lambda zones: (zones.processed / "final" / "movies.parquet").unlink(),
        lambda zones: shutil.rmtree(zones.processed / "delta" / "movie_stats"),
    ],
)
def test_etl_works_where_a_file_or_a_result_is_another(zones: Zones, job: Job, change: Callable[[Zones], Any]) -> None:
    zones.deliver()
    assert job("etl")[0] == 0
    code, said = job("etl")
    assert (code, "etl: nothing new" in said) == (0, True)
    change(zones)
    assert "nothing new" not in job("etl")[1]
    assert "nothing new" in job("etl")[1]
    assert "nothing new" not in job("etl", "--set", "clean.damping=5")[1]
    assert "nothing new" not in job("etl", "--set", "clean.damping=5", "--set", "input.take=all")[1]


def test_every_commit_names_its_run_and_lists_say_who_made_them(few: Zones, spark: SparkSession) -> None:
    runs = {manifest["run_id"] for manifest in few.manifests()}
    zone = ProcessedZone(str(few.processed))
    made = [name for name in MADE_BY if zone.has_table(name)]
    assert set(MADE_BY) - set(made) == {"user_ids", "movie_ids", "unrated"}  # ids are integers, and all is rated
    for name in made:
        for commit in DeltaTable.forPath(spark, zone.table(name)).history().collect():
            is_ours = commit.operation not in ("OPTIMIZE", "DELETE")  # those of the tests
            found = re.search(r'"run_id": "([^"]*)"', commit.userMetadata or "")
            assert (found is not None and found[1] in runs) == is_ours, (name, commit.operation, commit.userMetadata)
    last = max(manifest["run_id"] for manifest in few.manifests() if {"recommend", "done"} <= set(worked(manifest)))
    (row,) = zone.read(spark, "recommendations").select("run_id", "recommended_at").distinct().collect()
    assert row.run_id == last
    assert f"{row.recommended_at:%Y%m%dT%H%M%SZ}" == last.partition("-")[0]


def worked(manifest: dict[str, Any]) -> list[str]:
    """The stages of a run that did their work, and `done`."""
    return [stage["stage"] for stage in manifest["stages"] if stage["status"] == "done"] + [manifest["status"]]


def test_stage_by_stage_the_last_stage_leaves_the_report_of_the_pipeline(few: Zones) -> None:
    piped, apart = (Zones(few.raw, few.processed.with_name(name)) for name in ("piped", "apart"))
    for zones in (piped, apart):  # so that there is a run before to compare with
        assert cli.run_job("pipeline", options(zones, "--set", "train.k=5")) == 0
    again = ("--set", "train.when=always", "--set", "clean.damping=5")
    assert cli.run_job("pipeline", options(piped, *again)) == 0
    for stage in STAGES:
        assert cli.run_job(stage, options(apart, *again)) == 0
    texts = [report(zones) for zones in (piped, apart)]
    assert "cannot be compared" in texts[0]
    assert "train.k 5 10" in texts[0]
    assert texts[0] == texts[1]


def report(zones: Zones) -> str:
    """The text of the last report, without what differs from run to run: ids, times, paths and seconds."""
    manifest = zones.manifests()[-1]
    html = (zones.processed / "reports" / f"{manifest['run_id']}.html").read_text(encoding="utf-8")
    text = " ".join(re.sub(r"<style>.*?</style>|<svg.*?</svg>|<[^>]*>", " ", html, flags=re.DOTALL).split())
    text = text.rpartition(" This run ")[0]
    for changing in (r"\d{8}T\d{6}Z-[0-9a-f]{4}", r"movie-reco · (pipeline|recommend)", r"\d\d:\d\d UTC"):
        text = re.sub(changing, "-", text)
    return text
