"""A release runs the whole pipeline where nothing else of this checkout is, started as each service starts it.

What the services' APIs were told, at moto, is what starts the jobs; Spark, Python, YARN and S3 are real.
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


def needs(brought: Brought, *jars: str) -> pytest.MarkDecorator:
    reason = f"needs Python {brought.python} and, of set-up, {brought.venv.name} with {', '.join(('Spark', *jars))}"
    return pytest.mark.skipif(not brought.is_there(*jars), reason=reason)


MOST = 0.95
LITTLE_MEMORY = {
    f"spark.{who}.{what}": amount
    for who in ("driver", "executor")
    for what, amount in (("memory", "1g"), ("memoryOverhead", "512m"), ("cores", "1"))
}


@pytest.fixture(scope="module")
def stack(environment: str, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What was deployed; its release lies in a real S3, which this process finds from now on."""
    forget_account(environment)
    dist = tmp_path_factory.mktemp("dist")
    config = dist / "small.toml"
    config.write_text(FEW)
    out = dist / "releases"
    main(["deploy", "--config", str(config), "--out", str(out), *EVERY])
    found = stack_outputs("movie-reco-jobs")
    for zone in ("RawBucket", "ProcessedBucket", "ArtefactsBucket"):
        s3_server.make_bucket(found[zone])
    (release,) = out.iterdir()
    for file in release.rglob("*.*"):
        key = f"releases/{release.name}/{file.relative_to(release)}"
        s3_server.client().upload_file(str(file), found["ArtefactsBucket"], key)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", s3_server.url)
        patch.setenv("AWS_ACCESS_KEY_ID", s3_server.owner.access)
        patch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.owner.secret)
        forget_s3()
        yield found
    forget_s3()


@pytest.fixture
def order(stack: dict[str, str]) -> Order:
    return Order("movie-reco", "pipeline", stack, executors=1)


@pytest.fixture
def started(order: Order) -> Any:
    """Start the pipeline on a service; gives the id of the run."""

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
    """The lists that the services have made, by what they bring."""
    return {}


def rows_of(made: str) -> set[tuple[str, ...]]:
    """User, rank and movie of each row of a CSV."""
    return {tuple(line.split(",")[:3]) for line in made.splitlines()[1:]}


def check(said: str, stack: dict[str, str], results: Lists, brought: Brought = EMR) -> None:
    """Hold what has come out against what was ordered: on the same Spark it is the same on each service."""
    zone = ProcessedZone(f"s3://{stack['ProcessedBucket']}")
    assert f"wrote {zone.recommendations_csv}" in said
    assert "movie_reco_db.recommendations" in said
    made = storage.read_text(zone.recommendations_csv)
    assert results.setdefault(brought, made) == made
    assert len(made.splitlines()) > FEW_USERS
    # Another Spark fits models that differ in their last digits: most of the lists are the same.
    for others in results.values():
        assert len(rows_of(made) & rows_of(others)) > MOST * len(rows_of(made))
    tables = client("glue").get_tables(DatabaseName="movie_reco_db")["TableList"]
    columns = {table["Name"]: [column["Name"] for column in table["StorageDescriptor"]["Columns"]] for table in tables}
    assert columns["recommendations"][:3] == ["userid", "rank", "movieid"]


@pytest.mark.parametrize("version", [pytest.param(version, marks=needs(brought)) for version, brought in GLUE.items()])
def test_as_glue_starts_it(
    stack: dict[str, str], s3_server: S3Server, folder: Path, started: Any, results: Lists, version: str
) -> None:
    main(["deploy", "--release", stack["Release"], "--parameter", f"GlueVersion={version}", *EVERY])
    run = started("glue")
    found = client("glue").get_job_run(JobName="movie-reco-pipeline", RunId=run)["JobRun"]
    job = client("glue").get_job(JobName="movie-reco-pipeline")["Job"]
    assert job["GlueVersion"] == version
    check(run_on_glue(Machine(folder, s3_server, GLUE[version]), job, found), stack, results, GLUE[version])


@needs(EMR)
def test_as_emr_serverless_starts_it(
    stack: dict[str, str], s3_server: S3Server, folder: Path, started: Any, results: Lists
) -> None:
    run = started("emr-serverless", conf=LITTLE_MEMORY)
    application = stack["ApplicationId"]
    found = client("emr-serverless").get_job_run(applicationId=application, jobRunId=run)["jobRun"]
    check(run_on_emr_serverless(Machine(folder, s3_server), found), stack, results)


@needs(EMR, "yarn")
def test_as_a_cluster_of_emr_starts_it(
    stack: dict[str, str], s3_server: S3Server, folder: Path, started: Any, results: Lists
) -> None:
    cluster = started("emr", conf=LITTLE_MEMORY)
    (step,) = client("emr").list_steps(ClusterId=cluster)["Steps"]
    check(run_on_emr(ClusterMachine(folder, s3_server), step), stack, results)
