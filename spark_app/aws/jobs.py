"""Runs of a stage, or of the pipeline, on Glue, EMR Serverless or a cluster of EMR: started, followed, and told of.

Each service is the same to who asks: `start` gives the id of a run, `look` its state, `tail` the last of what it said.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import re
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import tomlkit
from botocore.exceptions import ClientError

from spark_app.aws.account import Account
from spark_app.aws.artefacts import ENVIRONMENT, PACKAGE, SETTINGS, chained
from spark_app.aws.failures import FailedJobError, exit_code, explain
from spark_app.aws.stacks import spark_defaults
from spark_app.platform.errors import UsageError
from spark_app.platform.log import logger
from spark_app.platform.settings import build_settings, merge_settings

DONE = ("SUCCEEDED", "SUCCESS", "COMPLETED")
ENDED = (
    *DONE,
    *("FAILED", "STOPPED", "TIMEOUT", "ERROR", "EXPIRED"),  # Glue's
    *("CANCELLED", "INTERRUPTED"),  # EMR's
)

OURS = re.compile(r'\d\d:\d\d:\d\d (DEBUG|INFO|WARNING|ERROR) |\{"(time|level|levelname)"')
"""How lines of these jobs begin, among all that Spark says: as text, or as JSON."""

TAIL = 20
"""Lines that are shown of a job that failed."""

EVERY_SECONDS = 15.0
"""Between two looks at something that is waited for, unless told otherwise."""

CLUSTER_HAS_ENDED = ("TERMINATED", "TERMINATED_WITH_ERRORS")
CLUSTER_ENDS_WITHIN = 600.0
"""Seconds after the end of its step: by then a cluster has brought all its logs to S3."""

DELTA_JARS = "/usr/share/aws/delta/lib/delta-spark.jar,/usr/share/aws/delta/lib/delta-storage.jar"
HERE = "./environment/bin/python"
"""Where the archive's Python is, in the folder of a driver or an executor."""

GLUE_CATALOGUE = "com.amazonaws.glue.catalog.metastore.AWSGlueDataCatalogHiveClientFactory"

SIZES = {
    "spark.driver.cores": "4",
    "spark.driver.memory": "18g",
    "spark.driver.memoryOverhead": "4g",
    "spark.executor.cores": "4",
    "spark.executor.memory": "18g",
    "spark.executor.memoryOverhead": "5g",
}
"""Drivers and executors on EMR: 4 cores and, with what Python needs beside Java, 23 GB. EMR Serverless has workers of
that size, and YARN gives 24 GB on a machine of 32."""

FIRST, FIRST_OF_ITSELF = ("spark.executor.instances", "spark.dynamicAllocation.initialExecutors"), 3
"""With how many executors EMR Serverless begins, and of itself; it refuses a job that may have fewer at most."""

MACHINE = "r5.xlarge"
"""4 cores, 32 GB."""


@dataclass(frozen=True)
class Order:
    """What is to run: a job of the package, on what was deployed under a name.

    `stack` are the outputs of the jobs stack; `settings` is a file that takes the place of the release's, `conf` are
    further settings of Spark; `executors` and `subnet` are for EMR. It is looked at `every` so many seconds.
    """

    name: str
    job: str
    stack: Mapping[str, str]
    settings: str | None = None
    conf: Mapping[str, str] = field(default_factory=dict)
    executors: int = 3
    subnet: str | None = None
    every: float = EVERY_SECONDS

    @property
    def title(self) -> str:
        """What the run is called; alarms know ours by the name that it begins with."""
        return f"{self.name}-{self.job}"

    def at(self, file: str) -> str:
        """Where a file of the release lies."""
        return f"s3://{self.stack['ArtefactsBucket']}/{self.stack['Release']}/{file}"

    @property
    def entry(self) -> list[str]:
        """The entry script and its arguments."""
        zones = {"--raw-path": self.stack["RawBucket"], "--processed-path": self.stack["ProcessedBucket"]}
        given = [word for option, bucket in zones.items() for word in (option, f"s3://{bucket}")]
        return [self.at(f"jobs/{self.job}.py"), "--config", self.settings or self.at(SETTINGS), *given]


