"""`python -m spark_app show`: shows a user, a movie or a run from the published files, in a second, without Spark."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from spark_app.platform import storage
from spark_app.platform.errors import JobError
from spark_app.platform.session import check_schemes, explain
from spark_app.report import answers
from spark_app.zones import published
from spark_app.zones.processed import ProcessedZone

LATEST = ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Answer a question as a command. An expected failure exits with the exit code that a job would have."""
    options = _parser().parse_args(arguments)
    try:
        _answer(options)
    except Exception as error:
        failure = error if isinstance(error, JobError) else explain(error)
        if failure is None:
            raise
        print(f"show: {failure}", file=sys.stderr)  # noqa: T201
        sys.exit(failure.exit_code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m spark_app", description="Show what the jobs have published.")
    show = parser.add_subparsers(dest="question", required=True).add_parser(
        "show",
        help="a user, a movie or a run",
        description="Show a user, a movie or a run from the files of a processed zone, without starting Spark.",
    )
    show.add_argument("--processed-path", required=True, metavar="PATH", help="root of the processed zone")
    show.add_argument("--json", action="store_true", help="print one JSON object, for programs")
    question = show.add_mutually_exclusive_group(required=True)
    question.add_argument("--user", metavar="ID", help="the ratings of a user, and the recommendations for them")
    question.add_argument("--movie", metavar="ID", help="the statistics of a movie, and the movies most similar to it")
    question.add_argument(
        "--run",
        nargs="?",
        const=LATEST,
        metavar="RUN_ID",
        help="the manifest of a run (default: the last)",
    )
    return parser


def _answer(options: argparse.Namespace) -> None:
    check_schemes(options.processed_path)
    zone = ProcessedZone(storage.normalise(options.processed_path))
    show: Callable[[Any], None]
    if options.user is not None:
        answer, show = published.user(zone, options.user), answers.show_user
    elif options.movie is not None:
        answer, show = published.movie(zone, options.movie), answers.show_movie
    else:
        answer, show = published.manifest(zone, options.run), answers.show_run
    if options.json:
        print(json.dumps(answer, indent=2, ensure_ascii=False))  # noqa: T201
    else:
        show(answer)
