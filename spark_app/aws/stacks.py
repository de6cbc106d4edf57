"""The two stacks of CloudFormation: storage, which holds the data, and jobs, which come and go beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from botocore.exceptions import ClientError

from spark_app.aws.account import Account, Placeholder
from spark_app.aws.artefacts import CONF, SPARK_DEFAULTS, TEMPLATE, Release, chained, parse_conf
from spark_app.aws.failures import RefusedError, code_of, message
from spark_app.platform.errors import UsageError
from spark_app.platform.log import logger

CAPABILITIES = ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"]
ZONES = {"RawBucket": "raw", "ProcessedBucket": "processed", "ArtefactsBucket": "artefacts"}
"""Outputs of the stack of buckets, and what stands for each in its bucket's name."""

REGION_OF_S3A = "spark.hadoop.fs.s3a.endpoint.region"

CSV_CLASSIFIER = {"Delimiter": ",", "QuoteSymbol": '"', "ContainsHeader": "PRESENT", "Serde": "OpenCSVSerDe"}
"""The classifier of the template, whole, since nothing says that Glue keeps what an update leaves out.

CloudFormation cannot name its reader, and the one that Glue guesses knows no quotes.
"""

NOT_THERE, NOTHING_TO_DO = "does not exist", "No updates are to be performed"
BEGUN_ANEW = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "REVIEW_IN_PROGRESS", "DELETE_FAILED")
"""States of a stack that cannot be updated, only removed: its creation failed."""

APPLICATION_RUNS = ("STARTED", "STARTING")
APPLICATION_AT_REST = ("CREATED", "STOPPED", "TERMINATED")
BUSY = "ValidationException"
"""What EMR Serverless says where an application cannot be stopped, since jobs run on it."""

A_CANCELLED = "cancelled"
"""In the reason of a resource that failed only since another did."""


def storage_stack(name: str) -> str:
    """The name of the stack of buckets."""
    return f"{name}-storage"


def jobs_stack(name: str) -> str:
    """The name of the stack of all else."""
    return f"{name}-jobs"


def outputs(account: Account, stack: str) -> dict[str, str]:
    """What a stack tells of itself. Raises UsageError where it was never deployed."""
    found = _describe(account, stack)
    if found is None:
        raise UsageError(f"there is no stack {stack} in {account.region}: run `deploy`, or check --name and AWS_REGION")
    if isinstance(found, Placeholder):
        return found
    return {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}


def status(account: Account, stack: str) -> str | None:
    """The state of a stack; None where there is none."""
    found = _describe(account, stack)
    return None if found is None else str(found["StackStatus"])


def deploy_storage(account: Account, name: str, given: Mapping[str, str], poll_seconds: float) -> dict[str, str]:
    """Make or update the buckets; returns their names by output. Of what is given it takes what its template has."""
    template = _storage_template()
    parameters = _parameters(account, storage_stack(name), _known(account, template), {"Name": name}, given)
    _put(account, storage_stack(name), template, parameters, name, poll_seconds)
    return outputs(account, storage_stack(name))


def _storage_template() -> dict[str, str]:
    return {"TemplateBody": (CONF / "storage.yaml").read_text(encoding="utf-8")}


def upload(account: Account, bucket: str, release: Release) -> None:
    """Put into the artefacts bucket what is not there yet of a release: names are checksums, so what is there fits."""
    there = {
        found["Key"]
        for found in account.pages("s3", "list_objects_v2", "Contents", Bucket=bucket, Prefix=f"{release.prefix}/")
    }
    missing = [file for file in release.files if release.key(file) not in there]
    # The template comes last: a release that has one is whole.
    for file in sorted(missing, key=lambda file: file.name == TEMPLATE):
        account.upload(file, bucket, release.key(file))
    logger.info("release %s: %d file(s) uploaded to s3://%s/%s", release.name, len(missing), bucket, release.prefix)


def check_release(account: Account, bucket: str, prefix: str) -> None:
    """Raise UsageError where a release is not in the artefacts bucket, naming those that are."""
    listed = account.pages("s3", "list_objects_v2", "Contents", Bucket=bucket, Prefix="releases/")
    known = [
        found["Key"].split("/")[1]
        for found in sorted(listed, key=lambda found: found["LastModified"], reverse=True)
        if found["Key"].endswith(f"/{TEMPLATE}")
    ]
    if not account.dry_run and prefix.removeprefix("releases/") not in known:
        raise UsageError(
            f"s3://{bucket}/{prefix} is no release; there are, latest first: {', '.join(known[:5]) or 'none'}"
        )


