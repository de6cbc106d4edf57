from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from spark_app.model.bootstrap import ratio_intervals, ratios


def test_a_figure_is_a_sum_over_a_sum() -> None:
    found = ratios(np.array([[1.0, 1.0], [2.0, 0.0]]), np.array([[1.0, 0.0], [3.0, 0.0]]))
    assert found[0] == 0.75
    assert np.isnan(found[1])


def test_the_interval_of_a_mean_and_of_a_ratio_agrees_with_scipy() -> None:
    rng = np.random.default_rng(1)
    up, down = rng.exponential(1.0, 400), rng.integers(1, 5, 400).astype(float)
    found = ratio_intervals(np.column_stack([up, up]), np.column_stack([np.ones(400), down]), seed=3)
    options = {"method": "percentile", "vectorized": True, "n_resamples": 5000, "rng": np.random.default_rng(2)}
    mean = stats.bootstrap((up,), np.mean, **options).confidence_interval
    ratio = stats.bootstrap(
        (up, down), lambda a, b, axis: a.sum(axis) / b.sum(axis), paired=True, **options
    ).confidence_interval
    width = mean.high - mean.low
    assert found[0] == pytest.approx([mean.low, mean.high], abs=0.06 * width)
    assert found[1] == pytest.approx([ratio.low, ratio.high], abs=0.06 * (ratio.high - ratio.low))


def test_one_seed_gives_one_interval_and_another_another() -> None:
    up, down = np.random.default_rng(1).random((50, 1)), np.ones((50, 1))
    assert ratio_intervals(up, down, 1).tolist() == ratio_intervals(up, down, 1).tolist()
    assert ratio_intervals(up, down, 1).tolist() != ratio_intervals(up, down, 2).tolist()


def test_nobody_has_no_interval() -> None:
    assert np.isnan(ratio_intervals(np.empty((0, 2)), np.empty((0, 2)), 1)).all()
