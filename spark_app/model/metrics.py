"""The metrics: how each is computed, its label, which values are better, and its meaning.

`METRICS` defines every metric in one place: the evaluation computes the metrics listed there, and the report, the
terminal and the comparison of runs take labels, directions and meanings from it.

A metric of lists is a sum over users divided by another sum over users. So a few numbers per user, collected once, give
the figure, its interval (`bootstrap`), and the figure of any slice of users. Relevance is binary.
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

from spark_app.model.bootstrap import Numbers, intervals, ratios, resampled_ratios

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Figures = dict[str, float]
Intervals = dict[str, list[float]]
Ratio = tuple[Numbers, Numbers]
"""The numerators and the denominators, one of each per user."""


@dataclass(frozen=True)
class MovieFacts:
    """What the metrics need to know of the catalogue, in the order of movieId.

    `popularity` is the number of ratings of each movie in the training part; `users` users gave these ratings. `genres`
    has one column per genre, 1 where the movie belongs to it. Movies with `popular_from` or more ratings are popular,
    the others rare.
    """

    movie_ids: Ints
    popularity: Numbers
    genres: NDArray[np.float32]
    users: int

    @cached_property
    def popular_from(self) -> int:
        """The smallest number of ratings of a popular movie.

        The popular movies are the most rated ones that together have at least half of all ratings: the short head, as
        opposed to the long tail: O. Celma, P. Cano: From Hits to Niches?, Netflix-KDD 2008.
        """
        counts = np.sort(self.popularity)[::-1]
        up_to = np.cumsum(counts)
        return max(int(counts[np.searchsorted(up_to, up_to[-1] / 2)]) if len(counts) else 0, 1)

    @cached_property
    def is_popular(self) -> Bools:
        """Whether each movie is popular."""
        return np.asarray(self.popularity >= self.popular_from)

    @cached_property
    def information(self) -> Numbers:
        """The self-information of each movie in bits; a movie without ratings counts as if one user had rated it."""
        return np.asarray(np.log2(max(self.users, 1) / np.maximum(self.popularity, 1.0)), dtype=np.float64)

    def places(self, movies: Ints) -> Ints:
        """The row of each movieId."""
        return np.searchsorted(self.movie_ids, movies)


@dataclass(frozen=True)
class Lists:
    """Lists of movieId, one per row, laid end to end. Each movie has its row, and its position in the list from 0."""

    rows: Ints
    positions: Ints
    movies: Ints
    lengths: Ints

    @classmethod
    def of(cls, lengths: Ints, movies: Ints) -> Lists:
        """Make lists of the given lengths from their movies, laid end to end."""
        rows = np.repeat(np.arange(len(lengths)), lengths)
        return cls(rows, np.arange(len(movies)) - (np.cumsum(lengths) - lengths)[rows], movies, lengths)

    @property
    def keys(self) -> Ints:
        """One number for each (row, movie), equal only for equal pairs."""
        return (self.rows << 32) + self.movies

    def totals(self, values: NDArray[Any]) -> Numbers:
        """Sum `values`, one per listed movie, over each row."""
        return np.asarray(np.bincount(self.rows, weights=values, minlength=len(self.lengths)), dtype=np.float64)


@dataclass(frozen=True)
class UserLists:
    """The lists of some users, at most k long, and what metrics compare them with.

    `seen_popularity` is the mean number of ratings of the movies that each user has rated, 0 for a user without any.
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
        """1 for each user whose list is not empty, else 0."""
        return np.asarray(self.listed.lengths > 0, dtype=np.float64)


def _ndcg(lists: UserLists) -> Ratio:
    """The sum of binary gains, each divided by log2(1 + position), over the same sum for the best possible list of k.

    K. Jarvelin, J. Kekalainen: Cumulated Gain-Based Evaluation of IR Techniques, ACM TOIS 20 (4), 2002; in the variant
    of MLlib and trec_eval.
    """
    discounts = 1 / np.log2(np.arange(2, lists.k + 2))
    best = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(lists.relevant.lengths, lists.k)]
    gains = lists.listed.totals(lists.is_hit * discounts[lists.listed.positions])
    return _quotient(gains, best), lists.everyone


def _recall(lists: UserLists) -> Ratio:
    """Relevant movies in the list over all relevant movies."""
    return _quotient(lists.listed.totals(lists.is_hit), lists.relevant.lengths), lists.everyone


