"""The metrics: how each is counted, what it is called, which way is better and what it says.

`METRICS` is the one place that knows a metric: the evaluation counts what stands there, and the report, the terminal
and the comparison of runs take its label, its direction and its meaning from it.

Every figure is a sum over users divided by another one, so the same few numbers a user, fetched once, give the figure,
its interval (`bootstrap`) and that of any slice of users. Relevance is binary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import Column
from pyspark.sql import functions as F

from spark_app.model.bootstrap import Numbers, ratio_intervals, ratios

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Figures = dict[str, float]
Intervals = dict[str, list[float]]
Ratio = tuple[Numbers, Numbers]
"""A numerator and a denominator for each user."""


@dataclass(frozen=True)
class MovieFacts:
    """The catalogue as metrics see it, in the order of movieId.

    `popularity` is the number of ratings learned from, given by `users` users; `genres` has a column for each genre, 1
    where the movie belongs to it. Movies with `popular_from` or more ratings are popular, the others rare.
    """

    movie_ids: Ints
    popularity: Numbers
    genres: NDArray[np.float32]
    users: int

    @property
    def popular_from(self) -> int:
        """The fewest ratings of a popular movie: the most rated ones that have at least half of all ratings.

        The short head, as opposed to the long tail: O. Celma, P. Cano: From Hits to Niches?, Netflix-KDD 2008.
        """
        most = np.sort(self.popularity)[::-1]
        held = np.cumsum(most)
        return max(int(most[np.searchsorted(held, held[-1] / 2)]) if len(most) else 0, 1)

    @property
    def is_popular(self) -> Bools:
        """Whether each movie is popular."""
        return np.asarray(self.popularity >= self.popular_from)

    @property
    def information(self) -> Numbers:
        """Self-information of each movie in bits; a movie that nobody has rated counts as if one user had."""
        return np.asarray(np.log2(max(self.users, 1) / np.maximum(self.popularity, 1.0)), dtype=np.float64)

    def places(self, movies: Ints) -> Ints:
        """The row of each movieId."""
        return np.searchsorted(self.movie_ids, movies)


@dataclass(frozen=True)
class Lists:
    """Arrays of movieId, one for each row, laid end to end: the row of each movie, and its position there from 0."""

    rows: Ints
    positions: Ints
    movies: Ints
    lengths: Ints

    @classmethod
    def of(cls, lengths: Ints, movies: Ints) -> Lists:
        """Lists of these lengths from the movies in them."""
        rows = np.repeat(np.arange(len(lengths)), lengths)
        return cls(rows, np.arange(len(movies)) - (np.cumsum(lengths) - lengths)[rows], movies, lengths)

    @property
    def keys(self) -> Ints:
        """One number for each (row, movie)."""
        return (self.rows << 32) + self.movies

    def totals(self, values: NDArray[Any]) -> Numbers:
        """The sum of the values, one for each listed movie, of each row."""
        return np.asarray(np.bincount(self.rows, weights=values, minlength=len(self.lengths)), dtype=np.float64)


@dataclass(frozen=True)
class UserLists:
    """The lists of some users, at most k long, and what metrics compare them with.

    `seen_popularity` is the mean number of ratings of what each user has rated, 0 for a user without history.
    """

    listed: Lists
    relevant: Lists
    seen_popularity: Numbers
    facts: MovieFacts
    k: int

    @cached_property
    def is_hit(self) -> Bools:
        """Whether each listed movie is relevant to its user."""
        return np.isin(self.listed.keys, self.relevant.keys)

    @cached_property
    def places(self) -> Ints:
        """The row of each listed movie in `facts`."""
        return self.facts.places(self.listed.movies)

    @property
    def everyone(self) -> Numbers:
        """1 for each user: the denominator of a mean over users."""
        return np.ones(len(self.listed.lengths))

    @property
    def has_list(self) -> Numbers:
        """1 for each user whose list holds anything."""
        return np.asarray(self.listed.lengths > 0, dtype=np.float64)


def _ndcg(lists: UserLists) -> Ratio:
    """Binary gains over log2(1 + position), over the value of the best list of k.

    K. Jarvelin, J. Kekalainen: Cumulated Gain-Based Evaluation of IR Techniques, ACM TOIS 20 (4), 2002; as MLlib and
    trec_eval have it.
    """
    discounts = 1 / np.log2(np.arange(2, lists.k + 2))
    best = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(lists.relevant.lengths, lists.k)]
    gains = lists.listed.totals(lists.is_hit * discounts[lists.listed.positions])
    return _quotient(gains, best), lists.everyone


def _recall(lists: UserLists) -> Ratio:
    """Relevant movies in the list over all relevant movies."""
    return _quotient(lists.listed.totals(lists.is_hit), lists.relevant.lengths), lists.everyone


def _map(lists: UserLists) -> Ratio:
    """The sum of the precision at each relevant movie in the list, over min(k, relevant movies), as MLlib has it."""
    so_far = np.concatenate([[0], np.cumsum(lists.is_hit)])
    first = np.arange(len(lists.is_hit)) - lists.listed.positions
    precision = lists.is_hit * (so_far[1:] - so_far[first]) / (lists.listed.positions + 1)
    return _quotient(lists.listed.totals(precision), np.minimum(lists.relevant.lengths, lists.k)), lists.everyone


def _novelty(lists: UserLists) -> Ratio:
    """The mean over the list of -log2 of the share of users who have rated the movie (self-information).

    T. Zhou et al.: Solving the Apparent Diversity-Accuracy Dilemma, PNAS 107 (10), 2010.
    """
    return _list_mean(lists, lists.facts.information), lists.has_list


def _diversity(lists: UserLists) -> Ratio:
    """The mean over pairs of the list of 1 - |shared genres| / |genres of either|: Jaccard's distance.

    Intra-list diversity: B. Smyth, P. McClave: Similarity vs. Diversity, ICCBR 2001. Pairs in which neither movie has
    a genre are left out.
    """
    listed, genres = lists.listed, lists.facts.genres
    width = int(listed.lengths.max(initial=0))
    table = np.zeros((len(listed.lengths), width, genres.shape[1]), dtype=np.float32)
    table[listed.rows, listed.positions] = genres[lists.places]
    shared = table @ table.transpose(0, 2, 1)
    sizes = table.sum(axis=2)
    either = sizes[:, :, None] + sizes[:, None, :] - shared
    is_listed = np.arange(width) < listed.lengths[:, None]
    is_upper = np.triu(np.ones((width, width), dtype=bool), 1)
    is_pair = is_listed[:, :, None] & is_listed[:, None, :] & is_upper & (either > 0)
    distance = np.where(is_pair, 1 - _quotient(shared, either), 0.0).sum(axis=(1, 2), dtype=np.float64)
    pairs = is_pair.sum(axis=(1, 2))
    return _quotient(distance, pairs), np.asarray(pairs > 0, dtype=np.float64)


def _popularity_lift(lists: UserLists) -> Ratio:
    """The mean number of ratings of what is listed over that of what the user has rated, both summed over users.

    H. Abdollahpouri et al.: The Unfairness of Popularity Bias in Recommendation, RMSE 2019: their group average
    popularities, as a ratio. Users without a list or without history are left out.
    """
    listed = _list_mean(lists, lists.facts.popularity)
    return listed * (lists.seen_popularity > 0), lists.seen_popularity * lists.has_list


def _recall_of(lists: UserLists, *, popular: bool) -> Ratio:
    """Recall of the relevant movies that are popular, or rare, over the users who have any of them."""
    is_meant = lists.facts.is_popular == popular
    wanted = lists.relevant.totals(is_meant[lists.facts.places(lists.relevant.movies)])
    hits = lists.listed.totals(lists.is_hit & is_meant[lists.places])
    return _quotient(hits, wanted), np.asarray(wanted > 0, dtype=np.float64)


def coverage(exposure: NDArray[Any]) -> float:
    """The share of movies that are in any list, from the number of lists that each movie is in."""
    return float(np.count_nonzero(exposure) / len(exposure)) if len(exposure) else 0.0


def gini(exposure: NDArray[Any]) -> float:
    """How unevenly lists are spread over the catalogue: 0 for all movies alike, nearly 1 for one movie in all lists.

    D. Fleder, K. Hosanagar: Blockbuster Culture's Next Rise or Fall, Management Science 55 (5), 2009. Takes the number
    of lists that each movie is in; movies in no list count. NaN where no list holds anything.
    """
    sizes, count = np.sort(exposure), len(exposure)
    if not sizes.any():
        return math.nan
    return float(((2 * np.arange(1, count + 1) - count - 1) @ sizes) / (count * sizes.sum()))


def _list_mean(lists: UserLists, values: Numbers) -> Numbers:
    """The mean of a value of each movie over each list; 0 for an empty list."""
    return _quotient(lists.listed.totals(values[lists.places]), lists.listed.lengths)


def _quotient(numerators: NDArray[Any], denominators: NDArray[Any]) -> Numbers:
    """The quotient, 0 where the denominator is 0."""
    found = numerators / np.where(denominators == 0, 1, denominators) * (denominators != 0)
    return np.asarray(found, dtype=np.float64)


class Better(StrEnum):
    """Which values of a metric are better."""

    HIGHER = "higher"
    LOWER = "lower"
    NEAR_ONE = "near 1"


@dataclass(frozen=True)
class Metric:
    """A metric: its name in the manifest, its label and meaning for people, which way is better, how it is counted.

    Exactly one of these says how: `by_user` gives numerators and denominators for users' lists; `by_exposure` takes the
    number of lists that each movie is in; `by_error` makes of a predicted rating's error the number whose mean is
    taken, and `is_root` takes the root of the mean. With `at_k` the name in the manifest ends in `@` and the length of
    the lists. `is_share` marks values of 0 to 1 that people read as percent.
    """

    name: str
    label: str
    better: Better
    meaning: str
    by_user: Callable[[UserLists], Ratio] | None = None
    by_exposure: Callable[[NDArray[Any]], float] | None = None
    by_error: Callable[[Column], Column] | None = None
    at_k: bool = False
    is_share: bool = False
    is_root: bool = False

    def key(self, k: int) -> str:
        """The name in the manifest, for lists of k."""
        return f"{self.name}@{k}" if self.at_k else self.name

    def is_better(self, ours: float, theirs: float) -> bool:
        """Whether the first value is better than the second."""
        if self.better == Better.NEAR_ONE:
            return abs(ours - 1) < abs(theirs - 1)
        return ours < theirs if self.better == Better.LOWER else ours > theirs


METRICS = (
    Metric(
        "ndcg",
        "NDCG",
        Better.HIGHER,
        "how many of the movies that people went on to like are in their list, the top places counting most",
        by_user=_ndcg,
        at_k=True,
    ),
    Metric(
        "recall",
        "recall",
        Better.HIGHER,
        "the share of the movies that people went on to like that is in their list",
        by_user=_recall,
        at_k=True,
    ),
    Metric("map", "MAP", Better.HIGHER, "how near the top of the lists those movies are", by_user=_map, at_k=True),
    Metric(
        "novelty",
        "novelty",
        Better.HIGHER,
        "how little known the recommended movies are, in bits: 1 more is half as many users who rated them",
        by_user=_novelty,
    ),
    Metric(
        "diversity",
        "diversity",
        Better.HIGHER,
        "how unlike in their genres the movies of one list are, 0 to 1",
        by_user=_diversity,
    ),
    Metric(
        "popularity_lift",
        "popularity lift",
        Better.NEAR_ONE,
        "how many times as popular as what their users have rated the recommended movies are",
        by_user=_popularity_lift,
    ),
    Metric(
        "coverage",
        "coverage",
        Better.HIGHER,
        "the share of the catalogue that is recommended to anybody",
        by_exposure=coverage,
        is_share=True,
    ),
    Metric(
        "gini",
        "Gini",
        Better.LOWER,
        "how unevenly recommendations are spread over movies: 0 evenly, near 1 on a few",
        by_exposure=gini,
    ),
    Metric(
        "rmse",
        "RMSE",
        Better.LOWER,
        "how far predicted ratings are off, large errors counting more",
        by_error=lambda error: error * error,
        is_root=True,
    ),
    Metric("mae", "MAE", Better.LOWER, "how far predicted ratings are off, on average", by_error=F.abs),
)
"""Every metric, in the order in which the manifest and the report have them."""

OF_LISTS = tuple(metric for metric in METRICS if metric.by_user)
OF_EXPOSURE = tuple(metric for metric in METRICS if metric.by_exposure)
OF_ERRORS = tuple(metric for metric in METRICS if metric.by_error)

BY_NAME = {metric.name: metric for metric in METRICS}

KINDS = {"popular": True, "rare": False}
"""Kinds of movies for which recall is counted apart, and whether they are popular."""

LIST_NUMBERS = tuple(
    column
    for name in (*(metric.name for metric in OF_LISTS), *(f"{kind}_recall" for kind in KINDS))
    for column in (name, f"{name}_of")
)
"""What is known of one user's list: the numerator of each metric, and its denominator, whose name ends in `_of`."""


