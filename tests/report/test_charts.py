"""Charts: drawn once, coloured by the page, and safe for any names in them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.figure import Figure

from spark_app.report import charts
from spark_app.report.charts import Estimate
from tests.report.conftest import HOSTILE

DRAWINGS = {
    "columns": charts.columns({"1": 1, "2": 3}),
    "ranking": charts.ranking({HOSTILE: 3, "Drama": 1}),
    "over_time": charts.over_time(["2001-11", "2002-01"], [3, 1]),
    "one month": charts.over_time(["2001-11"], [3]),
    "many months": charts.over_time(
        [f"{year}-{month:02}" for year in range(2000, 2006) for month in range(1, 13)], range(72)
    ),
    "calibration": charts.calibration([(2.5, 2.2, 1), (3.5, 3.7, 9)], (0.5, 5.0)),
    "trend": charts.trend([0.3, 0.31, 0.3]),
    "one figure again and again": charts.trend([0.3, 0.3]),
    "long_tail": charts.long_tail(np.array([0, 0.5, 1]), {0.5: "half"}),
    "dots": charts.dots({"NDCG@10": {"ALS": Estimate(0.3, 0.2, 0.4), "popularity": Estimate(0.1)}}, "ALS"),
    "equal dots": charts.dots({"NDCG@10": {"ALS": Estimate(0.0), "popularity": Estimate(0.0)}}, "ALS"),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_colour_is_one_of_the_page(name: str) -> None:
    svg = DRAWINGS[name]
    assert set(re.findall(r"(?:fill|stroke): ([^;\"]+)", svg)) <= {"none", *charts.ROLES.values()}
    assert "var(--accent)" in svg
    assert not re.search(r"#[0-9a-f]{6}\b", svg)


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_is_well_formed_and_self_contained(name: str) -> None:
    svg = DRAWINGS[name].replace("xlink:href", "href")
    root = ET.fromstring(svg)  # noqa: S314 - made here
    assert root.attrib["aria-hidden"] == "true"
    assert {element.tag for element in root.iter()}.isdisjoint({"script", "style", "image", "metadata"})
    assert "http" not in svg


def test_texts_are_unchanged() -> None:
    root = ET.fromstring(DRAWINGS["ranking"])  # noqa: S314 - made here
    texts = {element.text for element in root.iter("text")}
    assert {HOSTILE[:23] + "…", "Drama", "3", "1"} <= texts


def test_no_two_drawings_share_an_id() -> None:
    ids = [re.findall(r' id="([^"]+)"', svg) for svg in DRAWINGS.values()]
    assert any(ids)
    assert len({name for names in ids for name in names}) == sum(len(names) for names in ids)
    for svg in DRAWINGS.values():
        assert set(re.findall(r'(?:url\(|href=")#([^")]+)', svg)) == set(re.findall(r' id="([^"]+)"', svg))


def test_a_month_without_ratings_is_drawn_as_zero() -> None:
    points = re.findall(r'<path d="([^"]*)"[^>]*style="fill: none; stroke: var\(--accent\)', DRAWINGS["over_time"])
    heights = [float(y) for y in re.findall(r"[ML] \S+ (\S+)", points[0])]
    assert len(heights) == 3
    assert heights[1] == max(heights)  # down is larger in SVG


def test_the_same_data_gives_the_same_drawing() -> None:
    assert charts.columns({"1": 1, "2": 3}) == DRAWINGS["columns"]


@pytest.mark.filterwarnings("error")
def test_letters_without_a_glyph_in_the_font_of_the_drawing_are_kept() -> None:
    assert "七人の侍" in charts.ranking({"七人の侍": 3})


def test_names_of_points_do_not_overlap() -> None:
    figure = Figure(figsize=(6, 4))
    axes = figure.add_subplot()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    figure.canvas.draw()
    places = [(0.1, 0.5), (0.12, 0.5), (0.1, 0.9), (0.97, 0.2)]
    assert charts.name_apart(axes, places, ["The first", "The second", "The third", "Beyond the edge"]) == [
        *(True, False, True, False)
    ]
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 2
    assert not boxes[0].overlaps(boxes[1])
