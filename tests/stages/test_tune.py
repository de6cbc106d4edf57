"""The search for settings: it resumes where it stopped, and it writes a --config file."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any, cast

import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from pyspark.sql import SparkSession

from spark_app.model.half_sweep import Block
from spark_app.platform.errors import InputError
from spark_app.platform.settings import Settings, Train, build_settings
from spark_app.stages.tune import Data, Objective, Packed, _rank, _search, _start, _study, as_toml, with_values

optuna.logging.set_verbosity(optuna.logging.ERROR)
SETTINGS = build_settings(assignments=["tune.trials=14", "implicit_als.rank=24", "implicit_als.reg=0.5"])
NOTHING = cast(Any, None)


def space(data: Data, settings: Settings) -> dict[str, BaseDistribution]:
    return {"implicit_als.rank": IntDistribution(8, 64), "implicit_als.reg": FloatDistribution(0.01, 1.0, log=True)}


def bowl(spark: SparkSession, data: Data, settings: Settings) -> float:
    """A measure with its minimum at rank 40 and reg 0.1."""
    return abs(settings.implicit_als.rank - 40) / 56 + abs(settings.implicit_als.reg - 0.1)


class Interrupted:
    """The same measure, interrupted in trial number `at`."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, spark: SparkSession, data: Data, settings: Settings) -> float:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return bowl(spark, data, settings)


def search(path: Path, measure: Any = bowl, settings: Settings = SETTINGS) -> optuna.Study:
    objective = Objective("rating", "rmse", "minimize", space, measure)
    study = _study(objective, optuna.storages.RDBStorage(f"sqlite:///{path}"), "data")
    _search(NOTHING, study, objective, NOTHING, settings, lambda: None)
    return study


def tried(study: optuna.Study) -> list[dict[str, Any]]:
    return [trial.params for trial in study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))]


@pytest.mark.parametrize("killed_in", [1, 12])
def test_a_search_that_was_killed_goes_on_and_finds_what_one_in_a_single_go_finds(
    tmp_path: Path, killed_in: int
) -> None:
    whole = search(tmp_path / "whole.db")
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "stopped.db", Interrupted(killed_in))
    resumed = search(tmp_path / "stopped.db")
    assert len(tried(whole)) == 14
    assert tried(resumed) == tried(whole)
    assert resumed.best_params == whole.best_params
    assert not resumed.get_trials(states=(optuna.trial.TrialState.RUNNING,))


def test_the_first_trial_are_the_settings_of_the_run_and_the_best_is_better(tmp_path: Path) -> None:
    study = search(tmp_path / "trials.db")
    assert tried(study)[0] == {"implicit_als.rank": 24, "implicit_als.reg": 0.5}
    assert study.best_value < 0.4 < study.get_trials()[0].values[0]


def test_a_finished_search_tries_no_more_and_a_longer_one_goes_on(tmp_path: Path) -> None:
    first = tried(search(tmp_path / "trials.db"))
    assert tried(search(tmp_path / "trials.db", Interrupted(1))) == first
    longer = with_values(SETTINGS, {"tune.trials": 15})
    assert tried(search(tmp_path / "trials.db", settings=longer))[:14] == first


def test_settings_that_leave_nothing_to_fit_are_passed_over(tmp_path: Path) -> None:
    def picky(spark: SparkSession, data: Data, settings: Settings) -> float:
        if settings.implicit_als.rank > 40:
            raise InputError("nothing left")
        return bowl(spark, data, settings)

    study = search(tmp_path / "trials.db", picky)
    assert 1 < len(tried(study)) < 14
    assert all(params["implicit_als.rank"] <= 40 for params in tried(study))


