"""How far a figure might lie from what other users of the same kind would have given.

The percentile bootstrap over users: B. Efron, R. Tibshirani: An Introduction to the Bootstrap, 1993, section 13.3; for
measures of retrieval, T. Sakai: Evaluating Evaluation Metrics Based on the Bootstrap, SIGIR 2006.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
BOUNDS = (2.5, 97.5)
"""Percentiles between which lie 95 % of the resamples."""

BLOCK_DRAWS = 4_000_000
"""Draws of users at a time: 32 MB of counts, which one matrix product adds up."""

Numbers = NDArray[np.float64]


def ratios(numerators: Numbers, denominators: Numbers) -> Numbers:
    """Sum of each column of numerators over that of denominators, both a row a user; NaN where the latter is 0."""
    return _divide(numerators.sum(axis=0), denominators.sum(axis=0))


def ratio_intervals(numerators: Numbers, denominators: Numbers, seed: int) -> Numbers:
    """The 95 % interval of each of `ratios`: a row a column of the arguments, low and high.

    Users are drawn with replacement, each with all that they have: columns share the resamples. The same rows in the
    same order give the same intervals. The time grows with the number of users.
    """
    users, columns = numerators.shape
    both = np.hstack([numerators, denominators])
    rng = np.random.default_rng(seed)
    found = np.full((RESAMPLES, columns), np.nan)
    block = max(1, BLOCK_DRAWS // max(users, 1))
    for first in range(0, RESAMPLES if users else 0, block):
        last = min(first + block, RESAMPLES)
        drawn = [np.bincount(rng.integers(0, users, users, np.int32), minlength=users) for _ in range(first, last)]
        sums = np.array(drawn, dtype=np.float64) @ both
        found[first:last] = _divide(sums[:, :columns], sums[:, columns:])
    intervals = np.full((columns, 2), np.nan)
    for column, values in enumerate(found.T):
        known = values[~np.isnan(values)]
        if len(known):
            intervals[column] = np.percentile(known, BOUNDS)
    return intervals


def _divide(numerators: Numbers, denominators: Numbers) -> Numbers:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominators != 0, numerators / denominators, np.nan)
