"""The results of a run, as a person in front of a terminal wants to see them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spark_app.model.metrics import label_of, metric_of
from spark_app.report.words import MODEL_NAMES

MIN_WIDTH = 110


def show_results(manifest: Mapping[str, Any], top: Sequence[Mapping[str, str]], places: Mapping[str, str]) -> None:
    """Print metrics beside their baselines, the top N of one user, and where everything is.

    Takes a run's manifest, rows of the published CSV for one user, and the paths to name.
    """
    console = wide_console()
    console.print()
    console.print(metrics_table(manifest["metrics"]))
    if top:
        console.print(recommendations_table(f"Top {len(top)} for user {top[0]['userId']}", top))
    for what, path in places.items():
        console.print(Text(f"{what:<16}", style="bold") + Text(path), soft_wrap=True)


def wide_console() -> Console:
    """Standard output, as wide as the tables need it."""
    console = Console(highlight=False)
    return console if console.width >= MIN_WIDTH else Console(highlight=False, width=MIN_WIDTH, soft_wrap=True)


def metrics_table(metrics: Mapping[str, Any]) -> Table:
    """Metrics of the models beside those of their baselines, from a manifest's `metrics`."""
    table = Table(title="On ratings held out, never seen in training", title_justify="left")
    for heading in ("metric", "model", "", "baseline", "", ""):
        table.add_column(heading, justify="right" if heading == "" else "left")
    captions = []
    rating_model = metrics.get("rating_model")
    published = "explicit" if rating_model in (None, "bias") else rating_model
    for task, model, baseline in (("rating", published, "bias"), ("ranking", "implicit", "popularity")):
        if task not in metrics:
            continue
        ours, theirs = metrics[task][model], metrics[task][baseline]
        bounds = metrics.get("intervals", {}).get(task, {})
        if bounds:
            captions = ["in brackets: 95 % intervals, bootstrap over users"]
        for metric in ours:
            if metric == "users" or metric not in theirs:
                continue
            table.add_row(
                label_of(metric),
                MODEL_NAMES[model],
                _with_interval(ours[metric], bounds.get(model, {}).get(metric)),
                MODEL_NAMES[baseline],
                _with_interval(theirs[metric], bounds.get(baseline, {}).get(metric)),
                _verdict(metric, ours[metric], theirs[metric]),
            )
    if rating_model:
        captions.append(f"predicted_rating comes from: {MODEL_NAMES[rating_model]}")
    table.caption = "\n".join(captions)
    return table


def _with_interval(value: float, bounds: Sequence[float] | None) -> Text:
    shown = Text(f"{value:.4f}")
    return shown + Text(f" ({bounds[0]:.3f}-{bounds[1]:.3f})", style="dim") if bounds else shown


def _verdict(metric: str, ours: float, theirs: float) -> str:
    if ours == theirs:
        return "the same"
    known = metric_of(metric)
    better = known.is_better(ours, theirs) if known else ours > theirs
    ratio = f"{ours / theirs:.2f} x" if theirs else "-"
    return f"[green]{ratio} better[/green]" if better else f"[yellow]{ratio} worse[/yellow]"


def recommendations_table(title: str, rows: Iterable[Mapping[str, Any]]) -> Table:
    """Recommendations of one user, in the columns of the published CSV."""
    table = Table(title=plain(title), title_justify="left")
    for heading in ("#", "title and genres", "predicted\nrating", "why"):
        table.add_column(heading, justify="left" if heading in ("title and genres", "why") else "right")
    for row in rows:
        predicted = f"{float(row['predicted_rating']):.3f}" if row["predicted_rating"] else "-"
        table.add_row(str(row["rank"]), title_and_genres(row), predicted, plain(row["reason"]))
    return table


def title_and_genres(row: Mapping[str, Any]) -> Text:
    """A movie in two lines."""
    return plain(row["title"]) + "\n" + plain(row["genres"].replace("|", ", "), style="dim")


def plain(text: str, style: str = "") -> Text:
    """Data from others, as it is: no markup in it is followed, and nothing that steers a terminal gets through."""
    return Text("".join(letter if letter.isprintable() else " " for letter in text), style=style)
