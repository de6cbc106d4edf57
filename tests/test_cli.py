"""The command line without Spark: files of settings as people write them."""

from __future__ import annotations

from pathlib import Path

from spark_app.cli import read_settings
from spark_app.stages.pipeline import JOBS


def test_a_settings_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes("[recommend]\nn = 7\n".encode("utf-8-sig"))
    settings = read_settings(JOBS["explore"], ["--config", str(path), "--processed-path", str(tmp_path / "out")])
    assert settings.recommend.n == 7
