"""The parser of command lines, whose errors are one line that says what to do."""

from __future__ import annotations

import argparse
from typing import NoReturn

from spark_app.platform.errors import UsageError


class ArgumentParser(argparse.ArgumentParser):
    """A parser that raises UsageError where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with the message of argparse."""
        raise UsageError(f"{message}; --help lists the options")
