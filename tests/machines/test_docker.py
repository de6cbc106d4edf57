"""The container of the Dockerfile: built by Docker where it runs, else step by step in a root of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.machines.conftest import ROOT
from tests.pipeline.conftest import MOVIES, RATINGS
from tools.conf import CONF

pytestmark = [
    pytest.mark.long,
    pytest.mark.usefixtures("may_unshare"),
    pytest.mark.skipif("3.5" in str(CONF), reason="the container has Spark 4.1"),
]

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
HOST_FOLDERS = ("usr", "bin", "sbin", "lib", "lib64", "dev", "proc")
ANYONE = 23456

READ_ONLY = """
    mount --rbind . . && cd "$PWD"
    for name in . opt/packages; do mount -o remount,bind,ro $name; done
    for name in tmp work; do mount -t tmpfs -o mode=1777 none $name; done
"""
"""What makes a root read-only, but for what `--tmpfs` mounts."""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile with their arguments."""
    lines = [line for line in DOCKERFILE.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1].strip()) for line in joined.splitlines() if line]


class Root:
    """A root with this machine's /usr and Python and nothing else of it, for the steps of the Dockerfile.

    What apt-get would install is this machine's, and so are the packages of the lock, which pip finds installed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"PATH": f"/stubs:{Path(sys.base_prefix) / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin"}
        self.user, self.workdir, self.entrypoint = 0, "/", list[str]()
        for name in ("tmp", "var/tmp", "root", "stubs", "mnt"):
            (folder / name).mkdir(parents=True)
        (folder / "tmp").chmod(0o1777)
        shutil.copytree("/etc", folder / "etc", symlinks=True, ignore=lambda *_: {"shadow", "gshadow"})
        for name in ("apt-get",):
            stub = folder / "stubs" / name
            stub.write_text("#!/bin/sh\n")
            stub.chmod(0o755)
        self.packages = folder.parent / "packages"

    def run(
        self, command: list[str], *, user: int | None = None, options: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the root, by `unshare` and `chroot`, with no variable of this process."""
        python, packages = Path(sys.base_prefix), sysconfig.get_path("purelib")
        ivy = Path.home() / ".ivy2.5.2"
        upper, work = self.packages / "upper", self.packages / "work"
        for path in (upper, work):
            path.mkdir(parents=True, exist_ok=True)
        script = f"""
            set -e
            mount --make-rprivate /
            cd "{self.folder}"
            for name in {" ".join(HOST_FOLDERS)}; do mkdir -p $name; mount --rbind /$name $name; done
            mkdir -p ".{python}" opt/packages root/.ivy2.5.2 && mount --rbind "{python}" ".{python}"
            mount -t overlay -o "lowerdir={packages},upperdir={upper},workdir={work}" none opt/packages
            [ ! -d "{ivy}" ] || [ {self.user} != 0 ] || mount -t overlay -o \
              "lowerdir={ivy},upperdir={self.packages}/ivy,workdir={self.packages}/ivy-work" none root/.ivy2.5.2
            chmod 755 root
            {options}
            hostname container
            exec chroot --userspec={self.user if user is None else user}:0 . /usr/bin/env -i "$@"
        """
        for name in ("ivy", "ivy-work"):
            (self.packages / name).mkdir(exist_ok=True)
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        inside = ["sh", "-c", 'cd "$0" && exec "$@"', self.workdir, *command]
        return subprocess.run(
            ["unshare", "-m", "-u", "bash", "-c", script, "docker", *variables, *inside],
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def copy(self, *names: str) -> None:
        """Copy files and folders of the checkout to the last of the names, as COPY does."""
        *sources, target = names
        place = self.folder / self.workdir[1:] / target
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, place)

    def follow(self, name: str, words: str) -> None:
        """Follow one instruction."""
        if name == "ENV":
            for pair in words.split():
                key, _, value = pair.partition("=")
                self.environment[key] = value.replace("$PATH", self.environment["PATH"])
        elif name == "WORKDIR":
            self.workdir = words
            (self.folder / words[1:]).mkdir(parents=True, exist_ok=True)
        elif name == "COPY":
            self.copy(*words.split())
        elif name == "USER":
            self.user = int(words)
        elif name == "ENTRYPOINT":
            self.entrypoint = json.loads(words)
        elif name == "RUN":
            done = self.run(["sh", "-c", words])
            assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
            if " -m venv " in words:
                for site in (self.folder / "opt" / "movie-reco" / "lib").glob("python*/site-packages"):
                    (site / "packages.pth").write_text("/opt/packages\n")
        else:
            assert name in ("FROM", "CMD")


