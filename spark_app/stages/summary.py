"""The end of a pipeline: what came out, read back from what was published."""

from __future__ import annotations

import csv
import itertools

from spark_app.platform import storage
from spark_app.platform.run import Run
from spark_app.platform.settings import Settings
from spark_app.platform.zones import ProcessedZone
from spark_app.report.terminal import show_results


def show(settings: Settings, run: Run) -> None:
    """Print the metrics, the first user's list and the places of the results."""
    zone = ProcessedZone(settings.processed.path)
    with storage.reading_text(zone.recommendations_csv) as stream:
        rows = csv.DictReader(stream)
        _, group = next(itertools.groupby(rows, key=lambda row: row["userId"]), ("", iter(())))
        top = list(group)
    places = {
        "recommendations": zone.recommendations_csv,
        "movies": zone.final_file,
        "Delta tables": zone.table(""),
        "report": zone.report(run.run_id),
        "manifest": zone.manifest(run.run_id),
    }
    show_results(run.manifest("done"), top, places)
