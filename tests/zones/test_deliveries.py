"""`etl` reads all files again if anything changes that decides how a row is judged, and only then."""

from __future__ import annotations

import ast
import hashlib
import inspect
import io
import tokenize
from datetime import date
from typing import Any

import pytest

from spark_app.data import clean, contract, dialect, ids, latest, lines, plain_lines, records, rules
from spark_app.platform.settings import Clean, Input, Settings, build_settings
from spark_app.zones import plain_ratings, raw
from spark_app.zones.deliveries import digest as digest_of

JUDGES = (rules, clean, lines, plain_lines, latest, contract, ids, raw, plain_ratings, dialect, records)
"""The modules that decide what becomes of a row."""

CODE = {
    1: "7f5237c423f5918f",
    2: "d27a72f57573c946",
    3: "c3ce9c433518d465",
    4: "8d0c16656496ebed",
    5: "b616740c8cdf2a72",
    6: "acdc84579b730520",
}
"""The digest of the code that judges rows, by version of the rules.

If this test fails, the code has changed. If any row is now judged differently, raise RULES_VERSION and add its digest
here. If not (a rename, a faster way), replace the digest of this version.
"""


def digest_of_code() -> str:
    """The digest of the code of `JUDGES`, without comments, docstrings and layout."""
    found = hashlib.sha256()
    for module in JUDGES:
        code = inspect.getsource(module)
        lines = code.splitlines()
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            if token.type == tokenize.COMMENT:
                row, column = token.start
                lines[row - 1] = lines[row - 1][:column]
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and node.end_lineno:
                lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
        found.update("".join("".join(lines).split()).encode())
    return found.hexdigest()[:16]


def test_the_version_of_the_rules_changes_with_the_code_that_judges_rows() -> None:
    assert {rules.RULES_VERSION: digest_of_code()} == {max(CODE): CODE[max(CODE)]}


def digest(**sections: dict[str, Any]) -> str:
    return digest_of(Settings.model_validate(sections), ())


@pytest.mark.parametrize(
    ("section", "key"), [(section, key) for section, keys in rules.NOT_JUDGING.items() for key in sorted(keys)]
)
def test_settings_that_do_not_matter_are_settings(section: str, key: str) -> None:
    known = {"input": Input(), "clean": Clean()}[section].model_dump()
    assert key in known


def test_rows_are_judged_alike_whatever_else_is_set() -> None:
    assert digest() == digest(clean={"max_reject_share": 0.5, "damping": 1.0}, input={"take": "all"})
    assert digest() == digest_of(build_settings(assignments=["recommend.n=3", "train.k=5"]), ())


@pytest.mark.parametrize(
    "sections",
    [
        {"clean": {"earliest": date(2001, 1, 1)}},
        {"clean": {"latest": date(2020, 1, 1)}},
        {"input": {"scale_max": 10.0}},
        {"input": {"delimiter": ";"}},
        {"raw": {"movies": ""}},
        {"ratings_file": {"encoding": "cp1252"}},
        {"ratings_file": {"skip_blanks": True}},
    ],
)
def test_whatever_decides_on_a_row_is_part_of_the_digest(sections: dict[str, dict[str, Any]]) -> None:
    assert digest(**sections) != digest()


def test_ids_that_need_codes_and_the_version_of_the_rules_are_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert digest_of(Settings(), ("userId",)) != digest()
    before = digest()
    monkeypatch.setattr(rules, "RULES_VERSION", rules.RULES_VERSION + 1)
    assert digest() != before
