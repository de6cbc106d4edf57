"""What is to run on AWS, and what each service that runs it can be asked."""

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
"""States in which a run stays."""

POLL_SECONDS = 15.0
"""Between two looks at a run, unless told otherwise."""


@dataclass(frozen=True)
class Order:
    """What is to run: a job of the package, on what was deployed under a name.

    `stack` are the outputs of the jobs stack; `settings` is a file that takes the place of the release's, `conf` are
    further settings of Spark; `executors` and `subnet` are for EMR. Its state is asked for every `poll_seconds`.
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
