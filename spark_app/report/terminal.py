"""The results of a run, printed on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spark_app.model.metrics import label_of, metric_of
from spark_app.report.words import MODEL_NAMES

MIN_WIDTH = 110
MAX_CELL = 300
"""Characters of a title or a reason that are shown."""
"""Columns that the tables need."""


def show_results(manifest: Mapping[str, Any], top: Sequence[Mapping[str, str]], places: Mapping[str, str]) -> None:
    """Print the metrics beside their baselines, the top N of one user, and the paths of the outputs.

    Takes a run's manifest, the rows of the published CSV for one user, and the paths by name.
    """
    console = wide_console()
    console.print()
    console.print(metrics_table(manifest["metrics"]))
    if top:
        console.print(recommendations_table(f"Top {len(top)} for user {top[0]['userId']}", top))
    for name, path in places.items():
        console.print(Text(f"{name:<16}", style="bold") + Text(path), soft_wrap=True)


def wide_console() -> Console:
    """A console on standard output, at least MIN_WIDTH columns wide."""
    console = Console(highlight=False)
    return console if console.width >= MIN_WIDTH else Console(highlight=False, width=MIN_WIDTH, soft_wrap=True)


def metrics_table(metrics: Mapping[str, Any]) -> Table:
    """A table of the models' metrics beside those of their baselines, from a manifest's `metrics`."""
    table = Table(title="On ratings held out, never seen in training", title_justify="left")
    for heading in ("metric", "model", "", "baseline", "", ""):
        table.add_column(heading, justify="right" if heading == "" else "left")
    captions = []
    rating_model = metrics.get("rating_model")
    published = "explicit" if rating_model in (None, "bias") else rating_model
    for task, model, baseline in (("rating", published, "bias"), ("ranking", "implicit", "popularity")):
        if task not in metrics:
            continue
        values, baseline_values = metrics[task][model], metrics[task][baseline]
        bounds = metrics.get("intervals", {}).get(task, {})
        if bounds:
            captions = ["in brackets: 95 % intervals, bootstrap over users"]
        for metric in values:
            if metric == "users" or metric not in baseline_values:
                continue
            table.add_row(
                label_of(metric),
                MODEL_NAMES[model],
                _with_interval(values[metric], bounds.get(model, {}).get(metric)),
                MODEL_NAMES[baseline],
                _with_interval(baseline_values[metric], bounds.get(baseline, {}).get(metric)),
                _verdict(metric, values[metric], baseline_values[metric]),
            )
    if rating_model:
        captions.append(f"predicted_rating comes from: {MODEL_NAMES[rating_model]}")
    table.caption = "\n".join(captions)
    return table


def _with_interval(value: float, bounds: Sequence[float] | None) -> Text:
    text = Text(f"{value:.4f}")
    return text + Text(f" ({bounds[0]:.3f}-{bounds[1]:.3f})", style="dim") if bounds else text


def _verdict(metric: str, value: float, baseline: float) -> str:
    if value == baseline:
        return "the same"
    known = metric_of(metric)
    better = known.is_better(value, baseline) if known else value > baseline
    ratio = f"{value / baseline:.2f} x" if baseline else "-"
    return f"[green]{ratio} better[/green]" if better else f"[yellow]{ratio} worse[/yellow]"


def recommendations_table(title: str, rows: Iterable[Mapping[str, Any]]) -> Table:
    """A table of one user's recommendations, from rows of the published CSV."""
    table = Table(title=plain(title), title_justify="left")
    for heading in ("#", "title and genres", "predicted\nrating", "why"):
        table.add_column(heading, justify="left" if heading in ("title and genres", "why") else "right")
    for row in rows:
        predicted = f"{float(row['predicted_rating']):.3f}" if row["predicted_rating"] else "-"
        table.add_row(str(row["rank"]), title_and_genres(row), predicted, plain(_short(row["reason"])))
    return table


def title_and_genres(row: Mapping[str, Any]) -> Text:
    """A movie in two lines: its title, then its genres."""
    return plain(_short(row["title"])) + "\n" + plain(row["genres"].replace("|", ", "), style="dim")


def _short(text: str) -> str:
    """A text cut to what a person would read in a cell."""
    return text if len(text) <= MAX_CELL else f"{text[: MAX_CELL - 1]}\N{HORIZONTAL ELLIPSIS}"


def plain(text: str, style: str = "") -> Text:
    """Text from the data, safe to print: markup is shown as it is, and control characters become spaces."""
    return Text("".join(letter if letter.isprintable() else " " for letter in text), style=style)
