"""The charts of the report: each with its message in a sentence, a text for screen readers, and its figures."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from spark_app.model.metrics import OF_ERRORS, Better, label_of, metric_of
from spark_app.report import charts
from spark_app.report.charts import Estimate
from spark_app.report.words import MODEL_NAMES, THIN, as_read, minute, number, percent, plural

GENRES_SHOWN = 12
TAIL_POINTS = 400
"""Points on the curve of the long tail; more would not be visible."""

LISTS, HISTORIES = "recommended", "rated"
CLASSES = (0.01, 0.1)
"""Shares of the movies, the most rated first, that are shown apart."""

YEAR_AT_END = re.compile(r" \(\d{4}\)$")
"""The year of a title, which a label on a chart has no room for."""

DASH = "\N{EN DASH}"
"""Shown where a value is unknown."""

TAIL_MARKS = (0.01, 0.1)
"""Shares of the movies that are labelled on the curve of the long tail."""

YEAR = 12
"""Months over which the recent past is averaged."""


@dataclass(frozen=True)
class Chart:
    """A drawing with its title, its message in a sentence, its text alternative, and its figures as a table."""

    title: str
    message: str
    svg: Markup
    alternative: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]] = field(default_factory=list)


def of_data(
    profile: Mapping[str, Any], users_by_activity: Mapping[int, int], ratings_of_movies: NDArray[np.int64]
) -> list[Chart]:
    """The charts of what is in the data; charts without data are left out.

    `users_by_activity` is the number of users by the number of ratings they gave, in ascending order.
    `ratings_of_movies` is the number of ratings of every movie, the most rated first.
    """
    drawn: list[Chart] = []
    if sum(profile.get("rating_histogram", {}).values()):
        drawn.append(_ratings(profile["rating_histogram"], profile["average_rating"]))
    if profile.get("user_activity") and users_by_activity:
        drawn.append(_activity(profile["user_activity"], users_by_activity))
    if profile.get("movie_popularity") and ratings_of_movies.sum():
        drawn.append(_long_tail(profile["movie_popularity"], ratings_of_movies))
    if any(genre["ratings"] for genre in profile.get("genres", {}).values()):
        drawn.append(_genres(profile["genres"]))
    if any(decade["ratings"] for decade in profile.get("decades", {}).values()):
        drawn.append(_decades(profile["decades"]))
    return drawn


def _ratings(histogram: Mapping[str, int], mean: float) -> Chart:
    total = sum(histogram.values())
    mode = max(histogram, key=lambda value: histogram[value])
    message = f"{mode} is given most often, {percent(histogram[mode] / total)} of the time. The mean is {mean:.2f}."
    return Chart(
        "Ratings",
        message,
        charts.columns({bin_start(value): count for value, count in histogram.items()}, "rating"),
        f"Bar chart of {plural(total, 'rating')} by value. {message}",
        ("rating", "ratings", "share"),
        [(value, number(count), percent(count / total)) for value, count in histogram.items()],
    )


def _activity(activity: Mapping[str, float], users_by_activity: Mapping[int, int]) -> Chart:
    bins: Counter[str] = Counter()
    for count, users in users_by_activity.items():
        bins[doubling_bin(count)] += users
    everyone = bins.total()
    message = (
        f"Half of the users have rated {number(activity['median'])} movies or fewer. "
        f"The most active 10{THIN}% gave {percent(activity['top_10_percent'])} of all ratings."
    )
    return Chart(
        "How much users rate",
        message,
        charts.columns({bin_start(name): count for name, count in bins.items()}, "ratings a user has given, from"),
        f"Bar chart of {plural(everyone, 'user')} by how many ratings they gave. {message}",
        ("ratings given", "users", "share"),
        [(name, number(count), percent(count / everyone)) for name, count in bins.items()],
    )


def doubling_bin(value: float) -> str:
    """The name of the bin that a number falls into once cut to an integer: 0, 1, 2-3, 4-7, 8-15 and so on."""
    if value < 2:  # noqa: PLR2004 - the first bin of more than one number begins here
        return f"{max(int(value), 0)}"
    start = 1 << (int(value).bit_length() - 1)
    return f"{start:,}-{2 * start - 1:,}"


def bin_start(name: str) -> str:
    """The lowest value of a bin, from the bin's name; a single value, such as `4` or `-1`, is returned unchanged."""
    return name.split("-", maxsplit=1)[0] or name


