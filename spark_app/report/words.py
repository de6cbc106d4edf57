"""Numbers and times as text for people."""

from __future__ import annotations

from datetime import datetime

THIN = "\u202f"
"""A space that keeps a number and its unit together."""

KILO = 1000

MODEL_NAMES = {
    "implicit": "implicit ALS",
    "explicit": "explicit ALS",
    "bias": "biases only",
    "stacked": "ALS + biases",
    "popularity": "popularity",
}
"""The labels of the models in the manifest."""


def number(value: float) -> str:
    """A count, with commas between thousands."""
    return f"{value:,.0f}"


def percent(share: float) -> str:
    """A share from 0 to 1 as `16 %`; shares near 0 or 1 get a decimal, so that they do not read as 0 % or 100 %."""
    digits = 1 if 0 < share < 0.0995 or 0.995 <= share < 1 else 0  # noqa: PLR2004
    return f"{round(100 * share, digits):g}{THIN}%"


def size(count: float) -> str:
    """A number of bytes as `999 bytes`, `2.5 MB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < KILO or unit == "GB":
            return f"{count:,.0f}{THIN}{unit}" if unit == "bytes" else f"{count:,.1f}{THIN}{unit}"
        count /= KILO
    raise AssertionError("unreachable")


def day(started: str) -> str:
    """The day of an ISO time: `24 November 2026`."""
    time = datetime.fromisoformat(started)
    return f"{time.day} {time:%B %Y}"


def minute(started: str) -> str:
    """An ISO time in UTC to the minute: `24 November 2026, 21:56 UTC`."""
    return f"{day(started)}, {datetime.fromisoformat(started):%H:%M} UTC"


def duration(seconds: float) -> str:
    """Seconds as `3 min 49 s`."""
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds:.1f}{THIN}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}{THIN}min {rest}{THIN}s"


def plural(count: float, noun: str) -> str:
    """`1 user`, `610 users`."""
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"
