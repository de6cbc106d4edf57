"""Measures the time and memory of each stage beside peers that do the same work, and how both grow with the data.

`make bench SCALE="1m 5m 25m"` runs it; the default scale is 1m. Stages run as users run them. The raw files come from
the generator of the stage `ingest` and from `scale_data`; they are kept in the work folder, bench/SCALE. Everything
runs on two cores. Jobs have the memory of conf/local, peers on Spark have 6 GB. Every command is a process of its own.

- **etl** is compared by the time of whole processes, start included. DuckDB and Polars read the same files and apply
  the same rules and the same de-duplication. The benchmark fails where counts, reasons, rejected lines or movie
  aggregates differ from ours.
- **train** and **pipeline**, also whole processes, are compared with the sum of four MLlib fits: explicit and implicit
  ALS, on the training part and on all ratings. MLlib fits rows that are cached in memory, in a process that does
  nothing else. Timings from within our stage would be less fair: there, less memory and lazy columns would slow MLlib
  down, so a worse stage would make us look better.
- **topn** is compared by the time from stored factors and ratings to lists, without the start of Spark. Commands in
  Spark make their lists a second time, when Java is warm: with few ratings, Java's warm-up dominates the first time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from benchmarks.facts import RESULTS, ROOT, machine, today, versions
from benchmarks.measure import CommandError, Measured, measure
from benchmarks.scale_data import DELIVERIES, LATER, SCALES, Scale, deliver_later
from benchmarks.scale_peers import CORES
from benchmarks.scale_results import OURS, Row, as_markdown, merged, ratios_line
from benchmarks.scale_rules import LATEST
from spark_app.platform.log import logger, set_up
from spark_app.platform.settings import Log
from spark_app.zones.processed import ProcessedZone

PACKAGES = ("pyspark", "delta-spark", "pyarrow", "numpy", "duckdb", "polars", "implicit")
TOLERANCE = 1e-9


class DisagreementError(Exception):
    """The result of a peer differs from ours, so the two times cannot be compared."""


@dataclass(frozen=True)
class Bench:
    """One scale, and the folder of its files."""

    scale: Scale
    folder: Path

    @property
    def raw(self) -> Path:
        """The raw zone, which is kept between runs."""
        return self.folder / "raw"

    @property
    def processed(self) -> Path:
        """The processed zone of the single stages; the pipeline has its own."""
        return self.folder / "processed"

    @property
    def lines(self) -> int:
        """The number of rating lines in the raw zone, broken lines included."""
        with (self.raw / LATER).open("rb") as later:
            return self.scale.ratings + sum(1 for _ in later) - 1

    def job(self, name: str, raw: Path, processed: Path, *more: str) -> tuple[Measured, dict[str, Any]]:
        """Run a job of the product as its users do; returns its measurement and its manifest."""
        options = ["--raw-path", str(raw), "--processed-path", str(processed), *more]
        if name != "ingest":
            options += [
                "--set",
                f"raw.ratings={DELIVERIES}",
                "--set",
                f"clean.latest={LATEST}",
                "--set",
                "input.ids=integer",
            ]
        command = ["spark-submit", "--master", f"local[{CORES}]", str(ROOT / "jobs" / f"{name}.py"), *options]
        measured = self._measure(name, command)
        return measured, _last_manifest(processed)

    def peer(self, name: str) -> tuple[Measured, dict[str, Any]]:
        """Run a command of `scale_peers`; returns its measurement and its result."""
        places = {"raw": self.raw, "processed": self.processed, "out": self.out(name)}
        options = [word for key, path in places.items() for word in (f"--{key}", str(path))]
        command = [sys.executable, "-m", "benchmarks.scale_peers", name, *options]
        measured = self._measure(name, command, PYTHONPATH=str(ROOT), OPENBLAS_NUM_THREADS="1")
        return measured, json.loads((self.out(name) / "result.json").read_text(encoding="utf-8"))

    def out(self, name: str) -> Path:
        """The folder that a command of `scale_peers` writes to."""
        return self.folder / "peers" / name

    def _measure(self, name: str, command: Sequence[str], **env: str) -> Measured:
        self.folder.mkdir(parents=True, exist_ok=True)
        label = f"{self.scale.name} {name}"
        env = {"SPARK_CONF_DIR": str(ROOT / "conf" / "local"), **os.environ, "POLARS_MAX_THREADS": str(CORES), **env}
        logger.info("%s: started", label)
        measured = measure(command, self.folder, self.folder / "logs" / f"{name}.log", env, label)
        logger.info("%s: %.1f s, peak memory %s MB", label, measured.seconds, f"{measured.peak_mb:,}")
        return measured


def bench_ingest(bench: Bench) -> dict[str, Any]:
    """Measure the generator. Raw files that exist are kept; then it writes to another folder, which is deleted."""
    is_there = (bench.raw / LATER).exists()
    raw = bench.folder / "raw-again" if is_there else bench.raw
    shutil.rmtree(raw, ignore_errors=True)
    measured, manifest = bench.job("ingest", raw, bench.processed, *bench.scale.options)
    if is_there:
        shutil.rmtree(raw)
    else:
        deliver_later(raw)
    return {"rows": [_our_row(measured, manifest, bench.scale.ratings)]}


def bench_etl(bench: Bench) -> dict[str, Any]:
    """Measure our stage, DuckDB and Polars; the models of an earlier run are kept."""
    for path in bench.processed.glob("*"):
        if path.name != "models":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    measured, manifest = bench.job("etl", bench.raw, bench.processed)
    count = manifest["rows"]["ratings"]["in"]
    rows = [_our_row(measured, manifest, count)]
    for peer in ("DuckDB", "Polars"):
        name = f"etl-{peer.lower()}"
        peer_measured, result = bench.peer(name)
        check_agreement(peer, bench.out(name), result, bench.processed, manifest)
        rows.append(_peer_row(peer, peer_measured, result, count, measured.seconds / peer_measured.seconds))
    return {"rows": rows, "counts": manifest["rows"]["ratings"], "rejects": manifest["rejects"]["ratings"]}


def bench_explore(bench: Bench) -> dict[str, Any]:
    """Measure our stage alone: no peer makes these features."""
    measured, manifest = bench.job("explore", bench.raw, bench.processed)
    return {"rows": [_our_row(measured, manifest, bench.scale.ratings)]}


def bench_train(bench: Bench) -> dict[str, Any]:
    """Measure our stage; it is compared with MLlib's four fits where `fits` has measured them."""
    measured, manifest = bench.job("train", bench.raw, bench.processed)
    return {"rows": [_our_row(measured, manifest, bench.scale.ratings)]}


