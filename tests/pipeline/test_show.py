"""Answers about published files, given without Spark, are compared with pandas on the raw files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from spark_app.ask import main
from tests.pipeline.conftest import MOVIELENS, ROOT, Zones

TOY_STORY, NEVER_RATED = 1, 1076


def ask(capsys: pytest.CaptureFixture[str], processed: Path, *question: str) -> str:
    main(["show", "--processed-path", str(processed), *question])
    return capsys.readouterr().out


def ask_json(capsys: pytest.CaptureFixture[str], processed: Path, *question: str) -> Any:
    return json.loads(ask(capsys, processed, *question, "--json"))


def test_a_user_is_shown_with_all_ratings_and_all_recommendations(
    movielens: Zones, capsys: pytest.CaptureFixture[str]
) -> None:
    ratings = pd.read_csv(MOVIELENS / "ratings.csv")
    own = ratings[ratings.userId == 7].sort_values(["rating", "timestamp", "movieId"], ascending=[False, False, True])
    answer = ask_json(capsys, movielens.processed, "--user", "7")
    assert answer["rating_count"] == len(own)
    assert answer["average_rating"] == pytest.approx(own.rating.mean())
    assert [row["movieId"] for row in answer["history"]] == own.movieId.to_list()
    assert [row["rating"] for row in answer["history"]] == own.rating.to_list()
    seconds = [pd.Timestamp(row["timestamp"]).timestamp() for row in answer["history"]]
    assert seconds == own.timestamp.to_list()
    published = pd.DataFrame(movielens.recommendations()).query("userId == '7'").drop(columns="userId")
    shown = pd.DataFrame(answer["recommendations"])
    pd.testing.assert_frame_equal(shown, published.reset_index(drop=True).astype(shown.dtypes))


def test_a_movie_is_shown_with_those_whose_factors_are_most_like_its_own(
    movielens: Zones, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = ask_json(capsys, movielens.processed, "--movie", str(TOY_STORY))
    assert (answer["title"], answer["year"], answer["rating_count"]) == ("Toy Story (1995)", 1995, 215)
    current = json.loads((movielens.processed / "models" / "current.json").read_text())["run_id"]
    factors = pd.read_parquet(movielens.processed / "models" / current / "implicit_als" / "itemFactors")
    counts = pd.read_csv(MOVIELENS / "ratings.csv").groupby("movieId").size()
    vectors = {row.id: np.array(row.features, dtype=float) for row in factors.itertuples() if counts[row.id] >= 5}
    own = vectors.pop(TOY_STORY)
    cosines = {m: float(own @ v / np.linalg.norm(own) / np.linalg.norm(v)) for m, v in vectors.items()}
    nearest = sorted(cosines, key=lambda movie: -cosines[movie])[:20]
    assert [row["movieId"] for row in answer["similar"]] == nearest
    assert [row["score"] for row in answer["similar"]] == pytest.approx([cosines[m] for m in nearest], abs=2e-6)
    assert [row["rating_count"] for row in answer["similar"]] == [counts[m] for m in nearest]
    assert all(row["title"] and row["genres"] for row in answer["similar"])
    published = pd.read_csv(movielens.processed / "recommendations" / "similar_movies.csv")
    own_rows = published[published.movieId == TOY_STORY]
    assert own_rows.similarMovieId.to_list() == nearest
    assert set(published.movieId) <= set(counts[counts >= 5].index)
    assert (published.groupby("movieId").size() == 20).all()


def test_popular_movies_are_shown_over_all_genres_and_of_one(
    movielens: Zones, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = pd.read_csv(MOVIELENS / "ratings.csv").groupby("movieId").size().rename("ratings").reset_index()
    movies = pd.read_csv(MOVIELENS / "movies.csv").merge(counts, on="movieId")
    best_first = movies.sort_values(["ratings", "movieId"], ascending=[False, True])
    everything = ask_json(capsys, movielens.processed, "--popular")
    assert [row["movieId"] for row in everything["movies"]] == best_first.movieId.head(10).to_list()
    westerns = best_first[best_first.genres.str.contains("Western")]
    found = ask_json(capsys, movielens.processed, "--popular", "western")
    assert found["genre"] == "Western"
    assert [row["movieId"] for row in found["movies"]] == westerns.movieId.head(10).to_list()
    shown = ask(capsys, movielens.processed, "--popular", "Western")
    assert "Most rated in Western" in shown
    assert "Dances with Wolves (1990)" in shown


@pytest.mark.parametrize("title", ["toy story", "Toy Story (1995)", "TOY  STORY 1995"])
def test_a_movie_is_found_by_its_title(movielens: Zones, capsys: pytest.CaptureFixture[str], title: str) -> None:
    assert ask_json(capsys, movielens.processed, "--movie", title)["movieId"] == TOY_STORY


def test_where_several_titles_match_there_is_a_choice(movielens: Zones, capsys: pytest.CaptureFixture[str]) -> None:
    found = ask_json(capsys, movielens.processed, "--movie", "story toy")["movies"]
    assert [(row["movieId"], row["title"]) for row in found] == [
        (1, "Toy Story (1995)"),
        (3114, "Toy Story 2 (1999)"),
        (78499, "Toy Story 3 (2010)"),
    ]
    shown = ask(capsys, movielens.processed, "--movie", "amelie")
    assert "Amelie (Fabuleux destin d'Amélie Poulain, Le) (2001)" in shown
    assert "ask for one by its id" in ask(capsys, movielens.processed, "--movie", "the")


def test_a_list_on_the_spot_by_ids_titles_or_a_file(
    movielens: Zones, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    by_id = ask_json(capsys, movielens.processed, "--rate", "1=5", "--rate", "260=4.5")
    assert [(row["title"], row["rating"]) for row in by_id["ratings"]] == [
        ("Toy Story (1995)", 5.0),
        ("Star Wars: Episode IV - A New Hope (1977)", 4.5),
    ]
    assert [row["rank"] for row in by_id["recommendations"]] == list(range(1, 11))
    assert all(row["reason"].startswith("you liked ") for row in by_id["recommendations"])
    by_title = ["--rate", "toy story=5", "--rate", "star wars: episode iv - a new hope=4.5"]
    assert ask_json(capsys, movielens.processed, *by_title) == by_id
    for text in ("1,5\n260,4.5\n", "rating,movieId\n4.5,260\n5,1\n"):
        (tmp_path / "mine.csv").write_text(text)
        assert ask_json(capsys, movielens.processed, "--rates", str(tmp_path / "mine.csv")) == by_id
    chosen = ["--set", "recommend.genres=Horror", "--set", "recommend.n=3", "--rate", "1=5"]
    horror = ask_json(capsys, movielens.processed, *chosen)["recommendations"]
    assert len(horror) == 3
    assert all("Horror" in row["genres"].split("|") for row in horror)
    assert "you liked Toy Story (1995)" in ask(capsys, movielens.processed, "--rate", "1=5")


@pytest.mark.parametrize(
    ("question", "code", "told"),
    [
        (("--popular", "Noir"), 3, "no popular movie has the genre Noir: there are Action, Adventure"),
        (("--rate", "1"), 2, "--rate takes MOVIE=RATING, such as 260=4.5; got '1'"),
        (("--rate", "1=good"), 2, "--rate takes MOVIE=RATING, such as 260=4.5; got '1=good'"),
        (("--rate", "1=9"), 2, "the rating 9 of movie 1 is not on the scale from 0.5 to 5"),
        (("--rate", "story toy=4"), 3, "3 movies match story toy: give an id, such as 1 Toy Story (1995)"),
        (("--rate", "99999999=4"), 3, "no movie in {zone}/final/movies.parquet has the id or the title 99999999"),
        (("--rate", "1=4", "--set", "recommend.min_year=2199"), 3, "no movie may be recommended"),
        (("--rate", "1=4", "--set", "recommend.mn=5"), 2, "unknown setting recommend.mn; did you mean recommend.n?"),
        (("--rates", "{zone}/none.csv"), 3, "cannot read {zone}/none.csv: No such file or directory"),
    ],
)
def test_ratings_that_cannot_be_taken_say_why(
    movielens: Zones, capsys: pytest.CaptureFixture[str], question: tuple[str, ...], code: int, told: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        ask(capsys, movielens.processed, *(part.format(zone=movielens.processed) for part in question))
    assert ended.value.code == code
    assert capsys.readouterr().err.startswith(f"show: {told.format(zone=movielens.processed)}")


def test_a_movie_that_nobody_has_rated_is_shown_too(movielens: Zones, capsys: pytest.CaptureFixture[str]) -> None:
    answer = ask_json(capsys, movielens.processed, "--movie", str(NEVER_RATED))
    assert (answer["rating_count"], answer["average_rating"], answer["similar"]) == (0, None, [])
    assert "nobody has rated it" in ask(capsys, movielens.processed, "--movie", str(NEVER_RATED))


def test_a_run_is_its_manifest_and_the_last_one_where_none_is_named(
    movielens: Zones, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (manifest,) = movielens.manifests()
    assert ask_json(capsys, movielens.processed, "--run", manifest["run_id"]) == manifest
    runs = tmp_path / "runs"
    runs.mkdir()
    for run_id in ("20250101T000000Z-ffff", "20250102T000000Z-0000"):
        (runs / f"{run_id}.json").write_text(json.dumps({**manifest, "run_id": run_id}))
    assert ask_json(capsys, tmp_path, "--run")["run_id"] == "20250102T000000Z-0000"


def test_answers_read_well_in_a_terminal(movielens: Zones, capsys: pytest.CaptureFixture[str]) -> None:
    user = ask(capsys, movielens.processed, "--user", "7")
    assert user.startswith("User 7: 152 ratings, 3.23 on average")
    assert "Recommended to user 7" in user
    assert "you liked" in user
    assert "named as reasons" in user
    movie = ask(capsys, movielens.processed, "--movie", str(TOY_STORY))
    assert "1: Toy Story (1995)\nAdventure, Animation, Children, Comedy, Fantasy\n215 ratings, 3.92 on average" in movie
    run = ask(capsys, movielens.processed, "--run")
    for part in ("pipeline", "done in", "100,836", "recommend", "NDCG@10", "movie_recommendations.csv"):
        assert part in run


def test_a_failed_run_is_shown_with_its_error_and_rejects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs").mkdir()
    manifest = {
        **{"run_id": "1", "job": "etl", "status": "failed", "error": "too many [red]rows", "seconds": 2.5},
        **{"stages": [{"stage": "etl", "status": "failed", "seconds": 2.5}], "rows": {}, "metrics": {}, "outputs": []},
        "rejects": {"ratings": {"rating is off the scale": 1200}},
    }
    (tmp_path / "runs" / "1.json").write_text(json.dumps(manifest))
    shown = ask(capsys, tmp_path, "--run")
    assert "etl 1: failed" in shown
    assert "too many [red]rows" in shown
    assert "rating is off the scale │ 1,200" in shown


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (("--user", "99999"), "user 99999 has no ratings in {zone}/delta/ratings"),
        (("--movie", "99999999"), "no movie in {zone}/final/movies.parquet has the id or the title 99999999"),
        (("--run", "no-such-run"), "{zone}/runs/no-such-run.json: there is no such run; `show --runs` lists all"),
    ],
)
def test_what_is_not_there_is_exit_3_and_one_line(
    movielens: Zones, capsys: pytest.CaptureFixture[str], question: tuple[str, str], said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        ask(capsys, movielens.processed, *question)
    error = capsys.readouterr().err
    assert ended.value.code == 3
    assert error.startswith(f"show: {said.format(zone=movielens.processed)}")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (("--user", "1"), "{zone}/delta/ratings is missing: run the stage 'etl' first, or correct --processed-path"),
        (("--movie", "1"), "{zone}/final/movies.parquet is missing: run the stage 'etl' first"),
        (("--run",), "{zone}/runs: there is no manifest of a run; is {zone} a processed zone?"),
    ],
)
def test_an_empty_zone_says_what_to_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], question: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        ask(capsys, tmp_path, *question)
    assert ended.value.code == 3
    assert capsys.readouterr().err == f"show: {said.format(zone=tmp_path)}\n"


def test_no_spark_is_started(movielens: Zones) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("JAVA_HOME", "SPARK_HOME")}
    done = subprocess.run(
        [sys.executable, "-m", "spark_app", "show", "--processed-path", str(movielens.processed), "--user", "1"],
        env={**environment, "PATH": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Recommended to user 1" in done.stdout
    assert done.stderr == ""