def _map(lists: UserLists) -> Ratio:
    """The sum of the precision at each relevant movie in the list, over min(k, relevant movies), as in MLlib."""
    so_far = np.concatenate([[0], np.cumsum(lists.is_hit)])
    first = np.arange(len(lists.is_hit)) - lists.listed.positions
    precision = lists.is_hit * (so_far[1:] - so_far[first]) / (lists.listed.positions + 1)
    return _quotient(lists.listed.totals(precision), np.minimum(lists.relevant.lengths, lists.k)), lists.everyone


def _precision(lists: UserLists) -> Ratio:
    """Relevant movies in the list over k, however short the list is."""
    return lists.listed.totals(lists.is_hit) / lists.k, lists.everyone


def _hit_rate(lists: UserLists) -> Ratio:
    """1 for a user who has a relevant movie in the list, else 0."""
    return np.asarray(lists.listed.totals(lists.is_hit) > 0, dtype=np.float64), lists.everyone


def _novelty(lists: UserLists) -> Ratio:
    """The mean self-information over the list: -log2 of the share of users who have rated the movie.

    T. Zhou et al.: Solving the Apparent Diversity-Accuracy Dilemma, PNAS 107 (10), 2010.
    """
    return _list_mean(lists, lists.facts.information), lists.has_list


def _diversity(lists: UserLists) -> Ratio:
    """The mean of 1 - |shared genres| / |genres of either| (Jaccard's distance) over the pairs of movies in the list.

    This is intra-list diversity: B. Smyth, P. McClave: Similarity vs. Diversity, ICCBR 2001. Pairs in which neither
    movie has a genre are left out.
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
    """The mean number of ratings of the listed movies over that of the movies that the user has rated.

    Both are summed over users. It is the ratio of the group average popularities in H. Abdollahpouri et al.: The
    Unfairness of Popularity Bias in Recommendation, RMSE 2019. Users without a list or without ratings are left out.
    """
    listed = _list_mean(lists, lists.facts.popularity)
    return listed * (lists.seen_popularity > 0), lists.seen_popularity * lists.has_list


def _recall_of(lists: UserLists, *, popular: bool) -> Ratio:
    """Recall of the popular (or of the rare) relevant movies, over the users who have any such movie."""
    is_chosen = lists.facts.is_popular == popular
    relevant = lists.relevant.totals(is_chosen[lists.facts.places(lists.relevant.movies)])
    hits = lists.listed.totals(lists.is_hit & is_chosen[lists.places])
    return _quotient(hits, relevant), np.asarray(relevant > 0, dtype=np.float64)


def coverage(exposure: NDArray[Any]) -> float:
    """The share of movies that are in any list. `exposure` is the number of lists that each movie is in."""
    return float(np.count_nonzero(exposure) / len(exposure)) if len(exposure) else 0.0


def gini(exposure: NDArray[Any]) -> float:
    """How unevenly the catalogue is recommended: 0 if all movies are in equally many lists, near 1 if only one is.

    D. Fleder, K. Hosanagar: Blockbuster Culture's Next Rise or Fall, Management Science 55 (5), 2009. `exposure` is the
    number of lists that each movie is in, including movies in no list. NaN if all lists are empty.
    """
    ascending, count = np.sort(exposure), len(exposure)
    if not ascending.any():
        return math.nan
    return float(((2 * np.arange(1, count + 1) - count - 1) @ ascending) / (count * ascending.sum()))


def _list_mean(lists: UserLists, values: Numbers) -> Numbers:
    """The mean over each list of `values`, one per movie of the catalogue; 0 for an empty list."""
    return _quotient(lists.listed.totals(values[lists.places]), lists.listed.lengths)


def _quotient(numerators: NDArray[Any], denominators: NDArray[Any]) -> Numbers:
    """The quotient, 0 where the denominator is 0."""
    quotients = numerators / np.where(denominators == 0, 1, denominators) * (denominators != 0)
    return np.asarray(quotients, dtype=np.float64)


class Better(StrEnum):
    """Which values of a metric are better."""

    HIGHER = "higher"
    LOWER = "lower"
    NEAR_ONE = "near 1"


@dataclass(frozen=True)
class Metric:
    """A metric: its name in the manifest, its label and meaning for people, which values are better, and its function.

    Exactly one of three functions is set:

    - `by_user` takes users' lists and returns numerators and denominators.
    - `by_exposure` takes the number of lists that each movie is in and returns the figure.
    - `by_error` takes the error of a predicted rating and returns the number whose mean is the figure; with `is_root`
      the figure is the square root of that mean.

    With `at_k`, the name in the manifest ends in `@` and the length of the lists. `is_share` marks values from 0 to 1
    that are shown as percentages.
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
        """The name in the manifest, for lists of length `k`."""
        return f"{self.name}@{k}" if self.at_k else self.name

    def is_better(self, value: float, reference: float) -> bool:
        """Whether `value` is better than `reference`."""
        if self.better == Better.NEAR_ONE:
            return abs(value - 1) < abs(reference - 1)
        return value < reference if self.better == Better.LOWER else value > reference