def bench_fits(bench: Bench) -> dict[str, Any]:
    """Measure MLlib's four fits, our solver's fits, and one fit of `implicit`.

    Our solver's fits are compared with MLlib's implicit ALS on all ratings.
    """
    count = bench.scale.ratings
    mllib, mllib_result = bench.peer("fits-mllib")
    solver, solver_result = bench.peer("fits-ours")
    implicit, implicit_result = bench.peer("fit-implicit")
    mllib_seconds = mllib_result["fits"]["implicit ALS, all"]
    return {
        "rows": [
            _peer_row("MLlib, four fits", mllib, mllib_result, count, None),
            _peer_row("our solver, two fits", solver, solver_result, count, None),
            _peer_row("implicit, one fit", implicit, implicit_result, count, None),
        ],
        "fits": mllib_result["fits"],
        "solver": {
            name: {"seconds": seconds, "of_mllib": seconds / mllib_seconds}
            for name, seconds in solver_result["fits"].items()
        },
        "objective": {"MLlib": solver_result["objective_of_mllib"], OURS: solver_result["objective"]},
    }


def bench_topn(bench: Bench) -> dict[str, Any]:
    """Measure lists from the same factors: ours without reasons, MLlib's with seen movies, and those of `implicit`."""
    users = bench.scale.users
    measured, ours = bench.peer("lists-ours")
    rows = [_peer_row(OURS, measured, ours, users, None)]
    again = {OURS: ours["again"]}
    for who, name in (("recommendForAllUsers", "lists-mllib"), ("implicit", "lists-implicit")):
        peer_measured, result = bench.peer(name)
        rows.append(_peer_row(who, peer_measured, result, users, ours["work"] / result["work"]))
        if "again" in result:
            again[who] = result["again"]
    return {"rows": rows, "again": again}


