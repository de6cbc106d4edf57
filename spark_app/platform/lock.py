"""One run at a time on a zone."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from spark_app.platform import storage
from spark_app.platform.errors import LockedError, StorageError


@contextlib.contextmanager
def holding(zone: Literal["raw", "processed"], root: str, run_id: str) -> Iterator[None]:
    """Hold a zone for one run that writes there; the root is made where it is missing.

    The lock is the operating system's, on a file: a killed run lets go of it at once. A second file says who holds it.
    Raises LockedError naming the holder, or StorageError where the zone cannot be written.
    """
    holder = storage.join(root, "_lock.json")
    try:
        Path(root).mkdir(parents=True, exist_ok=True)
        lock = FileLock(storage.join(root, "_lock"))
        lock.acquire(timeout=0)
    except Timeout as error:
        raise LockedError(f"{root} is in use by {_describe(holder)}; wait for it to end, or stop it") from error
    except OSError as error:
        raise StorageError(
            f"cannot write to the {zone} zone {root}: {storage.reason(error)}; check --{zone}-path and its permissions"
        ) from error
    try:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        storage.write_json(holder, {"run_id": run_id, "host": socket.gethostname(), "pid": os.getpid(), "since": since})
        yield
    finally:
        storage.remove(holder)
        lock.release()


def _describe(holder: str) -> str:
    try:
        facts = storage.read_json(holder)
    except (OSError, json.JSONDecodeError):
        return "another run that has only just started"
    return f"run {facts['run_id']} (process {facts['pid']} on {facts['host']}, since {facts['since']})"