def metric_of(key: str) -> Metric | None:
    """The metric behind a name in the manifest, such as `ndcg@10`; None for a name that stands for no metric."""
    return BY_NAME.get(key.partition("@")[0])


def label_of(key: str) -> str:
    """A name in the manifest as people read it: `NDCG@10`, `popularity lift`."""
    metric, (name, at, k) = metric_of(key), key.partition("@")
    return f"{metric.label if metric else name.replace('_', ' ')}{at}{k}"


def list_numbers(listed: Lists, relevant: Lists, seen_popularity: Numbers, facts: MovieFacts, k: int) -> Numbers:
    """LIST_NUMBERS of users, one row each, from their lists (at most k long) and what is relevant to them."""
    lists = UserLists(listed, relevant, seen_popularity, facts, k)
    counted = [metric.by_user(lists) for metric in OF_LISTS if metric.by_user]
    counted += [_recall_of(lists, popular=popular) for popular in KINDS.values()]
    return np.column_stack([numbers for ratio in counted for numbers in ratio])


def ratio_of(numbers: Numbers, name: str) -> Ratio:
    """The numerators and denominators of one metric, from LIST_NUMBERS."""
    up, down = (numbers[:, LIST_NUMBERS.index(column)] for column in (name, f"{name}_of"))
    return np.asarray(up, dtype=np.float64), np.asarray(down, dtype=np.float64)


