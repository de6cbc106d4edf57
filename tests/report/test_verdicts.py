"""Verdicts on figures, in words."""

from __future__ import annotations

import pytest

from spark_app.report.verdicts import at_the_gate, verdict

GATE = {"metric": "ndcg@10", "implicit": 0.307, "popularity": 0.3083, "min_lift": 1.0, "passed": True}


@pytest.mark.parametrize(
    ("name", "value", "reference", "bounds", "said"),
    [
        ("rmse", 0.84, 0.8669, ([0.83, 0.85], [0.86, 0.88]), ("better", "3.1 % lower error")),
        ("rmse", 0.84, 0.8669, ([0.82, 0.87], [0.85, 0.89]), ("same", "no real difference")),
        ("ndcg@10", 0.3, 0.15, ([0.28, 0.32], [0.13, 0.17]), ("better", "2.0 times")),
        ("ndcg@10", 0.27, 0.3, (None, None), ("worse", "10.0 % lower")),
        ("coverage", 0.02, 0.0, (None, None), ("better", "from 0 to 0.02")),
        ("popularity_lift", 2.0, 3.0, (None, None), ("better", "33.3 % lower")),
        ("gini", 0.9, 0.9, (None, None), ("same", "the same")),
    ],
)
def test_a_difference_is_told_only_where_it_is_real(
    name: str, value: float, reference: float, bounds: tuple[list[float] | None, ...], said: tuple[str, str]
) -> None:
    which, words = verdict(name, value, reference, *bounds)
    assert (which, words.replace("\u202f", " ")) == said


def test_a_tie_at_the_gate_is_told_apart_from_a_loss() -> None:
    tie = {**GATE, "verdict": "tie", "difference": -0.0013, "interval": [-0.02, 0.018]}
    assert [line.replace("\u202f", " ") for line in at_the_gate(tie)] == [
        "It passed its gate: NDCG@10 0.307, beside the 0.308 of popularity: no real difference, -0.0013 "
        "(95 % interval -0.0200 to +0.0180)."
    ]
    assert at_the_gate(GATE) == ["It passed its gate: NDCG@10 0.307, beside the 0.308 of popularity."]


def test_the_published_ranking_stands_beside_it() -> None:
    worse = {"run_id": "r1", "implicit": 0.35, "verdict": "worse", "difference": -0.043, "interval": [-0.05, -0.04]}
    found = at_the_gate({**GATE, "passed": False, "published": worse})
    assert found[0].startswith("It failed its gate: ")
    assert found[1].replace("\u202f", " ") == (
        "On the same users the ranking published before (run r1) has 0.350: worse by -0.0430 "
        "(95 % interval -0.0500 to -0.0400)."
    )
    withheld = {"run_id": "r1", "withheld": "train.seed was 1 and is 2 now"}
    assert at_the_gate({**GATE, "published": withheld})[1] == (
        "It was not compared with the ranking published before (run r1): train.seed was 1 and is 2 now."
    )


def test_a_difference_on_the_same_users_decides_where_it_is_known() -> None:
    overlapping = ([0.816, 0.866], [0.840, 0.891])
    assert verdict("rmse", 0.84, 0.8647, *overlapping)[0] == "same"
    which, said = verdict("rmse", 0.84, 0.8647, *overlapping, [-0.03, -0.02])
    assert (which, said.replace("\u202f", " ")) == ("better", "2.9 % lower error")
    assert verdict("rmse", 0.84, 0.8647, [0.8, 0.81], [0.9, 0.91], [-0.03, 0.001])[0] == "same"
