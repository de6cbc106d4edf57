"""The report of a run: one self-contained page of HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from numpy.typing import NDArray

from spark_app.model.metrics import label_of, metric_of
from spark_app.report import charts, figures
from spark_app.report.drift import MAJOR, STABLE
from spark_app.report.verdicts import SAME, at_the_gate, verdict
from spark_app.report.words import (
    MODEL_NAMES,
    THIN,
    as_read,
    day,
    duration,
    minute,
    number,
    percent,
    plural,
    reason_as_read,
    size,
)

SHOWN = 6
"""Movies shown of a user's history, and of their list."""

EARLIER = " (an earlier run)"
"""Stands after figures that are not those of the run itself."""

NOT_COMPARABLE = "not comparable"

VERDICTS = {
    "stable": "The ratings are distributed as before",
    "moved": "The distribution of ratings has moved",
    "another": "The ratings are distributed quite differently",
}
SHARES = ("share_of_movies_rated", "density")
"""Shares among the volumes."""

MIN_CHANGE = 0.0005
"""Smaller changes would read as 0 %, so they are reported as nearly the same."""

VOLUME_NAMES = {"share_of_movies_rated": "share of movies rated", "density": "share of all user-movie pairs rated"}


@dataclass(frozen=True)
class Facts:
    """What the page shows: the manifest of its run, and what is published beside it.

    `rows` and `rejects` come from the manifest, or from the latest run that counted them. `metrics` are those of the
    published models, which the run `model_run` fitted. `users_by_activity` and `ratings_of_movies` are what
    `figures.of_data` takes. `most_rated` are rows of `final`; `users` are answers of `published.user`. `recommended` is
    what `figures.of_lists` takes, and `history` what `figures.of_runs` takes.
    """

    manifest: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, int]]
    rejects: Mapping[str, Mapping[str, int]]
    metrics: Mapping[str, Any]
    model_run: str
    users_by_activity: Mapping[int, int]
    ratings_of_movies: NDArray[np.int64]
    most_rated: Sequence[Mapping[str, Any]]
    users: Sequence[Mapping[str, Any]]
    lists_are_new: bool
    recommended: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()


def render(facts: Facts) -> str:
    """The whole page as HTML. Texts in the facts are data from others, so they are escaped."""
    environment = Environment(
        loader=PackageLoader("spark_app.report"),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        **{"number": number, "percent": percent, "size": size, "duration": duration, "minute": minute},
        **{"decimal": figures.decimal, "label": label_of, "as_read": as_read, "reason_as_read": reason_as_read},
    }
    manifest, profile = facts.manifest, facts.manifest["profile"]
    return environment.get_template("report.html").render(
        facts=facts,
        manifest=manifest,
        profile=profile,
        day=day(manifest["started"]),
        verdict=_verdict(facts),
        headlines=_headlines(facts),
        comparison=_comparison(manifest["comparison"]),
        changed=[
            (name, *("not set" if value is None else value for value in both.values()))
            for name, both in manifest["comparison"].get("changed", {}).items()
        ],
        drift=_drift(manifest["comparison"]),
        model_charts=figures.of_models(facts.metrics),
        slice_charts=figures.of_slices(facts.metrics),
        found=_found(facts),
        list_charts=[*figures.of_lists(facts.recommended, facts.metrics), *_calibrated(facts)],
        run_charts=figures.of_runs(facts.history),
        gate=at_the_gate(facts.metrics["gate"]) if facts.metrics.get("gate") else [],
        qualities=_qualities(facts.metrics),
        users=[_person(user) for user in facts.users],
        data_charts=figures.of_data(profile, facts.users_by_activity, facts.ratings_of_movies),
        time_charts=figures.over_time(profile.get("months", [])),
        business=_business(profile),
        flow=_flow(facts),
        checks=_checks(facts),
        settings=[
            (f"{section}.{key}", "not set" if value is None else value)
            for section, values in manifest["settings"].items()
            for key, value in values.items()
        ],
    )


