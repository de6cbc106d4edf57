from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from spark_app.platform.errors import UsageError
from spark_app.platform.settings import ImplicitAls, Settings, build_settings, parse_assignment


def test_values_that_are_no_ratings_may_be_numbers_or_texts() -> None:
    given = build_settings(assignments=["input.unrated_values=-1", 'input.missing_values=["NA", 99, 9.5]']).input
    assert (given.unrated_values, given.missing_values) == (["-1"], ["NA", "99", "9.5"])
    assert build_settings(assignments=["input.missing_values=NULL"]).input.missing_values == ["NULL"]
    with pytest.raises(UsageError, match="'99' cannot be both an unrated and a missing value"):
        build_settings(assignments=["input.missing_values=99", "input.unrated_values=99"])


def error_of(toml: str | None = None, *assignments: str) -> str:
    with pytest.raises(UsageError) as caught:
        build_settings(toml, "my.toml", assignments)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "section", "key", "value"),
    [
        ("recommend.n=20", "recommend", "n", 20),
        (" recommend.n = 20 ", "recommend", "n", 20),
        ("gate.enforce=false", "gate", "enforce", False),
        ("gate.min_lift=1.5", "gate", "min_lift", 1.5),
        ('raw.movies="my movies.csv"', "raw", "movies", "my movies.csv"),
        ("clean.earliest=1995-06-30", "clean", "earliest", date(1995, 6, 30)),
        ('ingest.source=["a.zip", "synthetic"]', "ingest", "source", ["a.zip", "synthetic"]),
        ("raw.ratings=ratings-*.csv", "raw", "ratings", "ratings-*.csv"),
        ("raw.path=/data/a=b", "raw", "path", "/data/a=b"),
        ("ingest.source=ml-25m", "ingest", "source", "ml-25m"),
        ("raw.path=", "raw", "path", ""),
    ],
)
def test_assignment_is_toml_or_else_text(text: str, section: str, key: str, value: Any) -> None:
    assert parse_assignment(text) == (section, key, value)


def test_a_preset_is_below_all_settings_but_the_usual_defaults_of_a_file() -> None:
    every_key = (Path(__file__).parents[2] / "conf" / "pipeline.toml").read_text()
    given = build_settings(every_key, "pipeline.toml", ["input.preset=ml-100k", "input.scale_max=4"])
    assert (given.raw.ratings, given.ratings_file.delimiter) == ("u.data", "\t")
    assert (given.input.scale_min, given.input.scale_max, given.input.genres) == (1, 4, "")
    own = build_settings('[input]\npreset = "anime"\n[raw]\nratings = "mine.csv"\nmovies = "movies.csv"', "my.toml")
    assert (own.raw.ratings, own.raw.movies, own.input.unrated_values) == ("mine.csv", "anime.csv", ["-1"])
    assert error_of(None, "input.preset=ml1m") == "input.preset = 'ml1m' is unknown; did you mean ml-1m?"
    assert error_of(None, "input.preset=zzz").startswith("input.preset = 'zzz' is unknown; known are amazon-ratings, ")


@pytest.mark.parametrize("text", ["recommend.n", "n=20", "recommend.=20", ".n=20", "=20", ""])
def test_what_is_no_assignment_is_shown_with_an_example(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_assignment(text)
    assert str(caught.value) == f"--set takes SECTION.KEY=VALUE, such as gate.enforce=false; got '{text}'"


def test_defaults_then_file_then_assignments() -> None:
    toml = "[recommend]\nn = 5\nblock_users = 64\n[raw]\npath = '/data/raw'\n"
    settings = build_settings(toml, "my.toml", ["recommend.n=7", "recommend.n=8", "gate.enforce=false"])
    assert (settings.recommend.n, settings.recommend.block_users, settings.raw.path) == (8, 64, "/data/raw")
    assert (settings.gate.enforce, settings.gate.min_lift) == (False, 1.0)
    assert settings.raw.ratings == "ratings.csv"


def test_nothing_given_is_the_defaults() -> None:
    assert build_settings() == Settings()


@pytest.mark.parametrize(
    ("assignment", "source"),
    [
        ("ingest.source=ml-25m", ["ml-25m"]),
        ("ingest.source=/data/my movies.zip", ["/data/my movies.zip"]),
        ('ingest.source=["ml-25m", "synthetic"]', ["ml-25m", "synthetic"]),
        ("ingest.source=[]", []),
    ],
)
def test_a_single_name_stands_for_a_list_of_one(assignment: str, source: list[str]) -> None:
    assert build_settings(assignments=[assignment]).ingest.source == source


def test_an_empty_source_is_none() -> None:
    assert build_settings(assignments=["ingest.source="]).ingest.source == []


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("recommend.m=20", "unknown setting recommend.m; did you mean recommend.n?"),
        ("implicit_als.rnak=8", "unknown setting implicit_als.rnak; did you mean implicit_als.rank?"),
        ("recomend.n=20", "unknown setting recomend; did you mean recommend?"),
        (
            "zzz.n=20",
            "unknown setting zzz; known sections: raw, processed, ingest, input, ratings_file, movies_file, "
            "catalog, clean, train, explicit_als, implicit_als, biases, gate, recommend, similar, tune, storage, log",
        ),
    ],
)
def test_unknown_key_is_named_with_the_nearest_known_one(assignment: str, message: str) -> None:
    assert error_of(None, assignment) == message


