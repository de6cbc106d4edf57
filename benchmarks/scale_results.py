"""The figures of `scale` as Markdown tables, and the line of ratios at the end of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.facts import table
from benchmarks.scale_data import Scale

OURS = "movie-reco"
TWICE = 2
TITLES = {"topn": "top N"}

MEANING = """\
`make bench SCALE="1m 5m 25m"` measures each stage as users run it, one process at a time, on two cores. Jobs have the
memory of conf/local, and peers on Spark have 6 GB.
The ratings are generated; a second delivery repeats some of them and has broken lines. Peers do the same work on the
same data.

- `seconds`: from the start of the process to its end.
- `work`: the seconds without the start of Spark or Python; for fits, the seconds of fitting alone.
- `rows/s`: ratings per second of work; for lists, users per second of work.
- `peak MB`: the largest sum of resident memory over the process and its descendants; a page that several of them share
  counts once. Java's heap grows to its limit before Java collects most of its garbage, so this is the memory that was
  taken, not the memory that is needed.
- `movie-reco takes`: its time over that of the peer. It compares `seconds` for etl, `work` for top N, and for train and
  pipeline their `seconds` with the `work` of MLlib's four fits.

MLlib fits explicit ALS of rank 32 and implicit ALS of rank 64, ten sweeps each, on the training part and on all
ratings. `train` fitted the same before it had its own solver; now its ranks are 64 and 128."""

IN_LINE = {"etl": ("DuckDB", "Polars"), "topn": ("recommendForAllUsers", "implicit")}
"""The peers in the line of ratios, by part."""


@dataclass(frozen=True)
class Row:
    """One measured process: who ran, its seconds, its seconds of work, the rows it took in, and its peak memory.

    `ratio` is our time over that of the peer.
    """

    who: str
    seconds: float
    work: float
    count: int
    peak_mb: int
    ratio: float | None = None


def merged(scales: Mapping[str, Any], name: str, parts: Mapping[str, Any]) -> dict[str, Any]:
    """The results with `parts` of the scale `name` replaced; everything else is unchanged."""
    return {**scales, name: {**scales.get(name, {}), **parts}}


def as_times(ratio: float) -> str:
    """A ratio as text: `2.4x`, or `1/8.1` where it is below 1."""
    if ratio < 1:
        return f"1/{_digits(1 / ratio)}"
    return f"{_digits(ratio)}x"


def ratios_line(name: str, scale: Mapping[str, Any]) -> str:
    """The ratios of a scale in one line."""
    ratios = []
    for part, named in IN_LINE.items():
        peers = [
            f"{as_times(row['ratio'])}{' of' if row['ratio'] < 1 else ''} {row['who']}"
            for row in scale.get(part, {}).get("rows", [])
            if row["who"] in named
        ]
        if again := scale.get(part, {}).get("again"):
            our_seconds, peer_seconds = again.values()
            peers[0] += f" ({as_times(our_seconds / peer_seconds)} when warm)"
        if peers:
            ratios.append(f"{TITLES.get(part, part)} {', '.join(peers)}")
    for part in ("train", "pipeline"):
        if of_fits := scale.get(part, {}).get("of_fits"):
            ratios.append(f"{part} {_of_fits(of_fits)}")
    return f"bench {name}: {'; '.join(ratios) or 'nothing to compare'}"


def as_markdown(scales: Mapping[str, Any], sizes: Mapping[str, Scale]) -> str:
    """All results as Markdown: how time and memory grow, then the tables of each scale."""
    lines = ["# Scale: the stages beside peers", "", *MEANING.splitlines()]
    lines += _growth(scales, sizes)
    for name, scale in scales.items():
        size = sizes[name]
        lines += ["", f"## {name}: {size.ratings:,} ratings, {size.users:,} users, {size.movies:,} movies", ""]
        lines += [ratios_line(name, scale), ""]
        lines += table(
            ["", "", "seconds", "work", "rows/s", "peak MB", "movie-reco takes"],
            [_cells(part, row, entry) for part, entry in scale.items() for row in entry["rows"]],
        )
        lines += _shares("Stages of the pipeline", _stages(scale))
        lines += _second_time(scale.get("topn", {}).get("again", {}))
        lines += _shares("MLlib's fits", scale.get("fits", {}).get("fits", {}))
        lines += _solver(scale.get("fits", {}))
        lines += ["", *_provenance(scale)]
    return "\n".join([*lines, ""])


def _of_fits(ratio: float) -> str:
    return f"{as_times(ratio)}{' of' if ratio < 1 else ''} MLlib's fits"


def _cells(part: str, row: Mapping[str, Any], entry: Mapping[str, Any]) -> list[str]:
    ratio = row["ratio"] if row["who"] != OURS else None
    text = as_times(ratio) if ratio else ""
    if of_fits := entry.get("of_fits"):
        text = _of_fits(of_fits)
    return [
        TITLES.get(part, part),
        f"**{OURS}**" if row["who"] == OURS else row["who"],
        f"{row['seconds']:.1f}",
        f"{row['work']:.1f}",
        f"{row['count'] / row['work']:,.0f}",
        f"{row['peak_mb']:,}",
        text,
    ]


def _growth(scales: Mapping[str, Any], sizes: Mapping[str, Scale]) -> Iterator[str]:
    """A section on growth from the smallest scale to the largest: seconds of work, and peak memory."""
    if len(scales) < TWICE:
        return
    names = list(scales)
    first, last = names[0], names[-1]
    times = sizes[last].ratings / sizes[first].ratings
    yield from ["", f"## From {first} to {last}: {times:.0f} times the ratings", ""]
    by_key = {
        name: {(part, row["who"]): row for part, entry in scale.items() for row in entry["rows"]}
        for name, scale in scales.items()
    }
    rows = []
    for key in by_key[last]:
        row_by_scale = [by_key[name].get(key) for name in names]
        low, high = row_by_scale[0], row_by_scale[-1]
        growth = [high["work"] / low["work"], high["peak_mb"] / low["peak_mb"]] if low and high else []
        rows.append(
            [
                TITLES.get(key[0], key[0]),
                f"**{OURS}**" if key[1] == OURS else key[1],
                *(f"{row['work']:.1f}" if row else "" for row in row_by_scale),
                *(f"{row['peak_mb']:,}" if row else "" for row in row_by_scale),
                *([as_times(value) for value in growth] or ["", ""]),
            ]
        )
    heads = [*(f"s, {name}" for name in names), *(f"MB, {name}" for name in names), "time grows", "memory grows"]
    yield from table(["", "", *heads], rows)


def _stages(scale: Mapping[str, Any]) -> dict[str, float]:
    return {stage["stage"]: stage["seconds"] for stage in scale.get("pipeline", {}).get("stages", [])}


def _shares(title: str, seconds: Mapping[str, float]) -> Iterator[str]:
    if not seconds:
        return
    total = sum(seconds.values())
    yield from ["", f"{title}:", ""]
    yield from table(
        ["", "seconds", "share"], [[name, f"{value:.1f}", f"{value / total:.0%}"] for name, value in seconds.items()]
    )


def _second_time(seconds: Mapping[str, float]) -> Iterator[str]:
    if seconds:
        yield from ["", "Top N a second time in the same session, when Java is warm:", ""]
        yield from table(["", "seconds"], [[name, f"{value:.1f}"] for name, value in seconds.items()])


def _solver(fits: Mapping[str, Any]) -> Iterator[str]:
    """Fits of the ranking model by our solver, packing included, beside MLlib's at rank 64 on all ratings."""
    if "solver" not in fits:
        return
    yield from ["", "One fit by our solver, packing included, beside MLlib's implicit ALS on all ratings:", ""]
    yield from table(
        ["", "seconds", "of MLlib's"],
        [[name, f"{fit['seconds']:.1f}", as_times(fit["of_mllib"])] for name, fit in fits["solver"].items()],
    )
    objectives = ", ".join(f"{who} {value:.6g}" for who, value in fits["objective"].items())
    yield from ["", f"Objective after ten sweeps at rank 64: {objectives}."]


def _provenance(scale: Mapping[str, Any]) -> Iterator[str]:
    """Lines that say when, where and with which versions parts were measured; one line where all parts agree."""
    parts_of: dict[str, list[str]] = {}
    for part, entry in scale.items():
        used = ", ".join(f"{package} {version}" for package, version in entry["versions"].items())
        parts_of.setdefault(f"{entry['date']}, {entry['machine']}; {used}", []).append(TITLES.get(part, part))
    for where, parts in parts_of.items():
        yield f"Measured {where}." if len(parts_of) == 1 else f"{', '.join(parts)}: measured {where}."


def _digits(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio >= TWICE else f"{ratio:.2f}"