def deploy_jobs(
    account: Account, name: str, buckets: Mapping[str, str], prefix: str, given: Mapping[str, str], poll_seconds: float
) -> dict[str, str]:
    """Make or update all but the buckets, by the template of a release; returns the stack's outputs.

    What is not given keeps its value. Raises UsageError for a parameter that neither template has.
    """
    bucket = buckets["ArtefactsBucket"]
    template = {"TemplateURL": f"https://{buckets['ArtefactsDomain']}/{prefix}/{TEMPLATE}"}
    ours = {
        **{zone: buckets[zone] for zone in ZONES},
        "Name": name,
        "Release": prefix,
        "SparkConf": chained(spark_defaults(account, bucket, prefix)),
    }
    known, of_storage = (_known(account, which) for which in (template, _storage_template()))
    unknown = [key for key in given if key not in (*known, *of_storage)]
    if unknown and not account.dry_run:
        raise UsageError(
            f"--parameter {unknown[0]}: there is none of that name; there are {', '.join(known + of_storage)}"
        )
    parameters = _parameters(account, jobs_stack(name), known, ours, given)
    try:
        stop_application(account, jobs_stack(name), poll_seconds)
    except ClientError as error:
        if code_of(error) != BUSY:
            raise
        logger.info("the application of EMR Serverless goes on, so it cannot be changed now: %s", message(error))
    _put(account, jobs_stack(name), template, parameters, name, poll_seconds)
    stack = outputs(account, jobs_stack(name))
    account.call("glue", "update_classifier", CsvClassifier={"Name": stack["Classifier"], **CSV_CLASSIFIER})
    return stack


def spark_defaults(account: Account, bucket: str, prefix: str) -> dict[str, str]:
    """The settings of Spark that a release has brought, and the region, for which S3A itself would take another."""
    answer = account.call("s3", "get_object", Bucket=bucket, Key=f"{prefix}/{SPARK_DEFAULTS}")
    text = (CONF / SPARK_DEFAULTS).read_text(encoding="utf-8") if account.dry_run else answer["Body"].read().decode()
    return {**parse_conf(text), REGION_OF_S3A: account.region}


def destroy(account: Account, stack: str, poll_seconds: float) -> None:
    """Delete a stack, where there is one, and wait until it is gone; buckets stay, since the template retains them."""
    if _describe(account, stack) is None:
        logger.info("%s: there is no such stack", stack)
        return
    account.call("cloudformation", "delete_stack", StackName=stack)
    _wait(account, stack, poll_seconds, gone=True)


def stop_application(account: Account, stack: str, poll_seconds: float) -> None:
    """Stop the application of EMR Serverless where it runs, and wait until it rests: else it is not changed or deleted.

    It starts by itself with the next job. AWS refuses, with a ValidationException, to stop one that has jobs.
    """
    found = _describe(account, stack)
    if found is None:
        return
    application = "<ApplicationId>" if account.dry_run else outputs(account, stack).get("ApplicationId")
    if application is None:  # a stack that was never finished
        return
    while (state := _application_state(account, application)) not in APPLICATION_AT_REST:
        if state in APPLICATION_RUNS:
            try:
                account.call("emr-serverless", "stop_application", applicationId=application)
            except ClientError:
                if _application_state(account, application) in APPLICATION_RUNS:  # else it has just stopped by itself
                    raise
        account.wait(poll_seconds)
        if account.dry_run:
            return


def _application_state(account: Account, application: str) -> str:
    try:
        answer = account.call("emr-serverless", "get_application", applicationId=application)
    except ClientError as error:
        if code_of(error) == "ResourceNotFoundException":  # somebody has deleted it
            return "TERMINATED"
        raise
    return APPLICATION_RUNS[0] if account.dry_run else str(answer["application"]["state"])


def destroy_storage(account: Account, name: str, poll_seconds: float) -> None:
    """Delete all that was ever in the buckets, their stack, and then the buckets, which the template retains.

    What an earlier call that was cut short has left is removed too: the buckets are known by their names. Raises
    UsageError where there is nothing of this name.
    """
    owner = account.call("sts", "get_caller_identity")["Account"]
    named = [f"{name}-{zone}-{owner}-{account.region}" for zone in ZONES.values()]
    there = [bucket for bucket in named if account.dry_run or _is_there(account, bucket)]
    if not there and _describe(account, storage_stack(name)) is None:
        raise UsageError(f"there is nothing of {name} in {account.region}: check --name and AWS_REGION")
    for bucket in there:
        _empty(account, bucket)
    destroy(account, storage_stack(name), poll_seconds)
    for bucket in there:
        if account.dry_run or _is_there(account, bucket):
            account.call("s3", "delete_bucket", Bucket=bucket)


