"""What the charts show, worked out by hand."""

from __future__ import annotations

import pytest

from spark_app.report.figures import bin_start, doubling_bin


@pytest.mark.parametrize(
    ("value", "name", "start"),
    [(0, "0", "0"), (1, "1", "1"), (7, "4-7", "4"), (8, "8-15", "8"), (1500, "1,024-2,047", "1,024")],
)
def test_bins_are_named(value: float, name: str, start: str) -> None:
    assert doubling_bin(value) == name
    assert bin_start(name) == start


def test_a_negative_rating_is_not_a_bin() -> None:
    assert bin_start("-1") == "-1"
