"""What AWS says when it refuses, in plain words and with a way out."""

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
    WaiterError,
)

from spark_app.platform.errors import JobError, UsageError

_NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError)
_SSO = (UnauthorizedSSOTokenError, TokenRetrievalError)
_UNREACHABLE = (EndpointConnectionError, ConnectTimeoutError, ReadTimeoutError)

_CREDENTIALS = re.compile(
    r"InvalidClientTokenId|UnrecognizedClient|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken|"
    r"InvalidSignature|IncompleteSignature|MissingAuthenticationToken|AuthFailure|OptInRequired|RequestExpired"
)
_FORBIDDEN = re.compile(r"AccessDenied|AllAccessDisabled|Unauthorized|Forbidden|^403$|NotAuthorized")
_THROTTLED = re.compile(r"Throttl|TooManyRequests|RequestLimitExceeded|SlowDown|RequestThrottled|BandwidthLimit")
_QUOTA = re.compile(r"LimitExceeded|QuotaExceeded|ConcurrentRunsExceeded|ResourceNumberLimit|InsufficientCapacity")
_MISSING = re.compile(r"EntityNotFound|ResourceNotFound|NoSuchBucket|NoSuchKey|NoSuchEntity|NotFound|^404$")

_EXIT_CODE = re.compile(
    r"(?:SystemExit|ExitCode|exitCode|exited with(?: status| exitCode)?|exit code)\W{0,3}(\d{1,3})", re.IGNORECASE
)
"""How the services tell the code with which a Python program left: Glue, EMR Serverless, and YARN for EMR."""

LARGEST_CODE = 7
MAX_SHOWN = 300


class RefusedError(JobError):
    """AWS cannot be reached, or refused a request."""

    exit_code = 7


class FailedJobError(JobError):
    """A job on AWS failed; the exit code is that of the job."""

    def __init__(self, message: str, exit_code: int = JobError.exit_code) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def exit_code(text: str) -> int:
    """The exit code of a job that a service's message tells; 1 where it tells none of ours."""
    found = _EXIT_CODE.search(text)
    code = int(found.group(1)) if found else JobError.exit_code
    return code if 0 < code <= LARGEST_CODE else JobError.exit_code


def explain(error: Exception) -> JobError | None:
    """The plain words for a failure of AWS, or None where it is none."""
    if isinstance(error, JobError):
        return error
    if isinstance(error, _NO_CREDENTIALS):
        return UsageError(
            "there are no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or `aws sso login`"
        )
    if isinstance(error, NoRegionError):
        return UsageError("no region: set AWS_REGION, or region in the profile")
    if isinstance(error, ProfileNotFound):
        return UsageError(f"{error}: check AWS_PROFILE")
    if isinstance(error, _SSO):
        return UsageError("the session of AWS SSO has ended: run `aws sso login`")
    if isinstance(error, _UNREACHABLE):
        return RefusedError(f"AWS cannot be reached: check the network and the region ({_line(str(error))})")
    if isinstance(error, ClientError):
        return _explain_answer(error)
    if isinstance(error, (BotoCoreError, WaiterError)):
        return RefusedError(f"AWS could not be asked: {_line(str(error))}")
    return None


def _explain_answer(error: ClientError) -> JobError:
    code, why = str(error.response.get("Error", {}).get("Code", "")), _line(message(error))
    call = error.operation_name
    if _CREDENTIALS.search(code):
        return RefusedError(f"AWS does not take the credentials ({code}): get new ones, or check AWS_PROFILE")
    if _THROTTLED.search(code):
        return RefusedError(f"AWS has too many requests ({call}: {code}), also after waiting: try again in some minutes")
    if _QUOTA.search(code):
        return RefusedError(
            f"a quota of this account is used up ({call}: {why}): wait for other runs to end, or have it raised in "
            "Service Quotas"
        )
    if _FORBIDDEN.search(code):
        return RefusedError(f"AWS refused {call}: {why}; these credentials need that permission")
    if _MISSING.search(code):
        return UsageError(f"{call}: {why}; check --name and the region, and whether `deploy` was run there")
    return RefusedError(f"AWS refused {call} ({code}): {why}")


def message(error: ClientError) -> str:
    """What the service says, without the words that boto3 puts before it."""
    return str(error.response.get("Error", {}).get("Message", "")) or str(error)


def code_of(error: ClientError) -> str:
    """The name of what went wrong, as the service calls it."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _line(text: str) -> str:
    return " ".join(text.split())[:MAX_SHOWN].rstrip(".")
