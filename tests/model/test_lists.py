"""The top N compared with a full sort of all unseen movies, and a test for each promise about a list."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from chispa import assert_df_equality
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.model.by_user import USERS, UserPartition
from spark_app.model.candidates import LAST, CandidateBlocks, Candidates, candidate_blocks
from spark_app.model.factors import Factors
from spark_app.model.lists import _rank_partition, _Ranker, lists_to_judge, recommend
from spark_app.platform.arrow_files import Files

PERSONAL, POPULAR, LAST_REASON = "based on your ratings", "popular", "all others are rated"
HISTORY = pa.schema([("userId", pa.int32()), ("movieId", pa.int32()), ("rating", pa.float32())])
AROUND_MULTIPLES_OF_64 = [1, 2, 63, 64, 65, 127, 128, 129, 191, 192, 193, 320, 321, 450]

Row = tuple[int, int, int, float, str]


@dataclass(frozen=True)
class Case:
    """Movies (factors, or None where nobody rated them; number of ratings), users (factors or None), what they saw."""

    movies: dict[int, list[float] | None]
    popularity: dict[int, int]
    users: dict[int, list[float] | None]
    seen: dict[int, set[int]]
    n: int
    block_users: int

    @property
    def rank(self) -> int:
        return 2

    def unseen(self, user: int) -> list[int]:
        return [movie for movie in self.movies if movie not in self.seen[user]]


@st.composite
def cases(draw: st.DrawFn, integers: bool = True) -> Case:
    """Small integers as factors make exact scores and many ties; fractions make neither."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.sampled_from(AROUND_MULTIPLES_OF_64))
    movie_ids = sorted((rng.permutation(3 * count)[:count] + 1).tolist())
    user_ids = sorted((rng.permutation(50)[: draw(st.integers(1, 8))] + 1).tolist())
    size = draw(st.integers(1, 3))

    def vector() -> list[float]:
        drawn = rng.integers(-size, size + 1, 2) if integers else rng.normal(0, size, 2).astype(np.float32)
        return [float(factor) for factor in drawn]

    unrated_share = draw(st.sampled_from([0.0, 0.2, 1.0]))
    movies = {movie: None if rng.random() < unrated_share else vector() for movie in movie_ids}
    popularity = {movie: int(rng.integers(1, 6)) for movie in movies}
    seen = {}
    for user in user_ids:
        share = draw(st.sampled_from([0.0, 0.5, 0.97, 1.0]))
        seen[user] = {movie for movie in movie_ids if rng.random() < share}
    return Case(
        movies=movies,
        popularity=popularity,
        users={user: vector() if draw(st.booleans()) else None for user in user_ids},
        seen=seen,
        n=draw(st.one_of(st.integers(1, 7), st.just(1000))),
        block_users=draw(st.integers(1, 9)),
    )


def catalogue_of(case: Case) -> Candidates:
    rows = [
        [*([0.0] * case.rank if factors is None else factors), float(LAST) if factors is None else 0.0, popularity]
        for factors, popularity in zip(case.movies.values(), case.popularity.values(), strict=True)
    ]
    return Candidates(np.array(list(case.movies), dtype=np.int32), np.array(rows, dtype=np.float32))


def partition_of(case: Case, seed: int = 0) -> UserPartition:
    """A partition in random order: users, what they saw, users who are not served, movies that are no candidates."""
    users: list[dict[str, object]] = [{"userId": user, "features": factors} for user, factors in case.users.items()]
    pairs = [(user, movie) for user, movies in case.seen.items() for movie in movies]
    pairs += [(user, 9999) for user in case.users]
    pairs += [(user, movie) for user in (0, 51) for movie in list(case.movies)[:3]]
    rng = np.random.default_rng(seed)
    history = [{"userId": pairs[i][0], "movieId": pairs[i][1]} for i in rng.permutation(len(pairs))]
    return UserPartition(
        pa.Table.from_pylist([users[i] for i in rng.permutation(len(users))], USERS),
        pa.Table.from_pylist(history, HISTORY),
    )


def lists_of(case: Case) -> list[Row]:
    found = list(_rank_partition(partition_of(case), catalogue_of(case), _Ranker(case.n, case.block_users)))
    return [tuple(row.values())[:5] for batch in found for row in batch.to_pylist()]


