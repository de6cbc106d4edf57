from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.plan import (
    AWS_TARGET,
    BILLION,
    TARGET,
    Assumed,
    Measured,
    core_seconds,
    costs,
    executor_gb,
    flops,
    plan,
    services,
    shuffled_gb,
)


def test_the_plan_in_the_repository_is_up_to_date() -> None:
    assert TARGET.read_text() == plan(BILLION, Measured(), Assumed())
    assert AWS_TARGET.read_text() == costs(Measured(), Assumed())


def test_the_measured_size_takes_the_measured_time() -> None:
    measured = Measured()
    seconds = core_seconds(measured.size, measured, replace(Assumed(), fits=1))
    assert seconds["etl"] == measured.cores * measured.etl
    assert seconds["packing"] == measured.cores * measured.pack
    assert seconds["explicit ALS, rank 64"] == pytest.approx(measured.cores * 10 * measured.own_64)
    assert seconds["implicit ALS, rank 128"] == pytest.approx(measured.cores * 10 * measured.own_128)
    by_mllib = core_seconds(measured.size, measured, replace(Assumed(), fits=1, broadcast=0))
    assert by_mllib["implicit ALS by MLlib, rank 64"] == measured.cores * (
        measured.mllib_set_up + 10 * measured.mllib_64
    )
    assert seconds["judging"] == measured.cores * measured.judge


def test_the_cost_of_glue_is_its_workers_times_their_minutes() -> None:
    measured, assumed = Measured(), replace(Assumed(), busy=1)
    hours = sum(core_seconds(measured.size, measured, assumed).values()) / 12 / 3600 + 2 / 60
    assert services(assumed)[0].workers == 4
    assert f"| {4 * 0.44 * hours:.2f} |" in costs(measured, assumed).splitlines()[5]


def test_work_grows_with_ratings_users_and_movies() -> None:
    seconds = [core_seconds(size, Measured(), Assumed()) for size in (BILLION, replace(BILLION, ratings=2e9))]
    assert seconds[1]["etl"] == pytest.approx(2 * seconds[0]["etl"])
    assert seconds[1]["recommend"] == seconds[0]["recommend"]
    assert seconds[1]["judging"] == seconds[0]["judging"]
    fit = "implicit ALS by MLlib, rank 64"
    assert 1 < seconds[1][fit] / seconds[0][fit] < 2


def test_the_second_fit_of_our_solver_starts_from_the_first() -> None:
    once, twice = (core_seconds(Measured().size, Measured(), replace(Assumed(), fits=fits)) for fits in (1, 2))
    assert twice["implicit ALS, rank 128"] == pytest.approx(1.3 * once["implicit ALS, rank 128"])


def test_sizes_worked_out_by_hand() -> None:
    assert flops(BILLION, 64) == pytest.approx(2e9 * 64**2 + 100.1e6 * 64**3 / 3)
    assert executor_gb(BILLION)["user factors, before and after a half sweep"] == pytest.approx(2 * (25.6 + 2.4))
    # 500 blocks: a user's factors are sent once per rating of the user, a movie's factors to every block.
    assert shuffled_gb(BILLION, 64, Assumed()) == pytest.approx((1e9 + 100_000 * 500) * 256 / 1e9)
