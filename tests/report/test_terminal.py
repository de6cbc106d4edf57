from __future__ import annotations

from typing import Any

import pytest

from spark_app.report.terminal import show_results

RATING = {
    "explicit": {"rmse": 0.8, "mae": 0.7},
    "bias": {"rmse": 1.0, "mae": 0.5},
    "stacked": {"rmse": 0.75, "mae": 0.5},
}
RANKING = {
    "implicit": {"ndcg@10": 0.3, "recall@10": 0.1, "map@10": 0.25, "coverage": 0.5, "users": 610},
    "popularity": {"ndcg@10": 0.15, "recall@10": 0.2, "map@10": 0.0, "coverage": 0.01, "users": 610},
}


def manifest(**changes: Any) -> dict[str, Any]:
    return {"metrics": {"rating": RATING, "ranking": RANKING, "rating_model": "explicit", **changes}}


def listed(title: str, **changes: str) -> dict[str, str]:
    row = {"userId": "7", "rank": "1", "title": title, "genres": "Drama", "predicted_rating": "4.512"}
    return {**row, "reason": "based on your ratings", **changes}


def line(text: str, start: str) -> list[str]:
    """The cells of the only table row whose first cell is `start`."""
    rows = [[cell.strip() for cell in row.split("│")[1:-1]] for row in text.splitlines() if row.startswith("│")]
    (found,) = [row for row in rows if row[0] == start]
    return found


def test_metrics_stand_beside_their_baselines(capsys: pytest.CaptureFixture[str]) -> None:
    show_results(manifest(), [], {})
    printed = capsys.readouterr().out
    assert line(printed, "RMSE")[1:5] == ["explicit ALS", "0.8000", "biases only", "1.0000"]
    assert line(printed, "NDCG@10")[1:5] == ["implicit ALS", "0.3000", "popularity", "0.1500"]
    assert line(printed, "coverage")[1:5] == ["implicit ALS", "0.5000", "popularity", "0.0100"]
    assert "610" not in printed


@pytest.mark.parametrize(
    ("metric", "verdict"),
    [
        ("RMSE", "0.80 x better"),
        ("MAE", "1.40 x worse"),
        ("NDCG@10", "2.00 x better"),
        ("recall@10", "0.50 x worse"),
        ("MAP@10", "- better"),
    ],
)
def test_lower_is_better_for_errors_and_higher_for_rankings(
    capsys: pytest.CaptureFixture[str], metric: str, verdict: str
) -> None:
    show_results(manifest(), [], {})
    assert line(capsys.readouterr().out, metric)[5] == verdict


def test_a_tie_is_not_called_worse(capsys: pytest.CaptureFixture[str]) -> None:
    show_results(manifest(rating={"explicit": {"rmse": 0.9}, "bias": {"rmse": 0.9}}), [], {})
    assert "worse" not in line(capsys.readouterr().out, "RMSE")[5]


@pytest.mark.parametrize(
    ("model", "name"), [("explicit", "explicit ALS"), ("bias", "biases only"), ("stacked", "ALS + biases")]
)
def test_says_which_model_predicts_ratings(capsys: pytest.CaptureFixture[str], model: str, name: str) -> None:
    show_results(manifest(rating_model=model), [], {})
    printed = capsys.readouterr().out
    assert f"predicted_rating comes from: {name}" in printed
    als = ["explicit ALS", "0.8000"]
    shown = {"explicit": als, "bias": als, "stacked": ["ALS + biases", "0.7500"]}[model]
    assert line(printed, "RMSE")[1:5] == [*shown, "biases only", "1.0000"]


def test_shows_the_list_of_one_user(capsys: pytest.CaptureFixture[str]) -> None:
    show_results(manifest(), [listed("Alien (1979)"), listed("Up (2009)", rank="2", genres="", reason="popular")], {})
    printed = capsys.readouterr().out
    assert "Top 2 for user 7" in printed
    assert line(printed, "1") == ["1", "Alien (1979)", "4.512", "based on your ratings"]
    assert line(printed, "2") == ["2", "Up (2009)", "4.512", "popular"]
    under = [row.split("│")[2].strip() for row in printed.splitlines() if row.startswith("│   │")]
    assert under == ["Drama", ""]


def test_without_a_list_there_is_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    show_results(manifest(), [], {"manifest": "out/runs/1.json"})
    assert "Top" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "title",
    ["[red]x[/red]", "[REC] (2007)", "x[/]", "[link=http://a]b", r"a\[red]b", "ends in \\", ":heart: (1990)"],
)
def test_a_title_is_printed_unchanged(capsys: pytest.CaptureFixture[str], title: str) -> None:
    show_results(manifest(), [listed(title)], {})
    assert line(capsys.readouterr().out, "1")[1] == title


def test_control_characters_in_a_title_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show_results(manifest(), [listed("a\x1b[31mb\nc\td")], {})
    assert line(capsys.readouterr().out, "1")[1] == "a [31mb c d"


@pytest.mark.parametrize("columns", ["80", "120"])
def test_every_path_is_on_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    long = "s3://bucket/" + "folder/" * 30 + "[x]/:key:/movie_recommendations.csv"
    show_results(manifest(), [], {"recommendations": long, "manifest": "out/runs/1.json"})
    printed = capsys.readouterr().out.splitlines()
    assert f"{'recommendations':<16}{long}" in printed
    assert f"{'manifest':<16}out/runs/1.json" in printed


def test_intervals_stand_beside_their_figures(capsys: pytest.CaptureFixture[str]) -> None:
    intervals = {"rating": {"explicit": {"rmse": [0.79, 0.8149]}}, "ranking": {"popularity": {"ndcg@10": [0.1, 0.2]}}}
    show_results(manifest(intervals=intervals), [], {})
    printed = capsys.readouterr().out
    assert line(printed, "RMSE")[1:5] == ["explicit ALS", "0.8000 (0.790-0.815)", "biases only", "1.0000"]
    assert line(printed, "NDCG@10")[1:5] == ["implicit ALS", "0.3000", "popularity", "0.1500 (0.100-0.200)"]
    assert "95 % intervals" in printed


@pytest.mark.parametrize(
    ("metric", "value", "baseline", "verdict"),
    [
        ("gini", 0.8, 0.9, "0.89 x better"),
        ("novelty", 3.0, 2.0, "1.50 x better"),
        ("popularity_lift", 1.5, 3.0, "0.50 x better"),
        ("popularity_lift", 0.5, 1.2, "0.42 x worse"),
    ],
)
def test_lists_are_better_where_they_are_spread_novel_and_as_popular_as_what_people_choose(
    capsys: pytest.CaptureFixture[str], metric: str, value: float, baseline: float, verdict: str
) -> None:
    show_results(manifest(ranking={"implicit": {metric: value}, "popularity": {metric: baseline}}), [], {})
    assert line(capsys.readouterr().out, {"gini": "Gini"}.get(metric, metric.replace("_", " ")))[5] == verdict


def test_without_ratings_there_is_a_ranking_alone(capsys: pytest.CaptureFixture[str]) -> None:
    show_results({"metrics": {"ranking": RANKING}}, [], {})
    printed = capsys.readouterr().out
    assert line(printed, "NDCG@10")[1] == "implicit ALS"
    assert "RMSE" not in printed
    assert "predicted_rating" not in printed


def test_a_title_of_any_length_takes_a_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    show_results(manifest(), [listed("M" * 1_000_000, reason="you liked " + "N" * 1_000_000)], {})
    printed = capsys.readouterr().out
    assert "MMMMMMMMMM" in printed
    assert "NNNNNNNNNN" in printed
    assert len(printed) < 10_000
