"""Build a release for AWS from this checkout, on any machine.

A release consists of:

movie_reco.zip            the package, for Glue's --extra-py-files and EMR's pyFiles
jobs/STAGE.py             the entry scripts
requirements-GLUE.txt     the packages that Glue installs, one file per version of Glue
environment.tar.gz        the packages for EMR, which unpacks them beside the job
settings.toml             the settings of all jobs, their --config
spark-defaults.conf       the Spark settings that the jobs need
jobs.yaml                 the CloudFormation template that runs this release
"""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from packaging.requirements import Requirement

import spark_app
from spark_app.platform.errors import JobError, UsageError
from spark_app.platform.log import logger
from spark_app.platform.settings import build_settings
from spark_app.stages.pipeline import JOBS

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf" / "aws"
PACKAGE, ENVIRONMENT = "movie_reco.zip", "environment.tar.gz"
SETTINGS, SPARK_DEFAULTS, TEMPLATE = "settings.toml", "spark-defaults.conf", "jobs.yaml"


@dataclass(frozen=True)
class Runtime:
    """A version of a service: its Python, the lock file that fits its Spark, and the packages that it provides."""

    python: str
    lock: str
    brings: frozenset[str]


GLUE = {
    "6.0": Runtime("3.13", "runtime.lock", frozenset({"pyspark", "py4j", "delta-spark"})),
    "5.1": Runtime("3.11", "runtime-3.5.lock", frozenset({"pyspark", "py4j", "delta-spark"})),
}
"""Versions of Glue. With `--datalake-formats delta` Glue provides Delta's Python package beside Delta's jars."""

EMR = Runtime("3.11", "runtime-3.5.lock", frozenset({"pyspark", "py4j"}))
"""EMR 7.13, which has Python 3.9 and 3.11. It provides Delta's jars only, so a release packs Delta's Python package."""

MACHINE, NEWEST_GLIBC, OLDEST_GLIBC = "x86_64", 34, 17
"""Glue and EMR run on Amazon Linux 2023, with glibc 2.34. Wheels built for an older glibc run there as well."""

PYTHON = """#!/bin/sh
# Python {python}, as EMR has it, with the packages of this archive.
here=$(cd "$(dirname "$0")/.." && pwd)
PYTHONPATH="$here/lib${{PYTHONPATH:+:$PYTHONPATH}}" exec python{python} "$@"
"""


def pack(target: Path) -> None:
    """Write `spark_app`, with the templates of the report, as a zip that Python imports from.

    The same files give the same bytes: modification times do not enter.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    files = (path for path in (ROOT / "spark_app").rglob("*") if path.is_file() and path.suffix != ".pyc")
    with ZipFile(target, "w") as archive:
        for path in sorted(files):
            # A ZipInfo made from a name has a fixed date.
            archive.writestr(ZipInfo(path.relative_to(ROOT).as_posix()), path.read_bytes(), ZIP_DEFLATED)


def parse_conf(text: str) -> dict[str, str]:
    """The settings of a spark-defaults.conf."""
    return dict(line.split(maxsplit=1) for line in text.splitlines() if line.strip() and not line.startswith("#"))


def chained(settings: dict[str, str]) -> str:
    """Spark settings in the form that Glue takes, all in the value of one `--conf`: A=B --conf C=D."""
    return " --conf ".join(f"{key}={value}" for key, value in settings.items())


def requirements(runtime: Runtime, lock: Path) -> list[str]:
    """The locked packages that a service must install, one line per package: NAME==VERSION --hash=...

    Markers are evaluated for the service's Python on Linux, not for the Python of this machine.
    """
    target = {
        "python_version": runtime.python,
        "python_full_version": f"{runtime.python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": MACHINE,
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    lines = []
    for line in lock.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        pinned, *hashes = (part.strip() for part in line.split("--hash="))
        requirement = Requirement(pinned)
        fits = requirement.marker is None or requirement.marker.evaluate(target)
        if fits and requirement.name not in runtime.brings:
            options = (f"--hash={digest}" for digest in hashes)
            lines.append(" ".join([f"{requirement.name}{requirement.specifier}", *options]))
    return lines


def pack_environment(target: Path, wanted: list[str], python: str) -> None:
    """Write packages, and a `bin/python` that finds them, as an archive that works wherever it is unpacked.

    `wanted` are lines of `requirements()`. The archive can be built on any machine, since it takes only wheels for
    Amazon Linux. It runs the service's own Python, of version `python`. Raises JobError where a package cannot be
    downloaded.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        listed, library = folder / "requirements.txt", folder / "lib"
        listed.write_text("\n".join(wanted) + "\n", encoding="utf-8")
        platforms = [f"manylinux_2_{minor}_{MACHINE}" for minor in range(NEWEST_GLIBC, OLDEST_GLIBC - 1, -1)]
        _pip(
            "install",
            *("--target", str(library), "--requirement", str(listed), "--no-deps", "--only-binary", ":all:"),
            *("--implementation", "cp", "--python-version", python),
            *(word for platform in (*platforms, f"manylinux2014_{MACHINE}") for word in ("--platform", platform)),
        )
        program = folder / "bin" / "python"
        program.parent.mkdir()
        program.write_text(PYTHON.format(python=python), encoding="utf-8")
        program.chmod(0o755)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(target, "w:gz", compresslevel=6) as archive:
            archive.add(program, "bin/python", filter=_without_owner_and_time)
            archive.add(library, "lib", filter=_without_owner_and_time)


