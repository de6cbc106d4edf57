"""Looks at a raw folder of an unknown form, and proposes the settings that read it."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections import defaultdict

import tomlkit

from spark_app.data.looks import Look, look_at
from spark_app.data.proposal import Proposal, propose
from spark_app.platform import storage
from spark_app.platform.errors import InputError, JobError
from spark_app.platform.settings import Settings, build_settings
from spark_app.zones.raw import RawTable, survey

SAMPLE_BYTES = 32_000_000
"""As much of a file is read: the encoding shows late in a text that is mostly ASCII."""

ALIKE = 3
"""Of files whose names differ by their numbers alone so many are looked at."""


def advice(raw: str) -> str:
    """What to do about files that cannot be read as the settings say; empty if there are no files."""
    with contextlib.suppress(JobError):
        if storage.find_files(raw):
            return f"`python -m spark_app check {shlex.quote(raw)}` proposes settings for these files"
    return ""


def surveyed(settings: Settings) -> tuple[RawTable | None, RawTable]:
    """The tables of the raw zone, as `survey` finds them. An InputError names the command that proposes settings."""
    try:
        return survey(settings)
    except InputError as error:
        hint = advice(settings.raw.path)
        raise InputError(f"{error}; {hint}" if hint else str(error)) from error


def proposed_settings(raw: str) -> str:
    """Settings for the files under a raw root, as TOML with comments on what was seen.

    Raises InputError if no file seems to hold ratings.
    """
    looks, others = _looks(raw)
    found = propose(looks)
    if found is None:
        names = ", ".join([*(look.name for look in looks), *others][:5]) or "no file"
        raise InputError(f"{raw}: no file seems to hold ratings of items by users (found {names})")
    toml = _as_toml(found)
    return f"{_verdict(raw, toml)}\n{toml}"


def _looks(raw: str) -> tuple[list[Look], list[str]]:
    """How the files under a root look, and the names of files that cannot be read."""
    alike: dict[str, list[str]] = defaultdict(list)
    for path in storage.find_files(raw):
        alike[re.sub(r"\d+", "0", path)].append(path)
    looks, others = list[Look](), list[str]()
    for path in (path for paths in alike.values() for path in paths[:ALIKE]):
        name = path.removeprefix(storage.join(raw, ""))
        try:
            with storage.reading(path) as content:
                head = content.stream.read(SAMPLE_BYTES + 1)
        except InputError:
            others.append(name)
            continue
        look = look_at(name, head[:SAMPLE_BYTES], len(head))
        if look:
            looks.append(look)
        else:
            others.append(name)
    return looks, others


def _verdict(raw: str, toml: str) -> str:
    """A comment on whether the files can be read with the proposed settings."""
    try:
        settings = build_settings(toml, "the proposal")
        survey(settings.model_copy(update={"raw": settings.raw.model_copy(update={"path": raw})}))
    except JobError as error:
        return f"# With these settings the files cannot be read yet: {error}"
    return "# The first lines of the files can be read with these settings. Give them to the jobs by --config."


def _as_toml(found: Proposal) -> str:
    document = tomlkit.document()
    for section, values in found.sections.items():
        table = tomlkit.table()
        for sentence in found.seen.get(section, ()):
            table.add(tomlkit.comment(sentence))
        for key, value in values.items():
            table.add(key, value)
        document.add(section, table)
    for look in found.used:
        header = "no header" if look.header is None else f"the header {look.dialect.delimiter.join(look.header)}"
        document.add(tomlkit.comment(f"{look.name}: {look.encoding}, {header}, {len(look.columns)} columns"))
    return tomlkit.dumps(document)
