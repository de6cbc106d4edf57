"""The results of a run, printed on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spark_app.model.metrics import OF_ERRORS, label_of, metric_of
from spark_app.report.verdicts import BETTER, SAME, WORSE, at_the_gate, verdict
from spark_app.report.words import MODEL_NAMES, as_read, percent, reason_as_read

MIN_WIDTH = 80
"""Columns that the tables need; a terminal that is narrower breaks their lines."""

MAX_CELL = 300
"""Characters of a title or a reason that are shown."""

STYLES = {BETTER: "green", WORSE: "yellow", SAME: ""}


def show_results(
    manifest: Mapping[str, Any],
    top: Sequence[Mapping[str, str]],
    places: Mapping[str, str],
    commands: Sequence[str] = (),
) -> None:
    """Print the metrics beside their baselines, the top N of one user, the paths of the outputs, and what to run next.

    Takes a run's manifest, the rows of the published CSV for one user, the paths by name, and commands.
    """
    console = wide_console()
    console.print()
    print_metrics(console, manifest["metrics"])
    if top:
        console.print(recommendations_table(f"Top {len(top)} for user {top[0]['userId']}", top))
    for name, path in places.items():
        console.print(Text(f"{name:<16}", style="bold") + Text(path), soft_wrap=True)
    if commands:
        console.print("\nGo on with", style="bold")
    for command in commands:
        console.print(Text(f"  {command}"), soft_wrap=True)


def wide_console() -> Console:
    """A console on standard output, at least MIN_WIDTH columns wide."""
    console = Console(highlight=False)
    return console if console.width >= MIN_WIDTH else Console(highlight=False, width=MIN_WIDTH, soft_wrap=True)


def print_metrics(console: Console, metrics: Mapping[str, Any]) -> None:
    """Print a manifest's metrics beside those of the baselines: how good models are, apart from what lists are like."""
    rating_model = metrics.get("rating_model")
    shown = "explicit" if rating_model in (None, "bias") else rating_model
    parts = (
        ("Finding what people like", "ranking", "implicit", "popularity", is_of_accuracy),
        ("Predicted ratings", "rating", shown, "bias", is_of_accuracy),
        ("What the lists are like", "ranking", "implicit", "popularity", lambda name: not is_of_accuracy(name)),
    )
    for title, task, model, baseline, is_shown in parts:
        names = [name for name in metrics.get(task, {}).get(model, {}) if name != "users" and is_shown(name)]
        if names:
            console.print(_metrics_table(title, metrics, task, (model, baseline), names))
    if any(metrics.get("intervals", {}).values()):
        console.print("On ratings held out. In brackets: 95 % intervals, bootstrap over users.", style="dim")
    if rating_model:
        console.print(f"predicted_rating comes from: {MODEL_NAMES[rating_model]}", style="dim")
    for sentence in at_the_gate(metrics["gate"]) if "gate" in metrics else ():
        console.print(plain(sentence))


def is_of_accuracy(name: str) -> bool:
    """Whether a metric says how good a model is, and not what lists are like."""
    metric = metric_of(name)
    return metric is None or metric.at_k or metric in OF_ERRORS


def _metrics_table(
    title: str, metrics: Mapping[str, Any], task: str, models: tuple[str, str], names: Sequence[str]
) -> Table:
    model, baseline = models
    table = Table(title=title, title_justify="left")
    table.add_column("metric")
    for heading in (*(MODEL_NAMES[one] for one in models), "beside it"):
        table.add_column(heading, justify="right")
    values, bounds = metrics[task], metrics.get("intervals", {}).get(task, {})
    differences = metrics.get("differences", {}).get(task, {}).get(model, {})
    for name in names:
        if name not in values[baseline]:
            continue
        ends = bounds.get(model, {}).get(name), bounds.get(baseline, {}).get(name)
        which, said = verdict(
            name, values[model][name], values[baseline][name], *ends, difference=differences.get(name)
        )
        cells = (_with_interval(name, values[one][name], both) for one, both in zip(models, ends, strict=True))
        table.add_row(label_of(name), *cells, Text(said, style=STYLES[which]))
    return table


def _with_interval(name: str, value: float, bounds: Sequence[float] | None) -> Text:
    metric = metric_of(name)
    is_share = metric is not None and metric.is_share
    text = Text(percent(value) if is_share else f"{value:.3f}")
    if not bounds:
        return text
    low, high = (f"{100 * end:.0f}" if is_share else f"{end:.3f}" for end in bounds)
    return text + Text(f" ({low}-{high})", style="dim")


def recommendations_table(title: str, rows: Iterable[Mapping[str, Any]]) -> Table:
    """A table of one user's recommendations, from rows of the published CSV."""
    table = Table(title=plain(title), title_justify="left")
    for heading in ("#", "title and genres", "predicted\nrating", "why"):
        table.add_column(heading, justify="left" if heading in ("title and genres", "why") else "right")
    for row in rows:
        predicted = f"{float(row['predicted_rating']):.3f}" if row["predicted_rating"] else "-"
        table.add_row(str(row["rank"]), title_and_genres(row), predicted, plain(_short(reason_as_read(row["reason"]))))
    return table


def title_and_genres(row: Mapping[str, Any]) -> Text:
    """A movie in two lines: its title, then its genres."""
    return plain(_short(as_read(row["title"]))) + "\n" + plain(row["genres"].replace("|", ", "), style="dim")


def _short(text: str) -> str:
    """A text cut to what a person would read in a cell."""
    return text if len(text) <= MAX_CELL else f"{text[: MAX_CELL - 1]}\N{HORIZONTAL ELLIPSIS}"


def plain(text: str, style: str = "") -> Text:
    """Text from the data, safe to print: markup is shown as it is, and control characters become spaces."""
    return Text("".join(letter if letter.isprintable() else " " for letter in text), style=style)