def _is_there(account: Account, bucket: str) -> bool:
    try:
        account.call("s3", "head_bucket", Bucket=bucket)
    except ClientError as error:
        if code_of(error) == "404":
            return False
        raise
    return True


def _empty(account: Account, bucket: str) -> None:
    """Delete every version of every object, a page at a time: a bucket can hold more than fits into memory."""
    deleted = 0
    for versions in account.each_page("s3", "list_object_versions", Bucket=bucket):
        entries = [*versions.get("Versions", []), *versions.get("DeleteMarkers", [])]
        doomed = [{"Key": entry["Key"], "VersionId": entry["VersionId"]} for entry in entries]
        if doomed:
            account.call("s3", "delete_objects", Bucket=bucket, Delete={"Objects": doomed, "Quiet": True})
        deleted += len(doomed)
    logger.info("%s: deleted %d version(s) of objects", bucket, deleted)


def _describe(account: Account, stack: str) -> dict[str, Any] | None:
    try:
        answer = account.call("cloudformation", "describe_stacks", StackName=stack)
    except ClientError as error:
        if code_of(error) == "ValidationError" and NOT_THERE in message(error):
            return None
        raise
    return answer if account.dry_run else dict(answer["Stacks"][0])


def _known(account: Account, template: Mapping[str, str]) -> list[str]:
    """The names of a template's parameters; none with dry run."""
    summary = account.call("cloudformation", "get_template_summary", **template)
    return [] if account.dry_run else [parameter["ParameterKey"] for parameter in summary["Parameters"]]


def _parameters(
    account: Account, stack: str, known: list[str], ours: Mapping[str, str], given: Mapping[str, str]
) -> dict[str, str]:
    """What a stack is to have for the parameters that its template knows: what is given, else what it has already."""
    if account.dry_run:
        return {**ours, **given}
    found = _describe(account, stack) or {}
    had = {entry["ParameterKey"]: entry["ParameterValue"] for entry in found.get("Parameters", [])}
    return {key: value for key, value in {**had, **ours, **given}.items() if key in known}


def _put(
    account: Account,
    stack: str,
    template: Mapping[str, str],
    parameters: Mapping[str, str],
    name: str,
    poll_seconds: float,
) -> None:
    """Create a stack, or update what is there, and wait for it."""
    found = None if account.dry_run else status(account, stack)
    if found in BEGUN_ANEW:
        logger.info("%s is %s: it is removed first", stack, found)
        destroy(account, stack, poll_seconds)
        found = None
    listed: list[dict[str, Any]] = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
    operation = "update_stack" if found else "create_stack"
    try:
        account.call(
            "cloudformation",
            operation,
            StackName=stack,
            **template,
            Parameters=listed,
            Capabilities=CAPABILITIES,
            Tags=[{"Key": "application", "Value": name}],
        )
    except ClientError as error:
        if NOTHING_TO_DO in message(error):
            logger.info("%s: is already as it should be", stack)
            return
        raise
    logger.info("%s: %s", stack, "is being updated" if found else "is being made")
    _wait(account, stack, poll_seconds)


def _wait(account: Account, stack: str, poll_seconds: float, *, gone: bool = False) -> None:
    """Wait until CloudFormation is done with a stack. Raises RefusedError with the first reason where it failed."""
    state = ""
    while True:
        found = _describe(account, stack)
        if account.dry_run:
            return
        now = "DELETE_COMPLETE" if found is None else str(found["StackStatus"])
        if now != state:
            logger.info("%s: %s", stack, now)
        state = now
        if not state.endswith("_IN_PROGRESS"):
            break
        account.wait(poll_seconds)
    wanted = ("DELETE_COMPLETE",) if gone else ("CREATE_COMPLETE", "UPDATE_COMPLETE")
    if state not in wanted:
        why = next(_reasons(account, stack), "see its events in the console of CloudFormation")
        raise RefusedError(f"the stack {stack} is {state}: {why}")


def _reasons(account: Account, stack: str) -> Iterator[str]:
    """Why resources of a stack failed the last time, the first one first."""
    events = account.pages("cloudformation", "describe_stack_events", "StackEvents", StackName=stack)
    last = []
    for event in events:  # the latest first, back to where CloudFormation began with the stack itself
        last.append(event)
        is_begin = event["ResourceStatus"] in ("CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS")
        if is_begin and event["LogicalResourceId"] == stack:
            break
    for event in reversed(last):
        reason = event.get("ResourceStatusReason", "")
        if event["ResourceStatus"].endswith("_FAILED") and A_CANCELLED not in reason:
            yield f"{event['LogicalResourceId']} ({event['ResourceType']}): {' '.join(reason.split())}"
