"""The summary that a pipeline prints at its end, read back from the published files."""

from __future__ import annotations

import csv
import itertools
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from spark_app.platform import storage
from spark_app.platform.settings import Settings
from spark_app.report.terminal import show_results
from spark_app.zones.manifest import RunRecord
from spark_app.zones.processed import ProcessedZone
from spark_app.zones.stored_models import model_facts

MAX_FIELD = 2**31 - 1
"""Characters of a field of the CSV: Python's own limit, 131,072, is less than a title may have."""


def show(settings: Settings, record: RunRecord) -> None:
    """Print the metrics, the first user's list and the paths of the results."""
    zone = ProcessedZone(settings.processed.path)
    csv.field_size_limit(MAX_FIELD)
    with storage.reading_text(zone.recommendations_csv) as stream:
        rows = csv.DictReader(stream)
        _, group = next(itertools.groupby(rows, key=lambda row: row["userId"]), ("", iter(())))
        top = list(group)
    places = {
        "recommendations": zone.recommendations_csv,
        "movies": zone.final_file,
        "Delta tables": zone.table(""),
        "report": zone.report(record.run_id),
        "manifest": zone.manifest(record.run_id),
    }
    metrics = record.metrics or model_facts(zone).get("metrics", {})
    show_results({**record.manifest("done"), "metrics": metrics}, top, places, _commands(zone, top))


def _commands(zone: ProcessedZone, top: Sequence[Mapping[str, str]]) -> list[str]:
    """What to ask next, as commands."""
    python = os.path.relpath(sys.executable) if Path(sys.executable).is_relative_to(Path.cwd()) else sys.executable
    show = f"{shlex.quote(python)} -m spark_app show --processed-path {shlex.quote(zone.root)}"
    of_lists = [f"{show} --user {shlex.quote(row['userId'])}" for row in top[:1]]
    of_movies = [f"{show} --movie {shlex.quote(row['movieId'])}" for row in top[:1]]
    return [*of_lists, *of_movies, f"{show} --runs"]
