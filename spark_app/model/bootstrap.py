"""Confidence intervals: how much a figure would vary with another sample of users.

The method is the percentile bootstrap over users: B. Efron, R. Tibshirani: An Introduction to the Bootstrap, 1993,
section 13.3; for measures of retrieval, T. Sakai: Evaluating Evaluation Metrics Based on the Bootstrap, SIGIR 2006.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
BOUNDS = (2.5, 97.5)
"""Percentiles that enclose 95 % of the resamples."""

BLOCK_DRAWS = 4_000_000
"""Number of users drawn for one matrix product, over all its resamples: their counts take 32 MB."""

Numbers = NDArray[np.float64]


def ratios(numerators: Numbers, denominators: Numbers) -> Numbers:
    """Divide the column sums of numerators by those of denominators (one row per user); NaN where a divisor is 0."""
    return _divide(numerators.sum(axis=0), denominators.sum(axis=0))


def ratio_intervals(numerators: Numbers, denominators: Numbers, seed: int) -> Numbers:
    """The 95 % interval (low, high) of each of `ratios`: one row per column of the arguments (`resampled_ratios`)."""
    return intervals(resampled_ratios(numerators, denominators, seed))


def resampled_ratios(numerators: Numbers, denominators: Numbers, seed: int) -> Numbers:
    """`ratios` of RESAMPLES samples of the users: one row per sample, one column per column of the arguments.

    Users are drawn with replacement, each with all of their columns, so all columns share the resamples. So do two
    calls with the same seed and the same users in the same order: the difference of their results is paired. The time
    grows with the number of users.
    """
    users, columns = numerators.shape
    both = np.hstack([numerators, denominators])
    rng = np.random.default_rng(seed)
    resampled = np.full((RESAMPLES, columns), np.nan)
    block = max(1, BLOCK_DRAWS // max(users, 1))
    for first in range(0, RESAMPLES if users else 0, block):
        last = min(first + block, RESAMPLES)
        drawn = [np.bincount(rng.integers(0, users, users, np.int32), minlength=users) for _ in range(first, last)]
        sums = np.array(drawn, dtype=np.float64) @ both
        resampled[first:last] = _divide(sums[:, :columns], sums[:, columns:])
    return resampled


def intervals(resampled: Numbers) -> Numbers:
    """The 95 % interval (low, high) of each column; NaN where no resample has a value."""
    found = np.full((resampled.shape[1], 2), np.nan)
    for column, values in enumerate(resampled.T):
        known = values[~np.isnan(values)]
        if len(known):
            found[column] = np.percentile(known, BOUNDS)
    return found


def _divide(numerators: Numbers, denominators: Numbers) -> Numbers:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominators != 0, numerators / denominators, np.nan)