def _long_tail(popularity: Mapping[str, float], ratings_of_movies: NDArray[np.int64]) -> Chart:
    by_movie = np.concatenate([[0.0], np.cumsum(ratings_of_movies) / ratings_of_movies.sum()])
    points = np.linspace(0, 1, TAIL_POINTS + 1)
    shares = np.interp(points, np.linspace(0, 1, len(by_movie)), by_movie)
    marks = dict(zip(TAIL_MARKS, (popularity["top_1_percent"], popularity["top_10_percent"]), strict=True))
    message = (
        f"The most rated 1{THIN}% of movies have {percent(marks[0.01])} of the ratings; "
        f"half of the movies have {plural(popularity['median'], 'rating')} or fewer."
    )
    return Chart(
        "The long tail",
        message,
        charts.long_tail(shares, {place: f"{percent(place)} of movies: {percent(marks[place])}" for place in marks}),
        f"Curve of the share of all ratings that the most rated movies have together. {message}",
        ("the most rated", "movies", "share of all ratings"),
        [
            (percent(top), number(round(top * len(ratings_of_movies))), percent(float(np.interp(top, points, shares))))
            for top in (0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
        ],
    )


def _genres(genres: Mapping[str, Mapping[str, Any]]) -> Chart:
    rated = {name: genre for name, genre in genres.items() if genre["ratings"]}
    shown = dict(list(rated.items())[:GENRES_SHOWN])
    first = next(iter(rated))
    best = max(shown, key=lambda name: shown[name]["average_rating"])
    message = (
        f"{first} is rated most. Of the genres shown, {best} is rated highest, with a mean of "
        f"{shown[best]['average_rating']:.2f}. A movie counts in each of its genres."
    )
    return Chart(
        "Genres",
        message,
        charts.ranking({name: genre["ratings"] for name, genre in shown.items()}),
        f"Bar chart of ratings by genre, the {len(shown)} most rated. {message}",
        ("genre", "movies", "ratings", "mean"),
        [
            (name, number(genre["movies"]), number(genre["ratings"]), decimal(genre["average_rating"], 2))
            for name, genre in genres.items()
        ],
    )


def _decades(decades: Mapping[str, Mapping[str, int]]) -> Chart:
    total = sum(decade["ratings"] for decade in decades.values())
    top = max(decades, key=lambda name: decades[name]["ratings"])
    message = f"{percent(decades[top]['ratings'] / total)} of the ratings are of movies from the {top}."
    bars = _short_names({name: decade["ratings"] for name, decade in decades.items()})
    return Chart(
        "Years of release",
        message,
        charts.columns(bars, "decade of release"),
        f"Bar chart of ratings by the decade in which the movie came out. {message}",
        ("decade", "movies", "ratings"),
        [(name, number(decade["movies"]), number(decade["ratings"])) for name, decade in decades.items()],
    )


def _short_names(decades: Mapping[str, int]) -> dict[str, float]:
    """Counts by decade, named `'90s`; the full names are kept where two short ones would be the same."""
    short = {f"'{name[2:]}": float(count) for name, count in decades.items()}
    return short if len(short) == len(decades) else dict(decades)


def over_time(months: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """The charts of growth: ratings, active users, new users and new movies per month."""
    if not months:
        return []
    series = (
        ("ratings", "Ratings per month", "ratings were given"),
        ("active_users", "Active users per month", "users rated anything"),
        ("new_users", "New users per month", "users rated for the first time"),
        ("new_movies", "New movies per month", "movies were rated for the first time"),
    )
    return [_monthly(months, key, title, meaning) for key, title, meaning in series]


def _monthly(months: Sequence[Mapping[str, Any]], key: str, title: str, meaning: str) -> Chart:
    names, values = [row["month"] for row in months], [row[key] for row in months]
    recent = recent_mean(months, key)
    message = f"In the last year of the data, {number(recent)} {meaning} per month on average."
    peak = max(range(len(values)), key=lambda place: values[place])
    return Chart(
        title,
        message,
        charts.over_time(names, values),
        f"Line chart: how many {meaning}, each month from {names[0]} to {names[-1]}. {message} "
        f"The highest month is {names[peak]}, with {number(values[peak])}.",
        ("month", key.replace("_", " ")),
        [(name, number(value)) for name, value in zip(names, values, strict=True)],
    )


def recent_mean(months: Sequence[Mapping[str, Any]], key: str) -> float:
    """The mean of a column over the last twelve months, or over all months where there are fewer.

    Months without a row count as 0.
    """
    numbers = [charts.month_number(row["month"]) for row in months]
    span = min(YEAR, numbers[-1] - numbers[0] + 1)
    return float(sum(row[key] for row, month in zip(months, numbers, strict=True) if month > numbers[-1] - span)) / span


def of_models(metrics: Mapping[str, Any]) -> list[Chart]:
    """The charts of the models beside their baselines, with intervals where the manifest has them."""
    drawn: list[Chart] = []
    ranking = metrics.get("ranking", {})
    if ranking:
        drawn.append(_lists(ranking, metrics.get("intervals", {}).get("ranking", {}), accuracy_metrics(ranking)))
    if metrics.get("rating"):
        drawn.append(
            _errors(metrics["rating"], metrics.get("intervals", {}).get("rating", {}), metrics["rating_model"])
        )
    return drawn


def accuracy_metrics(ranking: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The names of the metrics at k, which say how well lists find what people like; the leading metric is first."""
    return [name for name in ranking["implicit"] if (metric := metric_of(name)) and metric.at_k]


def _lists(ranking: Mapping[str, Any], intervals: Mapping[str, Any], names: Sequence[str]) -> Chart:
    model_values, baseline = ranking["implicit"], ranking["popularity"]
    lead = names[0]
    ratio = times(model_values[lead], baseline[lead])
    message = f"{label_of(lead)} is {ratio} that of a list of the most popular movies."
    rows = {
        label_of(name): {
            MODEL_NAMES[model]: estimate(ranking, intervals, model, name) for model in ("implicit", "popularity")
        }
        for name in names
    }
    table = [
        (label_of(name), MODEL_NAMES[model], decimal(ranking[model][name], 4), interval(intervals, model, name))
        for name in names
        for model in ranking
    ]
    values = "; ".join(f"{label_of(name)} {model_values[name]:.3f} against {baseline[name]:.3f}" for name in names)
    return Chart(
        "Lists, beside popularity",
        message,
        charts.dots(rows, MODEL_NAMES["implicit"]),
        f"Dot plot, the model against popularity. {values}. {message}",
        ("metric", "model", "value", "95 % interval"),
        table,
    )


def _errors(rating: Mapping[str, Any], intervals: Mapping[str, Any], published: str) -> Chart:
    model_values, baseline = rating[published], rating["bias"]
    error = model_values["mae"]
    message = f"Predicted ratings come from {MODEL_NAMES[published]}; they are off by {error:.2f} on average"
    if published != "bias":
        message += f", those of {MODEL_NAMES['bias']} by {baseline['mae']:.2f}"
    rows = {
        f"{metric.label}, {metric.better} is better": {
            MODEL_NAMES[model]: estimate(rating, intervals, model, metric.name) for model in rating
        }
        for metric in OF_ERRORS
    }
    values = "; ".join(
        f"{MODEL_NAMES[model]}: RMSE {rating[model]['rmse']:.3f}, MAE {rating[model]['mae']:.3f}" for model in rating
    )
    return Chart(
        "Predicted ratings, beside biases",
        f"{message}.",
        charts.dots(rows, MODEL_NAMES[published], from_zero=False),
        f"Dot plot of the errors of each rating model. {values}. {message}.",
        ("metric", "model", "value", "95 % interval"),
        [
            (
                metric.label,
                MODEL_NAMES[model],
                decimal(rating[model][metric.name], 4),
                interval(intervals, model, metric.name),
            )
            for metric in OF_ERRORS
            for model in rating
        ],
    )


def of_lists(recommended: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[Chart]:
    """The charts of what is recommended: which movies most, and how popular they are beside what people rate.

    `recommended` has `users`, `top` (title, lists), and `lists` and `ratings` of every movie, the most rated first.
    """
    if not recommended or not recommended["users"]:
        return []
    drawn = [_most_recommended(recommended)]
    if len(recommended["ratings"]) >= 1 / min(CLASSES):
        drawn.append(_popularity(recommended, metrics))
    return drawn


def _most_recommended(recommended: Mapping[str, Any]) -> Chart:
    users = recommended["users"]
    titles = [as_read(title) for title, _ in recommended["top"]]
    counts = [count / users for _, count in recommended["top"]]
    short = [YEAR_AT_END.sub("", title) for title in titles]
    is_clear = len(set(short)) == len(short)
    shares = dict(zip(short if is_clear else titles, counts, strict=True))
    message = f"{titles[0]} is in the lists of {percent(counts[0])} of the users."
    return Chart(
        "Recommended most",
        message,
        charts.ranking(shares, percent),
        f"Bar chart of the {len(shares)} movies that are in most lists, by share of users. {message}",
        ("movie", "lists", "share of users"),
        [(as_read(title), number(count), percent(count / users)) for title, count in recommended["top"]],
    )


def _popularity(recommended: Mapping[str, Any], metrics: Mapping[str, Any]) -> Chart:
    lists, ratings = (recommended[side].astype(float) for side in ("lists", "ratings"))
    edges = [0, *(round(share * len(ratings)) for share in CLASSES), len(ratings)]
    names = (f"the most rated 1{THIN}%", f"the next 9{THIN}%", "all others")
    rows, table = {}, []
    for name, first, last in zip(names, edges, edges[1:], strict=False):
        shares = [float(side[first:last].sum() / max(side.sum(), 1)) for side in (lists, ratings)]
        rows[f"{name} of movies" if "%" in name else name] = {
            label: Estimate(share) for label, share in zip((LISTS, HISTORIES), shares, strict=True)
        }
        table.append((name, number(last - first), *(percent(share) for share in shares)))
    head = [float(side[: edges[1]].sum() / max(side.sum(), 1)) for side in (lists, ratings)]
    message = (
        f"The most rated 1{THIN}% of movies make up {percent(head[0])} of what is recommended, "
        f"and {percent(head[1])} of what users rated."
    )
    if lift := metrics.get("ranking", {}).get("implicit", {}).get("popularity_lift"):
        message += f" A recommended movie has {lift:.1f} times as many ratings as one that its user rated."
    return Chart(
        "How popular lists are, beside histories",
        message,
        charts.dots(rows, LISTS, text=percent),
        f"Dot plot of recommendations and ratings by how often a movie was rated. {message}",
        ("movies", "how many", LISTS, HISTORIES),
        table,
    )


def calibrated(metrics: Mapping[str, Any], scale: tuple[float, float]) -> list[Chart]:
    """The chart of predicted against actual ratings; none where no ratings are predicted."""
    parts = metrics.get("calibration", [])
    if not parts:
        return []
    total = sum(part["ratings"] for part in parts)
    gap = sum(abs(part["actual"] - part["predicted"]) * part["ratings"] for part in parts) / total
    message = (
        f"Where the model predicts a rating, users gave on average one that is {gap:.2f} away. "
        "On the line, predicted and given are the same."
    )
    values = "; ".join(f"predicted {part['predicted']:.2f}, given {part['actual']:.2f}" for part in parts)
    points = [(part["predicted"], part["actual"], part["ratings"]) for part in parts]
    return [
        Chart(
            "Predicted against given",
            message,
            charts.calibration(points, scale),
            f"Mean rating given over mean rating predicted. {values}. {message}",
            ("predicted", "given", "held-out ratings"),
            [(f"{predicted:.2f}", f"{actual:.2f}", number(count)) for predicted, actual, count in points],
        )
    ]


def of_runs(history: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Small lines of the figures of the last runs, the earliest first; none where there are fewer than two runs.

    Each run has `started` and `figures` by name: metrics as in the manifest, and `ratings`.
    """
    drawn = []
    for name in ("ndcg", "rmse", "ratings"):
        points = [(run["started"], key, value) for run in history for key, value in run["figures"].items()]
        points = [point for point in points if point[1].partition("@")[0] == name]
        if len(points) > 1:
            drawn.append(_trend(points))
    return drawn


def _trend(points: Sequence[tuple[str, str, float]]) -> Chart:
    key, values = points[-1][1], [value for _, _, value in points]
    is_count = key == "ratings"
    text = number if is_count else "{:.4f}".format
    title = "Ratings" if is_count else label_of(key)
    message = f"{len(points)} runs, from {text(values[0])} to {text(values[-1])}."
    return Chart(
        title,
        message,
        charts.trend(values, text),
        f"Line of {title} over the last runs. {message}",
        ("run of", title),
        [(minute(started), text(value)) for started, _, value in points],
    )


def of_slices(metrics: Mapping[str, Any]) -> list[Chart]:
    """One chart for each metric that the manifest has for slices of users or movies."""
    slices = metrics.get("slices", [])
    return [
        _sliced(metric, [entry for entry in slices if entry["metric"] == metric], metrics)
        for metric in dict.fromkeys(entry["metric"] for entry in slices)
    ]


def _sliced(metric: str, slices: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any]) -> Chart:
    known = metric_of(metric)
    lower = known is not None and known.better == Better.LOWER
    ours = str(metrics.get("rating_model", "explicit")) if known in OF_ERRORS else "implicit"
    wins = [entry for entry in slices if _is_best(entry["values"], ours, lower=lower)]
    message = f"{MODEL_NAMES[ours]} is best in {len(wins)} of {plural(len(slices), 'slice')}."
    if lower:
        message += " Lower is better."
    models = list(slices[0]["values"])
    rows = {
        entry["slice"]: {MODEL_NAMES.get(model, model): Estimate(value) for model, value in entry["values"].items()}
        for entry in slices
    }
    values = "; ".join(
        f"{entry['slice']}: {', '.join(f'{MODEL_NAMES.get(m, m)} {v:.3f}' for m, v in entry['values'].items())}"
        for entry in slices
    )
    return Chart(
        f"{label_of(metric)} by slice",
        message,
        charts.dots(rows, MODEL_NAMES[ours], from_zero=not lower),
        f"Dot plot of {label_of(metric)} by slice. {values}. {message}",
        ("slice", "count", *(MODEL_NAMES.get(model, model) for model in models)),
        [
            (entry["slice"], number(entry["count"]), *(decimal(entry["values"].get(model), 4) for model in models))
            for entry in slices
        ],
    )


def _is_best(values: Mapping[str, float], model: str, *, lower: bool) -> bool:
    best = min if lower else max
    return model in values and values[model] == best(values.values())


def estimate(values: Mapping[str, Any], intervals: Mapping[str, Any], model: str, metric: str) -> Estimate:
    """A metric of a model, with its interval where that is known."""
    low, high = intervals.get(model, {}).get(metric, (None, None))
    return Estimate(values[model][metric], low, high)


def interval(intervals: Mapping[str, Any], model: str, metric: str) -> str:
    """The interval of a metric as text; a dash where it is unknown."""
    ends = intervals.get(model, {}).get(metric)
    return f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else DASH


def times(value: float, baseline: float) -> str:
    """A value as a multiple of its baseline: `1.95 times`."""
    return f"{value / baseline:.2f} times" if baseline else "more than any multiple of"


def decimal(value: float | None, digits: int) -> str:
    """A number with `digits` decimals; a dash for None."""
    return DASH if value is None else f"{value:.{digits}f}"