def _verdict(facts: Facts) -> str:
    """The outcome of the run, in a sentence or two."""
    if facts.manifest["status"] != "done":
        return "This run was stopped: everything published before is unchanged."
    ranking = facts.metrics.get("ranking")
    if not ranking:
        return "A look at the data: no model is published yet."
    lead = figures.accuracy_metrics(ranking)[0]
    value, baseline = ranking["implicit"][lead], ranking["popularity"][lead]
    verdict = (
        f"At finding what people like, the recommendations are {figures.times(value, baseline)} as good as a list of "
        "the most popular movies."
    )
    published = facts.metrics.get("rating", {}).get(facts.metrics.get("rating_model"))
    if published:
        verdict += f" Predicted ratings are off by {published['mae']:.2f} on average."
    return verdict


def _found(facts: Facts) -> str:
    """How many recommended movies users liked, in words; empty where an earlier version did not count them."""
    ranking = facts.metrics.get("ranking", {})
    name = next((name for name in ranking.get("implicit", {}) if name.startswith("precision@")), None)
    if name is None:
        return ""
    k = int(name.partition("@")[2])
    is_later = facts.manifest["settings"]["train"]["holdout"] == "time"
    liked = "went on to like" if is_later else "also liked, but which were hidden from the model"
    ours, popular = (ranking[model] for model in ("implicit", "popularity"))
    return (
        f"Of {k} recommended movies, {k * ours[name]:.1f} are ones that their user {liked}; of the {k} most popular "
        f"ones, {k * popular[name]:.1f}. {percent(ours[f'hit_rate@{k}'])} of the users find at least one in their list "
        f"(popular lists: {percent(popular[f'hit_rate@{k}'])}). They may like others too; nobody "
        f"knows, since they have not rated them.{_of_chosen_movies(facts)}"
    )


def _of_chosen_movies(facts: Facts) -> str:
    """That what is published is not what was judged, where settings choose movies."""
    chosen = facts.rows.get("recommendations", {}).get("chosen_movies")
    if chosen is None:
        return ""
    return (
        " Lists from the whole catalogue were judged. The published ones are of "
        f"{plural(chosen, 'chosen movie')} only, so they find less."
    )


def _calibrated(facts: Facts) -> list[figures.Chart]:
    scale = facts.manifest["settings"]["input"]
    return figures.calibrated(facts.metrics, (scale["scale_min"], scale["scale_max"]))


def _headlines(facts: Facts) -> list[tuple[str, str, str]]:
    """The main figures, each as a label, a value and a note."""
    profile, metrics = facts.manifest["profile"], facts.metrics
    is_own = facts.manifest.get("profile_run", facts.manifest["run_id"]) == facts.manifest["run_id"]
    of_before = "" if is_own else EARLIER
    headlines: list[tuple[str, str, str]] = []
    if profile:
        mean = f"{profile['average_rating']:.2f} on average" if profile["ratings"] else ""
        headlines += [
            ("Ratings", number(profile["ratings"]), f"{mean}{of_before}"),
            ("Users", number(profile["users"]), f"{_typical(profile.get('user_activity', {}))}{of_before}"),
            (
                "Movies",
                number(profile["movies"]),
                f"{percent(profile['share_of_movies_rated'])} have a rating{of_before}",
            ),
        ]
    if lists := facts.rows.get("recommendations"):
        note = f"for {plural(lists['users'], 'user')}{'' if facts.lists_are_new else EARLIER}"
        headlines.append(("Recommendations", number(lists["rows"]), note))
    of_model = "" if facts.model_run in ("", facts.manifest["run_id"]) else EARLIER
    if ranking := metrics.get("ranking"):
        lead = figures.accuracy_metrics(ranking)[0]
        headlines.append(
            (
                label_of(lead),
                f"{ranking['implicit'][lead]:.3f}",
                f"popularity {ranking['popularity'][lead]:.3f}{of_model}",
            )
        )
    if rating := metrics.get("rating"):
        published = rating[metrics["rating_model"]]
        headlines.append(
            ("RMSE", f"{published['rmse']:.3f}", f"{MODEL_NAMES['bias']} {rating['bias']['rmse']:.3f}{of_model}")
        )
    return headlines


def _typical(activity: Mapping[str, float]) -> str:
    return f"the median user gave {plural(activity['median'], 'rating')}" if activity else ""


