"""Answers to questions about the published files, printed on a terminal: a user, a movie, a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from spark_app.report.terminal import metrics_table, plain, recommendations_table, title_and_genres, wide_console

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
    console.print(plain(f"{answer['movieId']}: {answer['title']}", style="bold"))
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
        console.print(metrics_table(manifest["metrics"]))
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
