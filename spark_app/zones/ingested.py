"""The raw files that `ingest` wrote, and its note of where they are from: `_ingest.json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spark_app.platform import storage
from spark_app.platform.errors import InputError, UsageError
from spark_app.platform.log import logger
from spark_app.platform.settings import Raw
from spark_app.zones.manifest import RunRecord
from spark_app.zones.raw import find_files

NAMES = ("movies.csv", "ratings.csv")
RECORD = "_ingest.json"

Origin = dict[str, Any]
"""The settings that determine the files of a source."""


def incoming_folder(root: str) -> str:
    """Where files wait until all of them are there."""
    return storage.join(root, "_incoming")


def is_intact(raw: Raw, wanted: Sequence[Origin]) -> bool:
    """Whether the raw zone has both files, from an earlier ingest or from another writer, whose files are left alone.

    Raises UsageError if the files are from a source that is not in the settings, or if only one of another writer's
    files is there. Raises InputError if a file has changed since ingest wrote it.
    """
    record_path = storage.join(raw.path, RECORD)
    if not storage.exists(record_path):
        present = [name for name in (raw.movies, raw.ratings) if find_files(raw, name)[1]]
        if len(present) == len(NAMES):
            logger.info("%s has files that ingest did not put there: they are used unchanged", raw.path)
            return True
        if present:
            raise UsageError(
                f"{raw.path} holds {present[0]} but not the other file: complete it, or choose another --raw-path"
            )
        return False
    ingested = storage.read_json(record_path)
    if ingested["origin"] not in wanted:
        raise UsageError(
            f"{raw.path} holds {_as_text(ingested['origin'])}, not {' or '.join(map(_as_text, wanted))}: "
            "choose another --raw-path"
        )
    is_whole = True
    for name, checksum in ingested["files"].items():
        path = storage.join(raw.path, name)
        if not storage.exists(path):
            logger.warning("%s is missing: fetching it again", path)
            is_whole = False
        elif storage.describe(path).sha256 != checksum:
            raise InputError(
                f"{path} was changed since ingest put it there: remove it to have it fetched again, "
                f"or remove {record_path} to use it as it is"
            )
    if is_whole:
        logger.info("%s is already there and intact (%s)", raw.path, _as_text(ingested["origin"]))
    return is_whole


def _as_text(origin: Origin) -> str:
    details = ", ".join(f"{key}={value}" for key, value in origin.items() if key != "source")
    return f"{origin['source']} ({details})" if details else str(origin["source"])


def publish(root: str, origin: Origin, record: RunRecord) -> None:
    """Move the missing files into the raw zone, after their checksums are written to `_ingest.json`.

    So the next run can complete an interrupted one. Raises InputError if a file that is there already differs from the
    source's: the source has changed.
    """
    incoming = incoming_folder(root)
    files = {name: storage.describe(storage.join(incoming, name)).sha256 for name in NAMES}
    missing = [name for name in NAMES if not storage.exists(storage.join(root, name))]
    for name in NAMES:
        if name not in missing and storage.describe(storage.join(root, name)).sha256 != files[name]:
            raise InputError(
                f"{_as_text(origin)} has changed since {storage.join(root, name)} was fetched from it: empty {root}"
            )
    storage.write_json(storage.join(root, RECORD), {"origin": origin, "files": files})
    for name in missing:
        storage.publish(storage.join(incoming, name), storage.join(root, name))
        record.note_output(storage.join(root, name))
