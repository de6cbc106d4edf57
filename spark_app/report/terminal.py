"""The results of a run, as a person in front of a terminal wants to see them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

MIN_WIDTH = 110
LOWER_IS_BETTER = ("rmse", "mae")
NAMES = {"als": "ALS", "bias": "biases only", "popularity": "popularity"}


def show_results(manifest: Mapping[str, Any], top: Sequence[Mapping[str, str]], places: Mapping[str, str]) -> None:
    """Print metrics beside their baselines, the top N of one user, and where everything is.

    Takes a run's manifest, rows of the published CSV for one user, and the paths to name.
    """
    console = Console(highlight=False)
    if console.width < MIN_WIDTH:
        console = Console(highlight=False, width=MIN_WIDTH, soft_wrap=True)
    console.print()
    console.print(_metrics_table(manifest["metrics"]))
    if top:
        console.print(_top_table(top))
    for what, path in places.items():
        console.print(Text(f"{what:<16}", style="bold") + Text(path), soft_wrap=True)


def _metrics_table(metrics: Mapping[str, Any]) -> Table:
    table = Table(title="On ratings held out, never seen in training", title_justify="left")
    for heading in ("metric", "model", "", "baseline", "", ""):
        table.add_column(heading, justify="right" if heading == "" else "left")
    for task, baseline in (("rating", "bias"), ("ranking", "popularity")):
        ours, theirs = metrics[task]["als"], metrics[task][baseline]
        for metric in ours:
            if metric == "users":
                continue
            table.add_row(
                metric.upper() if metric in LOWER_IS_BETTER else metric,
                NAMES["als"],
                f"{ours[metric]:.4f}",
                NAMES[baseline],
                f"{theirs[metric]:.4f}",
                _verdict(metric, ours[metric], theirs[metric]),
            )
    table.caption = f"predicted_rating comes from: {NAMES[metrics['rating_model']]}"
    return table


def _verdict(metric: str, ours: float, theirs: float) -> str:
    if ours == theirs:
        return "the same"
    better = ours < theirs if metric in LOWER_IS_BETTER else ours > theirs
    ratio = f"{ours / theirs:.2f} x" if theirs else "-"
    return f"[green]{ratio} better[/green]" if better else f"[yellow]{ratio} worse[/yellow]"


def _top_table(top: Iterable[Mapping[str, str]]) -> Table:
    rows = list(top)
    table = Table(title=f"Top {len(rows)} for user {rows[0]['userId']}", title_justify="left")
    for heading in ("#", "title and genres", "predicted\nrating", "why"):
        table.add_column(heading, justify="left" if heading in ("title and genres", "why") else "right")
    for row in rows:
        title = Text.assemble(_plain(row["title"]), "\n", _plain(row["genres"].replace("|", ", "), style="dim"))
        table.add_row(_plain(row["rank"]), title, _plain(row["predicted_rating"]), _plain(row["reason"]))
    return table


def _plain(text: str, style: str = "") -> Text:
    """Data from others, as it is: no markup in it is followed, and nothing that steers a terminal gets through."""
    return Text("".join(letter if letter.isprintable() else " " for letter in text), style=style)
