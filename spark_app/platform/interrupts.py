"""Ctrl-C, and a request to end such as that of `docker stop`: a run stops at once, and says so in one line."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from spark_app.platform.log import logger

SHELL_CODE = 128
"""A process that a signal ends has this exit code plus the signal's number: 130 after Ctrl-C."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Interrupts:
    """Whether a run was interrupted: its exit code, and how."""

    exit_code: int = 0
    how: str = ""

    def __bool__(self) -> bool:
        return self.exit_code > 0


@contextlib.contextmanager
def raised(job: str, came: Interrupts) -> Iterator[None]:
    """While the block runs, a signal notes itself in `came`, logs one line and raises KeyboardInterrupt.

    The terminal sends Ctrl-C to Java too, so all that the run still asks of Spark may fail; nothing of this is logged.
    Spark sets a handler of its own when it starts, so this must begin after that. A second signal ends the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - Python gives it
        came.exit_code = SHELL_CODE + number
        came.how = "interrupted by Ctrl-C" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
        logger.error("%s: %s; whatever it did not reach is unchanged", job, came.how)
        logging.disable()
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        raise KeyboardInterrupt

    before = {each: signal.signal(each, interrupt) for each in SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
