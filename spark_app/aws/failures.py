"""Failures of AWS calls as errors of the command: a plain message that says what to do, and an exit code."""

from __future__ import annotations

import re

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
from botocore.parsers import ResponseParserError

from spark_app.platform.errors import JobError, UsageError


class RefusedError(JobError):
    """AWS cannot be reached, or refused a request."""

    exit_code = 7


class FailedJobError(JobError):
    """A job on AWS failed; the exit code is that of the job."""

    def __init__(self, message: str, exit_code: int = JobError.exit_code) -> None:
        super().__init__(message)
        self.exit_code = exit_code


_FAILURES: tuple[tuple[tuple[type[Exception], ...], type[JobError], str], ...] = (
    (
        (NoCredentialsError, PartialCredentialsError),
        UsageError,
        "there are no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    ((NoRegionError,), UsageError, "no region: set AWS_REGION, or region in the profile"),
    ((ProfileNotFound,), UsageError, "{error}: check AWS_PROFILE"),
    ((UnauthorizedSSOTokenError, TokenRetrievalError), UsageError, "the session has ended: run `aws sso login`"),
    (
        (EndpointConnectionError, ConnectTimeoutError, ReadTimeoutError),
        RefusedError,
        "AWS cannot be reached: check the network and the region ({error})",
    ),
    (
        (BotoCoreError, ResponseParserError),
        RefusedError,
        "a request to AWS could not be sent, or its answer could not be read: {error}",
    ),
)
"""Failures without an answer: exceptions, the error to raise, its message. The first that fits is used."""

_ANSWERS: tuple[tuple[str, type[JobError], str], ...] = (
    (
        r"InvalidClientTokenId|UnrecognizedClient|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken|"
        r"InvalidSignature|IncompleteSignature|MissingAuthenticationToken|AuthFailure|OptInRequired|RequestExpired",
        RefusedError,
        "AWS rejects the credentials ({code}): get new ones, or check AWS_PROFILE",
    ),
    (
        r"AccessDenied|AllAccessDisabled|Unauthorized|Forbidden|^403$|NotAuthorized",
        RefusedError,
        "AWS refused {call}: {why}; these credentials need that permission",
    ),
    (
        r"Throttl|TooManyRequests|RequestLimitExceeded|SlowDown",
        RefusedError,
        "AWS throttles {call} ({code}), even after retries: try again in some minutes",
    ),
    (
        r"LimitExceeded|QuotaExceeded|ConcurrentRunsExceeded|NumberLimit|InsufficientCapacity",
        RefusedError,
        "a quota of this account is used up ({call}: {why}): wait for other runs to end, or have it raised in Service "
        "Quotas",
    ),
    (
        r"NotFound|NoSuch|^404$",
        UsageError,
        "{call}: {why}; check --name and the region, and whether `deploy` was run there",
    ),
    (r"", RefusedError, "AWS refused {call} ({code}): {why}"),
)
"""Error answers of AWS: a pattern of the error code, the error to raise, its message. The first that fits is used."""

_EXIT_CODE = re.compile(
    r"(?:SystemExit|ExitCode|exited with(?: status| exitCode)?|exit code)\W{0,3}(\d{1,3})", re.IGNORECASE
)
"""How Glue, EMR Serverless and YARN (for EMR) report the exit code of a Python program."""

LARGEST_CODE = 7
MAX_SHOWN = 300


def exit_code(text: str) -> int:
    """The exit code of a job, from a service's message; 1 where the message has no exit code of a job."""
    match = _EXIT_CODE.search(text)
    code = int(match.group(1)) if match else JobError.exit_code
    return code if 0 < code <= LARGEST_CODE else JobError.exit_code


def explain(error: Exception) -> JobError | None:
    """The error of the command for a failed AWS call; None for any other exception."""
    if isinstance(error, JobError):
        return error
    if isinstance(error, ClientError):
        code, why = code_of(error), _line(message(error))
        job_error, text = next((job_error, text) for pattern, job_error, text in _ANSWERS if re.search(pattern, code))
        return job_error(text.format(call=error.operation_name, code=code, why=why))
    for failures, job_error, text in _FAILURES:
        if isinstance(error, failures):
            return job_error(text.format(error=_line(str(error))))
    return None


def message(error: ClientError) -> str:
    """The service's own message, without the words that boto3 puts before it."""
    return str(error.response.get("Error", {}).get("Message", "")) or str(error)


def code_of(error: ClientError) -> str:
    """The service's error code, such as AccessDenied."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _line(text: str) -> str:
    return " ".join(text.split())[:MAX_SHOWN].rstrip(".")