@dataclass(frozen=True)
class Look:
    """The state of a run, and what the service says of it."""

    state: str
    message: str = ""


NOT_ASKED = Look("NOT ASKED")
"""The state of a run that was not started, with dry run."""


class Service(Protocol):
    """What runs jobs."""

    def start(self, order: Order) -> str:
        """Start a run; returns its id."""

    def look(self, run: str) -> Look:
        """The state of a run."""

    def news(self, run: str) -> list[str]:
        """What the job has said since the last look."""

    def tail(self, run: str) -> list[str]:
        """The last lines that it said."""


class Glue:
    """A job of AWS Glue, as the template made it."""

    def __init__(self, account: Account, order: Order) -> None:
        self._account, self._job = account, order.title
        self._logs = Logs(account, f"/{order.name}/glue/output", is_driver=lambda stream: "_g-" not in stream)

    def start(self, order: Order) -> str:
        """Start the job with the arguments that it has, but for the settings of this run."""
        arguments = {"--config": order.settings} if order.settings else {}
        if order.conf:
            release = spark_defaults(self._account, order.stack["ArtefactsBucket"], order.stack["Release"])
            arguments["--conf"] = chained({**release, **order.conf})
        return str(self._account.call("glue", "start_job_run", JobName=self._job, Arguments=arguments)["JobRunId"])

    def look(self, run: str) -> Look:
        """The state of a run."""
        found = self._account.call("glue", "get_job_run", JobName=self._job, RunId=run)["JobRun"]
        return NOT_ASKED if self._account.dry_run else Look(found["JobRunState"], found.get("ErrorMessage", ""))

    def news(self, run: str) -> list[str]:
        """What the driver has said since the last look."""
        return self._logs.news(run)

    def tail(self, run: str) -> list[str]:
        """The last lines that the driver said."""
        return self._logs.tail(run)


class EmrServerless:
    """A job on the application of EMR Serverless."""

    def __init__(self, account: Account, order: Order) -> None:
        self._account, self._application = account, order.stack["ApplicationId"]
        self._group = f"/{order.name}/emr-serverless"
        self._logs = Logs(account, self._group, is_driver=lambda stream: "DRIVER" in stream)

    def start(self, order: Order) -> str:
        """Submit the job; the application starts by itself."""
        _check_environment(self._account, order)
        entry, *arguments = order.entry
        region = self._account.region
        settings = {
            **spark_defaults(self._account, order.stack["ArtefactsBucket"], order.stack["Release"]),
            **SIZES,
            **dict.fromkeys(FIRST, str(min(FIRST_OF_ITSELF, order.executors))),
            "spark.dynamicAllocation.maxExecutors": str(order.executors),
            "spark.jars": DELTA_JARS,
            "spark.submit.pyFiles": order.at(PACKAGE),
            "spark.archives": f"{order.at(ENVIRONMENT)}#environment",
            "spark.emr-serverless.driverEnv.PYSPARK_DRIVER_PYTHON": HERE,
            "spark.emr-serverless.driverEnv.PYSPARK_PYTHON": HERE,
            "spark.emr-serverless.driverEnv.AWS_REGION": region,
            "spark.executorEnv.PYSPARK_PYTHON": HERE,
            **order.conf,
        }
        logs = {"enabled": True, "logGroupName": self._group, "logTypes": {"SPARK_DRIVER": ["stdout", "stderr"]}}
        answer = self._account.call(
            "emr-serverless",
            "start_job_run",
            applicationId=self._application,
            executionRoleArn=order.stack["PipelineRoleArn"],
            name=order.title,
            jobDriver={
                "sparkSubmit": {
                    "entryPoint": entry,
                    "entryPointArguments": arguments,
                    "sparkSubmitParameters": " ".join(f"--conf {key}={value}" for key, value in settings.items()),
                }
            },
            configurationOverrides={"monitoringConfiguration": {"cloudWatchLoggingConfiguration": logs}},
        )
        return str(answer["jobRunId"])

    def look(self, run: str) -> Look:
        """The state of a run."""
        answer = self._account.call("emr-serverless", "get_job_run", applicationId=self._application, jobRunId=run)[
            "jobRun"
        ]
        return NOT_ASKED if self._account.dry_run else Look(answer["state"], answer.get("stateDetails", ""))

    def news(self, run: str) -> list[str]:
        """What the driver has said since the last look."""
        return self._logs.news(self._stream(run))

    def tail(self, run: str) -> list[str]:
        """The last lines that the driver said."""
        return self._logs.tail(self._stream(run))

    def _stream(self, run: str) -> str:
        return f"/applications/{self._application}/jobs/{run}"


