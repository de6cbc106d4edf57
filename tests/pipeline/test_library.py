"""The page docs/library.md: its examples run, in order, on what the demo publishes."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from pyspark.ml.recommendation import ALSModel
from pyspark.sql import SparkSession

from tests.pipeline.conftest import ROOT, Zones

PAGE = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
SIX = [
    "Fit the estimator",
    "Load the published models",
    "Top N",
    "Similar movies",
    "Fold in: a list for somebody new",
    "Metrics",
]


def test_the_page_shows_six_things() -> None:
    assert re.findall(r"^## \d\. (.+)$", PAGE, re.MULTILINE) == SIX


def test_its_examples_run_and_give_what_they_promise(
    spark: SparkSession,
    movielens: Zones,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "processed").symlink_to(movielens.processed)
    values: dict[str, Any] = {}
    for text in re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        # Java has a working folder of its own.
        example = re.sub(r'"(demo/processed|als-model)', rf'"{tmp_path}/\1', text)
        exec(compile(example, "docs/library.md", "exec"), values)  # noqa: S102 - our own page
    assert values["spark"] is spark, "the session of the tests"
    assert ALSModel.load(str(tmp_path / "als-model")).rank == 16
    published = [
        row for row in movielens.recommendations() if row["userId"] in ("1", "2", "3") and int(row["rank"]) <= 5
    ]
    found = sorted((str(row["userId"]), str(row["movieId"])) for row in values["top"].collect())
    assert found == sorted((row["userId"], row["movieId"]) for row in published)
    assert [row["rank"] for row in values["recommender"].recommend({"1": 5.0, "260": 4.5})] == [1, 2, 3, 4, 5]
    figures, intervals = values["figures"], values["intervals"]
    assert figures["implicit"]["ndcg@10"] > figures["popularity"]["ndcg@10"]
    low, high = intervals["implicit"]["ndcg@10"]
    assert low < figures["implicit"]["ndcg@10"] < high