def is_docker_here() -> bool:
    """Whether a Docker server answers."""
    docker = shutil.which("docker")
    return docker is not None and subprocess.run([docker, "info"], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run the container with two mounted folders, /raw and /results."""
    zones = Path("/var/tmp") / f"movie-reco-docker-{os.getpid()}"
    for name in ("raw", "results"):
        (zones / name).mkdir(parents=True)
        (zones / name).chmod(0o777)
    (zones / "raw" / "movies.csv").write_text(MOVIES)
    (zones / "raw" / "ratings.csv").write_text(RATINGS)

    def by_docker(*words: str, user: int | None = None, read_only: bool = False) -> subprocess.CompletedProcess[str]:
        chosen = ["--user", f"{user}:{user}"] if user else []
        if read_only:
            chosen += ["--read-only", "--tmpfs", "/tmp:exec", "--tmpfs", "/work"]
        volumes = ["-v", f"{zones}/raw:/raw", "-v", f"{zones}/results:/results"]
        command = ["docker", "run", "--rm", "--network", "none", *chosen, *volumes, "movie-reco-test", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)

    def by_hand(*words: str, user: int | None = None, read_only: bool = False) -> subprocess.CompletedProcess[str]:
        mounts = " ".join(f'mkdir -p {n}; mount --bind "{zones}/{n}" {n};' for n in ("raw", "results"))
        return root.run([*root.entrypoint, *words], user=user, options=mounts + (READ_ONLY if read_only else ""))

    if is_docker_here():
        subprocess.run(["docker", "build", "-q", "-t", "movie-reco-test", ROOT], check=True, timeout=1800)
        yield by_docker
    else:
        folder = Path("/var/tmp") / f"movie-reco-root-{os.getpid()}"
        root = Root(folder / "root")
        for name, words in instructions():
            root.follow(name, words)
        yield by_hand
        shutil.rmtree(folder)
    shutil.rmtree(zones)


def test_the_container_runs_a_stage_as_its_own_user_with_jars_inside(container: Run) -> None:
    done = container("etl", "--raw-path", "/raw", "--processed-path", "/results/a")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ratings: 4 rows in = 4 good" in done.stderr
    assert "found io.delta" not in done.stderr, "it fetches no jars"
    shown = container("show", "--processed-path", "/results/a", "--run")
    assert shown.returncode == 0, shown.stderr


def test_the_container_needs_no_writable_root(container: Run) -> None:
    done = container("catalog", "--raw-path", "/raw", "--processed-path", "/results/c", read_only=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "registered movie_reco_raw_db.ratings_csv" in done.stderr


def test_the_container_says_what_it_can_do(container: Run) -> None:
    shown = container("--help")
    assert shown.returncode == 0
    assert shown.stdout.startswith("usage: movie-reco run ")


def test_the_container_runs_under_any_user_or_says_why_not(container: Run) -> None:
    done = container("catalog", "--raw-path", "/raw", "--processed-path", "/results/b", user=ANYONE)
    if is_docker_here() or list(Path("/usr/lib").glob("*/libnss_wrapper.so")):
        assert done.returncode == 0, done.stdout + done.stderr
        assert "registered movie_reco_raw_db.ratings_csv" in done.stderr
    else:  # in its own root it has the /usr of this machine, which lacks the library
        assert done.returncode == 2
        assert f"user {ANYONE} has no entry in /etc/passwd" in done.stderr
