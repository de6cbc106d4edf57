"""The two CloudFormation stacks: storage, which has the data, and jobs, which can be removed and deployed again."""

from __future__ import annotations

import re
from collections import Counter
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
"""Outputs of the storage stack, and the part of the bucket's name that stands for each."""

REGION_OF_S3A = "spark.hadoop.fs.s3a.endpoint.region"

CSV_CLASSIFIER = {"Delimiter": ",", "QuoteSymbol": '"', "ContainsHeader": "PRESENT", "Serde": "OpenCSVSerDe"}
"""All properties of the template's classifier, and its reader (Serde).

CloudFormation cannot set the reader, and the reader that Glue guesses does not know quotes. An update sends all
properties, since Glue does not document that it keeps those that an update leaves out.
"""

_RESOURCE = re.compile(r"^ +Type: AWS::(\w+)::\w+$", re.MULTILINE)

NOT_THERE, NOTHING_TO_DO = "does not exist", "No updates are to be performed"
NOT_UPDATABLE = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "REVIEW_IN_PROGRESS", "DELETE_FAILED")
"""States of a stack whose creation or removal did not finish: it can only be removed, not updated."""

APPLICATION_RUNS = ("STARTED", "STARTING")
APPLICATION_AT_REST = ("CREATED", "STOPPED", "TERMINATED")
BUSY = "ValidationException"
"""EMR Serverless's error code where an application cannot be stopped because jobs run on it."""

CANCELLED = "cancelled"
"""A word in the reason of a resource that failed only because another resource failed."""


def storage_stack(name: str) -> str:
    """The name of the storage stack, which has the buckets."""
    return f"{name}-storage"


def jobs_stack(name: str) -> str:
    """The name of the jobs stack, which has everything but the buckets."""
    return f"{name}-jobs"


def outputs(account: Account, stack: str) -> dict[str, str]:
    """The outputs of a stack, by name. Raises UsageError where the stack was never deployed."""
    description = _describe(account, stack)
    if description is None:
        raise UsageError(f"there is no stack {stack} in {account.region}: run `deploy`, or check --name and AWS_REGION")
    if isinstance(description, Placeholder):
        return description
    return {output["OutputKey"]: output["OutputValue"] for output in description.get("Outputs", [])}


def status(account: Account, stack: str) -> str | None:
    """The state of a stack; None where there is none."""
    description = _describe(account, stack)
    return None if description is None else str(description["StackStatus"])


def deploy_storage(account: Account, name: str, overrides: Mapping[str, str], poll_seconds: float) -> dict[str, str]:
    """Make or update the buckets; returns the outputs of their stack, with the name of each bucket.

    `overrides` are new values of parameters; those that its template does not have are ignored.
    """
    template = _storage_template()
    parameters = _parameters(account, storage_stack(name), _known(account, template), {"Name": name}, overrides)
    _put(account, storage_stack(name), template, parameters, name, poll_seconds)
    return outputs(account, storage_stack(name))


def _storage_template() -> dict[str, str]:
    return {"TemplateBody": (CONF / "storage.yaml").read_text(encoding="utf-8")}


def upload(account: Account, bucket: str, release: Release) -> None:
    """Upload the files of a release that the artefacts bucket lacks.

    A file that is there is the same: the release's name, which is in its key, has the checksum of the content.
    """
    uploaded = {
        entry["Key"]
        for entry in account.pages("s3", "list_objects_v2", "Contents", Bucket=bucket, Prefix=f"{release.prefix}/")
    }
    missing = [file for file in release.files if release.key(file) not in uploaded]
    # The template comes last: a release that has its template is complete.
    for file in sorted(missing, key=lambda file: file.name == TEMPLATE):
        account.upload(file, bucket, release.key(file))
    logger.info("release %s: %d file(s) uploaded to s3://%s/%s", release.name, len(missing), bucket, release.prefix)


def check_release(account: Account, bucket: str, prefix: str) -> None:
    """Raise UsageError where a release is not in the artefacts bucket; the message names the newest that are."""
    listed = account.pages("s3", "list_objects_v2", "Contents", Bucket=bucket, Prefix="releases/")
    known = [
        entry["Key"].split("/")[1]
        for entry in sorted(listed, key=lambda entry: entry["LastModified"], reverse=True)
        if entry["Key"].endswith(f"/{TEMPLATE}")
    ]
    if not account.dry_run and prefix.removeprefix("releases/") not in known:
        raise UsageError(
            f"s3://{bucket}/{prefix} is not a release; the newest releases are: {', '.join(known[:5]) or 'none'}"
        )


