"""Titles and paths with any characters arrive unchanged: as data in the CSV, as text in the report."""

from __future__ import annotations

import csv
import dataclasses
import io

import pytest

from spark_app.data import synthetic
from spark_app.platform import storage
from spark_app.zones import report_data
from tests.reliability.conftest import Place
from tests.report.test_page import Page

pytestmark = pytest.mark.long

HOSTILE = [
    "=HYPERLINK(\"http://127.0.0.1/?\"&A1,\"x\")",
    "+1", "-1", "@SUM(A1:A9)", "\tTab", "'quoted'",
    '<script>alert("x")</script>', "<img src=x onerror=alert(1)>", "&lt;b&gt; &amp;",
    'Say "Hi", He Said', '""', "C:\\new\\table", "100 % {0} %s $HOME `id`",
    "two\nlines", "two\r\nlines", "a return\ralone",
    "\u202egnp.exe", "عنوان", "Amélie 🎬", "\u200b", "ends in a backslash\\",
    "M" * 1_000_000,
]  # fmt: skip


def test_titles_and_paths(place: Place) -> None:
    place = dataclasses.replace(place, root=f"{place.root}/a b=1/50 % off [x]{{y}}#é")
    world = synthetic.make_world(60, 40, 1000, 1)
    titles = dict(zip(synthetic.movie_rows(world, 1)["movieId"].to_pylist(), HOSTILE, strict=False))
    movies, ratings = io.StringIO(), io.StringIO()
    writer = csv.writer(movies)  # it quotes a carriage return too, which ends a line where it stands alone
    writer.writerow(["movieId", "title", "genres"])
    for row in synthetic.movie_rows(world, 1).to_pylist():
        writer.writerow([row["movieId"], titles.get(row["movieId"], row["title"]), row["genres"]])
    rows = csv.writer(ratings, lineterminator="\n")
    rows.writerow(synthetic.RATINGS_SCHEMA.names)
    for chunk in synthetic.rating_chunks(world, 1):
        rows.writerows(chunk.to_pandas().itertuples(index=False))
    storage.write_text(f"{place.root}/raw/movies.csv", movies.getvalue())
    storage.write_text(f"{place.root}/raw/ratings.csv", ratings.getvalue())

    place.run("pipeline", "--set", "ingest.source=[]", "--set", "recommend.n=40", "--set", "gate.enforce=false")

    with storage.reading_text(place.zone.recommendations_csv) as stream:
        csv.field_size_limit(10_000_000)
        listed = {int(row["movieId"]): row["title"] for row in csv.DictReader(stream)}
    assert {movie: listed[movie] for movie in titles if movie in listed} == titles
    (report,) = storage.list_files(place.zone.reports)
    page = storage.read_text(report)
    assert "<script" not in page
    assert "onerror" not in page.replace("onerror=alert(1)&gt;", "")
    shown = Page(page).text
    recommended = report_data.sample_users(place.zone, (0.1, 0.5, 0.9))
    for title in {row["title"] for user in recommended for row in user["recommendations"][:3]}:
        assert " ".join(title.split()) in shown
