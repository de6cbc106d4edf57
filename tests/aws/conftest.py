"""AWS's APIs on this machine's loopback: moto's server, over real HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from moto.server import ThreadedMotoServer

from spark_app.aws import artefacts
from spark_app.aws.__main__ import main
from tests.aws import moto_models
from tests.conftest import forget_s3

ACCOUNT, REGION = "123456789012", "eu-west-1"
"""moto's account, and a region."""
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}  # moto accepts any keys
EVERY = ("--every", "0.01")

Aws = Callable[..., tuple[int, str]]


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The address of moto's server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def environment(moto: str) -> Iterator[str]:
    """Point this process at moto's server, and hide any AWS configuration of this machine; returns the address."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION"):
            patch.delenv(name, raising=False)
        nowhere = {"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
        server = {"AWS_ENDPOINT_URL": moto, "AWS_REGION": REGION, "AWS_EC2_METADATA_DISABLED": "true"}
        for name, value in {**KEYS, **nowhere, **server}.items():
            patch.setenv(name, value)
        forget_s3()
        forget_account(moto)
        yield moto
    forget_s3()


def forget_account(moto: str) -> None:
    """Delete everything in moto's account."""
    requests.post(f"{moto}/moto-api/reset", timeout=10)
    moto_models.CLASSIFIERS.clear()
    moto_models.BUCKET_POLICIES.clear()


@pytest.fixture
def aws(environment: str, capsys: pytest.CaptureFixture[str]) -> Aws:
    """Run a command of `python -m spark_app.aws`; returns its exit code and its output."""

    def run(*arguments: str) -> tuple[int, str]:
        code = 0
        try:
            main(arguments)
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


@pytest.fixture(scope="module")
def deployed(environment: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Deploy both stacks once for all tests of a file; returns the outputs of the jobs stack."""
    forget_account(environment)
    main(["deploy", "--without-emr", "--out", str(tmp_path_factory.mktemp("dist")), *EVERY])
    return stack_outputs("movie-reco-jobs")


@pytest.fixture
def fresh(environment: str, aws: Aws, tmp_path: Path) -> dict[str, str]:
    """Deploy both stacks for one test that changes them; returns the outputs of the jobs stack."""
    forget_account(environment)
    code, output = aws("deploy", "--without-emr", "--out", str(tmp_path / "dist"), *EVERY)
    assert code == 0, output
    return stack_outputs("movie-reco-jobs")


def stack_outputs(stack: str) -> dict[str, str]:
    (description,) = client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in description["Outputs"]}


def client(service: str) -> Any:
    return boto3.client(service, region_name=REGION)


def last_line(output: str) -> str:
    """The last line of an output, without its time and level."""
    return output.strip().splitlines()[-1].split("ERROR", 1)[-1].strip()


@dataclass
class Answers:
    """A service that gives one of `answers` per request, and repeats the last; `asked` lists the requests."""

    url: str = ""
    answers: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def next(self) -> tuple[int, dict[str, Any]]:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def answers(environment: str) -> Iterator[Answers]:
    """A service on the loopback for answers that moto cannot give; AWS_ENDPOINT_URL_SERVICE sends requests to it."""
    prepared = Answers()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            prepared.asked.append(self.headers.get("X-Amz-Target", self.path))
            status, body = prepared.next()
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("x-amzn-ErrorType", str(body.get("__type", "")))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    prepared.url = f"http://127.0.0.1:{server.server_port}"
    yield prepared
    server.shutdown()
    server.server_close()


@pytest.fixture
def template() -> Callable[[str], dict[str, Any]]:
    """Read a template of conf/aws as CloudFormation does."""

    def read(name: str) -> dict[str, Any]:
        from cfnlint.decode import cfn_yaml  # noqa: PLC0415 - the import takes a second

        return dict(cfn_yaml.load(str(artefacts.CONF / f"{name}.yaml")))

    return read
