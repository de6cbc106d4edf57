"""Drift: how far a distribution moved between two data sets."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

MIN_SHARE = 1e-4
"""Smaller shares count as this: the logarithm of 0 would make the index infinite."""

STABLE, MAJOR = 0.1, 0.25
"""An index below STABLE means the same distribution; one of MAJOR or more means a different one (Siddiqi 2006)."""


def population_stability_index(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """The population stability index: 0 for equal distributions, without an upper limit.

    It is the sum over all values of (a - b) ln(a / b), with a and b the shares of a value after and before. Takes
    counts by value; a value that is missing on one side has a count of 0 there. N. Siddiqi, Credit Risk Scorecards,
    2006; it is the symmetric Kullback-Leibler divergence (Jeffreys 1946). Raises ValueError where a side has no counts.
    """
    values = sorted(set(before) | set(after))
    shares = [np.array([counts.get(value, 0) for value in values], dtype=float) for counts in (before, after)]
    if not all(share.sum() for share in shares):
        raise ValueError("a distribution without counts has no shares")
    b, a = (np.maximum(share / share.sum(), MIN_SHARE) for share in shares)
    return float(np.sum((a - b) * np.log(a / b)))


def verdict(index: float) -> str:
    """The index in a word, by the usual thresholds: `stable`, `moved` or `another` (a different distribution)."""
    return "stable" if index < STABLE else "moved" if index < MAJOR else "another"
