"""Ratings that are not MovieLens: other columns, ids, scales and times, through whole jobs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from spark_app.ask import main
from spark_app.platform.settings import ImplicitAls
from spark_app.zones import published, report_data
from spark_app.zones.processed import ProcessedZone
from tests.pipeline.conftest import RATINGS, Zones

Job = Callable[..., tuple[int, str]]

LISTS = (
    "userId int, rank int, movieId int, title string, genres string, "
    "predicted_rating double, score double, reason string"
)

BOOKS = """
[raw]
movies = "books.csv"
ratings = "votes.csv"

[input]
user = "reader"
item = "isbn"
rating = "stars"
timestamp = ""
title = "name"
genres = ""
delimiter = ";"
scale_min = 1
scale_max = 10
scale_step = 1

[explicit_als]
rank = 4
iterations = 4

[implicit_als]
rank = 4
iterations = 4
"""

PLAYS = """
[raw]
movies = ""
ratings = "plays.csv"

[input]
user = "listener"
item = "artist"
rating = "plays"
time_format = "iso"
timestamp = "at"
feedback = "counts"

[implicit_als]
rank = 4
iterations = 4
"""


ANIME = """
[raw]
movies = "movies.csv"
ratings = "r-*.csv"

[input]
user = "user_id"
item = "anime_id"
timestamp = ""
title = "name"
genres = "genre"
scale_min = 1
scale_max = 10
scale_step = 1
unrated_values = [-1]
missing_values = [99]

[explicit_als]
rank = 4
iterations = 4

