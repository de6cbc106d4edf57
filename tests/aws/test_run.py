"""Runs on each service, through moto's APIs: the calls that start them, the lines that are shown, and their ends."""

from __future__ import annotations

import gzip
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from moto.emr import models as emr
from moto.emrserverless.models import JobRun, emrserverless_backends
from moto.glue.models import FakeJobRun

from spark_app.aws.account import Account
from spark_app.aws.artefacts import CONF, chained, parse_conf
from spark_app.aws.stacks import REGION_OF_S3A
from spark_app.cli import read_settings
from spark_app.platform.settings import build_settings
from spark_app.stages.pipeline import JOBS
from tests.aws.conftest import ACCOUNT, EVERY, REGION, Aws, client, last_line

Say = Callable[..., None]

SPARK = {**parse_conf((CONF / "spark-defaults.conf").read_text()), REGION_OF_S3A: REGION}


def without_minutes(output: str) -> str:
    """The last line, with N for the minutes: on a busy machine they may not be 0.0."""
    return re.sub(r"after [0-9.]+ minutes", "after N minutes", last_line(output))


@pytest.fixture
def say() -> Iterator[Callable[..., None]]:
    """Write lines to a log stream as a service does; the streams are deleted after the test."""
    logs, streams = client("logs"), []

    def write(group: str, stream: str, *lines: str) -> None:
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
        streams.append({"logGroupName": group, "logStreamName": stream})
        now = int(time.time() * 1000)
        events = [{"timestamp": now + place, "message": line} for place, line in enumerate(lines)]
        logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)

    yield write
    for stream in streams:
        logs.delete_log_stream(**stream)


@pytest.fixture
def for_emr(deployed: dict[str, str]) -> Iterator[None]:
    """Give the deployed release packages for EMR."""
    place = {"Bucket": deployed["ArtefactsBucket"], "Key": f"{deployed['Release']}/environment.tar.gz"}
    client("s3").put_object(**place, Body=b"packages")
    yield
    client("s3").delete_object(**place)


@pytest.mark.parametrize("on", ["emr-serverless", "emr"])
def test_a_release_without_packages_for_emr_is_told(deployed: dict[str, str], aws: Aws, on: str) -> None:
    code, output = aws("run", "etl", "--on", on, *EVERY)
    assert code == 2
    assert f"{deployed['Release']} was built with --without-emr: deploy again without that option" in last_line(output)


def last_run(job: str) -> dict[str, Any]:
    """The last run of a Glue job."""
    return dict(client("glue").get_job_runs(JobName=f"movie-reco-{job}")["JobRuns"][-1])


@pytest.fixture
def glue_ends(deployed: dict[str, str]) -> Iterator[Callable[[str, str], None]]:
    """Make moto's Glue jobs end in a given state with a given message: by themselves they only succeed."""
    monkeypatch = pytest.MonkeyPatch()

    def end(state: str, message: str) -> None:
        facts = FakeJobRun.as_dict
        monkeypatch.setattr(
            FakeJobRun, "as_dict", lambda self: {**facts(self), "JobRunState": state, "ErrorMessage": message}
        )

    yield end
    monkeypatch.undo()
    while last_run("train")["JobRunState"] != "SUCCEEDED":
        pass  # only one run at a time is allowed, so the next test needs this run to end


