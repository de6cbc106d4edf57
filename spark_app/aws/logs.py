"""The log of a job in CloudWatch."""

from __future__ import annotations

import re
from typing import Any

from botocore.exceptions import ClientError

from spark_app.aws.account import Account
from spark_app.aws.failures import explain
from spark_app.platform.log import logger

OURS = re.compile(r'\d\d:\d\d:\d\d (DEBUG|INFO|WARNING|ERROR) |\{"(time|level|levelname)"')
"""The start of a log line of this package, as text or as JSON; all other lines are Spark's."""

TAIL_LINES = 20
"""The number of last log lines that are shown of a failed job."""


class Logs:
    """The log of a job in a log group of CloudWatch.

    `is_driver` tells by the name of a log stream whether the driver writes it.
    """

    def __init__(self, account: Account, group: str, is_driver: Any) -> None:
        self._account, self._group, self._is_driver = account, group, is_driver
        self._since, self._seen = 0, set[str]()
        self._is_readable = True

    def news(self, prefix: str) -> list[str]:
        """The lines of this package that arrived since the last call, from streams whose names begin with `prefix`."""
        lines = []
        for event in self._events(prefix, self._since):
            self._since = max(self._since, event["timestamp"])
            if event["eventId"] not in self._seen and OURS.match(event["message"]):
                lines.append(event["message"].rstrip())
            self._seen.add(event["eventId"])
        return lines

    def tail(self, prefix: str) -> list[str]:
        """The last lines, Spark's included."""
        return [line for event in self._events(prefix, 0) for line in event["message"].splitlines()][-TAIL_LINES:]

    def _events(self, prefix: str, since: int) -> list[dict[str, Any]]:
        """The driver's events of a run, by time. A group that cannot be read is reported once, and is no failure."""
        if not self._is_readable:
            return []
        arguments = {"logGroupName": self._group, "logStreamNamePrefix": prefix, "startTime": since}
        try:
            events = self._account.pages("logs", "filter_log_events", "events", **arguments)
        except ClientError as error:
            self._is_readable = False
            warn_without_log(error)
            return []
        return sorted(
            (event for event in events if self._is_driver(event["logStreamName"])), key=lambda event: event["timestamp"]
        )


def warn_without_log(error: ClientError) -> None:
    """Log why a job's log is not shown; this is no failure of the job."""
    logger.warning("the job's log cannot be shown: %s", explain(error))