class Emr:
    """A cluster of EMR on EC2 that is made for one run, and ends with it."""

    def __init__(self, account: Account, order: Order) -> None:
        self._account, self._bucket, self._every = account, order.stack["ArtefactsBucket"], order.every
        self._prefix = "logs/emr"

    def start(self, order: Order) -> str:
        """Have a cluster made that runs the job as its one step; returns the id of the cluster."""
        _check_environment(self._account, order)
        settings = {
            **spark_defaults(self._account, self._bucket, order.stack["Release"]),
            **SIZES,
            "spark.dynamicAllocation.maxExecutors": str(order.executors),
            "spark.jars": DELTA_JARS,
            # What failed once fails again, and says less: that another run holds the lock.
            "spark.yarn.maxAppAttempts": "1",
            "spark.yarn.appMasterEnv.PYSPARK_DRIVER_PYTHON": HERE,
            "spark.yarn.appMasterEnv.PYSPARK_PYTHON": HERE,
            "spark.yarn.appMasterEnv.AWS_REGION": self._account.region,
            "spark.executorEnv.PYSPARK_PYTHON": HERE,
            **order.conf,
        }
        confs = [word for key, value in settings.items() for word in ("--conf", f"{key}={value}")]
        files = ["--py-files", order.at(PACKAGE), "--archives", f"{order.at(ENVIRONMENT)}#environment"]
        submit = ["spark-submit", "--deploy-mode", "cluster", "--name", order.title, *files, *confs, *order.entry]
        # A driver, which in cluster mode has a machine among the others, and the executors.
        groups = [("MASTER", 1), ("CORE", order.executors + 1)]
        instances: dict[str, Any] = {
            "InstanceGroups": [
                {"InstanceRole": role, "InstanceType": MACHINE, "InstanceCount": count} for role, count in groups
            ],
            "KeepJobFlowAliveWhenNoSteps": False,
            "TerminationProtected": False,
        }
        if order.subnet:
            instances["Ec2SubnetId"] = order.subnet
        answer = self._account.call(
            "emr",
            "run_job_flow",
            Name=order.title,
            ReleaseLabel=order.stack["EmrRelease"],
            Applications=[{"Name": "Spark"}],
            LogUri=f"s3://{self._bucket}/{self._prefix}/",
            Instances=instances,
            JobFlowRole=order.stack["InstanceProfile"],
            ServiceRole=order.stack["EmrServiceRole"],
            Configurations=[
                {"Classification": "delta-defaults", "Properties": {"delta.enabled": "true"}},
                {
                    "Classification": "spark-hive-site",
                    "Properties": {"hive.metastore.client.factory.class": GLUE_CATALOGUE},
                },
            ],
            Steps=[
                {
                    "Name": order.title,
                    "ActionOnFailure": "TERMINATE_CLUSTER",
                    "HadoopJarStep": {"Jar": "command-runner.jar", "Args": submit},
                }
            ],
            Tags=[
                {"Key": "application", "Value": order.name},
                # By this tag AWS's policy for EMR knows what it may touch.
                {"Key": "for-use-with-amazon-emr-managed-policies", "Value": "true"},
            ],
            VisibleToAllUsers=True,
        )
        return str(answer["JobFlowId"])

    def look(self, run: str) -> Look:
        """The state of the step; that of the cluster where it ended before the step began."""
        steps = self._account.pages("emr", "list_steps", "Steps", ClusterId=run)
        if self._account.dry_run:
            return NOT_ASKED
        step = steps[0]["Status"]
        details = step.get("FailureDetails", {})
        said = " ".join(details[key] for key in ("Reason", "Message") if key in details)
        if step["State"] in DONE or (step["State"] in ENDED and said):
            return Look(step["State"], said)
        # A step that has not begun, or that its cluster has taken along: why, only that knows.
        state, why = self._cluster(run)
        if step["State"] in ENDED:
            return Look(step["State"], why)
        if state in CLUSTER_HAS_ENDED:
            return Look("FAILED", why)
        return Look(step["State"] if step["State"] != "PENDING" else f"PENDING, cluster {state}")

    def _cluster(self, run: str) -> tuple[str, str]:
        """The state of the cluster, and what EMR says of it."""
        status = self._account.call("emr", "describe_cluster", ClusterId=run)["Cluster"]["Status"]
        return status["State"], status.get("StateChangeReason", {}).get("Message", "")

    def news(self, run: str) -> list[str]:  # noqa: ARG002 - as the others
        """Nothing: a cluster writes its logs to S3, minutes later."""
        return []

    def tail(self, run: str) -> list[str]:
        """The last lines of the step and of the driver, which come to S3 when the cluster ends."""
        logger.info("%s: waiting for the logs, which come with the end of the cluster; Ctrl-C ends that", run)
        until = time.monotonic() + CLUSTER_ENDS_WITHIN
        try:
            with contextlib.suppress(KeyboardInterrupt):
                while self._cluster(run)[0] not in CLUSTER_HAS_ENDED and time.monotonic() < until:
                    self._account.wait(self._every)
            return self._last_lines(run)
        except ClientError as error:
            _cannot_show_log(error)
            return []

    def _last_lines(self, run: str) -> list[str]:
        listed = self._account.pages(
            "s3", "list_objects_v2", "Contents", Bucket=self._bucket, Prefix=f"{self._prefix}/{run}/"
        )
        logs = [found["Key"] for found in listed if _is_of_the_driver(found["Key"])]
        lines: list[str] = []
        for key in logs:
            body = self._account.call("s3", "get_object", Bucket=self._bucket, Key=key)["Body"].read()
            try:
                lines += gzip.decompress(body).decode(errors="replace").splitlines()[-TAIL:]
            except (OSError, EOFError, zlib.error):
                continue
        return lines[-2 * TAIL :] or [
            f"logs come to s3://{self._bucket}/{self._prefix}/{run}/ some minutes after the end"
        ]


