"""An account of AWS, as the commands see it: calls that are sent, or only printed."""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
from boto3.exceptions import S3UploadFailedError
from botocore.config import Config
from botocore.exceptions import NoRegionError

from spark_app.platform import s3

ATTEMPTS = 8
"""How often a call is tried; where AWS throttles, the waits between grow to some twenty seconds each."""

MAX_SHOWN = 400


class Placeholder(dict[str, Any]):
    """The answer to a call that was not sent: whatever is asked of it is its name, in angle brackets."""

    def __missing__(self, key: str) -> str:
        return f"<{key}>"


class Account:
    """Calls to AWS, with credentials, region and end points by the standard chains and from nowhere else.

    With `dry_run` each call is printed and none is sent.
    """

    def __init__(self, *, dry_run: bool = False) -> None:
        self.dry_run = dry_run
        self._session = boto3.Session(region_name=s3.region())

    @property
    def region(self) -> str:
        """The region; with dry run it may be missing. Raises NoRegionError where nothing names one."""
        if self._session.region_name:
            return str(self._session.region_name)
        if self.dry_run:
            return "<region>"
        raise NoRegionError

    def call(self, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        """Send one call, named as in boto3; returns the answer. With dry run it is printed, and the answer unknown."""
        if self.dry_run:
            self._print(service, operation, arguments)
            return Placeholder()
        return dict(getattr(self._client(service), operation)(**arguments))

    def pages(self, service: str, operation: str, key: str, **arguments: Any) -> list[Any]:
        """Everything that an operation lists under a key, over all pages; nothing with dry run."""
        return [item for page in self.each_page(service, operation, **arguments) for item in page.get(key, [])]

    def each_page(self, service: str, operation: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        """The answers of an operation that lists, page by page; none with dry run."""
        if self.dry_run:
            self._print(service, operation, arguments)
        elif self._client(service).can_paginate(operation):
            yield from self._client(service).get_paginator(operation).paginate(**arguments)
        else:
            yield self.call(service, operation, **arguments)

    def upload(self, file: Path, bucket: str, key: str) -> None:
        """Put a file into a bucket, in parts where it is large."""
        if self.dry_run:
            self._print("s3", "upload_file", {"Filename": str(file), "Bucket": bucket, "Key": key})
            return
        try:
            self._client("s3").upload_file(str(file), bucket, key)
        except S3UploadFailedError as error:
            raise error.__context__ or error from None  # what S3 said is behind it

    def wait(self, seconds: float) -> None:
        """Let time pass between two looks at something."""
        if not self.dry_run:
            time.sleep(seconds)

    def _print(self, service: str, operation: str, arguments: dict[str, Any]) -> None:
        shown = {key: _shortened(value) for key, value in arguments.items()}
        sys.stdout.write(f"{service} {operation} {json.dumps(shown, default=str)}\n")

    @functools.cache  # noqa: B019 - an account lives as long as the command
    def _client(self, service: str) -> Any:
        patience = Config(
            retries={"total_max_attempts": ATTEMPTS, "mode": "standard"}, connect_timeout=10, read_timeout=60
        )
        return self._session.client(service, config=patience, region_name=self.region)


def _shortened(value: Any) -> Any:
    if isinstance(value, str) and len(value) > MAX_SHOWN:
        return f"{value[:60]}... ({len(value)} characters)"
    return value
