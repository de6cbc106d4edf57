"""A seeded generator of MovieLens-shaped files, with structure that a model can find.

Every movie belongs to one taste and every user mixes two. Popularity and activity have long tails (Zipf and
log-normal), and users choose by popularity within their tastes, so a model that sees tastes can beat plain popularity.
A rating is mean + user bias + movie bias + how well the movie fits the user + noise, rounded to half stars.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pyarrow as pa

TASTES = 24
FIRST_TASTE, SECOND_TASTE = 0.5, 0.3
"""Shares of a user's movies that come from their first and second taste; the rest is drawn by popularity alone."""
ROUNDS, TASTE_ROUNDS = 12, 5
"""How many times movies are drawn for users who still need some; TASTE_ROUNDS of them by taste."""
ANY_TASTE = -1
GENRES = (
    *("Action", "Adventure", "Animation", "Children", "Comedy", "Crime", "Documentary", "Drama", "Fantasy"),
    *("Film-Noir", "Horror", "IMAX", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
WORDS = (
    *("Autumn", "Bridge", "Canyon", "Dawn", "Echo", "Forest", "Garden", "Harbour", "Island", "Journey", "Kingdom"),
    *("Lantern", "Mirror", "Night", "Ocean", "Promise", "Quarry", "River", "Shadow", "Tower", "Valley", "Winter"),
)
STARS = pa.decimal128(2, 1)
HALF_STARS = pa.array([Decimal(half) / 2 for half in range(1, 11)], STARS)
CHUNK_RATINGS = 1_000_000
FIRST_SECOND, LAST_SECOND = 820_454_400, 1_735_689_600  # 1996-01-01 to 2025-01-01, UTC

RATINGS_SCHEMA = pa.schema(
    [("userId", pa.int32()), ("movieId", pa.int32()), ("rating", STARS), ("timestamp", pa.int64())]
)


@dataclass(frozen=True)
class World:
    """The hidden structure of the ratings: one row per movie (taste, popularity weight, bias), one row per user."""

    movie_taste: np.ndarray
    movie_weight: np.ndarray
    movie_bias: np.ndarray
    user_tastes: np.ndarray
    user_bias: np.ndarray
    user_ratings: np.ndarray


def make_world(users: int, movies: int, ratings: int, seed: int) -> World:
    """Draw the hidden structure; `user_ratings` adds up to `ratings` exactly.

    Raises ValueError if there are more ratings than half of users x movies, or fewer than users.
    """
    if not users <= ratings <= users * movies // 2:
        raise ValueError(
            f"ingest.ratings={ratings} must be from users ({users}) to half of users x movies ({users * movies // 2})"
        )
    rng = np.random.default_rng(seed)
    popularity = 1.0 / (10.0 + rng.permutation(movies)) ** 0.9
    return World(
        movie_taste=rng.integers(0, TASTES, movies),
        movie_weight=popularity,
        movie_bias=rng.normal(0.0, 0.4, movies),
        user_tastes=rng.integers(0, TASTES, (users, 2)),
        user_bias=rng.normal(0.0, 0.4, users),
        user_ratings=_spread(ratings, rng.lognormal(0.0, 1.1, users), movies),
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
        rng = np.random.default_rng((seed, 2, first))
        yield _rate(world, choose, np.arange(first, last), rng)
        first = last


class _Chooser:
    """Draws movies by popularity, within a taste or over all, from cumulative weights."""

    def __init__(self, world: World) -> None:
        self.order = np.argsort(world.movie_taste, kind="stable")
        self.cumulative = np.cumsum(world.movie_weight[self.order])
        tastes = world.movie_taste[self.order]
        starts = np.searchsorted(tastes, np.arange(TASTES))
        stops = np.searchsorted(tastes, np.arange(TASTES), side="right")
        before = np.concatenate([[0.0], self.cumulative])
        self.low, self.high = before[starts], before[stops]

    def draw(self, tastes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One movie for each taste given; ANY_TASTE, or a taste without movies, means any."""
        low, high = self.low[tastes], self.high[tastes]
        is_any = (tastes == ANY_TASTE) | (high <= low)
        low, high = np.where(is_any, 0.0, low), np.where(is_any, self.cumulative[-1], high)
        spots = np.searchsorted(self.cumulative, low + rng.random(len(tastes)) * (high - low), side="right")
        return np.asarray(self.order[np.minimum(spots, len(self.order) - 1)])


def _rate(world: World, choose: _Chooser, users: np.ndarray, rng: np.random.Generator) -> pa.Table:
    """All ratings of a range of users: each user's number of different movies, with rating and time."""
    movies = len(world.movie_taste)
    wanted = world.user_ratings[users]
    keys = np.empty(0, dtype=np.int64)
    missing = wanted.copy()
    for round_number in range(ROUNDS):
        # Draw more than needed, drop movies that a user has already, and draw again for users who need more.
        rows = np.repeat(np.arange(len(users)), np.where(missing > 0, missing + missing // 4 + 2, 0))
        roll = rng.random(len(rows))
        tastes = world.user_tastes[users[rows], np.where(roll < FIRST_TASTE, 0, 1)]
        tastes = np.where((roll > FIRST_TASTE + SECOND_TASTE) | (round_number >= TASTE_ROUNDS), ANY_TASTE, tastes)
        drawn = rows * movies + choose.draw(tastes, rng)
        _, first_seen = np.unique(np.concatenate([keys, drawn]), return_index=True)
        keys = _keep_first(np.concatenate([keys, drawn])[np.sort(first_seen)], movies, wanted)
        missing = wanted - np.bincount(keys // movies, minlength=len(users))
        if not missing.any():
            break
    else:
        keys = _fill(keys, missing, movies, rng)
    rows, items = keys // movies, keys % movies
    tastes = world.movie_taste[items]
    fit = np.where(
        tastes == world.user_tastes[users[rows], 0],
        0.6,
        np.where(tastes == world.user_tastes[users[rows], 1], 0.3, -0.4),
    )
    stars = 3.4 + world.user_bias[users[rows]] + world.movie_bias[items] + fit + rng.normal(0.0, 0.7, len(rows))
    halves = np.clip(np.rint(stars * 2), 1, 10).astype(np.int64)
    joined = rng.integers(FIRST_SECOND, LAST_SECOND - 40_000_000, len(users))
    seconds = joined[rows] + rng.integers(0, 40_000_000, len(rows))
    return pa.table(
        [users[rows] + 1, items + 1, HALF_STARS.take(pa.array(halves - 1)), seconds],
        schema=RATINGS_SCHEMA,
    )


def _keep_first(keys: np.ndarray, movies: int, wanted: np.ndarray) -> np.ndarray:
    """The first keys of each user (row), at most the number in `wanted`, in the order of rows."""
    rows = keys // movies
    order = np.argsort(rows, kind="stable")
    starts = np.searchsorted(rows[order], np.arange(len(wanted)))
    nth = np.arange(len(keys)) - starts[rows[order]]
    return np.asarray(keys[order][nth < wanted[rows[order]]])


def _fill(keys: np.ndarray, missing: np.ndarray, movies: int, rng: np.random.Generator) -> np.ndarray:
    """Give users who still need movies any that they do not have: drawing would take long for very active users."""
    parts = [keys]
    for row in np.flatnonzero(missing):
        have = keys[keys // movies == row] % movies
        rest = np.setdiff1d(np.arange(movies), have)
        parts.append(row * movies + rng.choice(rest, missing[row], replace=False))
    return np.asarray(np.sort(np.concatenate(parts)))


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
