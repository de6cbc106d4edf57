"""Each stage of the product, run as users run it, beside peers that do the same work: time, memory and how they grow.

`make bench SCALE="1m 5m 25m"` runs it; SCALE is 1m where it is left out. The raw files come from the generator of the
stage `ingest` and from `scale_data`; they are kept in the work folder, bench/SCALE. Everything runs on two cores, Spark
with the memory of conf/local, and every command in a process of its own.

- **etl** is compared by the time of whole processes, start included, as are `train` and `pipeline`. DuckDB and Polars
  read the same files, apply the same rules and the same de-duplication; where counts, reasons, rejected lines or movie
  aggregates differ from ours, the benchmark fails.
- **train** and **pipeline** are compared with MLlib's fits alone: the four fits of the stage, each from rows that lie
  in memory, added up. They run in a process that does nothing else. Timings from within our stage would be less fair:
  what slows MLlib down there (less memory, lazy columns) would count as MLlib's own, so the worse we were, the better
  we would look.
- **topn** is compared by the time from stored factors and ratings to lists, without the start of Spark. What runs in
  Spark makes its lists once more, when Java is warm: with few ratings the first time is mostly Java's.
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
    """A peer has come to another result than ours, so its time says nothing."""


@dataclass(frozen=True)
class Bench:
    """One scale, and the folder where its files lie."""

    scale: Scale
    folder: Path

    @property
    def raw(self) -> Path:
        """The raw zone: kept between runs."""
        return self.folder / "raw"

    @property
    def processed(self) -> Path:
        """The processed zone of the stages; that of the pipeline is another."""
        return self.folder / "processed"

    @property
    def lines(self) -> int:
        """Ratings in the raw zone, the broken ones too."""
        with (self.raw / LATER).open("rb") as later:
            return self.scale.ratings + sum(1 for _ in later) - 1

    def job(self, name: str, raw: Path, processed: Path, *more: str) -> tuple[Measured, dict[str, Any]]:
        """Run a job of the product as its users do; gives its manifest too."""
        options = ["--raw-path", str(raw), "--processed-path", str(processed), *more]
        if name != "ingest":
            options += ["--set", f"raw.ratings={DELIVERIES}", "--set", f"clean.latest={LATEST}"]
        command = ["spark-submit", "--master", f"local[{CORES}]", str(ROOT / "jobs" / f"{name}.py"), *options]
        measured = self._measure(name, command)
        return measured, _last_manifest(processed)

    def peer(self, name: str) -> tuple[Measured, dict[str, Any]]:
        """Run a command of `scale_peers`; gives what it has noted."""
        places = {"raw": self.raw, "processed": self.processed, "out": self.out(name)}
        options = [word for key, path in places.items() for word in (f"--{key}", str(path))]
        command = [sys.executable, "-m", "benchmarks.scale_peers", name, *options]
        measured = self._measure(name, command, PYTHONPATH=str(ROOT), OPENBLAS_NUM_THREADS="1")
        return measured, json.loads((self.out(name) / "result.json").read_text(encoding="utf-8"))

    def out(self, name: str) -> Path:
        """Where a command of `scale_peers` writes."""
        return self.folder / "peers" / name

    def _measure(self, name: str, command: Sequence[str], **env: str) -> Measured:
        self.folder.mkdir(parents=True, exist_ok=True)
        label = f"{self.scale.name} {name}"
        env = {"SPARK_CONF_DIR": str(ROOT / "conf" / "local"), **os.environ, "POLARS_MAX_THREADS": str(CORES), **env}
        logger.info("%s: started", label)
        measured = measure(command, self.folder, self.folder / "logs" / f"{name}.log", env, label)
        logger.info("%s: %.1f s, %s MB at most", label, measured.seconds, f"{measured.peak_mb:,}")
        return measured


def bench_ingest(bench: Bench) -> dict[str, Any]:
    """The generator. Where the raw files are there already, they stay, and others are made for the clock alone."""
    is_there = (bench.raw / LATER).exists()
    raw = bench.folder / "raw-again" if is_there else bench.raw
    shutil.rmtree(raw, ignore_errors=True)
    measured, manifest = bench.job("ingest", raw, bench.processed, *bench.scale.options)
    if is_there:
        shutil.rmtree(raw)
    else:
        deliver_later(raw)
    return {"rows": [_ours(measured, manifest, bench.scale.ratings)]}


def bench_etl(bench: Bench) -> dict[str, Any]:
    """Our stage, DuckDB and Polars; the models that an earlier run has fitted stay where they are."""
    for left in bench.processed.glob("*"):
        if left.name != "models":
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    measured, manifest = bench.job("etl", bench.raw, bench.processed)
    count = manifest["rows"]["ratings"]["in"]
    rows = [_ours(measured, manifest, count)]
    for peer in ("DuckDB", "Polars"):
        name = f"etl-{peer.lower()}"
        theirs, found = bench.peer(name)
        check_agreement(peer, bench.out(name), found, bench.processed, manifest)
        rows.append(_theirs(peer, theirs, found, count, measured.seconds / theirs.seconds))
    return {"rows": rows, "counts": manifest["rows"]["ratings"], "rejects": manifest["rejects"]["ratings"]}


def bench_explore(bench: Bench) -> dict[str, Any]:
    """Our stage alone: nobody else makes these features."""
    measured, manifest = bench.job("explore", bench.raw, bench.processed)
    return {"rows": [_ours(measured, manifest, bench.scale.ratings)]}


def bench_train(bench: Bench) -> dict[str, Any]:
    """Our stage alone; it is compared with MLlib's four fits where these have been measured."""
    measured, manifest = bench.job("train", bench.raw, bench.processed)
    return {"rows": [_ours(measured, manifest, bench.scale.ratings)]}