def _comparison(comparison: Mapping[str, Any]) -> list[tuple[str, str, str, tuple[str, str]]]:
    """Rows of the comparison with the run before: label, value before, value now, (better or worse, change).

    Where settings changed on which metrics depend, there is no verdict on metrics.
    """
    is_comparable = not comparison.get("changed")
    rows = []
    for kind in ("volumes", "metrics"):
        for key, both in comparison.get(kind, {}).items():
            before, after = both["before"], both["after"]
            name = VOLUME_NAMES.get(key, key.replace("_", " ")) if kind == "volumes" else label_of(key)
            change = SAME, _change(before, after)
            if kind == "metrics":
                change = _metric_change(key, both) if is_comparable else (SAME, NOT_COMPARABLE)
            rows.append((name, _amount(key, kind, before), _amount(key, kind, after), change))
    return rows


def _metric_change(key: str, both: Mapping[str, Any]) -> tuple[str, str]:
    """The change of a metric, and whether it is better or worse; nothing is claimed that may be chance."""
    which, said = verdict(key, both["after"], both["before"], both.get("interval_after"), both.get("interval_before"))
    return which, said if which == SAME else f"{_change(both['before'], both['after'])}, {which}"


def _amount(key: str, kind: str, value: float) -> str:
    if is_share(key):
        return percent(value)
    return number(value) if kind == "volumes" else figures.decimal(value, 4)


def _change(before: float, after: float) -> str:
    """The change as a percentage of the value before."""
    if before == after:
        return "same"
    if not before:
        return "new"
    change = (after - before) / before
    if abs(change) < MIN_CHANGE:
        return "nearly the same"
    sign = "+" if change > 0 else "\N{MINUS SIGN}"
    return f"{sign}{100 * abs(change):.1f}{THIN}%"


def _drift(comparison: Mapping[str, Any]) -> str:
    """The drift of the rating distribution, in a sentence with the index and its thresholds; empty where unknown."""
    drift = comparison.get("drift", {}).get("rating_distribution")
    if not drift:
        return ""
    return (
        f"{VERDICTS[drift['verdict']]}: population stability index {drift['psi']:.3f} "
        f"(below {STABLE:g} the distribution counts as the same, from {MAJOR:g} as a different one; Siddiqi 2006)."
    )


def is_share(name: str) -> bool:
    """Whether a volume or a metric is a share, which is shown as a percentage."""
    metric = metric_of(name)
    return name in SHARES or (metric is not None and metric.is_share)


def _qualities(metrics: Mapping[str, Any]) -> list[tuple[str, str, list[tuple[str, str]], tuple[str, str]]]:
    """Each ranking metric: label, meaning, (value, interval) for the model and for popularity, and their verdict."""
    ranking = metrics.get("ranking")
    if not ranking:
        return []
    bounds = metrics.get("intervals", {}).get("ranking", {})
    return [
        (
            label_of(name),
            f"{metric.meaning}; {metric.better} is better" if (metric := metric_of(name)) else "",
            [
                (_quality(name, ranking[model].get(name)), _bounds(bounds, model, name))
                for model in ("implicit", "popularity")
            ],
            verdict(
                name,
                ranking["implicit"][name],
                ranking["popularity"][name],
                bounds.get("implicit", {}).get(name),
                bounds.get("popularity", {}).get(name),
                metrics.get("differences", {}).get("ranking", {}).get("implicit", {}).get(name),
            ),
        )
        for name in ranking["implicit"]
        if name in ranking["popularity"] and name != "users"
    ]


def _quality(name: str, value: float | None) -> str:
    return percent(value) if is_share(name) and value is not None else figures.decimal(value, 3)


def _bounds(bounds: Mapping[str, Any], model: str, metric: str) -> str:
    low, high = bounds.get(model, {}).get(metric, (None, None))
    return "" if low is None else f"{_quality(metric, low)} to\N{NO-BREAK SPACE}{_quality(metric, high)}"


