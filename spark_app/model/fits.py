"""The models of one fit: the two factorisations and the biases, fitted together, and carried on by fold-in."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from pyspark.sql import DataFrame

from spark_app.model import als
from spark_app.model.als import TrainingSet
from spark_app.model.biases import BiasModel, fit_biases, user_biases
from spark_app.model.candidates import CandidateBlocks, candidate_blocks
from spark_app.model.factors import Factors, with_users
from spark_app.model.foldin import fold_in_explicit, fold_in_implicit, outdated_users
from spark_app.model.rating_blocks import pack
from spark_app.model.split import keep_active
from spark_app.model.stack import StackWeights
from spark_app.platform.errors import InputError
from spark_app.platform.settings import Biases, ExplicitAls, ImplicitAls, Settings, Train


@dataclass(frozen=True)
class FitSettings:
    """The settings of a fit that matter to whoever uses its models, as far as its solver could follow them."""

    implicit: ImplicitAls
    explicit: ExplicitAls
    biases: Biases
    min_user_ratings: int


@dataclass(frozen=True)
class Models:
    """What one fit gives: the settings of the fit, the ranking model, the two rating models, and their stack.

    Of counts there is no explicit model: nothing predicts ratings, and the biases tell the popularity only.
    """

    settings: FitSettings
    implicit: Factors
    explicit: Factors | None
    biases: BiasModel
    stack: StackWeights = field(default_factory=StackWeights)

    def candidates(self, movies: DataFrame, max_bytes: int) -> CandidateBlocks:
        """The movies(movieId) as the ranking model scores them, in blocks of at most so many bytes."""
        exponent = self.settings.implicit.popularity_exponent
        ranking = self.implicit
        return candidate_blocks(movies, self.biases.movies, ranking.movies, ranking.rank, exponent, max_bytes)


def fit_models(ratings: DataFrame, settings: Settings, start: Models | None = None) -> Models:
    """Fit all models to the ratings(userId, movieId, rating) of users and movies that are active enough.

    The factorisations go on from those of other models where these have the same rank.
    """
    training = training_set(ratings, settings.train)
    biases = fit_biases(training.blocks, settings.biases, ratings.sparkSession)
    explicit = None
    if settings.input.feedback == "ratings":
        known = None
        # Biases are columns too: without a look at the settings, 5 factors and 3 with biases would be the same.
        if start is not None and start.settings.explicit.rank == settings.explicit_als.rank:
            known = _of_rank(start.explicit, settings.explicit_als.rank + 2 * settings.explicit_als.biases)
        explicit = als.fit_explicit(training, settings.explicit_als, settings.train, biases.mean, known)
    known = None if start is None else _of_rank(start.implicit, settings.implicit_als.rank)
    implicit = als.fit_implicit(training, settings.implicit_als, settings.train, known)
    training.blocks.unpersist()
    fitted_with = FitSettings(
        implicit.als,
        explicit.als if explicit else settings.explicit_als,
        settings.biases,
        settings.train.min_user_ratings,
    )
    return Models(fitted_with, implicit.factors, explicit.factors if explicit else None, biases)


def training_set(ratings: DataFrame, train: Train) -> TrainingSet:
    """The ratings(userId, movieId, rating) that models are fitted to, packed; its blocks are persisted.

    Raises InputError where no user or movie is active enough.
    """
    active = keep_active(ratings, train.min_user_ratings, train.min_movie_ratings)
    blocks = pack(active, train.block_ratings)
    if not blocks.count:
        raise InputError(
            f"no user has {train.min_user_ratings} ratings of movies with {train.min_movie_ratings}: "
            "lower train.min_user_ratings or train.min_movie_ratings"
        )
    return TrainingSet(active, blocks)


def _of_rank(factors: Factors | None, rank: int) -> Factors | None:
    return factors if factors is not None and factors.rank == rank else None


def with_fold_in(models: Models, ratings: DataFrame, whose: Literal["new", "changed"]) -> tuple[Models, int]:
    """The models with factors and biases for users whose ratings the fit has not seen, and how many get a ranking.

    Takes ratings(userId, movieId, rating) as they are now. `new`: users whom the fit has not seen; `changed`: also
    those who had other ratings then. Users whom a fit would leave out are in none of the models any more.
    """
    fitted = models.settings
    outdated = outdated_users(ratings, models.biases, fitted.biases, changed=whose == "changed").persist()
    if outdated.isEmpty():
        return models, 0
    theirs = ratings.join(outdated, on="userId", how="left_semi")
    theirs = keep_active(theirs, fitted.min_user_ratings, 1).persist()
    ranking = fold_in_implicit(theirs, models.implicit.movies, fitted.implicit).persist()
    explicit = None
    if models.explicit:
        rating = fold_in_explicit(theirs, models.explicit, fitted.explicit, models.biases.mean)
        explicit = with_users(models.explicit, outdated, rating)
    others = models.biases.users.join(outdated, on="userId", how="left_anti")
    biases = others.unionByName(user_biases(theirs, models.biases, fitted.biases))
    implicit = with_users(models.implicit, outdated, ranking)
    extended = replace(models, implicit=implicit, explicit=explicit, biases=replace(models.biases, users=biases))
    return extended, ranking.count()