METRICS = (
    Metric(
        "ndcg",
        "NDCG",
        Better.HIGHER,
        "how many of the held-out movies that users liked are in their list; positions near the top count more",
        by_user=_ndcg,
        at_k=True,
    ),
    Metric(
        "recall",
        "recall",
        Better.HIGHER,
        "what share of the held-out movies that users liked is in their list",
        by_user=_recall,
        at_k=True,
    ),
    Metric(
        "map",
        "MAP",
        Better.HIGHER,
        "how close to the top of their list users find the held-out movies that they liked",
        by_user=_map,
        at_k=True,
    ),
    Metric(
        "precision",
        "precision",
        Better.HIGHER,
        "what share of the movies in a list are held-out movies that the user liked",
        by_user=_precision,
        at_k=True,
        is_share=True,
    ),
    Metric(
        "hit_rate",
        "hit rate",
        Better.HIGHER,
        "what share of the users find a held-out movie that they liked in their list",
        by_user=_hit_rate,
        at_k=True,
        is_share=True,
    ),
    Metric(
        "novelty",
        "novelty",
        Better.HIGHER,
        "how little known the recommended movies are, in bits: one more bit means half as many users rated them",
        by_user=_novelty,
    ),
    Metric(
        "diversity",
        "diversity",
        Better.HIGHER,
        "how different the genres of the movies in one list are, from 0 to 1",
        by_user=_diversity,
    ),
    Metric(
        "popularity_lift",
        "popularity lift",
        Better.NEAR_ONE,
        "how popular the recommended movies are, as a multiple of the movies that their users rated",
        by_user=_popularity_lift,
    ),
    Metric(
        "coverage",
        "coverage",
        Better.HIGHER,
        "what share of the catalogue is recommended to at least one user",
        by_exposure=coverage,
        is_share=True,
    ),
    Metric(
        "gini",
        "Gini",
        Better.LOWER,
        "how unevenly recommendations are spread over movies: 0 is even, near 1 means a few movies get almost all",
        by_exposure=gini,
    ),
    Metric(
        "rmse",
        "RMSE",
        Better.LOWER,
        "how far predicted ratings are off, with more weight on large errors",
        by_error=lambda error: error * error,
        is_root=True,
    ),
    Metric("mae", "MAE", Better.LOWER, "how far predicted ratings are off on average", by_error=F.abs),
)
"""Every metric, in the order of the manifest and the report."""

OF_LISTS = tuple(metric for metric in METRICS if metric.by_user)
OF_EXPOSURE = tuple(metric for metric in METRICS if metric.by_exposure)
OF_ERRORS = tuple(metric for metric in METRICS if metric.by_error)

BY_NAME = {metric.name: metric for metric in METRICS}

KINDS = {"popular": True, "rare": False}
"""The kinds of movies for which recall is computed separately, and whether each is the popular one."""

LIST_NUMBERS = tuple(
    column
    for name in (*(metric.name for metric in OF_LISTS), *(f"{kind}_recall" for kind in KINDS))
    for column in (name, f"{name}_of")
)
"""The numbers of one user's list: for each metric its numerator, and its denominator, whose name ends in `_of`."""


def metric_of(key: str) -> Metric | None:
    """The metric of a name in the manifest, such as `ndcg@10`; None if no metric has that name."""
    return BY_NAME.get(key.partition("@")[0])


def label_of(key: str) -> str:
    """The label of a name in the manifest: `NDCG@10` for `ndcg@10`, `popularity lift` for `popularity_lift`."""
    metric, (name, at, k) = metric_of(key), key.partition("@")
    return f"{metric.label if metric else name.replace('_', ' ')}{at}{k}"


