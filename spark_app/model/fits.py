"""Fit all models of the product together (two factorisations and the biases), and add users to them by fold-in."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from pyspark.sql import DataFrame

from spark_app.model import als
from spark_app.model.als import TrainingSet
from spark_app.model.biases import BiasModel, fit_biases, user_biases
from spark_app.model.candidates import CandidateBlocks, Candidates, candidate_blocks
from spark_app.model.factors import Factors, with_users
from spark_app.model.foldin import fold_in_explicit, fold_in_implicit, outdated_users
from spark_app.model.half_sweep import Doubles, Ints
from spark_app.model.lists import Predict
from spark_app.model.matrices import Ids
from spark_app.model.predicted import RatingModel, known_biases, predicted_for_anyone, rating_side
from spark_app.model.rating_blocks import pack
from spark_app.model.split import keep_active
from spark_app.model.stack import StackWeights
from spark_app.platform.errors import InputError
from spark_app.platform.settings import Biases, ExplicitAls, ImplicitAls, Settings, Train


@dataclass(frozen=True)
class FitSettings:
    """The settings that the models were fitted with, for code that uses the models (fold-in, candidates).

    They differ from the configured settings where the solver does not support one: MLlib fits without biases and with
    reg_power 1.
    """

    implicit: ImplicitAls
    explicit: ExplicitAls
    biases: Biases
    min_user_ratings: int


@dataclass(frozen=True)
class Models:
    """The result of one fit: its settings, the ranking model, the two rating models, and the stack of these two.

    `implicit` ranks; `explicit` and `biases` predict ratings. If the input has counts instead of ratings, `explicit` is
    None, no ratings are predicted, and only the rating counts of `biases` are used, as popularity.
    """

    settings: FitSettings
    implicit: Factors
    explicit: Factors | None
    biases: BiasModel
    stack: StackWeights = field(default_factory=StackWeights)

    def candidates(self, movie_ids: Ids | Ints, max_bytes: int) -> CandidateBlocks:
        """Movies (ascending ids) with their ranking factors and popularity, in blocks of at most `max_bytes` each."""
        exponent = self.settings.implicit.popularity_exponent
        return candidate_blocks(movie_ids, self.biases.movie_rows(), self.implicit, exponent, max_bytes)

    def off_driver(self) -> Models:
        """The same models, without the matrices that take memory of the driver."""
        explicit = self.explicit.off_driver() if self.explicit else None
        return replace(self, implicit=self.implicit.off_driver(), explicit=explicit)

    def with_ratings(self, candidates: CandidateBlocks, model: RatingModel) -> CandidateBlocks:
        """The candidates with what they bring to predicted ratings. Collects the movies' factors to the driver."""
        factors = self._predicting.movie_matrix()
        known = known_biases(self.biases.movie_rows(), "movieId", "movie_bias")

        def rated(block: Candidates) -> Candidates:
            return replace(block, ratings=rating_side(block.movie_ids, factors, known, 0.0, (0.0, model.movie)))

        return candidates.each(rated)

    def predict(self, model: RatingModel) -> Predict:
        """What `recommend` needs to predict ratings."""
        return Predict(model, self._predicting.user_rows, self.biases.user_rows)

    def predicted_for_anyone(self, movie_ids: Ids, model: RatingModel) -> Doubles:
        """The predicted ratings of movies for a user who has no ratings."""
        known = known_biases(self.biases.movie_rows(), "movieId", "movie_bias")
        return predicted_for_anyone(movie_ids, known, model)

    @property
    def _predicting(self) -> Factors:
        if self.explicit is None:
            raise ValueError("models that were fitted to counts predict no ratings")
        return self.explicit


def fit_models(ratings: DataFrame, settings: Settings, start: Models | None = None) -> Models:
    """Fit all models to ratings(userId, movieId, rating).

    Users and movies with too few ratings (`train.min_user_ratings`, `train.min_movie_ratings`) are left out. Each
    factorisation starts from the factors in `start` if their rank is the same, otherwise from random ones.
    """
    training = training_set(ratings, settings.train)
    biases = fit_biases(training.blocks, settings.biases, ratings.sparkSession)
    explicit = None
    if settings.input.feedback == "ratings":
        explicit_start = None
        # Biases are columns of the factors, so 5 factors without biases and 3 with biases have equally many columns.
        # The settings tell these two apart.
        if start is not None and start.settings.explicit.rank == settings.explicit_als.rank:
            explicit_start = _of_rank(start.explicit, settings.explicit_als.rank + 2 * settings.explicit_als.biases)
        explicit = als.fit_explicit(training, settings.explicit_als, settings.train, biases.mean, explicit_start)
    implicit_start = None if start is None else _of_rank(start.implicit, settings.implicit_als.rank)
    implicit = als.fit_implicit(training, settings.implicit_als, settings.train, implicit_start)
    training.blocks.unpersist()
    fitted_with = FitSettings(
        implicit.als,
        explicit.als if explicit else settings.explicit_als,
        settings.biases,
        settings.train.min_user_ratings,
    )
    return Models(fitted_with, implicit.factors, explicit.factors if explicit else None, biases)


def training_set(ratings: DataFrame, train: Train) -> TrainingSet:
    """Pack the ratings(userId, movieId, rating) of active users and movies for a fit. The blocks are persisted.

    Raises InputError if no user and movie have enough ratings (`train.min_user_ratings`, `train.min_movie_ratings`).
    """
    active = keep_active(ratings, train.min_user_ratings, train.min_movie_ratings)
    blocks = pack(active, train.block_ratings)
    if not blocks.count:
        raise InputError(
            f"no user with {train.min_user_ratings} ratings has rated a movie with {train.min_movie_ratings}: "
            "lower train.min_user_ratings or train.min_movie_ratings"
        )
    return TrainingSet(active, blocks)


def _of_rank(factors: Factors | None, rank: int) -> Factors | None:
    return factors if factors is not None and factors.rank == rank else None


def with_fold_in(models: Models, ratings: DataFrame, which_users: Literal["new", "changed"]) -> tuple[Models, int]:
    """Update the models for users whose ratings the fit has not seen; also return how many of these get a ranking.

    Takes the current ratings(userId, movieId, rating). `new` updates users who are new since the fit; `changed` also
    updates users whose ratings have changed since. An updated user with fewer than `min_user_ratings` ratings is
    removed from all models.
    """
    fitted = models.settings
    outdated = outdated_users(ratings, models.biases, fitted.biases, changed=which_users == "changed").persist()
    if outdated.isEmpty():
        return models, 0
    new_ratings = ratings.join(outdated, on="userId", how="left_semi")
    new_ratings = keep_active(new_ratings, fitted.min_user_ratings, 1).persist()
    ranking_factors = fold_in_implicit(new_ratings, models.implicit.movies, fitted.implicit).persist()
    explicit = None
    if models.explicit:
        rating_factors = fold_in_explicit(new_ratings, models.explicit, fitted.explicit, models.biases.mean)
        explicit = with_users(models.explicit, outdated, rating_factors)
    unchanged = models.biases.users.join(outdated, on="userId", how="left_anti")
    users = unchanged.unionByName(user_biases(new_ratings, models.biases, fitted.biases))
    implicit = with_users(models.implicit, outdated, ranking_factors)
    biases = replace(models.biases, users=users, user_files=None)
    extended = replace(models, implicit=implicit, explicit=explicit, biases=biases)
    return extended, ranking_factors.count()
