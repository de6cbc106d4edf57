"""Runs on a cluster of EMR on EC2."""

from __future__ import annotations

import contextlib
import gzip
import re
import time
import zlib
from typing import Any

from botocore.exceptions import ClientError

from spark_app.aws.account import Account
from spark_app.aws.artefacts import ENVIRONMENT, PACKAGE
from spark_app.aws.emr_settings import DELTA_JARS, PYTHON, SIZES, check_environment
from spark_app.aws.logs import TAIL_LINES, warn_without_log
from spark_app.aws.order import DONE, ENDED, NOT_ASKED, Look, Order
from spark_app.aws.stacks import spark_defaults
from spark_app.platform.log import logger

CLUSTER_HAS_ENDED = ("TERMINATED", "TERMINATED_WITH_ERRORS")
CLUSTER_END_SECONDS = 600.0
"""A cluster writes all its logs to S3 within this time after the end of its step."""

GLUE_CATALOGUE = "com.amazonaws.glue.catalog.metastore.AWSGlueDataCatalogHiveClientFactory"

MACHINE = "r5.xlarge"
"""4 cores, 32 GB."""


class Emr:
    """A cluster of EMR on EC2 that is made for one run and ends with that run."""

    def __init__(self, account: Account, order: Order) -> None:
        self._account, self._bucket, self._poll_seconds = account, order.stack["ArtefactsBucket"], order.poll_seconds
        self._prefix = "logs/emr"

    def start(self, order: Order) -> str:
        """Start a cluster whose only step is the job; returns the id of the cluster."""
        check_environment(self._account, order)
        settings = {
            **spark_defaults(self._account, self._bucket, order.stack["Release"]),
            **SIZES,
            "spark.dynamicAllocation.maxExecutors": str(order.executors),
            "spark.jars": DELTA_JARS,
            # A second attempt would fail too, and would hide the cause: it reports that another run holds the lock.
            "spark.yarn.maxAppAttempts": "1",
            "spark.yarn.appMasterEnv.PYSPARK_DRIVER_PYTHON": PYTHON,
            "spark.yarn.appMasterEnv.PYSPARK_PYTHON": PYTHON,
            "spark.yarn.appMasterEnv.AWS_REGION": self._account.region,
            "spark.executorEnv.PYSPARK_PYTHON": PYTHON,
            **order.conf,
        }
        confs = [word for key, value in settings.items() for word in ("--conf", f"{key}={value}")]
        files = ["--py-files", order.at(PACKAGE), "--archives", f"{order.at(ENVIRONMENT)}#environment"]
        submit = ["spark-submit", "--deploy-mode", "cluster", "--name", order.title, *files, *confs, *order.entry]
        # In cluster mode YARN places the driver on one of the core machines, and the executors on the others.
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
                # AWS's policy for EMR allows access only to resources with this tag.
                {"Key": "for-use-with-amazon-emr-managed-policies", "Value": "true"},
            ],
            VisibleToAllUsers=True,
        )
        return str(answer["JobFlowId"])

    def look(self, run: str) -> Look:
        """The state of the step; the state of the cluster where the cluster ended before the step began."""
        steps = self._account.pages("emr", "list_steps", "Steps", ClusterId=run)
        if self._account.dry_run:
            return NOT_ASKED
        step = steps[0]["Status"]
        details = step.get("FailureDetails", {})
        reason = " ".join(details[key] for key in ("Reason", "Message") if key in details)
        if step["State"] in DONE or (step["State"] in ENDED and reason):
            return Look(step["State"], reason)
        # The step has not begun, or it ended together with its cluster: only the cluster has the reason.
        state, reason = self._cluster(run)
        if step["State"] in ENDED:
            return Look(step["State"], reason)
        if state in CLUSTER_HAS_ENDED:
            return Look("FAILED", reason)
        return Look(step["State"] if step["State"] != "PENDING" else f"PENDING, cluster {state}")

    def _cluster(self, run: str) -> tuple[str, str]:
        """The state of the cluster, and EMR's reason for it."""
        status = self._account.call("emr", "describe_cluster", ClusterId=run)["Cluster"]["Status"]
        return status["State"], status.get("StateChangeReason", {}).get("Message", "")

    def news(self, run: str) -> list[str]:  # noqa: ARG002 - the signature of Service
        """No lines: a cluster writes its logs to S3 only minutes later."""
        return []

    def tail(self, run: str) -> list[str]:
        """The last lines of the step's log and of the driver's, which are in S3 once the cluster has ended."""
        logger.info("%s: waiting for the logs, which arrive when the cluster ends; Ctrl-C stops the wait", run)
        until = time.monotonic() + CLUSTER_END_SECONDS
        try:
            with contextlib.suppress(KeyboardInterrupt):
                while self._cluster(run)[0] not in CLUSTER_HAS_ENDED and time.monotonic() < until:
                    self._account.wait(self._poll_seconds)
            return self._last_lines(run)
        except ClientError as error:
            warn_without_log(error)
            return []

    def _last_lines(self, run: str) -> list[str]:
        listed = self._account.pages(
            "s3", "list_objects_v2", "Contents", Bucket=self._bucket, Prefix=f"{self._prefix}/{run}/"
        )
        logs = [entry["Key"] for entry in listed if _is_of_the_driver(entry["Key"])]
        lines: list[str] = []
        for key in logs:
            body = self._account.call("s3", "get_object", Bucket=self._bucket, Key=key)["Body"].read()
            try:
                lines += gzip.decompress(body).decode(errors="replace").splitlines()[-TAIL_LINES:]
            except (OSError, EOFError, zlib.error):
                continue
        return lines[-2 * TAIL_LINES :] or [
            f"logs arrive in s3://{self._bucket}/{self._prefix}/{run}/ some minutes after the end"
        ]


def _is_of_the_driver(key: str) -> bool:
    """Whether a cluster's log is that of the step, or that of the container in which YARN starts the driver."""
    return bool(re.search(r"/steps/[^/]+/stderr\.gz$|/container_[^/]*_000001/std(out|err)\.gz$", key))
