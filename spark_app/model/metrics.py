"""How good predictions and lists are: numbers of each user in Spark, then means, intervals and slices of them.

Every figure is a sum over users divided by another one, so the same few numbers a user, fetched once, give the figure,
its interval (`bootstrap`) and that of any slice of users. Relevance is binary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.model.bootstrap import Numbers, ratio_intervals, ratios
from spark_app.platform.generations import from_arrow, to_arrow

Ints = NDArray[np.int64]
Figures = dict[str, float]
Intervals = dict[str, list[float]]

LIST_NUMBERS = (
    *("ndcg", "recall", "map", "novelty", "diversity", "popularity", "has_list", "has_pairs"),
    *("seen_popularity", "popular_recall", "has_popular", "rare_recall", "has_rare"),
)
"""What is known of one user's list; a figure is the sum of one of them over that of another or the number of users."""

BLOCK_USERS = 1_000
"""Users judged at a time: their lists are compared pair by pair, in memory of users x k x (k + genres)."""

OVER_USERS = ("ndcg", "recall", "map")
RATIOS = {
    "novelty": ("novelty", "has_list"),
    "diversity": ("diversity", "has_pairs"),
    "popularity_lift": ("popularity", "seen_popularity"),
}


@dataclass(frozen=True)
class MovieFacts:
    """The catalogue as metrics see it, in the order of movieId.

    `popularity` is the number of ratings learned from, of `users` users; `genres` has a column a genre, 1 where the
    movie is of it. Movies with `popular_from` or more ratings are popular, the others rare.
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

    def popularity_frame(self, spark: SparkSession) -> DataFrame:
        """The number of ratings of each movie: movieId, rating_count."""
        counts = pa.table({"movieId": self.movie_ids.astype(np.int32), "rating_count": self.popularity})
        return from_arrow(spark, counts)


def movie_facts(movies: DataFrame, popularity: DataFrame, users: int) -> MovieFacts:
    """Collect movies(movieId, genres array) and popularity(movieId, rating_count): one row a movie, to the driver."""
    counts = popularity.select("movieId", "rating_count")
    counted = movies.select("movieId", "genres").join(counts, on="movieId", how="left")
    rows = to_arrow(counted.orderBy("movieId"))
    names = rows["genres"].combine_chunks()
    lengths = np.asarray(names.value_lengths().fill_null(0), dtype=np.int64)
    kinds, columns = np.unique(names.flatten().to_numpy(zero_copy_only=False).astype(str), return_inverse=True)
    genres = np.zeros((len(rows), len(kinds)), dtype=np.float32)
    genres[np.repeat(np.arange(len(rows)), lengths), columns] = 1.0
    ids, popular = rows["movieId"].to_numpy(), rows["rating_count"].fill_null(0).to_numpy()
    return MovieFacts(ids.astype(np.int64), popular.astype(np.float64), genres, users)


def relevant_movies(holdout: DataFrame, relevant: float) -> DataFrame:
    """What each user liked in the holdout: userId, relevant (array of movieId). No row for users who liked nothing."""
    liked = holdout.filter(F.col("rating") >= relevant)
    return liked.groupBy("userId").agg(F.collect_list("movieId").alias("relevant"))


def judge_lists(lists: DataFrame, models: Sequence[str], relevant: DataFrame, facts: MovieFacts, k: int) -> DataFrame:
    """LIST_NUMBERS of each user in `relevant`, as columns `MODEL_NUMBER` beside userId, `seen` and the lists.

    Takes lists(userId, seen, seen_popularity, an array of movieId for each model, the best first) and
    relevant(userId, relevant). Users without a row in `lists` have empty ones.
    """
    shared = relevant.sparkSession.sparkContext.broadcast(facts)
    judged = relevant.join(lists, on="userId", how="left").select(
        "userId",
        "relevant",
        F.coalesce("seen", F.lit(0)).alias("seen"),
        F.coalesce("seen_popularity", F.lit(0.0)).alias("seen_popularity"),
        *(F.coalesce(F.slice(model, 1, k), F.array().cast("array<int>")).alias(model) for model in models),
    )
    names = [f"{model}_{number}" for model in models for number in LIST_NUMBERS]
    columns = ["userId INT", "seen INT", *(f"{m} ARRAY<INT>" for m in models), *(f"{name} DOUBLE" for name in names)]

    def judge(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        blocks = (rows.slice(first, BLOCK_USERS) for rows in batches for first in range(0, len(rows), BLOCK_USERS))
        for batch in blocks:
            wanted, history = _as_lists(batch["relevant"]), batch["seen_popularity"].to_numpy()
            numbers = [list_numbers(_as_lists(batch[model]), wanted, history, shared.value, k) for model in models]
            values = [pa.array(column) for of_model in numbers for column in of_model.T]
            kept = [batch["userId"], batch["seen"], *(batch[model] for model in models)]
            yield pa.RecordBatch.from_arrays([*kept, *values], names=["userId", "seen", *models, *names])

    return judged.mapInArrow(judge, ", ".join(columns))


@dataclass(frozen=True)
class Lists:
    """Arrays of movieId, one a row, laid end to end: which row each belongs to, and its position there from 0."""

    rows: Ints
    positions: Ints
    movies: Ints
    lengths: Ints

    @classmethod
    def of(cls, lengths: Ints, movies: Ints) -> Lists:
        """Lists of these lengths from what is in them."""
        rows = np.repeat(np.arange(len(lengths)), lengths)
        return cls(rows, np.arange(len(movies)) - (np.cumsum(lengths) - lengths)[rows], movies, lengths)


def _as_lists(column: pa.Array) -> Lists:
    return Lists.of(np.asarray(column.value_lengths(), dtype=np.int64), column.flatten().to_numpy().astype(np.int64))


def list_numbers(listed: Lists, relevant: Lists, seen_popularity: Numbers, facts: MovieFacts, k: int) -> Numbers:
    """LIST_NUMBERS of users, a row each, from their lists (at most k long) and what is relevant to them.

    - ndcg: binary gains over log2(1 + position), over that of the best list of k. K. Jarvelin, J. Kekalainen: Cumulated
      Gain-Based Evaluation of IR Techniques, ACM TOIS 20 (4), 2002; as MLlib and trec_eval have it.
    - recall: relevant movies in the list over all relevant ones.
    - map: precision at each relevant movie in the list, summed, over min(k, relevant movies), as MLlib has it.
    - novelty: mean over the list of -log2 of the share of users who have rated the movie (self-information). T. Zhou et
      al.: Solving the Apparent Diversity-Accuracy Dilemma, PNAS 107 (10), 2010. A movie that nobody has rated counts as
      if one user had.
    - diversity: mean over pairs of the list of 1 - |shared genres| / |genres of either| (intra-list diversity, with
      Jaccard's distance). B. Smyth, P. McClave: Similarity vs. Diversity, ICCBR 2001. Pairs of which neither movie has
      a genre are left out.
    - popularity, seen_popularity: mean number of ratings of what is listed, and of what the user has rated (0 for both
      where there is no history or no list); H. Abdollahpouri et al.: The Unfairness of Popularity Bias, RMSE 2019.
    - popular_recall, rare_recall: recall of the relevant movies that are popular, or rare.
    """
    users = len(listed.lengths)
    is_hit = np.isin(_keys(listed), _keys(relevant))
    hits_so_far = _running(is_hit, listed)
    discounts = 1 / np.log2(np.arange(2, k + 2))
    best = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(relevant.lengths, k)]
    places, information = _places(listed.movies, facts), _information(facts)
    has_list, has_history = listed.lengths > 0, seen_popularity > 0

    def over_list(values: NDArray[Any]) -> Numbers:
        return _totals(listed.rows, values, users)

    found = {
        "ndcg": _safely(over_list(is_hit * discounts[listed.positions]), best),
        "recall": _safely(over_list(is_hit), relevant.lengths),
        "map": _safely(over_list(is_hit * hits_so_far / (listed.positions + 1)), np.minimum(relevant.lengths, k)),
        "novelty": _safely(over_list(information[places]), listed.lengths),
        "popularity": _safely(over_list(facts.popularity[places]), listed.lengths) * has_history,
        "has_list": has_list,
        "seen_popularity": seen_popularity * has_list,
    }
    found["diversity"], found["has_pairs"] = _diversity(listed, places, facts)
    is_popular = facts.popularity >= facts.popular_from
    for name, is_meant in (("popular", is_popular), ("rare", ~is_popular)):
        wanted = _totals(relevant.rows, is_meant[_places(relevant.movies, facts)], users)
        found[f"{name}_recall"] = _safely(over_list(is_hit & is_meant[places]), wanted)
        found[f"has_{name}"] = wanted > 0
    return np.column_stack([np.asarray(found[number], dtype=np.float64) for number in LIST_NUMBERS])


def _totals(rows: Ints, values: NDArray[Any], users: int) -> Numbers:
    """The sum of the values of each row."""
    return np.asarray(np.bincount(rows, weights=values, minlength=users), dtype=np.float64)


def _keys(lists: Lists) -> Ints:
    """One number for each (row, movie)."""
    return (lists.rows << 32) + lists.movies


def _running(is_hit: NDArray[np.bool_], listed: Lists) -> Ints:
    """Hits in a list up to and with each position."""
    so_far = np.concatenate([[0], np.cumsum(is_hit)])
    return np.asarray(so_far[1:] - so_far[np.arange(len(is_hit)) - listed.positions], dtype=np.int64)


def _places(movies: Ints, facts: MovieFacts) -> Ints:
    return np.searchsorted(facts.movie_ids, movies)


def _information(facts: MovieFacts) -> Numbers:
    """Self-information of each movie, in bits."""
    return np.asarray(np.log2(max(facts.users, 1) / np.maximum(facts.popularity, 1.0)), dtype=np.float64)


def _diversity(listed: Lists, places: Ints, facts: MovieFacts) -> tuple[Numbers, NDArray[np.bool_]]:
    """The intra-list diversity of each row, and whether it has a pair to tell it by."""
    width = int(listed.lengths.max(initial=0))
    table = np.zeros((len(listed.lengths), width, facts.genres.shape[1]), dtype=np.float32)
    table[listed.rows, listed.positions] = facts.genres[places]
    shared = table @ table.transpose(0, 2, 1)
    sizes = table.sum(axis=2)
    either = sizes[:, :, None] + sizes[:, None, :] - shared
    is_there = np.arange(width) < listed.lengths[:, None]
    is_pair = (
        is_there[:, :, None] & is_there[:, None, :] & np.triu(np.ones((width, width), dtype=bool), 1) & (either > 0)
    )
    distance = np.where(is_pair, 1 - _safely(shared, either), 0.0).sum(axis=(1, 2), dtype=np.float64)
    pairs = is_pair.sum(axis=(1, 2))
    return _safely(distance, pairs), pairs > 0


def _safely(numerators: NDArray[Any], denominators: NDArray[Any]) -> Numbers:
    """The quotient, 0 where the denominator is."""
    found = numerators / np.where(denominators == 0, 1, denominators) * (denominators != 0)
    return np.asarray(found, dtype=np.float64)


@dataclass(frozen=True)
class Judged:
    """What `judge_lists` found, on the driver: users in order; LIST_NUMBERS and exposure (lists a movie) by model."""

    seen: Ints
    numbers: Mapping[str, Numbers]
    exposure: Mapping[str, Ints]

    def mean(self, model: str, number: str) -> float:
        """The mean of one number over all users; 0 where there are none."""
        values = _number(self.numbers[model], number)
        return float(values.mean()) if len(values) else 0.0

    def of_users(self, chosen: NDArray[np.bool_]) -> Mapping[str, Numbers]:
        """The numbers of some of the users."""
        return {model: numbers[chosen] for model, numbers in self.numbers.items()}


def collect_judged(judged: DataFrame, models: Sequence[str], facts: MovieFacts) -> Judged:
    """Fetch a few numbers a user, and how often each model lists each movie. Computes `judged` once."""
    judged = judged.persist()
    numbers = [f"{model}_{number}" for model in models for number in LIST_NUMBERS]
    table = to_arrow(judged.select("userId", "seen", *numbers).orderBy("userId"))
    exposure = {}
    for model in models:
        shown = to_arrow(judged.select(F.explode(model).alias("movieId")).groupBy("movieId").count())
        exposure[model] = np.zeros(len(facts.movie_ids), dtype=np.int64)
        exposure[model][_places(shown["movieId"].to_numpy(), facts)] = shown["count"].to_numpy()
    judged.unpersist()
    by_model = {
        model: np.column_stack([table[f"{model}_{number}"].to_numpy() for number in LIST_NUMBERS]) for model in models
    }
    return Judged(table["seen"].to_numpy().astype(np.int64), by_model, exposure)


def ranking_quality(judged: Judged, k: int, seed: int) -> tuple[dict[str, Figures], dict[str, Intervals]]:
    """Figures of each model over all users, and the 95 % intervals of those that are means over users.

    Coverage (share of the catalogue in any list) and Gini are of all lists together, and have no interval: a resample
    of users holds fewer different lists, and covers less by construction. `popularity_lift` is the mean popularity of
    what is listed over that of what users have rated: Abdollahpouri's group average popularities, as a ratio. What
    there is nothing to tell by is left out.
    """
    figures: dict[str, Figures] = {}
    intervals: dict[str, Intervals] = {}
    for model, numbers in judged.numbers.items():
        users = np.ones(len(numbers))
        pairs = {f"{name}@{k}": (_number(numbers, name), users) for name in OVER_USERS}
        pairs |= {name: (_number(numbers, up), _number(numbers, down)) for name, (up, down) in RATIOS.items()}
        values, intervals[model] = _figures(pairs, seed)
        exposure = judged.exposure[model]
        figures[model] = {
            **dict.fromkeys(list(pairs)[: len(OVER_USERS)], 0.0),
            **values,
            "coverage": float(np.count_nonzero(exposure) / len(exposure)) if len(exposure) else 0.0,
            **({"gini": gini(exposure)} if exposure.any() else {}),
            "users": len(numbers),
        }
    return figures, intervals


def gini(exposure: NDArray[Any]) -> float:
    """How unevenly lists are spread over the catalogue: 0, all movies alike, to nearly 1, one movie in all lists.

    D. Fleder, K. Hosanagar: Blockbuster Culture's Next Rise or Fall, Management Science 55 (5), 2009. Movies in no
    list count.
    """
    sizes, count = np.sort(exposure), len(exposure)
    return float(((2 * np.arange(1, count + 1) - count - 1) @ sizes) / (count * sizes.sum()))


def _number(numbers: Numbers, name: str) -> Numbers:
    return np.asarray(numbers[:, LIST_NUMBERS.index(name)], dtype=np.float64)


def _figures(pairs: Mapping[str, tuple[Numbers, Numbers]], seed: int) -> tuple[Figures, Intervals]:
    """Ratios of sums over users by name, with their intervals; those without a denominator are left out."""
    up, down = (np.column_stack([pair[side] for pair in pairs.values()]) for side in (0, 1))
    values, bounds = ratios(up, down).tolist(), ratio_intervals(up, down, seed).tolist()
    found = zip(pairs, values, bounds, strict=True)
    known = [(name, value, bound) for name, value, bound in found if not math.isnan(value)]
    return {name: value for name, value, _ in known}, {name: bound for name, _, bound in known}


def rating_sums(predicted: DataFrame, models: Sequence[str], popular_from: int) -> DataFrame:
    """Of each user, for popular and rare movies apart: ratings, and the sums of errors of each model.

    Takes predicted(userId, rating, user_ratings, movie_ratings, and the models). Gives userId, is_popular, seen
    (ratings of the user that were learned from), ratings, MODEL_absolute, MODEL_squared.
    """
    errors = {model: F.col(model) - F.col("rating") for model in models}
    return predicted.groupBy("userId", (F.col("movie_ratings") >= popular_from).alias("is_popular")).agg(
        F.max("user_ratings").alias("seen"),
        F.count("*").alias("ratings"),
        *(F.sum(F.abs(error)).alias(f"{model}_absolute") for model, error in errors.items()),
        *(F.sum(error * error).alias(f"{model}_squared") for model, error in errors.items()),
    )


@dataclass(frozen=True)
class RatingErrors:
    """What `rating_sums` found, on the driver: a row a (user, popular or rare)."""

    users: Ints
    is_popular: NDArray[np.bool_]
    seen: Ints
    ratings: Numbers
    absolute: Mapping[str, Numbers]
    squared: Mapping[str, Numbers]

    def rmse(self, chosen: NDArray[np.bool_]) -> Figures:
        """RMSE of each model on some of the rows."""
        count = self.ratings[chosen].sum()
        return {model: float(np.sqrt(values[chosen].sum() / count)) for model, values in self.squared.items()}


def collect_rating_sums(sums: DataFrame, models: Sequence[str]) -> RatingErrors:
    """Fetch `rating_sums`: one or two rows a user."""
    table = to_arrow(sums.orderBy("userId", "is_popular"))
    return RatingErrors(
        table["userId"].to_numpy().astype(np.int64),
        table["is_popular"].to_numpy(zero_copy_only=False).astype(bool),
        table["seen"].to_numpy().astype(np.int64),
        table["ratings"].to_numpy().astype(np.float64),
        {model: table[f"{model}_absolute"].to_numpy() for model in models},
        {model: table[f"{model}_squared"].to_numpy() for model in models},
    )


def rating_errors(errors: RatingErrors, seed: int) -> tuple[dict[str, Figures], dict[str, Intervals]]:
    """RMSE and MAE of each model, in stars, over all ratings, and their 95 % intervals over users."""
    users, rows = np.unique(errors.users, return_inverse=True)

    def by_user(values: Numbers) -> Numbers:
        return _totals(rows, values, len(users))

    count = by_user(errors.ratings)
    figures: dict[str, Figures] = {}
    intervals: dict[str, Intervals] = {}
    for model, squared in errors.squared.items():
        pairs = {"rmse": (by_user(squared), count), "mae": (by_user(errors.absolute[model]), count)}
        figures[model], intervals[model] = _figures(pairs, seed)
        figures[model]["rmse"] = float(np.sqrt(figures[model]["rmse"]))
        intervals[model]["rmse"] = np.sqrt(intervals[model]["rmse"]).tolist()
    return figures, intervals


def slices(judged: Judged, errors: RatingErrors | None, facts: MovieFacts, k: int) -> list[dict[str, Any]]:
    """NDCG@k and RMSE of light and heavy users, recall@k and RMSE of popular and rare movies, beside their baselines.

    Each is {slice, metric, count (of users; of ratings for RMSE), values by model}; empty slices are left out. Light
    are users who have at most as many ratings as the median user judged. Recall of the relevant movies of a kind is the
    mean over users who have any.
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
        found.append(_slice(name, f"ndcg@{k}", judged.of_users(chosen), "ndcg", None))
    for name, kind in of_movies.items():
        found.append(_slice(name, f"recall@{k}", judged.numbers, f"{kind}_recall", f"has_{kind}"))
    if errors is not None:
        rows = {name: (errors.seen <= middle) == is_light for name, is_light in of_users.items()}
        rows |= {name: errors.is_popular == (kind == "popular") for name, kind in of_movies.items()}
        for name, chosen in rows.items():
            count = int(errors.ratings[chosen].sum())
            found.append(
                {"slice": name, "metric": "rmse", "count": count, "values": errors.rmse(chosen) if count else {}}
            )
    return [entry for entry in found if entry["count"]]


def _slice(name: str, metric: str, numbers: Mapping[str, Numbers], up: str, down: str | None) -> dict[str, Any]:
    """A slice of the ranking: the mean of one number over all users, or over those that another one names."""
    values, count = {}, 0
    for model, of_users in numbers.items():
        chosen = np.ones(len(of_users), dtype=bool) if down is None else _number(of_users, down) > 0
        count = int(chosen.sum())
        values[model] = float(_number(of_users, up)[chosen].mean()) if count else 0.0
    return {"slice": name, "metric": metric, "count": count, "values": values}