def full_sort(case: Case) -> list[Row]:
    """The expected lists: sort all unseen movies, movies with factors first, and take N."""
    lists: list[Row] = []
    for user, taste in case.users.items():
        scores = {}
        for movie in case.unseen(user):
            factors = case.movies[movie]
            if factors is None:
                scores[movie] = (1, 0.0, LAST_REASON)
            elif taste is None:
                scores[movie] = (0, float(case.popularity[movie]), POPULAR)
            else:
                scores[movie] = (0, sum(a * b for a, b in zip(taste, factors, strict=True)), PERSONAL)
        best = sorted(scores, key=lambda movie: (scores[movie][0], -round(scores[movie][1], 6), movie))
        lists += [(user, place, movie, *scores[movie][1:]) for place, movie in enumerate(best[: case.n], 1)]
    return lists


@settings(deadline=None, max_examples=300)
@given(cases())
def test_lists_are_those_of_a_full_sort(case: Case) -> None:
    assert lists_of(case) == full_sort(case)


@settings(deadline=None, max_examples=150)
@given(cases(integers=False))
def test_lists_keep_every_promise_on_real_valued_factors(case: Case) -> None:
    lists = lists_of(case)
    for user, taste in case.users.items():
        rows = [row for row in lists if row[0] == user]
        movies, scores = [row[2] for row in rows], [row[3] for row in rows]
        assert [row[1] for row in rows] == list(range(1, min(case.n, len(case.unseen(user))) + 1))
        assert len(set(movies)) == len(movies)
        assert not set(movies) & case.seen[user]
        assert np.isfinite(scores).all()
        rated = [(movie, score) for _, _, movie, score, reason in rows if reason != LAST_REASON]
        assert [row[4] for row in rows[: len(rated)]].count(LAST_REASON) == 0
        assert all((-a, m) < (-b, o) for (m, a), (o, b) in pairwise(rated))
        if taste is None:
            continue
        exact = {m: np.dot(taste, f) for m in case.unseen(user) if (f := case.movies[m]) is not None}
        assert scores[: len(rated)] == pytest.approx([exact[movie] for movie, _ in rated], abs=1e-5)
        left_out = [score for movie, score in exact.items() if movie not in movies]
        assert not left_out or max(left_out) <= min(score for _, score in rated) + 1e-5


def test_lists_of_a_few_movies_by_hand() -> None:
    case = Case(
        movies={10: [1.0, 0.0], 20: [0.0, 1.0], 30: [1.0, 1.0], 40: [2.0, 0.0], 50: None},
        popularity={10: 5, 20: 9, 30: 9, 40: 1, 50: 0},
        users={1: [1.0, 0.0], 2: None, 3: [0.0, -1.0], 4: [1.0, 1.0]},
        seen={1: {40}, 2: {20}, 3: set(), 4: {10, 20, 30, 40, 50}},
        n=4,
        block_users=2,
    )
    assert lists_of(case) == [
        (1, 1, 10, 1.0, PERSONAL),
        (1, 2, 30, 1.0, PERSONAL),
        (1, 3, 20, 0.0, PERSONAL),
        (1, 4, 50, 0.0, LAST_REASON),
        (2, 1, 30, 9.0, POPULAR),
        (2, 2, 10, 5.0, POPULAR),
        (2, 3, 40, 1.0, POPULAR),
        (2, 4, 50, 0.0, LAST_REASON),
        (3, 1, 10, 0.0, PERSONAL),
        (3, 2, 40, 0.0, PERSONAL),
        (3, 3, 20, -1.0, PERSONAL),
        (3, 4, 30, -1.0, PERSONAL),
    ]


def test_a_partition_without_users_to_serve_gives_nothing() -> None:
    case = Case({10: [1.0, 0.0]}, {10: 1}, users={}, seen={}, n=3, block_users=2)
    candidates = catalogue_of(case)
    nobody = UserPartition(USERS.empty_table(), HISTORY.empty_table())
    assert list(_rank_partition(nobody, candidates, _Ranker(3, 2))) == []
    assert list(_rank_partition(partition_of(case), candidates, _Ranker(3, 2))) == []


