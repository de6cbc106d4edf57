"""Spark's ANSI mode, on by default in 4.x and off in 3.5, makes no difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from spark_app.cli import run_job
from spark_app.zones.processed import MADE_BY, ProcessedZone
from tests.pipeline.conftest import Zones

pytestmark = pytest.mark.long

ANSI = "spark.sql.ansi.enabled"
OPTIONS = ("--set", "raw.ratings=ratings*.csv", "--set", "clean.max_reject_share=0.5")
IDS = ("", "x", "0", "-1", "1.5", "1e3", "007", "2147483648", "9223372036854775808", "9" * 40, "NaN", "\u0663")
RATINGS = ("", "x", "NaN", "Infinity", "1e400", "-1e400", "0x1p2", "4.0f", "0.7", "9" * 400)
TIMES = ("", "x", "1.5", "-1", "964982703000", "9223372036854775807", "9223372036854775808", "9" * 40)


def messy_ratings() -> str:
    """Lines that are not valid ratings, each for another reason, and some that are."""
    rows = [
        *((one, "1", "4.0", "964982703") for one in IDS),
        *(("1", one, "4.0", "964982703") for one in IDS),
        *(("1", "1", one, "964982703") for one in RATINGS),
        *(("1", "1", "4.0", one) for one in TIMES),
        (" 1 ", " 2 ", " 4.0 ", " 964982703 "),
        ("1", "3", "4", "964982703"),
        ("2147483647", "1", "0.5", "964982703"),
        ("1", "1"),
    ]
    return "userId,movieId,rating,timestamp\n" + "".join(",".join(row) + "\n" for row in rows)


def test_ansi_mode_on_and_off_give_the_same(spark: SparkSession, tmp_path: Path, config: str) -> None:
    raw = tmp_path / "raw"
    assert run_job("ingest", ["--raw-path", str(raw), "--config", config]) == 0
    (raw / "ratings_messy.csv").write_text(messy_ratings(), encoding="utf-8")
    before, found = spark.conf.get(ANSI), []
    try:
        for ansi in ("true", "false"):
            spark.conf.set(ANSI, ansi)
            zones = Zones(raw, tmp_path / ansi)
            for stage in ("etl", "explore", "train", "recommend"):
                assert run_job(stage, zones.options("--config", config, *OPTIONS)) == 0
            found.append(results(spark, zones))
    finally:
        spark.conf.set(ANSI, str(before))
    one, other = found
    assert one == other
    assert sum(one["rejects"].values()) > len(IDS)


def results(spark: SparkSession, zones: Zones) -> dict[str, Any]:
    """All published rows and counts, without the ids of runs."""
    zone = ProcessedZone(str(zones.processed))
    tables = [name for name in MADE_BY if zone.has_table(name)]
    rows = {
        name: sorted(map(str, zone.read(spark, name).drop("run_id", "recommended_at").collect())) for name in tables
    }
    manifests = zones.manifests()
    return {
        "tables": rows,
        "final": [str(row) for row in spark.read.parquet(zone.final).collect()],
        "csv": zones.recommendations(),
        "rows": [manifest["rows"] for manifest in manifests],
        "rejects": manifests[0]["rejects"]["ratings"],
        "profile": [manifest["profile"] for manifest in manifests],
        "metrics": [manifest["metrics"] for manifest in manifests],
    }
