"""The benchmark of scale: peers get our results, and what it writes. DuckDB and Polars are tested if installed."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from benchmarks import scale_data
from benchmarks.measure import CommandError, measure
from benchmarks.scale import Bench, DisagreementError, check_agreement, parts_to_run, read_results, write_results
from benchmarks.scale_data import BREAKS, DELIVERIES, LATER, ODD, Scale, deliver_later
from benchmarks.scale_peers import COMMANDS, Places
from benchmarks.scale_results import as_times, merged, ratios_line
from benchmarks.scale_rules import DAMPING, HEADER, LATEST, Judged, judge, judge_all
from spark_app.cli import run_job

TINY = Scale("tiny", 60, 150, 4_000)


@pytest.fixture(scope="module")
def cleaned(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[Places, dict[str, Any]]:
    """The zones and the manifest of `etl` on 4,000 ratings; a second delivery repeats a tenth and breaks a tenth."""
    folder = tmp_path_factory.mktemp("scale")
    places = Places(folder / "raw", folder / "processed", folder / "out")
    assert run_job("ingest", ["--raw-path", str(places.raw), *TINY.options]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scale_data, "REPEATED", 0.1)
        patch.setattr(scale_data, "BROKEN", 0.1)
        deliver_later(places.raw)
    settings = {
        "raw.ratings": DELIVERIES,
        "clean.latest": LATEST,
        "clean.max_reject_share": "0.5",
        "input.ids": "integer",
    }
    options = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    assert run_job("etl", ["--raw-path", str(places.raw), "--processed-path", str(places.processed), *options]) == 0
    (manifest,) = (places.processed / "runs").glob("*.json")
    return places, json.loads(manifest.read_text())


def etl_python(raw: Path, out: Path) -> dict[str, Any]:
    """The work of `etl` line by line in Python: a check of the rules that the peers share, without the peers."""
    movies = {int(line.split(",")[0]) for line in (raw / "movies.csv").read_text().splitlines()[1:]}
    files = sorted(raw.glob(DELIVERIES))
    judged = judge_all(((str(file), line) for file in files for line in file.read_bytes().split(b"\n") if line), movies)
    latest: dict[tuple[int, int], tuple[int, float]] = {}
    for user, movie, stars, second in judged.good:
        latest[user, movie] = max(latest.get((user, movie), (0, 0.0)), (second, stars))
    mean = sum(stars for _, stars in latest.values()) / len(latest)
    rows = []
    for movie in sorted(movies):
        given = [rating for (_, rated), (_, rating) in latest.items() if rated == movie]
        average = sum(given) / len(given) if given else None
        rows.append((movie, len(given), average, (sum(given) + DAMPING * mean) / (len(given) + DAMPING)))
    out.mkdir()
    names = ["movieId", "rating_count", "average_rating", "damped_rating"]
    pq.write_table(pa.table(list(zip(*rows, strict=True)), names=names), out / "final.parquet")
    rejects = list(zip(*judged.rejects, strict=True))
    pq.write_table(pa.table(rejects, names=["file", "raw", "reason"]), out / "rejects.parquet")
    rejected, good = len(judged.rejects), len(judged.good)
    counts = {"in": good + rejected, "good": len(latest), "rejected": rejected, "superseded": good - len(latest)}
    return {"rows": counts, "rejects": judged.reasons}


def test_the_rules_that_peers_share_are_those_of_etl(cleaned: tuple[Places, dict[str, Any]], tmp_path: Path) -> None:
    places, manifest = cleaned
    found = etl_python(places.raw, tmp_path / "python")
    check_agreement("Python", tmp_path / "python", found, places.processed, manifest)
    # Every rule rejected a line, and the de-duplication dropped rows.
    assert len(found["rejects"]) == 9
    assert found["rows"]["superseded"] > 300


@pytest.mark.parametrize("peer", ["duckdb", "polars"])
def test_a_peer_gets_the_results_of_etl(cleaned: tuple[Places, dict[str, Any]], peer: str, tmp_path: Path) -> None:
    pytest.importorskip(peer)
    places, manifest = cleaned
    found = COMMANDS[f"etl-{peer}"](Places(places.raw, places.processed, tmp_path))
    check_agreement(peer, tmp_path, found, places.processed, manifest)
    ratings = pq.read_table(tmp_path / "ratings.parquet")
    ours = DeltaTable(places.zone.table("ratings")).to_pyarrow_dataset().to_table()
    assert _as_rows(ratings) == _as_rows(ours)


def _as_rows(table: pa.Table) -> list[tuple[int, int, float, int]]:
    columns = [table[name].to_pylist() for name in ("userId", "movieId", "rating")]
    seconds = [int(time.replace(tzinfo=None).timestamp()) for time in table["timestamp"].to_pylist()]
    return sorted(zip(*columns, seconds, strict=True))


@pytest.mark.parametrize("differing", ["rows", "rejects", "raw", "damped_rating", "average_rating"])
def test_a_peer_with_a_different_result_is_an_error(
    cleaned: tuple[Places, dict[str, Any]], differing: str, tmp_path: Path
) -> None:
    places, manifest = cleaned
    found = etl_python(places.raw, tmp_path / "python")
    if differing in found:
        key = next(iter(found[differing]))
        found[differing] = {**found[differing], key: found[differing][key] + 1}
        expected = f"Python: {differing} are"
    else:
        file = tmp_path / "python" / ("rejects.parquet" if differing == "raw" else "final.parquet")
        table = pq.read_table(file)
        values = table[differing].to_pylist()
        place = next(place for place, value in enumerate(values) if value is not None)
        values[place] = values[place] + "x" if differing == "raw" else values[place] * (1 + 1e-7)
        index = table.column_names.index(differing)
        pq.write_table(table.set_column(index, differing, pa.array(values)), file)
        expected = "rejected lines or their reasons" if differing == "raw" else f"{differing} of some movies differs"
    with pytest.raises(DisagreementError, match=expected):
        check_agreement("Python", tmp_path / "python", found, places.processed, manifest)


def test_every_broken_line_breaks_a_rule_and_no_odd_line_does() -> None:
    fields = (1, 2, 4.5, 900_000_000)
    assert Counter(type(judge(make(fields), {2})) for make in BREAKS) == {str: len(BREAKS)}
    assert [judge(make(fields), {2}) for make in ODD] == [fields] * len(ODD)


def test_the_first_header_of_a_file_is_not_a_row() -> None:
    line = HEADER.encode()
    assert judge_all([("a", line), ("b", line)], set()) == Judged()
    assert judge_all([("a", line), ("a", line)], set()).reasons == {"the header line is repeated": 1}


def test_the_second_delivery_is_deterministic_and_begins_with_good_lines(
    cleaned: tuple[Places, dict[str, Any]], tmp_path: Path
) -> None:
    places, _ = cleaned
    (tmp_path / "ratings.csv").write_bytes((places.raw / "ratings.csv").read_bytes())
    written = []
    for _ in range(2):
        deliver_later(tmp_path)
        written.append((tmp_path / LATER).read_bytes())
    assert written[0] == written[1]
    lines = written[0].splitlines()
    assert lines[0] == HEADER.encode()
    assert 10 < len(lines) < 40  # 0.6 % of 4,000
    assert all(re.fullmatch(rb"\d+,\d+,\d\.\d,\d+", line) for line in lines[1:8])


def row(who: str, seconds: float, work: float, ratio: float | None = None) -> dict[str, Any]:
    return {"who": who, "seconds": seconds, "work": work, "count": 1000, "peak_mb": 1500, "ratio": ratio}


def part(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"date": "2026-01-01", "machine": "a machine", "versions": {"duckdb": "9"}, "rows": list(rows), **more}


def some_results() -> dict[str, Any]:
    warm = {"movie-reco": 1.0, "recommendForAllUsers": 9.0}
    return {
        "etl": part(row("movie-reco", 24, 20), row("DuckDB", 10, 9, 2.4), row("Polars", 8, 7, 3.0)),
        "train": part(row("movie-reco", 10, 8)),
        "fits": part(
            row("MLlib, four fits", 70, 50),
            fits={"explicit ALS, all": 50.0},
            solver={"rank 64, 10 sweeps": {"seconds": 5.0, "of_mllib": 0.1}},
            objective={"MLlib": 100.0, "movie-reco": 99.5},
        ),
        "topn": part(row("movie-reco", 12, 2), row("recommendForAllUsers", 25, 16.2, 1 / 8.1), again=warm),
        "pipeline": part(row("movie-reco", 65, 55), stages=[{"stage": "etl", "seconds": 11.0}]),
    }


def test_the_ratios_are_in_one_line(tmp_path: Path) -> None:
    write_results({"1m": some_results()}, tmp_path)
    assert ratios_line("1m", read_results(tmp_path)["1m"]) == (
        "bench 1m: etl 2.4x DuckDB, 3.0x Polars; top N 1/8.1 of recommendForAllUsers "
        "(1/9.0 when warm); train 1/5.0 of MLlib's fits; pipeline 1.30x MLlib's fits"
    )
    assert ratios_line("1m", {"explore": part(row("movie-reco", 1, 1))}) == "bench 1m: nothing to compare"
    assert [as_times(ratio) for ratio in (2.44, 1.0, 0.8, 0.01)] == ["2.4x", "1.00x", "1/1.25", "1/100.0"]


def test_a_later_run_replaces_the_parts_that_it_measured_and_keeps_all_else(tmp_path: Path) -> None:
    write_results({"25m": some_results(), "1m": some_results()}, tmp_path)
    again = {"etl": part(row("movie-reco", 30, 25), row("DuckDB", 10, 9, 3.0))}
    write_results(merged(read_results(tmp_path), "1m", again), tmp_path)
    found = read_results(tmp_path)
    assert list(found) == ["1m", "25m"]
    assert found["1m"]["etl"] == again["etl"]
    kept = some_results().keys() - {"train", "pipeline"}
    assert {key: found["25m"][key] for key in kept} == {key: some_results()[key] for key in kept}
    assert found["1m"]["fits"] == some_results()["fits"]


def test_the_tables_have_each_scale_the_growth_and_where_it_was_measured(tmp_path: Path) -> None:
    large = some_results()
    large["etl"] = part(row("movie-reco", 240, 200), row("DuckDB", 30, 27, 8.0))
    large["topn"]["machine"] = "another machine"
    write_results({"1m": some_results(), "25m": large}, tmp_path)
    lines = (tmp_path / "scale.md").read_text().splitlines()
    assert "## From 1m to 25m: 25 times the ratings" in lines
    assert "| etl | **movie-reco** | 20.0 | 200.0 | 1,500 | 1,500 | 10.0x | 1.00x |" in lines
    assert "| etl | DuckDB | 10.0 | 9.0 | 111 | 1,500 | 2.4x |" in lines
    assert "| pipeline | **movie-reco** | 65.0 | 55.0 | 18 | 1,500 | 1.30x MLlib's fits |" in lines
    assert "| etl | 11.0 | 100% |" in lines
    assert "| rank 64, 10 sweeps | 5.0 | 1/10.0 |" in lines
    assert "Objective after ten sweeps at rank 64: MLlib 100, movie-reco 99.5." in lines
    assert "| recommendForAllUsers | 9.0 |" in lines
    assert "Measured 2026-01-01, a machine; duckdb 9." in lines
    assert "top N: measured 2026-01-01, another machine; duckdb 9." in lines


def test_missing_inputs_of_a_part_are_made_first(tmp_path: Path) -> None:
    bench = Bench(TINY, tmp_path)
    assert parts_to_run(["topn"], bench) == ["ingest", "etl", "train", "topn"]
    bench.raw.mkdir()
    (bench.raw / LATER).touch()
    assert parts_to_run(["pipeline"], bench) == ["pipeline"]
    assert parts_to_run(["recommend", "etl"], bench) == ["etl", "train", "recommend"]
    (bench.processed / "models").mkdir(parents=True)
    (bench.processed / "models" / "current.json").touch()
    assert parts_to_run(["topn"], bench) == ["topn"]


def test_the_memory_of_all_descendants_counts(tmp_path: Path) -> None:
    child = "import time; held = b'x' * 80_000_000; time.sleep(2)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    measured = measure([sys.executable, "-c", parent], tmp_path, tmp_path / "log", {}, "a parent")
    assert measured.peak_mb > 80
    assert measured.seconds > 2


def test_a_failed_command_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"(?s)a command failed with exit code 3; see .*what was wrong"):
        measure([sys.executable, "-c", "print('what was wrong'); exit(3)"], tmp_path, tmp_path / "log", {}, "a command")
