"""S3, and servers that speak its protocol: the same credentials, end point and timeouts for each library that uses it.

Credentials, region and end point come from AWS's standard chains (environment, profile, role), and from nowhere else.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import tenacity
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
)

from spark_app.platform.errors import StorageError

if TYPE_CHECKING:
    import boto3

SCHEME = "s3"
SCHEMES = (SCHEME, "s3a")
"""The schemes of URIs in S3; both mean the same."""

ATTEMPTS = 10
CONNECT_SECONDS, READ_SECONDS = 10, 60
FIRST_ATTEMPTS, FIRST_SECONDS = 3, 5
"""Short limits for the first request, so that an unreachable S3 is reported within 30 s."""

retried = tenacity.retry(
    retry=tenacity.retry_if_exception_message(match=r"(?s).*\bS3\b"),
    stop=tenacity.stop_after_attempt(ATTEMPTS),
    wait=tenacity.wait_random_exponential(multiplier=0.1, max=5),
    reraise=True,
)
"""Retries calls of `deltalake`, which does not retry where S3 closes the connection during an answer."""

ROLES = ("iam-role", "container-role")
"""boto3's names for the ways to get the credentials of a role."""

AMAZON = ".amazonaws.com"
SIGNING_REGION = "us-east-1"
"""The region where none is set. Other servers than Amazon's have no regions; Amazon redirects from this one."""

_REFUSED = {
    "InvalidAccessKeyId": "this access key is unknown",
    "SignatureDoesNotMatch": "the secret key is not that of this access key",
    "InvalidToken": "the session token is not valid",
    "ExpiredToken": "the session token has expired: get a new one",
    "RequestTimeTooSkewed": "this machine's clock is wrong",
}
_MISSING = ("NoSuchBucket", "404")
_ELSEWHERE = ("PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException")
_FORBIDDEN = ("AccessDenied", "403", "AllAccessDisabled")


def failures(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """The exceptions of storage that fails, on disk or in S3, and `others`. They are looked up where one is raised."""
    return (OSError, BotoCoreError, ClientError, _broken_connection(), *others)


def _broken_connection() -> type[Exception]:
    """The exception of s3fs for a connection that breaks."""
    import aiohttp  # noqa: PLC0415 - its import takes a tenth of a second, in each Python process of each run

    return aiohttp.ClientError


@contextlib.contextmanager
def ignoring_failures() -> Iterator[None]:
    """Go on after the block if storage fails in it: for what only tidies up."""
    with contextlib.ExitStack() as stack:
        stack.push(lambda kind, *_: kind is not None and issubclass(kind, failures()))
        yield


def is_s3(path: str) -> bool:
    """Whether a path is a URI in S3."""
    return urlsplit(path).scheme in SCHEMES


def split(path: str) -> tuple[str, str]:
    """The bucket and the key of a URI."""
    parts = urlsplit(path)
    return parts.netloc, path.partition(f"//{parts.netloc}")[2].lstrip("/")


def client(attempts: int = ATTEMPTS, seconds: float = READ_SECONDS) -> Any:
    """A client for single requests: at most `attempts` tries of each, `seconds` without a byte until a try fails."""
    from botocore.config import Config  # noqa: PLC0415 - most runs are without S3, and its import takes time

    return _session().client("s3", config=Config(**_limits(attempts, seconds)), region_name=_region())


def _session() -> boto3.Session:
    import boto3  # noqa: PLC0415 - most runs are without S3, and its import takes a tenth of a second

    return boto3.Session()


def _limits(attempts: int, seconds: float) -> dict[str, Any]:
    return {
        "retries": {"total_max_attempts": attempts, "mode": "standard"},
        "connect_timeout": min(seconds, CONNECT_SECONDS),
        "read_timeout": seconds,
    }


@functools.cache
def fsspec_options() -> dict[str, Any]:
    """The options of s3fs: the retries and timeouts of `client`, and no cache of folder listings."""
    return {
        "use_listings_cache": False,
        "client_kwargs": {"region_name": _region()},
        "config_kwargs": _limits(ATTEMPTS, READ_SECONDS),
    }


def has_role() -> bool:
    """Whether the credentials are those of the machine's or the container's role, which every executor has too."""
    credentials = _session().get_credentials()
    return credentials is not None and credentials.method in ROLES


def spark_settings() -> dict[str, str]:
    """The settings of S3A: end point and region, no secrets. S3A itself does not read the end point of a profile."""
    url = endpoint()
    if url is None:
        region_name = region()
        return {"spark.hadoop.fs.s3a.endpoint.region": region_name} if region_name else {}
    return {
        "spark.hadoop.fs.s3a.endpoint": url,
        "spark.hadoop.fs.s3a.endpoint.region": _region(),
        "spark.hadoop.fs.s3a.path.style.access": "true",
    }


def delta_options() -> dict[str, str]:
    """The options of deltalake, which does not read profiles: the credentials that the standard chain finds now."""
    credentials = _session().get_credentials()
    options = {"aws_region": _region()}
    if credentials is not None:
        frozen = credentials.get_frozen_credentials()
        options |= {"aws_access_key_id": frozen.access_key, "aws_secret_access_key": frozen.secret_key}
        options |= {"aws_session_token": frozen.token} if frozen.token else {}
    if (url := endpoint()) is not None:
        options |= {"aws_endpoint_url": url, "aws_allow_http": str(url.startswith("http://")).lower()}
    return options


def check(option: str, root: str) -> None:
    """List the root that an option names. Raises StorageError that says what is wrong, within half a minute."""
    bucket, prefix = split(root)
    try:
        client(FIRST_ATTEMPTS, FIRST_SECONDS).list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
    except (BotoCoreError, ClientError) as error:
        why = explain(error, bucket) or f"{bucket} cannot be listed: {error}"
        raise StorageError(f"{option} {root}: {why}") from error


def remove(path: str) -> None:
    """Remove an object and everything under it, including the empty objects that mark folders for Hadoop."""
    bucket, key = split(path)
    caller = client()
    caller.delete_object(Bucket=bucket, Key=key)
    for page in caller.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{key}/"):
        if keys := [{"Key": entry["Key"]} for entry in page.get("Contents", [])]:
            caller.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})


