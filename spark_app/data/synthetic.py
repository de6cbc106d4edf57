"""A seeded generator of MovieLens-shaped files, with structure that a model can find.

Every movie belongs to one taste and every user mixes two. Users choose by popularity within their tastes, so a model
that sees tastes can beat plain popularity. A rating is mean + user bias + movie bias + how well the movie fits the user
+ noise, as a half star.

How many ratings movies and users have, and how often each half star is given, follows MovieLens 25M: of the movies that
are rated at all half have 6 ratings or fewer and one has 81,491, and one movie in twenty has none; users have about 20
ratings or more, half of them 71 or fewer; 4 stars are given most often, and whole stars more often than half ones.
Other sizes have the same shape as far as the number of their users leaves room for it: near half of all pairs none is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from statistics import NormalDist

import numpy as np
import pyarrow as pa

TASTES = 24
FIRST_TASTE, SECOND_TASTE = 0.5, 0.3
"""Shares of a user's movies that come from their first and second taste."""
ANY_TASTE = 1 - FIRST_TASTE - SECOND_TASTE
"""The share that is drawn by popularity alone."""
BISECTIONS, CORRECTIONS, DAMPING, BINS_PER_OCTAVE = 60, 60, 0.7, 4
"""Of the search for the weights of movies: its steps, how far each step goes, and how fine its groups are."""
ROUNDS, SPARE = 6, 1.0
"""How often users choose at most; how many standard deviations more movies than needed they choose at first."""
MAX_DRAWS = 4.0
"""The draws of a user in one round, at most, for each movie needed."""
HEAD = 2_048
"""The number of movies that are not drawn, but get a random number for each user."""
GENRES = (
    *("Action", "Adventure", "Animation", "Children", "Comedy", "Crime", "Documentary", "Drama", "Fantasy"),
    *("Film-Noir", "Horror", "IMAX", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
WORDS = (
    *("Autumn", "Bridge", "Canyon", "Dawn", "Echo", "Forest", "Garden", "Harbour", "Island", "Journey", "Kingdom"),
    *("Lantern", "Mirror", "Night", "Ocean", "Promise", "Quarry", "River", "Shadow", "Tower", "Valley", "Winter"),
)
POPULARITY = (
    (1 / 62_423, 203.5),
    (100 / 62_423, 87.0),
    (1_000 / 62_423, 16.0),
    (10_000 / 62_423, 0.45),
    (29_524 / 62_423, 6 / 400.5),
    (59_047 / 62_423, 0.9 / 400.5),
)
"""Of MovieLens 25M: ranks of movies by ratings, as shares of all movies, and their ratings over the mean of all movies.

Between them the logarithm of the ratings is linear in that of the rank; movies beyond the last have no ratings.
"""

MOST_RATED = 0.5
"""The largest share of users who have rated one movie."""

LEAST_ACTIVE, TYPICAL_EXTRA, ACTIVITY_SPREAD = 20 / 153.8, 51 / 153.8, 1.389
"""Of MovieLens 25M, over the mean ratings of a user: the fewest, and the median beyond that; and the spread of the
logarithm of what users have beyond the fewest."""

HALF_STAR_SHARES = (0.016, 0.031, 0.016, 0.066, 0.050, 0.196, 0.127, 0.266, 0.088, 0.144)
"""Of MovieLens 25M: how often 0.5, 1, ... 5 stars are given."""

STARS = pa.decimal128(2, 1)
HALF_STARS = pa.array([Decimal(half) / 2 for half in range(1, 11)], STARS)
CHUNK_RATINGS, CHUNK_USERS = 1_000_000, 10_000
"""Ratings, and users, that are made at a time, at most: memory does not grow with the size of the set."""
FIRST_SECOND, LAST_SECOND = 820_454_400, 1_735_689_600  # 1996-01-01 to 2025-01-01, UTC

RATINGS_SCHEMA = pa.schema(
    [("userId", pa.int32()), ("movieId", pa.int32()), ("rating", STARS), ("timestamp", pa.int64())]
)


BIAS, NOISE = 0.4, 0.7
"""Standard deviations of the biases of users and of movies, and of what nothing explains."""

MEAN_LIKING, LIKING_SPREAD = -0.2, 0.98
"""Mean and standard deviation of what ratings are made from: the biases, the fit of taste, and the noise."""

THRESHOLDS = np.array(
    [MEAN_LIKING + LIKING_SPREAD * NormalDist().inv_cdf(sum(HALF_STAR_SHARES[:place])) for place in range(1, 10)]
)
"""Where one half star ends and the next begins."""


@dataclass(frozen=True)
class World:
    """The hidden structure of the ratings: one row per movie (taste, weight in draws, bias), and one row per user.

    `user_draws` are the draws that it takes, on average, to give a user one more movie.
    """

    movie_taste: np.ndarray
    movie_weight: np.ndarray
    movie_bias: np.ndarray
    user_tastes: np.ndarray
    user_bias: np.ndarray
    user_ratings: np.ndarray
    user_draws: np.ndarray


def make_world(users: int, movies: int, ratings: int, seed: int) -> World:
    """Draw the hidden structure; `user_ratings` adds up to `ratings` exactly.

    Raises ValueError if there are more ratings than half of users x movies, or fewer than users.
    """
    if not users <= ratings <= users * movies // 2:
        raise ValueError(
            f"ingest.ratings={ratings} must be from users ({users}) to half of users x movies ({users * movies // 2})"
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(movies)
    activity = LEAST_ACTIVE + TYPICAL_EXTRA * rng.lognormal(0.0, ACTIVITY_SPREAD, users)
    user_ratings = _spread(ratings, activity, max(movies // 2, -(-ratings // users)))
    weights, user_draws = _weights(_popularity(movies, ratings, users), user_ratings)
    return World(
        movie_taste=rng.integers(0, TASTES, movies),
        movie_weight=weights[order],
        movie_bias=rng.normal(0.0, BIAS, movies),
        user_tastes=rng.integers(0, TASTES, (users, 2)),
        user_bias=rng.normal(0.0, BIAS, users),
        user_ratings=user_ratings,
        user_draws=user_draws,
    )


def movie_rows(world: World, seed: int) -> pa.Table:
    """Movies as a table of movieId, title, genres (text, as in movies.csv)."""
    movies = len(world.movie_taste)
    rng = np.random.default_rng((seed, 1))
    first, second = rng.integers(0, len(WORDS), (2, movies))
    years = rng.integers(1930, 2025, movies)
    extra = rng.integers(0, len(GENRES), movies)
    titles = [
        f"{WORDS[a]}, The {WORDS[b]} {number} ({year})"
        if number % 4 == 0
        else f"{WORDS[a]} {WORDS[b]} {number} ({year})"
        for number, (a, b, year) in enumerate(zip(first, second, years, strict=True), start=1)
    ]
    genres = [
        "|".join(sorted({GENRES[t % len(GENRES)], GENRES[e]})) for t, e in zip(world.movie_taste, extra, strict=True)
    ]
    return pa.table({"movieId": pa.array(range(1, movies + 1), pa.int32()), "title": titles, "genres": genres})


def rating_chunks(world: World, seed: int) -> Iterator[pa.Table]:
    """Ratings in the order of userId, in tables of about a million rows (`RATINGS_SCHEMA`); never all at once."""
    choose = _Chooser(world)
    ends = np.cumsum(world.user_ratings)
    first = 0
    while first < len(ends):
        done = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + CHUNK_RATINGS, side="right")))
        last = min(last, first + CHUNK_USERS)
        rng = np.random.default_rng((seed, 2, first))
        yield _rate(world, choose, np.arange(first, last), rng)
        first = last


def _popularity(movies: int, ratings: int, users: int) -> np.ndarray:
    """The ratings that movies should have, the most first: the shape of POPULARITY, none above MOST_RATED of users."""
    ranks, counts = np.log(np.array(POPULARITY)).T
    places = (np.arange(movies) + 1) / movies
    shape = np.exp(np.interp(np.log(places), ranks, counts))
    shape[places > POPULARITY[-1][0]] = 0.0
    most = MOST_RATED * users
    low, high = 0.0, float(ratings) * movies
    for _ in range(BISECTIONS):  # the factor with which the counts, cut at the most, add up to all ratings
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(shape * middle, most).sum() < ratings else (low, middle)
    return np.asarray(np.minimum(shape * high, most))


def _weights(wanted: np.ndarray, user_ratings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of movies, the most rated first, and draws of users per movie needed, that give the wanted ratings.

    Drawn by their ratings alone, the most popular movies would come out short, since a user has each only once. So the
    weights are corrected until the expected ratings are the wanted ones. Movies, and users, with similar numbers of
    ratings are one group. A movie has three kinds of users: its taste is their first, their second, or neither.
    """
    group_of_user, users, per_user = _grouped(user_ratings)
    group_of, movies, per_movie = _grouped(wanted)
    shares = np.array([1 / TASTES, 1 / TASTES, 1 - 2 / TASTES])
    chances = np.array([ANY_TASTE + FIRST_TASTE * TASTES, ANY_TASTE + SECOND_TASTE * TASTES, ANY_TASTE])
    weights = np.maximum(per_movie, np.finfo(float).tiny)
    draws = per_user.astype(float)
    for _ in range(CORRECTIONS):
        rates = chances[:, None, None] * draws[None, :, None] * (weights / (weights @ movies))[None, None, :]
        has = np.einsum("k,kum->um", shares, -np.expm1(-rates))
        draws *= per_user / np.maximum(has @ movies, np.finfo(float).tiny)
        weights *= (per_movie / np.maximum(users @ has, np.finfo(float).tiny)) ** DAMPING
    return np.where(wanted > 0, weights[group_of], 0.0), (draws / per_user)[group_of_user]


def _grouped(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The group of each count, by its logarithm; how many each group has, and their mean."""
    bins = np.floor(np.log2(np.maximum(counts, 2.0**-10)) * BINS_PER_OCTAVE)
    _, group_of, sizes = np.unique(bins, return_inverse=True, return_counts=True)
    return group_of, sizes, np.bincount(group_of, counts) / sizes


class _Chooser:
    """Chooses movies for users: movie m with the probability 1 - exp(-draws x weight of m x liking of its taste).

    This is the chance that a movie is among so many draws with replacement. The HEAD most popular movies, which nearly
    every draw would repeat, get a random number each; the others, of which few repeat, are drawn.
    """

    def __init__(self, world: World) -> None:
        self.movies = len(world.movie_weight)
        by_weight = np.argsort(-world.movie_weight, kind="stable")
        self.head = by_weight[:HEAD]
        tail = by_weight[HEAD:]
        weights = world.movie_weight / world.movie_weight.sum()
        self.head_weights = weights[self.head].astype(np.float32)
        self.head_tastes = world.movie_taste[self.head]
        self.tail = tail[np.argsort(world.movie_taste[tail], kind="stable")]
        self.cumulative = np.concatenate([[0.0], np.cumsum(weights[self.tail])])
        tastes = world.movie_taste[self.tail]
        places = np.arange(TASTES)
        self.low = np.append(self.cumulative[np.searchsorted(tastes, places)], 0.0)
        self.high = np.append(self.cumulative[np.searchsorted(tastes, places, side="right")], self.cumulative[-1])

    def __call__(
        self, tastes: np.ndarray, draws: np.ndarray, max_draws: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of user (the row in `tastes` and `draws`) and movie, in any order, a few of them more than once.

        Of the movies that are drawn, a user gets no more than come with `max_draws`: the rarest would take any number.
        """
        liking = np.full((len(tastes), TASTES), ANY_TASTE, dtype=np.float32)
        for column, share in enumerate((FIRST_TASTE, SECOND_TASTE)):
            np.add.at(liking, (np.arange(len(tastes)), tastes[:, column]), np.float32(share * TASTES))
        rates = (draws.astype(np.float32)[:, None] * liking)[:, self.head_tastes] * self.head_weights
        rows, head = np.nonzero(rng.standard_exponential(rates.shape, dtype=np.float32) < rates)
        parts = [(rows, self.head[head])]
        everything = np.full(len(tastes), TASTES)
        choices = (
            (everything, ANY_TASTE),
            (tastes[:, 0], FIRST_TASTE * TASTES),
            (tastes[:, 1], SECOND_TASTE * TASTES),
        )
        for taste, share in choices if len(self.tail) else ():
            low, high = self.low[taste], self.high[taste]
            rows = np.repeat(np.arange(len(tastes)), rng.poisson(np.minimum(draws * share * (high - low), max_draws)))
            spots = low[rows] + rng.random(len(rows)) * (high - low)[rows]
            places = np.searchsorted(self.cumulative, spots, side="right") - 1
            parts.append((rows, self.tail[np.minimum(places, len(self.tail) - 1)]))
        return np.concatenate([rows for rows, _ in parts]), np.concatenate([chosen for _, chosen in parts])


def _rate(world: World, choose: _Chooser, users: np.ndarray, rng: np.random.Generator) -> pa.Table:
    """All ratings of a range of users: each user's number of different movies, with rating and time."""
    movies = len(world.movie_taste)
    keys = _choose(world, choose, users, rng)
    rows, items = keys // movies, keys % movies
    tastes = world.movie_taste[items]
    fit = np.where(
        tastes == world.user_tastes[users[rows], 0],
        0.6,
        np.where(tastes == world.user_tastes[users[rows], 1], 0.3, -0.4),
    )
    liking = world.user_bias[users[rows]] + world.movie_bias[items] + fit + rng.normal(0.0, NOISE, len(rows))
    halves = 1 + np.searchsorted(THRESHOLDS, liking)
    joined = rng.integers(FIRST_SECOND, LAST_SECOND - 40_000_000, len(users))
    seconds = joined[rows] + rng.integers(0, 40_000_000, len(rows))
    return pa.table(
        [users[rows] + 1, items + 1, HALF_STARS.take(pa.array(halves - 1)), seconds],
        schema=RATINGS_SCHEMA,
    )


def _choose(world: World, choose: _Chooser, users: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The movies of each user, as keys: the place of the user among `users` times the number of movies, plus movie.

    Chooses somewhat more than needed and drops the rest at random; users who still need movies choose again.
    """
    movies = choose.movies
    wanted = world.user_ratings[users]
    short, keys, whole = np.arange(len(users)), np.empty(0, dtype=np.int64), []
    for round_number in range(ROUNDS):
        some_more = wanted[short] + (SPARE + round_number) * np.sqrt(wanted[short])
        draws = some_more * world.user_draws[users[short]]
        rows, chosen = choose(world.user_tastes[users[short]], draws, MAX_DRAWS * some_more, rng)
        keys = np.unique(np.concatenate([keys, short[rows] * movies + chosen]))
        keys = _keep_first(rng.permutation(keys), movies, wanted)
        is_short = np.bincount(keys // movies, minlength=len(users)) < wanted
        whole.append(keys[~is_short[keys // movies]])
        keys, short = keys[is_short[keys // movies]], short[is_short[short]]
        if not len(short):
            break
    missing = np.zeros(len(users), dtype=np.int64)
    missing[short] = wanted[short] - np.bincount(keys // movies, minlength=len(users))[short]
    keys = np.concatenate([*whole, _fill(keys, missing, world.movie_weight, rng)])
    return np.asarray(keys[np.argsort(keys // movies, kind="stable")])


def _keep_first(keys: np.ndarray, movies: int, wanted: np.ndarray) -> np.ndarray:
    """The first keys of each user (row), at most the number in `wanted`, in the order of rows."""
    rows = keys // movies
    order = np.argsort(rows, kind="stable")
    starts = np.searchsorted(rows[order], np.arange(len(wanted)))
    nth = np.arange(len(keys)) - starts[rows[order]]
    return np.asarray(keys[order][nth < wanted[rows[order]]])


def _fill(keys: np.ndarray, missing: np.ndarray, weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give users who still need movies some that they do not have, by weight: choosing again would take long for them.

    The largest of log weight + Gumbel noise are a weighted draw without replacement (P. Efraimidis, P. Spirakis:
    Weighted Random Sampling with a Reservoir, 2006). Movies without weight come last.
    """
    movies = len(weights)
    logarithms = np.log(np.maximum(weights, np.finfo(float).tiny))
    keys = np.sort(keys)
    parts = [keys]
    for row in np.flatnonzero(missing):
        scores = logarithms + rng.gumbel(size=movies)
        own = slice(*np.searchsorted(keys, [row * movies, (row + 1) * movies]))
        scores[keys[own] % movies] = -np.inf
        parts.append(row * movies + np.argpartition(-scores, missing[row] - 1)[: missing[row]])
    return np.concatenate(parts)


def _spread(total: int, weights: np.ndarray, max_each: int) -> np.ndarray:
    """Split a total over users by weight: each at least 1 and at most `max_each`, adding up exactly."""
    counts: np.ndarray = np.clip(np.floor(weights / weights.sum() * total).astype(np.int64), 1, max_each)
    while difference := total - counts.sum():
        open_users = np.flatnonzero(counts < max_each) if difference > 0 else np.flatnonzero(counts > 1)
        step = np.sign(difference)
        share = max(1, abs(int(difference)) // len(open_users))
        picked = open_users[: abs(int(difference)) // share]
        counts[picked] = np.clip(counts[picked] + step * share, 1, max_each)
    return counts
