"""The peers: models of other libraries that a data scientist might choose instead of ours, and EASE.

A ranker gives the scores of all movies, one row per user. A rater gives the predicted ratings of pairs. Both take
ratings as places (user, movie) and stars.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from scipy import linalg, sparse

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Numbers = NDArray[np.float64]
Options = dict[str, Any]
SEED = 42


@dataclass(frozen=True)
class Ratings:
    """Ratings of users and movies, as places among `shape` (users, movies); `relevant` stars or more mean liked."""

    users: Ints
    movies: Ints
    stars: Numbers
    shape: tuple[int, int]
    relevant: float

    def matrix(self, values: NDArray[Any]) -> sparse.csr_matrix:
        """The values of the ratings as a sparse matrix, without those that are 0."""
        matrix = sparse.csr_matrix((values.astype(np.float32), (self.users, self.movies)), self.shape)
        matrix.eliminate_zeros()  # `implicit` gives NaN for a movie that has only stored zeros
        return matrix


@dataclass(frozen=True)
class Peer:
    """A model to compare with ours. `fit` gives scores (ranker) or predicted ratings (rater).

    `search` gives the options of a trial, which `fit` takes.
    """

    name: str
    fit: Callable[..., Any]
    search: Callable[[optuna.Trial], Options]


def weights_of(ratings: Ratings, weighting: str) -> Numbers:
    """The weight of each rating, 0 or more.

    - all: 1 for every rating.
    - stars: the stars of the rating.
    - graded: (stars / highest)^2, so that low ratings count for almost nothing.
    - liked: 1 for a relevant rating, 0 for any other.
    """
    weights: dict[str, Numbers] = {
        "all": np.ones_like(ratings.stars),
        "stars": ratings.stars,
        "graded": (ratings.stars / ratings.stars.max()) ** 2,
        "liked": (ratings.stars >= ratings.relevant).astype(np.float64),
    }
    return weights[weighting]


def popularity(ratings: Ratings) -> Floats:
    """The scores of a list of the most popular movies: each movie's number of ratings, for every user."""
    counts = np.bincount(ratings.movies, minlength=ratings.shape[1])
    return np.tile(counts.astype(np.float32), (ratings.shape[0], 1))


def ease(ratings: Ratings, weighting: str, ridge: float) -> Floats:
    """The linear item-item model with a zero diagonal, in closed form.

    H. Steck: Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019: B = I - P diag(1 / diag P) with
    P = (X'X + ridge I)^-1. Movies without ratings are left out. Where there are fewer users than movies, the inverse is
    taken over the users.
    """
    counts = np.bincount(ratings.movies, minlength=ratings.shape[1])
    rated = np.flatnonzero(counts)
    x = ratings.matrix(weights_of(ratings, weighting))[:, rated]
    scores = np.full(ratings.shape, -1e9, dtype=np.float32)
    scores[:, rated] = _ease_by_users(x, ridge) if x.shape[0] < x.shape[1] else _ease_by_movies(x, ridge)
    return scores


def _ease_by_movies(x: sparse.csr_matrix, ridge: float) -> Floats:
    """X B, by an inverse over the movies.

    The inverse needs double precision. Single precision is enough for its product with the sparse X.
    """
    double = x.astype(np.float64)
    gram = (double.T @ double).toarray()
    gram[np.diag_indices_from(gram)] += ridge
    inverse = linalg.inv(gram, overwrite_a=True, assume_a="pos")
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return np.asarray(x @ weights.astype(np.float32))


def _ease_by_users(x: sparse.csr_matrix, ridge: float) -> Numbers:
    """X B, by an inverse over the users: with K = X X', X P = (K + ridge I)^-1 X, and P = (I - X' X P) / ridge."""
    dense = x.toarray().astype(np.float64)
    projected = linalg.solve(dense @ dense.T + ridge * np.eye(len(dense)), dense, assume_a="pos")
    diagonal = (1 - np.einsum("um,um->m", dense, projected)) / ridge
    return np.asarray(dense - projected / diagonal)


def item_knn(ratings: Ratings, weighting: str, similarity: str, neighbours: int) -> Floats:
    """The scores of `implicit`'s item-item nearest neighbours."""
    from implicit.nearest_neighbours import BM25Recommender, CosineRecommender, TFIDFRecommender  # noqa: PLC0415

    recommenders = {"cosine": CosineRecommender, "tfidf": TFIDFRecommender, "bm25": BM25Recommender}
    matrix = ratings.matrix(weights_of(ratings, weighting))
    model = recommenders[similarity](K=neighbours, num_threads=0)
    model.fit(matrix, show_progress=False)
    return np.asarray((matrix @ model.similarity).todense(), dtype=np.float32)


