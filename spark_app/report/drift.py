"""Drift: how far a distribution has moved between two data sets."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

LEAST_SHARE = 1e-4
"""A smaller share counts as this one: the logarithm of nought would make the index infinite."""

STABLE, MAJOR = 0.1, 0.25
"""Below the first the distribution is as good as the same, from the second on it is another one (Siddiqi 2006)."""


def population_stability_index(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """The sum over all values of (a - b) ln(a / b), with a and b the shares of a value after and before.

    0 where the distributions are the same; it has no upper limit. Takes counts by value; a value that one of them lacks
    counts as nought. N. Siddiqi, Credit Risk Scorecards, 2006; it is the symmetric Kullback-Leibler divergence
    (Jeffreys 1946). Raises ValueError where one of them is empty.
    """
    values = sorted(set(before) | set(after))
    shares = [np.array([counts.get(value, 0) for value in values], dtype=float) for counts in (before, after)]
    if not all(share.sum() for share in shares):
        raise ValueError("a distribution without counts has no shares")
    b, a = (np.maximum(share / share.sum(), LEAST_SHARE) for share in shares)
    return float(np.sum((a - b) * np.log(a / b)))


def verdict(index: float) -> str:
    """`stable`, `moved` or `another`, by the usual thresholds."""
    return "stable" if index < STABLE else "moved" if index < MAJOR else "another"
