"""Each known set is read as its preset says, and as `check` proposes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from spark_app.data.ids import Codes, with_original_ids
from spark_app.platform.settings import Settings, build_settings, preset_names
from spark_app.zones.id_codes import TABLES
from spark_app.zones.judged import judge
from spark_app.zones.manifest import RunRecord
from spark_app.zones.processed import ProcessedZone
from spark_app.zones.raw import note_inputs, survey
from spark_app.zones.raw_check import proposed_settings
from tests.forms import FORMS, Form


def test_every_preset_has_a_form_to_be_tested_with() -> None:
    assert preset_names() == sorted(FORMS)


@pytest.mark.parametrize("name", sorted(FORMS))
def test_a_preset_reads_its_set(spark: SparkSession, name: str, tmp_path: Path) -> None:
    check(spark, FORMS[name](), build_settings(assignments=[f"input.preset={name}"]), tmp_path)


@pytest.mark.parametrize("name", sorted(FORMS))
def test_what_check_proposes_reads_the_set(spark: SparkSession, name: str, tmp_path: Path) -> None:
    form = FORMS[name]()
    form.deliver(tmp_path / "raw")
    proposed = proposed_settings(str(tmp_path / "raw"))
    assert proposed.startswith("# The first lines of the files can be read with these settings.")
    check(spark, form, build_settings(proposed, "the proposal"), tmp_path)


def check(spark: SparkSession, form: Form, settings: Settings, folder: Path) -> None:
    """Judge the files of a form with some settings: nothing is rejected, and all is what the form says."""
    form.deliver(folder / "raw")
    raw = settings.raw.model_copy(update={"path": str(folder / "raw")})
    settings = settings.model_copy(update={"raw": raw})
    zone, record = ProcessedZone(str(folder / "processed")), RunRecord("etl", settings)
    tables = survey(settings)
    tables = note_inputs(record, *tables)
    judged = judge(spark, zone, settings, record, tables)
    assert not record.rejects["ratings"]
    assert not record.rejects.get("movies")

    ratings, codes = judged.checked["ratings"], Codes(*(judged.new_codes.get(table) for table in TABLES.values()))
    rows = _rows(ratings.kept.select("userId", "movieId", "rating"), codes)
    found = {(str(user), str(item), round(float(value), 6)) for user, item, value in rows}
    assert found == {(user, item, float(value)) for user, item, value in form.ratings}
    unrated = [] if ratings.unrated is None else _rows(ratings.unrated, codes)
    assert {(str(user), str(item)) for user, item in unrated} == form.unrated
    assert ratings.missing_lines == form.missing
    if form.titles:
        titles = _rows(judged.checked["movies"].kept.select("movieId", "title"), codes)
        assert {str(item): title for item, title in titles} == form.titles
    else:
        assert not settings.raw.movies
    judged.unpersist()


def _rows(frame: DataFrame, codes: Codes) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in frame.transform(with_original_ids, codes).collect()]
