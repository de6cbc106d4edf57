"""Compares the models of other libraries with ours on the same splits of MovieLens, judged by the same code.

`make bench-quality` runs it on each set of PLANS that lies beside the checkout, or on the one folder with movies.csv
and ratings.csv that MOVIELENS_DIR names. The holdout of each split is used once, at the end. Options are searched on
the first split alone: a fifth of its training part is held out as the validation part. Each peer has the number of
Optuna trials (TPE) that the plan of the set gives. Ours are the defaults of conf/pipeline.toml, which were searched on
such validation parts too; the weights of our stack are fitted on the validation part.

Figures are over all splits: the numbers of each user are added up over splits, and the intervals come from a bootstrap
over users.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray
from pyspark.ml.recommendation import ALS
from pyspark.sql import DataFrame, SparkSession
from tqdm import tqdm

from benchmarks.facts import RESULTS, ROOT, machine, table, today, versions
from benchmarks.quality_peers import RANKERS, RATERS, SEED, Floats, Options, Peer, Ratings
from spark_app.cli import run_job
from spark_app.model import evaluation, metrics, mllib
from spark_app.model.bootstrap import Numbers, ratio_intervals, ratios
from spark_app.model.factors import Factors
from spark_app.model.fits import Models, fit_models
from spark_app.model.lists import lists_to_judge
from spark_app.model.metrics import BY_NAME, LIST_NUMBERS, OF_LISTS, Lists, MovieFacts, gini, label_of
from spark_app.model.split import split, validation_split
from spark_app.model.stack import RATING_MODELS, StackWeights, fit_stack, with_both_predictions, with_predicted_ratings
from spark_app.platform.log import logger, set_up
from spark_app.platform.settings import Log, Settings, Train
from spark_app.platform.spark_versions import to_arrow
from spark_app.zones.processed import ProcessedZone

OURS = "movie-reco"
MLLIB: Options = {"rank": 32, "reg": 0.1, "iterations": 10}
"""Options of MLlib's explicit ALS; its rank and regularisation were searched on ml-latest-small."""

MLLIB_BLOCKS = 4

BLOCK = 512
"""The number of users whose lists are picked at a time."""

DATA = ROOT.parent / "shared" / "data"


@dataclass(frozen=True)
class Plan:
    """How thoroughly a set is judged."""

    seeds: tuple[int, ...] = (42, 1, 2)
    """Seeds of the hash splits, at least two."""

    by_time: bool = True
    """Whether the set is also split by time; False where timestamps of different users cannot be compared."""

    trials: int = 40
    """Trials of each peer. On ml-1m a trial takes 1 to 4 seconds, or up to 11 for Surprise's SVD."""


PLANS = {"ml-latest-small": Plan(), "ml-1m": Plan(seeds=(42, 1), by_time=False)}
"""The sets that are judged by default, by the names of their folders. Any other set has `Plan()`."""


@dataclass(frozen=True)
class Part:
    """One split as arrays: `known` ratings to learn from, and `judged` ratings to measure on.

    Users are places in `user_ids`, movies are places in `facts.movie_ids`; both are sorted. Lists have k movies.
    """

    known: Ratings
    judged: Ratings
    user_ids: NDArray[np.int64]
    facts: MovieFacts
    k: int

    @property
    def relevant(self) -> float:
        """Ratings of this many stars or more are relevant."""
        return self.judged.relevant

    @property
    def likers(self) -> NDArray[np.int64]:
        """The places of the users with a relevant movie among the judged ratings."""
        return np.unique(self.judged.users[self.judged.stars >= self.relevant])

    @property
    def wanted(self) -> Lists:
        """The relevant movies of each of `likers`, as movieId."""
        chosen = self.judged.stars >= self.relevant
        order = np.lexsort((self.judged.movies[chosen], self.judged.users[chosen]))
        users, movies = self.judged.users[chosen][order], self.judged.movies[chosen][order]
        return Lists.of(np.bincount(users)[self.likers], self.facts.movie_ids[movies])