@pytest.fixture
def step_ends(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make the steps of moto's cluster j-1 end in a given state: by themselves they never end.

    After `looks` requests of its state the cluster ends too, for `reason`, and `log` writes its log to S3.
    """

    def end(state: str, looks: int = 0, reason: str = "Steps completed", log: Callable[[], object] = int) -> None:
        monkeypatch.setattr(emr, "random_cluster_id", lambda: "j-1")
        begin, status = emr.Step.__init__, vars(emr.Cluster)["status"].fget
        left = iter(range(looks))

        def ended(self: emr.Step, *args: Any, **kwargs: Any) -> None:
            begin(self, *args, **kwargs)
            self.state = state

        def ending(self: emr.Cluster) -> dict[str, Any]:
            self.state = "TERMINATING"
            if next(left, None) is None:
                self.state = "TERMINATED_WITH_ERRORS"
                log()
            return {**status(self), "StateChangeReason": {"Message": reason}}

        monkeypatch.setattr(emr.Step, "__init__", ended)
        monkeypatch.setattr(emr.Step, "start", lambda _: None)
        monkeypatch.setattr(emr.Cluster, "status", property(ending))

    return end


def test_a_stage_on_glue_is_followed_to_its_end(deployed: dict[str, str], aws: Aws, say: Say) -> None:
    say("/movie-reco/glue/output", "jr_1", "09:00:01 INFO    etl: started", "25/11/25 INFO SparkContext: noise")
    say("/movie-reco/glue/output", "jr_1_g-2", "09:00:02 INFO    of an executor")
    code, output = aws("run", "etl", "--on", "glue", *EVERY)
    assert code == 0, output
    lines = output.splitlines()
    assert "etl on glue: run jr_" in lines[0]
    assert [line.rpartition(": ")[2] for line in lines if ": STARTING" in line or ": SUCCEEDED" in line][
        -1
    ] == "SUCCEEDED"
    assert output.count("09:00:01 INFO    etl: started") == 1
    assert "noise" not in output
    assert "of an executor" not in output
    assert "etl on glue: done in" in lines[-1]
    assert last_run("etl")["Arguments"]["--conf"] == chained(SPARK)


def test_what_glue_hands_to_the_script_is_taken_by_it(deployed: dict[str, str], aws: Aws) -> None:
    assert aws("run", "train", "--on", "glue", *EVERY)[0] == 0
    run = last_run("train")
    arguments = {
        **run["Arguments"],
        "--JOB_NAME": "movie-reco-train",
        "--JOB_RUN_ID": run["Id"],
        "--job-language": "python",
    }
    arguments.pop("--config")  # another test reads it from moto's S3
    settings = read_settings(JOBS["train"], [word for pair in arguments.items() for word in pair])
    assert not settings.raw.path  # the role of train does not allow the raw zone
    assert settings.processed.path == f"s3://{deployed['ProcessedBucket']}"


def test_settings_of_one_run_are_those_of_the_release_but_for_what_is_set(deployed: dict[str, str], aws: Aws) -> None:
    changed = ("--set", "recommend.n=3", "--set", "ingest.source=synthetic", "--conf", "spark.sql.shuffle.partitions=9")
    code, output = aws("run", "recommend", "--on", "glue", *changed, *EVERY)
    assert code == 0, output
    run = last_run("recommend")
    bucket, _, key = run["Arguments"]["--config"].removeprefix("s3://").partition("/")
    assert (bucket, key.partition("/")[0]) == (deployed["ArtefactsBucket"], "settings")
    text = client("s3").get_object(Bucket=bucket, Key=key)["Body"].read().decode()
    usual = build_settings()
    assert build_settings(text) == usual.model_copy(
        update={
            "recommend": usual.recommend.model_copy(update={"n": 3}),
            "ingest": usual.ingest.model_copy(update={"source": ["synthetic"]}),
        }
    )
    assert run["Arguments"]["--conf"] == chained({**SPARK, "spark.sql.shuffle.partitions": "9"})

    code, output = aws("run", "recommend", "--on", "glue", "--set", "recommend.m=3", *EVERY)
    assert code == 2
    assert "did you mean recommend.n" in last_line(output)
    assert len(client("glue").get_job_runs(JobName="movie-reco-recommend")["JobRuns"]) == 1


@pytest.mark.parametrize(
    ("state", "message", "code"),
    [
        ("FAILED", "SystemExit: 5", 5),
        ("FAILED", "SystemExit: 3", 3),
        ("FAILED", "An error occurred while calling o95.getDynamicFrame", 1),
        ("TIMEOUT", "Job run exceeded its time limit", 1),
    ],
)
def test_a_job_that_fails_on_glue_gives_its_own_code(
    deployed: dict[str, str], aws: Aws, say: Say, glue_ends: Any, state: str, message: str, code: int
) -> None:
    glue_ends(state, message)
    say("/movie-reco/glue/output", "jr_1", "09:00:01 ERROR   train: no better than popularity", "last words")
    exit_code, output = aws("run", "train", "--on", "glue", *EVERY)
    assert exit_code == code
    assert f"aws run: train on glue is {state} after N minutes (run jr_" in without_minutes(output)
    assert f"{message}; see the lines above" in last_line(output)
    assert "last words" in output


@pytest.mark.usefixtures("for_emr")
def test_a_job_on_emr_serverless(deployed: dict[str, str], aws: Aws, say: Say) -> None:
    stream = f"/applications/{deployed['ApplicationId']}/jobs/1/SPARK_DRIVER/stderr"
    say("/movie-reco/emr-serverless", stream, "09:00:01 INFO    etl: started")
    code, output = aws("run", "pipeline", "--on", "emr-serverless", "--executors", "7", "--conf", "a.b=c", *EVERY)
    assert code == 0, output
    assert "09:00:01 INFO    etl: started" in output
    run = emrserverless_backends[ACCOUNT][REGION].job_runs[deployed["ApplicationId"]][-1]
    release = f"s3://{deployed['ArtefactsBucket']}/{deployed['Release']}"
    assert run.execution_role_arn == deployed["PipelineRoleArn"]
    assert run.job_driver
    submit: Any = run.job_driver["sparkSubmit"]
    assert submit["entryPoint"] == f"{release}/jobs/pipeline.py"
    zones = ["--raw-path", f"s3://{deployed['RawBucket']}", "--processed-path", f"s3://{deployed['ProcessedBucket']}"]
    assert submit["entryPointArguments"] == ["--config", f"{release}/settings.toml", *zones]
    words = submit["sparkSubmitParameters"].split()
    assert set(words[::2]) == {"--conf"}
    conf = dict(word.split("=", 1) for word in words[1::2])
    assert {key: conf[key] for key in SPARK} == SPARK
    assert conf["spark.archives"] == f"{release}/environment.tar.gz#environment"
    assert conf["spark.submit.pyFiles"] == f"{release}/movie_reco.zip"
    assert conf["spark.emr-serverless.driverEnv.PYSPARK_PYTHON"] == "./environment/bin/python"
    assert conf["spark.executorEnv.PYSPARK_PYTHON"] == "./environment/bin/python"
    assert (conf["spark.dynamicAllocation.maxExecutors"], conf["a.b"]) == ("7", "c")
    assert conf["spark.dynamicAllocation.initialExecutors"] == conf["spark.executor.instances"] == "3"


@pytest.mark.usefixtures("for_emr")
def test_emr_serverless_begins_with_no_more_executors_than_it_may_have(deployed: dict[str, str], aws: Aws) -> None:
    assert aws("run", "etl", "--on", "emr-serverless", "--executors", "2", *EVERY)[0] == 0
    run = emrserverless_backends[ACCOUNT][REGION].job_runs[deployed["ApplicationId"]][-1]
    assert run.job_driver
    submit: Any = run.job_driver["sparkSubmit"]
    for key in ("executor.instances", "dynamicAllocation.initialExecutors", "dynamicAllocation.maxExecutors"):
        assert f"--conf spark.{key}=2 " in submit["sparkSubmitParameters"]


@pytest.mark.usefixtures("for_emr")
def test_a_job_that_fails_on_emr_serverless_gives_its_own_code(
    deployed: dict[str, str], aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = JobRun.__init__

    def fail(self: JobRun, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        self.state = "FAILED"
        self.state_details = "Job failed, please check complete logs in configured logging destination. ExitCode: 4."

    monkeypatch.setattr(JobRun, "__init__", fail)  # moto's own jobs only succeed
    code, output = aws("run", "etl", "--on", "emr-serverless", *EVERY)
    assert code == 4
    assert "etl on emr-serverless is FAILED after N minutes" in without_minutes(output)


@pytest.mark.usefixtures("for_emr")
def test_a_job_on_a_cluster_of_its_own(deployed: dict[str, str], aws: Aws, step_ends: Callable[..., None]) -> None:
    step_ends("COMPLETED")
    code, output = aws("run", "etl", "--on", "emr", "--executors", "2", "--subnet", "subnet-1", *EVERY)
    assert code == 0, output
    release = f"s3://{deployed['ArtefactsBucket']}/{deployed['Release']}"
    (step,) = client("emr").list_steps(ClusterId="j-1")["Steps"]
    words = step["Config"]["Args"]
    assert words[:4] == ["spark-submit", "--deploy-mode", "cluster", "--name"]
    assert words[words.index("--archives") + 1] == f"{release}/environment.tar.gz#environment"
    assert words[words.index("--py-files") + 1] == f"{release}/movie_reco.zip"
    assert f"{release}/jobs/etl.py" in words
    conf = dict(words[place + 1].split("=", 1) for place, word in enumerate(words) if word == "--conf")
    assert {key: conf[key] for key in SPARK} == SPARK
    assert conf["spark.yarn.appMasterEnv.PYSPARK_PYTHON"] == "./environment/bin/python"
    assert conf["spark.yarn.maxAppAttempts"] == "1"
    cluster = client("emr").describe_cluster(ClusterId="j-1")["Cluster"]
    assert cluster["ReleaseLabel"] == "emr-7.13.0"
    assert cluster["ServiceRole"] == deployed["EmrServiceRole"]
    assert cluster["AutoTerminate"]
    groups = client("emr").list_instance_groups(ClusterId="j-1")["InstanceGroups"]
    assert {group["InstanceGroupType"]: group["RequestedInstanceCount"] for group in groups} == {"MASTER": 1, "CORE": 3}


@pytest.mark.usefixtures("for_emr")
def test_a_job_that_fails_on_a_cluster_gives_the_code_that_its_log_has_in_the_end(
    deployed: dict[str, str], aws: Aws, step_ends: Callable[..., None]
) -> None:
    place = {"Bucket": deployed["ArtefactsBucket"], "Key": "logs/emr/j-1/steps/s-1/stderr.gz"}

    def write() -> None:
        client("s3").put_object(**place, Body=gzip.compress(b"exitCode: 3\nUser application exited with status 3\n"))

    step_ends("FAILED", looks=3, log=write)
    code, output = aws("run", "etl", "--on", "emr", *EVERY)
    client("s3").delete_object(**place)
    assert code == 3, output
    assert "User application exited with status 3" in output
    assert "etl on emr is FAILED" in last_line(output)


@pytest.mark.usefixtures("for_emr")
def test_a_cluster_that_cannot_start_says_why(
    deployed: dict[str, str], aws: Aws, step_ends: Callable[..., None]
) -> None:
    step_ends("CANCELLED", looks=2, reason="The subnet subnet-1 has no tag")
    code, output = aws("run", "etl", "--on", "emr", *EVERY)
    assert code == 1
    assert "etl on emr is CANCELLED" in last_line(output)
    assert "The subnet subnet-1 has no tag" in last_line(output)


@pytest.mark.usefixtures("for_emr")
def test_a_cluster_that_somebody_ends_before_its_step_begins_is_a_failure(
    aws: Aws, step_ends: Callable[..., None]
) -> None:
    step_ends("PENDING", looks=3, reason="Terminated by user request")
    code, output = aws("run", "etl", "--on", "emr", *EVERY)
    assert code == 1
    assert "j-1: PENDING, cluster TERMINATING" in output
    assert "etl on emr is FAILED after N minutes (run j-1): Terminated by user request" in without_minutes(output)


@pytest.mark.usefixtures("for_emr")
def test_who_does_not_wait_for_the_log_of_a_cluster_still_gets_the_reason(
    aws: Aws, step_ends: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Account, seconds: float) -> None:
        raise KeyboardInterrupt

    step_ends("CANCELLED", looks=1000, reason="no such subnet")
    monkeypatch.setattr(Account, "wait", interrupt)
    code, output = aws("run", "etl", "--on", "emr", *EVERY)
    assert code == 1
    assert "logs arrive in s3://" in output
    assert "etl on emr is CANCELLED after N minutes (run j-1): no such subnet" in without_minutes(output)


@pytest.mark.parametrize("on", ["glue", "emr-serverless", "emr"])
def test_a_dry_run_prints_each_call_and_sends_none(aws: Aws, monkeypatch: pytest.MonkeyPatch, on: str) -> None:
    monkeypatch.setattr(boto3.Session, "client", None)  # nothing can be sent
    code, output = aws("run", "etl", "--on", on, "--set", "recommend.n=3", "--dry-run")
    assert code == 0, output
    calls = [" ".join(line.split()[:2]) for line in output.splitlines()]
    start = {"glue": "glue start_job_run", "emr-serverless": "emr-serverless start_job_run", "emr": "emr run_job_flow"}
    assert start[on] in calls
    assert calls[0] == "cloudformation describe_stacks"
    assert "s3 put_object" in calls


@pytest.mark.parametrize(
    ("arguments", "calls"),
    [
        (
            ("deploy", "--without-emr"),
            (
                *("cloudformation create_stack", "s3 upload_file", "glue update_classifier"),
                *("emr-serverless get_application", "emr-serverless stop_application"),
            ),
        ),
        (("deploy", "--release", "0.1.0-abc"), ("s3 list_objects_v2", "cloudformation create_stack")),
        (("status",), ("cloudformation describe_stacks", "glue get_job_runs", "emr list_clusters")),
        (
            ("destroy",),
            ("emr-serverless get_application", "emr-serverless stop_application", "cloudformation delete_stack"),
        ),
        (("destroy", "--data"), ("s3 list_object_versions", "s3 delete_bucket", "cloudformation delete_stack")),
    ],
)
def test_every_command_has_a_dry_run(
    aws: Aws, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, arguments: tuple[str, ...], calls: tuple[str, ...]
) -> None:
    monkeypatch.setattr(boto3.Session, "client", None)
    monkeypatch.chdir(tmp_path)
    code, output = aws(*arguments, "--dry-run")
    assert code == 0, output
    printed = {" ".join(line.split()[:2]) for line in output.splitlines()}
    assert set(calls) <= printed


def test_a_dry_run_of_deploy_ends_with_what_it_would_do(
    aws: Aws, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(boto3.Session, "client", None)
    monkeypatch.chdir(tmp_path)
    code, output = aws("deploy", "--without-emr", "--parameter", "Workers=6", "--dry-run")
    assert code == 0, output
    calls = [line for line in output.splitlines() if re.match(r"[a-z0-9-]+ [a-z0-9_]+ \{", line)]
    summary = output[output.index("dry run: ") :]
    assert f"dry run: {len(calls)} calls printed, none sent to AWS" in summary
    assert "movie-reco-storage and movie-reco-jobs in " in summary
    assert "22 of Glue" in summary
    assert re.search(r"upload 1\d files \([\d,]+ bytes\) as releases/", summary)
    assert "set the parameters Workers=6" in summary
    assert "deployed" not in output
