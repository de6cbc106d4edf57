from __future__ import annotations

from pyspark.sql import SparkSession

from spark_app.platform.settings import build_settings
from spark_app.stages.models import with_fold_in
from spark_app.stages.train import fit_models

COUNTS = """
[input]
feedback = "counts"

[implicit_als]
rank = 2
iterations = 2
"""


def test_new_listeners_are_folded_in_where_plays_are_counted(spark: SparkSession) -> None:
    schema = "userId INT, movieId INT, rating DOUBLE"
    rows = [
        (user, movie, float(1 + user * movie % 50)) for user in range(1, 9) for movie in range(1, 9) if user != movie
    ]
    models = fit_models(spark.createDataFrame(rows, schema), len(rows), build_settings(COUNTS))
    now = spark.createDataFrame([*rows, (9, 2, 40.0), (9, 99, 3.0), (10, 99, 1.0)], schema)
    folded, users = with_fold_in(models, now, "changed")
    assert users == 1
    assert folded.explicit is None
    assert {row.id for row in folded.implicit.userFactors.collect()} == set(range(1, 10))
    assert {row.userId: row.rating_count for row in folded.biases.users.collect()} == dict.fromkeys(range(1, 9), 7) | {
        9: 1
    }
