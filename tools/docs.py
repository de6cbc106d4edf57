"""Check README.md and docs/: every link and anchor leads somewhere, and every command says which test runs it.

`python -m tools.docs` prints what is wrong, a line each, and exits with 1 where anything is.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[1]
SHELL = ("sh", "bash", "shell", "console")
STARTED = re.compile(r"(?:make |jobs/|spark_app )([a-z][a-z0-9-]*)")
"""What a command starts: a target, a job, or a command of the package."""

MARK = re.compile(r"<!-- (?:tested by (?P<test>\S+)|not tested: (?P<why>.+?)) -->")


def pages(root: Path) -> list[Path]:
    """README.md, every page under docs/, and the guides beside the settings they explain."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md")), *sorted((root / "conf").rglob("*.md"))]


def problems(root: Path) -> Iterator[str]:
    """What is wrong on the pages under a root, a sentence each, with the page and the line."""
    parsed = {page: MarkdownIt("commonmark").enable("table").parse(page.read_text()) for page in pages(root)}
    anchors = {page.resolve(): set(_anchors(tokens)) for page, tokens in parsed.items()}
    for page, tokens in parsed.items():
        name = page.relative_to(root)
        for line, target in _links(tokens):
            if why := _broken(page, target, anchors):
                yield f"{name}:{line}: {target} {why}"
        for line, why in _unmarked_commands(tokens, root):
            yield f"{name}:{line}: {why}"


def _anchors(tokens: list[Token]) -> Iterator[str]:
    """The anchors of all headings, as GitHub makes them: lower case, hyphens for spaces, numbers for repetitions."""
    seen: Counter[str] = Counter()
    for heading, content in itertools.pairwise(tokens):
        if heading.type == "heading_open":
            text = "".join(part.content for part in content.children or [] if part.type in ("text", "code_inline"))
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            yield slug if not seen[slug] else f"{slug}-{seen[slug]}"
            seen[slug] += 1


def _links(tokens: list[Token]) -> Iterator[tuple[int, str]]:
    """The line and the target of every link and picture."""
    for token in tokens:
        for part in token.children or []:
            target = part.attrGet("href") or part.attrGet("src")
            if target:
                yield (token.map or [0])[0] + 1, str(target)


def _broken(page: Path, target: str, anchors: dict[Path, set[str]]) -> str | None:
    """What is wrong with a link to a file or a heading of this repository; None where nothing is, or it leads away."""
    address = urlsplit(target)
    if address.scheme or address.netloc:
        return None
    place = (page.parent / unquote(address.path)).resolve() if address.path else page.resolve()
    if not place.exists():
        return "does not exist"
    if address.fragment and place in anchors and unquote(address.fragment) not in anchors[place]:
        return "names no heading there"
    return None


def _unmarked_commands(tokens: list[Token], root: Path) -> Iterator[tuple[int, str]]:
    """Commands that do not say which test runs them, or why none does."""
    before = ""
    for token in tokens:
        if token.type == "fence" and token.info.strip() in SHELL:
            line = (token.map or [0])[0] + 1
            mark = MARK.search(before)
            if not mark:
                yield line, "a command without <!-- tested by FILE --> or <!-- not tested: WHY --> before it"
            elif mark["test"]:
                yield from ((line, why) for why in _untested(token.content, root / mark["test"]))
        before = token.content if token.type == "html_block" else ""


def _untested(commands: str, test: Path) -> Iterator[str]:
    """Targets, jobs and modules in some commands that the test named beside them does not mention."""
    if not test.exists():
        yield f"{test.name} does not exist"
        return
    text = test.read_text()
    for name in dict.fromkeys(STARTED.findall(commands)):
        if name not in text:
            yield f"{test.name} does not run {name}"


if __name__ == "__main__":
    wrong = list(problems(ROOT))
    for sentence in wrong:
        print(sentence)  # noqa: T201
    sys.exit(bool(wrong))