def _without_owner_and_time(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """The member without user and time; None for a file that Python compiled on this machine."""
    if "__pycache__" in member.name:
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    return member


def _pip(*words: str) -> None:
    if importlib.util.find_spec("pip") is None:
        raise UsageError("this Python has no pip, which packs the environment for EMR: use the .venv of `make setup`")
    command = [sys.executable, "-m", "pip", *words, "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - pip, with our own words
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        why = errors[-1].removeprefix("ERROR: ") if errors else f"pip ended with {done.returncode}"
        raise JobError(
            f"the packages for EMR cannot be downloaded: {why[:300]}; check the network, or use --without-emr"
        )


@dataclass(frozen=True)
class Release:
    """A built release: its local folder, and its name, VERSION-CHECKSUM."""

    folder: Path
    name: str

    @property
    def prefix(self) -> str:
        """The prefix of its keys in the artefacts bucket."""
        return f"releases/{self.name}"

    @property
    def files(self) -> list[Path]:
        """All its files, sorted."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def key(self, file: Path) -> str:
        """The key of one of its files in the artefacts bucket."""
        return f"{self.prefix}/{file.relative_to(self.folder).as_posix()}"


def build(out: Path, config: Path, *, emr: bool = True) -> Release:
    """Build a release in a folder under `out`. Its name has a checksum of its content: equal releases have equal names.

    Raises UsageError where `config` is not valid, JobError where packages cannot be downloaded.
    """
    if not (ROOT / "jobs").is_dir() or not CONF.is_dir():
        raise UsageError(f"{ROOT} is not a checkout of movie-reco: a release is built from a checkout")
    try:
        settings = config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the --config file {config}: {error}") from error
    build_settings(settings, str(config))
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as temporary:
        folder = Path(temporary) / "release"
        pack(folder / PACKAGE)
        (folder / "jobs").mkdir()
        for job in JOBS:
            (folder / "jobs" / f"{job}.py").write_bytes((ROOT / "jobs" / f"{job}.py").read_bytes())
        for version, runtime in GLUE.items():
            text = "\n".join(requirements(runtime, ROOT / "requirements" / runtime.lock)) + "\n"
            (folder / f"requirements-{version}.txt").write_text(text, encoding="utf-8")
        (folder / SETTINGS).write_text(settings, encoding="utf-8")
        for name in (SPARK_DEFAULTS, TEMPLATE):
            (folder / name).write_bytes((CONF / name).read_bytes())
        name = _name(folder, emr=emr)
        release = Release(out / name, name)
        if release.folder.exists():
            logger.info("release %s exists already", name)
            return release
        if emr:
            logger.info("packing the environment for EMR: Python %s, some 200 MB", EMR.python)
            pack_environment(folder / ENVIRONMENT, requirements(EMR, ROOT / "requirements" / EMR.lock), EMR.python)
        folder.rename(release.folder)
    return release


def _name(folder: Path, *, emr: bool) -> str:
    """VERSION-CHECKSUM, where the checksum is that of the content of all files.

    For the environment it is the checksum of what the archive is made from: the archive's own bytes depend on the
    version of zlib.
    """
    digest = hashlib.sha256()
    for piece in _content(folder, emr=emr):
        digest.update(hashlib.sha256(piece).digest())
    return f"{spark_app.__version__}-{digest.hexdigest()[:12]}"


def _content(folder: Path, *, emr: bool) -> Iterator[bytes]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield path.relative_to(folder).as_posix().encode()
        yield path.read_bytes()
    if emr:
        yield "\n".join([ENVIRONMENT, PYTHON, *requirements(EMR, ROOT / "requirements" / EMR.lock)]).encode()