def give_up_uploads(root: str) -> int:
    """Abort the uploads under a root that were never completed, and remove their parts; returns their number."""
    bucket, prefix = split(root)
    aborted, caller = 0, client()
    under = f"{prefix}/" if prefix else ""
    for page in caller.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=under):
        for upload in page.get("Uploads", []):
            caller.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
            aborted += 1
    return aborted


def explain(error: BaseException | None, bucket: str = "") -> str | None:
    """What is wrong with S3 and what to do about it, in plain words; None where the error is not one of S3."""
    name = f"bucket {bucket}" if bucket else "the bucket"
    while error is not None:
        if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
            return "there are no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        if isinstance(error, ProfileNotFound):
            return f"{error}: check AWS_PROFILE"
        if isinstance(error, (EndpointConnectionError, ConnectTimeoutError, ReadTimeoutError, _broken_connection())):
            return f"S3 cannot be reached ({type(error).__name__}): check the network and AWS_ENDPOINT_URL ({_where()})"
        if isinstance(error, ClientError):
            return _explain_answer(str(error.response.get("Error", {}).get("Code", "")), name)
        error = error.__cause__
    return None


def _explain_answer(code: str, bucket: str) -> str:
    if code in _REFUSED:
        return f"S3 refused the credentials ({code}): {_REFUSED[code]}"
    if code in _MISSING:
        return f"{bucket} does not exist at {_where()}: create it, or correct the path"
    if code in _ELSEWHERE:
        return f"{bucket} is in another region than {_region()}: set AWS_REGION"
    if code in _FORBIDDEN:
        return f"S3 refused access to {bucket}: the credentials are not allowed to do this; check their policy"
    return f"S3 at {_where()} answered {code}: try again later"


def _where() -> str:
    return endpoint() or f"Amazon in {_region()}"


@functools.cache
def endpoint() -> str | None:
    """The end point that the environment or the profile sets; None where it is Amazon's own."""
    url = str(client().meta.endpoint_url)
    host = urlsplit(url).hostname or ""
    return None if AMAZON in host else url


def region() -> str | None:
    """The region that the environment or the profile sets. Unlike other SDKs, boto3 itself ignores AWS_REGION."""
    return os.environ.get("AWS_REGION") or _session().region_name


def _region() -> str:
    return region() or SIGNING_REGION
