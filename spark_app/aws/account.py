"""Calls to an AWS account: sent, or only printed with `--dry-run`."""

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
"""How often a call is tried. While AWS throttles, the waits between attempts grow to some twenty seconds each."""

MAX_SHOWN = 400


class Placeholder(dict[str, Any]):
    """The answer to a call that was not sent: the value of each key is the key itself in angle brackets."""

    def __missing__(self, key: str) -> str:
        return f"<{key}>"


class Account:
    """Calls to AWS. Credentials, region and end points come from AWS's standard chains only.

    With `dry_run` each call is printed and none is sent; `printed` counts them.
    """

    def __init__(self, *, dry_run: bool = False) -> None:
        self.dry_run = dry_run
        self.printed = 0
        self._session = boto3.Session(region_name=s3.region())

    @property
    def region(self) -> str:
        """The region; a placeholder where a dry run has none. Raises NoRegionError where nothing names a region."""
        if self._session.region_name:
            return str(self._session.region_name)
        if self.dry_run:
            return "<region>"
        raise NoRegionError

    def call(self, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        """Send one call, named as in boto3, and return its answer. A dry run prints it and returns a Placeholder."""
        if self.dry_run:
            self._print(service, operation, arguments)
            return Placeholder()
        return dict(getattr(self._client(service), operation)(**arguments))

    def pages(self, service: str, operation: str, key: str, **arguments: Any) -> list[Any]:
        """All items that an operation lists under `key`, over all pages; none with dry run."""
        return [item for page in self.each_page(service, operation, **arguments) for item in page.get(key, [])]

    def each_page(self, service: str, operation: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        """The answers of a listing operation, page by page; none with dry run."""
        if self.dry_run:
            self._print(service, operation, arguments)
        elif self._client(service).can_paginate(operation):
            yield from self._client(service).get_paginator(operation).paginate(**arguments)
        else:
            yield self.call(service, operation, **arguments)

    def upload(self, file: Path, bucket: str, key: str) -> None:
        """Upload a file to a bucket; a large file in parts."""
        if self.dry_run:
            self._print("s3", "upload_file", {"Filename": str(file), "Bucket": bucket, "Key": key})
            return
        try:
            self._client("s3").upload_file(str(file), bucket, key)
        except S3UploadFailedError as error:
            raise error.__context__ or error from None  # the context is S3's own error

    def wait(self, seconds: float) -> None:
        """Sleep between two checks; not with dry run."""
        if not self.dry_run:
            time.sleep(seconds)

    def _print(self, service: str, operation: str, arguments: dict[str, Any]) -> None:
        shown = {key: _shortened(value) for key, value in arguments.items()}
        self.printed += 1
        sys.stdout.write(f"{service} {operation} {json.dumps(shown, default=str)}\n")

    @functools.cache  # noqa: B019 - an account lives as long as the command
    def _client(self, service: str) -> Any:
        limits = Config(
            retries={"total_max_attempts": ATTEMPTS, "mode": "standard"}, connect_timeout=10, read_timeout=60
        )
        return self._session.client(service, config=limits, region_name=self.region)


def _shortened(value: Any) -> Any:
    if isinstance(value, str) and len(value) > MAX_SHOWN:
        return f"{value[:60]}... ({len(value)} characters)"
    return value
