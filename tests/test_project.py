"""The project's settings, locks, packages and entry points agree with each other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from spark_app.platform.settings import SET_BY_THE_INPUT, Settings, build_settings, preset_names
from spark_app.stages.pipeline import JOBS
from tests.pipeline.conftest import MOVIES, RATINGS
from tools.settings_toml import as_toml

ROOT = Path(__file__).resolve().parents[1]
METASTORE = "spark.hadoop.javax.jdo.option.ConnectionURL"
JARS = {"spark.jars.packages", "spark.jars.excludes"}
CREDENTIALS = "spark.hadoop.fs.s3a.aws.credentials.provider"
RULES_OF_3_5 = ROOT / "conf" / "spark-3.5.sed"
OF_A_GENERATION = ("delta-spark", "py4j", "pyspark")


def test_pipeline_toml_says_of_every_setting_what_the_code_says() -> None:
    text = (ROOT / "conf" / "pipeline.toml").read_text()
    assert text == as_toml(), "conf/pipeline.toml is out of date: run `make settings`"
    assert build_settings(text) == Settings()


def test_every_setting_has_a_docstring_and_its_default_depends_on_the_input_where_that_is_said() -> None:
    counts = build_settings(assignments=["input.feedback=counts", "input.rating=plays", "input.scale_max=9"])
    for_counts, defaults = counts.model_dump(), Settings().model_dump()
    for section, field in Settings.model_fields.items():
        for key, value in field.default.__class__.model_fields.items():
            assert value.description, f"{section}.{key} has no docstring"
            if section != "input" and for_counts[section][key] != defaults[section][key]:
                assert f"{section}.{key}" in SET_BY_THE_INPUT


def test_the_java_that_set_up_installs_is_started_without_the_module_it_lacks(tmp_path: Path) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    java.chmod(0o755)
    arguments = ["-cp", "a b", "--add-modules=jdk.incubator.vector", "", "Main"]
    started = subprocess.run(
        [ROOT / "conf" / "local" / "java" / "bin" / "java", *arguments],
        env={**os.environ, "MOVIE_RECO_JDK": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert started.stdout.split("\n")[:-1] == ["-cp", "a b", "", "Main"]


def spark_defaults(conf: str, *, of_3_5: bool = False) -> dict[str, str]:
    path = ROOT / "conf" / conf / "spark-defaults.conf"
    text = path.read_text()
    if of_3_5:
        text = subprocess.run(
            ["sed", "-f", str(RULES_OF_3_5), str(path)], capture_output=True, text=True, check=True
        ).stdout
    return parsed(text)


def parsed(settings: str) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in settings.splitlines() if line and not line.startswith("#"))


def test_spark_runs_on_a_cluster_as_on_one_machine_but_for_what_differs_there() -> None:
    local, with_s3, cluster = spark_defaults("local"), spark_defaults("s3"), spark_defaults("cluster")
    only_local = {"spark.master", "spark.driver.bindAddress", "spark.driver.host", "spark.hadoop.fs.defaultFS"}
    only_local |= {"spark.sql.files.maxPartitionBytes"}
    other_values = {"spark.driver.memory", "spark.sql.shuffle.partitions", METASTORE}
    assert set(with_s3) - set(cluster) == only_local
    assert {key for key in with_s3 if key in cluster and cluster[key] != with_s3[key]} == other_values
    assert not {key for key in set(cluster) - set(with_s3) if key.startswith(("spark.sql", "spark.databricks"))}
    assert set(local) <= set(with_s3)


def test_spark_runs_with_s3_as_without_but_for_what_reaches_it() -> None:
    local, with_s3 = spark_defaults("local"), spark_defaults("s3")
    assert {key for key in local if with_s3[key] != local[key]} == {
        "spark.jars.packages",
        "spark.jars.excludes",
        "spark.master",
        METASTORE,
    }
    more = set(with_s3) - set(local)
    assert {key for key in more if not key.startswith(("spark.hadoop.fs.", "spark.hadoop.mapreduce."))} == {
        "spark.sql.sources.commitProtocolClass",
        "spark.sql.parquet.output.committer.class",
    }
    for conf, file in (("s3", "log4j2.properties"), ("s3", "spark-env.sh"), ("cluster", "log4j2.properties")):
        assert (ROOT / "conf" / conf / file).read_text() == (ROOT / "conf" / "local" / file).read_text()


def test_spark_3_5_runs_as_4_1_but_for_jars_and_what_is_in_them() -> None:
    for conf, changed in (("local", set()), ("s3", {CREDENTIALS}), ("cluster", {CREDENTIALS})):
        of_4_1, of_3_5 = spark_defaults(conf), spark_defaults(conf, of_3_5=True)
        assert set(of_4_1) == set(of_3_5)
        assert {key for key in of_4_1 if of_3_5[key] != of_4_1[key]} - JARS == {METASTORE, *changed}
        jars = of_3_5["spark.jars.packages"].split(",")
        assert "io.delta:delta-spark_2.12:3.3.2" in jars
        assert not [jar for jar in jars if "awssdk" in jar or "_2.13:" in jar or not re.search(r":\d[\d.]+$", jar)]


def test_no_rule_of_spark_3_5_is_left_of_what_4_1_has_no_more() -> None:
    settings = "".join(path.read_text() for path in (ROOT / "conf").glob("*/spark-defaults.conf"))
    rules = [line.split("|")[1] for line in RULES_OF_3_5.read_text().splitlines() if line.startswith("s|")]
    assert rules
    assert [rule for rule in rules if rule not in settings] == []


def test_both_generations_lock_the_same_versions_of_all_but_spark() -> None:
    of_4_1, of_3_5 = (
        set(re.findall(r"^([a-z0-9._-]+)==([^ ]+)", (ROOT / "requirements" / f"{lock}.lock").read_text(), re.MULTILINE))
        for lock in ("runtime", "runtime-3.5")
    )
    assert {name for name, _ in of_4_1 ^ of_3_5} == set(OF_A_GENERATION)


def test_the_package_is_the_same_bytes_each_time_and_has_the_templates(tmp_path: Path) -> None:
    first, second = tmp_path / "one.zip", tmp_path / "two" / "two.zip"
    for target in (first, second):
        subprocess.run([sys.executable, ROOT / "tools" / "package.py", target], check=True)
    assert first.read_bytes() == second.read_bytes()
    names = zipfile.ZipFile(first).namelist()
    assert {name.partition("/")[0] for name in names} == {"spark_app"}
    assert {"spark_app/cli.py", "spark_app/report/templates/report.html"} <= set(names)
    assert not [name for name in names if "__pycache__" in name]
    code = "from spark_app.platform.settings import *; print(build_settings('input.preset = \"ml-1m\"').raw.movies)"
    environment = {**os.environ, "PYTHONPATH": str(first)}
    read = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert read.stdout.split() == [b"movies.dat"]


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


def make_wheel(folder: Path) -> Path:
    """A wheel of the project, made in a folder outside of the checkout."""
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("spark_app", "conf"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = ["pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(folder / "out"), "."]
    subprocess.run([sys.executable, "-m", *build], cwd=folder, check=True, timeout=120)
    (wheel,) = (folder / "out").glob("*.whl")
    return wheel


def test_a_wheel_has_the_templates_of_the_report_and_the_settings_of_spark(tmp_path: Path) -> None:
    packed = zipfile.ZipFile(make_wheel(tmp_path))
    assert {f"spark_app/report/templates/{name}" for name in ("report.html", "report.css")} <= set(packed.namelist())
    assert {f"spark_app/platform/presets/{name}.toml" for name in preset_names()} <= set(packed.namelist())
    for folder in ("local", "s3"):
        for generation, of_3_5 in (("4.1", False), ("3.5", True)):
            settings = packed.read(f"spark_app/conf/{generation}/{folder}/spark-defaults.conf").decode()
            assert parsed(settings) == spark_defaults(folder, of_3_5=of_3_5)
            assert f"spark_app/conf/{generation}/{folder}/spark-env.sh" in packed.namelist()
            assert packed.read(f"spark_app/conf/{generation}/machine.sh") == (ROOT / "conf" / "machine.sh").read_bytes()


@pytest.mark.long
def test_the_installed_command_runs_a_job_without_a_checkout(tmp_path: Path) -> None:
    """The packages that it depends on are those of this environment, found by a path."""
    (tmp_path / "build").mkdir()
    wheel, venv = make_wheel(tmp_path / "build"), tmp_path / "it's installed"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    (packages,) = (venv / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    subprocess.run(
        [venv / "bin" / "python", "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel], check=True
    )
    shutil.rmtree(tmp_path / "build")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "movies.csv").write_text(MOVIES)
    (tmp_path / "raw" / "ratings.csv").write_text(RATINGS)
    (tmp_path / "elsewhere").mkdir()
    left = {"SPARK_HOME": "/opt/another", "PYSPARK_DRIVER_PYTHON": "jupyter", "SPARK_CONF_DIR": "/opt/another/conf"}

    def command(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [venv / "bin" / "movie-reco", *words],
            cwd=tmp_path / "elsewhere",
            env={**os.environ, **left, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    zones = ("--raw-path", str(tmp_path / "raw"), "--processed-path", str(tmp_path / "processed"))
    done = command("run", "--driver-memory", "1g", "etl", *zones)
    assert done.returncode == 0, done.stderr
    told = [line.split(maxsplit=2)[2] for line in done.stderr.splitlines()]
    assert told[0] == "etl: started", "Spark says nothing of its jars"
    assert "ratings: 4 rows in = 4 good + 0 rejected + 0 superseded" in told
    shown = command("show", "--processed-path", str(tmp_path / "processed"), "--run")
    assert shown.returncode == 0, shown.stderr
    assert "etl" in shown.stdout
    helped = command("run", "etl", "--help")
    assert helped.stdout.startswith("usage: movie-reco run etl ")
    assert helped.stderr == ""
    assert command("run").returncode == 2
    assert command("run", "--help").stdout.startswith("usage: movie-reco run ")
    if shutil.which("java"):
        refused = command("run", "etl", *zones, JAVA_HOME="/nowhere")
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1
        assert "there is no Java (JAVA_HOME=/nowhere, java on PATH): install Java 17 or 21" in refused.stderr