@dataclass(frozen=True)
class Judged:
    """Lists as judged: users in order, and of each model LIST_NUMBERS and exposure (lists that each movie is in)."""

    seen: Ints
    numbers: Mapping[str, Numbers]
    exposure: Mapping[str, Ints]

    def mean(self, model: str, name: str, chosen: Bools | None = None) -> float:
        """A metric over all users, or over some; 0 where nobody has anything to tell it by."""
        up, down = (side if chosen is None else side[chosen] for side in ratio_of(self.numbers[model], name))
        return float(up.sum() / down.sum()) if down.any() else 0.0


@dataclass(frozen=True)
class RatingErrors:
    """Errors of predicted ratings: a row for each (user, popular or rare).

    `sums` has, by model, a column for each of OF_ERRORS: the sum of what its `by_error` makes of the user's errors.
    """

    users: Ints
    is_popular: Bools
    seen: Ints
    ratings: Numbers
    sums: Mapping[str, Numbers]

    def means(self, name: str, chosen: Bools) -> Figures:
        """One metric of each model on some of the rows."""
        metric = BY_NAME[name]
        place, count = OF_ERRORS.index(metric), self.ratings[chosen].sum()
        return {model: float(_finished(metric, sums[chosen, place].sum() / count)) for model, sums in self.sums.items()}


