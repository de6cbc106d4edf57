"""The content of a release, and that it works on a machine without this checkout."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from spark_app.aws import artefacts
from spark_app.aws.artefacts import EMR, GLUE, ROOT, Runtime, build, pack_environment, requirements
from spark_app.platform.errors import JobError, UsageError
from tests.aws.services import extract

CONFIG = ROOT / "conf" / "pipeline.toml"


@pytest.mark.parametrize(("service", "runtime"), [*GLUE.items(), ("emr", EMR)])
def test_packages_are_pinned_with_hashes_and_none_that_the_service_brings(service: str, runtime: Runtime) -> None:
    lines = requirements(runtime, ROOT / "requirements" / runtime.lock)
    names = [line.split("==")[0] for line in lines]
    assert len(names) == len(set(names)) > 30
    assert all("==" in line and " --hash=sha256:" in line and ";" not in line for line in lines)
    assert not {"pyspark", "py4j"} & set(names)
    assert ("delta-spark" in names) == (service == "emr")
    assert {"numpy", "deltalake", "pydantic", "boto3"} <= set(names)


def test_markers_are_those_of_the_service_not_of_this_machine(tmp_path: Path) -> None:
    lock = tmp_path / "some.lock"
    lock.write_text(
        "old==1.0 ; python_full_version < '3.12' \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
        "new==2.0 ; python_full_version >= '3.12' \\\n    --hash=sha256:cc\n"
        "windows==3.0 ; sys_platform == 'win32' \\\n    --hash=sha256:dd\n"
        "brought==4.0 \\\n    --hash=sha256:ee\n"
    )
    brings = frozenset({"brought"})
    assert requirements(Runtime("3.11", "", brings), lock) == ["old==1.0 --hash=sha256:aa --hash=sha256:bb"]
    assert requirements(Runtime("3.13", "", brings), lock) == ["new==2.0 --hash=sha256:cc"]


def wheel(folder: Path, name: str, tag: str = "py3-none-any") -> str:
    """Make a wheel of one module; returns its line of requirements, with the hash."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-1.0-{tag}.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", f"WHERE = __file__\nTAG = '{tag}'\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")
    return f"{name}==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which pip looks for packages."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    return tmp_path / "wheels"


def test_the_environment_works_wherever_it_is_unpacked(wheels: Path, tmp_path: Path) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    compiled = f"cp{version.replace('.', '')}-cp{version.replace('.', '')}-manylinux_2_28_x86_64"
    wanted = [wheel(wheels, "plain"), wheel(wheels, "compiled", compiled)]
    archive = tmp_path / "environment.tar.gz"
    pack_environment(archive, wanted, version)

    unpacked = tmp_path / "elsewhere" / "environment"
    with tarfile.open(archive) as opened:
        assert {member.name.partition("/")[0] for member in opened} == {"bin", "lib"}
        assert {(member.uid, member.uname) for member in opened} == {(0, "")}
        extract(opened, unpacked)
    # Spark calls it so: relative to the folder of the executor, and with Spark's own folders on the path.
    code = "import sys, plain, compiled; print(plain.WHERE); print(compiled.TAG); print('/of/spark' in sys.path)"
    service = shutil.which(f"python{version}") or sys.executable
    done = subprocess.run(
        ["./environment/bin/python", "-c", code],
        cwd=unpacked.parent,
        env={"PATH": f"{Path(service).parent}:/usr/bin:/bin", "PYTHONPATH": "/of/spark"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == [str(unpacked / "lib" / "plain.py"), compiled, "True"], done.stderr


def test_a_package_that_cannot_be_had_is_told_in_a_line(wheels: Path, tmp_path: Path) -> None:
    wheels.mkdir()
    with pytest.raises(
        JobError, match=r"the packages for EMR cannot be downloaded: .*absent.*; check the network, or use --without"
    ):
        pack_environment(tmp_path / "x.tar.gz", ["absent==1.0 --hash=sha256:" + "0" * 64], "3.11")
    tampered = wheel(wheels, "plain").replace("sha256:", "sha256:0")[:-1]
    with pytest.raises(JobError, match="cannot be downloaded"):
        pack_environment(tmp_path / "x.tar.gz", [tampered], "3.11")
    assert not (tmp_path / "x.tar.gz").exists()


def test_a_release_is_named_by_what_it_holds(tmp_path: Path) -> None:
    config = tmp_path / "other.toml"
    config.write_text("[recommend]\nn = 3\n")
    first, same, other = (
        build(tmp_path / place, settings, emr=False)
        for place, settings in (("a", CONFIG), ("b", CONFIG), ("a", config))
    )
    assert first.name == same.name != other.name
    assert [file.read_bytes() for file in first.files] == [file.read_bytes() for file in same.files]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted((first.name, other.name))
    assert build(tmp_path / "a", CONFIG, emr=False) == first  # and is not built again
    assert first.key(first.folder / "jobs" / "etl.py") == f"releases/{first.name}/jobs/etl.py"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[recommend]\nm = 3\n", "unknown setting recommend.m; did you mean recommend.n"),
        ("[recommend\n", "is not valid TOML"),
    ],
)
def test_settings_that_are_not_valid_are_found_before_anything_is_built(
    tmp_path: Path, text: str, complaint: str
) -> None:
    config = tmp_path / "bad.toml"
    config.write_text(text)
    with pytest.raises(UsageError, match=complaint):
        build(tmp_path / "out", config, emr=False)
    assert not (tmp_path / "out").exists()


def test_the_package_runs_without_the_checkout(tmp_path: Path) -> None:
    release = build(tmp_path / "out", CONFIG, emr=False)
    code = "import spark_app.cli, spark_app; print(spark_app.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(release.folder / artefacts.PACKAGE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == f"{release.folder / artefacts.PACKAGE}/spark_app/__init__.py", done.stderr