def bench_fits(bench: Bench) -> dict[str, Any]:
    """MLlib's four fits alone; and one fit of MLlib's beside our solver's, and that of `implicit`."""
    count = bench.scale.ratings
    mllib, fits = bench.peer("fits-mllib")
    solver, ours = bench.peer("fits-ours")
    other, found = bench.peer("fit-implicit")
    last = fits["fits"]["implicit ALS, all"]
    return {
        "rows": [
            _theirs("MLlib, four fits", mllib, fits, count, None),
            _theirs("our solver, two fits", solver, ours, count, None),
            _theirs("implicit, one fit", other, found, count, None),
        ],
        "fits": fits["fits"],
        "solver": {name: {"seconds": seconds, "of_mllib": seconds / last} for name, seconds in ours["fits"].items()},
        "objective": {"MLlib": ours["objective_of_mllib"], OURS: ours["objective"]},
    }


def bench_topn(bench: Bench) -> dict[str, Any]:
    """Our lists without reasons, MLlib's with what has been seen, and those of `implicit`, from the same factors."""
    users = bench.scale.users
    measured, ours = bench.peer("lists-ours")
    rows = [_theirs(OURS, measured, ours, users, None)]
    again = {OURS: ours["again"]}
    for who, name in (("recommendForAllUsers", "lists-mllib"), ("implicit", "lists-implicit")):
        theirs, found = bench.peer(name)
        rows.append(_theirs(who, theirs, found, users, ours["work"] / found["work"]))
        if "again" in found:
            again[who] = found["again"]
    return {"rows": rows, "again": again}


def bench_recommend(bench: Bench) -> dict[str, Any]:
    """Our stage: lists with their reasons and predicted ratings, as a table and as a CSV."""
    measured, manifest = bench.job("recommend", bench.raw, bench.processed)
    return {"rows": [_ours(measured, manifest, bench.scale.users)]}


def bench_pipeline(bench: Bench) -> dict[str, Any]:
    """All stages in one session, from the raw files as they are to the lists, into an empty zone."""
    processed = bench.folder / "pipeline"
    shutil.rmtree(processed, ignore_errors=True)
    measured, manifest = bench.job("pipeline", bench.raw, processed)
    return {"rows": [_ours(measured, manifest, bench.scale.ratings)], "stages": manifest["stages"]}


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
"""What can be measured, in the order in which each finds what it needs."""


def parts_to_run(wanted: Iterable[str], bench: Bench) -> list[str]:
    """The parts that are wanted and those that make what these need and what is not there yet, in order."""
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
            chosen.update(needed for needed in needs.get(part, []) if not made_by[needed].exists())
    return [part for part in PARTS if part in chosen]


