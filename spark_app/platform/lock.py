"""The lock of a zone: one run at a time writes there."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

from botocore.exceptions import ClientError
from filelock import FileLock, Timeout

from spark_app.platform import s3, storage
from spark_app.platform.errors import LockedError, StorageError
from spark_app.platform.log import logger

Zone = Literal["raw", "processed"]

HOLDER = "_lock.json"
"""The file under the root of a zone that says which run holds the lock. In S3 this object is the lock itself."""

CONDITION_FAILED = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED)
"""Answers to a conditional write that fails: the object is gone, is being written, or has another version."""

RENEWALS_PER_LEASE = 4
"""How many times a lease is renewed before it would end."""


def holding(zone: Zone, root: str, run_id: str, lease_seconds: int) -> AbstractContextManager[None]:
    """Hold the lock of a zone while one run writes there.

    On a disk the operating system keeps the lock, and frees it at once when the run is killed. In S3 the lock is an
    object that the run renews; after a kill it becomes free when its lease of `lease_seconds` ends. Raises LockedError
    that names the holder, or StorageError where the zone cannot be written.
    """
    if s3.is_s3(root):
        return _holding_object(zone, root, run_id, lease_seconds)
    return _holding_file(zone, root, run_id)


@contextlib.contextmanager
def _holding_file(zone: Zone, root: str, run_id: str) -> Iterator[None]:
    """Lock a folder, and create it where it is missing. A second file says which run holds the lock."""
    holder = storage.join(root, HOLDER)
    try:
        Path(root).mkdir(parents=True, exist_ok=True)
        lock = FileLock(storage.join(root, "_lock"))
        lock.acquire(timeout=0)
    except Timeout as error:
        raise LockedError(f"{root} is in use by {_describe(_read(holder))}; wait for it to end, or stop it") from error
    except OSError as error:
        raise _not_writable(zone, root, error) from error
    try:
        storage.write_json(holder, _facts(run_id))
        yield
    finally:
        storage.remove(holder)
        lock.release()


@contextlib.contextmanager
def _holding_object(zone: Zone, root: str, run_id: str, lease_seconds: int) -> Iterator[None]:
    """Lock a prefix in S3 by an object there."""
    lease = _Lease(*s3.split(storage.join(root, HOLDER)), {**_facts(run_id), "lease_seconds": lease_seconds})
    try:
        held_by = lease.take()
    except s3.failures() as error:
        raise _not_writable(zone, root, error) from error
    if held_by is not None:
        seconds = held_by.get("lease_seconds", lease_seconds)
        raise LockedError(
            f"{root} is in use by {_describe(held_by)}; wait for it to end, or stop it: "
            f"if it was killed, the zone is free {seconds} seconds after that"
        )
    ended = threading.Event()
    renew_seconds = lease_seconds / RENEWALS_PER_LEASE
    renewals = threading.Thread(target=_renew_until, args=(ended, lease, root, renew_seconds), daemon=True)
    renewals.start()
    try:
        yield
    finally:
        ended.set()
        renewals.join()
        with s3.ignoring_failures():  # the lease ends by itself
            lease.give_back()


@dataclass
class _Lease:
    """The lock object of one run, which it writes only where no other run has a lease that is still valid.

    Each write names the version that it replaces, so that of two simultaneous writes one fails. The server's clock
    gives the age of an object.
    """

    bucket: str
    key: str
    facts: dict[str, Any]
    version: str = ""

    def __post_init__(self) -> None:
        self._client = s3.client()

    def take(self) -> dict[str, Any] | None:
        """Take the lock; returns None, or the facts of the other run that holds it."""
        if self._put(IfNoneMatch="*"):
            return None
        held_by, version, age = self._look()
        if self._is_ours(held_by):  # an earlier try wrote it, but the answer was lost
            self.version = version
            return None
        if age < held_by.get("lease_seconds", self.facts["lease_seconds"]):
            return held_by
        if not self._put(**({"IfMatch": version} if version else {"IfNoneMatch": "*"})):
            return self._look()[0]
        if version:
            logger.warning("took over the lock of %s, whose lease has ended", _describe(held_by))
        return None

    def renew(self) -> bool:
        """Start the lease again; returns False where another run has taken the lock."""
        if self._put(IfMatch=self.version):
            return True
        held_by, version, _ = self._look()
        if not self._is_ours(held_by):
            return False
        self.version = version  # an earlier try wrote it, but the answer was lost
        return True

    def give_back(self) -> None:
        """Remove the lock, if it is still this run's."""
        if self._is_ours(self._look()[0]):
            self._client.delete_object(Bucket=self.bucket, Key=self.key)

    def _is_ours(self, facts: dict[str, Any]) -> bool:
        return bool(facts.get("run_id") == self.facts["run_id"])

    def _put(self, **condition: str) -> bool:
        """Write the object if a condition holds; returns whether it did."""
        body = json.dumps({**self.facts, "renewed": datetime.now(UTC).isoformat()}).encode()
        try:
            answer = self._client.put_object(Bucket=self.bucket, Key=self.key, Body=body, **condition)
        except ClientError as error:
            if _status(error) in CONDITION_FAILED and error.response["Error"]["Code"] != "NoSuchBucket":
                return False
            raise
        self.version = answer["ETag"]
        return True

    def _look(self) -> tuple[dict[str, Any], str, float]:
        """The facts in the object, its version, and its age in seconds. A missing object has an empty version."""
        try:
            answer = self._client.get_object(Bucket=self.bucket, Key=self.key)
        except ClientError as error:
            if _status(error) == HTTPStatus.NOT_FOUND:
                return {}, "", float("inf")
            raise
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        age = (now - answer["LastModified"]).total_seconds()
        return _parsed(answer["Body"].read()), answer["ETag"], age


def _renew_until(ended: threading.Event, lease: _Lease, root: str, seconds: float) -> None:
    """Renew a lease until `ended` is set.

    Where another run has taken the lock, end the process: this run must not write another byte.
    """
    while not ended.wait(seconds):
        try:
            is_held = lease.renew()
        except s3.failures() as error:
            logger.warning("the lock of %s could not be renewed: %s", root, storage.reason(error))
            continue
        if not is_held:
            logger.error(
                "another run has taken the lock of %s, because this run did not renew it in time: stopping", root
            )
            os._exit(LockedError.exit_code)


def _facts(run_id: str) -> dict[str, Any]:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return {"run_id": run_id, "host": socket.gethostname(), "pid": os.getpid(), "since": since}


def _read(holder: str) -> dict[str, Any]:
    try:
        return _parsed(storage.read_text(holder))
    except OSError:
        return {}


def _parsed(text: str | bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except ValueError:
        return {}


def _describe(facts: dict[str, Any]) -> str:
    if "run_id" not in facts:
        return "another run that has only just started"
    return f"run {facts['run_id']} (process {facts['pid']} on {facts['host']}, since {facts['since']})"


def _not_writable(zone: Zone, root: str, error: Exception) -> StorageError:
    why = storage.reason(error)
    return StorageError(f"cannot write to the {zone} zone {root}: {why}; check --{zone}-path and its permissions")


def _status(error: ClientError) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
