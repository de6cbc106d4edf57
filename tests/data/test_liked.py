from __future__ import annotations

import pytest

from spark_app.data.liked import reason_of, titles_in

TITLES = {"Heat (1995)", "Bonnie and Clyde (1967)", "You, Me and Dupree (2006)", "Clyde (1967)"}


@pytest.mark.parametrize(
    "named",
    [
        ["Heat (1995)"],
        ["Bonnie and Clyde (1967)"],
        ["Heat (1995)", "Bonnie and Clyde (1967)"],
        ["You, Me and Dupree (2006)", "Bonnie and Clyde (1967)"],
    ],
)
def test_a_reason_names_titles_whatever_words_are_in_them(named: list[str]) -> None:
    assert titles_in(reason_of(named), TITLES) == named


@pytest.mark.parametrize("reason", ["popular", "based on your ratings", "you liked Casino (1995)", "you liked A and B"])
def test_other_reasons_name_none(reason: str) -> None:
    assert titles_in(reason, TITLES) == []
