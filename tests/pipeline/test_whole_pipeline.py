"""All stages on real ratings, by spark-submit as users run them, and the files that they write."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from pathlib import Path

import pandas as pd
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from tests.pipeline.conftest import MOVIELENS, ROOT, Submit, Zones

COLUMNS = ["userId", "rank", "movieId", "title", "genres", "predicted_rating", "score", "reason"]


@pytest.fixture(scope="module")
def raw_ratings() -> pd.DataFrame:
    return pd.read_csv(MOVIELENS / "ratings.csv")


def test_every_user_has_ten_films_that_they_have_not_rated(movielens: Zones, raw_ratings: pd.DataFrame) -> None:
    rated = set(zip(raw_ratings.userId, raw_ratings.movieId, strict=True))
    neutral = movielens.manifests()[-1]["settings"]["implicit_als"]["neutral"]
    likes = raw_ratings[raw_ratings.rating > neutral].groupby("userId").movieId.apply(list).to_dict()
    titles = pd.read_csv(MOVIELENS / "movies.csv").set_index("movieId").title
    lists = defaultdict(list)
    for row in movielens.recommendations():
        lists[int(row["userId"])].append(row)
    assert set(lists) == set(raw_ratings.userId)
    assert len(lists) == 610
    for user, rows in lists.items():
        assert [int(row["rank"]) for row in rows] == list(range(1, 11))
        assert len({row["movieId"] for row in rows}) == 10
        assert not any((user, int(row["movieId"])) in rated for row in rows)
        order = [(-float(row["score"]), int(row["movieId"])) for row in rows]
        assert order == sorted(order)
        assert all(0.5 <= float(row["predicted_rating"]) <= 5.0 for row in rows)
        liked = tuple(f"you liked {titles[movie]}" for movie in likes.get(user, ()))
        assert all(row["reason"].startswith(liked) if liked else row["reason"] == "popular" for row in rows)


def test_the_csv_reads_the_same_in_python_pandas_and_spark(movielens: Zones, spark: SparkSession) -> None:
    path = movielens.processed / "recommendations" / "movie_recommendations.csv"
    with path.open(encoding="utf-8", newline="") as file:
        by_python = list(csv.reader(file))
    by_pandas = pd.read_csv(path, dtype=str, keep_default_na=False)
    by_spark = spark.read.csv(str(path), header=True, escape='"', nullValue="\0").collect()
    assert by_python[0] == COLUMNS == list(by_pandas.columns)
    assert by_python[1:] == by_pandas.to_numpy().tolist()
    assert by_python[1:] == [["" if cell is None else cell for cell in row] for row in by_spark]
    assert {path.name for path in path.parent.iterdir()} == {path.name, "similar_movies.csv"}


def test_the_delta_table_holds_the_same_as_the_csv(movielens: Zones, spark: SparkSession) -> None:
    table = spark.read.format("delta").load(str(movielens.processed / "delta" / "recommendations"))
    assert table.columns == [*COLUMNS, "run_id", "recommended_at"]
    rows = table.orderBy("userId", "rank").collect()
    for in_table, in_csv in zip(rows, movielens.recommendations(), strict=True):
        assert [str(in_table[name]) for name in ("userId", "rank", "movieId", "title", "genres", "reason")] == [
            in_csv[name] for name in ("userId", "rank", "movieId", "title", "genres", "reason")
        ]
        assert in_table["score"] == pytest.approx(float(in_csv["score"]), abs=1e-9)
        assert in_table["predicted_rating"] == pytest.approx(float(in_csv["predicted_rating"]), abs=1e-9)


def test_final_agrees_with_pandas_on_every_movie(movielens: Zones, raw_ratings: pd.DataFrame) -> None:
    final = pd.read_parquet(movielens.processed / "final").set_index("movieId")
    movies = pd.read_csv(MOVIELENS / "movies.csv").set_index("movieId")
    expected = raw_ratings.groupby("movieId").rating.agg(["mean", "count"]).reindex(movies.index)
    assert list(final.index) == sorted(movies.index)
    final = final.reindex(movies.index)
    assert (final.title == movies.title).all()
    assert (final.genres == movies.genres.replace("(no genres listed)", "")).all()
    assert (final.rating_count == expected["count"].fillna(0)).all()
    assert final.average_rating.isna().equals(expected["mean"].isna())
    assert (final.average_rating - expected["mean"]).abs().max() < 1e-9
    damped = (expected["mean"] * expected["count"]).fillna(0) + 10 * raw_ratings.rating.mean()
    assert (final.damped_rating - damped / (expected["count"].fillna(0) + 10)).abs().max() < 1e-9


def test_the_model_beats_popularity_and_what_is_published_is_no_worse_than_biases(movielens: Zones) -> None:
    metrics = movielens.manifests()[-1]["metrics"]
    assert metrics["ranking"]["implicit"]["ndcg@10"] >= 1.8 * metrics["ranking"]["popularity"]["ndcg@10"]
    published = metrics["rating"][metrics["rating_model"]]["rmse"]
    assert published == min(errors["rmse"] for errors in metrics["rating"].values())
    assert published <= 0.85
    assert metrics["rating"]["bias"]["rmse"] <= 0.869


def test_figures_have_intervals_and_slices_add_up(movielens: Zones) -> None:
    metrics = movielens.manifests()[-1]["metrics"]
    for task in ("rating", "ranking"):
        for model, figures in metrics[task].items():
            bounds = metrics["intervals"][task][model]
            assert set(figures) - set(bounds) <= {"coverage", "gini", "users"}
            assert all(low < figures[metric] < high for metric, (low, high) in bounds.items())
    als, popular = metrics["ranking"]["implicit"], metrics["ranking"]["popularity"]
    assert als["gini"] < popular["gini"]
    assert als["novelty"] > popular["novelty"]
    assert 1 < als["popularity_lift"] < popular["popularity_lift"]
    counts = {(entry["metric"], entry["slice"].split()[0]): 0 for entry in metrics["slices"]}
    for entry in metrics["slices"]:
        counts[entry["metric"], entry["slice"].split()[0]] += entry["count"]
    assert counts["ndcg@10", "users"] == als["users"]
    held_out = movielens.manifests()[-1]["rows"]["split"]["holdout"]
    assert counts["rmse", "users"] == counts["rmse", "movies"] == held_out


def test_the_manifest_accounts_for_everything(movielens: Zones) -> None:
    manifest = movielens.manifests()[-1]
    assert manifest["status"] == "done"
    assert manifest["rows"]["ratings"] == {"in": 100_836, "good": 100_836, "rejected": 0, "superseded": 0}
    assert manifest["rows"]["movies"] == {"in": 9_742, "good": 9_742, "rejected": 0, "superseded": 0}
    assert manifest["rows"]["recommendations"] == {"rows": 6_100, "users": 610, "folded_in": 0}
    assert sum(manifest["rows"]["split"].values()) == 100_836
    assert [file["path"] for file in manifest["inputs"]] == [f"{MOVIELENS}/movies.csv", f"{MOVIELENS}/ratings.csv"]
    assert all(len(file["sha256"]) == 64 for file in manifest["inputs"])
    stages = [stage["stage"] for stage in manifest["stages"]]
    assert stages[:6] == ["ingest", "catalog", "etl", "explore", "train", "recommend"]
    assert {"spark", "java", "python", "delta-spark"} <= set(manifest["versions"])
    for output in manifest["outputs"]:
        assert output.startswith("movie_reco_") or Path(output).exists()


def test_the_pipeline_ends_with_what_a_person_wants_to_see(movielens: Zones) -> None:
    shown = (movielens.processed / "stdout.txt").read_text(encoding="utf-8")
    assert "Top 10 for user 1" in shown
    assert "NDCG@10" in shown
    assert "popularity" in shown
    assert str(movielens.processed / "recommendations" / "movie_recommendations.csv") in shown


def test_plain_spark_sql_finds_the_tables_from_another_process(movielens: Zones, submit: Submit) -> None:
    queries = (
        "select count(*), round(avg(rating), 4) from movie_reco_raw_db.ratings_csv;"
        "select title from movie_reco_raw_db.movies_csv where movieId = 11;"
        "select count(*) from movie_reco_db.ratings;"
        "select count(distinct userId) from movie_reco_db.recommendations;"
        "select rating_count from movie_reco_db.final where movieId = 356"
    )
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    going_back = re.findall(r"^spark-sql -e '((?:DESCRIBE HISTORY|RESTORE) [^']+)'", page, re.MULTILINE)
    assert len(going_back) == 2
    queries = ";".join((queries, *going_back))
    asked = submit("", "-e", queries, command="spark-sql", folder=movielens.processed.parent)
    assert asked.returncode == 0, asked.stderr[-3000:]
    # Spark 3.5 logs here what Ivy does.
    answers = [line for line in asked.stdout.splitlines() if not line.startswith("::")]
    assert answers[:5] == ["100836\t3.5016", "American President, The (1995)", "100836", "610", "329"]


def test_features_and_profile_agree_with_pandas(movielens: Zones, raw_ratings: pd.DataFrame) -> None:
    for key, table in (("userId", "user_features"), ("movieId", "movie_features")):
        rows = DeltaTable(str(movielens.processed / "delta" / table)).to_pyarrow_dataset().to_table()
        found = rows.to_pandas().set_index(key)
        expected = raw_ratings.groupby(key).rating.agg(["count", "mean", "std"])
        found = found[found.rating_count > 0].sort_index()
        assert list(found.index) == list(expected.index)
        assert (found.rating_count == expected["count"]).all()
        assert (found.average_rating - expected["mean"]).abs().max() < 1e-9
        assert (found.rating_stddev - expected["std"]).abs().max() < 1e-9
        assert found.rating_stddev.isna().equals(expected["std"].isna())
    profile = movielens.manifests()[-1]["profile"]
    assert (profile["ratings"], profile["users"], profile["movies"]) == (100_836, 610, 9_742)
    assert profile["rating_histogram"] == {
        f"{k:g}": v for k, v in raw_ratings.rating.value_counts().sort_index().items()
    }
    month = pd.to_datetime(raw_ratings.timestamp, unit="s").dt.strftime("%Y-%m")
    by_month = raw_ratings.groupby(month)
    assert [row["month"] for row in profile["months"]] == list(by_month.groups)
    assert [row["ratings"] for row in profile["months"]] == by_month.size().tolist()
    assert [row["active_users"] for row in profile["months"]] == by_month.userId.nunique().tolist()
    assert sum(row["new_users"] for row in profile["months"]) == 610
    assert sum(row["new_movies"] for row in profile["months"]) == raw_ratings.movieId.nunique()
