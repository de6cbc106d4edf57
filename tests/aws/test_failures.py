"""When AWS refuses a request, the command ends with an exit code and with one line that says what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests
from moto.cloudformation.models import Event, Stack

from spark_app.aws import account
from spark_app.aws.failures import exit_code
from tests.aws.conftest import EVERY, Answers, Aws, client, last_line

RUN = ("run", "etl", "--on", "glue", *EVERY)


@pytest.fixture(autouse=True)
def _two_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try a throttled call twice, instead of for half a minute."""
    monkeypatch.setattr(account, "ATTEMPTS", 2)


def test_no_region(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION")
    code, output = aws("status")
    assert (code, last_line(output)) == (2, "aws status: no region: set AWS_REGION, or region in the profile")


def test_no_credentials(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    code, output = aws("status")
    assert code == 2
    assert "there are no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and" in last_line(output)


def test_a_profile_that_is_not_there(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "none-of-ours")
    code, output = aws("status")
    assert code == 2
    assert "(none-of-ours) could not be found: check AWS_PROFILE" in last_line(output)


def test_nothing_was_deployed(aws: Aws) -> None:
    for command in (RUN, ("status",)):
        code, output = aws(*command, "--name", "of-others")
        assert code == 2
        assert "there is no stack of-others-jobs in eu-west-1: run `deploy`, or check --name" in last_line(output)


def test_aws_cannot_be_reached(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    code, output = aws("status")
    assert code == 7
    assert "AWS cannot be reached: check the network and the region" in last_line(output)


def test_access_denied_says_what_was_refused(
    aws: Aws, environment: str, deployed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    iam = client("iam")
    iam.create_user(UserName="reader")
    policy = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [policy]})
    iam.put_user_policy(UserName="reader", PolicyName="some", PolicyDocument=document)
    keys = iam.create_access_key(UserName="reader")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys["SecretAccessKey"])
    requests.post(f"{environment}/moto-api/reset-auth", data=b"0", timeout=10)  # from now on moto checks policies
    try:
        code, output = aws(*RUN)
        assert code == 7
        refused = "AWS refused DescribeStacks: User: arn:aws:iam::123456789012:user/reader is not authorized"
        assert refused in last_line(output)
        assert last_line(output).endswith("these credentials need that permission")

        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-one")
        code, output = aws(*RUN)
        assert code == 7
        assert "AWS rejects the credentials (SignatureDoesNotMatch): get new ones" in last_line(output)
    finally:
        requests.post(f"{environment}/moto-api/reset-auth", data=b"inf", timeout=10)


@pytest.mark.parametrize(
    ("name", "message", "complaint"),
    [
        ("ThrottlingException", "Rate exceeded", "AWS throttles StartJobRun (ThrottlingException), even after retries"),
        (
            "ConcurrentRunsExceededException",
            "Concurrent runs exceeded",
            "a quota of this account is used up (StartJobRun",
        ),
        ("ResourceNumberLimitExceededException", "Max DPU reached", "Max DPU reached): wait for other runs to end"),
        ("EntityNotFoundException", "Job etl not found", "StartJobRun: Job etl not found; check --name and the region"),
        ("ExpiredTokenException", "expired", "AWS rejects the credentials (ExpiredTokenException): get new ones"),
        ("InvalidInputException", "Bad worker", "AWS refused StartJobRun (InvalidInputException): Bad worker"),
    ],
)
def test_what_glue_may_answer(
    deployed: dict[str, str],
    aws: Aws,
    answers: Answers,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    message: str,
    complaint: str,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_GLUE", answers.url)
    answers.answers = [(400, {"__type": name, "message": message})]
    code, output = aws(*RUN)
    assert code == (2 if name == "EntityNotFoundException" else 7)
    assert complaint in last_line(output)
    assert len(answers.asked) == (2 if name == "ThrottlingException" else 1)


def test_throttling_that_ends_is_not_noticed(
    deployed: dict[str, str], aws: Aws, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_GLUE", answers.url)
    answers.answers = [
        (400, {"__type": "ThrottlingException", "message": "Rate exceeded"}),
        (200, {"JobRunId": "jr_1"}),
        (200, {"JobRun": {"Id": "jr_1", "JobRunState": "SUCCEEDED"}}),
    ]
    code, output = aws(*RUN)
    assert code == 0, output
    assert [asked.rpartition(".")[2] for asked in answers.asked] == ["StartJobRun", "StartJobRun", "GetJobRun"]


def test_a_log_that_may_not_be_read_is_no_failure(
    deployed: dict[str, str], aws: Aws, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", answers.url)
    answers.answers = [(400, {"__type": "AccessDeniedException", "message": "not authorized"})]
    code, output = aws(*RUN)
    assert code == 0, output
    assert output.count("the job's log cannot be shown: AWS refused FilterLogEvents: not authorized") == 1


def test_a_parameter_that_the_template_has_not(deployed: dict[str, str], aws: Aws, tmp_path: Path) -> None:
    code, output = aws("deploy", "--without-emr", "--out", str(tmp_path), "--parameter", "Colour=red", *EVERY)
    assert code == 2
    assert "--parameter Colour: the templates have no such parameter; they have Name, RawBucket" in last_line(output)


def test_a_stack_that_fails_tells_the_first_reason(
    deployed: dict[str, str], aws: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = Stack.update

    def fail(self: Stack, *args: Any, **kwargs: Any) -> None:  # moto's stacks never fail by themselves
        update(self, *args, **kwargs)
        for resource, reason in (("RawBucket", "You have too many buckets"), ("ProcessedBucket", "Update cancelled")):
            facts = (resource, resource, "AWS::S3::Bucket", "UPDATE_FAILED", reason, None)
            self.events.append(Event(self.stack_id, self.name, *facts))
        self.status = "UPDATE_ROLLBACK_COMPLETE"

    monkeypatch.setattr(Stack, "update", fail)
    code, output = aws("deploy", "--without-emr", "--out", str(tmp_path), *EVERY)
    assert code == 7
    assert last_line(output) == (
        "aws deploy: the stack movie-reco-storage is UPDATE_ROLLBACK_COMPLETE: RawBucket (AWS::S3::Bucket): "
        "You have too many buckets"
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("run", "etl", "--on", "mainframe"), "argument --on: invalid choice: 'mainframe'"),
        (("run", "bake", "--on", "glue"), "argument JOB: invalid choice: 'bake'"),
        (("deploy", "--parameter", "Workers"), "--parameter takes KEY=VALUE; got 'Workers'"),
        (("run", "etl", "--on", "glue", "--conf", "x"), "--conf takes KEY=VALUE; got 'x'"),
        (("deploy", "--release", "x", "--config", "y"), "a release brings its own settings: give --release or"),
        (("deploy", "--config", "no/such.toml"), "cannot read the --config file no/such.toml"),
        ((), "the following arguments are required: COMMAND"),
    ],
)
def test_usage(aws: Aws, arguments: tuple[str, ...], complaint: str) -> None:
    code, output = aws(*arguments)
    assert code == 2
    assert complaint in last_line(output)
    assert len(output.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("SystemExit: 3", 3),
        ("Job failed, please check complete logs. ExitCode: 4. Last few exceptions: ...", 4),
        ("User application exited with status 5", 5),
        ("Final app status: FAILED, exitCode: 6, (reason: User application exited with status 6)", 6),
        ("SystemExit: 0", 1),
        ("Container killed by YARN, exit code 137", 1),
        ("Out of memory", 1),
        ("", 1),
    ],
)
def test_the_code_of_a_job_is_read_from_what_a_service_says(text: str, code: int) -> None:
    assert exit_code(text) == code