def check_agreement(
    peer: str, folder: Path, found: Mapping[str, Any], processed: Path, manifest: Mapping[str, Any]
) -> None:
    """Hold what a peer has made of the raw files against what `etl` has.

    Raises DisagreementError where counts, rejected lines or their reasons, or the aggregates of any movie differ.
    """
    for what in ("rows", "rejects"):
        if found[what] != manifest[what]["ratings"]:
            raise DisagreementError(f"{peer}: {what} are {found[what]}, ours are {manifest[what]['ratings']}")
    columns = ["raw", "reason"]
    rejects = DeltaTable(ProcessedZone(str(processed)).table("rejects")).to_pyarrow_dataset()
    ours = rejects.to_table(columns=columns, filter=pa.compute.field("run_id") == manifest["run_id"])
    if _sorted(ours) != _sorted(pq.read_table(folder / "rejects.parquet", columns=columns)):
        raise DisagreementError(f"{peer}: other lines are rejected than by us, or for other reasons")
    final = ["movieId", "rating_count", "average_rating", "damped_rating"]
    mine, theirs = (
        pq.read_table(file, columns=final).sort_by("movieId")
        for file in (ProcessedZone(str(processed)).final_file, folder / "final.parquet")
    )
    for column in final:
        one, other = (table[column].to_numpy().astype(np.float64) for table in (mine, theirs))
        if len(one) != len(other) or not np.allclose(one, other, rtol=TOLERANCE, atol=0, equal_nan=True):
            raise DisagreementError(f"{peer}: {column} of some movies differs from ours")


def _sorted(table: pa.Table) -> list[tuple[str, str]]:
    return sorted(zip(table["raw"].to_pylist(), table["reason"].to_pylist(), strict=True))


def _last_manifest(folder: Path) -> dict[str, Any]:
    """The newest manifest of any zone in a folder."""
    newest = max(folder.glob("**/runs/*.json"), key=lambda file: file.stat().st_mtime_ns)
    manifest: dict[str, Any] = json.loads(newest.read_text(encoding="utf-8"))
    return manifest


def _ours(measured: Measured, manifest: Mapping[str, Any], count: int) -> Row:
    work = math.fsum(stage["seconds"] for stage in manifest["stages"])
    return Row(OURS, measured.seconds, work, count, measured.peak_mb)


def _theirs(who: str, measured: Measured, found: Mapping[str, Any], count: int, ratio: float | None) -> Row:
    return Row(who, measured.seconds, found["work"], count, measured.peak_mb, ratio)


def with_ratios_of_fits(scale: dict[str, Any]) -> dict[str, Any]:
    """The results of a scale, its train and its pipeline compared with MLlib's fits where these have been measured."""
    if "fits" not in scale:
        return scale
    fits = sum(scale["fits"]["fits"].values())
    compared = {part: scale[part] for part in ("train", "pipeline") if part in scale}
    return scale | {part: {**found, "of_fits": found["rows"][0]["seconds"] / fits} for part, found in compared.items()}


def run_scale(bench: Bench, parts: Sequence[str], results: Path) -> None:
    """Measure parts of a scale; each one's figures take the place of its earlier ones as soon as they are there."""
    for part in parts:
        found = PARTS[part](bench)
        java = _last_manifest(bench.folder)["versions"]["java"]
        facts = {"date": today(), "machine": machine(), "versions": {**versions(PACKAGES), "java": java}}
        entry = {**facts, **found, "rows": [asdict(row) for row in found["rows"]]}
        write_results(merged(read_results(results), bench.scale.name, {part: entry}), results)


def read_results(folder: Path) -> dict[str, Any]:
    """The results of all scales by part; none where there are none yet."""
    file = folder / "scale.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found


def write_results(scales: Mapping[str, Any], folder: Path) -> None:
    """Write `scale.json` and `scale.md`, the scales in order of size."""
    ordered = {name: with_ratios_of_fits(scales[name]) for name in SCALES if name in scales}
    folder.mkdir(exist_ok=True)
    (folder / "scale.json").write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
    (folder / "scale.md").write_text(as_markdown(ordered, SCALES), encoding="utf-8")


def main() -> int:
    """Measure the scales that are asked for; the last lines are their ratios."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measure the product beside peers.")
    parser.add_argument("scales", nargs="*", metavar="SCALE", help=f"of {', '.join(SCALES)} (default: 1m)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to measure (default: all)")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "bench", help="folder for raw files and what is made of them"
    )
    options = parser.parse_args()
    names = options.scales or ["1m"]
    if unknown := set(names) - set(SCALES):
        parser.error(f"unknown scale {', '.join(sorted(unknown))}; known are {', '.join(SCALES)}")
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