@pytest.fixture(scope="module")
def candidates(spark: SparkSession) -> Candidates:
    """Movie 5 is rated by nobody; factors of movie 99 belong to a movie that is not in the candidates."""
    popularity = pa.table({"movieId": [3, 2, 1, 4, 6, 99], "rating_count": [9, 9, 5, 1, 2, 7]})
    rows = spark.createDataFrame(
        [(4, [2.0, 0.0]), (1, [1.0, 0.0]), (2, [0.0, 1.0]), (3, [1.0, 1.0]), (6, [0.0, -1.0]), (99, [9.0, 9.0])],
        "id INT, features ARRAY<FLOAT>",
    )
    (block,) = candidate_blocks(np.arange(1, 7), popularity, Factors(2, rows.limit(0), rows), 0.0, 10**9)
    return block


def test_catalogue_has_a_row_a_movie_in_the_order_of_movie_id(candidates: Candidates) -> None:
    assert candidates.rank == 2
    assert candidates.movie_ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert candidates.vectors.tolist() == [
        [1, 0, 0, 5],
        [0, 1, 0, 9],
        [1, 1, 0, 9],
        [2, 0, 0, 1],
        [0, 0, -1e9, 0],
        [0, -1, 0, 2],
    ]


@pytest.mark.parametrize("shuffle_partitions", [1, 5])
def test_recommend_end_to_end(spark: SparkSession, candidates: Candidates, shuffle_partitions: int) -> None:
    users, seen = served_and_seen(spark)
    spark.conf.set("spark.sql.shuffle.partitions", shuffle_partitions)
    try:
        top = recommend(spark, users, seen, CandidateBlocks.of(candidates), n=5, block_users=2)
        assert top.rdd.getNumPartitions() == shuffle_partitions
        found = sorted(tuple(row)[:5] for row in top.collect())
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", 1)
    assert top.columns == ["userId", "rank", "movieId", "score", "reason", "because", "predicted_rating"]
    assert found == [
        # Has seen movie 4, the best of all for them, and 99, which nobody can be recommended.
        (7, 1, 1, 1.0, PERSONAL),
        (7, 2, 3, 1.0, PERSONAL),
        (7, 3, 2, 0.0, PERSONAL),
        (7, 4, 6, 0.0, PERSONAL),
        (7, 5, 5, 0.0, LAST_REASON),
        # Has no factors, and has seen movie 2.
        (8, 1, 3, 9.0, POPULAR),
        (8, 2, 1, 5.0, POPULAR),
        (8, 3, 6, 2.0, POPULAR),
        (8, 4, 4, 1.0, POPULAR),
        (8, 5, 5, 0.0, LAST_REASON),
        # Has seen nothing. User 9 has seen everything, user 5 is not served.
        (10, 1, 2, 0.0, PERSONAL),
        (10, 2, 6, 0.0, PERSONAL),
        (10, 3, 1, -1.0, PERSONAL),
        (10, 4, 3, -1.0, PERSONAL),
        (10, 5, 4, -2.0, PERSONAL),
    ]


def test_everyone_who_has_seen_something_is_served_where_that_is_asked(
    spark: SparkSession, candidates: Candidates
) -> None:
    users, seen = served_and_seen(spark)
    top = recommend(
        spark, users.filter("features IS NOT NULL"), seen, CandidateBlocks.of(candidates), 1, 2, everyone=True
    ).collect()
    assert {row.userId: row.reason for row in top} == {5: POPULAR, 7: PERSONAL, 8: POPULAR}


@pytest.mark.parametrize("size", [1, 2, 4])
def test_blocks_of_candidates_give_the_lists_of_the_whole(
    spark: SparkSession, candidates: Candidates, size: int
) -> None:
    users, seen = served_and_seen(spark)
    blocks = CandidateBlocks.of(
        *(
            Candidates(candidates.movie_ids[first : first + size], candidates.vectors[first : first + size])
            for first in range(0, 6, size)
        )
    )
    for n in (2, 5):
        whole = recommend(spark, users, seen, CandidateBlocks.of(candidates), n, 2)
        in_turn = recommend(spark, users, seen, blocks, n, 2)
        assert_df_equality(in_turn, whole, ignore_row_order=True, ignore_nullable=True)


