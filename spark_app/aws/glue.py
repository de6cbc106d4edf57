"""Runs on AWS Glue."""

from __future__ import annotations

from spark_app.aws.account import Account
from spark_app.aws.artefacts import chained
from spark_app.aws.logs import Logs
from spark_app.aws.order import NOT_ASKED, Look, Order
from spark_app.aws.stacks import spark_defaults


class Glue:
    """A job of AWS Glue, which the template `jobs.yaml` defines."""

    def __init__(self, account: Account, order: Order) -> None:
        self._account, self._job = account, order.title
        self._logs = Logs(account, f"/{order.name}/glue/output", is_driver=lambda stream: "_g-" not in stream)

    def start(self, order: Order) -> str:
        """Start the job with its own arguments, except for the settings of this run; returns the id of the run."""
        arguments = {"--config": order.settings} if order.settings else {}
        if order.conf:
            release = spark_defaults(self._account, order.stack["ArtefactsBucket"], order.stack["Release"])
            arguments["--conf"] = chained({**release, **order.conf})
        return str(self._account.call("glue", "start_job_run", JobName=self._job, Arguments=arguments)["JobRunId"])

    def look(self, run: str) -> Look:
        """The state of a run."""
        answer = self._account.call("glue", "get_job_run", JobName=self._job, RunId=run)["JobRun"]
        return NOT_ASKED if self._account.dry_run else Look(answer["JobRunState"], answer.get("ErrorMessage", ""))

    def news(self, run: str) -> list[str]:
        """The lines that the driver logged since the last call."""
        return self._logs.news(run)

    def tail(self, run: str) -> list[str]:
        """The last lines that the driver logged."""
        return self._logs.tail(run)