def implicit_als(ratings: Ratings, weighting: str, factors: int, regularization: float, alpha: float) -> Floats:
    """The scores of `implicit`'s ALS; movies without ratings come last."""
    from implicit.cpu.als import AlternatingLeastSquares  # noqa: PLC0415
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # noqa: PLC0415

    model = AlternatingLeastSquares(
        factors=factors, regularization=regularization, alpha=alpha, iterations=15, random_state=SEED
    )
    # `implicit` has its own threads and asks for a single-threaded BLAS: otherwise a fit can take over twice as long.
    with threadpool_limits(1, "blas"):
        model.fit(ratings.matrix(weights_of(ratings, weighting)), show_progress=False)
    scores = np.asarray(model.user_factors @ model.item_factors.T, dtype=np.float32)
    scores[:, np.bincount(ratings.movies, minlength=ratings.shape[1]) == 0] = -1e9
    return scores


def surprise_svd(ratings: Ratings, pairs: Ratings, **options: Any) -> Numbers:
    """The ratings of the pairs that Surprise's SVD predicts."""
    import pandas as pd  # noqa: PLC0415
    import surprise  # noqa: PLC0415

    frame = pd.DataFrame({"user": ratings.users, "movie": ratings.movies, "rating": ratings.stars})
    scale = (float(ratings.stars.min()), float(ratings.stars.max()))
    known = surprise.Dataset.load_from_df(frame, surprise.Reader(rating_scale=scale)).build_full_trainset()
    model = surprise.SVD(random_state=SEED, **options).fit(known)
    return np.array([model.predict(u, m).est for u, m in zip(pairs.users, pairs.movies, strict=True)])


def cmfrec_als(ratings: Ratings, pairs: Ratings, **options: Any) -> Numbers:
    """The ratings of the pairs that `cmfrec`'s ALS with biases predicts."""
    import cmfrec  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415

    frame = pd.DataFrame({"UserId": ratings.users, "ItemId": ratings.movies, "Rating": ratings.stars})
    model = cmfrec.CMF(method="als", user_bias=True, item_bias=True, random_state=SEED, verbose=False, **options)
    model.fit(frame)
    predicted = np.asarray(model.predict(pairs.users, pairs.movies), dtype=np.float64)
    return np.clip(np.nan_to_num(predicted, nan=ratings.stars.mean()), ratings.stars.min(), ratings.stars.max())


def _weighting(trial: optuna.Trial) -> str:
    return str(trial.suggest_categorical("weighting", ["all", "stars", "graded", "liked"]))


RANKERS = (
    Peer("popularity", popularity, lambda _: {}),
    Peer(
        "item-kNN (implicit)",
        item_knn,
        lambda trial: {
            "weighting": _weighting(trial),
            "similarity": trial.suggest_categorical("similarity", ["cosine", "tfidf", "bm25"]),
            "neighbours": trial.suggest_int("neighbours", 10, 500, log=True),
        },
    ),
    Peer(
        "ALS (implicit)",
        implicit_als,
        lambda trial: {
            "weighting": _weighting(trial),
            "factors": trial.suggest_categorical("factors", [16, 32, 64, 128]),
            "regularization": trial.suggest_float("regularization", 1e-2, 100, log=True),
            "alpha": trial.suggest_float("alpha", 0.1, 20, log=True),
        },
    ),
    Peer(
        "EASE",
        ease,
        lambda trial: {"weighting": _weighting(trial), "ridge": trial.suggest_float("ridge", 10, 3000, log=True)},
    ),
)

RATERS = (
    Peer(
        "SVD (Surprise)",
        surprise_svd,
        lambda trial: {
            "n_factors": trial.suggest_int("n_factors", 5, 200, log=True),
            "n_epochs": trial.suggest_int("n_epochs", 10, 60),
            "lr_all": trial.suggest_float("lr_all", 2e-3, 2e-2, log=True),
            "reg_all": trial.suggest_float("reg_all", 1e-2, 0.2, log=True),
        },
    ),
    Peer(
        "ALS with biases (cmfrec)",
        cmfrec_als,
        lambda trial: {
            "k": trial.suggest_int("k", 2, 64, log=True),
            "lambda_": trial.suggest_float("lambda_", 1e-2, 50, log=True),
            "scale_lam": trial.suggest_categorical("scale_lam", [False, True]),
            "niter": 15,
        },
    ),
)
