"""Packed ratings: every rating is there once on each side, and the bytes do not depend on the order of the rows."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.model import rating_blocks
from spark_app.model.blocks import LocalBlocks, SparkBlocks
from spark_app.model.half_sweep import Block
from spark_app.model.matrices import TABLE_SIZE
from spark_app.model.rating_blocks import (
    MIN_BLOCKS,
    RatingBlocks,
    Side,
    blocks_for,
    mean_of,
    pack,
    places_among,
)

RATINGS = "userId INT, movieId INT, rating DOUBLE"
LOWEST, HIGHEST = -(2**31), 2**31 - 1

Row = tuple[int, int, float]


NONE_LOCAL = -1


@pytest.fixture(autouse=True)
def in_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even few ratings are packed by Spark's tasks."""
    monkeypatch.setattr(rating_blocks, "LOCAL_RATINGS", NONE_LOCAL)


def _same(block: Block) -> Block:
    return block


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """150 ratings of 12 movies by 20 users."""
    rng = np.random.default_rng(3)
    pairs = rng.choice(20 * 12, 150, replace=False).tolist()
    return [(pair // 12 + 1, pair % 12 + 100, float(rng.integers(1, 11)) / 2) for pair in pairs]


@pytest.fixture(scope="module")
def ratings(spark: SparkSession, rows: list[Row]) -> DataFrame:
    return spark.createDataFrame(rows, RATINGS).persist()


def rows_of(side: Side, others: Side) -> list[Row]:
    """The ratings of one side, as (own id, other id, rating)."""
    found: list[Row] = []
    for block in side.blocks.each(_same):
        own = np.repeat(side.ids[block.own], block.lengths).tolist()
        found += zip(own, others.ids[block.others].tolist(), block.values.tolist(), strict=True)
    return found


def unpacked(packed: RatingBlocks) -> tuple[list[Row], list[Row]]:
    """The ratings as (user, movie, rating), from either side."""
    by_movie = [(user, movie, rating) for movie, user, rating in rows_of(packed.movies, packed.users)]
    return rows_of(packed.users, packed.movies), by_movie


def bytes_of(packed: RatingBlocks) -> list[tuple[bytes, ...]]:
    """Every array of every block, in order, and the ids."""

    def of(block: Block) -> tuple[bytes, ...]:
        return tuple(part.tobytes() for part in (block.own, block.starts, block.others, block.values))

    sides = (packed.users, packed.movies)
    return [(side.ids.tobytes(), *of(block)) for side in sides for block in side.blocks.each(_same)]


def packed_of(spark: SparkSession, rows: Iterable[Row]) -> RatingBlocks:
    return pack(spark.createDataFrame(list(rows), RATINGS))


def test_every_rating_is_in_one_block_of_each_side(ratings: DataFrame, rows: list[Row]) -> None:
    packed = pack(ratings)
    assert packed.count == 150
    assert packed.users.ids.tolist() == sorted({user for user, _, _ in rows})
    assert packed.movies.ids.tolist() == sorted({movie for _, movie, _ in rows})
    for found in unpacked(packed):
        assert sorted(found) == sorted(rows)


def test_the_ratings_of_a_user_are_together_and_in_order(ratings: DataFrame) -> None:
    packed = pack(ratings)
    for side in (packed.users, packed.movies):
        blocks = side.blocks.each(_same)
        assert sorted(place for block in blocks for place in block.own.tolist()) == list(range(len(side.ids)))
        for block in blocks:
            assert block.starts[0] == 0
            assert block.starts[-1] == len(block.others) == len(block.values)
            assert (block.lengths > 0).all()
            assert (np.diff(block.own) > 0).all()
            of_each = np.split(block.others, block.starts[1:-1])
            assert all((np.diff(others) > 0).all() for others in of_each)


def test_blocks_are_of_the_types_that_numpy_is_quick_with(ratings: DataFrame) -> None:
    for block in pack(ratings).users.blocks.each(_same):
        types = [part.dtype for part in (block.own, block.starts, block.others, block.values)]
        assert types == [np.int32, np.int64, np.int32, np.float32]


def test_neither_the_order_of_rows_nor_partitions_change_a_byte(ratings: DataFrame) -> None:
    expected = bytes_of(pack(ratings.coalesce(1)))
    assert len(expected) == 2 * MIN_BLOCKS
    for seed, partitions in ((1, 1), (2, 3), (3, 7)):
        shuffled = ratings.orderBy(F.rand(seed)).repartition(partitions)
        assert bytes_of(pack(shuffled)) == expected
    assert bytes_of(pack(ratings.repartition(5, "movieId"))) == expected


def test_record_batches_of_any_size_give_the_same(spark: SparkSession, ratings: DataFrame) -> None:
    expected, setting = bytes_of(pack(ratings)), "spark.sql.execution.arrow.maxRecordsPerBatch"
    before = spark.conf.get(setting)
    spark.conf.set(setting, "7")
    try:
        assert bytes_of(pack(ratings)) == expected
    finally:
        spark.conf.set(setting, str(before))


def test_a_pair_that_is_there_twice_counts_twice_in_the_order_of_its_values(spark: SparkSession) -> None:
    rows = [(1, 5, 4.0), (1, 5, 0.5), (1, 6, 3.0), (1, 5, 4.0), (2, 5, 1.0)]
    one, other = packed_of(spark, rows), packed_of(spark, reversed(rows))
    assert one.count == 5
    by_user, by_movie = unpacked(one)
    assert by_user == [(1, 5, 0.5), (1, 5, 4.0), (1, 5, 4.0), (1, 6, 3.0), (2, 5, 1.0)]
    assert by_movie == [(1, 5, 0.5), (1, 5, 4.0), (1, 5, 4.0), (2, 5, 1.0), (1, 6, 3.0)]
    assert bytes_of(other) == bytes_of(one)


@pytest.mark.parametrize(
    "ids",
    [
        [0, 1, 2],
        [-3, -2, 0, 7],
        [LOWEST, -1, 0, HIGHEST],
        [LOWEST, LOWEST + 1],
        [HIGHEST - 1, HIGHEST],
        [5, 5 + TABLE_SIZE - 1],
        [5, 5 + TABLE_SIZE],
    ],
)
def test_ids_are_any_integers_of_32_bits(spark: SparkSession, ids: list[int]) -> None:
    rows = [(user, movie, float(place)) for place, (user, movie) in enumerate(zip(ids, reversed(ids), strict=True))]
    rows += [(ids[0], ids[0], 5.0)]
    packed = packed_of(spark, rows)
    assert packed.users.ids.tolist() == packed.movies.ids.tolist() == ids
    for found in unpacked(packed):
        assert sorted(found) == sorted(rows)


@pytest.mark.parametrize("apart", [1, 1_000_000])
def test_the_place_of_an_id_is_its_position_among_all(apart: int) -> None:
    all_ids = np.array([-40, -2, 0, 1, 30], dtype=np.int32) * np.int32(apart)
    asked = all_ids[[4, 0, 2, 2, 1, 3]]
    found = places_among(all_ids)(asked)
    assert found.tolist() == [4, 0, 2, 2, 1, 3]
    assert found.dtype == np.int32
    assert places_among(np.empty(0, dtype=np.int32))(np.empty(0, dtype=np.int32)).tolist() == []


def test_wider_columns_and_other_columns_are_taken_too(spark: SparkSession, ratings: DataFrame) -> None:
    wide = ratings.selectExpr(
        "'x' AS note", "CAST(rating AS FLOAT) AS rating", "CAST(movieId AS LONG) AS movieId", "userId"
    )
    assert bytes_of(pack(wide)) == bytes_of(pack(ratings))


@pytest.mark.parametrize("partitions", [0, 3])
def test_no_ratings_are_empty_blocks(spark: SparkSession, ratings: DataFrame, partitions: int) -> None:
    nothing = ratings.filter("rating > 9").repartition(3)
    packed = pack(nothing if partitions else spark.createDataFrame(spark.sparkContext.emptyRDD(), RATINGS))
    assert packed.count == 0
    assert packed.users.ids.tolist() == packed.movies.ids.tolist() == []
    for side in (packed.users, packed.movies):
        blocks = side.blocks.each(_same)
        assert [block.lengths.tolist() for block in blocks] == [[]] * MIN_BLOCKS


def test_blocks_depend_on_the_number_of_ratings_alone(ratings: DataFrame) -> None:
    assert [blocks_for(count, 1000) for count in (0, 4000, 4001, 10_000)] == [4, 4, 5, 10]
    for rows in (ratings.coalesce(1), ratings.repartition(9)):
        packed = pack(rows, block_ratings=25)
        assert [len(side.blocks.each(_same)) for side in (packed.users, packed.movies)] == [6, 6]


def test_the_mean_is_that_of_all_ratings(ratings: DataFrame, rows: list[Row]) -> None:
    assert mean_of(pack(ratings)) == np.mean([rating for _, _, rating in rows])


def test_blocks_stay_in_memory_until_they_are_let_go(ratings: DataFrame) -> None:
    packed = pack(ratings)
    blocks = [side.blocks for side in (packed.users, packed.movies)]
    rdds = [side.rdd for side in blocks if isinstance(side, SparkBlocks)]
    assert [rdd.is_cached for rdd in rdds] == [True, True]
    packed.unpersist()
    assert [rdd.is_cached for rdd in rdds] == [False, False]


def test_few_ratings_are_packed_on_the_driver_into_the_same_blocks(
    monkeypatch: pytest.MonkeyPatch, spark: SparkSession, ratings: DataFrame
) -> None:
    for frame in (ratings, ratings.orderBy(F.rand(4)).repartition(3), ratings.filter("rating > 9")):
        by_spark = pack(frame, block_ratings=25)
        monkeypatch.setattr(rating_blocks, "LOCAL_RATINGS", 150)
        packed = pack(frame, block_ratings=25)
        monkeypatch.setattr(rating_blocks, "LOCAL_RATINGS", NONE_LOCAL)
        assert isinstance(packed.users.blocks, LocalBlocks)
        assert packed.count == by_spark.count
        assert bytes_of(packed) == bytes_of(by_spark)
        packed.unpersist()
        assert packed.users.blocks.each(_same) == []


def test_many_ratings_are_not_fetched(monkeypatch: pytest.MonkeyPatch, ratings: DataFrame) -> None:
    monkeypatch.setattr(rating_blocks, "LOCAL_RATINGS", 149)
    assert isinstance(pack(ratings).movies.blocks, SparkBlocks)