def part_of(known: DataFrame, judged: DataFrame, movies: DataFrame, settings: Settings) -> Part:
    """A split as arrays, from frames(userId, movieId, rating) and movies(movieId, genres)."""
    ordered = [frame.orderBy("userId", "movieId") for frame in (known, judged)]
    known_rows, judged_rows = (to_arrow(frame.select("userId", "movieId", "rating")).to_pandas() for frame in ordered)
    users = np.union1d(known_rows.userId, judged_rows.userId).astype(np.int64)
    counts = known.groupBy("movieId").count().withColumnRenamed("count", "rating_count")
    facts = evaluation.movie_facts(movies, counts, known_rows.userId.nunique())
    shape = (len(users), len(facts.movie_ids))

    def as_places(frame: Any) -> Ratings:
        places = np.searchsorted(users, frame.userId), np.searchsorted(facts.movie_ids, frame.movieId)
        return Ratings(*places, frame.rating.to_numpy().astype(np.float64), shape, settings.train.relevant)

    return Part(as_places(known_rows), as_places(judged_rows), users, facts, settings.train.k)


def best_places(scores: Floats, k: int) -> NDArray[np.int64]:
    """The places of the k highest scores of each row, the best first, ties by place; NaN counts as the lowest.

    The result equals the beginning of a stable sort of each row. Only scores as good as the k-th best are sorted.
    """
    costs, k = -scores, min(k, scores.shape[1])
    limits = np.partition(costs, k - 1, axis=1)[:, [k - 1]]
    rows, places = np.nonzero(~(costs > limits))
    order = np.lexsort((costs[rows, places], rows))
    firsts = np.searchsorted(rows, np.arange(len(costs)))
    return np.asarray(places[order][firsts[:, None] + np.arange(k)])


def best_unseen(scores: Floats, part: Part) -> Lists:
    """The top k unseen movies of each of the part's likers, as movieId, ties by movieId.

    Users without ratings get the most popular movies.
    """
    cold = np.bincount(part.known.users, minlength=len(part.user_ids)) == 0
    seen = part.known.matrix(np.ones(len(part.known.users)))
    chosen = []
    for first in range(0, len(part.likers), BLOCK):
        users = part.likers[first : first + BLOCK]
        block = scores[users]
        block[cold[users]] = part.facts.popularity
        block[seen[users].nonzero()] = -np.inf
        chosen.append(best_places(block, part.k))
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


def search(
    peer: Peer, trials: int, objective: Callable[[Options], float], direction: Literal["minimize", "maximize"]
) -> Options:
    """The best options of `trials` trials; one trial is enough for a peer without options to search.

    `objective` gives the value of some options, and `direction` says which values are better.
    """
    study = optuna.create_study(direction=direction, sampler=optuna.samplers.TPESampler(seed=SEED))
    for _ in tqdm(range(trials), desc=f"searching {peer.name}", file=sys.stderr):
        trial = study.ask()
        options = peer.search(trial)
        trial.set_user_attr("options", options)
        study.tell(trial, objective(options))
        if not trial.params:
            break
    return dict(study.best_trial.user_attrs["options"])


@dataclass(frozen=True)
class Judged:
    """The results of one system: per split the users, their numbers and the exposures; and the options it ran with.

    A row of `numbers` belongs to the entry of `users` at the same place. Exposures count the lists of each movie.
    """

    options: Options
    users: list[NDArray[np.int64]]
    numbers: list[Numbers]
    exposures: list[NDArray[np.int64]]


def judge_ranker(peer: Peer, trials: int, parts: Sequence[Part], validation: Part) -> Judged:
    """Search a ranker's options on the validation part, then fit and judge it on each split."""

    def objective(options: Options) -> float:
        numbers, _ = judge_scores(peer.fit(validation.known, **options), validation)
        return float(numbers[:, LIST_NUMBERS.index("ndcg")].mean())

    options = search(peer, trials, objective, "maximize")
    results = [judge_scores(peer.fit(part.known, **options), part) for part in parts]
    users = [part.user_ids[part.likers] for part in parts]
    return Judged(options, users, [numbers for numbers, _ in results], [exposure for _, exposure in results])


def judge_rater(peer: Peer, trials: int, parts: Sequence[Part], validation: Part) -> Judged:
    """Search a rater's options, then fit and judge it on each split.

    Its numbers are the squared error, the absolute error and 1.
    """

    def objective(options: Options) -> float:
        errors = peer.fit(validation.known, validation.judged, **options) - validation.judged.stars
        return float(np.mean(errors**2))

    options = search(peer, trials, objective, "minimize")
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
    """The numerators and denominators of each ranking metric, from the output of `by_user`."""
    column = dict(zip((*LIST_NUMBERS, "rows"), sums.T, strict=True))
    return {metric.name: (column[metric.name], column[f"{metric.name}_of"]) for metric in OF_LISTS}


