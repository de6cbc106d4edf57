"""An order of a run on AWS, and the interface of the services that run it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from spark_app.aws.artefacts import SETTINGS

DONE = ("SUCCEEDED", "SUCCESS", "COMPLETED")
ENDED = (
    *DONE,
    *("FAILED", "STOPPED", "TIMEOUT", "ERROR", "EXPIRED"),  # Glue's
    *("CANCELLED", "INTERRUPTED"),  # EMR's
)
"""Final states of a run."""

POLL_SECONDS = 15.0
"""The default time between two checks of a run."""


@dataclass(frozen=True)
class Order:
    """The job to run, and the deployment to run it on, whose name is `name`.

    `stack` has the outputs of the jobs stack. `settings` is the URI of a file that replaces the release's settings.
    `conf` has further Spark settings. `executors` (the most) and `subnet` are for EMR. The state of the run is checked
    every `poll_seconds`.
    """

    name: str
    job: str
    stack: Mapping[str, str]
    settings: str | None = None
    conf: Mapping[str, str] = field(default_factory=dict)
    executors: int = 3
    subnet: str | None = None
    poll_seconds: float = POLL_SECONDS

    @property
    def title(self) -> str:
        """The name of the run. The alarms match it by its prefix, the name of the deployment."""
        return f"{self.name}-{self.job}"

    def at(self, file: str) -> str:
        """The URI of a file of the release."""
        return f"s3://{self.stack['ArtefactsBucket']}/{self.stack['Release']}/{file}"

    @property
    def entry(self) -> list[str]:
        """The entry script and its arguments."""
        zones = {"--raw-path": self.stack["RawBucket"], "--processed-path": self.stack["ProcessedBucket"]}
        paths = [word for option, bucket in zones.items() for word in (option, f"s3://{bucket}")]
        return [self.at(f"jobs/{self.job}.py"), "--config", self.settings or self.at(SETTINGS), *paths]


@dataclass(frozen=True)
class Look:
    """The state of a run, and the service's message about it."""

    state: str
    message: str = ""


NOT_ASKED = Look("NOT ASKED")
"""The state of a run in a dry run, which starts nothing."""


class Service(Protocol):
    """A service that runs jobs."""

    def start(self, order: Order) -> str:
        """Start a run; returns its id."""

    def look(self, run: str) -> Look:
        """The state of a run."""

    def news(self, run: str) -> list[str]:
        """The lines that the job logged since the last call."""

    def tail(self, run: str) -> list[str]:
        """The last lines of the job's log."""
