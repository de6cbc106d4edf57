"""The pages for people: no link leads nowhere, and each command names the test that runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.docs import ROOT, problems

LONGEST_README = 180


def written(
    root: Path, text: str, other: str = "# Other\n\n## A second `heading`, twice\n\n## Same\n\n## Same\n"
) -> Path:
    (root / "docs").mkdir()
    (root / "README.md").write_text(text)
    (root / "docs" / "other.md").write_text(other)
    (root / "tests").mkdir()
    (root / "tests" / "test_it.py").write_text('run("it")')
    return root


@pytest.mark.parametrize(
    "text",
    [
        "# Here\n\n[there](docs/other.md), [part](docs/other.md#a-second-heading-twice)\n",
        "# Here\n\n[the second of two](docs/other.md#same-1)\n",
        "# Here\n\n[up](#here) and [away](https://example.org/nothing#at-all)\n",
        "<!-- tested by tests/test_it.py -->\n```sh\nmake it\n```\n",
        "<!-- not tested: it needs an account -->\n```sh\nmake it\n```\n",
        "```python\nprint()\n```\n",
    ],
)
def test_pages_that_are_right(tmp_path: Path, text: str) -> None:
    assert list(problems(written(tmp_path, text))) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[there](docs/none.md)\n", "README.md:1: docs/none.md does not exist"),
        ("![picture](docs/none.png)\n", "README.md:1: docs/none.png does not exist"),
        ("\n[part](docs/other.md#nowhere)\n", "README.md:2: docs/other.md#nowhere names no heading there"),
        ("```sh\nmake it\n```\n", "README.md:1: a command without <!-- tested by"),
        (
            "<!-- tested by tests/test_it.py -->\n```sh\nmake another\n```\n",
            "README.md:2: test_it.py does not run another",
        ),
        ("<!-- tested by tests/test_no.py -->\n```sh\nmake it\n```\n", "README.md:2: test_no.py does not exist"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    (found,) = problems(written(tmp_path, text))
    assert found.startswith(problem)


def test_our_pages_are_right() -> None:
    assert list(problems(ROOT)) == []


def test_the_readme_can_be_read_in_one_go() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= LONGEST_README
