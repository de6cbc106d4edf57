"""`python -m spark_app check` on disk and in S3."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from spark_app.ask import main
from spark_app.platform import s3
from spark_app.platform.errors import InputError
from spark_app.platform.settings import Settings, build_settings
from spark_app.zones.raw_check import advice, proposed_settings
from tests.conftest import BUCKET
from tests.forms import FORMS
from tools.s3_server import S3Server


def proposed(folder: Path) -> Settings:
    return build_settings(proposed_settings(str(folder)), "the proposal")


def test_files_of_movielens_need_no_settings(tmp_path: Path) -> None:
    FORMS["ml-20m"]().deliver(tmp_path)
    assert proposed(tmp_path) == Settings()


def test_it_is_a_command_that_prints_toml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FORMS["anime"]().deliver(tmp_path)
    main(["check", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "# -1 in" in printed
    assert build_settings(printed).input.unrated_values == ["-1"]
    with pytest.raises(SystemExit) as ended:
        main(["check", str(tmp_path / "gone")])
    assert ended.value.code == 3
    assert f"check: {tmp_path}/gone: no file seems to hold ratings" in capsys.readouterr().err


def test_files_that_hold_no_ratings_are_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing\nhere\n")
    with pytest.raises(InputError, match=r"no file seems to hold ratings of items by users \(found notes.txt\)"):
        proposed_settings(str(tmp_path))


def test_what_excel_writes(tmp_path: Path) -> None:
    rows = [
        f"{user};{item};{(user * item) % 9 / 2 + 1:g}".replace(".", ",")
        for user in range(1, 20)
        for item in range(1, 9)
    ]
    (tmp_path / "Bewertungen.csv").write_bytes("\r\n".join(["user;film;vote", *rows, ""]).encode("utf-16"))
    found = proposed(tmp_path)
    assert (found.raw.ratings, found.raw.movies) == ("Bewertungen.csv", "")
    assert (found.input.user, found.input.item, found.input.rating, found.input.timestamp) == (
        "user",
        "film",
        "vote",
        "",
    )
    assert (found.ratings_file.delimiter, found.ratings_file.decimal) == (";", ",")
    assert (found.input.scale_min, found.input.scale_max, found.input.scale_step) == (1, 5, 0.5)


def test_values_that_are_none_and_ids_of_another_name_in_the_movies(tmp_path: Path) -> None:
    rows = [
        f"u{user},{item},{['NA', '1', '2', '3', '4', '5'][(user + item) % 6]}" for user in range(9) for item in range(9)
    ]
    (tmp_path / "ratings.csv.gz").write_bytes(gzip.compress("\n".join(["user_id,anime_id,score", *rows, ""]).encode()))
    shows = [f"{item},Show {item},Drama; Music" for item in range(9)]
    (tmp_path / "anime.csv").write_text("\n".join(["MAL_ID,Name,Genres", *shows, ""]))
    found = proposed(tmp_path)
    assert found.input.missing_values == ["NA"]
    assert (found.movies_file.item, found.input.title, found.input.genres) == ("MAL_ID", "Name", "Genres")
    assert found.input.genre_separator == ";"
    assert (found.input.scale_min, found.input.scale_max) == (1, 5)


def test_advice_is_given_where_there_are_files(tmp_path: Path) -> None:
    assert advice(str(tmp_path)) == ""
    (tmp_path / "my file.csv").write_text("a,b\n")
    assert advice(str(tmp_path)) == f"`python -m spark_app check {tmp_path}` proposes settings for these files"


def test_it_looks_at_files_in_s3(in_s3: str, s3_server: S3Server) -> None:
    form = FORMS["ml-1m"]()
    for name, content in form.files.items():
        s3_server.client().put_object(Bucket=BUCKET, Key=f"{s3.split(in_s3)[1]}/raw/{name}", Body=content)
    found = build_settings(proposed_settings(f"{in_s3}/raw"), "the proposal")
    assert (found.raw.movies, found.raw.ratings) == ("movies.dat", "ratings.dat")
    assert (found.ratings_file.delimiter, found.movies_file.encoding) == ("::", "iso8859-1")
