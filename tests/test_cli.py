"""The command line without Spark: files of settings as people write them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from spark_app.cli import read_settings
from spark_app.stages.pipeline import JOBS


def test_a_settings_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes("[recommend]\nn = 7\n".encode("utf-8-sig"))
    settings = read_settings(JOBS["explore"], ["--config", str(path), "--processed-path", str(tmp_path / "out")])
    assert settings.recommend.n == 7


def test_show_is_silent_where_its_reader_has_seen_enough(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    manifest = {"schema_version": 2, "run_id": "r", "job": "pipeline", "profile": {"long": "x" * 1_000_000}}
    (tmp_path / "runs" / "20260101T000000Z-0000.json").write_text(json.dumps(manifest))
    asked = subprocess.Popen(
        [sys.executable, "-m", "spark_app", "show", "--processed-path", str(tmp_path), "--run", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert asked.stdout
    assert asked.stderr
    assert asked.stdout.read(1) == b"{"
    asked.stdout.close()
    assert asked.stderr.read() == b""
    assert asked.wait(60) == 141
