from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyspark.sql import DataFrame, SparkSession

from spark_app.data import latest
from spark_app.data.features import features, whole_users
from spark_app.platform import delta
from spark_app.platform.arrow_files import Mapped, frame_of
from spark_app.platform.spark_versions import to_arrow

DAY_1, DAY_2 = datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 2, tzinfo=UTC)


def as_table(rows: list[tuple[int, int | None, list[str]]]) -> pa.Table:
    ids, years, genres = zip(*rows, strict=True)
    return pa.table(
        {
            "movieId": pa.array(ids, pa.int32()),
            "year": pa.array(years, pa.int32()),
            "genres": pa.array(genres, pa.list_(pa.string())),
        }
    )


@pytest.fixture(scope="module")
def movies() -> pa.Table:
    return as_table([(4, 2001, ["War"]), (1, 1999, ["Comedy", "Drama", "Comedy"]), (2, 2000, ["Drama"]), (3, None, [])])


@pytest.fixture(scope="module")
def ratings(spark: SparkSession) -> DataFrame:
    rows = [(7, 1, 5.0, DAY_1), (7, 2, 2.0, DAY_2), (7, 3, 2.0, DAY_2), (8, 1, 4.0, DAY_2)]
    return spark.createDataFrame(rows, "userId int, movieId int, rating double, timestamp timestamp")


def test_features_of_users(spark: SparkSession, ratings: DataFrame, movies: pa.Table) -> None:
    seven, eight = frame_of(features(spark, ratings, movies).users).orderBy("userId").collect()
    assert (seven.rating_count, seven.average_rating) == (3, 3.0)
    assert seven.rating_stddev == pytest.approx(3**0.5)  # deviations 2, -1, -1
    assert seven.last_rated - seven.first_rated == DAY_2 - DAY_1
    assert seven.favourite_genres == ["Comedy", "Drama"]  # 2 above the average; 2 - 1 above it
    assert (eight.rating_count, eight.rating_stddev, eight.favourite_genres) == (1, None, [])


def test_features_of_movies_have_a_row_for_those_that_nobody_rated(
    spark: SparkSession, ratings: DataFrame, movies: pa.Table
) -> None:
    found = (
        features(spark, ratings, movies).totals().movies.select(["movieId", "year", "rating_count", "average_rating"])
    )
    assert [tuple(row.values()) for row in found.to_pylist()] == [
        (1, 1999, 2, 4.5),
        (2, 2000, 1, 2.0),
        (3, None, 1, 2.0),
        (4, 2001, 0, None),
    ]


def test_values_and_months_are_counted(spark: SparkSession, ratings: DataFrame, movies: pa.Table) -> None:
    found = features(spark, ratings, movies).totals()
    assert list(found.values.items()) == [(2.0, 2), (4.0, 1), (5.0, 1)]
    assert found.months == {"2020-01": (4, 2)}


def test_without_times_there_are_no_months(spark: SparkSession, movies: pa.Table) -> None:
    rows = [(7, 1, 5.0, None), (8, 9, 3.0, None)]
    undated = spark.createDataFrame(rows, "userId int, movieId int, rating double, timestamp timestamp")
    found = features(spark, undated, movies)
    assert found.totals().months == {}
    users = frame_of(found.users).orderBy("userId").collect()
    assert [(row.userId, row.first_rated) for row in users] == [
        (7, None),
        (8, None),
    ]


def test_no_ratings_give_no_features(spark: SparkSession, ratings: DataFrame, movies: pa.Table) -> None:
    found = features(spark, ratings.limit(0), movies)
    assert frame_of(found.users).collect() == []
    totals = found.totals()
    assert totals.movies["rating_count"].to_pylist() == [0, 0, 0, 0]
    assert (totals.values, totals.months) == ({}, {})


def test_months_are_those_of_utc_and_may_lie_before_1970(spark: SparkSession, movies: pa.Table) -> None:
    times = [datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC), DAY_1, DAY_2]
    rows = [(user, 1, 4.0, time) for user, time in zip((7, 8, 8), times, strict=True)]
    dated = spark.createDataFrame(rows, "userId int, movieId int, rating double, timestamp timestamp")
    before = spark.conf.get("spark.sql.session.timeZone")
    spark.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
    try:
        found = features(spark, dated, movies).totals().months
    finally:
        spark.conf.set("spark.sql.session.timeZone", str(before))
    assert found == {"1969-12": (1, 1), "2020-01": (2, 1)}