def test_what_is_written_is_a_config_file_with_what_was_found_and_what_else_was_set() -> None:
    toml = "[raw]\npath = 'raw'\n[clean]\nearliest = 1970-01-01\n[recommend]\nn = 7\n[tune]\ntrials = 3\n"
    start = build_settings(toml, assignments=["ingest.source=a"])
    best = with_values(start, {"implicit_als.rank": 48, "biases.user_reg": 8.0})
    outcome = {"metric": "ndcg@10", "start": 0.25, "best": 0.3, "trials": 3}
    text = as_toml(best, {"ranking": {**outcome, "implicit_als.rank": 48, "biases.user_reg": 8.0}})
    read = build_settings(text)
    assert read.implicit_als.rank == 48
    assert (read.clean.earliest, read.recommend.n, read.ingest.source) == (date(1970, 1, 1), 7, ["a"])
    assert (read.raw.path, read.tune.trials) == ("", 40)
    assert "user_reg = 8.0" in text  # written, though it is the default
    assert "movie_reg" not in text
    assert text.startswith("# ranking: ndcg@10 0.3000 on the validation part after 3 trials, 0.2500 at the start\n")


def test_ranks_above_the_most_that_is_wanted_are_not_tried(tmp_path: Path) -> None:
    settings = build_settings(assignments=["tune.max_rank=12", "implicit_als.rank=64"])
    ranks = _rank(64, settings)
    assert (ranks.low, ranks.high) == (8, 12)
    assert _start({"implicit_als.rank": ranks}, settings) == {"implicit_als.rank": 12}


@pytest.mark.parametrize(
    "given",
    [
        ["input.feedback=counts", "implicit_als.confidence=linear", "raw.movies="],
        [
            "input.scale_min=1",
            "input.scale_max=10",
            "input.scale_step=1",
            "train.relevant=4",
            "implicit_als.neutral=2.5",
        ],
        ["input.scale_min=1", "input.scale_max=10", "input.scale_step=1"],
    ],
)
def test_what_is_written_reads_back_as_what_was_searched_with(given: list[str]) -> None:
    settings = build_settings(assignments=given)
    outcome = {"metric": "ndcg@10", "start": None, "best": 0.3, "trials": 3, "implicit_als.rank": 64}
    text = as_toml(settings, {"ranking": outcome})
    assert build_settings(text) == settings
    assert "nothing to fit at the start" in text


def len_of(block: Block) -> int:
    return len(block.values)


def test_ratings_are_packed_anew_only_where_others_are_left_out(spark: SparkSession) -> None:
    rows = [(1, 1, 4.0), (1, 2, 5.0), (2, 1, 3.0), (2, 2, 5.0), (3, 1, 5.0)]
    ratings = spark.createDataFrame(rows, "userId INT, movieId INT, rating DOUBLE")
    packed = Packed()
    everybody = packed.training_set(ratings, Train(min_user_ratings=1, min_movie_ratings=1))
    assert packed.training_set(ratings, Train(min_user_ratings=1, min_movie_ratings=1, seed=7)) is everybody
    assert everybody.blocks.count == 5
    some = packed.training_set(ratings, Train(min_user_ratings=2, min_movie_ratings=1))
    assert some.blocks.count == 4
    assert everybody.blocks.users.blocks.each(len_of) == []
    with pytest.raises(InputError, match="no user with 3 ratings has rated a movie with 1"):
        packed.training_set(ratings, Train(min_user_ratings=3, min_movie_ratings=1))
    assert some.blocks.users.blocks.each(len_of) == []
    assert packed.training_set(ratings, Train(min_user_ratings=2, min_movie_ratings=1)).blocks.count == 4


def test_each_trial_is_a_line_of_the_log(tmp_path: Path, said: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    study = search(tmp_path / "trials.db", settings=build_settings(assignments=["tune.trials=2"]))
    first, second = (trial.value for trial in study.get_trials())
    assert first is not None
    assert second is not None
    assert said == [
        f"rating: trial 1 of 2: rmse {first:.4f}, the best is {first:.4f}, 0 s",
        f"rating: trial 2 of 2: rmse {second:.4f}, the best is {min(first, second):.4f}, 0 s",
    ]
    assert "\r" not in "".join(capsys.readouterr())
