"""The page of a run, read as HTML; test_browser checks how it looks."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from spark_app.platform.settings import Settings, Train
from spark_app.report.page import render
from tests.report.conftest import COMPARISON, HOSTILE, MANIFEST, METRICS, PROFILE, RANKING, USER, facts


class Page(HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.text = " ".join(self.text.replace("\u202f", " ").split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data: str) -> None:
        if self.lasttag != "style":
            self.text += f" {data}"


def page(**changes: Any) -> Page:
    return Page(render(facts(**changes)))


def test_the_main_results_are_in_the_text() -> None:
    text = page().text
    assert "the recommendations are 2.00 times as good as a list of the most popular movies" in text
    assert "Predicted ratings are off by 0.65 on average" in text
    assert "It passed its gate: NDCG@10 0.300, beside the 0.150 of popularity." in text
    assert "4 is given most often, 50 % of the time. The mean is 4.00." in text
    assert "7 in = 4 good + 2 rejected + 1 superseded" in text
    assert "rating is off the scale 2 29 %" in text
    assert "1,234" in text


def test_the_comparison_with_the_run_before_has_an_index_and_its_thresholds() -> None:
    text = page().text
    assert "The distribution of ratings has moved: population stability index 0.123" in text
    assert "below 0.1 the distribution counts as the same, from 0.25 as a different one; Siddiqi 2006" in text
    assert "ratings 2 4 +100.0 % users 2 2 same NDCG@10 0.4000 0.3000 \N{MINUS SIGN}25.0 %, worse" in text
    assert "cannot be compared" not in text


def test_a_change_that_may_be_chance_is_none() -> None:
    metrics = {"ndcg@10": {"before": 0.4, "after": 0.3, "interval_before": [0.3, 0.5], "interval_after": [0.2, 0.4]}}
    assert "NDCG@10 0.4000 0.3000 no real difference" in page(comparison={**COMPARISON, "metrics": metrics}).text


def test_runs_that_were_measured_otherwise_have_no_verdict() -> None:
    text = page(comparison={**COMPARISON, "changed": {"train.k": {"before": 10, "after": 5}}}).text
    assert "cannot be compared , because settings changed" in text
    assert "setting before now train.k 10 5" in text
    assert "NDCG@10 0.4000 0.3000 not comparable" in text
    assert "ratings 2 4 +100.0 %" in text


def test_small_and_odd_changes() -> None:
    both = [(100, 100.01), (100, 99.9), (0, 3), (0, 0)]
    volumes = {name: {"before": b, "after": a} for name, (b, a) in zip("wxyz", both, strict=True)}
    text = page(comparison={**COMPARISON, "volumes": volumes, "drift": {}}).text
    assert "w 100 100 nearly the same x 100 100 \N{MINUS SIGN}0.1 % y 0 3 new z 0 0 same" in text
    assert "population stability index" not in text


def test_it_begins_with_what_is_recommended_and_how_much_of_it_is_liked() -> None:
    text = page().text
    assert (
        "Of 10 recommended movies, 2.1 are ones that their user also liked, but which were hidden from the model; "
        "of the 10 most popular ones, 1.1. 72 % of the users find at least one in their list (popular lists: 50 %)."
    ) in text
    assert "The Fugitive (1993) 1 25 %" in text  # a movie, its lists, the share of the four users
    assert "The most rated 1 % of movies make up 75 % of what is recommended, and 60 % of what users rated." in text
    assert "the next 9 % 9 25 % 40 %" in text
    assert "users gave on average one that is 0.15 away" in text  # (0.3 x 1 + 0.1 x 3) / 4
    assert "2.50 2.20 1" in text
    assert text.index("What is recommended") < text.rindex("Since the last run ") < text.index("How good the model is")


def test_a_holdout_by_time_is_what_users_went_on_to_like() -> None:
    settings = Settings(train=Train(holdout="time")).model_dump(mode="json")
    assert "are ones that their user went on to like;" in page(settings=settings).text


def test_the_last_runs_are_small_lines() -> None:
    text = page().text
    assert "The last runs" in text
    assert "NDCG@10 3 runs, from 0.2600 to 0.2800." in text
    assert "Ratings 3 runs, from 2 to 6." in text
    assert "The last runs" not in page(history=[]).text
    assert "The last runs" not in page(history=facts().history[:1]).text


def test_better_and_worse_are_marked_where_they_are_real() -> None:
    html = render(facts())
    assert '<span class="better">2.0 times</span>' in html
    assert '<span class="worse">\N{MINUS SIGN}25.0\u202f%, worse</span>' in html
    bounds = {model: {"ndcg@10": [0.1, 0.4]} for model in ("implicit", "popularity")}
    html = render(facts(metrics={**METRICS, "intervals": {"ranking": bounds, "rating": {}}}))
    assert '<span class="same">no real difference</span>' in html


def test_figures_of_an_earlier_run_say_so() -> None:
    text = page(model_run="another", lists_are_new=False).text
    assert "popularity 0.150 (an earlier run)" in text
    assert "for 2 users (an earlier run)" in text
    assert "(an earlier run)" not in page().text


def test_a_predicted_rating_stands_beside_the_mean_of_its_user() -> None:
    text = page().text
    assert "predicted rating 4.2 (their mean: 4.0)" in text
    assert text.count("ordered by score, not by predicted rating") == 1


def test_texts_from_the_data_are_escaped() -> None:
    html = render(facts())
    assert "<script" not in html
    assert Page(html).text.count(HOSTILE) >= 3  # in the history, as a reason, among the most rated
    assert "script" not in Page(html).tags
    assert not [name for _, name, _ in Page(html).attributes if name.startswith("on")]


def test_movies_that_reasons_name_are_shown_though_others_are_rated_higher() -> None:
    def rated(movie: int, reason_for: list[int]) -> dict[str, Any]:
        row = {"movieId": movie, "title": f"Movie {movie}", "genres": "", "rating": 4.0, "timestamp": None}
        return {**row, "reason_for": reason_for}

    history = [rated(movie, {2: [1], 20: [1, 3], 21: [99]}.get(movie, [])) for movie in range(1, 31)]
    text = page(users=[{**USER, "history": history}]).text
    assert "Also liked, and a reason rated 4 Movie 20" in text
    assert "Movie 21" not in text  # its recommendation is further down than the page shows
    assert "Also liked, and a reason" not in page().text


def test_it_is_one_file_without_any_address() -> None:
    found = page()
    links = [value or "" for _, name, value in found.attributes if name in ("src", "href", "xlink:href", "srcset")]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert "@import" not in render(facts())
    assert ("html", "lang", "en") in found.attributes
    assert any(tag == "meta" and name == "name" and value == "viewport" for tag, name, value in found.attributes)
    assert found.tags.count("title") == found.tags.count("h1") == found.tags.count("main") == 1


def test_every_chart_has_a_text_with_figures_and_a_table() -> None:
    html = render(facts())
    figures = re.findall(r'<figure role="img" aria-label="([^"]*)">', html)
    assert len(figures) == html.count("<figure") == html.count("<svg") == 17
    assert all(len(words) > 40 and re.search(r"\d", words) for words in figures)
    charts = re.findall(r'<article class="card chart">.*?</article>', html, flags=re.DOTALL)
    assert all("<details>" in chart and "<tbody>" in chart for chart in charts)


def test_intervals_and_slices_are_shown_where_they_are_known() -> None:
    text = page().text
    assert "NDCG@10 implicit ALS 0.3000 0.2800 to 0.3200" in text
    assert "RMSE explicit ALS 0.8800 \N{EN DASH}" in text
    meaning = "positions near the top count more; higher is better"
    assert f"{meaning} 0.300 0.280 to 0.320 0.150 0.130 to 0.170 2.0 times" in text
    assert "a few movies get almost all; lower is better 0.900 0.990 9.1 % lower" in text
    assert "users with 1 to 35 ratings 203 0.2000 0.1000" in text
    assert "implicit ALS is best in 1 of 2 slices." in text


def test_a_failed_gate_is_reported() -> None:
    gate = {**METRICS["gate"], "passed": False, "min_lift": 3.0}
    text = page(status="failed", error="not <published>", metrics={**METRICS, "gate": gate}, lists_are_new=False).text
    assert "Stopped. not <published>" in text
    assert "It failed its gate: NDCG@10 0.300, beside 3.0 times the 0.150 of popularity" in text
    assert "These lists were published by an earlier run." in text


COUNTS = {"ranking": RANKING, "gate": METRICS["gate"]}
WITHOUT: dict[str, dict[str, Any]] = {
    "rating metrics (counts)": {
        "metrics": COUNTS,
        "users": [{**USER, "recommendations": [{**USER["recommendations"][0], "predicted_rating": None}]}],  # type: ignore[index]
    },
    "intervals and slices": {"metrics": {key: METRICS[key] for key in ("rating", "ranking", "rating_model", "gate")}},
    "times": {"profile": {**PROFILE, "months": []}},
    "genres and years": {"profile": {**PROFILE, "genres": {}, "decades": {}}},
    "models": {"metrics": {}, "model_run": ""},
    "lists": {"users": [], "rows": {key: MANIFEST["rows"][key] for key in ("ratings", "movies", "split")}},
    "an earlier run": {"comparison": {}},
    "rows": {"rows": {}, "rejects": {}},
    "most rated movies": {"most_rated": []},
    "ratings of their own in the history": {"users": [{**USER, "average_rating": None}]},
    "a useful baseline": {"metrics": {"ranking": {**RANKING, "popularity": dict.fromkeys(RANKING["popularity"], 0.0)}}},
    "any rating": {
        "profile": {
            **{"ratings": 0, "users": 0, "movies": 0, "share_of_movies_rated": 0.0, "density": 0.0},
            **{"rating_histogram": {}, "user_activity": {}, "movie_popularity": {}, "genres": {}, "decades": {}},
            "months": [],
        },
        **{"users_by_activity": {}, "ratings_of_movies": np.array([], dtype=int)},
    },
    "a profile": {"profile": {}, "comparison": {}},
}


@pytest.mark.parametrize("missing", WITHOUT)
def test_it_does_without(missing: str) -> None:
    text = page(**WITHOUT[missing]).text
    assert "This run" in text
    assert "None" not in text
    assert "nan" not in text.lower().split()


def test_missing_parts_are_not_announced() -> None:
    assert "Predicted ratings" not in page(metrics=COUNTS).text
    assert "Since the last run" not in page(comparison={}).text
    assert "What people get" not in page(users=[]).text
    assert "The ratings carry no time" in page(profile={**PROFILE, "months": []}).text
    assert "A look at the data: no model is published yet." in page(metrics={}).text
    assert "were fitted and judged by the run earlier" in page(model_run="earlier").text


def test_play_counts_are_shown_in_bins() -> None:
    plays = {"1": 2, "2-3": 4, "4-7": 8, "8-15": 16, "16-31": 32, "32-63": 18}
    assert "32-63 18 22 %" in page(profile={**PROFILE, "rating_histogram": plays}).text


def test_a_data_set_that_lists_no_movies_has_a_flow_too() -> None:
    text = page(rows={key: rows for key, rows in MANIFEST["rows"].items() if key != "movies"}).text
    assert "checks every row" in text