def rating_pairs(sums: Numbers) -> dict[str, tuple[Numbers, Numbers]]:
    """The numerators and denominators of each rating metric; `figures` turns `mse` into RMSE."""
    return {"mse": (sums[:, 0], sums[:, 2]), "mae": (sums[:, 1], sums[:, 2])}


def figures(systems: Mapping[str, Judged], pairs_of: Callable[[Numbers], Any], key: str) -> dict[str, dict[str, Any]]:
    """Figures and intervals of each system, by name.

    `pairs_of` is `ranking_pairs` or `rating_pairs`. `ahead` is the value of ours in the metric `key` less that of the
    system, with its interval.
    """
    everybody = np.unique(np.concatenate([users for judged in systems.values() for users in judged.users]))
    sums = {name: pairs_of(by_user(judged, everybody)) for name, judged in systems.items()}
    ours, count = sums[OURS][key]
    results: dict[str, dict[str, Any]] = {}
    for name, pairs in sums.items():
        columns = {**pairs, "ahead": (ours - pairs[key][0], count)}
        up, down = (np.column_stack([pair[side] for pair in columns.values()]) for side in (0, 1))
        values, bounds = ratios(up, down), ratio_intervals(up, down, SEED)
        results[name] = {
            metric: {"value": float(value), "interval": bound.tolist()}
            for metric, value, bound in zip(columns, values, bounds, strict=True)
        }
        if "mse" in results[name]:
            mse = results[name].pop("mse")
            results[name] = {"rmse": {k: np.sqrt(v).tolist() for k, v in mse.items()}, **results[name]}
        if exposures := systems[name].exposures:
            results[name]["coverage"] = {"value": float(np.mean([np.mean(exposure > 0) for exposure in exposures]))}
            results[name]["gini"] = {"value": float(np.mean([gini(exposure) for exposure in exposures]))}
        results[name]["options"] = systems[name].options
    return results


def fit_ours(known: DataFrame, settings: Settings) -> Models:
    """Our models, fitted by the code of `train`."""
    return fit_models(known, settings)


def fit_mllib(known: DataFrame) -> Factors:
    """The factors of MLlib's explicit ALS with MLLIB's options; pairs that it cannot predict are left to the biases."""
    options = {"rank": MLLIB["rank"], "regParam": MLLIB["reg"], "maxIter": MLLIB["iterations"]}
    als = ALS(userCol="userId", itemCol="movieId", seed=SEED, checkpointInterval=-1, **options)
    return mllib.factors_of(als.fit(mllib.in_stable_order(known, MLLIB_BLOCKS)))


def stack_weights(models: Models, judged: DataFrame, settings: Settings) -> StackWeights:
    """The weights of the stack that fit the judged ratings best."""
    both = with_both_predictions(judged, models.biases, explicit_of(models)).persist()
    return fit_stack(both, settings.input.scale)[0]


def explicit_of(models: Models) -> Factors:
    """The factors of explicit ALS. Raises ValueError where the models were fitted to counts."""
    if models.explicit is None:
        raise ValueError("these models were fitted to counts, which have no rating errors: judge a set of ratings")
    return models.explicit


def judge_our_lists(
    spark: SparkSession,
    models: Models,
    known: DataFrame,
    judged: DataFrame,
    part: Part,
    settings: Settings,
) -> tuple[Numbers, NDArray[np.int64]]:
    """LIST_NUMBERS of the part's likers, and how often each movie is listed, for the lists that Spark makes."""
    relevant = evaluation.relevant_movies(judged, part.relevant)
    factors = models.implicit.users.withColumnRenamed("id", "userId")
    users = relevant.select("userId").join(factors, on="userId", how="left")
    block = settings.recommend.block_users
    lists = lists_to_judge(
        spark, users, known, models.candidates(part.facts.movie_ids, settings.recommend.catalogue_bytes), part.k, block
    ).drop("popularity")
    results = evaluation.collect_judged(
        evaluation.judge_lists(lists, ["implicit"], relevant, part.facts, part.k), ["implicit"], part.facts
    )
    return results.numbers["implicit"], results.exposure["implicit"]


def our_errors(models: Models, weights: StackWeights, judged: DataFrame, settings: Settings) -> dict[str, Numbers]:
    """By rating model, one row per judged rating: squared error, absolute error, 1; ordered by user and movie."""
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
    """A split from its known and its judged ratings."""
    known, judged = known.drop("timestamp").persist(), judged.drop("timestamp").persist()
    return Split(known, judged, part_of(known, judged, movies, settings))


