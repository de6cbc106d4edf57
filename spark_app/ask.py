"""`python -m spark_app show` and `check`: answers in a second, without Spark.

`show` shows a user, a movie or runs from the published files; `check` proposes settings for the files of a raw folder.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from spark_app.platform import log, storage
from spark_app.platform.errors import InputError, JobError, UsageError
from spark_app.platform.session import check_schemes, explain
from spark_app.platform.settings import Log, build_settings
from spark_app.report import answers
from spark_app.report.comparison import compare_runs
from spark_app.serve import Recommender
from spark_app.zones import published
from spark_app.zones.processed import ProcessedZone
from spark_app.zones.rated import read_ratings
from spark_app.zones.raw_check import proposed_settings
from spark_app.zones.stored_models import fitted_input

LATEST = ""
SHOWN_RUNS = 20

NAMED = 3
"""Movies that a message names."""

BROKEN_PIPE = 141
"""The exit code of a command whose reader has gone, as a shell gives it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Answer a question as a command. An expected failure exits with the exit code that a job would have."""
    options = _parser().parse_args(arguments)
    try:
        _answer(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough. Python would complain once more when it closes its output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)
    except Exception as error:
        failure = error if isinstance(error, JobError) else explain(error)
        if failure is None:
            raise
        print(f"{options.question}: {failure}", file=sys.stderr)  # noqa: T201
        sys.exit(failure.exit_code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m spark_app", description="Show what the jobs have published, and check what they are to read."
    )
    questions = parser.add_subparsers(dest="question", required=True)
    check = questions.add_parser(
        "check",
        help="settings for the files of a raw folder",
        description="Look at the files of a raw folder and print the settings that read them, as TOML for --config.",
    )
    check.add_argument("raw_path", metavar="RAW", help="root of the raw zone")
    show = questions.add_parser(
        "show",
        help="a user, a movie or a run",
        description="Show a user, a movie or a run from the files of a processed zone, without starting Spark.",
    )
    show.add_argument("--processed-path", required=True, metavar="PATH", help="root of the processed zone")
    show.add_argument("--json", action="store_true", help="print one JSON object, for programs")
    question = show.add_mutually_exclusive_group(required=True)
    question.add_argument("--user", metavar="ID", help="the ratings of a user, and the recommendations for them")
    question.add_argument(
        "--movie", metavar="ID_OR_TITLE", help="the statistics of a movie, and the movies most similar to it"
    )
    question.add_argument(
        "--popular", nargs="?", const="", metavar="GENRE", help="the most rated movies, of all genres or of one"
    )
    question.add_argument(
        "--rate",
        metavar="MOVIE=RATING",
        action="append",
        help="a list on the spot for somebody with this rating, such as 260=4.5; can be repeated",
    )
    question.add_argument(
        "--rates", metavar="FILE", help="the same for the ratings in a CSV of movies and ratings, on a disk or in S3"
    )
    question.add_argument(
        "--run",
        nargs="?",
        const=LATEST,
        metavar="RUN_ID",
        help="the manifest of a run (default: the last pipeline)",
    )
    question.add_argument(
        "--runs",
        nargs="?",
        type=int,
        const=SHOWN_RUNS,
        metavar="COUNT",
        help=f"the last runs, one in a line (default: {SHOWN_RUNS})",
    )
    question.add_argument("--compare", nargs=2, metavar="RUN_ID", help="two runs: settings, data and metrics")
    show.add_argument(
        "--set",
        metavar="recommend.KEY=VALUE",
        action="append",
        default=[],
        help="for --rate and --rates: one setting of [recommend], such as recommend.min_year=1990; can be repeated",
    )
    return parser


def _answer(options: argparse.Namespace) -> None:
    if options.question == "check":
        check_schemes(options.raw_path)
        print(proposed_settings(storage.normalise(options.raw_path)), end="")  # noqa: T201
        return
    check_schemes(options.processed_path)
    zone = ProcessedZone(storage.normalise(options.processed_path))
    show: Callable[[Any], None]
    if options.user is not None:
        answer, show = published.user(zone, options.user), answers.show_user
    elif options.movie is not None:
        answer, show = _movie(zone, options.movie)
    elif options.popular is not None:
        answer, show = published.popular(zone, options.popular), answers.show_popular
    elif options.rate or options.rates:
        answer, show = _on_the_spot(zone, options), answers.show_list
    elif options.runs is not None:
        answer, show = published.runs(zone, max(options.runs, 1)), answers.show_runs
    elif options.compare is not None:
        before, after = (published.manifest(zone, run_id) for run_id in options.compare)
        answer, show = compare_runs(before, after), answers.show_comparison
    else:
        answer, show = published.manifest(zone, options.run), answers.show_run
    if options.json:
        print(json.dumps(answer, indent=2, ensure_ascii=False))  # noqa: T201
    else:
        show(answer)


def _movie(zone: ProcessedZone, text: str) -> tuple[dict[str, Any], Callable[[Any], None]]:
    """The answer about a movie named by its id or title; where several match, a choice of them."""
    movies = published.movies_called(zone, text)
    if len(movies) > 1:
        return {"movies": movies}, answers.show_choice
    return published.movie(zone, str(movies[0]["movieId"])), answers.show_movie


def _on_the_spot(zone: ProcessedZone, options: argparse.Namespace) -> dict[str, Any]:
    """The ratings of the command line or of a file, and the list for somebody who has given them."""
    log.set_up(Log(level="warning"))
    settings = build_settings(assignments=options.set, input_settings=fitted_input(zone))
    recommender = Recommender.load(zone.root, settings.recommend)
    if options.rates:
        ratings = dict(read_ratings(options.rates, recommender.models.input))
    else:
        given = map(_parsed, options.rate)
        ratings = {_movie_id(zone, recommender, name): value for name, value in given}
    return {"ratings": recommender.rated(ratings), "recommendations": recommender.recommend(ratings)}


def _parsed(text: str) -> tuple[str, float]:
    """The movie and the rating in `260=4.5`. Raises UsageError for a text of another form."""
    movie, equals, rating = text.rpartition("=")
    with contextlib.suppress(ValueError):
        if equals and movie.strip():
            return movie.strip(), float(rating)
    raise UsageError(f"--rate takes MOVIE=RATING, such as 260=4.5; got '{text}'")


def _movie_id(zone: ProcessedZone, recommender: Recommender, name: str) -> str:
    """The id of a movie that a person names by its id or by its title. Raises InputError where several match."""
    if recommender.knows(name):
        return name
    movies = published.movies_called(zone, name)
    if len(movies) > 1:
        some = ", ".join(f"{row['movieId']} {row['title']}" for row in movies[:NAMED])
        raise InputError(f"{len(movies)} movies match {name}: give an id, such as {some}")
    return str(movies[0]["movieId"])