[implicit_als]
rank = 4
iterations = 4
"""


def readers(seed: int) -> list[tuple[str, str, int]]:
    """60 readers with e-mail addresses rate 40 books by ISBN; each prefers one half of the books."""
    rng = np.random.default_rng(seed)
    rows = []
    for reader in range(60):
        for book in sorted(rng.choice(40, 12, replace=False)):
            stars = rng.integers(7, 11) if book % 2 == reader % 2 else rng.integers(1, 5)
            rows.append((f"reader-{reader}@example.org", f"0{book:03d}-X", int(stars)))
    return rows


def deliver_books(zones: Zones, rows: list[tuple[str, str, int]]) -> Path:
    zones.raw.mkdir(parents=True, exist_ok=True)
    books = "".join(f'0{book:03d}-X;"Book; the {book}th"\n' for book in range(40))
    (zones.raw / "books.csv").write_text("isbn;name\n" + books)
    (zones.raw / "votes.csv").write_text("reader;isbn;stars\n" + "".join(f"{u};{i};{r}\n" for u, i, r in rows))
    config = zones.raw / "books.toml"
    config.write_text(BOOKS)
    return config


def codes_of(zones: Zones, table: str) -> dict[str, int]:
    rows = DeltaTable(str(zones.processed / "delta" / table)).to_pyarrow_table().to_pylist()
    return {row["id"]: row["code"] for row in rows}


def check_a_list_on_the_spot(zones: Zones, capsys: pytest.CaptureFixture[str]) -> None:
    (zones.raw / "in_stock.txt").write_text("".join(f"0{book:03d}-X\n" for book in range(20)) + "0999-X\n")
    chosen = [f"recommend.items={zones.raw / 'in_stock.txt'}", "recommend.min_predicted_rating=5.5"]
    options = [part for setting in chosen for part in ("--set", setting)]
    main(["show", "--processed-path", str(zones.processed), "--rate", "0007-X=9", *options, "--json"])
    shown = capsys.readouterr()
    on_the_spot = json.loads(shown.out)["recommendations"]
    assert on_the_spot
    assert {row["movieId"] for row in on_the_spot} <= {f"0{book:03d}-X" for book in range(20) if book != 7}
    assert all(5.5 <= row["predicted_rating"] <= 10 for row in on_the_spot)
    assert "recommend.items: 1 of 21 ids are unknown and are left out: 0999-X" in shown.err


def test_text_ids_and_no_timestamps(job: Job, zones: Zones, capsys: pytest.CaptureFixture[str]) -> None:
    rows = readers(1)
    config = deliver_books(zones, [*rows, rows[0], (rows[0][0], rows[0][1], 2)])
    for stage in ("etl", "explore", "train", "recommend"):
        code, said = job(stage, "--config", str(config), "--set", "gate.enforce=false")
        assert code == 0, said
    etl, explored, trained = zones.manifests()[:3]
    assert etl["rows"]["ratings"] == {"in": len(rows) + 2, "good": len(rows), "rejected": 0, "superseded": 2}
    assert explored["profile"]["months"] == []
    # The same share of the scale as on the scale from 0.5 to 5.
    share = (ImplicitAls().neutral - 0.5) / 4.5
    assert trained["settings"]["implicit_als"]["neutral"] == pytest.approx(1 + 9 * share, abs=1e-6)
    assert trained["metrics"]["ranking"]["implicit"]["ndcg@10"] > trained["metrics"]["ranking"]["popularity"]["ndcg@10"]

    rated = {(reader, book) for reader, book, _ in rows}
    lists = zones.recommendations()
    assert len(lists) == 60 * 10
    assert {row["userId"] for row in lists} == {reader for reader, _ in rated}
    assert not any((row["userId"], row["movieId"]) in rated for row in lists)
    assert all(row["title"] == f"Book; the {int(row['movieId'][1:4])}th" for row in lists)
    assert all(1 <= float(row["predicted_rating"]) <= 10 for row in lists)
    own_half = [int(row["movieId"][1:4]) % 2 == int(row["userId"][7:].split("@")[0]) % 2 for row in lists]
    assert np.mean(own_half) > 0.8

    main(["show", "--processed-path", str(zones.processed), "--user", rows[0][0], "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["userId"] == rows[0][0]
    assert {(row["movieId"], row["timestamp"]) for row in answer["history"]} == {
        (book, None) for reader, book in rated if reader == rows[0][0]
    }
    assert {row["movieId"]: row["rating"] for row in answer["history"]}[rows[0][1]] == 2.0  # the last delivered
    assert [row["movieId"] for row in answer["recommendations"]] == [
        row["movieId"] for row in lists if row["userId"] == rows[0][0]
    ]
    main(["show", "--processed-path", str(zones.processed), "--movie", "0007-X", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert (answer["movieId"], answer["title"]) == ("0007-X", "Book; the 7th")
    assert answer["similar"][0]["movieId"] in {f"0{book:03d}-X" for book in range(40)}
    check_a_list_on_the_spot(zones, capsys)
    main(["show", "--processed-path", str(zones.processed), "--user", rows[0][0]])
    assert rows[0][0] in capsys.readouterr().out
    zone = ProcessedZone(str(zones.processed))
    (typical,) = report_data.sample_users(zone, [0.0])
    assert typical["userId"] == min(
        reader for reader, _ in rated
    )  # all have equally many ratings, so the lowest id is taken
    assert len(typical["recommendations"]) == 10
    known, factors = published.movie_factors(zone)
    assert set(known) == {book for _, book in rated}
    assert len(factors) == len(known)
    with pytest.raises(SystemExit):
        main(["show", "--processed-path", str(zones.processed), "--user", "nobody"])
    assert f"userId nobody is not known in {zones.processed}" in capsys.readouterr().err


def test_codes_stay_when_more_ids_come(job: Job, zones: Zones) -> None:
    rows = readers(2)
    config = deliver_books(zones, [row for row in rows if not row[0].startswith("reader-3")])
    assert job("etl", "--config", str(config))[0] == 0
    users, books = codes_of(zones, "user_ids"), codes_of(zones, "movie_ids")
    assert sorted(users.values()) == list(range(-len(users), 0))
    deliver_books(zones, [("aaron@example.org", "0001-X", 9), ("7", "0001-X", 9), *rows])
    assert job("etl", "--config", str(config))[0] == 0
    more = codes_of(zones, "user_ids")
    assert more.items() > users.items()
    assert len(set(more.values())) == len(more) == 61
    assert codes_of(zones, "movie_ids") == books
    kept = DeltaTable(str(zones.processed / "delta" / "ratings")).to_pyarrow_table()
    assert set(kept["userId"].to_pylist()) == {7, *more.values()}


def test_counts_without_a_table_of_items(job: Job, zones: Zones) -> None:
    rng = np.random.default_rng(3)
    zones.raw.mkdir(parents=True)
    lines = []
    for listener in range(50):
        own, other = (rng.choice(10, n, replace=False) * 2 + (listener + half) % 2 for half, n in ((0, 6), (1, 2)))
        plays = {**{artist: rng.integers(5, 300) for artist in own}, **dict.fromkeys(other, 1)}
        lines += [f"{2**40 + listener},Artist {a},{n},2020-01-02T03:04:05Z" for a, n in plays.items()]
    first = lines[0].split(",")
    twice = ",".join([first[0], first[1], "1000", "2021-01-01"])
    bad = ",".join([first[0], first[1], "0", "2021-01-01"])
    (zones.raw / "plays.csv").write_text("\n".join(["listener,artist,plays,at", *lines, twice, bad]) + "\n")
    config = zones.raw / "plays.toml"
    config.write_text(PLAYS)
    for stage in ("catalog", "etl", "explore", "train", "recommend"):
        code, said = job(stage, "--config", str(config), "--set", "gate.enforce=false")
        assert code == 0, said
    manifests = {manifest["job"]: manifest for manifest in zones.manifests()}
    assert manifests["etl"]["rows"] == {"ratings": {"in": 402, "good": 400, "rejected": 1, "superseded": 1}}
    assert manifests["etl"]["rejects"] == {"ratings": {"plays is not a number above 0": 1}}
    assert "rating" not in manifests["train"]["metrics"]
    assert [month["month"] for month in manifests["explore"]["profile"]["months"]] == ["2020-01", "2021-01"]

    ratings = DeltaTable(str(zones.processed / "delta" / "ratings")).to_pyarrow_table().to_pylist()
    users, artists = codes_of(zones, "user_ids"), codes_of(zones, "movie_ids")
    added_up = {(row["userId"], row["movieId"]): row["rating"] for row in ratings}
    assert added_up[users[first[0]], artists[first[1]]] == float(first[2]) + 1000
    lists = zones.recommendations()
    assert {row["userId"] for row in lists} == {str(2**40 + listener) for listener in range(50)}
    assert all(row["title"] == row["movieId"] and row["title"].startswith("Artist ") for row in lists)
    assert {row["predicted_rating"] for row in lists} == {""}
    first_of_each = [row for row in lists if row["rank"] == "1"]
    assert np.mean([int(r["movieId"][7:]) % 2 == (int(r["userId"]) - 2**40) % 2 for r in first_of_each]) > 0.6


def test_what_was_seen_without_a_rating_is_never_recommended_and_teaches_nothing(
    job: Job, zones: Zones, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(5)
    rated, seen = [], set()
    for user in range(40):
        of_user = rng.choice(30, 14, replace=False).tolist()
        rated += [(user, movie, 9 if (user + movie) % 2 else 2) for movie in of_user[:8]]
        seen |= {(user, movie) for movie in of_user[8:]}
    seen |= {(99, movie) for movie in range(5)}  # a user who has rated nothing
    header = "user_id,anime_id,rating\n"
    first = [f"{user},{movie},{stars}" for user, movie, stars in rated]
    later = [f"{user},{movie},-1" for user, movie in sorted(seen)]
    zones.deliver("".join(["anime_id,name,genre\n", *(f"{movie},Show {movie},Drama\n" for movie in range(30))]), "")
    (zones.raw / "ratings.csv").unlink()
    (zones.raw / "r-1.csv").write_text(header + "\n".join([*first, *later[:100], later[0]]) + "\n")
    config = zones.raw / "anime.toml"
    config.write_text(ANIME)
    options = ("--config", str(config), "--set", "gate.enforce=false")
    assert job("etl", *options)[0] == 0
    alone = {name: (zones.processed / "delta" / name) for name in ("ratings", "movie_stats", "unrated")}
    assert zones.manifests()[-1]["rows"]["ratings"] == {
        **{"in": 421, "good": 320, "rejected": 0, "superseded": 1},
        **{"unrated": 100, "missing": 0},
    }
    stats = DeltaTable(str(alone["movie_stats"])).to_pyarrow_table().to_pylist()
    assert sum(row["rating_count"] for row in stats) == 320

    more = "\n".join([*later[50:], f"{rated[0][0]},{rated[0][1]},99"]) + "\n"
    (zones.raw / "r-2.csv").write_text(header + more)
    code, said = job("etl", *options)
    assert (code, "1 of 2 files are new" in said) == (0, True)
    counts = zones.manifests()[-1]["rows"]["ratings"]
    assert counts == {
        **{"in": 421 + len(later) - 49, "good": 320, "rejected": 0, "superseded": 51},
        **{"unrated": len(seen), "missing": 1},
    }
    pairs = DeltaTable(str(alone["unrated"])).to_pyarrow_table().to_pylist()
    assert sorted((row["userId"], row["movieId"]) for row in pairs) == sorted(seen)

    for stage in ("explore", "train", "recommend"):
        code, said = job(stage, *options)
        assert code == 0, said
    trained = next(manifest for manifest in zones.manifests() if manifest["job"] == "train")
    assert sum(trained["rows"]["split"].values()) == 320
    lists = zones.recommendations()
    pairs_listed = {(int(row["userId"]), int(row["movieId"])) for row in lists}
    assert len(lists) == 40 * 10 + 10
    assert not pairs_listed & (seen | {(user, movie) for user, movie, _ in rated})
    liked = {(user, f"Show {movie}") for user, movie, stars in rated if stars > 4.5}
    named = {(int(row["userId"]), row["reason"].removeprefix("you liked ").split(" and ")[0]) for row in lists}
    assert {pair for pair in named if pair[1].startswith("Show")} <= liked
    assert {row["reason"] for row in lists if row["userId"] == "99"} == {"popular"}

    main(["show", "--processed-path", str(zones.processed), "--user", "99"])
    assert "User 99: 0 ratings" in capsys.readouterr().out
    (zones.raw / "r-2.csv").unlink()
    assert job("etl", *options, "--set", "input.unrated_values=[]", "--set", "clean.max_reject_share=1")[0] == 0
    assert DeltaTable(str(alone["unrated"])).to_pyarrow_table().num_rows == 0


def test_ids_from_zero_are_ids_like_any_other(job: Job, zones: Zones, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(4)
    rows = [(user, movie) for user in range(30) for movie in sorted(rng.choice(20, 8, replace=False).tolist())]
    rated = [f"{user},{movie},{4.5 if (user + movie) % 2 else 1.5},964982703" for user, movie in rows]
    zones.deliver(
        movies="".join(["movieId,title,genres\n", *(f"{movie},Movie {movie},Drama\n" for movie in range(20))]),
        ratings="\n".join(["userId,movieId,rating,timestamp", *rated, ""]),
    )
    for stage in ("etl", "train", "recommend"):
        code, output = job(stage, "--set", "gate.enforce=false", "--set", "implicit_als.rank=4")
        assert code == 0, output
    assert zones.manifests()[0]["rows"]["ratings"] == {"in": 240, "good": 240, "rejected": 0, "superseded": 0}
    lists = zones.recommendations()
    assert {int(row["userId"]) for row in lists} == set(range(30))
    assert "0" in {row["movieId"] for row in lists}
    assert not {(int(row["userId"]), int(row["movieId"])) for row in lists} & set(rows)
    main(["show", "--processed-path", str(zones.processed), "--user", "0", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert (answer["userId"], answer["rating_count"]) == (0, 8)


def test_columns_of_another_name_and_text_ids_that_are_not_wanted(job: Job, zones: Zones) -> None:
    zones.deliver(ratings="userId,movieId,rating,timestamp\nann,1,4.0,964982703\nbob,1,4.0,964982703\n")
    code, said = job("etl", "--set", "input.ids=integer")
    assert code == 3
    assert "column 'userId' should be BIGINT but most of its values are STRING" in said
    code, said = job("etl", "--set", "input.user=reader")
    assert code == 3
    assert "column 'reader' is missing" in said
    assert "set the names of the columns under [input]" in said


def test_the_ids_of_movielens_need_no_codes(movielens: Zones) -> None:
    assert not (movielens.processed / "delta" / "user_ids").exists()
    with (movielens.processed / "recommendations" / "movie_recommendations.csv").open() as file:
        assert all(row["userId"].isdigit() for row in csv.DictReader(file))


LATE_TEXT = [f"{user},1384719342,5.0,964982703" for user in range(1_001)] + ["7,B00X1,1.0,964982703"]
"""The first lines have integers only, and one of the others has not."""


@pytest.mark.parametrize("movies", ["", "movieId,title,genres\n1384719342,A book,\nB00X1,Another,\n"])
def test_what_all_lines_need_decides_on_codes(job: Job, zones: Zones, movies: str) -> None:
    zones.deliver(movies, "\n".join(["userId,movieId,rating,timestamp", *LATE_TEXT, ""]))
    code, said = job("etl", *([] if movies else ["--set", "raw.movies="]))
    assert code == 0, said
    assert zones.manifests()[0]["rows"]["ratings"] == {"in": 1002, "good": 1002, "rejected": 0, "superseded": 0}
    assert codes_of(zones, "movie_ids") == {"B00X1": -1}
    assert not (zones.processed / "delta" / "user_ids").exists()
    assert 'movieId: some ids are no integers: they get codes; input.ids = "integer" rejects them' in said
    code, said = job("etl", *([] if movies else ["--set", "raw.movies="]))
    assert (code, "0 of 1 files are new" in said) == (0, True)


def test_an_integer_that_is_spoilt_is_a_reject_that_names_the_setting(job: Job, zones: Zones) -> None:
    good = [f"{user},1,4.0,964982703" for user in range(2_100)]
    lines = [*good, "abc,1,4.0,964982703", *(f"{user},{user}x,4.0,964982703" for user in range(15))]
    zones.deliver(ratings="\n".join(["userId,movieId,rating,timestamp", *lines, ""]))
    code, said = job("etl")
    assert code == 0, said
    assert 'userId is not an integer from 0 to 2147483647 (input.ids = "any" takes ids of any kind)' in said
    assert zones.manifests()[0]["rejects"]["ratings"] == {
        "movieId is not an integer from 0 to 2147483647": 15,  # no movie that is listed has such an id
        "userId is not an integer from 0 to 2147483647": 1,
    }
    assert not (zones.processed / "delta" / "user_ids").exists()


def test_a_further_delivery_may_bring_the_first_ids_that_are_texts(job: Job, zones: Zones) -> None:
    zones.deliver()
    (zones.raw / "ratings.csv").rename(zones.raw / "ratings-1.csv")
    options = ("--set", "raw.ratings=ratings-*.csv")
    assert job("etl", *options)[0] == 0
    more = ["1,1,4.0,964982703"] * 1_000 + ["2,2,4.0,964982703", "ann,1,4.0,964982703"]
    (zones.raw / "ratings-2.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *more, ""]))
    code, said = job("etl", *options)
    assert code == 0, said
    rows = zones.manifests()[-1]["rows"]["ratings"]
    assert rows == {"in": 1006, "good": 6, "rejected": 0, "superseded": 1000}
    assert codes_of(zones, "user_ids") == {"ann": -1}


def test_a_zone_whose_ids_become_texts(
    job: Job, zones: Zones, spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    zones.deliver(ratings=RATINGS.replace("\n1,", "\n 1, "))  # spaces around an id are not part of it
    assert job("etl")[0] == 0
    old = spark.createDataFrame([(1, 1, 3, "x", "", 4.0, 1.0, "popular")], LISTS)
    old.write.format("delta").save(str(zones.processed / "delta" / "recommendations"))

    texts = "userId,movieId,rating,timestamp\nann,1,4.0,964982703\nbob,1,4.0,964982703\n"
    zones.deliver(ratings=texts + "eve,99,4.0,964982703\n")
    code, said = job("etl")
    assert code == 4
    assert "Only these rejects were published" in said
    assert not (zones.processed / "delta" / "user_ids").exists()

    zones.deliver(ratings=texts)
    assert job("etl")[0] == 0
    assert codes_of(zones, "user_ids") == {"ann": -1, "bob": -2}
    assert not (zones.processed / "delta" / "movie_ids").exists()
    assert job("explore")[0] == 0
    main(["show", "--processed-path", str(zones.processed), "--user", "ann", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert (answer["userId"], [row["movieId"] for row in answer["history"]], answer["recommendations"]) == (
        "ann",
        [1],
        [],
    )
    main(["show", "--processed-path", str(zones.processed), "--user", "ann"])
    assert "Nothing is recommended to them" in capsys.readouterr().out

    code, said = job("etl", "--set", "input.ids=integer")
    assert code == 3
    assert "column 'userId' should be BIGINT" in said
    zones.deliver()
    code, said = job("etl", "--set", "input.ids=integer")
    assert code == 2
    assert f"{zones.processed}/delta/user_ids has codes for other ids" in said


def test_ids_of_any_type_that_all_are_integers_need_no_codes(job: Job, zones: Zones) -> None:
    zones.deliver()
    assert job("etl", "--set", "input.ids=any")[0] == 0
    assert not (zones.processed / "delta" / "user_ids").exists()
