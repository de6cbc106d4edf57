"""Who gets what: lists with settings of `[recommend]` are the top N of what these leave of the complete lists."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from spark_app.cli import run_job
from spark_app.zones.processed import ProcessedZone
from tests.pipeline.conftest import Zones

SMALL = """
[ingest]
source = ["synthetic"]
users = 90
movies = 150
ratings = 3000

[implicit_als]
rank = 6
iterations = 4

[explicit_als]
rank = 6
iterations = 4

[gate]
enforce = false
"""

EVERYTHING, N = 1000, 4

Lists = dict[int, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("config") / "small.toml"
    path.write_text(SMALL)
    return str(path)


@pytest.fixture(scope="module")
def trained(spark: SparkSession, config: str, tmp_path_factory: pytest.TempPathFactory) -> Zones:
    folder = tmp_path_factory.mktemp("trained")
    zones = Zones(folder / "raw", folder / "processed")
    for stage in ("ingest", "etl", "train"):
        assert run_job(stage, zones.options("--config", config)) == 0
    return zones


@pytest.fixture(scope="module")
def everything(trained: Zones, config: str) -> Lists:
    """The complete list of each user: all movies that they have not seen."""
    assert run_job("recommend", trained.options("--config", config, "--set", f"recommend.n={EVERYTHING}")) == 0
    return lists(trained)


@pytest.fixture(scope="module")
def movies(trained: Zones) -> pd.DataFrame:
    return pd.read_parquet(trained.processed / "final" / "movies.parquet").set_index("movieId")


@pytest.fixture(scope="module")
def ratings(trained: Zones) -> pd.DataFrame:
    return pd.read_csv(trained.raw / "ratings.csv")


def lists(zones: Zones) -> Lists:
    by_user = defaultdict(list)
    for row in zones.recommendations():
        by_user[int(row["userId"])].append({**row, "movieId": int(row["movieId"])})
    return dict(by_user)


def popular_movies(zones: Zones) -> pd.DataFrame:
    return ProcessedZone(str(zones.processed)).rows("popular_movies").to_pandas()


def recommend(zones: Zones, config: str, **options: Any) -> Lists:
    values = {"n": N, **options}
    settings = [part for key, value in values.items() for part in ("--set", f"recommend.{key}={json.dumps(value)}")]
    assert run_job("recommend", zones.options("--config", config, *settings)) == 0
    return lists(zones)


def left_of(complete: Lists, may: Callable[[int, dict[str, Any]], bool]) -> dict[int, list[tuple[int, str, str]]]:
    """The first N rows of each complete list that may be recommended: movie, predicted rating, score."""
    left = {user: [row for row in rows if may(user, row)][:N] for user, rows in complete.items()}
    return {user: facts(rows) for user, rows in left.items() if rows}


def facts(rows: list[dict[str, Any]]) -> list[tuple[int, str, str]]:
    return [(row["movieId"], row["predicted_rating"], row["score"]) for row in rows]


def of_all(found: Lists) -> dict[int, list[tuple[int, str, str]]]:
    return {user: facts(rows) for user, rows in found.items()}


def test_movies_are_chosen_by_lists_genres_years_and_ratings(
    trained: Zones, config: str, everything: Lists, movies: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    (trained.raw.parent / "stock.csv").write_text("movieId,shelf\n" + "".join(f"{m},3\n" for m in range(1, 131)))
    pd.DataFrame({"movieId": [*range(10, 20), 5_000_000]}).to_parquet(trained.raw.parent / "withdrawn.parquet")
    years = movies.year.dropna().sort_values()
    first, last = int(years.quantile(0.1)), int(years.quantile(0.95))
    genres = movies.genres.str.split("|").explode().value_counts()
    kept, dropped = genres.index[0], genres.index[3]
    found = recommend(
        trained,
        config,
        items=[str(trained.raw.parent / "stock.csv")],
        exclude=str(trained.raw.parent / "withdrawn.parquet"),
        genres=[kept.upper(), "Comdey"],
        exclude_genres=[dropped],
        min_year=first,
        max_year=last,
        min_ratings=5,
    )

    def may(movie: int) -> bool:
        row = movies.loc[movie]
        names = row.genres.split("|")
        in_lists = movie <= 130 and not 10 <= movie < 20
        return (
            in_lists and kept in names and dropped not in names and first <= row.year <= last and row.rating_count >= 5
        )

    expected = left_of(everything, lambda _, row: may(row["movieId"]))
    assert of_all(found) == expected
    assert 3 < len({row[0] for rows in expected.values() for row in rows}) < 60
    manifest = trained.manifests()[-1]
    assert manifest["rows"]["recommendations"]["chosen_movies"] == sum(map(may, movies.index))
    assert {Path(noted["path"]).name for noted in manifest["inputs"]} >= {"stock.csv", "withdrawn.parquet"}
    said = capsys.readouterr().err
    assert "recommend.exclude: 1 of 11 ids are unknown and are left out: 5000000" in said
    assert "no movie has the genre Comdey of recommend.genres; did you mean Comedy?" in said
    popular = popular_movies(trained)
    assert len(popular.genre.unique()) > 2
    for genre, part in popular.groupby("genre", dropna=False):
        of_genre = movies[[may(m) and (pd.isna(genre) or genre in movies.genres[m].split("|")) for m in movies.index]]
        best = of_genre.reset_index().sort_values(["rating_count", "movieId"], ascending=[False, True])
        assert part.sort_values("rank").movieId.tolist() == best.movieId.tolist()[:N]


def test_reasons_name_movies_that_may_not_be_recommended_themselves(
    trained: Zones, config: str, everything: Lists
) -> None:
    (trained.raw.parent / "ten.txt").write_text("".join(f"{m}\n" for m in range(1, 11)))
    found = recommend(trained, config, items=[str(trained.raw.parent / "ten.txt")])
    reasons = {(user, row["movieId"]): row["reason"] for user, rows in everything.items() for row in rows}
    for user, rows in found.items():
        for row in rows:
            assert row["movieId"] <= 10
            assert row["reason"] == reasons[user, row["movieId"]].replace("are rated", "are rated or left out")


def test_movies_predicted_too_low_make_room_for_others(
    trained: Zones, config: str, everything: Lists, ratings: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    means = ratings.groupby("userId").rating.mean()
    against_mean = recommend(trained, config, min_above_mean=0.1)
    expected = left_of(everything, lambda user, row: float(row["predicted_rating"]) >= means[user] + 0.1)
    assert of_all(against_mean) == expected
    plain = left_of(everything, lambda _, __: True)
    assert sum(plain[user] != expected.get(user) for user in plain) > 10
    absolute = recommend(trained, config, min_predicted_rating=3.9)
    assert of_all(absolute) == left_of(everything, lambda _, row: float(row["predicted_rating"]) >= 3.9)
    shorter, without = sum(len(rows) < N for rows in absolute.values()), len(everything) - len(absolute)
    assert shorter + without
    told = f"{shorter} users have a list of fewer than {N} movies, and {without} have none"
    assert told in capsys.readouterr().err
    popular = popular_movies(trained)
    assert len(popular)
    assert (popular.predicted_rating >= 3.9).all()


def test_where_no_similar_movies_are_wanted_those_of_an_earlier_run_go(
    trained: Zones, config: str, everything: Lists
) -> None:
    zone = ProcessedZone(str(trained.processed))
    assert zone.dataset("similar_movies").count_rows()
    assert run_job("recommend", trained.options("--config", config, "--set", "similar.n=0")) == 0
    assert zone.dataset("similar_movies").count_rows() == 0
    assert Path(zone.similar_movies_csv).read_text().count("\n") == 1
    assert run_job("recommend", trained.options("--config", config)) == 0
    assert zone.dataset("similar_movies").count_rows()


def test_only_chosen_users_get_lists(
    trained: Zones, config: str, everything: Lists, ratings: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    last = pd.to_datetime(ratings.groupby("userId").timestamp.max(), unit="s")
    day = last.quantile(0.7).floor("D")
    active = set(last[last >= day].index)
    members = [*range(1, 61), 777_777]
    (trained.raw.parent / "members.csv").write_text("userId\n" + "".join(f"{user}\n" for user in members))
    found = recommend(
        trained, config, users=[str(trained.raw.parent / "members.csv")], active_since=day.date().isoformat()
    )
    assert 3 < len(found) < 60
    plain = left_of(everything, lambda _, __: True)
    assert of_all(found) == {user: plain[user] for user in active & set(members)}
    assert "recommend.users: 1 of 61 ids are unknown and are left out: 777777" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("min_year=2199",), "no movie may be recommended: of 150 movies, 0 by recommend.min_year are left"),
        (("min_predicted_rating=5",), "no movie may be recommended to anybody with recommend.min_predicted_rating=5"),
        (("items={folder}/none.csv",), "the list of ids {folder}/none.csv is missing: check the path"),
        (("items={folder}/strangers.csv",), "none of the 2 ids in {folder}/strangers.csv (recommend.items) is known"),
        (("users={folder}/strangers.csv",), "no user gets a list"),
        (("active_since=2199-01-01",), "no user gets a list"),
    ],
)
def test_an_empty_choice_is_exit_3(
    trained: Zones, config: str, everything: Lists, capsys: pytest.CaptureFixture[str], options: tuple[str], told: str
) -> None:
    folder = trained.raw.parent
    (folder / "strangers.csv").write_text("id\n999999\nnobody\n")
    before = trained.recommendations()
    settings = [part for option in options for part in ("--set", f"recommend.{option.format(folder=folder)}")]
    assert run_job("recommend", trained.options("--config", config, *settings)) == 3
    assert told.format(folder=folder) in capsys.readouterr().err
    assert trained.recommendations() == before


def test_nothing_is_popular_where_nothing_is_predicted_high_enough(
    trained: Zones, config: str, everything: Lists
) -> None:
    """Only a generous user gets a list: for a user without ratings nothing is that good."""
    best = {user: max(float(row["predicted_rating"]) for row in rows) for user, rows in everything.items()}
    highest = max(best.values())
    found = recommend(trained, config, min_predicted_rating=highest)
    assert set(found) == {user for user, rating in best.items() if rating >= highest}
    assert len(popular_movies(trained)) == 0
