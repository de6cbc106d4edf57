"""All models of one fit: what they are fitted to, where they start, and how fold-in updates them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.model.fits import Models, fit_models, training_set, with_fold_in
from spark_app.model.foldin import fold_in_implicit
from spark_app.platform.errors import InputError
from spark_app.platform.settings import ExplicitAls, ImplicitAls, Settings, Train, build_settings

RATINGS = "userId INT, movieId INT, rating DOUBLE"
SMALL = """
[train]
min_user_ratings = 1
min_movie_ratings = 1

[implicit_als]
rank = 2
iterations = 2

[explicit_als]
rank = 2
iterations = 2
"""

Row = tuple[int, int, float]
ROWS: list[Row] = [(u, m, float(1 + (u + 2 * m) % 5)) for u in range(1, 9) for m in range(1, 9) if u != m]


def settings_of(*assignments: str) -> Settings:
    return build_settings(SMALL, assignments=assignments)


@pytest.fixture(scope="module")
def ratings(spark: SparkSession) -> DataFrame:
    """Ratings of 8 movies by 8 users, seven each."""
    return spark.createDataFrame(ROWS, RATINGS).coalesce(1).persist()


@pytest.fixture(scope="module")
def models(ratings: DataFrame) -> Models:
    return fit_models(ratings, settings_of())


def ids_of(frame: DataFrame, column: str = "id") -> set[int]:
    rows = frame.collect()
    found = {row[column] for row in rows}
    assert len(found) == len(rows)
    return found


def vectors(frame: DataFrame) -> dict[int, list[float]]:
    return {row.id: list(row.features) for row in frame.collect()}


# What is fitted


def test_a_fit_has_all_models_of_everybody_and_the_settings_they_were_fitted_with(models: Models) -> None:
    everybody = set(range(1, 9))
    settings = settings_of()
    assert models.explicit
    assert models.explicit.rank == 2 + 2 * settings.explicit_als.biases
    assert models.implicit.rank == 2
    for factors in (models.explicit, models.implicit):
        assert ids_of(factors.users) == ids_of(factors.movies) == everybody
    assert ids_of(models.biases.users, "userId") == ids_of(models.biases.movies, "movieId") == everybody
    assert models.biases.mean == pytest.approx(np.mean([rating for _, _, rating in ROWS]))
    told = models.settings
    assert (told.implicit, told.explicit, told.biases) == (
        settings.implicit_als,
        settings.explicit_als,
        settings.biases,
    )
    assert told.min_user_ratings == 1


def test_of_counts_no_model_predicts_ratings(ratings: DataFrame) -> None:
    assert fit_models(ratings, settings_of("input.feedback=counts")).explicit is None


def test_the_same_ratings_give_the_same_models_in_any_order(ratings: DataFrame, models: Models) -> None:
    again = fit_models(ratings.orderBy(F.rand(3)).repartition(3), settings_of())
    assert models.explicit
    assert again.explicit
    for ours, theirs in ((again.implicit, models.implicit), (again.explicit, models.explicit)):
        assert vectors(ours.users) == vectors(theirs.users)
        assert vectors(ours.movies) == vectors(theirs.movies)


def test_models_are_fitted_to_users_and_movies_that_are_active_enough(spark: SparkSession) -> None:
    # User 3 has one rating of movie 1; movie 9 has one rating.
    rows = [(1, 1, 4.0), (1, 2, 5.0), (2, 1, 3.0), (2, 2, 5.0), (3, 1, 5.0), (1, 9, 5.0)]
    found = training_set(spark.createDataFrame(rows, RATINGS), Train(min_user_ratings=2, min_movie_ratings=2))
    assert sorted(map(tuple, found.ratings.collect())) == [(1, 1, 4.0), (1, 2, 5.0), (2, 1, 3.0), (2, 2, 5.0)]
    assert (found.blocks.users.ids.tolist(), found.blocks.movies.ids.tolist()) == ([1, 2], [1, 2])
    assert found.blocks.count == 4


def test_who_is_left_out_is_in_no_model(spark: SparkSession) -> None:
    rows = [*ROWS, (50, 1, 5.0), (1, 60, 5.0)]
    found = fit_models(
        spark.createDataFrame(rows, RATINGS), settings_of("train.min_user_ratings=2", "train.min_movie_ratings=2")
    )
    assert found.explicit
    for users in (found.implicit.users, found.explicit.users):
        assert 50 not in ids_of(users)
    for movies in (found.implicit.movies, found.explicit.movies):
        assert 60 not in ids_of(movies)
    assert 50 not in ids_of(found.biases.users, "userId")


def test_nobody_who_is_active_enough_is_an_error(ratings: DataFrame) -> None:
    with pytest.raises(InputError) as caught:
        training_set(ratings, Train(min_user_ratings=100, min_movie_ratings=3))
    assert str(caught.value) == (
        "no user with 100 ratings has rated a movie with 3: lower train.min_user_ratings or train.min_movie_ratings"
    )


# Where it starts


def starts(said: list[str]) -> list[str]:
    return [message for message in said if message.startswith("fitting ") and "at most" in message]


def test_a_fit_goes_on_from_models_of_the_same_rank(ratings: DataFrame, models: Models, said: list[str]) -> None:
    fit_models(ratings, settings_of("train.refit_sweeps=1"), start=models)
    assert starts(said) == [
        "fitting explicit ALS: rank 2, at most 1 sweeps",
        "fitting implicit ALS: rank 2, at most 1 sweeps",
    ]


@pytest.mark.parametrize(
    ("before", "goes_on"),
    [
        (["implicit_als.rank=3"], "explicit"),
        (["explicit_als.rank=3"], "implicit"),
        (["explicit_als.biases=false"], "implicit"),
        # Two factors with two columns of biases are not four factors.
        (["explicit_als.biases=false", "explicit_als.rank=4"], "implicit"),
        (["train.solver=mllib"], "implicit"),
        (["input.feedback=counts", "implicit_als.neutral=2.5"], "implicit"),
    ],
)
def test_models_of_another_rank_are_no_start(
    ratings: DataFrame, said: list[str], before: list[str], goes_on: str
) -> None:
    start = fit_models(ratings, settings_of("explicit_als.biases=true", *before))
    settings = settings_of("explicit_als.biases=true", "train.refit_sweeps=1")
    del said[:]
    found = fit_models(ratings, settings, start=start)
    assert starts(said) == [
        f"fitting {kind} ALS: rank 2, at most {1 if kind == goes_on else 2} sweeps" for kind in ("explicit", "implicit")
    ]
    anew = fit_models(ratings, settings)
    ours, theirs = (getattr(fit, "implicit" if goes_on == "explicit" else "explicit") for fit in (found, anew))
    assert vectors(ours.users) == vectors(theirs.users)


# Fold-in


def test_new_listeners_are_folded_in_where_plays_are_counted(spark: SparkSession) -> None:
    rows = [
        (user, movie, float(1 + user * movie % 50)) for user in range(1, 9) for movie in range(1, 9) if user != movie
    ]
    models = fit_models(spark.createDataFrame(rows, RATINGS), settings_of("input.feedback=counts"))
    now = spark.createDataFrame([*rows, (9, 2, 40.0), (9, 99, 3.0), (10, 99, 1.0)], RATINGS)
    folded, users = with_fold_in(models, now, "changed")
    assert users == 1
    assert folded.explicit is None
    assert ids_of(folded.implicit.users) == set(range(1, 10))
    assert {row.userId: row.rating_count for row in folded.biases.users.collect()} == dict.fromkeys(range(1, 9), 7) | {
        9: 1
    }


def test_new_users_are_in_all_models_and_others_stay(spark: SparkSession, models: Models) -> None:
    now = spark.createDataFrame([*ROWS, (9, 1, 5.0), (9, 2, 1.0)], RATINGS)
    folded, users = with_fold_in(models, now, "new")
    assert users == 1
    assert folded.explicit
    assert models.explicit
    for ours, theirs in ((folded.implicit, models.implicit), (folded.explicit, models.explicit)):
        found, before = vectors(ours.users), vectors(theirs.users)
        assert len(found.pop(9)) == ours.rank
        assert found == before
    assert 9 in ids_of(folded.biases.users, "userId")


def test_ratings_that_the_fit_has_seen_change_nothing(ratings: DataFrame, models: Models) -> None:
    assert with_fold_in(models, ratings, "changed") == (models, 0)


@pytest.mark.parametrize("scale", [0.1, 1.0, 20.0, 25_000.0])
def test_nobody_is_folded_in_right_after_the_fit_whatever_the_scale(spark: SparkSession, scale: float) -> None:
    rng = np.random.default_rng(2)
    rows = [(u, m, scale * int(rng.integers(1, 6))) for u in range(1, 30) for m in range(1, 20) if rng.random() < 0.3]
    ratings = spark.createDataFrame(rows, RATINGS)
    damping: dict[str, Any] = {"movie_reg": 1.0, "user_reg": 0.5}
    settings = settings_of("input.feedback=counts").model_copy(
        update={"biases": Settings().biases.model_copy(update=damping)}
    )
    assert with_fold_in(fit_models(ratings, settings), ratings.repartition(3), "changed")[1] == 0


def test_models_of_mllib_say_what_it_was_given(spark: SparkSession) -> None:
    rows = [(user, movie, float((user * movie) % 5 + 1)) for user in range(1, 9) for movie in range(1, user + 2)]
    ratings = spark.createDataFrame(rows, "userId INT, movieId INT, rating DOUBLE")
    settings = Settings(
        train=Train(solver="mllib"),
        explicit_als=ExplicitAls(rank=2, iterations=2, reg=1.0, reg_power=0.5, biases=True),
        implicit_als=ImplicitAls(rank=2, iterations=2, reg=1.0, reg_power=0.5),
    )
    models = fit_models(ratings, settings)
    assert models.settings.explicit.reg_power == models.settings.implicit.reg_power == 1
    assert not models.settings.explicit.biases
    assert models.settings.explicit.reg < 1
    # Folding in all users again changes none of them, because it solves the same problem as MLlib.
    again = fold_in_implicit(ratings, models.implicit.movies, models.settings.implicit)
    known = {row.id: row.features for row in models.implicit.users.collect()}
    for row in again.collect():
        assert row.features == pytest.approx(known[row.id], rel=1e-4, abs=1e-5)