def _check_environment(account: Account, order: Order) -> None:
    """Raise UsageError where the release has no packages for EMR."""
    key = f"{order.stack['Release']}/{ENVIRONMENT}"
    if not account.pages("s3", "list_objects_v2", "Contents", Bucket=order.stack["ArtefactsBucket"], Prefix=key):
        if account.dry_run:
            return
        raise UsageError(f"{order.stack['Release']} was built with --without-emr: deploy again without that")


def _is_of_the_driver(key: str) -> bool:
    """Whether a log of a cluster is that of the step, or of the container in which YARN has started the driver."""
    return bool(re.search(r"/steps/[^/]+/stderr\.gz$|/container_[^/]*_000001/std(out|err)\.gz$", key))


SERVICES: Mapping[str, type[Glue] | type[EmrServerless] | type[Emr]] = {
    "glue": Glue,
    "emr-serverless": EmrServerless,
    "emr": Emr,
}


class Logs:
    """What a job says in a group of CloudWatch, read on where the last look ended."""

    def __init__(self, account: Account, group: str, is_driver: Any) -> None:
        self._account, self._group, self._is_driver = account, group, is_driver
        self._since, self._seen = 0, set[str]()
        self._is_readable = True

    def news(self, prefix: str) -> list[str]:
        """Lines of these jobs that have come since the last look."""
        lines = []
        for event in self._events(prefix, self._since):
            self._since = max(self._since, event["timestamp"])
            if event["eventId"] not in self._seen and OURS.match(event["message"]):
                lines.append(event["message"].rstrip())
            self._seen.add(event["eventId"])
        return lines

    def tail(self, prefix: str) -> list[str]:
        """The last lines, whoever said them."""
        return [line for event in self._events(prefix, 0) for line in event["message"].splitlines()][-TAIL:]

    def _events(self, prefix: str, since: int) -> list[dict[str, Any]]:
        """The driver's events of a run, by time. A group that cannot be read is told once, and is no failure."""
        if not self._is_readable:
            return []
        arguments = {"logGroupName": self._group, "logStreamNamePrefix": prefix, "startTime": since}
        try:
            events = self._account.pages("logs", "filter_log_events", "events", **arguments)
        except ClientError as error:
            self._is_readable = False
            _cannot_show_log(error)
            return []
        return sorted(
            (event for event in events if self._is_driver(event["logStreamName"])), key=lambda event: event["timestamp"]
        )


