"""Predicted ratings in numpy: the same numbers as `stack` computes in Spark, for lists and for a search in them.

What a user and a movie bring to a predicted rating has the same form on both sides (`RatingSide`). So all ratings of a
block of users are a matrix product and a few sums: quick enough to leave out, before the search for the top N, every
movie that is predicted below a user's lowest rating.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from spark_app.model.half_sweep import Bools, Doubles, Floats, Ints
from spark_app.model.matrices import FactorMatrix, Ids, found_among
from spark_app.model.stack import StackWeights
from spark_app.platform.settings import Recommend

RATING_DECIMALS = 3
"""Predicted ratings are rounded before they are compared or published."""

TOLERANCE = 4e-5
"""Largest error of a predicted rating in single precision, relative to the ends of the scale."""

EXACT_AT_ONCE = 50_000
"""Number of pairs whose factors are gathered together."""


@dataclass(frozen=True)
class RatingModel:
    """How ratings are predicted, and the lowest predicted rating that may be recommended.

    `mean` is that of all ratings. `constant`, `user` and `movie` are the weights of `stack.StackWeights`: (1, 0, 0) is
    the model `explicit`, (0, 0, 0) the model `bias`. A movie may be recommended to a user if its predicted rating is at
    least `least`, and at least `above_mean` more than the mean of the user's own ratings.
    """

    mean: float
    scale: tuple[float, float]
    constant: float
    user: float
    movie: float
    least: float | None = None
    above_mean: float | None = None

    @classmethod
    def of(cls, mean: float, scale: tuple[float, float], weights: StackWeights, options: Recommend) -> RatingModel:
        """The model with these weights, and the lowest ratings that the settings name."""
        weighed = (weights.constant, weights.user, weights.movie)
        return cls(mean, scale, *weighed, options.min_predicted_rating, options.min_above_mean)

    @property
    def has_lowest(self) -> bool:
        """Whether movies with a low predicted rating must not be recommended."""
        return self.least is not None or self.above_mean is not None


@dataclass(frozen=True)
class KnownBiases:
    """The biases of users or of movies, and their numbers of ratings; ids ascending."""

    ids: Ids
    biases: Doubles
    counts: Ints


@dataclass(frozen=True)
class RatingSide:
    """What users (or movies) bring to predicted ratings, one row each.

    With the biases b, the trust t and the factors f of both sides, a rating is

        b + w (f_user ' f_movie - b),    b = b_user + b_movie,    w = t_user + t_movie, clipped to [0, 1]

    The biases of users include the mean of all ratings. Without factors, the trust is -inf, and w is 0.
    """

    factors: Floats
    biases: Doubles
    trust: Doubles

    def __getitem__(self, rows: Ints | slice) -> RatingSide:
        return RatingSide(self.factors[rows], self.biases[rows], self.trust[rows])


def rating_side(
    ids: Ids, factors: FactorMatrix, known: KnownBiases, mean: float, weights: tuple[float, float]
) -> RatingSide:
    """The side of users or movies with these ids, from all factors and biases.

    `mean` is added to the biases. `weights` are the constant part of the trust, and what is multiplied by the logarithm
    of 1 + the number of ratings. For movies `mean` and the constant part are 0.
    """
    places, has_factors = found_among(ids, factors.ids)
    rows = np.zeros((len(ids), factors.rows.shape[1]), dtype=np.float32)
    rows[has_factors] = factors.rows[places[has_factors]]
    places, has_bias = found_among(ids, known.ids)
    biases, counts = np.zeros(len(ids)), np.zeros(len(ids))
    biases[has_bias], counts[has_bias] = known.biases[places[has_bias]], known.counts[places[has_bias]]
    constant, of_count = weights
    trust = np.where(has_factors, constant + of_count * np.log1p(counts), -np.inf)
    return RatingSide(rows, mean + biases, trust)


def known_biases(table: pa.Table, id_column: str, bias_column: str) -> KnownBiases:
    """The biases in a table of ids, biases and rating_count."""
    order = np.argsort(table[id_column].to_numpy())
    return KnownBiases(
        table[id_column].to_numpy().astype(np.int32)[order],
        table[bias_column].to_numpy()[order],
        table["rating_count"].to_numpy()[order],
    )


def predicted_ratings(
    users: RatingSide, movies: RatingSide, rows: Ints, places: Ints, scale: tuple[float, float]
) -> Doubles:
    """The predicted ratings of pairs (row of `users`, place in `movies`), clipped to the scale and rounded."""
    ratings = np.empty(len(rows))
    for first in range(0, len(rows), EXACT_AT_ONCE):
        part = slice(first, first + EXACT_AT_ONCE)
        of_users, of_movies = users[rows[part]], movies[places[part]]
        bias = of_users.biases + of_movies.biases
        weight = np.clip(of_users.trust + of_movies.trust, 0.0, 1.0)
        # In single precision, as MLlib and `factors.with_prediction` compute it.
        products = np.einsum("ij,ij->i", of_users.factors, of_movies.factors).astype(np.float64)
        ratings[part] = bias + weight * (products - bias)
    return np.asarray(np.round(np.clip(ratings, *scale), RATING_DECIMALS))


def predicted_for_anyone(movie_ids: Ids, known: KnownBiases, model: RatingModel) -> Doubles:
    """The predicted ratings of movies for a user who has no ratings: the mean and the biases of the movies."""
    places, has_bias = found_among(movie_ids, known.ids)
    biases = np.where(has_bias, known.biases[places], 0.0) if len(known.ids) else np.zeros(len(movie_ids))
    return np.asarray(np.round(np.clip(model.mean + biases, *model.scale), RATING_DECIMALS))


def lowest_ratings(model: RatingModel, rows: Ints, ratings: Floats, users: int) -> Doubles:
    """The lowest predicted rating that may be recommended to each of `users` users; -inf where there is none.

    `rows` (of users) and `ratings` are all ratings of these users; NaN stands for a movie seen and not rated.
    """
    lowest = np.full(users, -np.inf if model.least is None else model.least)
    if model.above_mean is None:
        return lowest
    is_rated = np.isfinite(ratings)
    count = np.bincount(rows[is_rated], minlength=users)
    total = np.bincount(rows[is_rated], ratings[is_rated].astype(np.float64), minlength=users)
    means = np.divide(total, count, out=np.full(users, -np.inf), where=count > 0)
    return np.asarray(np.maximum(lowest, means + model.above_mean))


class RatingFloor:
    """Finds the movies whose predicted rating is below the lowest one of a user, exactly, for blocks of users."""

    def __init__(self, movies: RatingSide, scale: tuple[float, float]) -> None:
        self.movies = movies
        self.scale = scale
        self.unsure = np.float32(0.5 * 10**-RATING_DECIMALS + TOLERANCE * max(1.0, *np.abs(scale)))
        self.columns = np.ascontiguousarray(movies.factors.T)
        self.biases, self.trust = movies.biases.astype(np.float32), movies.trust.astype(np.float32)

    def is_below(self, users: RatingSide, lowest: Doubles, first: int, last: int) -> Bools:
        """Whether the movies `first` to `last` - 1 are predicted below the lowest rating, one row per user.

        Ratings are computed in single precision; and exactly where that is too near to the lowest rating to decide.
        """
        part = slice(first, last)
        ratings = np.matmul(users.factors, self.columns[:, part])
        bias = users.biases.astype(np.float32)[:, None] + self.biases[None, part]
        ratings -= bias
        ratings *= np.clip(users.trust.astype(np.float32)[:, None] + self.trust[None, part], 0, 1)
        ratings += bias
        # Clipped, a rating is between the ends of the scale: at or below the lower end everything may be recommended.
        open_to_all, closed = lowest <= self.scale[0], lowest > self.scale[1]
        limits = np.where(open_to_all, -np.inf, np.where(closed, np.inf, lowest)).astype(np.float32)[:, None]
        below: Bools = ratings < limits
        rows, places = np.nonzero(np.abs(ratings - limits) < self.unsure)
        exact = predicted_ratings(users, self.movies, rows, first + places, self.scale)
        below[rows, places] = exact < lowest[rows]
        return below
