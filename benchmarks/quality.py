"""Other libraries' models and ours on the same splits of MovieLens, judged by the same code.

`make bench-quality` runs it: MOVIELENS_DIR names a folder with movies.csv and ratings.csv. The holdout of each split is
looked at once, at the end. What is searched for is searched on the first split alone, where a fifth of the training
part is held out for it. A peer has TRIALS trials of Optuna (TPE) for its best options; ours are the defaults of
conf/pipeline.toml, which were searched on such validation parts too, and the weights of our stack are fitted there.

Figures are over all splits: the numbers of a user are added up, and the intervals are a bootstrap over users.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from numpy.typing import NDArray
from pyspark.ml.recommendation import ALSModel
from pyspark.sql import DataFrame, SparkSession
from tqdm import tqdm

from benchmarks.facts import RESULTS, ROOT, machine, table, today, versions
from benchmarks.quality_peers import RANKERS, RATERS, SEED, Floats, Options, Peer, Ratings
from spark_app.cli import run_job
from spark_app.model import metrics
from spark_app.model.bootstrap import Numbers, ratio_intervals, ratios
from spark_app.model.lists import lists_to_judge
from spark_app.model.metrics import LIST_NUMBERS, OVER_USERS, RATIOS, Lists, MovieFacts, gini
from spark_app.model.split import split, validation_split
from spark_app.model.stack import RATING_MODELS, StackWeights, fit_stack, with_both_predictions, with_predicted_ratings
from spark_app.platform.generations import to_arrow
from spark_app.platform.log import logger
from spark_app.platform.settings import Settings, Train
from spark_app.platform.zones import ProcessedZone
from spark_app.stages.models import Models
from spark_app.stages.train import fit_models

TRIALS = 40
SEEDS = (42, 1, 2)
OURS = "movie-reco"
BLOCK = 512
"""Users whose lists are picked at a time."""


@dataclass(frozen=True)
class Part:
    """What is learned from and what is judged on; `ids` are those of users and movies, in order."""

    known: Ratings
    judged: Ratings
    user_ids: NDArray[np.int64]
    facts: MovieFacts
    relevant: float
    k: int

    @property
    def likers(self) -> NDArray[np.int64]:
        """Users who have something relevant to them to be found."""
        return np.unique(self.judged.users[self.judged.stars >= self.relevant])

    @property
    def wanted(self) -> Lists:
        """What is relevant to each of `likers`, as movieId."""
        chosen = self.judged.stars >= self.relevant
        order = np.lexsort((self.judged.movies[chosen], self.judged.users[chosen]))
        users, movies = self.judged.users[chosen][order], self.judged.movies[chosen][order]
        return Lists.of(np.bincount(users)[self.likers], self.facts.movie_ids[movies])


def part_of(known: DataFrame, judged: DataFrame, movies: DataFrame, settings: Settings) -> Part:
    """A split as arrays, from frames(userId, movieId, rating)."""
    ordered = [frame.orderBy("userId", "movieId") for frame in (known, judged)]
    one, other = (to_arrow(frame.select("userId", "movieId", "rating")).to_pandas() for frame in ordered)
    users = np.union1d(one.userId, other.userId).astype(np.int64)
    counts = known.groupBy("movieId").count().withColumnRenamed("count", "rating_count")
    facts = metrics.movie_facts(movies, counts, one.userId.nunique())
    shape = (len(users), len(facts.movie_ids))

    def as_places(frame: Any) -> Ratings:
        places = np.searchsorted(users, frame.userId), np.searchsorted(facts.movie_ids, frame.movieId)
        return Ratings(*places, frame.rating.to_numpy().astype(np.float64), shape)

    return Part(as_places(one), as_places(other), users, facts, settings.train.relevant, settings.train.k)


def best_unseen(scores: Floats, part: Part) -> Lists:
    """The top k of each of the part's likers, as movieId, ties by it; those without ratings get popular movies."""
    cold = np.bincount(part.known.users, minlength=len(part.user_ids)) == 0
    seen = part.known.matrix(np.ones(len(part.known.users)))
    chosen = []
    for first in range(0, len(part.likers), BLOCK):
        users = part.likers[first : first + BLOCK]
        block = scores[users].copy()
        block[cold[users]] = part.facts.popularity
        block[seen[users].nonzero()] = -np.inf
        chosen.append(np.argsort(-block, axis=1, kind="stable")[:, : part.k])
    places = np.vstack(chosen)
    return Lists.of(np.full(len(places), places.shape[1]), part.facts.movie_ids[places.ravel()])


