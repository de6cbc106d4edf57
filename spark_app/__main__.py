"""`movie-reco`, or `python -m spark_app`: `show` and `check` answer without Spark, `run` runs a job."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from spark_app import ask


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command of the command line. The name of a job alone means `run` too: a container is given only that."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] in (["show"], ["check"]):
        ask.main(words)
        return
    from spark_app import launch  # noqa: PLC0415 - the others answer in a second, without Spark

    launch.main(words[words[:1] == ["run"] :])


if __name__ == "__main__":
    main()