def test_unknown_key_in_a_file_is_named_too() -> None:
    assert error_of("[input]\nscale_mn = 1\n") == "unknown setting input.scale_mn; did you mean input.scale_min?"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        (
            "recommend.n=ten",
            "setting recommend.n: Input should be a valid integer, unable to parse string as an integer; got 'ten'",
        ),
        ("recommend.n=0", "setting recommend.n: Input should be greater than or equal to 1; got 0"),
        (
            "clean.max_reject_share=1.5",
            "setting clean.max_reject_share: Input should be less than or equal to 1; got 1.5",
        ),
        ("train.holdout=random", "setting train.holdout: Input should be 'hash' or 'time'; got 'random'"),
        ("train.start=disk", "setting train.start: Input should be 'random' or 'published'; got 'disk'"),
        ("train.solver=spark", "setting train.solver: Input should be 'auto', 'own' or 'mllib'; got 'spark'"),
        ("train.tolerance=1", "setting train.tolerance: Input should be less than 1; got 1"),
        ("train.tolerance=-0.1", "setting train.tolerance: Input should be greater than or equal to 0; got -0.1"),
        ("train.refit_sweeps=0", "setting train.refit_sweeps: Input should be greater than or equal to 1; got 0"),
        (
            "train.broadcast_bytes=0",
            "setting train.broadcast_bytes: Input should be greater than or equal to 1; got 0",
        ),
        (
            "implicit_als.reg_power=1.1",
            "setting implicit_als.reg_power: Input should be less than or equal to 1; got 1.1",
        ),
        (
            "explicit_als.reg_power=-1",
            "setting explicit_als.reg_power: Input should be greater than or equal to 0; got -1",
        ),
        ("explicit_als.reg=0", "setting explicit_als.reg: Input should be greater than 0; got 0"),
        (
            "explicit_als.biases=7",
            "setting explicit_als.biases: Input should be a valid boolean, unable to interpret input; got 7",
        ),
        ("raw.path=7", "setting raw.path: Input should be a valid string; got 7"),
        ("ingest.source=[1]", "setting ingest.source.0: Input should be a valid string; got 1"),
    ],
)
def test_value_that_does_not_fit_is_named_with_its_key(assignment: str, message: str) -> None:
    assert error_of(None, assignment) == message


def test_section_that_is_no_table_is_named() -> None:
    message = error_of("recommend = 7\n", "recommend.n=3")
    assert message.startswith("setting recommend: ")
    assert message.endswith("; got 7")


@pytest.mark.parametrize("scale", [("5", "5"), ("nan", "5"), ("0.5", "inf")])
def test_scale_that_is_no_range_is_refused(scale: tuple[str, str]) -> None:
    message = error_of(None, f"input.scale_min={scale[0]}", f"input.scale_max={scale[1]}")
    assert message.startswith("setting input")


def test_toml_that_does_not_parse_names_file_and_place() -> None:
    message = error_of("[recommend]\nn = \n")
    assert message == "my.toml is not valid TOML: Invalid value (at line 2, column 5)"


@pytest.mark.parametrize(
    ("scale", "relevant", "stretch"),
    [
        ((0.5, 5, 0.5), 4.0, 1),
        ((1, 5, 1), 4.0, 8 / 9),
        ((1, 10, 1), 8.0, 2),
        ((0, 1, 1), 1.0, 2 / 9),
        ((-1, 1, 2), 1.0, 4 / 9),
        ((0, 100, 1), 78.0, 200 / 9),
    ],
)
def test_what_is_left_out_follows_the_scale(scale: tuple[float, float, float], relevant: float, stretch: float) -> None:
    low, high, step = scale
    settings = build_settings(f"[input]\nscale_min = {low}\nscale_max = {high}\nscale_step = {step}\n")
    usual, moved = ImplicitAls(), settings.implicit_als
    assert settings.train.relevant == relevant
    # `neutral` is as far up the scale, and confidence from end to end as large, as from 0.5 to 5.
    assert moved.neutral == pytest.approx(low + stretch * (usual.neutral - 0.5), abs=1e-6)
    assert moved.alpha == pytest.approx(usual.alpha / stretch, abs=1e-6)
    assert (moved.rank, moved.reg, moved.reg_power) == (usual.rank, usual.reg, usual.reg_power)


def test_what_is_given_does_not_follow_the_scale() -> None:
    settings = build_settings("[input]\nscale_max = 10\n", "", ["implicit_als.neutral=6", "train.relevant=9"])
    assert (settings.implicit_als.neutral, settings.train.relevant) == (6, 9)


