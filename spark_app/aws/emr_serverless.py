"""Runs on EMR Serverless."""

from __future__ import annotations

from spark_app.aws.account import Account
from spark_app.aws.artefacts import ENVIRONMENT, PACKAGE
from spark_app.aws.emr_settings import DELTA_JARS, PYTHON, SIZES, check_environment
from spark_app.aws.logs import Logs
from spark_app.aws.order import NOT_ASKED, Look, Order
from spark_app.aws.stacks import spark_defaults

FIRST_EXECUTORS = ("spark.executor.instances", "spark.dynamicAllocation.initialExecutors")
DEFAULT_FIRST_EXECUTORS = 3
"""The executors with which EMR Serverless starts a job by default; it refuses a job whose maximum is lower."""


class EmrServerless:
    """A job on the application of EMR Serverless."""

    def __init__(self, account: Account, order: Order) -> None:
        self._account, self._application = account, order.stack["ApplicationId"]
        self._group = f"/{order.name}/emr-serverless"
        self._logs = Logs(account, self._group, is_driver=lambda stream: "DRIVER" in stream)

    def start(self, order: Order) -> str:
        """Submit the job, which also starts the application; returns the id of the run."""
        check_environment(self._account, order)
        entry, *arguments = order.entry
        region = self._account.region
        settings = {
            **spark_defaults(self._account, order.stack["ArtefactsBucket"], order.stack["Release"]),
            **SIZES,
            **dict.fromkeys(FIRST_EXECUTORS, str(min(DEFAULT_FIRST_EXECUTORS, order.executors))),
            "spark.dynamicAllocation.maxExecutors": str(order.executors),
            "spark.jars": DELTA_JARS,
            "spark.submit.pyFiles": order.at(PACKAGE),
            "spark.archives": f"{order.at(ENVIRONMENT)}#environment",
            "spark.emr-serverless.driverEnv.PYSPARK_DRIVER_PYTHON": PYTHON,
            "spark.emr-serverless.driverEnv.PYSPARK_PYTHON": PYTHON,
            "spark.emr-serverless.driverEnv.AWS_REGION": region,
            "spark.executorEnv.PYSPARK_PYTHON": PYTHON,
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
        """The lines that the driver logged since the last call."""
        return self._logs.news(self._stream(run))

    def tail(self, run: str) -> list[str]:
        """The last lines that the driver logged."""
        return self._logs.tail(self._stream(run))

    def _stream(self, run: str) -> str:
        return f"/applications/{self._application}/jobs/{run}"
