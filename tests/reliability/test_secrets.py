"""Keys of S3 appear nowhere: not in logs of any level, event logs, manifests, reports, errors or tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from spark_app.cli import run_job
from tests.conftest import BUCKET
from tests.reliability.conftest import Place
from tools.s3_server import S3Server

pytestmark = pytest.mark.long

EVENT_LOG = {"enabled": "true", "compress": "false"}


def test_keys_appear_nowhere(in_s3: str, s3_server: S3Server, tmp_path: Path) -> None:
    events = tmp_path / "events"
    events.mkdir()
    settings = {**EVENT_LOG, "dir": events.as_uri()}
    traced = [word for name, value in settings.items() for word in ("--conf", f"spark.eventLog.{name}={value}")]
    place = Place(in_s3, tmp_path, s3_server.environment(), tuple(traced))
    loud = ("--set", "log.level=debug", "--set", "log.format=json")
    found = {"the pipeline": place.run("pipeline", *loud).encode()}
    # At this level, failures are logged with their causes.
    for name, wrong in {"a setting": "recommend.n=none", "a file": "raw.ratings=missing.csv"}.items():
        process = place.start("etl", *loud, "--set", wrong)
        found[name] = process.communicate(timeout=300)[0].encode()
        assert process.returncode
    # A key that may not write: the errors of S3 and its client are searched too.
    reader = Place(in_s3, tmp_path, s3_server.environment(s3_server.reader), tuple(traced))
    process = reader.start("etl", *loud)
    found["a key that may only read"] = process.communicate(timeout=300)[0].encode()
    assert process.returncode

    found |= {str(path): path.read_bytes() for path in events.rglob("*") if path.is_file()}
    client = s3_server.client()
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for entry in page["Contents"]:
            found[entry["Key"]] = client.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read()
    assert any(name.startswith(str(events)) for name in found)
    assert any(name.endswith(".html") for name in found)
    for keys in (s3_server.owner, s3_server.reader):
        assert [name for name, content in found.items() if keys.secret.encode() in content] == []


@pytest.mark.parametrize("option", ["--access-key", "--aws-secret-access-key", "--password"])
def test_keys_are_no_options(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job("etl", [option, "canary", "--raw-path", "raw", "--processed-path", "processed"]) == 2
    assert "canary" not in capsys.readouterr().err