def resources() -> dict[str, int]:
    """How many resources of each service both templates make, such as {"Glue": 22}, the largest number first."""
    templates = (_storage_template()["TemplateBody"], (CONF / TEMPLATE).read_text(encoding="utf-8"))
    services = Counter(service for text in templates for service in _RESOURCE.findall(text))
    return dict(services.most_common())


def deploy_jobs(
    account: Account,
    name: str,
    buckets: Mapping[str, str],
    prefix: str,
    overrides: Mapping[str, str],
    poll_seconds: float,
) -> dict[str, str]:
    """Make or update everything but the buckets, by the template of a release; returns the outputs of the stack.

    `overrides` are new values of parameters; all other parameters keep their values. Raises UsageError for a parameter
    that neither template has.
    """
    bucket = buckets["ArtefactsBucket"]
    template = {"TemplateURL": f"https://{buckets['ArtefactsDomain']}/{prefix}/{TEMPLATE}"}
    computed = {
        **{zone: buckets[zone] for zone in ZONES},
        "Name": name,
        "Release": prefix,
        "SparkConf": chained(spark_defaults(account, bucket, prefix)),
    }
    known, of_storage = (_known(account, which) for which in (template, _storage_template()))
    unknown = [key for key in overrides if key not in (*known, *of_storage)]
    if unknown and not account.dry_run:
        raise UsageError(
            f"--parameter {unknown[0]}: the templates have no such parameter; they have {', '.join(known + of_storage)}"
        )
    parameters = _parameters(account, jobs_stack(name), known, computed, overrides)
    try:
        stop_application(account, jobs_stack(name), poll_seconds)
    except ClientError as error:
        if code_of(error) != BUSY:
            raise
        logger.info("jobs run on the EMR Serverless application, so it cannot be changed now: %s", message(error))
    _put(account, jobs_stack(name), template, parameters, name, poll_seconds)
    stack = outputs(account, jobs_stack(name))
    account.call("glue", "update_classifier", CsvClassifier={"Name": stack["Classifier"], **CSV_CLASSIFIER})
    return stack


def spark_defaults(account: Account, bucket: str, prefix: str) -> dict[str, str]:
    """The Spark settings of a release, and the account's region: without that setting S3A would use another region."""
    answer = account.call("s3", "get_object", Bucket=bucket, Key=f"{prefix}/{SPARK_DEFAULTS}")
    text = (CONF / SPARK_DEFAULTS).read_text(encoding="utf-8") if account.dry_run else answer["Body"].read().decode()
    return {**parse_conf(text), REGION_OF_S3A: account.region}


def destroy(account: Account, stack: str, poll_seconds: float) -> None:
    """Delete a stack, if it exists, and wait until it is gone. Buckets stay, since their template retains them."""
    if _describe(account, stack) is None:
        logger.info("%s: there is no such stack", stack)
        return
    account.call("cloudformation", "delete_stack", StackName=stack)
    _wait(account, stack, poll_seconds, gone=True)


def stop_application(account: Account, stack: str, poll_seconds: float) -> None:
    """Stop the EMR Serverless application if it runs, and wait until it has stopped.

    AWS changes and deletes only an application that does not run. The next job starts it again. While jobs run on it,
    AWS refuses to stop it, with a ValidationException.
    """
    if _describe(account, stack) is None:
        return
    application = "<ApplicationId>" if account.dry_run else outputs(account, stack).get("ApplicationId")
    if application is None:  # a stack that was never finished
        return
    while (state := _application_state(account, application)) not in APPLICATION_AT_REST:
        if state in APPLICATION_RUNS:
            try:
                account.call("emr-serverless", "stop_application", applicationId=application)
            except ClientError:
                # Otherwise the application has just stopped by itself.
                if _application_state(account, application) in APPLICATION_RUNS:
                    raise
        account.wait(poll_seconds)
        if account.dry_run:
            return


