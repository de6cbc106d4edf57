"""The log of a job: one readable line per event, or JSON lines."""

from __future__ import annotations

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

from spark_app.platform.settings import Log

logger = logging.getLogger("movie_reco")


def set_up(log_settings: Log, **facts: str) -> None:
    """Log this package's events to standard error, in the format of the settings; JSON lines carry the `facts` too."""
    handler = logging.StreamHandler(sys.stderr)
    if log_settings.format == "json":
        handler.setFormatter(
            JsonFormatter(
                "{levelname}{message}",
                style="{",
                timestamp="time",
                rename_fields={"levelname": "level"},
                static_fields=facts,
            )
        )
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S"))
    logging.disable(logging.NOTSET)  # an interrupted run logs no more
    logger.handlers = [handler]
    logger.setLevel(log_settings.level.upper())
    logger.propagate = False
