"""Deploying both stacks to moto's APIs: a first time, with changes, with an earlier release, and removing them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.emrserverless.exceptions import ValidationException
from moto.emrserverless.models import EMRServerlessBackend, emrserverless_backends

from spark_app.aws.artefacts import CONF, chained, parse_conf
from spark_app.aws.stacks import CSV_CLASSIFIER
from spark_app.stages.pipeline import JOBS
from tests.aws.conftest import ACCOUNT, EVERY, REGION, Aws, client, last_line, stack_outputs
from tests.aws.moto_models import CLASSIFIERS


def test_deploy_makes_all_that_the_design_has(deployed: dict[str, str]) -> None:
    glue = client("glue")
    assert {entry["Name"] for entry in glue.get_databases()["DatabaseList"]} == {"movie_reco_raw_db", "movie_reco_db"}
    jobs = {job["Name"]: job for job in glue.get_jobs()["Jobs"]}
    assert set(jobs) == {f"movie-reco-{job}" for job in (*JOBS, "register")}
    etl = jobs["movie-reco-etl"]
    release = f"s3://{deployed['ArtefactsBucket']}/{deployed['Release']}"
    assert etl["Command"] == {"Name": "glueetl", "PythonVersion": "3", "ScriptLocation": f"{release}/jobs/etl.py"}
    assert etl["GlueVersion"] == "6.0"
    assert etl["NumberOfWorkers"] == 4
    arguments = etl["DefaultArguments"]
    assert arguments["--extra-py-files"] == f"{release}/movie_reco.zip"
    assert arguments["--additional-python-modules"] == f"{release}/requirements-6.0.txt"
    defaults = parse_conf((CONF / "spark-defaults.conf").read_text())
    assert arguments["--conf"] == chained({**defaults, "spark.hadoop.fs.s3a.endpoint.region": REGION})
    assert arguments["--raw-path"] == f"s3://{deployed['RawBucket']}"
    # A stage with a processed zone writes there, which the role of ingest does not allow.
    assert [name for name, job in jobs.items() if "--processed-path" not in job["DefaultArguments"]] == [
        "movie-reco-ingest"
    ]
    assert CLASSIFIERS["movie-reco-csv"] == {"Name": "movie-reco-csv", **CSV_CLASSIFIER}
    assert glue.get_crawler(Name="movie-reco-raw")["Crawler"]["Classifiers"] == ["movie-reco-csv"]
    uploaded = client("s3").list_objects_v2(Bucket=deployed["ArtefactsBucket"], Prefix=f"{deployed['Release']}/")
    names = {entry["Key"].removeprefix(f"{deployed['Release']}/") for entry in uploaded["Contents"]}
    assert names == {
        *(f"jobs/{job}.py" for job in JOBS),
        *("movie_reco.zip", "requirements-5.1.txt", "requirements-6.0.txt"),
        *("settings.toml", "spark-defaults.conf", "jobs.yaml"),
    }


def test_each_step_of_the_workflow_waits_for_the_one_before(deployed: dict[str, str]) -> None:
    triggers = client("glue").get_triggers()["Triggers"]
    after = {}
    for trigger in triggers:
        (action,) = trigger["Actions"]
        before = trigger.get("Predicate", {}).get("Conditions", [{}])[0]
        assert before.get("State", before.get("CrawlState")) == ("SUCCEEDED" if before else None)
        names = [step.get("JobName") or step.get("CrawlerName") for step in (before, action)]
        after[names[0]] = names[1]
    steps = [None]
    while steps[-1] in after:
        steps.append(after[steps[-1]])
    chain = ("catalog", "raw", "etl", "explore", "train", "recommend", "register")
    assert steps[1:] == [f"movie-reco-{step}" for step in chain]
    (start,) = [trigger for trigger in triggers if not trigger.get("Predicate")]
    assert start["Type"] == "ON_DEMAND"


def test_status_shows_what_is_there_and_the_last_runs(deployed: dict[str, str], aws: Aws) -> None:
    client("glue").start_job_run(JobName="movie-reco-etl")
    role = deployed["PipelineRoleArn"]
    client("emr-serverless").start_job_run(
        applicationId=deployed["ApplicationId"], executionRoleArn=role, clientToken="x", name="movie-reco-train"
    )
    code, output = aws("status")
    assert code == 0, output
    words = output.replace("│", " ").split()
    assert {"movie-reco-storage", "CREATE_COMPLETE", "etl", "SUCCEEDED", "movie-reco-train", "SUCCESS"} <= set(words)
    assert deployed["Release"] in "".join(words)


def test_parameters_are_kept_until_they_are_given_again(fresh: dict[str, str], aws: Aws, tmp_path: Path) -> None:
    again = ("deploy", "--without-emr", "--out", str(tmp_path / "dist"), *EVERY)
    parameters = (
        "Workers=7",
        "Email=me@example.com",
        "MonthlyBudget=50",
        "GlueVersion=5.1",
        "HistoryDays=7",
    )
    code, output = aws(*again, *(word for parameter in parameters for word in ("--parameter", parameter)))
    assert code == 0, output
    assert client("glue").get_job(JobName="movie-reco-train")["Job"]["NumberOfWorkers"] == 7
    (budget,) = client("budgets").describe_budgets(AccountId=ACCOUNT)["Budgets"]
    assert budget["BudgetLimit"] == {"Amount": "50", "Unit": "USD"}
    (subscription,) = client("sns").list_subscriptions()["Subscriptions"]
    assert (subscription["Protocol"], subscription["Endpoint"]) == ("email", "me@example.com")

    code, output = aws(*again, "--parameter", "TimeoutMinutes=60", "--parameter", "Email=you@example.com")
    assert code == 0, output
    (budget,) = client("budgets").describe_budgets(AccountId=ACCOUNT)["Budgets"]
    assert budget["BudgetLimit"] == {"Amount": "50", "Unit": "USD"}
    job = client("glue").get_job(JobName="movie-reco-train")["Job"]
    assert (job["NumberOfWorkers"], job["Timeout"], job["GlueVersion"]) == (7, 60, "5.1")
    (storage,) = client("cloudformation").describe_stacks(StackName="movie-reco-storage")["Stacks"]
    assert {"ParameterKey": "HistoryDays", "ParameterValue": "7"} in storage["Parameters"]


def test_the_schedule_comes_and_goes_beside_the_trigger(fresh: dict[str, str], aws: Aws) -> None:
    """Glue allows one starting trigger per workflow, so a change of the schedule must not touch that trigger."""
    scheduler, release = client("scheduler"), ("--release", fresh["Release"])
    schedule = scheduler.get_schedule(Name="movie-reco-workflow")
    assert (schedule["State"], schedule["ScheduleExpression"]) == ("DISABLED", "cron(0 3 * * ? *)")
    assert schedule["Target"]["Arn"] == "arn:aws:scheduler:::aws-sdk:glue:startWorkflowRun"
    assert json.loads(schedule["Target"]["Input"]) == {"Name": fresh["Workflow"]}
    for parameter, expected in (
        ("ScheduleState=ENABLED", ("ENABLED", "cron(0 3 * * ? *)")),
        ("Schedule=rate(7 days)", ("ENABLED", "rate(7 days)")),
        ("ScheduleState=DISABLED", ("DISABLED", "rate(7 days)")),
    ):
        code, output = aws("deploy", *release, "--parameter", parameter, *EVERY)
        assert code == 0, output
        schedule = scheduler.get_schedule(Name="movie-reco-workflow")
        assert (schedule["State"], schedule["ScheduleExpression"]) == expected
        starts = [entry for entry in client("glue").get_triggers()["Triggers"] if entry["Type"] != "CONDITIONAL"]
        assert [(entry["Name"], entry["Type"]) for entry in starts] == [("movie-reco-on-demand", "ON_DEMAND")]


def test_an_earlier_release_is_gone_back_to(fresh: dict[str, str], aws: Aws, tmp_path: Path) -> None:
    config = tmp_path / "other.toml"
    config.write_text("[recommend]\nn = 3\n")
    code, output = aws("deploy", "--without-emr", "--config", str(config), "--out", str(tmp_path / "dist"), *EVERY)
    assert code == 0, output
    second = stack_outputs("movie-reco-jobs")["Release"]
    assert second != fresh["Release"]

    code, output = aws("deploy", "--release", fresh["Release"].removeprefix("releases/"), *EVERY)
    assert code == 0, output
    assert stack_outputs("movie-reco-jobs")["Release"] == fresh["Release"]
    arguments = client("glue").get_job(JobName="movie-reco-etl")["Job"]["DefaultArguments"]
    assert arguments["--config"] == f"s3://{fresh['ArtefactsBucket']}/{fresh['Release']}/settings.toml"

    code, output = aws("deploy", "--release", "0.0.1-none", *EVERY)
    assert code == 2
    assert "is not a release; the newest releases are:" in last_line(output)
    assert second.removeprefix("releases/") in last_line(output)


def application_of(stack: dict[str, str]) -> dict[str, Any]:
    return dict(client("emr-serverless").get_application(applicationId=stack["ApplicationId"])["application"])


def test_an_application_that_runs_is_stopped_before_it_is_changed(fresh: dict[str, str], aws: Aws) -> None:
    release = ("--release", fresh["Release"])
    assert application_of(fresh)["state"] == "STARTED"
    code, output = aws("deploy", *release, "--parameter", "IdleMinutes=7", *EVERY)
    assert code == 0, output
    assert application_of(fresh)["autoStopConfiguration"]["idleTimeoutMinutes"] == 7

    started = {"executionRoleArn": fresh["PipelineRoleArn"], "clientToken": "x"}
    client("emr-serverless").start_application(applicationId=fresh["ApplicationId"])
    client("emr-serverless").start_job_run(applicationId=fresh["ApplicationId"], **started)
    emrserverless_backends[ACCOUNT][REGION].job_runs[fresh["ApplicationId"]][-1].state = "RUNNING"
    code, output = aws("deploy", *release, "--parameter", "LogDays=7", *EVERY)
    assert code == 0, output
    assert "jobs run on the EMR Serverless application, so it cannot be changed now: Application has jobs" in output
    assert application_of(fresh)["state"] == "STARTED"
    code, output = aws("destroy", *EVERY)
    assert code == 7
    assert "AWS refused StopApplication (ValidationException): Application has jobs" in last_line(output)


def test_an_application_may_stop_by_itself_meanwhile_or_be_gone(
    fresh: dict[str, str], aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: EMRServerlessBackend, application_id: str) -> None:
        self.applications[application_id].state = "STOPPED"
        raise ValidationException("Application cannot be STOPPED")

    monkeypatch.setattr(EMRServerlessBackend, "stop_application", stop)
    code, output = aws("deploy", "--release", fresh["Release"], "--parameter", "IdleMinutes=7", *EVERY)
    assert code == 0, output
    assert "cannot be changed now" not in output
    assert application_of(fresh)["autoStopConfiguration"]["idleTimeoutMinutes"] == 7
    del emrserverless_backends[ACCOUNT][REGION].applications[fresh["ApplicationId"]]
    code, output = aws("deploy", "--release", fresh["Release"], "--parameter", "LogDays=7", *EVERY)
    assert code == 0, output


@pytest.mark.parametrize("state", ["CREATED", "STOPPED"])
def test_an_application_that_rests_is_not_stopped(fresh: dict[str, str], aws: Aws, state: str) -> None:
    emrserverless_backends[ACCOUNT][REGION].applications[fresh["ApplicationId"]].state = state
    code, output = aws("destroy", *EVERY)
    assert code == 0, output
    assert application_of(fresh)["state"] == "TERMINATED"


def test_destroy_leaves_the_data(fresh: dict[str, str], aws: Aws) -> None:
    client("s3").put_object(Bucket=fresh["RawBucket"], Key="movies.csv", Body=b"x")
    code, output = aws("destroy", *EVERY)
    assert code == 0, output
    assert client("glue").get_jobs()["Jobs"] == []
    assert client("s3").get_object(Bucket=fresh["RawBucket"], Key="movies.csv")["Body"].read() == b"x"
    assert "the buckets and their data stay" in output
    assert aws("destroy", *EVERY)[0] == 0  # nothing is left to remove


def test_destroy_of_the_data_takes_a_yes_and_every_version(fresh: dict[str, str], aws: Aws) -> None:
    s3 = client("s3")
    s3.put_bucket_versioning(Bucket=fresh["RawBucket"], VersioningConfiguration={"Status": "Enabled"})
    for body in (b"one", b"two"):
        s3.put_object(Bucket=fresh["RawBucket"], Key="movies.csv", Body=body)
    s3.delete_object(Bucket=fresh["RawBucket"], Key="movies.csv")
    code, output = aws("destroy", "--data", *EVERY)
    assert code == 2
    assert "confirm with --yes" in last_line(output)
    assert len(s3.list_buckets()["Buckets"]) == 3

    code, output = aws("destroy", "--data", "--yes", *EVERY)
    assert code == 0, output
    assert s3.list_buckets()["Buckets"] == []
    for stack in ("movie-reco-storage", "movie-reco-jobs"):
        with pytest.raises(ClientError, match="does not exist"):
            client("cloudformation").describe_stacks(StackName=stack)
    code, output = aws("destroy", "--data", "--yes", *EVERY)
    assert code == 2
    assert "nothing of movie-reco is deployed in eu-west-1" in last_line(output)


def test_destroy_that_was_cut_short_is_done_with_by_the_next(fresh: dict[str, str], aws: Aws) -> None:
    """Once the stack is deleted, only the names of the buckets show that they belong to it."""
    s3 = client("s3")
    client("cloudformation").delete_stack(StackName="movie-reco-storage")
    for bucket in (fresh["RawBucket"], fresh["ProcessedBucket"]):
        # moto deletes the buckets that the template retains.
        if bucket not in [entry["Name"] for entry in s3.list_buckets()["Buckets"]]:
            s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        s3.put_object(Bucket=bucket, Key="movies.csv", Body=b"x")
    s3.create_bucket(Bucket="of-others", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    code, output = aws("destroy", "--data", "--yes", *EVERY)
    assert code == 0, output
    assert [entry["Name"] for entry in s3.list_buckets()["Buckets"]] == ["of-others"]