def test_counts_are_liked_as_soon_as_there_are_any() -> None:
    settings = build_settings(assignments=["input.feedback=counts"])
    assert (settings.train.relevant, settings.implicit_als.neutral, settings.implicit_als.confidence) == (0, 0, "log")


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (
            ["input.timestamp=", "train.holdout=time"],
            'train.holdout = "time" needs timestamps: name their column in input.timestamp',
        ),
        (["input.rating="], 'setting input: rating may be empty only with feedback = "counts"'),
        (["input.user=movieId"], "setting input: one column cannot be two things: movieId, movieId, rating, timestamp"),
        (["input.scale_max=0.5"], "setting input: scale_max must be above scale_min"),
        (
            ["recommend.min_year=2000", "recommend.max_year=1990"],
            "setting recommend: min_year=2000 is after max_year=1990",
        ),
        (
            ["input.timestamp=", "recommend.active_since=2020-01-01"],
            "recommend.active_since needs timestamps: name their column in input.timestamp",
        ),
        (
            ["input.feedback=counts", "recommend.min_above_mean=0"],
            "no ratings are predicted from counts: leave out recommend.min_predicted_rating and "
            "recommend.min_above_mean",
        ),
        (
            ["recommend.min_predicted_rating=50"],
            "recommend.min_predicted_rating=50 is above the scale, which ends at 5",
        ),
    ],
)
def test_settings_that_do_not_fit_together_are_named(assignments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_settings(assignments=assignments)
    assert str(caught.value) == message


@pytest.mark.parametrize(("scale", "relevant"), [((0, 10, 0.1), 7.8), ((0, 5, 0.1), 3.9), ((0, 5, 0.2), 3.8)])
def test_what_is_relevant_is_a_rating_of_the_scale(scale: tuple[float, float, float], relevant: float) -> None:
    low, high, step = scale
    settings = build_settings(f"[input]\nscale_min = {low}\nscale_max = {high}\nscale_step = {step}\n")
    assert settings.train.relevant == relevant


def test_encodings_have_one_name_and_columns_come_as_a_list() -> None:
    settings = build_settings("[movies_file]\nencoding = 'Latin-1'\n[ratings_file]\nencoding = 'UTF8'\n")
    assert (settings.movies_file.encoding, settings.ratings_file.encoding) == ("iso8859-1", "utf-8")
    assignments = ["ratings_file.header=false", "ratings_file.columns=['userId', 'movieId', 'rating', 'timestamp']"]
    assert build_settings(assignments=assignments).ratings_file.columns == ["userId", "movieId", "rating", "timestamp"]


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (
            ["movies_file.encoding=klingon"],
            "setting movies_file.encoding: 'klingon' is no encoding: name one such as utf-8, latin-1, cp1252 or utf-16",
        ),
        (
            ["movies_file.encoding=base64"],
            "setting movies_file.encoding: 'base64' is no encoding: name one such as utf-8, latin-1, cp1252 or utf-16",
        ),
        (
            ["ratings_file.columns=userId"],
            "setting ratings_file: columns name the fields of files without a header: set header = false",
        ),
        (
            ["ratings_file.header=false", "ratings_file.columns=['a', '', '', 'a']"],
            "setting ratings_file: columns name 'a' twice",
        ),
        (["ratings_file.quote=|", "ratings_file.delimiter=||"], "the quote cannot be part of the delimiter"),
        (["input.delimiter=:", "ratings_file.quote=:"], "ratings_file.quote cannot be part of input.delimiter"),
        (
            ["ratings_file.header=false", "ratings_file.columns=['userId', 'movieId', 'rating']"],
            "ratings_file.header = false, but ratings_file.columns does not name 'timestamp': name the columns in "
            "their order, or say under [input] which there are",
        ),
        (["ratings_file.layout=matrix"], 'ratings_file.layout = "matrix" has no times: set input.timestamp = ""'),
        (["movies_file.rest_in_last=true"], "rest_in_last is for files without a header and without quotes"),
        (["input.delimiter="], "setting input.delimiter: String should match pattern"),
    ],
)
def test_how_files_are_written_is_checked(assignments: list[str], message: str) -> None:
    assert message in error_of(None, *assignments)


def test_tables_may_call_the_item_differently() -> None:
    assignments = ["movies_file.header=false", "movies_file.columns=['MAL_ID', 'title', '', 'genres']"]
    assert "does not name 'movieId'" in error_of(None, *assignments)
    assert build_settings(assignments=[*assignments, "movies_file.item=MAL_ID"]).movies_file.item == "MAL_ID"
    assert build_settings(assignments=[*assignments, "raw.movies="]).movies_file.item == ""


def test_all_wrong_settings_are_told_at_once() -> None:
    assert error_of("[gate]\nenforced = true\n", "recommend.m=20", "nonsense", "train.k=ten") == (
        "4 settings are wrong: (1) --set takes SECTION.KEY=VALUE, such as gate.enforce=false; got 'nonsense' "
        "(2) setting train.k: Input should be a valid integer, unable to parse string as an integer; got 'ten' "
        "(3) unknown setting gate.enforced; did you mean gate.enforce? "
        "(4) unknown setting recommend.m; did you mean recommend.n?"
    )