def settings_of_run(
    account: Account, stack: Mapping[str, str], config: str | None, assignments: Sequence[str]
) -> str | None:
    """Put the settings of one run into S3, and return where; None where the release's are to be used.

    `config` is the text of a TOML file that takes the place of the release's. Raises UsageError for what is not valid.
    """
    if config is None and not assignments:
        return None
    bucket = stack["ArtefactsBucket"]
    if config is None:
        answer = account.call("s3", "get_object", Bucket=bucket, Key=f"{stack['Release']}/{SETTINGS}")
        config = "" if account.dry_run else answer["Body"].read().decode()
    text = tomlkit.dumps(merge_settings(config, "--config", assignments))
    build_settings(text, "--config")
    key = f"settings/{hashlib.sha256(text.encode()).hexdigest()[:16]}.toml"
    account.call("s3", "put_object", Bucket=bucket, Key=key, Body=text.encode())
    return f"s3://{bucket}/{key}"


def run(account: Account, on: str, order: Order) -> None:
    """Run a job and wait for its end, showing its states and what it says. Raises FailedJobError where it fails."""
    service: Service = SERVICES[on](account, order)
    started = time.monotonic()
    run_id = service.start(order)
    if account.dry_run:
        service.look(run_id)
        service.news(run_id)
        return
    logger.info("%s on %s: run %s", order.job, on, run_id)
    try:
        found = _follow(account, service, run_id, order.every)
    except KeyboardInterrupt:
        logger.warning("%s goes on as run %s: `status` shows it, and its service's console ends it", order.job, run_id)
        raise
    minutes = (time.monotonic() - started) / 60
    if found.state in DONE:
        logger.info("%s on %s: done in %.1f minutes", order.job, on, minutes)
        return
    tail = service.tail(run_id)
    _show(tail)
    code = exit_code(found.message)
    if code == FailedJobError.exit_code:
        code = exit_code("\n".join(tail))
    raise FailedJobError(
        f"{order.job} on {on} is {found.state} after {minutes:.1f} minutes (run {run_id}): "
        f"{' '.join(found.message.split())[:300] or 'the service does not say why'}; see the lines above",
        code,
    )


def _follow(account: Account, service: Service, run_id: str, every: float) -> Look:
    state = ""
    while True:
        found = service.look(run_id)
        _show(service.news(run_id))
        if found.state != state:
            logger.info("%s: %s", run_id, found.state)
        state = found.state
        if state in ENDED:
            return found
        account.wait(every)


def _cannot_show_log(error: ClientError) -> None:
    """Say why a log is not shown, which is no failure of the job."""
    logger.warning("the job's log cannot be shown: %s", explain(error))


def _show(lines: Iterable[str]) -> None:
    for line in lines:
        logger.info("  %s", line)