@pytest.mark.parametrize("chunk_rows", [7, 1_000_000])
def test_sums_of_many_tasks_add_up(spark: SparkSession, monkeypatch: pytest.MonkeyPatch, chunk_rows: int) -> None:
    """Against numpy, on ratings of negative and large ids that lie in any order."""
    monkeypatch.setattr("spark_app.data.features.CHUNK_ROWS", chunk_rows)
    rng = np.random.default_rng(chunk_rows)
    users, movie_ids = rng.choice([-5, 0, 3, 2**31 - 1], 300), rng.choice([-9, 1, 2, 2**31 - 1], 300)
    values = rng.integers(1, 11, 300) / 2
    rows = list(zip(users.tolist(), movie_ids.tolist(), values.tolist(), [DAY_1] * 300, strict=True))
    schema = "userId int, movieId int, rating double, timestamp timestamp"
    ratings = spark.createDataFrame(rows, schema).repartition(5)
    genres = {-9: ["B"], 1: ["A", "B"], 2: [], 2**31 - 1: ["C"]}
    movies = as_table([(movie, 2000, of) for movie, of in genres.items()])
    found = features(spark, ratings, movies)
    for row in frame_of(found.users).collect():
        own = values[users == row.userId]
        assert (row.rating_count, row.average_rating) == (len(own), own.mean())
        assert row.rating_stddev == pytest.approx(own.std(ddof=1))
        fondness = {
            genre: sum(
                value - own.mean()
                for user, movie, value in zip(users, movie_ids, values, strict=True)
                if user == row.userId and genre in genres[movie]
            )
            for genre in "ABC"
        }
        liked = sorted((-round(sum_, 6), genre) for genre, sum_ in fondness.items() if round(sum_, 6) > 0)
        assert row.favourite_genres == [genre for _, genre in liked]
    assert dict(zip(*found.totals().movies.select(["movieId", "rating_count"]).to_pydict().values(), strict=True)) == {
        movie: int((movie_ids == movie).sum()) for movie in genres
    }


@pytest.mark.parametrize("users_rows", [1, 7, 1_000_000])
def test_files_that_are_grouped_by_user_give_the_same(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, users_rows: int
) -> None:
    monkeypatch.setattr("spark_app.data.features.USERS_ROWS", users_rows)
    monkeypatch.setattr("spark_app.platform.arrow_files.READ_ROWS", 5)
    rng = np.random.default_rng(users_rows)
    times = [None, *(datetime(1950 + 10 * number, 1 + number, 1, tzinfo=UTC) for number in range(8))]
    rows = [
        (int(user), int(rng.integers(1, 7)), float(rng.integers(1, 11)) / 2, times[rng.integers(0, 9)])
        for user in rng.integers(-9, 9, 120)
    ]
    ratings = spark.createDataFrame(rows, "userId int, movieId int, rating double, timestamp timestamp")
    grouped = Mapped(ratings.repartition(3, "userId"), _by_user, latest.TYPES, grouped_by="userId")
    delta.write(grouped, str(tmp_path), "{}")
    files = delta.files(spark, str(tmp_path))
    assert files is not None
    assert len(files.paths) > 1
    movies = as_table([(movie, 2000, [f"G{movie % 3}", "All"][: movie % 3]) for movie in range(1, 9)])
    shuffled, in_files = features(spark, ratings, movies), features(spark, files, movies)
    users = [to_arrow(frame_of(found.users).orderBy("userId")) for found in (shuffled, in_files)]
    totals = [found.totals() for found in (shuffled, in_files)]
    assert len(users[1]) == len({user for user, *_ in rows})
    assert _without_last_digits(users[1]) == _without_last_digits(users[0])
    assert _without_last_digits(totals[1].movies) == _without_last_digits(totals[0].movies)
    assert totals[1].values == totals[0].values
    assert list(totals[1].months.items()) == list(totals[0].months.items())


def _without_last_digits(table: pa.Table) -> pa.Table:
    """The rows with rounded standard deviations, whose last digits depend on the order in which ratings are added."""
    place = table.column_names.index("rating_stddev")
    return table.set_column(place, "rating_stddev", pc.round(table["rating_stddev"], 9))


def _by_user(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    if held := list(batches):
        yield from pa.Table.from_batches(held).sort_by("userId").to_batches()


@pytest.mark.parametrize("batch_rows", [1, 3, 100])
def test_chunks_have_whole_users(monkeypatch: pytest.MonkeyPatch, batch_rows: int) -> None:
    monkeypatch.setattr("spark_app.data.features.USERS_ROWS", 4)
    users = np.repeat([-3, 1, 2, 8, 9], [1, 2, 30, 1, 2])
    table = pa.table({"userId": pa.array(users, pa.int32()), "row": range(len(users))})
    batches = table.combine_chunks().to_batches(max_chunksize=batch_rows)
    chunks = list(whole_users([batches[0].slice(0, 0), *batches, batches[0].slice(0, 0)]))
    assert pa.concat_tables(chunks).combine_chunks() == table.combine_chunks()
    of_chunks = [set(chunk["userId"].to_pylist()) for chunk in chunks]
    assert len(chunks) > 1 or batch_rows > len(users)
    assert sum(map(len, of_chunks)) == len(set().union(*of_chunks))


def test_batches_without_rows_add_nothing(spark: SparkSession, ratings: DataFrame, movies: pa.Table) -> None:
    def with_empty(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield from (batch.slice(0, 0), batch, batch.slice(0, 0))

    found = features(spark, Mapped(ratings, with_empty, latest.TYPES).frame, movies).totals()
    assert found.values == features(spark, ratings, movies).totals().values


def test_sums_of_too_many_movies_are_shuffled(
    spark: SparkSession, ratings: DataFrame, movies: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spark_app.data.features.SUMMED_MOVIES", 3)
    delta.write(Mapped(ratings.repartition(2, "userId"), _by_user, latest.TYPES, "userId"), str(tmp_path), "{}")
    files = delta.files(spark, str(tmp_path))
    assert files is not None
    found = features(spark, files, movies).totals()  # without sums that come while the users are written
    assert found.values == features(spark, ratings, movies).totals().values
