"""Small objects and locks in a real S3 server."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError
from deltalake import write_deltalake

from spark_app.platform import delta, s3, storage
from spark_app.platform.errors import InputError, LockedError, StorageError
from spark_app.platform.lock import holding
from tests.conftest import BUCKET, forget_s3
from tests.platform.conftest import another_run
from tools.conf import ROOT
from tools.s3_server import S3Server

LEASE = 2


def keys_of(server: S3Server, root: str) -> set[str]:
    """The names of all objects under a root, relative to it."""
    prefix = s3.split(root)[1] + "/"
    entries = server.client().list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    return {entry["Key"].removeprefix(prefix) for entry in entries}


def take(root: str, run_id: str, lease: int = LEASE) -> None:
    with holding("processed", root, run_id, lease):
        pass


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3a://bucket/a/b/", "s3://bucket/a/b"),
        ("s3://bucket/a b/ü=%", "s3://bucket/a b/ü=%"),
    ],
)
def test_both_schemes_are_one(given: str, normal: str) -> None:
    assert storage.normalise(given) == normal


def test_texts_are_written_read_and_removed(in_s3: str, s3_server: S3Server) -> None:
    path = storage.join(in_s3, "runs", "one.json")
    assert not storage.exists(path)
    storage.write_json(path, {"title": "Amélie"})
    assert storage.exists(path)
    assert storage.read_json(path) == {"title": "Amélie"}
    storage.write_text(path, "")
    assert storage.read_text(path) == ""
    # Hadoop marks folders like this.
    s3_server.client().put_object(Bucket=BUCKET, Key=f"{s3.split(in_s3)[1]}/runs/", Body=b"")
    storage.write_text(f"{in_s3}-beside", "stays")
    storage.remove(in_s3)
    assert not storage.exists(path)
    assert keys_of(s3_server, in_s3) == set()
    assert storage.exists(f"{in_s3}-beside")
    storage.remove(in_s3)


def test_files_of_a_folder_and_a_glob_are_found_as_on_a_disk(in_s3: str, s3_server: S3Server) -> None:
    for name in ("ratings/b.csv", "ratings/a.csv", "ratings/_SUCCESS", "ratings/.part.crc", "other/c.csv", "r=1 %.csv"):
        storage.write_text(storage.join(in_s3, name), "x")
    s3_server.client().put_object(Bucket=BUCKET, Key=f"{s3.split(in_s3)[1]}/ratings/", Body=b"")
    folder = [f"{in_s3}/ratings/a.csv", f"{in_s3}/ratings/b.csv"]
    assert storage.list_files(in_s3, "ratings") == folder
    assert storage.list_files(in_s3, "ratings/*.csv") == folder
    assert storage.list_files(in_s3, "*/c.csv") == [f"{in_s3}/other/c.csv"]
    assert storage.list_files(in_s3, "r=1 %.csv") == [f"{in_s3}/r=1 %.csv"]
    assert storage.list_files(in_s3, "nothing") == []
    assert storage.list_files(f"{in_s3}/none") == []
    storage.write_text(f"{in_s3}/ratings/deeper/d.csv", "x")
    with pytest.raises(InputError, match="/ratings/deeper is a folder where a file should be"):
        storage.list_files(in_s3, "ratings")


def test_files_are_described_and_read(in_s3: str, s3_server: S3Server) -> None:
    path = f"{in_s3}/ratings.csv.gz"
    packed = gzip.compress(b"\xef\xbb\xbfuserId,movieId\r\n1,2\r\n")
    with storage.writing(path) as stream:
        stream.write(packed)
    with storage.reading(path) as content:
        assert content.stream.read() == gzip.decompress(packed)
    assert storage.describe(path).bytes == len(packed)
    with storage.writing(path) as stream:
        stream.write(packed[:-9])
    with pytest.raises(InputError, match="is truncated or damaged"):
        storage.describe(path)


def test_parts_become_one_object_of_any_size(in_s3: str) -> None:
    parts = [f"{in_s3}/parts/{number}" for number in range(3)]
    for part in parts:
        storage.write_text(part, part[-1] * 3_000_000)
    storage.concatenate("header\n", parts, f"{in_s3}/whole.csv")
    assert storage.read_text(f"{in_s3}/whole.csv") == "header\n" + "".join(str(n) * 3_000_000 for n in range(3))
    storage.publish(parts[0], f"{in_s3}/published")
    assert storage.read_text(f"{in_s3}/published") == "0" * 3_000_000
    assert not storage.exists(parts[0])


@pytest.mark.parametrize("size", [10, 60_000_000])
def test_an_upload_that_fails_leaves_what_was_there_and_nothing_else(
    in_s3: str, s3_server: S3Server, size: int
) -> None:
    path = f"{in_s3}/whole.csv"
    storage.write_text(path, "old")

    def fail() -> None:
        with storage.writing(path) as stream:
            stream.write(b"x" * size)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert storage.read_text(path) == "old"
    assert keys_of(s3_server, in_s3) == {"whole.csv"}
    assert not s3_server.client().list_multipart_uploads(Bucket=BUCKET).get("Uploads")


def test_a_library_edits_a_copy_that_is_put_back(in_s3: str) -> None:
    for expected in ("", "1", "12"):
        with storage.edited(f"{in_s3}/trials.db") as (file, save):
            text = Path(file).read_text() if Path(file).exists() else ""
            assert text == expected
            Path(file).write_text(f"{text}{len(text) + 1}")
            save()


def test_tables_are_read_without_spark(in_s3: str) -> None:
    rows = pa.table({"movieId": [1, 2, 3]})
    assert delta.dataset(f"{in_s3}/delta") is None
    write_deltalake(f"{in_s3}/delta", rows, storage_options=s3.delta_options())
    table = delta.dataset(f"{in_s3}/delta")
    assert table is not None
    assert table.to_table() == rows
    with storage.writing(f"{in_s3}/one.parquet") as stream:
        pq.write_table(rows, stream)
    assert storage.parquet(f"{in_s3}/one.parquet").to_table() == rows
    assert storage.parquet([f"{in_s3}/one.parquet"] * 2).count_rows() == 6


def test_credentials_of_a_profile_reach_all_clients(
    in_s3: str, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = tmp_path / "config"
    keys = s3_server.owner
    profile.write_text(
        f"[profile team]\naws_access_key_id = {keys.access}\naws_secret_access_key = {keys.secret}\n"
        f"region = eu-west-1\nendpoint_url = {s3_server.url}\n"
    )
    for name in s3_server.environment():
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(profile))
    monkeypatch.setenv("AWS_PROFILE", "team")
    forget_s3()
    s3.check("--raw-path", in_s3)
    storage.write_text(f"{in_s3}/note", "found")
    assert s3.delta_options() == {
        "aws_region": "eu-west-1",
        "aws_access_key_id": keys.access,
        "aws_secret_access_key": keys.secret,
        "aws_endpoint_url": s3_server.url,
        "aws_allow_http": "true",
    }
    assert s3.spark_settings() == {
        "spark.hadoop.fs.s3a.endpoint": s3_server.url,
        "spark.hadoop.fs.s3a.endpoint.region": "eu-west-1",
        "spark.hadoop.fs.s3a.path.style.access": "true",
    }


def test_without_an_end_point_it_is_amazons(in_s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    forget_s3()
    assert s3.spark_settings() == {"spark.hadoop.fs.s3a.endpoint.region": "us-east-1"}
    assert s3.delta_options()["aws_session_token"] == "token"  # noqa: S105
    assert "aws_endpoint_url" not in s3.delta_options()


def test_the_region_is_that_of_aws_region(in_s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_REGION", "eu-west-3")  # boto3 itself ignores it
    forget_s3()
    assert s3.delta_options()["aws_region"] == "eu-west-3"
    assert s3.client().meta.region_name == "eu-west-3"


def test_uploads_that_were_begun_are_given_up_in_a_folder_and_in_a_whole_bucket(
    in_s3: str, s3_server: S3Server
) -> None:
    s3_server.make_bucket("whole")
    client = s3_server.client()
    client.create_multipart_upload(Bucket="whole", Key="delta/x")
    client.create_multipart_upload(Bucket=BUCKET, Key=f"{s3.split(in_s3)[1]}/delta/x")
    client.create_multipart_upload(Bucket=BUCKET, Key=f"{s3.split(in_s3)[1]}-other/x")
    assert s3.give_up_uploads(in_s3) == 1
    assert s3.give_up_uploads("s3://whole") == 1
    assert not client.list_multipart_uploads(Bucket="whole").get("Uploads")
    assert s3.give_up_uploads(f"{in_s3}-other") == 1


def wrong_secret(environment: pytest.MonkeyPatch, server: S3Server) -> None:
    environment.setenv("AWS_SECRET_ACCESS_KEY", "wrong")


def wrong_key(environment: pytest.MonkeyPatch, server: S3Server) -> None:
    environment.setenv("AWS_ACCESS_KEY_ID", "AKWRONG")


def no_keys(environment: pytest.MonkeyPatch, server: S3Server) -> None:
    environment.delenv("AWS_ACCESS_KEY_ID")
    environment.delenv("AWS_SECRET_ACCESS_KEY")


def no_profile(environment: pytest.MonkeyPatch, server: S3Server) -> None:
    environment.setenv("AWS_PROFILE", "nobody")


def no_server(environment: pytest.MonkeyPatch, server: S3Server) -> None:
    environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (wrong_secret, "S3 refused the credentials (SignatureDoesNotMatch): the secret key is not that of this"),
        (wrong_key, "S3 refused the credentials (InvalidAccessKeyId): this access key is unknown"),
        (no_keys, "there are no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"),
        (no_profile, "The config profile (nobody) could not be found: check AWS_PROFILE"),
        (no_server, "S3 cannot be reached (EndpointConnectionError): check the network and AWS_ENDPOINT_URL (http://"),
    ],
)
def test_what_is_wrong_is_told_in_time(
    in_s3: str,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    wrong: Callable[[pytest.MonkeyPatch, S3Server], None],
    message: str,
) -> None:
    wrong(monkeypatch, s3_server)
    forget_s3()
    started = time.monotonic()
    with pytest.raises(StorageError) as caught:
        s3.check("--raw-path", in_s3)
    assert str(caught.value).startswith(f"--raw-path {in_s3}: {message}")
    assert time.monotonic() - started < 30
    assert s3_server.owner.secret not in str(caught.value)


def test_a_missing_bucket_is_told(in_s3: str, s3_server: S3Server) -> None:
    with pytest.raises(StorageError) as caught:
        s3.check("--processed-path", "s3://nobodys/processed")
    assert str(caught.value) == (
        f"--processed-path s3://nobodys/processed: bucket nobodys does not exist at {s3_server.url}: "
        "create it, or correct the path"
    )
    with pytest.raises(StorageError, match="cannot write to the processed zone s3://nobodys/x: the bucket does not"):
        take("s3://nobodys/x", "run-1")


def test_keys_that_may_only_read_cannot_hold_a_zone(
    in_s3: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment(s3_server.reader).items():
        monkeypatch.setenv(name, value)
    s3.check("--processed-path", in_s3)
    with pytest.raises(StorageError) as caught:
        take(in_s3, "run-1")
    assert str(caught.value) == (
        f"cannot write to the processed zone {in_s3}: S3 refused access to the bucket: the credentials are not allowed "
        "to do this; check their policy; check --processed-path and its permissions"
    )
    forget_s3()
    with pytest.raises(StorageError, match=r"cannot write .*: S3 refused access to the bucket"):
        storage.write_text(f"{in_s3}/note", "x")


def test_a_zone_is_held_and_given_back(in_s3: str, s3_server: S3Server) -> None:
    with holding("processed", in_s3, "run-1", LEASE):
        facts = storage.read_json(f"{in_s3}/_lock.json")
        assert (facts["run_id"], facts["pid"], facts["lease_seconds"]) == ("run-1", os.getpid(), LEASE)
    assert keys_of(s3_server, in_s3) == set()


def test_second_run_is_refused_and_told_who_holds_the_zone(in_s3: str) -> None:
    with another_run(in_s3, LEASE) as process:
        facts = storage.read_json(f"{in_s3}/_lock.json")
        with pytest.raises(LockedError) as caught:
            take(in_s3, "run-2")
        assert str(caught.value) == (
            f"{in_s3} is in use by run run-of-another (process {process.pid} on {facts['host']}, since "
            f"{facts['since']}); wait for it to end, or stop it: if it was killed, the zone is free {LEASE} seconds "
            "after that"
        )


def test_a_run_that_lives_keeps_its_zone_beyond_its_lease(in_s3: str) -> None:
    with another_run(in_s3, LEASE):
        time.sleep(2 * LEASE + 1)
        with pytest.raises(LockedError):
            take(in_s3, "run-2")


def test_a_killed_run_loses_its_zone_when_its_lease_ends(in_s3: str, said: list[str]) -> None:
    lease = 4 * LEASE  # on a busy machine the kill and the next try take time too
    with another_run(in_s3, lease) as process:
        process.kill()
        process.wait()
    with pytest.raises(LockedError):
        take(in_s3, "too soon")
    time.sleep(lease + 1)
    take(in_s3, "run-2")
    assert [line for line in said if line.startswith("took over the lock of run run-of-another (process ")]
    take(in_s3, "run-3")


def test_of_many_runs_at_once_one_gets_a_zone_that_is_free_or_was_left(in_s3: str) -> None:
    for left_behind in (False, True):
        root = f"{in_s3}/{left_behind}"
        if left_behind:
            with another_run(root, LEASE) as process:
                process.kill()
                process.wait()
            time.sleep(LEASE + 1)
        won: list[int] = []
        refused: list[int] = []
        ready, done = threading.Barrier(8), threading.Barrier(8)

        def contend(number: int, root: str = root) -> None:
            ready.wait()  # noqa: B023
            try:
                with holding("processed", root, f"run-{number}", 60):
                    won.append(number)  # noqa: B023
                    done.wait()  # noqa: B023
            except LockedError:
                refused.append(number)  # noqa: B023
                done.wait()  # noqa: B023

        threads = [threading.Thread(target=contend, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(won), len(refused)) == (1, 7)


def test_a_run_whose_zone_was_taken_stops_at_once(in_s3: str, s3_server: S3Server) -> None:
    """As after a long sleep of the machine: the lease has ended, and another run has begun to write."""
    with another_run(in_s3, LEASE) as process:
        other_run = b'{"run_id": "run-2", "pid": 1, "host": "h", "since": "now"}'
        s3_server.client().put_object(Bucket=BUCKET, Key=f"{s3.split(in_s3)[1]}/_lock.json", Body=other_run)
        assert process.wait(timeout=30) == LockedError.exit_code
    assert storage.read_json(f"{in_s3}/_lock.json")["run_id"] == "run-2"


def test_an_answer_that_was_lost_is_no_other_run(in_s3: str) -> None:
    """A write succeeds but its answer is lost. The next try finds the object of the first."""
    bucket, key = s3.split(f"{in_s3}/_lock.json")
    storage.write_text(f"{in_s3}/_lock.json", '{"run_id": "run-1", "lease_seconds": 60}')
    with holding("processed", in_s3, "run-1", LEASE):
        body = b'{"run_id": "run-1", "lease_seconds": 2, "renewed": "unheard"}'
        s3.client().put_object(Bucket=bucket, Key=key, Body=body)
        time.sleep(LEASE)
        assert storage.read_json(f"{in_s3}/_lock.json")["renewed"] != "unheard"
    assert not storage.exists(f"{in_s3}/_lock.json")


def test_the_server_of_the_demo_starts_again_on_what_it_has(tmp_path: Path) -> None:
    def beside_it(*words: str) -> str:
        server = [sys.executable, str(ROOT / "tools" / "s3_server.py"), str(tmp_path / "s3"), *words]
        return subprocess.run(server, capture_output=True, text=True, check=True, timeout=120).stdout

    code = "from spark_app.platform import storage; storage.write_text('s3://processed/a.txt', 'there')"
    beside_it("processed", "--", sys.executable, "-c", code)
    code = "from spark_app.platform import storage; print(storage.read_text('s3://processed/a.txt'))"
    assert beside_it("--", sys.executable, "-c", code) == "there\n"


@pytest.mark.parametrize("error", [OSError(), ClientError({}, "x"), aiohttp.ClientPayloadError()])
def test_failures_of_what_only_tidies_up_are_ignored(error: Exception) -> None:
    with s3.ignoring_failures():
        raise error


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt()])
def test_other_errors_are_not_ignored(error: BaseException) -> None:
    with pytest.raises(type(error)), s3.ignoring_failures():
        raise error