def compare(
    spark: SparkSession, ratings: DataFrame, movies: DataFrame, trains: Sequence[Train], settings: Settings, trials: int
) -> dict[str, dict[str, Any]]:
    """The figures of all systems over the splits that `trains` describe.

    Each peer has `trials` trials, on the first split.
    """
    parts = [split(ratings, train) for train in trains]
    validation = make_split(*validation_split(parts[0][0], trains[0]), movies, settings)
    splits = [make_split(*part, movies, settings) for part in parts]
    arrays = [each.part for each in splits]

    weights = stack_weights(fit_ours(validation.known, settings), validation.judged, settings)
    models = [fit_ours(each.known, settings) for each in tqdm(splits, desc=f"fitting {OURS}", file=sys.stderr)]
    lists = [
        judge_our_lists(spark, fitted, each.known, each.judged, each.part, settings)
        for fitted, each in zip(models, splits, strict=True)
    ]
    errors = [our_errors(fitted, weights, each.judged, settings) for fitted, each in zip(models, splits, strict=True)]
    by_mllib = [replace(fitted, explicit=fit_mllib(each.known)) for fitted, each in zip(models, splits, strict=True)]
    mllib_errors = [
        our_errors(fitted, weights, each.judged, settings)["explicit"]
        for fitted, each in zip(by_mllib, splits, strict=True)
    ]

    rankers = {peer.name: judge_ranker(peer, trials, arrays, validation.part) for peer in RANKERS}
    raters = {peer.name: judge_rater(peer, trials, arrays, validation.part) for peer in RATERS}
    likers = [part.user_ids[part.likers] for part in arrays]
    rated = [part.user_ids[part.judged.users] for part in arrays]
    rankers[OURS] = Judged(
        settings.implicit_als.model_dump(), likers, [numbers for numbers, _ in lists], [shown for _, shown in lists]
    )
    names = {"bias": "biases only", "explicit": f"{OURS}, not stacked", "stacked": OURS}
    options = {"bias": settings.biases.model_dump(), "explicit": settings.explicit_als.model_dump()}
    options["stacked"] = {**options["bias"], **options["explicit"], **asdict(weights)}
    for model in ("bias", "explicit", "stacked"):
        raters[names[model]] = Judged(options[model], rated, [error[model] for error in errors], [])
    raters["ALS (MLlib)"] = Judged(MLLIB, rated, mllib_errors, [])
    return {
        "ranking": figures(rankers, ranking_pairs, "ndcg"),
        "rating": figures(raters, rating_pairs, "mse"),
    }


def as_markdown(sets: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Any]) -> str:
    """The results as Markdown: a section for each set, with tables that have the best system first."""
    lines = [
        "# Quality beside other libraries",
        "",
        f"`make bench-quality`, {facts['date']}, {facts['machine']}. Ours are the defaults, searched on validation "
        "parts of the training ratings. In brackets: 95 % intervals, bootstrap over users. `ahead`: the NDCG of "
        f"{OURS} less that of the peer, on the same users. For ratings it is the squared error of {OURS} less that of "
        f"the peer, so {OURS} is better where it is below 0.",
    ]
    for name, judged in sets.items():
        lines += ["", f"## {name}", "", _how(judged), *_tables(judged["results"], facts["k"])]
        lines += ["", "### Options found", "", *_options(judged["results"])]
    used = ", ".join(f"{package} {version}" for package, version in facts["versions"].items())
    return "\n".join([*lines, "", f"Versions: {used}", ""])


def _how(judged: Mapping[str, Any]) -> str:
    """What the set is, and how it was judged, in a few sentences."""
    scale = judged["scale"]
    return (
        f"{judged['ratings']:,} ratings from {scale['scale_min']:g} to {scale['scale_max']:g} by "
        f"{scale['scale_step']:g}; {judged['relevant']:g} or more is relevant. Each split holds out a fifth. "
        f"Each peer has the best options of {judged['plan']['trials']} trials on a validation part "
        "of the first split's training ratings."
    )


def _tables(results: Mapping[str, Mapping[str, Any]], k: int) -> list[str]:
    lines = []
    for title, tables in results.items():
        for heading, name, columns, key, sign in (
            ("ranking", "ranking", ("ndcg", "recall", "map", "ahead"), "ndcg", -1),
            ("lists", "ranking", ("coverage", "gini", "novelty", "diversity", "popularity_lift"), "ndcg", -1),
            ("rating", "rating", ("rmse", "mae", "ahead"), "rmse", 1),
        ):
            if name not in tables:
                continue
            heads = [_heading(column, k) for column in columns]
            ordered = sorted(tables[name].items(), key=lambda row: sign * row[1][key]["value"])
            rows = [
                [f"**{system}**" if system == OURS else system, *(_cell(values.get(c), system, c) for c in columns)]
                for system, values in ordered
            ]
            lines += ["", f"### {title}: {heading}", "", *table(["", *heads], rows)]
    return lines


