from __future__ import annotations

from functools import partial

import pytest
from pyspark.sql import SparkSession

from spark_app.platform.progress import progress
from spark_app.platform.settings import ExplicitAls, ImplicitAls, Settings
from spark_app.stages.train import fit_models


def test_both_fits_tell_their_sweeps(spark: SparkSession, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spark_app.stages.train.progress", partial(progress, look_every=0.02))
    settings = Settings(explicit_als=ExplicitAls(rank=2, iterations=5), implicit_als=ImplicitAls(rank=2, iterations=4))
    rows = [(user, movie, float((user * movie) % 5 + 1)) for user in range(1, 9) for movie in range(1, 9)]
    ratings = spark.createDataFrame(rows, "userId INT, movieId INT, rating DOUBLE")
    fit_models(ratings, len(rows), settings)
    for kind, sweeps in (("explicit", 5), ("implicit", 4)):
        told = [message for message in said if message.startswith(f"fitting {kind} ALS: sweep ")]
        assert told
        assert all(f" of {sweeps}, " in message for message in told)