def bench_recommend(bench: Bench) -> dict[str, Any]:
    """Measure our stage: lists with reasons and predicted ratings, as a table and as a CSV."""
    measured, manifest = bench.job("recommend", bench.raw, bench.processed)
    return {"rows": [_our_row(measured, manifest, bench.scale.users)]}


def bench_pipeline(bench: Bench) -> dict[str, Any]:
    """Measure all stages in one session, from the existing raw files to the lists, into an empty zone."""
    processed = bench.folder / "pipeline"
    shutil.rmtree(processed, ignore_errors=True)
    measured, manifest = bench.job("pipeline", bench.raw, processed)
    return {"rows": [_our_row(measured, manifest, bench.scale.ratings)], "stages": manifest["stages"]}


PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "ingest": bench_ingest,
    "etl": bench_etl,
    "explore": bench_explore,
    "train": bench_train,
    "fits": bench_fits,
    "topn": bench_topn,
    "recommend": bench_recommend,
    "pipeline": bench_pipeline,
}
"""The parts that can be measured, each after the parts whose outputs it needs."""


def parts_to_run(wanted: Iterable[str], bench: Bench) -> list[str]:
    """The wanted parts, and the parts that make missing inputs of theirs, in order."""
    made_by = {
        "ingest": bench.raw / LATER,
        "etl": bench.processed / "final" / "movies.parquet",
        "train": bench.processed / "models" / "current.json",
    }
    needs = {
        "etl": ["ingest"],
        "explore": ["etl"],
        "train": ["etl"],
        "fits": ["etl"],
        "topn": ["train"],
        "recommend": ["train"],
        "pipeline": ["ingest"],
    }
    chosen = set(wanted)
    for part in reversed(PARTS):
        if part in chosen:
            chosen.update(maker for maker in needs.get(part, []) if not made_by[maker].exists())
    return [part for part in PARTS if part in chosen]


def check_agreement(
    peer: str, folder: Path, result: Mapping[str, Any], processed: Path, manifest: Mapping[str, Any]
) -> None:
    """Compare the result of a peer with that of `etl` on the same raw files.

    `folder` has the peer's files, `processed` and `manifest` are ours. Raises DisagreementError where counts, rejected
    lines or their reasons, or the aggregates of any movie differ.
    """
    for counts in ("rows", "rejects"):
        if result[counts] != manifest[counts]["ratings"]:
            raise DisagreementError(f"{peer}: {counts} are {result[counts]}, ours are {manifest[counts]['ratings']}")
    columns = ["raw", "reason"]
    rejects = DeltaTable(ProcessedZone(str(processed)).table("rejects")).to_pyarrow_dataset()
    ours = rejects.to_table(columns=columns, filter=pa.compute.field("run_id") == manifest["run_id"])
    if _sorted(ours) != _sorted(pq.read_table(folder / "rejects.parquet", columns=columns)):
        raise DisagreementError(f"{peer}: its rejected lines or their reasons differ from ours")
    final = ["movieId", "rating_count", "average_rating", "damped_rating"]
    our_movies, peer_movies = (
        pq.read_table(file, columns=final).sort_by("movieId")
        for file in (ProcessedZone(str(processed)).final_file, folder / "final.parquet")
    )
    for column in final:
        our_values, peer_values = (table[column].to_numpy().astype(np.float64) for table in (our_movies, peer_movies))
        if len(our_values) != len(peer_values) or not np.allclose(
            our_values, peer_values, rtol=TOLERANCE, atol=0, equal_nan=True
        ):
            raise DisagreementError(f"{peer}: {column} of some movies differs from ours")


