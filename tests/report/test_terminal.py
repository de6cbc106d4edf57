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
    return [cell.replace("\u202f", " ") for cell in found]


def test_metrics_stand_beside_their_baselines(capsys: pytest.CaptureFixture[str]) -> None:
    show_results(manifest(), [], {})
    printed = capsys.readouterr().out
    assert line(printed, "RMSE")[1:3] == ["0.800", "1.000"]
    assert line(printed, "NDCG@10")[1:3] == ["0.300", "0.150"]
    assert line(printed, "coverage")[1:3] == ["50 %", "1 %"]
    assert "610" not in printed
    heads = [row.strip("┃").split("┃") for row in printed.splitlines() if row.startswith("┃")]
    assert [[cell.strip() for cell in head[1:3]] for head in heads] == [
        ["implicit ALS", "popularity"],
        ["explicit ALS", "biases only"],
        ["implicit ALS", "popularity"],
    ]


def test_how_good_models_are_stands_apart_from_what_lists_are_like(capsys: pytest.CaptureFixture[str]) -> None:
    show_results(manifest(), [], {})
    printed = capsys.readouterr().out
    places = [printed.index(part) for part in ("Finding what", "NDCG", "Predicted", "RMSE", "What the", "coverage")]
    assert places == sorted(places)


def test_nothing_is_wider_than_80_columns_or_broken_in_a_word(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = ["Terminator", "Judgment", "Adventure", "Fugitive", "Braveheart", "Science-Fiction"]
    reason = "you liked Fugitive, The (1993) and Braveheart (1995)"
    row = listed("Terminator 2: Judgment Day (1991)", genres="Adventure|Science-Fiction|Thriller|War", reason=reason)
    bounds = {name: [0.2942, 0.3331] for name in RANKING["implicit"]}
    intervals = {"ranking": {"implicit": bounds, "popularity": bounds}}
    show_results(manifest(intervals=intervals), [row], {})
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert all(word in printed for word in words)
    assert "The Fugitive" in " ".join(printed.split())


def test_at_the_end_it_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    show_results(manifest(), [], {}, ["python -m spark_app show --user 1"])
    assert capsys.readouterr().out.endswith("Go on with\n  python -m spark_app show --user 1\n")


def test_the_gate_is_told_where_there_was_one(capsys: pytest.CaptureFixture[str]) -> None:
    gate = {"metric": "ndcg@10", "implicit": 0.3, "popularity": 0.15, "min_lift": 1.0, "passed": True}
    show_results(manifest(gate=gate), [], {})
    assert "It passed its gate: NDCG@10 0.300, beside the 0.150 of popularity." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("metric", "verdict"),
    [
        ("RMSE", "20.0 % lower error"),
        ("MAE", "40.0 % higher error"),
        ("NDCG@10", "2.0 times"),
        ("recall@10", "50.0 % lower"),
        ("MAP@10", "from 0 to 0.25"),
    ],
)
def test_lower_is_better_for_errors_and_higher_for_rankings(
    capsys: pytest.CaptureFixture[str], metric: str, verdict: str
) -> None:
    show_results(manifest(), [], {})
    assert line(capsys.readouterr().out, metric)[3] == verdict


def test_a_tie_is_not_called_worse(capsys: pytest.CaptureFixture[str]) -> None:
    show_results(manifest(rating={"explicit": {"rmse": 0.9}, "bias": {"rmse": 0.9}}), [], {})
    assert line(capsys.readouterr().out, "RMSE")[3] == "the same"


def test_what_may_be_chance_is_no_difference(capsys: pytest.CaptureFixture[str]) -> None:
    intervals = {"rating": {"explicit": {"rmse": [0.7, 0.95]}, "bias": {"rmse": [0.9, 1.1]}}}
    show_results(manifest(intervals=intervals), [], {})
    assert line(capsys.readouterr().out, "RMSE")[3] == "no real difference"


@pytest.mark.parametrize(
    ("model", "name"), [("explicit", "explicit ALS"), ("bias", "biases only"), ("stacked", "ALS + biases")]
)
def test_says_which_model_predicts_ratings(capsys: pytest.CaptureFixture[str], model: str, name: str) -> None:
    show_results(manifest(rating_model=model), [], {})
    printed = capsys.readouterr().out
    assert f"predicted_rating comes from: {name}" in printed
    als = ("explicit ALS", "0.800")
    head, value = {"explicit": als, "bias": als, "stacked": ("ALS + biases", "0.750")}[model]
    assert line(printed, "RMSE")[1:3] == [value, "1.000"]
    assert f"┃ {head} ┃" in " ".join(printed.split())


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
    assert line(printed, "RMSE")[1:3] == ["0.800 (0.790-0.815)", "1.000"]
    assert line(printed, "NDCG@10")[1:3] == ["0.300", "0.150 (0.100-0.200)"]
    assert "95 % intervals" in printed


@pytest.mark.parametrize(
    ("metric", "value", "baseline", "verdict"),
    [
        ("gini", 0.8, 0.9, "11.1 % lower"),
        ("novelty", 3.0, 2.0, "50.0 % higher"),
        ("popularity_lift", 1.5, 3.0, "50.0 % lower"),
        ("popularity_lift", 0.5, 1.2, "58.3 % lower"),
    ],
)
def test_what_lists_are_like_is_compared_in_words(
    capsys: pytest.CaptureFixture[str], metric: str, value: float, baseline: float, verdict: str
) -> None:
    show_results(manifest(ranking={"implicit": {metric: value}, "popularity": {metric: baseline}}), [], {})
    assert line(capsys.readouterr().out, {"gini": "Gini"}.get(metric, metric.replace("_", " ")))[3] == verdict


def test_without_ratings_there_is_a_ranking_alone(capsys: pytest.CaptureFixture[str]) -> None:
    show_results({"metrics": {"ranking": RANKING}}, [], {})
    printed = capsys.readouterr().out
    assert line(printed, "NDCG@10")[1] == "0.300"
    assert "RMSE" not in printed
    assert "predicted_rating" not in printed


def test_a_title_of_any_length_takes_a_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    show_results(manifest(), [listed("M" * 1_000_000, reason="you liked " + "N" * 1_000_000)], {})
    printed = capsys.readouterr().out
    assert "MMMMMMMMMM" in printed
    assert "NNNNNNNNNN" in printed
    assert len(printed) < 10_000
