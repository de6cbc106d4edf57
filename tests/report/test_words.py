"""Numbers and times as text for people."""

from __future__ import annotations

import pytest

from spark_app.report.words import as_read, duration, minute, number, percent, plural, reason_as_read, size


@pytest.mark.parametrize(
    ("share", "text"),
    [
        *((0, "0 %"), (0.0061, "0.6 %"), (0.01, "1 %"), (0.157, "16 %"), (0.998, "99.8 %"), (1, "100 %")),
        *((0.00049, "under 0.1 %"), (0.0006, "0.1 %"), (0.9994, "99.9 %"), (0.99951, "over 99.9 %")),
    ],
)
def test_shares(share: float, text: str) -> None:
    assert percent(share).replace("\u202f", " ") == text


def test_amounts() -> None:
    assert number(1234567.4) == "1,234,567"
    assert plural(1, "user") == "1 user"
    assert plural(1200, "user") == "1,200 users"
    assert size(2_483_723).replace("\u202f", " ") == "2.5 MB"
    assert size(999).replace("\u202f", " ") == "999 bytes"


def test_times() -> None:
    assert minute("2026-11-24T21:56:50+00:00") == "24 November 2026, 21:56 UTC"
    assert duration(12.34).replace("\u202f", " ") == "12.3 s"
    assert duration(228.9).replace("\u202f", " ") == "3 min 49 s"


@pytest.mark.parametrize(
    ("title", "read"),
    [
        ("Fugitive, The (1993)", "The Fugitive (1993)"),
        ("American President, The (1995)", "The American President (1995)"),
        ("Beautiful Mind, A (2001)", "A Beautiful Mind (2001)"),
        ("Children, The (Cité des enfants, La) (1995)", "The Children (Cité des enfants, La) (1995)"),
        ("Enfer, L' (1994)", "L'Enfer (1994)"),
        ("Good, the Bad and the Ugly, The", "The Good, the Bad and the Ugly"),
        ("Crouching Tiger, Hidden Dragon (2000)", "Crouching Tiger, Hidden Dragon (2000)"),
        ("Up, Theo (2009)", "Up, Theo (2009)"),
        ("", ""),
    ],
)
def test_titles_stand_as_people_say_them(title: str, read: str) -> None:
    assert as_read(title) == read


def test_so_do_the_titles_of_a_reason() -> None:
    reason = "you liked Fugitive, The (1993) and Wizard of Oz, The (1939)"
    assert reason_as_read(reason) == "you liked The Fugitive (1993) and The Wizard of Oz (1939)"
    assert reason_as_read("you liked Romeo and Juliet (1968)") == "you liked Romeo and Juliet (1968)"
    assert reason_as_read("based on your ratings, The") == "based on your ratings, The"