def _sorted(table: pa.Table) -> list[tuple[str, str]]:
    return sorted(zip(table["raw"].to_pylist(), table["reason"].to_pylist(), strict=True))


def _last_manifest(folder: Path) -> dict[str, Any]:
    """The newest manifest among all zones in a folder."""
    newest = max(folder.glob("**/runs/*.json"), key=lambda file: file.stat().st_mtime_ns)
    manifest: dict[str, Any] = json.loads(newest.read_text(encoding="utf-8"))
    return manifest


def _our_row(measured: Measured, manifest: Mapping[str, Any], count: int) -> Row:
    work = math.fsum(stage["seconds"] for stage in manifest["stages"])
    return Row(OURS, measured.seconds, work, count, measured.peak_mb)


def _peer_row(who: str, measured: Measured, result: Mapping[str, Any], count: int, ratio: float | None) -> Row:
    return Row(who, measured.seconds, result["work"], count, measured.peak_mb, ratio)


def with_ratios_of_fits(scale: dict[str, Any]) -> dict[str, Any]:
    """The results of a scale, with `of_fits` for train and pipeline: their time over that of MLlib's fits.

    Results without measured fits are unchanged.
    """
    if "fits" not in scale:
        return scale
    fits = sum(scale["fits"]["fits"].values())
    compared = {part: scale[part] for part in ("train", "pipeline") if part in scale}
    return scale | {part: {**entry, "of_fits": entry["rows"][0]["seconds"] / fits} for part, entry in compared.items()}


def run_scale(bench: Bench, parts: Sequence[str], results: Path) -> None:
    """Measure parts of a scale; after each part, its new figures replace its earlier ones in `results`."""
    for part in parts:
        figures = PARTS[part](bench)
        java = _last_manifest(bench.folder)["versions"]["java"]
        facts = {"date": today(), "machine": machine(), "versions": {**versions(PACKAGES), "java": java}}
        entry = {**facts, **figures, "rows": [asdict(row) for row in figures["rows"]]}
        write_results(merged(read_results(results), bench.scale.name, {part: entry}), results)


def read_results(folder: Path) -> dict[str, Any]:
    """The results by scale and part; empty where nothing is measured yet."""
    file = folder / "scale.json"
    results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return results


def write_results(scales: Mapping[str, Any], folder: Path) -> None:
    """Write `scale.json` and `scale.md`, the scales in order of size."""
    ordered = {name: with_ratios_of_fits(scales[name]) for name in SCALES if name in scales}
    folder.mkdir(exist_ok=True)
    (folder / "scale.json").write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
    (folder / "scale.md").write_text(as_markdown(ordered, SCALES), encoding="utf-8")


def main() -> int:
    """Measure the scales that the command line names; the last lines of the output are their ratios."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measure the product beside peers.")
    parser.add_argument("scales", nargs="*", metavar="SCALE", help=f"one or more of {', '.join(SCALES)} (default: 1m)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to measure (default: all)")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "bench", help="folder for the raw files and all outputs (default: bench)"
    )
    options = parser.parse_args()
    names = options.scales or ["1m"]
    if unknown := set(names) - set(SCALES):
        parser.error(f"unknown scale {', '.join(sorted(unknown))}; choose from {', '.join(SCALES)}")
    set_up(Log())
    try:
        for name in names:
            bench = Bench(SCALES[name], options.work.resolve() / name)
            run_scale(bench, parts_to_run(options.only, bench), RESULTS)
    except (CommandError, DisagreementError) as error:
        logger.error("%s", error)
        return 1
    results = read_results(RESULTS)
    logger.info("wrote %s", RESULTS / "scale.md")
    sys.stdout.write("".join(f"{ratios_line(name, results[name])}\n" for name in names))
    return 0


if __name__ == "__main__":
    sys.exit(main())
