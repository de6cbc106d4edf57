"""A server that refuses, is slow or hangs up costs time; a missing or forbidding server ends a job in time."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from spark_app.cli import run_job
from spark_app.platform import delta, s3, storage
from spark_app.platform.errors import StorageError
from tests.conftest import forget_s3
from tests.reliability.conftest import LENGTHS, SOAK, Made, Place
from tests.reliability.faults import CUT_SHORT, REFUSED, SLOW, UNHEARD, FaultyProxy
from tools.s3_server import S3Server

pytestmark = pytest.mark.long

SHARES = {REFUSED: 0.2, SLOW: 0.02, UNHEARD: 0.02, CUT_SHORT: 0.02}

SILENT = socket.create_server(("127.0.0.1", 0))

Change = Callable[[pytest.MonkeyPatch, S3Server], None]


@pytest.mark.parametrize("seed", range(10 if SOAK else 1))
def test_a_run_succeeds_though_a_fifth_of_all_requests_is_refused_and_others_are_dropped(
    in_s3: str, s3_server: S3Server, tmp_path: Path, made: Made, seed: int
) -> None:
    """The long form runs the whole pipeline; else it is one stage that reads and writes tables, models and objects."""
    with FaultyProxy(s3_server.url, seed, SHARES).running() as proxy:
        place = Place(in_s3, tmp_path, {**s3_server.environment(), "AWS_ENDPOINT_URL": proxy.url})
        made.copy_to(place)
        place.run("pipeline" if SOAK else "recommend", "--set", f"recommend.n={LENGTHS[0]}", "--set", "input.take=all")
    assert all(proxy.happened[fault] for fault in SHARES), proxy.happened
    assert storage.read_text(place.zone.recommendations_csv) == made.csv[LENGTHS[0]]


def movie_ids(path: str) -> list[int]:
    table = delta.dataset(path)
    return sorted(table.to_table()["movieId"].to_pylist()) if table is not None else []


def test_tables_are_read_without_spark_though_every_fifth_answer_is_cut_short(
    in_s3: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, rows = f"{in_s3}/delta", 12
    for row in range(rows):
        write_deltalake(path, pa.table({"movieId": [row]}), mode="append", storage_options=s3.delta_options())
    with FaultyProxy(s3_server.url, 0, {REFUSED: 0.1, CUT_SHORT: 0.2}).running() as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        # In another process: while `deltalake` waits for the proxy, it does not let the proxy's thread run.
        with ProcessPoolExecutor(1, get_context("spawn")) as another:
            assert all(found == list(range(rows)) for found in another.map(movie_ids, [path] * 8))
    assert proxy.happened[CUT_SHORT], proxy.happened


def wrong_secret(environment: pytest.MonkeyPatch, server: S3Server) -> None:
    environment.setenv("AWS_SECRET_ACCESS_KEY", "wrong")


def only_reading(environment: pytest.MonkeyPatch, server: S3Server) -> None:
    environment.setenv("AWS_ACCESS_KEY_ID", server.reader.access)
    environment.setenv("AWS_SECRET_ACCESS_KEY", server.reader.secret)


def gone(environment: pytest.MonkeyPatch, server: S3Server) -> None:
    environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")


def silent(environment: pytest.MonkeyPatch, server: S3Server) -> None:
    """An address that accepts connections and never answers."""
    environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{SILENT.getsockname()[1]}")


def nothing(environment: pytest.MonkeyPatch, server: S3Server) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "bucket", "told"),
    [
        (wrong_secret, "", "--raw-path {raw}: S3 refused the credentials (SignatureDoesNotMatch): the secret key is"),
        (only_reading, "", "cannot write to the processed zone {processed}: S3 refused access to the bucket: the cred"),
        (gone, "", "--raw-path {raw}: S3 cannot be reached (EndpointConnectionError): check the network and AWS_ENDP"),
        (silent, "", "--raw-path {raw}: S3 cannot be reached (ReadTimeoutError): check the network and AWS_ENDPOINT"),
        (nothing, "s3://nobodys", "--raw-path {raw}: bucket nobodys does not exist at http://127.0.0.1:"),
    ],
)
def test_what_cannot_work_ends_in_half_a_minute_with_one_line(
    in_s3: str,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: Change,
    bucket: str,
    told: str,
) -> None:
    change(monkeypatch, s3_server)
    forget_s3()
    raw, processed = (f"{bucket or in_s3}/{zone}" for zone in ("raw", "processed"))
    started = time.monotonic()
    assert run_job("etl", ["--raw-path", raw, "--processed-path", processed]) == StorageError.exit_code
    assert time.monotonic() - started < 30
    (line,) = capsys.readouterr().err.splitlines()
    assert f"ERROR   etl: {told.format(raw=raw, processed=processed)}" in line
