"""Ratings in files that are grouped by user give what ratings in any order give."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyspark.sql import SparkSession

from spark_app.platform import delta
from spark_app.zones import plain_ratings
from spark_app.zones.processed import ProcessedZone
from tests.pipeline.conftest import Zones

OF_RUN = {"run_id", "recommended_at"}
PARTITIONS = "spark.sql.shuffle.partitions"


def published(zones: Zones) -> dict[str, pa.Table]:
    """What explore and recommend published, but for what names the run, and for last digits of deviations."""
    zone, found = ProcessedZone(str(zones.processed)), {}
    keys = {"user_features": ["userId"], "movie_features": ["movieId"], "recommendations": ["userId", "rank"]}
    for name, key in keys.items():
        rows = zone.rows(name).sort_by([(column, "ascending") for column in key])
        rows = rows.select([column for column in rows.column_names if column not in OF_RUN])
        if "rating_stddev" in rows.column_names:
            rounded = pc.round(rows["rating_stddev"], 9)
            rows = rows.set_column(rows.column_names.index("rating_stddev"), "rating_stddev", rounded)
        found[name] = rows
    return found


@pytest.mark.parametrize("options", [(), ("--set", "recommend.min_above_mean=0", "--set", "recommend.reasons=0")])
def test_features_and_lists_are_the_same(
    job: Callable[..., tuple[int, str]],
    zones: Zones,
    spark: SparkSession,
    config: str,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
) -> None:
    monkeypatch.setattr(plain_ratings, "LOCAL_BYTES", 0)
    spark.conf.set(PARTITIONS, 3)
    try:
        for stage in ("ingest", "etl", "train"):
            assert job(stage, "--config", config)[0] == 0
        zone = ProcessedZone(str(zones.processed))
        files = delta.files(spark, zone.table("ratings"))
        assert files is not None
        assert files.grouped_by == "userId"
        assert len(files.paths) == 3
        results = []
        for read in (ProcessedZone.input_by_user, ProcessedZone.input):
            with monkeypatch.context() as patch:
                patch.setattr(ProcessedZone, "input_by_user", read)
                for stage in ("explore", "recommend"):
                    code, said = job(stage, "--config", config, *options)
                    assert code == 0, said
            results.append((published(zones), zones.recommendations(), zones.manifests()[-2]["profile"]))
            shutil.rmtree(Path(zones.processed, "delta", "user_features"))
    finally:
        spark.conf.set(PARTITIONS, 1)
    assert results[0] == results[1]