def judge_scores(scores: Floats, part: Part) -> tuple[Numbers, NDArray[np.int64]]:
    """LIST_NUMBERS of the part's likers, and how often each movie is listed."""
    listed = best_unseen(scores, part)
    history = np.bincount(part.known.users, part.facts.popularity[part.known.movies], len(part.user_ids))
    count = np.bincount(part.known.users, minlength=len(part.user_ids))
    mean = (history / np.maximum(count, 1))[part.likers]
    exposure = np.bincount(np.searchsorted(part.facts.movie_ids, listed.movies), minlength=len(part.facts.movie_ids))
    return metrics.list_numbers(listed, part.wanted, mean, part.facts, part.k), exposure


def search(peer: Peer, objective: Callable[[Options], float], direction: Literal["minimize", "maximize"]) -> Options:
    """The best options of TRIALS trials, or of the only one where there is nothing to search."""
    study = optuna.create_study(direction=direction, sampler=optuna.samplers.TPESampler(seed=SEED))
    for _ in tqdm(range(TRIALS), desc=f"searching {peer.name}", file=sys.stderr):
        trial = study.ask()
        options = peer.search(trial)
        trial.set_user_attr("options", options)
        study.tell(trial, objective(options))
        if not trial.params:
            break
    return dict(study.best_trial.user_attrs["options"])


@dataclass(frozen=True)
class Judged:
    """One system on all splits: sums a user of what figures are made of, exposures, and the options it ran with."""

    options: Options
    users: list[NDArray[np.int64]]
    numbers: list[Numbers]
    exposures: list[NDArray[np.int64]]


def judge_ranker(peer: Peer, parts: Sequence[Part], validation: Part) -> Judged:
    """Search on the validation part, then fit and judge on each split."""

    def objective(options: Options) -> float:
        numbers, _ = judge_scores(peer.fit(validation.known, **options), validation)
        return float(numbers[:, LIST_NUMBERS.index("ndcg")].mean())

    options = search(peer, objective, "maximize")
    found = [judge_scores(peer.fit(part.known, **options), part) for part in parts]
    users = [part.user_ids[part.likers] for part in parts]
    return Judged(options, users, [numbers for numbers, _ in found], [exposure for _, exposure in found])


def judge_rater(peer: Peer, parts: Sequence[Part], validation: Part) -> Judged:
    """The same of a rater: squared and absolute errors."""

    def objective(options: Options) -> float:
        errors = peer.fit(validation.known, validation.judged, **options) - validation.judged.stars
        return float(np.mean(errors**2))

    options = search(peer, objective, "minimize")
    errors = [peer.fit(part.known, part.judged, **options) - part.judged.stars for part in parts]
    numbers = [np.column_stack([error**2, np.abs(error), np.ones_like(error)]) for error in errors]
    return Judged(options, [part.user_ids[part.judged.users] for part in parts], numbers, [])


def by_user(judged: Judged, everybody: NDArray[np.int64]) -> Numbers:
    """The numbers of each user of `everybody`, added up over splits and ratings; the last column counts the rows."""
    users = np.searchsorted(everybody, np.concatenate(judged.users))
    numbers = np.vstack(judged.numbers)
    numbers = np.column_stack([numbers, np.ones(len(numbers))])
    return np.column_stack([np.bincount(users, column, len(everybody)) for column in numbers.T])


def ranking_pairs(sums: Numbers) -> dict[str, tuple[Numbers, Numbers]]:
    """What is divided by what, by figure."""
    column = dict(zip((*LIST_NUMBERS, "rows"), sums.T, strict=True))
    over_users = {name: (column[name], column["rows"]) for name in OVER_USERS}
    return over_users | {name: (column[up], column[down]) for name, (up, down) in RATIOS.items()}


def rating_pairs(sums: Numbers) -> dict[str, tuple[Numbers, Numbers]]:
    """The same of ratings; `mse` becomes RMSE at the end."""
    return {"mse": (sums[:, 0], sums[:, 2]), "mae": (sums[:, 1], sums[:, 2])}


def figures(systems: Mapping[str, Judged], pairs_of: Callable[[Numbers], Any], key: str) -> dict[str, dict[str, Any]]:
    """Figures and intervals of each system; `ahead` is how far ours is above it in `key`, with its interval."""
    everybody = np.unique(np.concatenate([users for judged in systems.values() for users in judged.users]))
    sums = {name: pairs_of(by_user(judged, everybody)) for name, judged in systems.items()}
    ours, count = sums[OURS][key]
    found: dict[str, dict[str, Any]] = {}
    for name, pairs in sums.items():
        columns = {**pairs, "ahead": (ours - pairs[key][0], count)}
        up, down = (np.column_stack([pair[side] for pair in columns.values()]) for side in (0, 1))
        values, bounds = ratios(up, down), ratio_intervals(up, down, SEED)
        found[name] = {
            metric: {"value": float(value), "interval": bound.tolist()}
            for metric, value, bound in zip(columns, values, bounds, strict=True)
        }
        if "mse" in found[name]:
            mse = found[name].pop("mse")
            found[name] = {"rmse": {k: np.sqrt(v).tolist() for k, v in mse.items()}, **found[name]}
        if exposures := systems[name].exposures:
            found[name]["coverage"] = {"value": float(np.mean([np.mean(exposure > 0) for exposure in exposures]))}
            found[name]["gini"] = {"value": float(np.mean([gini(exposure) for exposure in exposures]))}
        found[name]["options"] = systems[name].options
    return found