def ranking_quality(judged: Judged, k: int, seed: int) -> tuple[dict[str, Figures], dict[str, Intervals]]:
    """Figures of each model over all users, and the 95 % intervals of those that are sums over users.

    Metrics of exposure are of all lists together, and have no interval: a resample of users holds fewer different
    lists, and covers less by construction. A metric that there is nothing to tell by is left out, but those at k, which
    are then 0.
    """
    figures: dict[str, Figures] = {}
    intervals: dict[str, Intervals] = {}
    for model, numbers in judged.numbers.items():
        ratios_of_users = {metric.key(k): ratio_of(numbers, metric.name) for metric in OF_LISTS}
        values, intervals[model] = _figures(ratios_of_users, seed)
        of_exposure = {
            metric.name: metric.by_exposure(judged.exposure[model]) for metric in OF_EXPOSURE if metric.by_exposure
        }
        figures[model] = {
            **{metric.key(k): 0.0 for metric in OF_LISTS if metric.at_k},
            **values,
            **{name: value for name, value in of_exposure.items() if not math.isnan(value)},
            "users": len(numbers),
        }
    return figures, intervals


def rating_errors(errors: RatingErrors, seed: int) -> tuple[dict[str, Figures], dict[str, Intervals]]:
    """OF_ERRORS of each model, in units of the ratings, over all ratings, and their 95 % intervals over users."""
    users, rows = np.unique(errors.users, return_inverse=True)

    def by_user(values: Numbers) -> Numbers:
        return np.asarray(np.bincount(rows, weights=values, minlength=len(users)), dtype=np.float64)

    count = by_user(errors.ratings)
    figures: dict[str, Figures] = {}
    intervals: dict[str, Intervals] = {}
    for model, sums in errors.sums.items():
        means = {metric.name: (by_user(sums[:, place]), count) for place, metric in enumerate(OF_ERRORS)}
        values, bounds = _figures(means, seed)
        figures[model] = {name: float(_finished(BY_NAME[name], value)) for name, value in values.items()}
        intervals[model] = {name: _finished(BY_NAME[name], both).tolist() for name, both in bounds.items()}
    return figures, intervals


