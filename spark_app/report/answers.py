"""Answers to questions about the published files, printed on a terminal: a user, a movie, a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from spark_app.model.metrics import label_of
from spark_app.report.comparison import headline_metrics
from spark_app.report.terminal import plain, print_metrics, recommendations_table, title_and_genres, wide_console
from spark_app.report.verdicts import SAME, verdict
from spark_app.report.words import as_read, plural

WIDE = 104
"""Columns of a terminal that has room for the time of each run; its id begins with the time as well."""

DENSE: dict[str, Any] = {"box": None, "pad_edge": False, "padding": (0, 2, 0, 0)}
"""A table without lines: the ids of runs and seven figures fit into 80 columns."""

STYLES = {"done": "", "failed": "red"}
"""How the status of a run is printed; any other is dim."""

SHOWN = 10
"""At most this many of a user's ratings are printed."""

CHOICE = 15
"""At most this many movies are offered to choose from."""


def show_user(answer: Mapping[str, Any]) -> None:
    """Print what a user rated highest, then what is recommended to them.

    Takes the answer of `published.user`.
    """
    console = wide_console()
    history, recommendations = answer["history"], answer["recommendations"]
    average = f", {answer['average_rating']:.2f} on average" if history else ""
    console.print(plain(f"User {answer['userId']}: {len(history):,} ratings{average}\n"))
    console.print(_history_table(f"The {min(SHOWN, len(history))} they rated highest", history[:SHOWN]))
    if named := [row for row in history[SHOWN:] if row["reason_for"]]:
        console.print(_history_table("Further movies that are named as reasons", named))
    if recommendations:
        console.print(recommendations_table(f"Recommended to user {answer['userId']}", recommendations))
    else:
        console.print("Nothing is recommended to them: they have rated every movie, or they joined after the last run.")