def list_numbers(listed: Lists, relevant: Lists, seen_popularity: Numbers, facts: MovieFacts, k: int) -> Numbers:
    """Compute LIST_NUMBERS, one row per user, from users' lists (at most `k` long) and their relevant movies."""
    lists = UserLists(listed, relevant, seen_popularity, facts, k)
    computed = [metric.by_user(lists) for metric in OF_LISTS if metric.by_user]
    computed += [_recall_of(lists, popular=popular) for popular in KINDS.values()]
    return np.column_stack([numbers for ratio in computed for numbers in ratio])


def ratio_of(numbers: Numbers, name: str) -> Ratio:
    """The numerators and denominators of one metric, from LIST_NUMBERS."""
    numerators, denominators = (numbers[:, LIST_NUMBERS.index(column)] for column in (name, f"{name}_of"))
    return np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)


@dataclass(frozen=True)
class Judged:
    """The numbers of the judged users, from which figures are computed.

    `seen` is the number of candidates that each user has rated. By model: `numbers` are the LIST_NUMBERS of each user;
    `exposure` is the number of lists that each movie is in.
    """

    seen: Ints
    numbers: Mapping[str, Numbers]
    exposure: Mapping[str, Ints]

    def mean(self, model: str, name: str, chosen: Bools | None = None) -> float:
        """A metric over all users, or over the chosen ones; 0 if it is defined for none of them."""
        numerators, denominators = (
            side if chosen is None else side[chosen] for side in ratio_of(self.numbers[model], name)
        )
        return float(numerators.sum() / denominators.sum()) if denominators.any() else 0.0


@dataclass(frozen=True)
class RatingErrors:
    """Errors of predicted ratings, one row per user and kind of movie (popular or rare).

    `seen` is the number of the user's ratings in the training part, `ratings` the number of predicted ratings. `sums`
    has, by model, one column per metric in OF_ERRORS: the sum of its `by_error` over the errors of the row.
    """

    users: Ints
    is_popular: Bools
    seen: Ints
    ratings: Numbers
    sums: Mapping[str, Numbers]

    def means(self, name: str, chosen: Bools) -> Figures:
        """One metric of each model on the chosen rows."""
        metric = BY_NAME[name]
        place, count = OF_ERRORS.index(metric), self.ratings[chosen].sum()
        return {model: float(_finished(metric, sums[chosen, place].sum() / count)) for model, sums in self.sums.items()}


@dataclass(frozen=True)
class Quality:
    """Figures by model, and the 95 % intervals over users: of each figure, and of its difference to the baseline's.

    A difference is paired, on the same users: it can be certain where the intervals of the two figures overlap.
    """

    figures: dict[str, Figures]
    intervals: dict[str, Intervals]
    differences: dict[str, Intervals]


def ranking_quality(judged: Judged, k: int, seed: int, baseline: str = "popularity") -> Quality:
    """The figures of each model over all users, with intervals of the metrics that are computed `by_user`.

    Metrics `by_exposure` are of all lists together and have no interval: a resample of users has fewer different lists,
    and so covers less by construction. A metric that is defined for no user is left out, except a metric at k, which is
    then 0.
    """
    figures: dict[str, Figures] = {}
    sampled = {}
    for model, numbers in judged.numbers.items():
        sampled[model] = _Sampled.of({metric.key(k): ratio_of(numbers, metric.name) for metric in OF_LISTS}, seed)
        of_exposure = {
            metric.name: metric.by_exposure(judged.exposure[model]) for metric in OF_EXPOSURE if metric.by_exposure
        }
        figures[model] = {
            **{metric.key(k): 0.0 for metric in OF_LISTS if metric.at_k},
            **sampled[model].values,
            **{name: value for name, value in of_exposure.items() if not math.isnan(value)},
            "users": len(numbers),
        }
    return Quality(figures, {model: one.intervals() for model, one in sampled.items()}, _differences(sampled, baseline))


def rating_errors(errors: RatingErrors, seed: int, baseline: str = "bias") -> Quality:
    """OF_ERRORS of each model over all ratings, in units of the ratings, with their intervals."""
    users, rows = np.unique(errors.users, return_inverse=True)

    def by_user(values: Numbers) -> Numbers:
        return np.asarray(np.bincount(rows, weights=values, minlength=len(users)), dtype=np.float64)

    count = by_user(errors.ratings)
    sampled = {}
    for model, sums in errors.sums.items():
        means = {metric.name: (by_user(sums[:, place]), count) for place, metric in enumerate(OF_ERRORS)}
        sampled[model] = _Sampled.of(means, seed).map(lambda name, mean: _finished(BY_NAME[name], mean))
    figures = {model: one.values for model, one in sampled.items()}
    return Quality(figures, {model: one.intervals() for model, one in sampled.items()}, _differences(sampled, baseline))


