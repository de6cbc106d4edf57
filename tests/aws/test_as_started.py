"""A release runs the whole pipeline without the rest of this checkout, started as each service starts it.

The tests start the jobs with the arguments that moto's APIs of the services received. Spark, Python, YARN and S3 are
real.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spark_app.aws.__main__ import main
from spark_app.aws.account import Account
from spark_app.aws.jobs import SERVICES
from spark_app.aws.order import Order
from spark_app.platform import storage
from spark_app.zones.processed import ProcessedZone
from tests.aws.conftest import EVERY, client, forget_account, stack_outputs
from tests.aws.services import (
    EMR,
    GLUE,
    Brought,
    ClusterMachine,
    Machine,
    run_on_emr,
    run_on_emr_serverless,
    run_on_glue,
)
from tests.conftest import FEW, FEW_USERS, forget_s3
from tools.s3_server import S3Server

pytestmark = pytest.mark.long


def needs(brought: Brought, *jars: str) -> pytest.MarkDecorator:
    reason = f"needs Python {brought.python}, and {brought.venv.name} from set-up with {', '.join(('Spark', *jars))}"
    return pytest.mark.skipif(not brought.is_there(*jars), reason=reason)


MIN_EQUAL_SHARE = 0.95
LITTLE_MEMORY = {
    f"spark.{who}.{what}": amount
    for who in ("driver", "executor")
    for what, amount in (("memory", "1g"), ("memoryOverhead", "512m"), ("cores", "1"))
}


@pytest.fixture(scope="module")
def stack(environment: str, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The outputs of the deployed jobs stack. Its release is in a real S3 server, which this process now uses."""
    forget_account(environment)
    dist = tmp_path_factory.mktemp("dist")
    config = dist / "small.toml"
    config.write_text(FEW)
    out = dist / "releases"
    main(["deploy", "--config", str(config), "--out", str(out), *EVERY])
    outputs = stack_outputs("movie-reco-jobs")
    for zone in ("RawBucket", "ProcessedBucket", "ArtefactsBucket"):
        s3_server.make_bucket(outputs[zone])
    (release,) = out.iterdir()
    for file in release.rglob("*.*"):
        key = f"releases/{release.name}/{file.relative_to(release)}"
        s3_server.client().upload_file(str(file), outputs["ArtefactsBucket"], key)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", s3_server.url)
        patch.setenv("AWS_ACCESS_KEY_ID", s3_server.owner.access)
        patch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.owner.secret)
        forget_s3()
        yield outputs
    forget_s3()


@pytest.fixture
def order(stack: dict[str, str]) -> Order:
    return Order("movie-reco", "pipeline", stack, executors=1)


@pytest.fixture
def started(order: Order) -> Any:
    """Start the pipeline on a service; returns the id of the run."""

    def start(on: str, **changes: Any) -> str:
        changed = replace(order, **changes)
        return SERVICES[on](Account(), changed).start(changed)

    return start


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "machine"


Lists = dict[Brought, str]


@pytest.fixture(scope="module")
def results() -> Lists:
    """The CSV of the lists that each Spark and Python made, filled by the tests of this file."""
    return {}


def rows_of(lists: str) -> set[tuple[str, ...]]:
    """User, rank and movie of each row of a CSV."""
    return {tuple(line.split(",")[:3]) for line in lists.splitlines()[1:]}


def check(output: str, stack: dict[str, str], results: Lists, brought: Brought = EMR) -> None:
    """Check the output and the results of a run: services with the same Spark make the same lists."""
    zone = ProcessedZone(f"s3://{stack['ProcessedBucket']}")
    assert f"wrote {zone.recommendations_csv}" in output
    assert "movie_reco_db.recommendations" in output
    lists = storage.read_text(zone.recommendations_csv)
    assert results.setdefault(brought, lists) == lists
    assert len(lists.splitlines()) > FEW_USERS
    # Another Spark fits models that differ in their last digits, so most rows of the lists are equal, but not all.
    for others in results.values():
        assert len(rows_of(lists) & rows_of(others)) > MIN_EQUAL_SHARE * len(rows_of(lists))
    tables = client("glue").get_tables(DatabaseName="movie_reco_db")["TableList"]
    columns = {table["Name"]: [column["Name"] for column in table["StorageDescriptor"]["Columns"]] for table in tables}
    assert columns["recommendations"][:3] == ["userid", "rank", "movieid"]


@pytest.mark.parametrize("version", [pytest.param(version, marks=needs(brought)) for version, brought in GLUE.items()])
def test_as_glue_starts_it(
    stack: dict[str, str], s3_server: S3Server, folder: Path, started: Any, results: Lists, version: str
) -> None:
    main(["deploy", "--release", stack["Release"], "--parameter", f"GlueVersion={version}", *EVERY])
    run = started("glue")
    job_run = client("glue").get_job_run(JobName="movie-reco-pipeline", RunId=run)["JobRun"]
    job = client("glue").get_job(JobName="movie-reco-pipeline")["Job"]
    assert job["GlueVersion"] == version
    check(run_on_glue(Machine(folder, s3_server, GLUE[version]), job, job_run), stack, results, GLUE[version])


@needs(EMR)
def test_as_emr_serverless_starts_it(
    stack: dict[str, str], s3_server: S3Server, folder: Path, started: Any, results: Lists
) -> None:
    run = started("emr-serverless", conf=LITTLE_MEMORY)
    application = stack["ApplicationId"]
    job_run = client("emr-serverless").get_job_run(applicationId=application, jobRunId=run)["jobRun"]
    check(run_on_emr_serverless(Machine(folder, s3_server), job_run), stack, results)


@needs(EMR, "yarn")
def test_as_a_cluster_of_emr_starts_it(
    stack: dict[str, str], s3_server: S3Server, folder: Path, started: Any, results: Lists
) -> None:
    cluster = started("emr", conf=LITTLE_MEMORY)
    (step,) = client("emr").list_steps(ClusterId=cluster)["Steps"]
    check(run_on_emr(ClusterMachine(folder, s3_server), step), stack, results)
