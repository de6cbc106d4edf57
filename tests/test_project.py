"""What the project says of itself is true."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from spark_app.platform.settings import Settings, build_settings
from spark_app.stages.pipeline import JOBS

ROOT = Path(__file__).resolve().parents[1]


def test_pipeline_toml_gives_every_key_its_default() -> None:
    text = (ROOT / "conf" / "pipeline.toml").read_text()
    assert build_settings(text) == Settings()
    sections = tomllib.loads(text)
    for section, field in Settings.model_fields.items():
        for key, value in field.default.__class__.model_fields.items():
            assert key in sections[section] or f"# {key} = " in text, f"{section}.{key}"
            assert value.description, f"{section}.{key} has no docstring"


def test_the_java_that_set_up_installs_is_started_without_the_module_it_lacks(tmp_path: Path) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    java.chmod(0o755)
    given = ["-cp", "a b", "--add-modules=jdk.incubator.vector", "", "Main"]
    started = subprocess.run(
        [ROOT / "conf" / "local" / "java" / "bin" / "java", *given],
        env={**os.environ, "MOVIE_RECO_JDK": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert started.stdout.split("\n")[:-1] == ["-cp", "a b", "", "Main"]


def test_every_job_has_an_entry_point_of_a_few_lines() -> None:
    for job in JOBS:
        lines = (ROOT / "jobs" / f"{job}.py").read_text().splitlines()
        assert f'    main("{job}")' in lines
        assert len(lines) < 10


def test_lock_files_hold_versions_and_hashes_and_no_address() -> None:
    for lock in (ROOT / "requirements").glob("*.lock"):
        text = lock.read_text()
        assert "--hash=sha256:" in text
        assert "://" not in text


def test_a_wheel_has_the_templates_of_the_report(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "spark_app", tmp_path / "spark_app", ignore=shutil.ignore_patterns("__pycache__"))
    build = ["pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(tmp_path / "out"), "."]
    subprocess.run([sys.executable, "-m", *build], cwd=tmp_path, check=True, timeout=120)
    (wheel,) = (tmp_path / "out").glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert {f"spark_app/report/templates/{name}" for name in ("report.html", "report.css")} <= packed
