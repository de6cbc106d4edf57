"""Numbers and times as text for people."""

from __future__ import annotations

import pytest

from spark_app.report.words import duration, minute, number, percent, plural, size


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (0.0061, "0.6 %"), (0.01, "1 %"), (0.157, "16 %"), (0.998, "99.8 %"), (1, "100 %")],
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
