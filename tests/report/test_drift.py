"""Drift of distributions, against figures worked out by hand."""

from __future__ import annotations

import math

import pytest

from spark_app.report.drift import population_stability_index, verdict


def test_the_index_of_two_distributions() -> None:
    # (0.75 - 0.5) ln 1.5 + (0.25 - 0.5) ln 0.5
    assert population_stability_index({"a": 1, "b": 1}, {"a": 3, "b": 1}) == pytest.approx(0.2746531)
    assert population_stability_index({"a": 3, "b": 1}, {"a": 1, "b": 1}) == pytest.approx(0.2746531)


def test_size_does_not_matter_and_equal_shares_give_zero() -> None:
    assert population_stability_index({"a": 1, "b": 3}, {"a": 100, "b": 300}) == pytest.approx(0.0)


def test_a_new_value_counts_as_one_in_ten_thousand_before() -> None:
    index = population_stability_index({"a": 10}, {"a": 5, "b": 5})
    assert index == pytest.approx(0.5 * math.log(2) + 0.4999 * math.log(5000))


def test_an_empty_distribution_is_an_error() -> None:
    with pytest.raises(ValueError, match="without counts"):
        population_stability_index({}, {"a": 1})


@pytest.mark.parametrize(
    ("index", "word"), [(0.0, "stable"), (0.0999, "stable"), (0.1, "moved"), (0.2499, "moved"), (0.25, "another")]
)
def test_the_usual_thresholds(index: float, word: str) -> None:
    assert verdict(index) == word