@dataclass(frozen=True)
class _Sampled:
    """Figures by name, and the same figures of resamples of the users."""

    values: Figures
    samples: Mapping[str, Numbers]

    @classmethod
    def of(cls, pairs: Mapping[str, Ratio], seed: int) -> _Sampled:
        """Ratios of sums over users; those with denominator 0 are left out."""
        numerators, denominators = (np.column_stack([pair[side] for pair in pairs.values()]) for side in (0, 1))
        values, samples = ratios(numerators, denominators), resampled_ratios(numerators, denominators, seed)
        known = [(place, name) for place, name in enumerate(pairs) if not math.isnan(values[place])]
        return cls({name: float(values[at]) for at, name in known}, {name: samples[:, at] for at, name in known})

    def map(self, change: Callable[[str, Any], Any]) -> _Sampled:
        """Apply a function of name and value to values and samples."""
        return _Sampled(
            {name: float(change(name, value)) for name, value in self.values.items()},
            {name: np.asarray(change(name, sample)) for name, sample in self.samples.items()},
        )

    def intervals(self, baseline: _Sampled | None = None) -> Intervals:
        """The interval of each figure, or of its difference to that of the baseline, if that has it."""
        names = [name for name in self.samples if baseline is None or name in baseline.samples]
        samples = (self.samples[name] - (0.0 if baseline is None else baseline.samples[name]) for name in names)
        return {name: intervals(sample[:, None])[0].tolist() for name, sample in zip(names, samples, strict=True)}


def _differences(sampled: Mapping[str, _Sampled], baseline: str) -> dict[str, Intervals]:
    """The intervals of the differences of each other model to the baseline."""
    if baseline not in sampled:
        return {}
    return {model: one.intervals(sampled[baseline]) for model, one in sampled.items() if model != baseline}


def _finished(metric: Metric, mean: Any) -> Any:
    """Compute the metric from the mean of `by_error`: its root if `is_root`."""
    return np.sqrt(mean) if metric.is_root else np.asarray(mean)


def slices(judged: Judged, errors: RatingErrors | None, facts: MovieFacts, k: int) -> list[dict[str, Any]]:
    """NDCG@k and RMSE of light and heavy users, and recall@k and RMSE of popular and rare movies, for every model.

    Each entry is {slice, metric, count (of users; of ratings for RMSE), values (by model)}. Empty slices are left out.
    Light users have at most as many ratings as the median judged user. Recall of popular (or rare) movies is the mean
    over the users who have such a relevant movie.
    """
    median = int(np.median(judged.seen)) if len(judged.seen) else 0
    of_users = {f"users with at most {median} ratings": True, f"users with more than {median} ratings": False}
    of_movies = {
        f"movies with {facts.popular_from} or more ratings": "popular",
        f"movies with fewer than {facts.popular_from} ratings": "rare",
    }
    entries = []
    for name, is_light in of_users.items():
        chosen = (judged.seen <= median) == is_light
        values = {model: judged.mean(model, "ndcg", chosen) for model in judged.numbers}
        entries.append(_slice(name, f"ndcg@{k}", int(chosen.sum()), values))
    for name, kind in of_movies.items():
        count = int(ratio_of(next(iter(judged.numbers.values())), f"{kind}_recall")[1].sum())
        values = {model: judged.mean(model, f"{kind}_recall") for model in judged.numbers}
        entries.append(_slice(name, f"recall@{k}", count, values))
    if errors is not None:
        rows = {name: (errors.seen <= median) == is_light for name, is_light in of_users.items()}
        rows |= {name: errors.is_popular == KINDS[kind] for name, kind in of_movies.items()}
        for name, chosen in rows.items():
            count = int(errors.ratings[chosen].sum())
            entries.append(_slice(name, "rmse", count, errors.means("rmse", chosen) if count else {}))
    return [entry for entry in entries if entry["count"]]


def _slice(name: str, metric: str, count: int, values: Figures) -> dict[str, Any]:
    return {"slice": name, "metric": metric, "count": count, "values": values}
