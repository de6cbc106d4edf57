from __future__ import annotations

from chispa import assert_df_equality
from pyspark.sql import DataFrame, SparkSession

from spark_app.data import ids
from spark_app.data.ids import Codes


def texts(spark: SparkSession, *values: str | None) -> DataFrame:
    return spark.createDataFrame([(value,) for value in values], "id string")


def codes(spark: SparkSession, known: dict[str, int]) -> DataFrame:
    return spark.createDataFrame(list(known.items()), ids.SCHEMA)


def as_dict(found: DataFrame) -> dict[str, int]:
    return {row["id"]: row["code"] for row in found.collect()}


def test_every_text_that_is_no_plain_integer_gets_a_code_of_its_own(spark: SparkSession) -> None:
    found = ids.new_codes(
        texts(spark, "bob", "7", "2147483647", "2147483648", "007", "0", "-1", "1.0", "Bob", "bob", " bob", None),
        codes(spark, {}),
    )
    expected = [" bob", "-1", "007", "1.0", "2147483648", "Bob", "bob"]
    assert as_dict(found) == {text: -place for place, text in enumerate(expected, start=1)}


def test_codes_that_were_given_stay_and_new_ones_follow(spark: SparkSession) -> None:
    known = codes(spark, {"m": -1, "z": -2})
    found = ids.new_codes(texts(spark, "a", "m", "z", "b"), known)
    assert as_dict(found) == {"a": -3, "b": -4}
    assert as_dict(ids.new_codes(texts(spark, "m", "z", "5"), known)) == {}


def test_codes_stand_for_ids_and_back(spark: SparkSession) -> None:
    given = Codes(users=codes(spark, {"bob": -1}))
    delivered = [("bob", "1", 4.0), ("7", "2", 3.0), ("eve", "3", 1.0), (None, "4", 2.0)]
    frame = spark.createDataFrame(delivered, "userId string, movieId string, rating double")
    coded = [("-1", "1", 4.0), ("7", "2", 3.0), (None, "3", 1.0), (None, "4", 2.0)]
    expected = spark.createDataFrame(coded, "userId string, movieId string, rating double")
    found = frame.transform(ids.with_codes, given)
    assert_df_equality(found, expected, ignore_row_order=True, ignore_column_order=True)

    kept = spark.createDataFrame([(-1, 1), (7, 2)], "movieId int, userId int").select("userId", "movieId")
    as_users = spark.createDataFrame([(1, -1), (2, 7)], "movieId int, userId int")
    restored = as_users.transform(ids.with_original_ids, given)
    assert restored.columns == ["movieId", "userId"]
    assert sorted(tuple(row) for row in restored.collect()) == [(1, "bob"), (2, "7")]
    assert kept.transform(ids.with_original_ids, Codes()).collect() == kept.collect()
