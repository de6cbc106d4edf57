"""The text of a reason, and the titles that it names."""

from __future__ import annotations

from collections.abc import Collection, Sequence

YOU_LIKED, AND = "you liked ", " and "


def reason_of(titles: Sequence[str]) -> str:
    """The reason that names liked movies."""
    return YOU_LIKED + AND.join(titles)


def titles_in(reason: str, titles: Collection[str]) -> list[str]:
    """The titles, of those given, that a reason names; a title may itself contain ` and `. Others name none."""
    if not reason.startswith(YOU_LIKED):
        return []
    named = reason.removeprefix(YOU_LIKED)
    if named in titles:
        return [named]
    words = named.split(AND)
    pairs = ((AND.join(words[:cut]), AND.join(words[cut:])) for cut in range(1, len(words)))
    return next(([first, second] for first, second in pairs if first in titles and second in titles), [])
