"""Facts for a page, few enough to check by eye."""

from __future__ import annotations

from typing import Any

import numpy as np

from spark_app.platform.settings import Settings
from spark_app.report.page import Facts

HOSTILE = """<script>alert("x")</script> & 'quotes' (1999) $x^2$"""

MONTHS = [
    {"month": "2001-11", "ratings": 3, "active_users": 2, "new_users": 2, "new_movies": 3},
    {"month": "2002-01", "ratings": 1, "active_users": 1, "new_users": 0, "new_movies": 1},
]
PROFILE = {
    "ratings": 4,
    "average_rating": 4.0,
    "users": 2,
    "movies": 5,
    "share_of_movies_rated": 0.8,
    "density": 0.5,
    "rating_histogram": {"3": 1, "4": 2, "5": 1},
    "user_activity": {
        "min": 1.0,
        "median": 1.0,
        "max": 3.0,
        "top_1_percent": 0.02,
        "top_10_percent": 0.15,
        "gini": 0.25,
    },
    "movie_popularity": {"median": 1.0, "max": 1.0, "top_1_percent": 0.0125, "top_10_percent": 0.125, "gini": 0.2},
    "genres": {
        HOSTILE: {"movies": 2, "ratings": 3, "average_rating": 4.0},
        "Drama": {"movies": 1, "ratings": 1, "average_rating": 4.5},
        "Unseen": {"movies": 1, "ratings": 0, "average_rating": None},
    },
    "decades": {"1990s": {"movies": 3, "ratings": 3}, "2000s": {"movies": 2, "ratings": 1}},
    "months": MONTHS,
}
RANKING = {
    "implicit": {
        **{"ndcg@10": 0.3, "recall@10": 0.2, "precision@10": 0.21, "hit_rate@10": 0.72},
        **{"popularity_lift": 2.0, "coverage": 0.4, "gini": 0.9, "users": 2},
    },
    "popularity": {
        **{"ndcg@10": 0.15, "recall@10": 0.1, "precision@10": 0.11, "hit_rate@10": 0.5},
        **{"popularity_lift": 3.0, "coverage": 0.1, "gini": 0.99, "users": 2},
    },
}
METRICS: dict[str, Any] = {
    "rating": {
        "explicit": {"rmse": 0.88, "mae": 0.69},
        "bias": {"rmse": 0.86, "mae": 0.66},
        "stacked": {"rmse": 0.84, "mae": 0.65},
    },
    "ranking": RANKING,
    "intervals": {
        "rating": {"stacked": {"rmse": [0.83, 0.85], "mae": [0.64, 0.66]}},
        "ranking": {"implicit": {"ndcg@10": [0.28, 0.32]}, "popularity": {"ndcg@10": [0.13, 0.17]}},
    },
    "slices": [
        {
            "slice": "users with 1 to 35 ratings",
            "metric": "ndcg@10",
            "count": 203,
            "values": {"implicit": 0.2, "popularity": 0.1},
        },
        {
            "slice": "users with over 35 ratings",
            "metric": "ndcg@10",
            "count": 392,
            "values": {"implicit": 0.35, "popularity": 0.4},
        },
    ],
    "rating_model": "stacked",
    "calibration": [
        {"predicted": 2.5, "actual": 2.2, "ratings": 1},
        {"predicted": 3.6, "actual": 3.7, "ratings": 3},
    ],
    "gate": {"metric": "ndcg@10", "implicit": 0.3, "popularity": 0.15, "min_lift": 1.0, "passed": True},
}
COMPARISON = {
    "run_id": "20260101T000000Z-aaaa",
    "started": "2026-01-01T00:00:00+00:00",
    "volumes": {"ratings": {"before": 2, "after": 4}, "users": {"before": 2, "after": 2}},
    "metrics": {"ndcg@10": {"before": 0.4, "after": 0.3}},
    "drift": {"rating_distribution": {"psi": 0.1234, "verdict": "moved"}},
}
ROWS = {
    "ratings": {"in": 7, "good": 4, "rejected": 2, "superseded": 1},
    "movies": {"in": 5, "good": 5, "rejected": 0, "superseded": 0},
    "split": {"training": 3, "holdout": 1},
    "recommendations": {"rows": 2, "users": 2},
}
REJECTS = {"ratings": {"rating is off the scale": 2}, "movies": {}}
MANIFEST: dict[str, Any] = {
    "run_id": "20260102T000000Z-bbbb",
    "job": "pipeline",
    "status": "done",
    "error": None,
    "started": "2026-01-02T03:04:05+00:00",
    "seconds": 75.2,
    "versions": {"movie-reco": "0.1.0", "spark": "4.1.1"},
    "settings": Settings().model_dump(mode="json"),
    "inputs": [
        {"path": "/raw/ratings.csv", "bytes": 2_500_000, "sha256": "ab" * 32},
        {"path": "/processed/delta/movies", "version": 3},
    ],
    "rows": ROWS,
    "rejects": REJECTS,
    "profile": PROFILE,
    "metrics": METRICS,
    "comparison": COMPARISON,
    "stages": [{"stage": "etl", "status": "done", "seconds": 12.5}],
    "outputs": ["/processed/delta/ratings"],
}
RECOMMENDED = {
    "users": 4,
    "top": [(HOSTILE, 3), ("Fugitive, The (1993)", 1)],
    "lists": np.array([3, 1, *[0] * 98]),
    "ratings": np.array([6, 2, 1, 1, *[0] * 96]),
}
USER = {
    "userId": "anna-\u00fc",
    "rating_count": 3,
    "average_rating": 4.0,
    "history": [
        {"movieId": 1, "title": HOSTILE, "genres": "Drama|War", "rating": 4.5, "timestamp": None} | {"reason_for": [1]}
    ],
    "recommendations": [
        {"rank": 1, "movieId": 2, "title": "Up (2009)", "genres": "", "predicted_rating": 4.25, "score": 0.9}
        | {"reason": f"you liked {HOSTILE}"},
    ],
}


def facts(**changes: Any) -> Facts:
    """The facts above with some values replaced; a name is a key of the manifest, or else a field of Facts."""
    manifest = {**MANIFEST, **{key: value for key, value in changes.items() if key in MANIFEST}}
    fields: dict[str, Any] = {
        "rows": manifest["rows"],
        "rejects": manifest["rejects"],
        "metrics": manifest["metrics"],
        "model_run": manifest["run_id"],
        "users_by_activity": {1: 1, 3: 1},
        "ratings_of_movies": np.array([1, 1, 1, 1, 0]),
        "most_rated": [
            {"movieId": 1, "title": HOSTILE, "genres": "Drama", "average_rating": 4.0, "rating_count": 1234}
        ],
        "users": [USER],
        "lists_are_new": True,
        "recommended": RECOMMENDED,
        "history": [
            {
                "started": f"2026-01-0{day}T03:00:00+00:00",
                "figures": {"ndcg@10": 0.25 + day / 100, "ratings": 2.0 * day},
            }
            for day in (1, 2, 3)
        ],
    }
    fields |= {key: value for key, value in changes.items() if key in fields and key not in MANIFEST}
    return Facts(manifest=manifest, **fields)
