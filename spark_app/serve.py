"""Recommendations on the spot: a list for ratings that were given just now, from the published models, without Spark.

For a service to call:

    from spark_app.platform.settings import Recommend
    from spark_app.serve import Recommender

    recommender = Recommender.load("s3://bucket/processed", Recommend(n=5, min_year=1990))  # once
    rows = recommender.recommend({"1": 5.0, "260": 4.5})                                    # for each request

The list is the one that the stage `recommend` gives to a new user with these ratings. A recommender keeps the models
that were published when it was loaded; load another one after the next run. Give each thread one of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from spark_app.data.liked import reason_of
from spark_app.model.als import implicit_problem
from spark_app.model.biases import bias_of_user
from spark_app.model.candidates import Candidates, candidates_of, user_vectors
from spark_app.model.foldin import Fixed, fixed_explicit, solve_users
from spark_app.model.half_sweep import Block, Bools, Floats, Ints
from spark_app.model.lists import LAST_OF_CHOICE, LAST_REASON, PERSONAL, POPULAR
from spark_app.model.matrices import FactorMatrix, Ids, found_among
from spark_app.model.predicted import (
    KnownBiases,
    RatingModel,
    lowest_ratings,
    predicted_ratings,
    rating_side,
)
from spark_app.model.reasons import Reasons
from spark_app.model.topn import TopN, UserRatings
from spark_app.platform import storage
from spark_app.platform.errors import InputError, UsageError
from spark_app.platform.log import logger
from spark_app.platform.session import check_schemes
from spark_app.platform.settings import Recommend
from spark_app.zones.choice import chosen_movies
from spark_app.zones.id_codes import with_delivered_movie_ids
from spark_app.zones.processed import ProcessedZone
from spark_app.zones.stored_models import LoadedModels, read_models

USER = np.zeros(1, dtype=np.int32)
"""The id of the one user while their factors are solved."""


@dataclass(frozen=True)
class _Movies:
    """The movies in the order of their integer ids: ids as delivered (as text too), titles, and genres as `A|B`."""

    ids: Ids
    delivered: list[Any]
    titles: list[str]
    genres: list[str]

    @cached_property
    def places(self) -> dict[str, int]:
        """The place of each movie, by its id as delivered."""
        return {str(movie): place for place, movie in enumerate(self.delivered)}


@dataclass(frozen=True)
class Recommender:
    """Makes lists from the published models; `load` makes one."""

    models: LoadedModels
    movies: _Movies
    candidates: Candidates
    options: Recommend

    @classmethod
    def load(cls, processed_path: str, options: Recommend | None = None) -> Recommender:
        """Read the published models and the movies of a processed zone, on a disk or in S3.

        `options` are the settings of `[recommend]`: n, reasons, and which movies may be recommended. (`users`,
        `active_since` and `fold_in` say nothing here.) Raises InputError where something is missing or no movie may be
        recommended, UsageError where a setting does not fit the models.
        """
        check_schemes(processed_path)
        zone, options = ProcessedZone(storage.normalise(processed_path)), options or Recommend()
        models = read_models(zone)
        if options.has_lowest_rating and models.explicit is None:
            raise UsageError("the published models predict no ratings: leave out the lowest predicted rating")
        table = zone.rows("movies", columns=["movieId", "title", "genres"]).sort_by("movieId")
        ids = table["movieId"].to_numpy().astype(np.int32)
        delivered = with_delivered_movie_ids(zone, table.select(["movieId"]))["movieId"].to_pylist()
        genres = ["|".join(names) for names in table["genres"].to_pylist()]
        movies = _Movies(ids, delivered, table["title"].to_pylist(), genres)
        chosen = chosen_movies(zone, options, models.input)
        return cls(models, movies, _candidates(models, ids, chosen), options)

    def recommend(self, ratings: Mapping[Any, float], seen: Iterable[Any] = ()) -> list[dict[str, Any]]:
        """The top N for a user who has given these ratings, by the id of the movie as delivered; best first.

        The movies in `seen` are left out too: the user knows them, and has not rated them.
        Each row has rank, movieId, title, genres, predicted_rating, score and reason, as they are published. Movies
        that are unknown are logged and left out. Raises InputError if no movie is known, UsageError for a rating off
        the scale.
        """
        self._check(ratings)
        known = {self.movies.places[str(movie)]: value for movie, value in ratings.items() if self.knows(movie)}
        if unknown := [str(movie) for movie in ratings if not self.knows(movie)]:
            logger.warning("%d rated movies are unknown and are left out: %s", len(unknown), ", ".join(unknown[:5]))
        if not known:
            raise InputError(f"none of the {len(ratings)} rated movies is known: give ids as they were delivered")
        rated = np.array(sorted(known), dtype=np.int64)
        values = np.array([known[place] for place in rated.tolist()], dtype=np.float32)
        taste, user_ratings = self._taste(rated, values), self._user_ratings(rated, values)
        left_out = np.array(sorted({*known, *(self.movies.places[str(movie)] for movie in seen if self.knows(movie))}))
        vectors = user_vectors(1, self.candidates.rank, taste)
        _, ranks, places, scores = self._top(vectors, np.zeros_like(left_out), left_out, user_ratings)
        is_last = ~self.candidates.has_factors[places]
        predicted: list[float | None] = [None] * len(places)
        if self._rating_model and self.candidates.ratings and user_ratings:
            rows, scale = np.zeros_like(places), self._rating_model.scale
            predicted = predicted_ratings(user_ratings.side, self.candidates.ratings, rows, places, scale).tolist()
        return [
            {
                "rank": rank,
                "movieId": self.movies.delivered[place],
                "title": self.movies.titles[place],
                "genres": self.movies.genres[place],
                "predicted_rating": rating,
                "score": 0.0 if last else score,
                "reason": reason,
            }
            for rank, place, rating, score, last, reason in zip(
                *(ranks.tolist(), places.tolist(), predicted, scores.tolist(), is_last.tolist()),
                self._reasons(rated, values, places, is_last, is_cold=taste is None),
                strict=True,
            )
        ]

    def knows(self, movie: Any) -> bool:
        """Whether there is a movie with this id, as delivered."""
        return str(movie) in self.movies.places

    def rated(self, ratings: Mapping[Any, float]) -> list[dict[str, Any]]:
        """The known movies among these ratings: movieId, title, genres, rating; the highest first."""
        places = {self.movies.places[str(movie)]: value for movie, value in ratings.items() if self.knows(movie)}
        return [
            {
                "movieId": self.movies.delivered[place],
                "title": self.movies.titles[place],
                "genres": self.movies.genres[place],
                "rating": value,
            }
            for place, value in sorted(places.items(), key=lambda pair: (-pair[1], pair[0]))
        ]

    def _check(self, ratings: Mapping[Any, float]) -> None:
        """Raise UsageError for a rating that could not have been delivered."""
        low, high = self.models.input.scale
        for movie, value in ratings.items():
            if self.models.input.feedback == "counts" and not (np.isfinite(value) and value > 0):
                raise UsageError(f"the count {value:g} of movie {movie} is not above 0")
            if self.models.input.feedback == "ratings" and not low <= value <= high:
                raise UsageError(f"the rating {value:g} of movie {movie} is not on the scale from {low:g} to {high:g}")

    def _taste(self, rated: Ints, values: Floats) -> Floats | None:
        """The user's factors of the ranking model; None if they have none and get popular movies."""
        if not self._is_active(rated):
            return None
        solved = self._solved(rated, values, self._implicit)
        return solved.rows if len(solved.ids) else None

    def _is_active(self, rated: Ints) -> bool:
        """Whether the user has enough ratings to be in the models."""
        return len(rated) >= self.models.settings.min_user_ratings

    def _solved(self, rated: Ints, values: Floats, fixed: Fixed) -> FactorMatrix:
        columns = {"userId": np.zeros(len(rated), dtype=np.int32), "movieId": self.movies.ids[rated], "rating": values}
        return solve_users(pa.table(columns), fixed)

    def _user_ratings(self, rated: Ints, values: Floats) -> UserRatings | None:
        """What the user brings to predicted ratings, and the lowest that may be recommended; None for counts."""
        model = self._rating_model
        if model is None or self._explicit is None:
            return None
        known = self.models.movie_biases
        places, has_bias = found_among(self.movies.ids[rated], known.ids)
        factors = FactorMatrix(USER[:0], np.zeros((0, self._explicit_rank), dtype=np.float32))
        biases = KnownBiases(USER[:0], np.zeros(0), np.zeros(0, dtype=np.int64))
        if self._is_active(rated) and has_bias.any():
            factors = self._solved(rated, values, self._explicit)
            of_movies, settings = known.biases[places[has_bias]], self.models.settings.biases
            bias = bias_of_user(values[has_bias], of_movies, self.models.mean, settings)
            biases = KnownBiases(USER, np.array([bias]), np.array([has_bias.sum()]))
        side = rating_side(USER, factors, biases, model.mean, (model.constant, model.user))
        return UserRatings(side, lowest_ratings(model, np.zeros_like(rated), values, 1))

    def _reasons(self, rated: Ints, values: Floats, places: Ints, is_last: Bools, *, is_cold: bool) -> list[str]:
        """The reason for each listed movie."""
        named = np.full((len(places), 1), -1)
        if self._named and not is_cold:
            named = self._named(Block.of_one(rated, values), np.zeros(len(places), dtype=np.int64), places)
        last = LAST_OF_CHOICE if self.options.leaves_out_movies else LAST_REASON
        others = [last if is_last_one else POPULAR if is_cold else PERSONAL for is_last_one in is_last.tolist()]
        titles = [[self.movies.titles[place] for place in row if place >= 0] for row in named.tolist()]
        return [reason_of(liked) if liked else other for liked, other in zip(titles, others, strict=True)]

    @cached_property
    def _implicit(self) -> Fixed:
        return Fixed.of(self.models.implicit, implicit_problem(self.models.settings.implicit))

    @cached_property
    def _explicit(self) -> Fixed | None:
        explicit = self.models.explicit
        return fixed_explicit(explicit, self.models.settings.explicit, self.models.mean) if explicit else None

    @property
    def _explicit_rank(self) -> int:
        return self.models.explicit.rows.shape[1] if self.models.explicit else 0

    @cached_property
    def _rating_model(self) -> RatingModel | None:
        if self.models.explicit is None:
            return None
        return RatingModel.of(self.models.mean, self.models.input.scale, self.models.rating_weights, self.options)

    @cached_property
    def _top(self) -> TopN:
        scale = self.models.input.scale if self.options.has_lowest_rating else None
        return TopN(self.candidates, self.options.n, 1, scale)

    @cached_property
    def _named(self) -> Reasons | None:
        if not self.options.reasons:
            return None
        problem = implicit_problem(self.models.settings.implicit)
        # The movies of the model that are still in the catalogue: as a rule all of them.
        has_all = self.candidates.has_factors.sum() == len(self.models.implicit.ids)
        gram = self._implicit.gram if has_all else None
        return Reasons(self.candidates.factors, problem, self.options.reasons, self.candidates.lifts, gram)


def _candidates(models: LoadedModels, ids: Ids, chosen: Ids | None) -> Candidates:
    """All movies with their factors and numbers of ratings, and which of them may be recommended."""
    fitted, popularity = models.settings.implicit, (models.movie_biases.ids, models.movie_biases.counts)
    candidates = candidates_of(ids, models.implicit, popularity, fitted.rank, fitted.popularity_exponent)
    if models.explicit:
        side = rating_side(ids, models.explicit, models.movie_biases, 0.0, (0.0, models.rating_weights.movie))
        candidates = replace(candidates, ratings=side)
    return candidates if chosen is None else replace(candidates, is_chosen=np.isin(ids, chosen))