def _history_table(title: str, history: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("rating", justify="right")
    table.add_column("title and genres")
    table.add_column("when")
    table.add_column("a reason for")
    for row in history:
        reason_for = ", ".join(f"#{position}" for position in row["reason_for"])
        table.add_row(f"{row['rating']:g}", title_and_genres(row), (row["timestamp"] or "-")[:10], reason_for)
    return table


def show_movie(answer: Mapping[str, Any]) -> None:
    """Print a movie's figures, then the movies most similar to it.

    Takes the answer of `published.movie`.
    """
    console = wide_console()
    console.print(plain(f"{answer['movieId']}: {as_read(answer['title'])}", style="bold"))
    console.print(plain(answer["genres"].replace("|", ", ")))
    if answer["rating_count"]:
        console.print(
            f"{answer['rating_count']:,} ratings, {answer['average_rating']:.2f} on average, "
            f"{answer['damped_rating']:.2f} damped"
        )
    else:
        console.print("nobody has rated it")
    if answer["similar"] is None:
        console.print("Similar movies are not published: run the stage 'recommend', with similar.n above 0.")
        return
    if not answer["similar"]:
        console.print("No similar movies: nobody likes it yet, or it has fewer ratings than similar.min_ratings.")
        return
    table = Table(title="Liked by the same people", title_justify="left")
    table.add_column("title and genres")
    table.add_column("similarity", justify="right")
    table.add_column("ratings", justify="right")
    for row in answer["similar"]:
        table.add_row(title_and_genres(row), f"{row['score']:.2f}", f"{row['rating_count']:,}")
    console.print(table)


def show_choice(answer: Mapping[str, Any]) -> None:
    """Print the movies that words of a title may mean: the ids to ask for."""
    console = wide_console()
    movies = answer["movies"]
    table = Table(title=f"{len(movies):,} movies match; ask for one by its id", title_justify="left")
    table.add_column("id")
    table.add_column("title and genres")
    table.add_column("ratings", justify="right")
    for row in movies[:CHOICE]:
        table.add_row(str(row["movieId"]), title_and_genres(row), f"{row['rating_count']:,}")
    console.print(table)
    if len(movies) > CHOICE:
        console.print(f"and {len(movies) - CHOICE:,} with fewer ratings")


def show_popular(answer: Mapping[str, Any]) -> None:
    """Print a list of popular movies."""
    console = wide_console()
    table = Table(title=f"Most rated{' in ' + answer['genre'] if answer['genre'] else ''}", title_justify="left")
    for heading in ("#", "title and genres", "ratings", "predicted\nrating"):
        table.add_column(heading, justify="left" if heading == "title and genres" else "right")
    for row in answer["movies"]:
        predicted = "-" if row["predicted_rating"] is None else f"{row['predicted_rating']:.3f}"
        table.add_row(str(row["rank"]), title_and_genres(row), f"{row['rating_count']:,}", predicted)
    console.print(table)


def show_list(answer: Mapping[str, Any]) -> None:
    """Print ratings that were given on the spot, and the list for them."""
    console = wide_console()
    table = Table(title="Rated", title_justify="left")
    table.add_column("rating", justify="right")
    table.add_column("title and genres")
    for row in answer["ratings"]:
        table.add_row(f"{row['rating']:g}", title_and_genres(row))
    console.print(table)
    if answer["recommendations"]:
        console.print(recommendations_table("Recommended", answer["recommendations"]))
    else:
        console.print("Nothing is recommended: the settings leave no movie.")


def show_runs(answer: Mapping[str, Any]) -> None:
    """Print the last runs, one in a line, the latest first.

    Takes the answer of `published.runs`.
    """
    console, runs = wide_console(), answer["runs"]
    has_room = console.width >= WIDE
    table = Table(title=f"The last {len(runs)} of {plural(answer['of'], 'run')}", title_justify="left", **DENSE)
    for heading in ("run (UTC)", *(["when (UTC)"] if has_room else []), "job", "status"):
        table.add_column(heading, no_wrap=True)
    for heading in ("ratings", "NDCG", "RMSE", "secs"):
        table.add_column(heading, justify="right", no_wrap=True)
    for run in runs:
        when = [run["started"][:16].replace("T", " ")] if has_room else []
        table.add_row(
            run["run_id"],
            *when,
            plain(run["job"]),
            plain(run["status"], style=STYLES.get(run["status"], "dim")),
            *run_figures(run),
            f"{run['seconds']:,.0f}",
        )
    console.print(table)


def run_figures(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """Good ratings, NDCG@k and RMSE of a run; a dash for what it did not count."""
    figures = headline_metrics(manifest["metrics"])
    ndcg = next((value for name, value in figures.items() if name.startswith("ndcg@")), None)
    good = manifest["rows"].get("ratings", {}).get("good")
    return (
        "-" if good is None else f"{good:,}",
        *("-" if value is None else f"{value:.4f}" for value in (ndcg, figures.get("rmse"))),
    )


def show_comparison(answer: Mapping[str, Any]) -> None:
    """Print two runs side by side: what they were set to, what they read and counted, and how good the models are.

    Takes the answer of `compare_runs`.
    """
    console = wide_console()
    before, after = answer["runs"]
    for name, run in (("before", before), ("after", after)):
        console.print(plain(f"{name:<7} {run['job']} {run['run_id']}: {run['status']} in {run['seconds']:.0f} s"))
    for title, key in (("Settings that differ", "settings"), ("Versions that differ", "versions")):
        rows = [(name, *(_setting(both[side]) for side in ("before", "after"))) for name, both in answer[key].items()]
        _print_table(console, title, ("name", "before", "after"), rows)
    if not answer["settings"]:
        console.print("Both have the same settings.")
    if answer["metrics"]:
        if answer["changed"]:
            names = ", ".join(answer["changed"])
            console.print(
                plain(f"The metrics cannot be compared, because settings differ that decide on them: {names}")
            )
        rows = [(label_of(name), *_metric(name, both, answer["changed"])) for name, both in answer["metrics"].items()]
        _print_table(console, "Metrics, on ratings held out", ("metric", "before", "after", "change"), rows)
    for title, key in (("Volumes", "volumes"), ("Rows", "rows"), ("Seconds", "seconds")):
        rows = [(name, f"{both['before']:,}", f"{both['after']:,}") for name, both in _rounded(answer[key])]
        _print_table(console, title, ("what", "before", "after"), rows)


def _setting(value: Any) -> str:
    return "not set" if value is None else str(value)


def _metric(name: str, both: Mapping[str, Any], changed: Mapping[str, Any]) -> tuple[str, str, str]:
    """A metric of both runs, and whether it is better or worse by more than chance."""
    which, said = verdict(name, both["after"], both["before"], both.get("interval_after"), both.get("interval_before"))
    change = "not comparable" if changed else said if which == SAME else f"{said}: {which}"
    return f"{both['before']:.4f}", f"{both['after']:.4f}", change


def _rounded(figures: Mapping[str, Mapping[str, float]]) -> Iterator[tuple[str, dict[str, float]]]:
    """Figures of both runs, to four digits after the point."""
    for name, both in figures.items():
        yield name.replace("_", " "), {side: round(both[side], 4) for side in ("before", "after")}


def show_run(manifest: Mapping[str, Any]) -> None:
    """Print what a run did, from its manifest: stages, rows, rejects, metrics, outputs."""
    console = wide_console()
    headline = f"{manifest['job']} {manifest['run_id']}: {manifest['status']} in {manifest['seconds']:.0f} s"
    console.print(plain(headline, style="bold"))
    if manifest["error"]:
        console.print(plain(manifest["error"], style="red"))
    _print_table(console, "Stages", ("stage", "status", "seconds"), [tuple(s.values()) for s in manifest["stages"]])
    rows = [(table, part, f"{count:,}") for table, parts in manifest["rows"].items() for part, count in parts.items()]
    _print_table(console, "Rows", ("table", "part", "count"), rows)
    rejects = [
        (t, reason, f"{count:,}") for t, reasons in manifest["rejects"].items() for reason, count in reasons.items()
    ]
    _print_table(console, "Rejects", ("table", "reason", "count"), rejects)
    if "ranking" in manifest["metrics"]:
        print_metrics(console, manifest["metrics"])
    for output in manifest["outputs"]:
        console.print(plain(f"wrote {output}"), soft_wrap=True)


def _print_table(console: Console, title: str, headings: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    if not rows:
        return
    table = Table(*headings, title=title, title_justify="left")
    table.columns[-1].justify = "right"
    for row in rows:
        table.add_row(*(plain(str(cell)) for cell in row))
    console.print(table)