def fit_ours(known: DataFrame, settings: Settings) -> Models:
    """Our models, by the code of `train`."""
    return fit_models(known, known.count(), settings)


def stack_weights(models: Models, judged: DataFrame, settings: Settings) -> StackWeights:
    """The weights of the stack that fit the judged ratings best."""
    both = with_both_predictions(judged, models.biases, explicit_of(models)).persist()
    return fit_stack(both, settings.input.scale)[0]


def explicit_of(models: Models) -> ALSModel:
    """The explicit model, which there is wherever there are ratings and not counts."""
    if models.explicit is None:
        raise ValueError("these models were fitted to counts: there are no rating errors to compare")
    return models.explicit


def judge_our_lists(
    spark: SparkSession,
    models: Models,
    known: DataFrame,
    judged: DataFrame,
    movies: DataFrame,
    part: Part,
    settings: Settings,
) -> tuple[Numbers, NDArray[np.int64]]:
    """LIST_NUMBERS of the part's likers, and exposures, of the lists that Spark makes."""
    relevant = metrics.relevant_movies(judged, part.relevant)
    factors = models.implicit.userFactors.withColumnRenamed("id", "userId")
    users = relevant.select("userId").join(factors, on="userId", how="left")
    block = settings.recommend.block_users
    lists = lists_to_judge(spark, users, known, models.catalogue(movies), part.k, block).drop("popularity")
    found = metrics.collect_judged(
        metrics.judge_lists(lists, ["als"], relevant, part.facts, part.k), ["als"], part.facts
    )
    return found.numbers["als"], found.exposure["als"]


def our_errors(models: Models, weights: StackWeights, judged: DataFrame, settings: Settings) -> dict[str, Numbers]:
    """Squared and absolute error and 1 of each judged rating, by rating model, ordered by user and movie."""
    rated = with_predicted_ratings(judged, models.biases, explicit_of(models), weights, settings.input.scale)
    table = to_arrow(rated.orderBy("userId", "movieId")).to_pandas()
    errors = {model: (table[model] - table.rating).to_numpy() for model in RATING_MODELS}
    return {model: np.column_stack([error**2, np.abs(error), np.ones_like(error)]) for model, error in errors.items()}


@dataclass(frozen=True)
class Split:
    """One split, as frames and as arrays."""

    known: DataFrame
    judged: DataFrame
    part: Part


def make_split(known: DataFrame, judged: DataFrame, movies: DataFrame, settings: Settings) -> Split:
    """A split from what is known and what is judged."""
    known, judged = known.drop("timestamp").persist(), judged.drop("timestamp").persist()
    return Split(known, judged, part_of(known, judged, movies, settings))


def compare(
    spark: SparkSession, ratings: DataFrame, movies: DataFrame, trains: Sequence[Train], settings: Settings
) -> dict[str, dict[str, Any]]:
    """The figures of all systems over the splits that `trains` describe; what is searched is searched on the first."""
    parts = [split(ratings, train) for train in trains]
    validation = make_split(*validation_split(parts[0][0], trains[0]), movies, settings)
    splits = [make_split(*part, movies, settings) for part in parts]
    arrays = [each.part for each in splits]

    weights = stack_weights(fit_ours(validation.known, settings), validation.judged, settings)
    models = [fit_ours(each.known, settings) for each in tqdm(splits, desc=f"fitting {OURS}", file=sys.stderr)]
    lists = [
        judge_our_lists(spark, fitted, each.known, each.judged, movies, each.part, settings)
        for fitted, each in zip(models, splits, strict=True)
    ]
    errors = [our_errors(fitted, weights, each.judged, settings) for fitted, each in zip(models, splits, strict=True)]

    rankers = {peer.name: judge_ranker(peer, arrays, validation.part) for peer in RANKERS}
    raters = {peer.name: judge_rater(peer, arrays, validation.part) for peer in RATERS}
    likers = [part.user_ids[part.likers] for part in arrays]
    rated = [part.user_ids[part.judged.users] for part in arrays]
    rankers[OURS] = Judged(
        settings.implicit_als.model_dump(), likers, [numbers for numbers, _ in lists], [shown for _, shown in lists]
    )
    names = {"bias": "biases only", "als": "ALS (MLlib)", "stacked": OURS}
    options = {"bias": settings.biases.model_dump(), "als": settings.explicit_als.model_dump()}
    options["stacked"] = {**options["bias"], **options["als"], **asdict(weights)}
    for model in ("bias", "als", "stacked"):
        raters[names[model]] = Judged(options[model], rated, [error[model] for error in errors], [])
    return {
        "ranking": figures(rankers, ranking_pairs, "ndcg"),
        "rating": figures(raters, rating_pairs, "mse"),
    }