def _heading(column: str, k: int) -> str:
    """The label of a metric; any other column has its own name as its label."""
    return label_of(BY_NAME[column].key(k)) if column in BY_NAME else column


def _options(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        f"- {title}, {name}, {system}: "
        + ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values["options"].items())
        for title, tables in results.items()
        for name, systems in tables.items()
        for system, values in systems.items()
        if values["options"]
    ]


def _cell(figure: Mapping[str, Any] | None, system: str, column: str) -> str:
    if figure is None or (column == "ahead" and system == OURS):
        return ""
    sign = "+" if column == "ahead" else ""
    low, high = figure.get("interval", (None, None))
    return f"{figure['value']:{sign}.4f}" + (f" ({low:{sign}.3f} to {high:{sign}.3f})" if low is not None else "")


def sources() -> list[Path]:
    """The folders to judge that have a ratings.csv: the one that MOVIELENS_DIR names, else those of PLANS in DATA."""
    named = os.environ.get("MOVIELENS_DIR")
    folders = [Path(named).absolute()] if named else [DATA / name for name in PLANS]
    return [folder for folder in folders if (folder / "ratings.csv").is_file()]


def scale_of(stars: NDArray[np.float64]) -> dict[str, float]:
    """The scale of the ratings, as settings of `input`: the lowest, the highest, the smallest step between two."""
    values = np.unique(stars[~np.isnan(stars)])
    return {"scale_min": float(values[0]), "scale_max": float(values[-1]), "scale_step": float(np.diff(values).min())}


def judge_set(spark: SparkSession, source: Path, processed: str, plan: Plan) -> dict[str, Any]:
    """Clean a set with the stage `etl`, and compare all systems on it.

    Returns what the set is, how it was judged, and the figures. Exits with the code of `etl` where that fails.
    """
    stars = pd.read_csv(source / "ratings.csv", usecols=["rating"])["rating"]
    scale = scale_of(stars.to_numpy(np.float64))
    options = [f"--set=input.{key}={value}" for key, value in scale.items()]
    if code := run_job("etl", ["--raw-path", str(source), "--processed-path", processed, *options]):
        sys.exit(code)
    zone, settings = ProcessedZone(processed), Settings.model_validate({"input": scale})
    ratings, movies = zone.read(spark, "ratings").persist(), zone.read(spark, "movies").persist()
    hashed = [settings.train.model_copy(update={"seed": seed}) for seed in plan.seeds]
    by_time = [settings.train.model_copy(update={"holdout": "time"})]
    results = {f"hash, {len(hashed)} splits": compare(spark, ratings, movies, hashed, settings, plan.trials)}
    if plan.by_time:
        results["time, 1 split"] = compare(spark, ratings, movies, by_time, settings, plan.trials)
    return {
        "ratings": ratings.count(),
        "scale": scale,
        "relevant": settings.train.relevant,
        "plan": asdict(plan),
        "results": results,
    }


def main() -> int:
    """Compare all systems on each set, and write `results/quality.md` and `quality.json`."""
    set_up(Log())
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not (folders := sources()):
        logger.error("found no ratings.csv: set MOVIELENS_DIR to a folder with movies.csv and ratings.csv")
        return 1
    spark = SparkSession.builder.appName("bench-quality").getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    with tempfile.TemporaryDirectory() as work:
        spark.sparkContext.setCheckpointDir(f"{work}/checkpoints")
        sets = {
            folder.name: judge_set(spark, folder, f"{work}/{folder.name}", PLANS.get(folder.name, Plan()))
            for folder in folders
        }
    packages = ("pyspark", "numpy", "optuna", "implicit", "scikit-surprise", "cmfrec")
    facts = {"date": today(), "machine": machine(), "k": Settings().train.k, "versions": versions(packages)}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "quality.md").write_text(as_markdown(sets, facts), encoding="utf-8")
    (RESULTS / "quality.json").write_text(json.dumps({**facts, "sets": sets}, indent=1) + "\n", encoding="utf-8")
    logger.info("wrote %s", RESULTS / "quality.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
