"""Chooses the defaults of the factorisations: judges settings on many data sets, with the solver's own half sweeps.

`python -m benchmarks.search` compares the defaults with the old defaults, with which MLlib fitted, and writes
benchmarks/results/search.md. `--trials N` searches for better settings with Optuna instead, and prints each trial.
Everything runs in this process, without Spark: one block holds a whole set.

The sets differ in size and shape: the real sets beside the checkout, parts of MovieLens 1M (an eighth of its users; at
most 25 ratings per user), and generated sets. A fifth of each set is a holdout that is never used; settings are judged
on a fifth of the rest. Settings score the ratio of their metric to that of the old settings, averaged over the sets. So
settings that are good on every set are preferred to settings that are best on one.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.facts import RESULTS, ROOT, machine, table, today
from benchmarks.quality import best_places
from spark_app.data.synthetic import make_world, rating_chunks
from spark_app.model.factors import with_biases
from spark_app.model.half_sweep import (
    Block,
    Floats,
    Preference,
    Problem,
    Ridge,
    SquaredError,
    counted,
    gram_of,
    solve,
    with_zero_row,
)
from spark_app.model.solver import CG_STEPS, LAST_STEPS, Options, random_factors
from spark_app.platform.settings import ExplicitAls, ImplicitAls, Settings, Train

TARGET = RESULTS / "search.md"
K = 10
SHARE = 0.2
SWEEPS = 8
FACTORS_SEED = 0
FEW_USERS, SHORT = 8, 25
"""One user in FEW_USERS is in the set of few users; in the set of short histories a user has at most SHORT ratings."""

OLD_IMPLICIT = ImplicitAls(
    rank=64, reg=0.35, reg_power=1.0, alpha=2.0, neutral=2.5, popularity_exponent=0.1, iterations=SWEEPS
)
OLD_EXPLICIT = ExplicitAls(rank=32, reg=0.1, reg_power=1.0, biases=False, iterations=SWEEPS)

Doubles = NDArray[np.float64]
Fit = tuple[Floats, Floats]
"""Factors of users and of movies."""

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """One split of one set: models are fitted to the known ratings and judged on the judged ones.

    All other ratings are the holdout. Movies that a user rated outside the judged part are not listed.
    """

    name: str
    users: Places
    movies: Places
    stars: Floats
    is_known: NDArray[np.bool_]
    is_judged: NDArray[np.bool_]

    @cached_property
    def shape(self) -> tuple[int, int]:
        """The numbers of users and of movies."""
        return int(self.users.max()) + 1, int(self.movies.max()) + 1

    @cached_property
    def settings(self) -> Settings:
        """The default settings for the rating scale of the set."""
        values = np.unique(self.stars)
        scale = {
            "scale_min": float(values[0]),
            "scale_max": float(values[-1]),
            "scale_step": float(np.diff(values).min()),
        }
        return Settings.model_validate({"input": scale})

    def block(self, side: int) -> Block:
        """The known ratings as one block, by user (side 0) or by movie (side 1)."""
        ids = (self.users[self.is_known], self.movies[self.is_known])
        order = np.lexsort((ids[1 - side], ids[side]))
        own, others = ids[side][order], ids[1 - side][order]
        count = self.shape[side]
        starts = np.searchsorted(own, np.arange(count + 1))
        return Block(
            np.arange(count, dtype=np.int32), starts, others.astype(np.int32), self.stars[self.is_known][order]
        )

    @cached_property
    def blocks(self) -> tuple[Block, Block]:
        """The known ratings by user, and by movie."""
        return self.block(0), self.block(1)


def samples(folder: Path) -> Iterator[Sample]:
    """All sets: the real ones that the folder has, parts of them, and generated ones."""
    small, large = (folder / name / "ratings.csv" for name in ("ml-latest-small", "ml-1m"))
    if small.exists():
        yield from (_split("ml-latest-small", _read(small), seed) for seed in (1, 2, 3))
    if large.exists():
        frame = _read(large)
        yield _split("MovieLens 1M", frame, 1)
        few = frame[_hash(frame.userId.to_numpy(), 7) < 1 / FEW_USERS]
        yield from (_split("an eighth of its users", few, seed) for seed in (1, 2))
        order = _hash(frame.userId.to_numpy() * 100_003 + frame.movieId.to_numpy(), 11)
        short = frame.assign(order=order).sort_values("order").groupby("userId").head(SHORT)
        yield from (_split("at most 25 ratings a user", short, seed) for seed in (1, 2))
    for users, movies, ratings in ((2_000, 500, 60_000), (400, 4_000, 40_000)):
        world = make_world(users, movies, ratings, 1)
        frame = (
            pa.concat_tables(rating_chunks(world, 1))
            .to_pandas()
            .astype({"rating": "float32", "userId": "int64", "movieId": "int64"})
        )
        yield _split(f"generated: {users:,} users, {movies:,} movies", frame, 1)


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, usecols=["userId", "movieId", "rating"], dtype={"rating": "float32"})


def _hash(keys: Places, seed: int) -> Doubles:
    """A pseudo-random number from 0 to 1 for each key (splitmix64)."""
    with np.errstate(over="ignore"):
        x = keys.astype(np.uint64) + np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray((x ^ (x >> np.uint64(31))) / 2.0**64)


def _split(name: str, frame: pd.DataFrame, seed: int) -> Sample:
    keys = frame.userId.to_numpy() * 2**32 + frame.movieId.to_numpy()
    is_open = _hash(keys, 0) >= SHARE
    is_judged = is_open & (_hash(keys, seed) < SHARE)
    users, movies = (np.unique(frame[column], return_inverse=True)[1] for column in ("userId", "movieId"))
    return Sample(name, users, movies, frame.rating.to_numpy(), is_open & ~is_judged, is_judged)


def fitted(sample: Sample, problem: Problem, rank: int, sweeps: int, start: Fit | None = None) -> Fit:
    """Factors of users and movies, as `solver` fits them, from random factors or from those of an earlier fit."""
    by_user, by_movie = sample.blocks
    users, movies = start or _random(sample, problem, rank)
    users = np.where(counted(by_user, problem.loss)[:, None] > 0, users, np.float32(0))
    for sweep in range(1, sweeps + 1):
        movies = solve(by_movie, with_zero_row(users), _gram(users, problem), movies, problem, CG_STEPS).factors
        steps = LAST_STEPS if sweep == sweeps else CG_STEPS
        users = solve(by_user, with_zero_row(movies), _gram(movies, problem), users, problem, steps).factors
    return users, movies


def fitted_twice(sample: Sample, problem: Problem, rank: int) -> Fit:
    """Factors as `train` fits them: a fit to four fifths of the known ratings, then one to all that starts from it."""
    keys = sample.users * 2**32 + sample.movies
    first = replace(sample, is_known=sample.is_known & (_hash(keys, 4) >= SHARE))
    return fitted(sample, problem, rank, Train().refit_sweeps, fitted(first, problem, rank, SWEEPS))


def _fitted(sample: Sample, problem: Problem, rank: int, *, twice: bool) -> Fit:
    return fitted_twice(sample, problem, rank) if twice else fitted(sample, problem, rank, SWEEPS)


def _random(sample: Sample, problem: Problem, rank: int) -> Fit:
    users = random_factors(sample.shape[0], problem, Options(rank, SWEEPS, FACTORS_SEED))
    return users, np.zeros((sample.shape[1], users.shape[1]), dtype=np.float32)


def _gram(factors: Floats, problem: Problem) -> Doubles | None:
    return gram_of(factors) if problem.loss.over_all_pairs else None


def ndcg(sample: Sample, settings: ImplicitAls, *, twice: bool = False) -> float:
    """NDCG@10 of lists from the whole catalogue without seen movies and without movies of the holdout."""
    problem = Problem(Preference(settings.alpha, settings.neutral), Ridge(settings.reg, settings.reg_power))
    users, movies = _fitted(sample, problem, settings.rank, twice=twice)
    popularity = np.bincount(sample.movies[sample.is_known], minlength=sample.shape[1])
    movies = movies * ((1 + popularity) ** np.float32(settings.popularity_exponent))[:, None].astype(np.float32)
    is_relevant = sample.is_judged & (sample.stars >= sample.settings.train.relevant)
    relevant = np.zeros(sample.shape, dtype=bool)
    relevant[sample.users[is_relevant], sample.movies[is_relevant]] = True
    likers = np.flatnonzero(relevant.any(axis=1))
    scores = users @ movies.T
    scores[sample.users[~sample.is_judged], sample.movies[~sample.is_judged]] = -np.inf
    listed = best_places(scores[likers], K)
    discounts = 1 / np.log2(np.arange(2, K + 2))
    best = np.cumsum(discounts)[np.minimum(relevant[likers].sum(axis=1), K) - 1]
    return float(((relevant[likers[:, None], listed] * discounts).sum(axis=1) / best).mean())


def rmse(sample: Sample, settings: ExplicitAls, *, twice: bool = False) -> float:
    """RMSE of predicted ratings, clipped to the scale; users and movies without ratings get the mean rating."""
    mean = float(sample.stars[sample.is_known].mean())
    problem = Problem(SquaredError(), Ridge(settings.reg, settings.reg_power), mean if settings.biases else None)
    users, movies = _fitted(sample, problem, settings.rank, twice=twice)
    if settings.biases:
        users, movies = with_biases(users, mean), with_biases(movies, None)
    of_users, of_movies = users[sample.users[sample.is_judged]], movies[sample.movies[sample.is_judged]]
    predicted = np.einsum("ij,ij->i", of_users, of_movies)
    predicted[predicted == 0] = mean
    scale = sample.settings.input.scale
    return float(np.sqrt(np.mean((np.clip(predicted, *scale) - sample.stars[sample.is_judged]) ** 2)))


def scaled(settings: ImplicitAls, sample: Sample) -> ImplicitAls:
    """Settings for ratings from 0.5 to 5, converted to the scale of a set."""
    low, high = sample.settings.input.scale
    stretch = (high - low) / 4.5
    return settings.model_copy(
        update={"neutral": low + (settings.neutral - 0.5) * stretch, "alpha": settings.alpha / stretch}
    )


def by_set(sets: list[Sample], measure: Callable[[Sample], float]) -> dict[str, float]:
    """The mean of a figure over the splits of each set, by the name of the set."""
    values: dict[str, list[float]] = {}
    for sample in sets:
        values.setdefault(sample.name, []).append(measure(sample))
    return {name: float(np.mean(splits)) for name, splits in values.items()}


def search(sets: list[Sample], trials: int) -> None:
    """Run `trials` trials of ranking settings; print of each its mean ratio to the old settings, over all sets."""
    old = by_set(sets, lambda sample: ndcg(sample, scaled(OLD_IMPLICIT, sample)))
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=1, multivariate=True))
    study.enqueue_trial(
        {name: getattr(ImplicitAls(), name) for name in ("alpha", "neutral", "reg", "reg_power", "rank")}
    )
    for _ in range(trials):
        trial = study.ask()
        settings = ImplicitAls(
            alpha=trial.suggest_float("alpha", 0.1, 12, log=True),
            neutral=trial.suggest_float("neutral", 1.5, 3.0, step=0.25),
            reg=trial.suggest_float("reg", 0.03, 10, log=True),
            reg_power=trial.suggest_float("reg_power", 0.3, 1.0),
            rank=trial.suggest_categorical("rank", [64, 128, 192]),
            popularity_exponent=trial.suggest_float("popularity_exponent", 0.0, 0.15, step=0.05),
        )
        figures = by_set(sets, lambda sample, tried=settings: ndcg(sample, scaled(tried, sample)))  # type: ignore[misc]
        value = float(np.mean([figures[name] / old[name] for name in old]))
        study.tell(trial, value)
        sys.stdout.write(f"{value:.4f} {trial.params} {_rounded(figures)}\n")


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in figures.items()}


def as_markdown(sets: list[Sample]) -> str:
    """The defaults beside the old settings on all sets, as Markdown."""
    columns = {
        "NDCG@10, old": by_set(sets, lambda sample: ndcg(sample, scaled(OLD_IMPLICIT, sample))),
        "NDCG@10": by_set(sets, lambda sample: ndcg(sample, sample.settings.implicit_als)),
        "NDCG@10, second fit": by_set(sets, lambda sample: ndcg(sample, sample.settings.implicit_als, twice=True)),
        "RMSE, old": by_set(sets, lambda sample: rmse(sample, OLD_EXPLICIT)),
        "RMSE": by_set(sets, lambda sample: rmse(sample, sample.settings.explicit_als)),
        "RMSE, second fit": by_set(sets, lambda sample: rmse(sample, sample.settings.explicit_als, twice=True)),
    }
    new = {"ranking": ImplicitAls(), "rating": ExplicitAls()}
    settings_lines = [
        f"- {task}: "
        + ", ".join(f"{key} {value}" for key, value in settings.model_dump().items() if key != "iterations")
        for task, settings in (("ranking, old", OLD_IMPLICIT), ("rating, old", OLD_EXPLICIT), *new.items())
    ]
    rows = [[name, *(f"{column[name]:.4f}" for column in columns.values())] for name in next(iter(columns.values()))]
    return "\n".join(
        [
            "# The defaults beside the old defaults",
            "",
            f"`python -m benchmarks.search`, {today()}, {machine()}. `old`: the defaults with which MLlib fitted. "
            f"Settings are judged on validation parts, after {SWEEPS} sweeps; the holdouts are not used. RMSE is that "
            "of explicit ALS alone, not stacked with the biases. `second fit`: a fit to all known ratings that does "
            f"not start from random factors: it takes {Train().refit_sweeps} sweeps from a fit to four fifths of them, "
            "as in `train`.",
            "",
            *table(["set", *columns], rows),
            "",
            *settings_lines,
            "",
        ]
    )


def main() -> None:
    """Compare the defaults with the old ones, or search where `--trials` is given."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument("--trials", type=int, default=0, help="search with this many trials and print each")
    options = parser.parse_args()
    sets = list(samples(Path(os.environ.get("MOVIELENS_SETS", ROOT.parent / "shared" / "data"))))
    if options.trials:
        search(sets, options.trials)
    else:
        TARGET.write_text(as_markdown(sets), encoding="utf-8")


if __name__ == "__main__":
    main()