def _application_state(account: Account, application: str) -> str:
    try:
        answer = account.call("emr-serverless", "get_application", applicationId=application)
    except ClientError as error:
        if code_of(error) == "ResourceNotFoundException":  # it was deleted outside of this stack
            return "TERMINATED"
        raise
    return APPLICATION_RUNS[0] if account.dry_run else str(answer["application"]["state"])


def destroy_storage(account: Account, name: str, poll_seconds: float) -> None:
    """Delete every version of every object, the stack of the buckets, and then the buckets, which the template retains.

    The buckets are found by their names, so a second call completes one that was interrupted. Raises UsageError where
    neither the buckets nor the stack exist.
    """
    owner = account.call("sts", "get_caller_identity")["Account"]
    names = [f"{name}-{zone}-{owner}-{account.region}" for zone in ZONES.values()]
    existing = [bucket for bucket in names if account.dry_run or _exists(account, bucket)]
    if not existing and _describe(account, storage_stack(name)) is None:
        raise UsageError(f"nothing of {name} is deployed in {account.region}: check --name and AWS_REGION")
    for bucket in existing:
        _empty(account, bucket)
    destroy(account, storage_stack(name), poll_seconds)
    for bucket in existing:
        if account.dry_run or _exists(account, bucket):
            account.call("s3", "delete_bucket", Bucket=bucket)


def _exists(account: Account, bucket: str) -> bool:
    try:
        account.call("s3", "head_bucket", Bucket=bucket)
    except ClientError as error:
        if code_of(error) == "404":
            return False
        raise
    return True


def _empty(account: Account, bucket: str) -> None:
    """Delete every version of every object, page by page, since the list of a bucket may not fit into memory."""
    deleted = 0
    for versions in account.each_page("s3", "list_object_versions", Bucket=bucket):
        entries = [*versions.get("Versions", []), *versions.get("DeleteMarkers", [])]
        objects = [{"Key": entry["Key"], "VersionId": entry["VersionId"]} for entry in entries]
        if objects:
            account.call("s3", "delete_objects", Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
        deleted += len(objects)
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
    account: Account, stack: str, known: list[str], computed: Mapping[str, str], overrides: Mapping[str, str]
) -> dict[str, str]:
    """The values of the parameters that a template knows: `overrides`, else `computed`, else the stack's own values."""
    if account.dry_run:
        return {**computed, **overrides}
    description = _describe(account, stack) or {}
    current = {entry["ParameterKey"]: entry["ParameterValue"] for entry in description.get("Parameters", [])}
    return {key: value for key, value in {**current, **computed, **overrides}.items() if key in known}


def _put(
    account: Account,
    stack: str,
    template: Mapping[str, str],
    parameters: Mapping[str, str],
    name: str,
    poll_seconds: float,
) -> None:
    """Create a stack, or update the one that exists, and wait until CloudFormation is done."""
    state = None if account.dry_run else status(account, stack)
    if state in NOT_UPDATABLE:
        logger.info("%s is %s: it is removed first", stack, state)
        destroy(account, stack, poll_seconds)
        state = None
    listed: list[dict[str, Any]] = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
    operation = "update_stack" if state else "create_stack"
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
            logger.info("%s: is up to date already", stack)
            return
        raise
    logger.info("%s: %s", stack, "is being updated" if state else "is being created")
    _wait(account, stack, poll_seconds)


def _wait(account: Account, stack: str, poll_seconds: float, *, gone: bool = False) -> None:
    """Wait until CloudFormation is done with a stack. Raises RefusedError with the first reason of a failure."""
    state = ""
    while True:
        description = _describe(account, stack)
        if account.dry_run:
            return
        now = "DELETE_COMPLETE" if description is None else str(description["StackStatus"])
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
    """The reasons for which resources of a stack failed in the last operation, the earliest first."""
    events = account.pages("cloudformation", "describe_stack_events", "StackEvents", StackName=stack)
    last_operation = []
    for event in events:  # the latest first, back to where CloudFormation began with the stack itself
        last_operation.append(event)
        is_begin = event["ResourceStatus"] in ("CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS")
        if is_begin and event["LogicalResourceId"] == stack:
            break
    for event in reversed(last_operation):
        reason = event.get("ResourceStatusReason", "")
        if event["ResourceStatus"].endswith("_FAILED") and CANCELLED not in reason:
            yield f"{event['LogicalResourceId']} ({event['ResourceType']}): {' '.join(reason.split())}"
