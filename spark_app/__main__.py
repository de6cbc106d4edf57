"""`movie-reco`, or `python -m spark_app`: `show` and `check` answer without Spark, `run` runs a job."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from spark_app import ask


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command of the command line. The name of a job alone means `run` too: a container is given only that."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] in (["show"], ["check"]):
        if arguments is None:
            _answer_and_end(words)
        ask.main(words)
        return
    from spark_app import launch  # noqa: PLC0415 - the others answer in a second, without Spark

    launch.main(words[words[:1] == ["run"] :])


def _answer_and_end(words: Sequence[str]) -> NoReturn:
    """Answer a question, and end this process at once.

    When Python shuts down, a thread of Arrow that still runs can abort it, after the answer is printed:
    https://github.com/apache/arrow/issues/34314.
    """
    code: int | str | None = 0
    try:
        ask.main(words)
    except SystemExit as ended:
        code = ended.code
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    main()
