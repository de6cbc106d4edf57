"""The gate's test: a difference on the same users counts only if it is more than chance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from spark_app.model.gate import Verdict, compare_rankings, why_not_comparable
from spark_app.model.metrics import LIST_NUMBERS, Judged
from spark_app.platform.settings import build_settings

USERS = 400


def judged(ndcg: np.ndarray, popularity: np.ndarray | None = None) -> Judged:
    """Users of whom only the NDCG is known."""

    def numbers(values: np.ndarray) -> np.ndarray:
        table = np.ones((len(values), len(LIST_NUMBERS)))
        table[:, LIST_NUMBERS.index("ndcg")] = values
        return table

    models = {"implicit": numbers(ndcg), "popularity": numbers(ndcg if popularity is None else popularity)}
    return Judged(np.ones(len(ndcg), dtype=np.int64), models, {})


def noise(scale: float) -> np.ndarray:
    drawn = np.random.default_rng(1).normal(0, scale, USERS)
    return np.asarray(drawn - drawn.mean())


def test_the_test_is_paired_so_a_small_steady_difference_is_seen() -> None:
    users = np.random.default_rng(2).random(USERS)  # users differ far more than the two rankings do
    worse = compare_rankings(judged(users - 0.01 + noise(0.02)), judged(users), "implicit", seed=3)
    assert worse.verdict == Verdict.WORSE
    assert compare_rankings(judged(users), judged(users - 0.01), "implicit", seed=3).verdict == Verdict.BETTER
    expected = stats.bootstrap((noise(0.02) - 0.01,), np.mean, method="percentile", rng=np.random.default_rng(4))
    assert worse.interval == pytest.approx(tuple(expected.confidence_interval), abs=0.0003)
    assert worse.difference == pytest.approx(worse.ours - worse.reference)


def test_a_difference_that_may_be_chance_is_a_tie() -> None:
    users = np.full(USERS, 0.3)
    found = compare_rankings(judged(users - 0.001 + noise(0.1)), judged(users), "implicit", seed=3)
    assert found.ours < found.reference
    assert found.verdict == Verdict.TIE
    assert compare_rankings(judged(users), judged(users), "implicit", seed=3).verdict == Verdict.TIE


def test_popularity_counts_as_often_as_the_lift_says() -> None:
    both = judged(np.full(USERS, 0.3) + noise(0.01), np.full(USERS, 0.2))
    assert compare_rankings(both, both, "popularity", seed=3).verdict == Verdict.BETTER
    assert compare_rankings(both, both, "popularity", seed=3, lift=1.5).verdict == Verdict.TIE
    assert compare_rankings(both, both, "popularity", seed=3, lift=2.0).verdict == Verdict.WORSE


def test_a_ranking_that_nobody_can_judge_does_not_pass() -> None:
    nobody = judged(np.empty(0))
    found = compare_rankings(nobody, nobody, "popularity", seed=3)
    assert (found.ours, found.difference, found.verdict) == (0.0, 0.0, Verdict.WORSE)


@pytest.mark.parametrize(
    ("now", "then", "begins", "reason"),
    [
        ((), (), (None, None), None),
        (("train.k=5", "train.relevant=3.0", "implicit_als.rank=2"), (), (None, None), None),
        (("train.seed=1",), (), (None, None), "train.seed was 42 and is 1 now"),
        (("train.holdout_share=0.3",), (), (None, None), "train.holdout_share was 0.2 and is 0.3 now"),
        (("input.scale_max=10",), (), (None, None), "input.scale_max was 5.0 and is 10.0 now"),
        (("train.holdout=time",), (), (5, None), "train.holdout was hash and is time now"),
        (("train.holdout=time",), ("train.holdout=time",), (5, 5), None),
        (("train.holdout=time", "train.seed=1"), ("train.holdout=time",), (6, 5), None),
        (("train.holdout=time",), ("train.holdout=time",), (4, 5), "the holdout begins before the one of its fit"),
        (("train.holdout=time",), ("train.holdout=time",), (5, None), "the holdout begins before the one of its fit"),
    ],
)
def test_models_are_judged_only_on_what_they_have_not_learned_from(
    now: tuple[str, ...], then: tuple[str, ...], begins: tuple[int | None, int | None], reason: str | None
) -> None:
    settings, earlier = build_settings(assignments=now), build_settings(assignments=then).model_dump(mode="json")
    assert why_not_comparable(settings, earlier, *begins) == reason