@pytest.mark.parametrize("everyone", [True, False])
def test_files_that_are_grouped_by_user_give_the_same_lists(
    spark: SparkSession, candidates: Candidates, tmp_path: Path, everyone: bool
) -> None:
    users, seen = served_and_seen(spark)
    users.write.parquet(str(tmp_path / "users"))
    seen.repartition(8, "userId").sortWithinPartitions("userId").write.parquet(str(tmp_path / "seen"))
    user_files, seen_files = (
        Files(
            tuple(str(file) for file in (tmp_path / frame).glob("*.parquet")),
            {name: name for name in columns},
            grouped_by="userId",
        )
        for frame, columns in (("users", users.columns), ("seen", seen.columns))
    )
    assert len(seen_files.paths) > 1
    blocks = CandidateBlocks.of(candidates)
    expected = recommend(spark, users, seen, blocks, 3, 2, everyone=everyone)
    found = recommend(spark, user_files, seen_files, blocks, 3, 2, everyone=everyone)
    assert_df_equality(found, expected, ignore_row_order=True, ignore_nullable=True)


def served_and_seen(spark: SparkSession) -> tuple[DataFrame, DataFrame]:
    users = spark.createDataFrame(
        [(7, [1.0, 0.0]), (8, None), (9, [0.0, 2.0]), (10, [-1.0, 0.0])], "userId INT, features ARRAY<FLOAT>"
    )
    pairs = [(7, 4), (7, 99), (8, 2), (5, 1), (5, 99), *((9, movie) for movie in range(1, 7))]
    return users, spark.createDataFrame([(*pair, 4.0) for pair in pairs], "userId INT, movieId INT, rating DOUBLE")


def test_the_lists_to_judge_are_those_of_recommend_by_factors_and_by_popularity(spark: SparkSession) -> None:
    rng = np.random.default_rng(5)
    movie_ids = np.arange(10, 110, dtype=np.int32)
    vectors = np.hstack([rng.normal(size=(100, 3)), np.zeros((100, 1)), rng.integers(1, 9, (100, 1))])
    candidates = Candidates(movie_ids, vectors.astype(np.float32))
    rows = [(user, rng.normal(size=3).tolist() if user % 3 else None) for user in range(1, 8)]
    users = spark.createDataFrame(rows, "userId INT, features ARRAY<FLOAT>")
    history = {user: rng.permutation(movie_ids)[: 5 * (user - 1)].tolist() for user, _ in rows}
    pairs = [(user, movie, 4.0) for user, movies in history.items() for movie in movies] + [(99, 10, 4.0)]
    seen = spark.createDataFrame(pairs, "userId INT, movieId INT, rating DOUBLE")
    found = {
        row.userId: row for row in lists_to_judge(spark, users, seen, CandidateBlocks.of(candidates), 4, 3).collect()
    }
    assert sorted(found) == [1, 2, 3, 4, 5, 6, 7]
    nobody = users.select("userId", F.lit(None).alias("features"))
    for model, served in (("implicit", users), ("popularity", nobody)):
        lists = recommend(spark, served, seen, CandidateBlocks.of(candidates), 4, 3).orderBy("userId", "rank").collect()
        for user, row in found.items():
            assert row[model] == [entry.movieId for entry in lists if entry.userId == user]
    for user, row in found.items():
        ratings = [vectors[movie - 10, 4] for movie in history[user]]
        assert row.seen == len(ratings)
        assert row.seen_popularity == pytest.approx(np.mean(ratings) if ratings else 0.0)


def test_what_was_seen_without_a_rating_is_left_out_of_lists_and_counts_for_nothing_else(
    spark: SparkSession, candidates: Candidates
) -> None:
    users, seen = served_and_seen(spark)
    blocks = CandidateBlocks.of(candidates)
    plain = {row.userId: row for row in lists_to_judge(spark, users, seen, blocks, 2, 3).collect()}
    pairs = [(user, row["implicit"][0]) for user, row in plain.items() if row["implicit"]]
    unrated = spark.createDataFrame(pairs, "userId INT, movieId INT")
    judged = {row.userId: row for row in lists_to_judge(spark, users, seen, blocks, 2, 3, unrated).collect()}
    assert pairs
    for user, movie in pairs:
        assert movie not in judged[user]["implicit"]
        assert movie not in judged[user]["popularity"]
        assert (judged[user]["seen"], judged[user]["seen_popularity"]) == (
            plain[user]["seen"],
            plain[user]["seen_popularity"],
        )
    all_seen = seen.unionByName(unrated.withColumn("rating", F.lit(None).cast("double")))
    lists = recommend(spark, users, all_seen, blocks, 2, 3).collect()
    assert not {(row.userId, row.movieId) for row in lists} & set(pairs)