def _person(user: Mapping[str, Any]) -> dict[str, Any]:
    """What the card of a user needs: the movies they rated highest, further ones that are reasons, and their list."""
    listed = user["recommendations"][:SHOWN]
    shown_positions = {row["rank"] for row in listed}
    return {
        **user,
        "shown": user["history"][:SHOWN],
        "named": [row for row in user["history"][SHOWN:] if set(row["reason_for"]) & shown_positions],
        "listed": listed,
        "has_ratings": any(row["rating"] is not None for row in user["history"]),
        "has_predictions": any(row["predicted_rating"] is not None for row in user["recommendations"]),
    }


def _business(profile: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The figures of the business, each as a label, a value and its meaning."""
    rows: list[tuple[str, str, str]] = []
    if months := profile.get("months", []):
        last = months[-1]
        latest = charts.month_name(charts.month_number(last["month"]))
        rows += [
            (
                "Active users",
                number(last["active_users"]),
                f"rated anything in {latest}",
            ),
            (
                "New users",
                number(figures.recent_mean(months, "new_users")),
                "per month, in the last year of the data",
            ),
            ("New movies", number(figures.recent_mean(months, "new_movies")), "per month, rated for the first time"),
        ]
    if profile.get("movies"):
        rows.append(("Catalogue rated", percent(profile["share_of_movies_rated"]), "of the movies have a rating"))
    for key, who in (("movie_popularity", "movies"), ("user_activity", "users")):
        if figure := profile.get(key):
            top = (
                f"of ratings on the top 10{THIN}% of {who}"
                if who == "movies"
                else f"of ratings by the top 10{THIN}% of users"
            )
            rows.append(
                (f"Concentration, {who}", percent(figure["top_10_percent"]), f"{top}; Gini {figure['gini']:.2f}")
            )
    return rows


@dataclass(frozen=True)
class Step:
    """A step of the flow: its name, what it does, and what goes in and comes out, as (label, count)."""

    name: str
    does: str
    rows_in: Sequence[tuple[str, str]]
    rows_out: Sequence[tuple[str, str]]


def _flow(facts: Facts) -> list[Step]:
    """The steps that the rows went through, as far as runs counted them."""
    rows, profile = facts.rows, facts.manifest["profile"]
    ratings, movies = rows.get("ratings"), rows.get("movies")
    files = [file for file in facts.manifest["inputs"] if "bytes" in file]
    steps: list[Step] = []
    if ratings:
        tables = {"ratings": ratings, **({"movies": movies} if movies else {})}
        raw = [(name, number(table["in"])) for name, table in tables.items()]
        read = [("files", number(len(files))), ("size", size(sum(file["bytes"] for file in files)))] if files else []
        dropped = sum(table[fate] for table in tables.values() for fate in ("rejected", "superseded"))
        kept = [(name, number(table["good"])) for name, table in tables.items()]
        steps += [
            Step("files", "the raw zone", read, raw),
            Step("etl", "checks every row", raw, [*kept, ("rejected or superseded", number(dropped))]),
        ]
    if profile:
        ratings_in = [("ratings", number(profile["ratings"]))]
        users_and_movies = [("users", number(profile["users"])), ("movies", number(profile["movies"]))]
        steps.append(Step("explore", "computes their features", ratings_in, users_and_movies))
    if parts := rows.get("split"):
        parts_out = [("for training", number(parts["training"])), ("held out", number(parts["holdout"]))]
        steps.append(Step("split", "holds some ratings out", [("ratings", number(sum(parts.values())))], parts_out))
        judged = facts.metrics.get("ranking", {}).get("implicit", {}).get("users")
        steps.append(
            Step("train", "fits and judges the models", parts_out, [("users judged", number(judged))] if judged else [])
        )
    if lists := rows.get("recommendations"):
        served = [("users", number(lists["users"]))]
        steps.append(Step("recommend", "ranks unseen movies", served, [("recommendations", number(lists["rows"]))]))
    return steps


def _checks(facts: Facts) -> list[dict[str, Any]]:
    """For each table that `etl` cleaned: its counts (in = the sum of the parts), and the reasons of rejects."""
    return [
        {
            "table": table,
            **facts.rows[table],
            "reasons": [
                (reason, number(count), percent(count / facts.rows[table]["in"]))
                for reason, count in facts.rejects.get(table, {}).items()
            ],
        }
        for table in ("ratings", "movies")
        if table in facts.rows
    ]
