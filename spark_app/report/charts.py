"""Charts as inline SVG: matplotlib draws them and the page colours them, so one drawing serves light and dark.

Matplotlib needs colours when it draws, but the page chooses its colours only when it is opened. So each part is drawn
in a placeholder colour that stands for its role, which is then replaced by the CSS variable of that role.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from spark_app.report.words import number, percent

INK, MUTED, LINE, QUIET, ACCENT, SURFACE = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
ROLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    QUIET: "var(--quiet)",
    ACCENT: "var(--accent)",
    SURFACE: "var(--surface)",
}
"""The CSS variable behind each placeholder: text, secondary text, lines, the baseline, the highlight, the card."""

WIDTH = 300
"""The width of a chart in points: about the pixels of a card, so that text appears at its nominal size."""

POINTS_PER_INCH = 72
LABEL_LENGTH = 24
"""Longer names are cut to this many characters."""

FEW_BARS = 6
"""With at most this many bars, every bar has room for a label."""

NAMES_OFFSET = 84
"""How far to the left of the dots the names begin, in points."""

ROW_GAP = 0.4
"""The space between two rows, in lines."""

AXIS_HEIGHT = 18
"""Room for the scale below the dots, in points."""

DOTS_AREA = (0.3, 0.02, 0.55, 0.96)
"""Left, bottom, width and height of the dots in their drawing: names stand to their left, values to their right."""

YEAR = 12
LONG_MONTHS = 60
"""Over more months than this a mean of twelve months is drawn too."""

MIN_LABELLED_SHARE = 0.03
"""Bars with a smaller share have no label, because the labels of small bars would overlap."""

TEXT, SMALL = 11.0, 10.0
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "movie-reco",
    "text.parse_math": False,  # names are data from others: a $ in a name is a dollar
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
    """A value with its interval; the ends are None where the interval is unknown."""

    value: float
    low: float | None = None
    high: float | None = None


def columns(values: Mapping[str, float], axis: str = "") -> Markup:
    """A chart of upright bars, each with its share of the total above it; the highest is highlighted."""
    with _drawing(200) as (figure, axes):
        heights = np.array(list(values.values()), dtype=float)
        shares = heights / heights.sum() if heights.sum() else heights
        colours = [ACCENT if height == heights.max() else QUIET for height in heights]
        axes.bar(range(len(heights)), shares, width=0.82, color=colours)
        label_step = 1 + len(heights) // 11
        for place, share in enumerate(shares):
            if share >= MIN_LABELLED_SHARE or len(heights) <= FEW_BARS:
                axes.annotate(percent(share), (place, share), (0, 3), **_label(INK, size=SMALL))
        names = [_short(name) if place % label_step == 0 else "" for place, name in enumerate(values)]
        axes.set_xticks(range(len(heights)), names)
        axes.set_yticks([])
        axes.set_xlabel(axis)
    return _svg(figure)


def ranking(values: Mapping[str, float], text: Callable[[float], str] = number) -> Markup:
    """A chart of horizontal bars, each with its name and value; the first is on top and highlighted."""
    with _drawing(22 * len(values) + 6) as (figure, axes):
        places = range(len(values))
        numbers = list(values.values())
        axes.barh(places, numbers, height=0.64, color=[ACCENT, *[QUIET] * (len(numbers) - 1)][: len(numbers)])
        for place, value in zip(places, numbers, strict=True):
            axes.annotate(text(value), (value, place), (4, 0), **_label(INK, at="left", valign="center"))
        axes.set_yticks(places, [_short(name) for name in values])
        axes.tick_params(axis="y", labelsize=TEXT, labelcolor=INK)
        axes.set_xlim(0, 1.2 * max(numbers, default=1) or 1)
        axes.set_xticks([])
        axes.spines.bottom.set_visible(False)
        axes.invert_yaxis()
    return _svg(figure)


def over_time(months: Sequence[str], values: Sequence[float]) -> Markup:
    """A filled line over months such as `2018-09`; missing months count as 0, and the highest month is labelled.

    Over a long time single months hide the way, so the mean of the last twelve months is drawn over them.
    """
    with _drawing(190) as (figure, axes):
        numbers = np.array([month_number(month) for month in months])
        span = np.arange(numbers.min(), numbers.max() + 1)
        line = np.zeros(len(span))
        line[numbers - numbers.min()] = values
        axes.fill_between(span, line, color=ACCENT, alpha=0.16, linewidth=0)
        is_long = len(span) > LONG_MONTHS
        axes.plot(
            span,
            line,
            color=ACCENT,
            linewidth=0.5 if is_long else 1.1,
            marker="o" if len(span) == 1 else "",
            alpha=0.5 if is_long else 1.0,
        )
        if is_long:
            means = np.convolve(line, np.full(YEAR, 1 / YEAR), mode="valid")
            axes.plot(span[YEAR - 1 :], means, color=ACCENT, linewidth=1.8)
        peak = int(np.argmax(line))
        is_late = peak > len(span) / 2
        axes.annotate(
            f"{number(line[peak])} in {month_name(int(span[peak]))}",
            (span[peak], line[peak]),
            (-4 if is_late else 4, 4),
            **_label(INK, at="right" if is_late else "left"),
        )
        _year_ticks(axes, span)
        axes.set_ylim(0, 1.18 * (line.max() or 1))
        axes.yaxis.set_major_locator(mpl.ticker.MaxNLocator(4, integer=True))
        axes.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(_compact))
        axes.grid(axis="y")
    return _svg(figure)


def long_tail(shares: np.ndarray, marks: Mapping[float, str]) -> Markup:
    """A curve of the share of all ratings that the most rated movies have together.

    `shares` are points of the curve, evenly spaced from no movie to all of them, the most rated first. `marks` are the
    labels of points on the curve, by the share of the movies, 0 to 1.
    """
    with _drawing(230) as (figure, axes):
        movies = np.linspace(0, 1, len(shares))
        axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1.2)
        axes.annotate("if rated equally", (0.5, 0.5), (4, -4), **_label(MUTED, at="left", valign="top"))
        axes.fill_between(movies, shares, movies, color=ACCENT, alpha=0.12, linewidth=0)
        axes.plot(movies, shares, color=ACCENT, linewidth=2, clip_on=False)
        for place, text in marks.items():
            share = float(np.interp(place, movies, shares))
            axes.plot([place], [share], marker="o", markersize=6, color=ACCENT, markeredgecolor=SURFACE, clip_on=False)
            axes.annotate(text, (place, share), (9, -5), **_label(INK, at="left", valign="top"))
        percents = mpl.ticker.FuncFormatter(lambda share, _place: percent(share))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(percents)
            axis.set_ticks([0, 0.25, 0.5, 0.75, 1])
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="movies, the most rated first", ylabel="")
        axes.grid(axis="y")
    return _svg(figure)


def dots(
    rows: Mapping[str, Mapping[str, Estimate]],
    ours: str,
    *,
    from_zero: bool = True,
    text: Callable[[float], str] = "{:.3f}".format,
) -> Markup:
    """A dot plot: under the name of each row a line per model, with its name, its dot and interval, and its value.

    A row is a metric or a slice of the data; all rows share one scale, whose ends stand below. The model `ours` is
    highlighted. `text` writes a value.
    """
    lines = sum(1 + len(models) + ROW_GAP for models in rows.values()) - ROW_GAP
    height = 19 * lines + 6
    with _drawing(height + AXIS_HEIGHT) as (figure, axes):
        figure.set_layout_engine("none")
        left, bottom, width, share = DOTS_AREA
        part = height / (height + AXIS_HEIGHT)
        axes.set_position((left, 1 - part + bottom * part, width, share * part))
        axes.set_xlim(*_range(rows, from_zero=from_zero))
        at = 0.0
        for row, models in rows.items():
            axes.annotate(row, (0, at), (-NAMES_OFFSET, 0), **_beside(MUTED))
            for model, estimate in models.items():
                at += 1
                colour = ACCENT if model == ours else INK
                axes.axhline(at, color=LINE, linewidth=0.8, zorder=0)
                if estimate.low is not None and estimate.high is not None:
                    axes.plot([estimate.low, estimate.high], [at, at], color=colour, linewidth=4, alpha=0.35)
                axes.plot([estimate.value], [at], "o", markersize=7, color=colour, markeredgecolor=SURFACE)
                axes.annotate(model, (0, at), (-NAMES_OFFSET, 0), **_beside(colour))
                axes.annotate(text(estimate.value), (1, at), (4, 0), **_beside(colour))
            at += 1 + ROW_GAP
        axes.set_ylim(at - ROW_GAP - 0.4, -0.6)
        axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(4))
        axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _place: _tick(value, text)))
        axes.set_yticks([])
    return _svg(figure)


def _tick(value: float, text: Callable[[float], str]) -> str:
    """A value on the scale of a dot plot: as short as it can be, in the form of the values."""
    return text(value) if text(value).endswith("%") else f"{value:g}"


def calibration(points: Sequence[tuple[float, float, int]], ends: tuple[float, float]) -> Markup:
    """Mean actual ratings over mean predicted ratings, beside the line on which both are equal.

    `points` are (predicted, actual, number of ratings): a dot is larger where there are more. `ends` are those of the
    scale of the ratings.
    """
    with _drawing(230) as (figure, axes):
        predicted, actual, counts = (np.array(side, dtype=float) for side in zip(*points, strict=True))
        axes.plot(ends, ends, color=QUIET, linewidth=1.2)
        axes.annotate("as predicted", (ends[1], ends[1]), (-6, -10), **_label(MUTED, at="right", valign="top"))
        axes.plot(predicted, actual, color=ACCENT, linewidth=1.4)
        axes.scatter(predicted, actual, s=10 + 90 * counts / counts.max(), color=ACCENT, edgecolor=SURFACE, zorder=3)
        axes.set(xlim=ends, ylim=ends, xlabel="predicted rating")
        axes.set_title("rating given, on average", loc="left", fontsize=SMALL, color=MUTED)
        axes.grid(axis="y")
    return _svg(figure)


def trend(values: Sequence[float], text: Callable[[float], str] = "{:.3f}".format) -> Markup:
    """A small line through one value for each run, the earliest first; the last is marked with its value."""
    with _drawing(70) as (figure, axes):
        axes.plot(range(len(values)), values, color=ACCENT, linewidth=1.4, marker="o", markersize=2.5)
        axes.plot([len(values) - 1], [values[-1]], "o", markersize=6, color=ACCENT, markeredgecolor=SURFACE)
        axes.annotate(
            text(values[-1]), (len(values) - 1, values[-1]), (8, 0), **_label(INK, at="left", valign="center")
        )
        axes.set_xlim(-0.3, (len(values) - 1) * 1.25 + 0.3)
        low, high = min(values), max(values)
        margin = 0.25 * ((high - low) or abs(high) or 1.0)
        axes.set_ylim(low - margin, high + margin)
        axes.set_xticks([])
        axes.set_yticks([low, high] if high > low else [high], [text(low), text(high)] if high > low else [text(high)])
        axes.spines.bottom.set_visible(False)
        axes.grid(axis="y")
    return _svg(figure)


def name_apart(axes: Any, places: Sequence[tuple[float, float]], names: Sequence[str]) -> list[bool]:
    """Write names beside points of a plot, and leave out those that would overlap an earlier name or leave the plot.

    Returns for each point whether it is named. The limits of the axes must be final.
    """
    taken: list[Any] = []
    is_named = []
    frame = axes.get_window_extent()
    for place, name in zip(places, names, strict=True):
        text = axes.annotate(_short(name), place, (4, 3), textcoords="offset points", fontsize=8)
        box = text.get_window_extent().padded(1)
        is_free = frame.x0 <= box.x0 and box.x1 <= frame.x1 and not any(box.overlaps(other) for other in taken)
        is_named.append(is_free)
        if is_free:
            taken.append(box)
        else:
            text.remove()
    return is_named


def _range(rows: Mapping[str, Mapping[str, Estimate]], *, from_zero: bool) -> tuple[float, float]:
    """The ends of a scale that covers all values and intervals."""
    ends = [end for models in rows.values() for estimate in models.values() for end in estimate if end is not None]
    low, high = (0.0 if from_zero else min(ends)), max(ends)
    margin = 0.08 * ((high - low) or abs(high) or 1.0)
    return low - margin / 2, high + margin


def _beside(colour: str) -> dict[str, Any]:
    """The options of a text beside a line of dots: its place is in points from an end of that line."""
    return {
        **_label(colour, at="left", valign="center"),
        "xycoords": ("axes fraction", "data"),
        "annotation_clip": False,
    }


@contextmanager
def _drawing(height: float) -> Iterator[tuple[Figure, Any]]:
    """A figure in the style of the page, with one pair of axes; `height` is in points."""
    with mpl.rc_context(STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.03)
        figure = Figure(figsize=(WIDTH / POINTS_PER_INCH, height / POINTS_PER_INCH), layout=layout)
        figure.patch.set_visible(False)
        yield figure, figure.add_subplot()


def _svg(figure: Figure) -> Markup:
    """The SVG element of a figure: as wide as its card, in the colours of the page, hidden from screen readers."""
    out = io.StringIO()
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # Matplotlib only measures the texts, in its own font; the browser draws them in a font that has the glyphs.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(out, format="svg")
    text = out.getvalue()[out.getvalue().index("<svg") :]
    # A style inside the SVG would apply to the whole page.
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    (box,) = re.findall(r'viewBox="([^"]*)"', text)
    text = re.sub(r"<svg[^>]*>", f'<svg viewBox="{box}" aria-hidden="true" focusable="false">', text, count=1)
    for colour, role in ROLES.items():
        text = text.replace(colour, role)
    text = re.sub(r"font-family: [^;]*; ", "", text)  # so that the font of the page applies
    return Markup(_with_own_ids(text))  # noqa: S704 - drawn here; matplotlib has escaped the texts in it


def _with_own_ids(svg: str) -> str:
    """The drawing with only the ids that it refers to, each prefixed by a hash of the drawing.

    Ids must be unique in the page, which holds several drawings.
    """
    prefix = hashlib.sha256(svg.encode()).hexdigest()[:8]
    referred = set(re.findall(r'(?:url\(|href=")#([^")]+)', svg))

    def renamed(match: re.Match[str]) -> str:
        return f' id="{prefix}-{match[1]}"' if match[1] in referred else ""

    svg = re.sub(r' id="([^"]*)"', renamed, svg)
    return re.sub(r'(url\(|href=")#', rf"\1#{prefix}-", svg)


def _label(colour: str, *, at: str = "center", valign: str = "bottom", size: float = TEXT) -> dict[str, Any]:
    """The options of a label on a chart, which is placed in points from what it names."""
    return {"textcoords": "offset points", "color": colour, "ha": at, "va": valign, "fontsize": size}


def _short(name: str) -> str:
    return name if len(name) <= LABEL_LENGTH else name[: LABEL_LENGTH - 1] + "…"


MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def month_number(month: str) -> int:
    """A month such as `2018-09` as the number of months since the year 0."""
    return 12 * int(month[:4]) + int(month[5:7]) - 1


def month_name(number: int) -> str:
    """Such a number of months as `Sep 2018`."""
    return f"{MONTHS[number % 12]} {number // 12}"


def _year_ticks(axes: Any, months: np.ndarray) -> None:
    """Set a few ticks at the beginning of years, or at both ends where fewer than two years begin."""
    years = [number for number in months if number % 12 == 0]
    if len(years) < 2:  # noqa: PLR2004
        ends = sorted({int(months[0]), int(months[-1])})
        axes.set_xticks(ends, [month_name(number) for number in ends])
        return
    shown = [number for number in years if (number // 12) % (1 + len(years) // 6) == 0]
    axes.set_xticks(shown, [str(number // 12) for number in shown])


def _compact(value: float, _place: int) -> str:
    """A number in short: 12,000 as `12k`."""
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
