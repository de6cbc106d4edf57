from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from urllib3.util import Retry

from spark_app.platform.download import download
from spark_app.platform.errors import InputError, StorageError

CONTENT = b"".join(hashlib.sha256(str(block).encode()).digest() for block in range(5_000))  # 160,000 bytes


@dataclass
class Publisher:
    """A server of files on the loopback, and what it was asked for."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    """Paths that are answered by an error."""
    cut_after: int | None = None
    """Bytes of a body after which the connection is closed, once."""
    knows_ranges: bool = True
    ranges: list[str | None] = field(default_factory=list)
    """The Range header of each request for a file that is there."""

    def publish(self, content: bytes, md5: str | None) -> None:
        self.files["/set.zip"] = content
        if md5 is not None:
            self.files["/set.zip.md5"] = md5.encode()


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")
    state = Publisher()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = state.files.get(self.path)
            status = state.statuses.get(self.path, 200 if content is not None else 404)
            if status != 200 or content is None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            wanted = self.headers["Range"]
            if self.path.endswith(".zip"):
                state.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and state.knows_ranges else 0
            if start and start >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            body = content[start:]
            if self.path.endswith(".zip") and state.cut_after is not None:
                body, state.cut_after = body[: state.cut_after], None
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/set.zip"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def md5_line(content: bytes) -> str:
    return f"MD5 (set.zip) = {hashlib.md5(content, usedforsecurity=False).hexdigest().upper()}\n"


def test_file_is_fetched_whole_and_logged_as_it_comes(
    publisher: Publisher, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spark_app.platform.download.POLL_SECONDS", 0)
    publisher.publish(CONTENT, md5_line(CONTENT))
    path = tmp_path / "_download" / "set.zip"
    download(publisher.url, str(path))
    assert path.read_bytes() == CONTENT
    assert publisher.ranges == [None]
    assert [entry.name for entry in path.parent.iterdir()] == ["set.zip"]
    assert said[-1] == f"downloading set.zip: {len(CONTENT):,} of {len(CONTENT):,} bytes so far"


def test_partial_file_is_gone_on_with(publisher: Publisher, tmp_path: Path) -> None:
    publisher.publish(CONTENT, md5_line(CONTENT))
    (tmp_path / "set.zip.partial").write_bytes(CONTENT[:60_000])
    download(publisher.url, str(tmp_path / "set.zip"))
    assert (tmp_path / "set.zip").read_bytes() == CONTENT
    assert publisher.ranges == ["bytes=60000-"]


def test_partial_file_that_is_whole_is_taken(publisher: Publisher, tmp_path: Path) -> None:
    publisher.publish(CONTENT, md5_line(CONTENT))
    (tmp_path / "set.zip.partial").write_bytes(CONTENT)
    download(publisher.url, str(tmp_path / "set.zip"))
    assert (tmp_path / "set.zip").read_bytes() == CONTENT


def test_file_that_is_there_whole_is_not_fetched_again(publisher: Publisher, tmp_path: Path) -> None:
    publisher.publish(CONTENT, md5_line(CONTENT))
    (tmp_path / "set.zip").write_bytes(CONTENT)
    download(publisher.url, str(tmp_path / "set.zip"))
    assert (tmp_path / "set.zip").read_bytes() == CONTENT
    assert publisher.ranges == [f"bytes={len(CONTENT)}-"]


def test_server_without_ranges_is_asked_once_and_read_from_the_start(publisher: Publisher, tmp_path: Path) -> None:
    publisher.publish(CONTENT, md5_line(CONTENT))
    publisher.knows_ranges = False
    (tmp_path / "set.zip.partial").write_bytes(b"x" * 60_000)
    download(publisher.url, str(tmp_path / "set.zip"))
    assert (tmp_path / "set.zip").read_bytes() == CONTENT


def test_connection_lost_is_a_storage_error_and_the_next_call_goes_on(publisher: Publisher, tmp_path: Path) -> None:
    publisher.publish(CONTENT, md5_line(CONTENT))
    publisher.cut_after = 100_000
    path = tmp_path / "set.zip"
    with pytest.raises(StorageError) as caught:
        download(publisher.url, str(path))
    assert str(caught.value) == (
        f"cannot download {publisher.url}: the connection was lost; check the network, or give a folder or zip"
    )
    assert not path.exists()
    assert (tmp_path / "set.zip.partial").read_bytes() == CONTENT[:100_000]
    download(publisher.url, str(path))
    assert path.read_bytes() == CONTENT
    assert publisher.ranges == [None, "bytes=100000-"]


def test_wrong_checksum_is_an_input_error_and_nothing_stays(publisher: Publisher, tmp_path: Path) -> None:
    publisher.publish(b"abc", "0123456789abcdef0123456789abcdef  set.zip\n")
    with pytest.raises(InputError) as caught:
        download(publisher.url, str(tmp_path / "set.zip"))
    assert str(caught.value) == (
        f"{publisher.url} does not match its publisher's checksum "
        "(MD5 900150983cd24fb0d6963f7d28e17f72, not 0123456789abcdef0123456789abcdef): try again"
    )
    assert list(tmp_path.iterdir()) == []


def test_file_without_checksum_is_taken(publisher: Publisher, tmp_path: Path) -> None:
    publisher.publish(CONTENT, None)
    download(publisher.url, str(tmp_path / "set.zip"))
    assert (tmp_path / "set.zip").read_bytes() == CONTENT


def test_server_that_has_no_such_file(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        download(publisher.url, str(tmp_path / "set.zip"))
    assert str(caught.value) == (
        f"cannot download {publisher.url}: the server answered 404 Not Found; "
        "check the network, or give a folder or zip"
    )


def test_server_that_fails_again_and_again(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Retry, "sleep", lambda *_: None)
    publisher.publish(CONTENT, md5_line(CONTENT))
    publisher.statuses["/set.zip.md5"] = 503
    with pytest.raises(StorageError) as caught:
        download(publisher.url, str(tmp_path / "set.zip"))
    assert str(caught.value) == (
        f"cannot download {publisher.url}: the server answered 503 Service Unavailable; "
        "check the network, or give a folder or zip"
    )


def test_server_that_is_down_is_a_storage_error_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}/set.zip"
        start = time.monotonic()
        with pytest.raises(StorageError) as caught:
            download(url, str(tmp_path / "set.zip"))
    assert str(caught.value) == (
        f"cannot download {url}: no connection (ConnectionError); check the network, or give a folder or zip"
    )
    assert time.monotonic() - start < 15
