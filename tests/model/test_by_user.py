"""Rows brought together by user: each user is in one partition, with all of their rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_app.model.by_user import UserPartition, together_by_user
from spark_app.platform.arrow_files import Files

USERS = "userId INT, features ARRAY<FLOAT>"
FOUND = pa.schema(
    [("users", pa.list_(pa.int32())), ("of_rows", pa.list_(pa.int32())), ("values", pa.list_(pa.string()))]
)
LOWEST, HIGHEST = -(2**31), 2**31 - 1


def told(part: UserPartition) -> Iterator[pa.RecordBatch]:
    """The content of a partition as one row; no row for an empty partition."""
    if part.users.num_rows or part.rows.num_rows:
        columns = (part.users["userId"], part.rows["userId"], part.rows["value"])
        arrays = [pa.array([column.to_pylist()], pa.list_(column.type)) for column in columns]
        yield pa.RecordBatch.from_arrays(arrays, names=["users", "of_rows", "values"])


@pytest.mark.parametrize("partitions", [1, 2, 7])
def test_each_user_is_in_one_partition_with_all_their_rows(spark: SparkSession, partitions: int) -> None:
    ids = [LOWEST, -2, -1, 0, *range(1, 200), HIGHEST]
    users = spark.createDataFrame([(user, [1.0]) for user in ids if user % 3], USERS)
    pairs = [(user, f"{user}-{number}") for user in ids for number in range(abs(user) % 4)]
    rows = spark.createDataFrame(pairs, "userId INT, value STRING").orderBy(F.rand(1)).repartition(3)
    spark.conf.set("spark.sql.shuffle.partitions", partitions)
    try:
        mapped = together_by_user(spark, users, rows).map(told, FOUND)
        assert mapped.rdd.getNumPartitions() == partitions
        found = mapped.collect()
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", 1)
    assert len(found) == partitions  # no partition is empty
    assert sorted(user for part in found for user in part.users) == sorted(user for user in ids if user % 3)
    assert sorted(value for part in found for value in part["values"]) == sorted(value for _, value in pairs)
    here = [{*part.users, *part.of_rows} for part in found]
    assert sum(map(len, here)) == len(set().union(*here))
    assert max(map(len, here)) < 2 * np.mean(list(map(len, here)))


def test_users_without_rows_and_rows_without_users_are_there_too(spark: SparkSession) -> None:
    users = spark.createDataFrame([(1, None), (2, [0.5])], USERS)
    rows = spark.createDataFrame([(2, "a"), (3, "b")], "userId INT, value STRING")
    (found,) = together_by_user(spark, users, rows).map(told, FOUND).collect()
    assert (sorted(found.users), sorted(found.of_rows)) == ([1, 2], [2, 3])
    (found,) = together_by_user(spark, users.limit(0), rows).map(told, FOUND).collect()
    assert (found.users, sorted(found["values"])) == ([], ["a", "b"])
    (found,) = together_by_user(spark, users, rows.limit(0)).map(told, FOUND).collect()
    assert (sorted(found.users), found["values"]) == ([1, 2], [])


def test_files_that_are_grouped_by_user_are_read_without_a_shuffle(spark: SparkSession, tmp_path: Path) -> None:
    """Users without rows are in no partition then; users without factors are."""
    users = spark.createDataFrame([(user, [float(user)]) for user in range(0, 40, 2)], USERS)
    pairs = [(user, f"{user}-{number}") for user in range(-3, 30) for number in range(abs(user) % 4)]
    rows = spark.createDataFrame(pairs, "userId INT, value STRING")
    users_path, rows_path = tmp_path / "users", tmp_path / "rows"
    users.withColumnRenamed("userId", "id").repartition(2).write.parquet(str(users_path))
    rows.repartition(3, "userId").sortWithinPartitions("userId").write.parquet(str(rows_path))
    files_of = (tuple(str(file) for file in sorted(path.glob("*.parquet"))) for path in (users_path, rows_path))
    user_paths, row_paths = files_of
    user_files = Files(user_paths, {"userId": "id", "features": "features"})
    row_files = Files(row_paths, {"userId": "userId", "value": "value"}, grouped_by="userId")

    in_files = together_by_user(spark, user_files, row_files, user_files).map(told, FOUND)
    assert not re.search("Exchange", in_files._jdf.queryExecution().executedPlan().toString())
    found = in_files.collect()
    assert 1 < len(found) <= 3
    assert sorted(value for part in found for value in part["values"]) == sorted(value for _, value in pairs)
    assert sorted(user for part in found for user in part.users) == sorted(
        {user for user, _ in pairs} & set(range(0, 40, 2))
    )
    here = [{*part.users, *part.of_rows} for part in found]
    assert sum(map(len, here)) == len(set().union(*here))

    for sources in ((users, row_files), (user_files, rows), (user_files, replace(row_files, grouped_by=""))):
        shuffled = together_by_user(spark, *sources).map(told, FOUND).collect()
        assert sorted(user for part in shuffled for user in part.users) == list(range(0, 40, 2))
        assert sorted(value for part in shuffled for value in part["values"]) == sorted(value for _, value in pairs)
