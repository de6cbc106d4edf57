"""The audit, with a server on the loopback in place of the OSV database."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyspark
import pytest

from spark_app.platform.spark_versions import IS_3
from tools import audit
from tools.audit import Jar

CORE = f"org.apache.spark:spark-core_{'2.12' if IS_3 else '2.13'}"
KNOWN = {CORE: "GHSA-jar", "numpy": "PYSEC-package"}


class Osv(BaseHTTPRequestHandler):
    """The part of the OSV database's interface that the audit uses."""

    def do_POST(self) -> None:
        request: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/querybatch":
            answer: dict[str, Any] = {"results": [self._answer(query) for query in request["queries"]]}
        else:
            answer = self._answer(request)
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, query: dict[str, Any]) -> dict[str, Any]:
        vulnerability = self.server.known.get(query["package"]["name"])  # type: ignore[attr-defined]
        if vulnerability is None:
            return {}
        ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}]
        affected = [{"package": query["package"], "ranges": ranges}]
        return {"vulns": [{"id": vulnerability, "summary": "bad", "details": "bad", "affected": affected}]}

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def osv(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A database without vulnerabilities; a test can add an id per package."""
    known: dict[str, str] = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Osv)
    server.known = known  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OSV_URL", f"http://127.0.0.1:{server.server_port}")
    yield known
    server.shutdown()
    server.server_close()


def test_what_is_here_has_licences_that_are_allowed_and_nothing_known_against_it(
    osv: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    code = audit.main()
    assert code == 0, capfd.readouterr().out


def test_what_is_known_of_a_jar_or_a_package_fails_the_audit(
    osv: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    osv |= KNOWN
    assert audit.main() == 1
    captured = capfd.readouterr()
    assert f"audit: GHSA-jar in {CORE} {pyspark.__version__}" in captured.out
    assert "PYSEC-package" in captured.out


def test_what_is_accepted_is_told_with_its_reason(
    osv: dict[str, str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    osv |= KNOWN
    rules = tmp_path / "audit.toml"
    accepted = '[accepted]\nGHSA-jar = "Spark pins it"\nPYSEC-package = "not reached"\n'
    rules.write_text(audit.ALLOWED.read_text(encoding="utf-8").replace("[accepted]\n", accepted), encoding="utf-8")
    monkeypatch.setattr(audit, "ALLOWED", rules)
    assert audit.main() == 0
    assert "audit: GHSA-jar is accepted: Spark pins it" in capfd.readouterr().out


def test_a_database_that_cannot_be_reached_is_no_good_news(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OSV_URL", "http://127.0.0.1:9")
    assert audit.main() == 1
    assert "cannot be reached, so no vulnerability was looked up" in capfd.readouterr().out


def test_jars_that_other_programs_have_fetched_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "jars-local.txt").write_text("file:///ivy/io.delta_delta-storage-4.2.0.jar\n")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert audit.fetched_jars() == {Jar("io.delta", "delta-storage", "4.2.0")}


def test_licences_that_nobody_has_looked_up_are_told() -> None:
    licences = {"org.apache": "Apache-2.0"}
    assert audit.unlicensed(["org.apache.hadoop", "org.apache", "org.apachex", "com.example"], licences) == {
        "org.apachex",
        "com.example",
    }


def test_jars_are_known_by_their_names() -> None:
    jar = audit.from_ivy("org.apache.spark_spark-hadoop-cloud_2.13-4.1.1.jar")
    assert jar == Jar("org.apache.spark", "spark-hadoop-cloud_2.13", "4.1.1")