def _finished(metric: Metric, mean: Any) -> Any:
    """The metric from the mean of what `by_error` gives."""
    return np.sqrt(mean) if metric.is_root else np.asarray(mean)


def _figures(pairs: Mapping[str, Ratio], seed: int) -> tuple[Figures, Intervals]:
    """Ratios of sums over users by name, with their intervals; those without a denominator are left out."""
    up, down = (np.column_stack([pair[side] for pair in pairs.values()]) for side in (0, 1))
    values, bounds = ratios(up, down).tolist(), ratio_intervals(up, down, seed).tolist()
    found = zip(pairs, values, bounds, strict=True)
    known = [(name, value, bound) for name, value, bound in found if not math.isnan(value)]
    return {name: value for name, value, _ in known}, {name: bound for name, _, bound in known}


def slices(judged: Judged, errors: RatingErrors | None, facts: MovieFacts, k: int) -> list[dict[str, Any]]:
    """NDCG@k and RMSE of light and heavy users, recall@k and RMSE of popular and rare movies, beside their baselines.

    Each is {slice, metric, count (of users; of ratings for RMSE), values by model}; empty slices are left out. Light
    users have at most as many ratings as the median user judged. Recall of the relevant movies of a kind is the mean
    over users who have any.
    """
    middle = int(np.median(judged.seen)) if len(judged.seen) else 0
    of_users = {f"users with at most {middle} ratings": True, f"users with more than {middle} ratings": False}
    of_movies = {
        f"movies with {facts.popular_from} or more ratings": "popular",
        f"movies with fewer than {facts.popular_from} ratings": "rare",
    }
    found = []
    for name, is_light in of_users.items():
        chosen = (judged.seen <= middle) == is_light
        values = {model: judged.mean(model, "ndcg", chosen) for model in judged.numbers}
        found.append(_slice(name, f"ndcg@{k}", int(chosen.sum()), values))
    for name, kind in of_movies.items():
        count = int(ratio_of(next(iter(judged.numbers.values())), f"{kind}_recall")[1].sum())
        values = {model: judged.mean(model, f"{kind}_recall") for model in judged.numbers}
        found.append(_slice(name, f"recall@{k}", count, values))
    if errors is not None:
        rows = {name: (errors.seen <= middle) == is_light for name, is_light in of_users.items()}
        rows |= {name: errors.is_popular == KINDS[kind] for name, kind in of_movies.items()}
        for name, chosen in rows.items():
            count = int(errors.ratings[chosen].sum())
            found.append(_slice(name, "rmse", count, errors.means("rmse", chosen) if count else {}))
    return [entry for entry in found if entry["count"]]


def _slice(name: str, metric: str, count: int, values: Figures) -> dict[str, Any]:
    return {"slice": name, "metric": metric, "count": count, "values": values}
