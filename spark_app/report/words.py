"""Numbers and times as text for people."""

from __future__ import annotations

import re
from datetime import datetime

from spark_app.data.liked import AND, YOU_LIKED

THIN = "\u202f"
"""A space that keeps a number and its unit together."""

KILO = 1000

LEAST_SHARE = 0.0005
"""A smaller share rounds to 0.0 %."""

ARTICLES = "The|A|An|La|Le|Les|L'|Il|Lo|El|Los|Las|Der|Die|Das|Un|Une"
SORTED_TITLE = re.compile(rf"([^(]+?), ({ARTICLES})((?: \(.*)?)", flags=re.DOTALL)
"""A title whose article stands behind it, so that titles sort by their first word: `Fugitive, The (1993)`."""

BETWEEN_TITLES = re.compile(r"(?<=\(\d{4}\)) and ")
APOSTROPHE = "'"

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
    """A share from 0 to 1 as `16 %`; only nothing and everything read as 0 % and 100 %."""
    if 0 < share < LEAST_SHARE:
        return f"under 0.1{THIN}%"
    if 1 - LEAST_SHARE < share < 1:
        return f"over 99.9{THIN}%"
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


def as_read(title: str) -> str:
    """A title as people say it: `The Fugitive (1993)` for `Fugitive, The (1993)`."""
    if match := SORTED_TITLE.fullmatch(title):
        name, article, rest = match.groups()
        return f"{article}{'' if article.endswith(APOSTROPHE) else ' '}{name}{rest}"
    return title


def reason_as_read(reason: str) -> str:
    """A reason whose titles stand as people say them; unchanged where it cannot be told where one title ends."""
    if not reason.startswith(YOU_LIKED):
        return reason
    titles = BETWEEN_TITLES.split(reason.removeprefix(YOU_LIKED))
    return YOU_LIKED + AND.join(as_read(title) for title in titles)
