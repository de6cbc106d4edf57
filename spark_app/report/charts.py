"""Charts as inline SVG: drawn by matplotlib, coloured by the page, so that one drawing serves light and dark.

Matplotlib wants colours when it draws; the page knows them only when it is looked at. So each part is drawn in a colour
that stands for its role, and that colour is replaced by the CSS variable of the role.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from spark_app.report.words import THIN, number, percent

INK, MUTED, LINE, QUIET, ACCENT, SURFACE = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
ROLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    QUIET: "var(--quiet)",
    ACCENT: "var(--accent)",
    SURFACE: "var(--surface)",
}
"""What each colour stands for: text, lesser text, rules, what is compared with, what is meant, the ground."""

WIDTH = 300
"""Of a chart, in points: about the pixels of a card, so that text is as large as its size says."""

POINTS_PER_INCH = 72
LABEL_LENGTH = 24
FEW = 6
"""Bars of which each has room for a label."""

AT_NAMES = 84
"""Where the names of models begin, in points to the left of their dots."""

APART = 0.4
"""Between the lines of one row and those of the next, in lines."""

DOTS_PLACE = (0.3, 0.02, 0.55, 0.96)
"""Left, bottom, width and height of the dots in their drawing: beside them are the names and the values."""

LEAST_LABELLED = 0.03
"""A bar with a smaller share goes without a label, of which several would run into each other."""

TEXT, SMALL = 11.0, 10.0
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "movie-reco",
    "text.parse_math": False,  # names are data from others: a $ in one of them is a dollar
    "font.size": TEXT,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
}


class Estimate(NamedTuple):
    """A value, and its interval where one is known."""

    value: float
    low: float | None = None
    high: float | None = None


def columns(values: Mapping[str, float], axis: str = "") -> Markup:
    """Upright bars, each with its share of the whole above it; the highest is accented."""
    with _drawing(200) as (figure, axes):
        heights = np.array(list(values.values()), dtype=float)
        shares = heights / heights.sum() if heights.sum() else heights
        colours = [ACCENT if height == heights.max() else QUIET for height in heights]
        axes.bar(range(len(heights)), shares, width=0.82, color=colours)
        every = 1 + len(heights) // 11
        for place, share in enumerate(shares):
            if share >= LEAST_LABELLED or len(heights) <= FEW:
                axes.annotate(f"{100 * share:.0f}{THIN}%", (place, share), (0, 3), **_label(INK, size=SMALL))
        names = [_short(name) if place % every == 0 else "" for place, name in enumerate(values)]
        axes.set_xticks(range(len(heights)), names)
        axes.set_yticks([])
        axes.set_xlabel(axis)
    return _svg(figure)


def ranking(values: Mapping[str, float]) -> Markup:
    """Bars that lie, the first on top, each with its name and its value; the first is accented."""
    with _drawing(22 * len(values) + 6) as (figure, axes):
        places = range(len(values))
        numbers = list(values.values())
        axes.barh(places, numbers, height=0.64, color=[ACCENT, *[QUIET] * (len(numbers) - 1)][: len(numbers)])
        for place, value in zip(places, numbers, strict=True):
            axes.annotate(number(value), (value, place), (4, 0), **_label(INK, at="left", valign="center"))
        axes.set_yticks(places, [_short(name) for name in values])
        axes.tick_params(axis="y", labelsize=TEXT, labelcolor=INK)
        axes.set_xlim(0, 1.2 * max(numbers, default=1) or 1)
        axes.set_xticks([])
        axes.spines.bottom.set_visible(False)
        axes.invert_yaxis()
    return _svg(figure)


def over_time(months: Sequence[str], values: Sequence[float]) -> Markup:
    """A filled line over months such as `2018-09`, months without a row as nought, the highest month named."""
    with _drawing(190) as (figure, axes):
        at = np.array([month_number(month) for month in months])
        every = np.arange(at.min(), at.max() + 1)
        line = np.zeros(len(every))
        line[at - at.min()] = values
        axes.fill_between(every, line, color=ACCENT, alpha=0.16, linewidth=0)
        axes.plot(every, line, color=ACCENT, linewidth=1.1, marker="o" if len(every) == 1 else "")
        peak = int(np.argmax(line))
        right = peak > len(every) / 2
        axes.annotate(
            f"{number(line[peak])} in {month_name(int(every[peak]))}",
            (every[peak], line[peak]),
            (-4 if right else 4, 4),
            **_label(INK, at="right" if right else "left"),
        )
        _year_ticks(axes, every)
        axes.set_ylim(0, 1.18 * (line.max() or 1))
        axes.yaxis.set_major_locator(mpl.ticker.MaxNLocator(4, integer=True))
        axes.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(_compact))
        axes.grid(axis="y")
    return _svg(figure)


def long_tail(shares: np.ndarray, marks: Mapping[float, str]) -> Markup:
    """How much of all ratings the most rated movies have: `shares[i]` is what the first i of them have together.

    Marks are places on the way, 0 to 1, with what to write there.
    """
    with _drawing(230) as (figure, axes):
        way = np.linspace(0, 1, len(shares))
        axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1.2)
        axes.annotate("if all were rated alike", (0.5, 0.5), (4, -4), **_label(MUTED, at="left", valign="top"))
        axes.fill_between(way, shares, way, color=ACCENT, alpha=0.12, linewidth=0)
        axes.plot(way, shares, color=ACCENT, linewidth=2, clip_on=False)
        for place, text in marks.items():
            share = float(np.interp(place, way, shares))
            axes.plot([place], [share], marker="o", markersize=6, color=ACCENT, markeredgecolor=SURFACE, clip_on=False)
            axes.annotate(text, (place, share), (9, -5), **_label(INK, at="left", valign="top"))
        percents = mpl.ticker.FuncFormatter(lambda share, _place: percent(share))
        for direction in (axes.xaxis, axes.yaxis):
            direction.set_major_formatter(percents)
            direction.set_ticks([0, 0.25, 0.5, 0.75, 1])
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="movies, the most rated first", ylabel="")
        axes.grid(axis="y")
    return _svg(figure)


def dots(rows: Mapping[str, Mapping[str, Estimate]], ours: str, *, from_zero: bool = True) -> Markup:
    """For each row its name, and under it a line for each model: name, dot with interval, value. Ours is accented.

    Rows are what is measured, or of whom; all share one scale.
    """
    lines = sum(1 + len(models) + APART for models in rows.values()) - APART
    with _drawing(19 * lines + 6) as (figure, axes):
        figure.set_layout_engine("none")
        axes.set_position(DOTS_PLACE)
        axes.set_xlim(*_range(rows, from_zero=from_zero))
        at = 0.0
        for row, models in rows.items():
            axes.annotate(row, (0, at), (-AT_NAMES, 0), **_beside(MUTED))
            for model, one in models.items():
                at += 1
                colour = ACCENT if model == ours else INK
                axes.axhline(at, color=LINE, linewidth=0.8, zorder=0)
                if one.low is not None and one.high is not None:
                    axes.plot([one.low, one.high], [at, at], color=colour, linewidth=4, alpha=0.35)
                axes.plot([one.value], [at], "o", markersize=7, color=colour, markeredgecolor=SURFACE)
                axes.annotate(model, (0, at), (-AT_NAMES, 0), **_beside(colour))
                axes.annotate(f"{one.value:.3f}", (1, at), (4, 0), **_beside(colour))
            at += 1 + APART
        axes.set_ylim(at - APART - 0.4, -0.6)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines.bottom.set_visible(False)
    return _svg(figure)


def _range(rows: Mapping[str, Mapping[str, Estimate]], *, from_zero: bool) -> tuple[float, float]:
    """The ends of a scale on which all values and intervals have their place."""
    ends = [end for models in rows.values() for one in models.values() for end in one if end is not None]
    low, high = (0.0 if from_zero else min(ends)), max(ends)
    margin = 0.08 * ((high - low) or abs(high) or 1.0)
    return low - margin / 2, high + margin


def _beside(colour: str) -> dict[str, Any]:
    """How a text beside a line of dots is set: its place counts in points from an end of the line."""
    return {
        **_label(colour, at="left", valign="center"),
        "xycoords": ("axes fraction", "data"),
        "annotation_clip": False,
    }


@contextmanager
def _drawing(height: float) -> Iterator[tuple[Figure, Any]]:
    """A figure of so many points in height, with one pair of axes, in the style of the page."""
    with mpl.rc_context(STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.03)
        figure = Figure(figsize=(WIDTH / POINTS_PER_INCH, height / POINTS_PER_INCH), layout=layout)
        figure.patch.set_visible(False)
        yield figure, figure.add_subplot()


def _svg(figure: Figure) -> Markup:
    """The SVG element of a figure: as wide as there is room, its colours those of the page, hidden from readers."""
    out = io.StringIO()
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # Matplotlib measures texts in a font of its own; the page sets them in one that has the letters.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(out, format="svg")
    text = out.getvalue()[out.getvalue().index("<svg") :]
    # A style inside would be one of the whole page.
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    (box,) = re.findall(r'viewBox="([^"]*)"', text)
    text = re.sub(r"<svg[^>]*>", f'<svg viewBox="{box}" aria-hidden="true" focusable="false">', text, count=1)
    for colour, role in ROLES.items():
        text = text.replace(colour, role)
    text = re.sub(r"font-family: [^;]*; ", "", text)  # that of the page
    return Markup(_with_own_ids(text))  # noqa: S704 - drawn here; matplotlib has escaped the texts in it


def _with_own_ids(svg: str) -> str:
    """The same drawing without ids but those that it refers to, and those unlike the ids of any other drawing."""
    mark = hashlib.sha256(svg.encode()).hexdigest()[:8]
    referred = set(re.findall(r'(?:url\(|href=")#([^")]+)', svg))

    def renamed(found: re.Match[str]) -> str:
        return f' id="{mark}-{found[1]}"' if found[1] in referred else ""

    svg = re.sub(r' id="([^"]*)"', renamed, svg)
    return re.sub(r'(url\(|href=")#', rf"\1#{mark}-", svg)


def _label(colour: str, *, at: str = "center", valign: str = "bottom", size: float = TEXT) -> dict[str, Any]:
    """How a label on a chart is set: in points from what it names."""
    return {"textcoords": "offset points", "color": colour, "ha": at, "va": valign, "fontsize": size}


def _short(name: str) -> str:
    return name if len(name) <= LABEL_LENGTH else name[: LABEL_LENGTH - 1] + "…"


MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def month_number(month: str) -> int:
    """A month such as `2018-09` as the number of months since the year 0."""
    return 12 * int(month[:4]) + int(month[5:7]) - 1


def month_name(number: int) -> str:
    """That number as `Sep 2018`."""
    return f"{MONTHS[number % 12]} {number // 12}"


def _year_ticks(axes: Any, every: np.ndarray) -> None:
    """Ticks at the beginning of years, few enough to be read; at the ends where less than two years are shown."""
    years = [number for number in every if number % 12 == 0]
    if len(years) < 2:  # noqa: PLR2004
        ends = sorted({int(every[0]), int(every[-1])})
        axes.set_xticks(ends, [month_name(number) for number in ends])
        return
    shown = [number for number in years if (number // 12) % (1 + len(years) // 6) == 0]
    axes.set_xticks(shown, [str(number // 12) for number in shown])


def _compact(value: float, _place: int) -> str:
    """12,000 as 12k."""
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