def as_markdown(found: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Any]) -> str:
    """The results as tables, the best first."""
    k = facts["k"]
    lines = [
        "# Quality beside other libraries",
        "",
        f"`make bench-quality`, {facts['date']}, {facts['machine']}. A fifth of the {facts['ratings']:,} ratings "
        f"of {facts['data']} is held out, by a hash of the keys or by time.",
        "",
        f"Each peer has the best of {TRIALS} trials on a validation part of the first split's training ratings; "
        "ours are the defaults, searched on such parts of all splits. In brackets: 95 % intervals, bootstrap over "
        f"users. `ahead`: how far {OURS} is ahead, on the same users; of ratings the difference of squared errors, so "
        "below 0 is better.",
    ]
    for title, tables in found.items():
        for heading, name, columns, key, sign in (
            ("ranking", "ranking", ("ndcg", "recall", "map", "ahead"), "ndcg", -1),
            ("lists", "ranking", ("coverage", "gini", "novelty", "diversity", "popularity_lift"), "ndcg", -1),
            ("rating", "rating", ("rmse", "mae", "ahead"), "rmse", 1),
        ):
            if name not in tables:
                continue
            heads = [f"{column}@{k}" if column in OVER_USERS else column.replace("_", " ") for column in columns]
            ordered = sorted(tables[name].items(), key=lambda row: sign * row[1][key]["value"])
            rows = [
                [f"**{system}**" if system == OURS else system, *(_cell(values.get(c), system, c) for c in columns)]
                for system, values in ordered
            ]
            lines += ["", f"## {title}: {heading}", "", *table(["", *heads], rows)]
    options = [
        f"- {title}, {name}, {system}: "
        + ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values["options"].items())
        for title, tables in found.items()
        for name, systems in tables.items()
        for system, values in systems.items()
        if values["options"]
    ]
    used = ", ".join(f"{package} {version}" for package, version in facts["versions"].items())
    return "\n".join([*lines, "", "## Options found", "", *options, "", f"Versions: {used}", ""])


def _cell(figure: Mapping[str, Any] | None, system: str, column: str) -> str:
    if figure is None or (column == "ahead" and system == OURS):
        return ""
    sign = "+" if column == "ahead" else ""
    low, high = figure.get("interval", (None, None))
    return f"{figure['value']:{sign}.4f}" + (f" ({low:{sign}.3f} to {high:{sign}.3f})" if low is not None else "")


def main() -> int:
    """Clean the data by the stage `etl`, compare, and write `results/quality.md` and `.json`."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    source = Path(os.environ.get("MOVIELENS_DIR") or ROOT.parent / "shared" / "data" / "ml-latest-small")
    spark = SparkSession.builder.appName("bench-quality").getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    with tempfile.TemporaryDirectory() as folder:
        spark.sparkContext.setCheckpointDir(f"{folder}/checkpoints")
        if code := run_job("etl", ["--raw-path", str(source), "--processed-path", f"{folder}/processed"]):
            return code
        zone, settings = ProcessedZone(f"{folder}/processed"), Settings()
        ratings, movies = zone.read(spark, "ratings").persist(), zone.read(spark, "movies").persist()
        hashed = [settings.train.model_copy(update={"seed": seed}) for seed in SEEDS]
        by_time = [settings.train.model_copy(update={"holdout": "time"})]
        found = {
            f"hash, {len(SEEDS)} splits": compare(spark, ratings, movies, hashed, settings),
            "time, 1 split": compare(spark, ratings, movies, by_time, settings),
        }
        count = ratings.count()
    packages = ("pyspark", "numpy", "optuna", "implicit", "scikit-surprise", "cmfrec")
    facts = {
        "date": today(),
        "machine": machine(),
        "data": source.name,
        "ratings": count,
        "k": settings.train.k,
        "seeds": SEEDS,
        "trials": TRIALS,
        "versions": versions(packages),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "quality.md").write_text(as_markdown(found, facts), encoding="utf-8")
    (RESULTS / "quality.json").write_text(json.dumps({**facts, "results": found}, indent=1) + "\n", encoding="utf-8")
    logger.info("wrote %s", RESULTS / "quality.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
