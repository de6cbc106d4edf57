"""Machines like those on which Glue, EMR Serverless and EMR run a job: with the service's Spark and Python, and S3.

This module provides what the service provides: Spark without packages, jars for Delta and S3, a Python without
packages, the service's settings, and credentials of a role. Everything else comes from the calls to the service's API,
unchanged.
"""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from xml.sax.saxutils import escape

from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway

from spark_app.aws.emr_settings import DELTA_JARS
from tools.conf import ROOT
from tools.s3_server import S3Server

PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"

OURS = ("spark.jars.packages", "spark.jars.excludes", "spark.master", "spark.driver.")
"""Settings of conf/s3 for a machine on which no service provides Spark."""

OF_JAVA_11 = ("jakarta.xml.bind", "jaxb-runtime", "istack", "activation")
"""Jars with classes that newer versions of Java lack and that Hadoop 3.3 needs."""

TAKEN_OUT = ("--enable-glue-datacatalog", "--enable-metrics")
"""Arguments that Glue's launcher removes. It leaves their values: the script gets the words `true`."""

TIMEOUT = 1200


@dataclass(frozen=True)
class Brought:
    """The Spark and the Python that a service provides. Spark is that of `venv`, which set-up made."""

    venv: Path
    python: str
    """The version of Python."""

    @property
    def site(self) -> Path:
        """The folder of the environment's packages, for any version of Python."""
        (folder,) = (self.venv / "lib").glob("python3.*/site-packages")
        return folder

    @property
    def conf(self) -> Path:
        return (ROOT if self.venv.name == ".venv" else self.venv) / "conf" / "s3"

    @functools.cached_property
    def interpreter(self) -> str | None:
        """A Python of this version without the packages of the jobs; None where there is none."""
        name = f"python{self.python}"
        folders = [Path(folder) for folder in os.environ["PATH"].split(os.pathsep) if ROOT not in Path(folder).parents]
        paths = [folder / name for folder in [*folders, *sorted(PYENV.glob(f"{self.python}.*/bin"))]]
        # pyenv has commands for versions that are not installed; such a command only prints an error.
        return next((str(path) for path in paths if path.exists() and not failed([str(path), "--version"])), None)

    def is_there(self, *further: str) -> bool:
        """Whether set-up installed all of it on this machine, including the jars of the `further` settings."""
        lists = [self.venv / f"jars-{conf}.txt" for conf in ("local", "s3", *further)]
        return all(path.exists() for path in lists) and self.interpreter is not None

    def jars(self, conf: str) -> list[str]:
        """The paths of the jars that set-up fetched for the settings `conf`."""
        return [unquote(urlsplit(line).path) for line in (self.venv / f"jars-{conf}.txt").read_text().splitlines()]


GLUE = {"6.0": Brought(ROOT / ".venv", "3.13"), "5.1": Brought(ROOT / ".venv-3.5", "3.11")}
EMR = GLUE["5.1"]
"""EMR 7.13 has the Spark and the Python of Glue 5.1."""


def failed(command: Sequence[str]) -> bool:
    """Whether a command ends with an error."""
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode != 0


@dataclass
class Machine:
    """A folder on a machine of a service, in which a job starts."""

    folder: Path
    server: S3Server
    brought: Brought = EMR
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        service = self.folder / "service"
        service.mkdir()
        spark, conf = self.brought.site / "pyspark", self.brought.conf
        lines = (conf / "spark-defaults.conf").read_text().splitlines()
        brought = [line for line in lines if line and not line.startswith(("#", *OURS))]
        (service / "spark-defaults.conf").write_text("\n".join([*brought, *self.settings()]) + "\n")
        hadoop = {
            line.split()[0].removeprefix("spark.hadoop."): line.split()[1] for line in brought if "hadoop.fs" in line
        }
        hadoop |= {"fs.s3a.endpoint": self.server.url, "fs.s3a.path.style.access": "true"}
        write_xml(service / "core-site.xml", hadoop)
        (service / "log4j2.properties").write_bytes((conf / "log4j2.properties").read_bytes())
        self.environment = {
            "PATH": f"{spark}/bin:{Path(str(self.brought.interpreter)).parent}:/usr/bin:/bin",
            "HOME": str(self.folder),
            "LC_ALL": "C.UTF-8",
            "SPARK_HOME": str(spark),
            "SPARK_CONF_DIR": str(service),
            "HADOOP_CONF_DIR": str(service),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_DIST_CLASSPATH": ":".join([str(service), *self.brought.jars("s3")]),
            **{name: os.environ[name] for name in ("JAVA_HOME", "JDK_JAVA_OPTIONS") if name in os.environ},
            **self.server.environment(),
            "AWS_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL"],
            "AWS_ENDPOINT_URL_S3": self.server.url,
        }
        # The region is that of the service: the S3 server has no real region.
        self.environment |= {"AWS_REGION": os.environ["AWS_REGION"], "AWS_DEFAULT_REGION": os.environ["AWS_REGION"]}

    def settings(self) -> list[str]:
        """Further Spark settings of the service."""
        return ["spark.master local[2]"]

    def fetch(self, uri: str) -> Path:
        """Download an object of S3 into the folder; returns its path."""
        parts = urlsplit(uri)
        path = self.folder / Path(parts.path).name
        self.server.client().download_file(parts.netloc, parts.path.lstrip("/"), str(path))
        return path

    def submit(self, words: Sequence[str], **environment: str) -> str:
        """Run a job on the service's Spark and return its output; fails where the job fails."""
        done = subprocess.run(
            ["spark-submit", *words],
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
        output = done.stdout + done.stderr + self.logs()
        (self.folder / "output").write_text(output)
        assert done.returncode == 0, output[-6000:]
        return output

    def logs(self) -> str:
        """Further output of the driver, outside its standard streams."""
        return ""


def write_xml(path: Path, settings: Mapping[str, str]) -> None:
    """Write settings as a configuration file of Hadoop."""
    entries = (
        f"<property><name>{key}</name><value>{escape(value)}</value></property>" for key, value in settings.items()
    )
    path.write_text(f"<configuration>{''.join(entries)}</configuration>")


def run_on_glue(machine: Machine, job: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """Run a job as Glue does; returns its output.

    The script gets the job's arguments, Glue's own arguments, and the values of the arguments that Glue removes.
    """
    arguments = {**job["DefaultArguments"], **run.get("Arguments", {})}
    python = machine.folder / "python"
    subprocess.run([str(machine.brought.interpreter), "-m", "venv", str(python)], check=True)
    wanted = machine.fetch(arguments["--additional-python-modules"])
    install = [str(python / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, arguments["--python-modules-installer-option"], str(wanted)], check=True)
    package, script = machine.fetch(arguments["--extra-py-files"]), machine.fetch(job["Command"]["ScriptLocation"])
    of_glue = {
        "--JOB_NAME": job["Name"],
        "--JOB_ID": "j_1",
        "--JOB_RUN_ID": "jr_1",
        "--job-bookmark-option": "job-bookmark-disable",
    }
    words = [word for pair in (of_glue | arguments).items() for word in pair if word not in TAKEN_OUT]
    confs = shlex.split(f"--conf {arguments['--conf']}")
    delta = ["--jars", ",".join(machine.brought.jars("local"))]
    interpreter = str(python / "bin" / "python")
    # With `--datalake-formats delta` Glue provides Delta's Python package without an installation.
    site = machine.folder / "glue"
    shutil.copytree(machine.brought.site / "delta", site / "delta")
    return machine.submit(
        ["--py-files", str(package), *delta, *confs, str(script), *words],
        PYSPARK_PYTHON=interpreter,
        PYSPARK_DRIVER_PYTHON=interpreter,
        PYTHONPATH=str(site),
    )


def run_on_emr_serverless(machine: Machine, run: Mapping[str, Any]) -> str:
    """Run a job as EMR Serverless does, in a folder with its unpacked archive; returns its output."""
    submit = run["jobDriver"]["sparkSubmit"]
    words = shlex.split(with_jars(submit["sparkSubmitParameters"]))
    settings = dict(word.split("=", 1) for word in words if word != "--conf")
    archive, _, name = settings["spark.archives"].partition("#")
    unpack(machine.fetch(archive), machine.folder / name)
    prefix = "spark.emr-serverless.driverEnv."
    environment = {key.removeprefix(prefix): value for key, value in settings.items() if key.startswith(prefix)}
    return machine.submit([*words, submit["entryPoint"], *submit["entryPointArguments"]], **environment)


def with_jars(text: str) -> str:
    """The text with the paths of Delta's jars on this machine in place of those on EMR."""
    return text.replace(DELTA_JARS, ",".join(EMR.jars("local")))


def extract(opened: tarfile.TarFile, folder: Path) -> None:
    """Extract all; Python before 3.11.4 knows no filters."""
    opened.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # type: ignore[arg-type] # noqa: S202


def unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as opened:
        extract(opened, folder)
    archive.unlink()


class ClusterMachine(Machine):
    """The machine of a cluster from which a step submits its job to YARN."""

    def settings(self) -> list[str]:
        paths = ":".join(self.brought.jars("s3"))
        return [
            "spark.master yarn",
            f"spark.yarn.jars local:{self.brought.site}/pyspark/jars/*",
            f"spark.driver.extraClassPath {paths}",
            f"spark.executor.extraClassPath {paths}",
        ]

    def passed_on(self) -> list[str]:
        return [name for name in self.environment if name.startswith(("AWS_", "SPARK_LOCAL_IP", "JDK_JAVA"))]

    def logs(self) -> str:
        """The driver's output in its container, which YARN deletes later."""
        logs = sorted(self.folder.glob("target/**/container_*/std*"))
        return "".join(path.read_text(errors="replace") for path in logs)

    @contextmanager
    def yarn(self) -> Iterator[None]:
        """Run a real YARN: a resource manager, and a node manager whose containers have this machine's environment."""
        jars, spark_jars = self.brought.jars, self.brought.site / "pyspark" / "jars"
        (of_py4j,) = spark_jars.glob("py4j-*.jar")
        further = [path for name in OF_JAVA_11 for path in spark_jars.glob(f"*{name}*.jar")]
        further += [*spark_jars.glob("log4j-*.jar"), *spark_jars.glob("slf4j-api-*.jar"), of_py4j]
        opens = [f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in ("lang", "util", "io", "net", "nio")]
        before, log = Path.cwd(), (self.folder / "yarn.log").open("wb")
        variables = dict(os.environ)
        os.chdir(self.folder)
        os.environ.clear()
        os.environ.update(self.environment)
        try:
            port = launch_gateway(
                jarpath=str(of_py4j),
                classpath=os.pathsep.join(
                    map(str, [self.environment["SPARK_CONF_DIR"], *jars("yarn"), *jars("s3"), *further])
                ),
                javaopts=opens,
                die_on_exit=True,
                redirect_stdout=log,
                redirect_stderr=log,
            )
        finally:
            os.environ.clear()
            os.environ.update(variables)
            os.chdir(before)
        gateway = JavaGateway(gateway_parameters=GatewayParameters(port=port))
        jvm = gateway.jvm
        settings = jvm.org.apache.hadoop.yarn.conf.YarnConfiguration()
        for key, value in self.limits().items():
            settings.set(key, value)
        cluster = jvm.org.apache.hadoop.yarn.server.MiniYARNCluster("tests", 1, 1, 1)
        try:
            cluster.init(settings)
            cluster.start()
            assert cluster.waitForNodeManagersToConnect(60_000)
            written = jvm.java.io.FileOutputStream(f"{self.environment['HADOOP_CONF_DIR']}/yarn-site.xml")
            cluster.getConfig().writeXml(written)
            written.close()
            yield
        finally:
            cluster.stop()
            gateway.shutdown()
            log.close()

    def limits(self) -> dict[str, str]:
        scheduler = "org.apache.hadoop.yarn.server.resourcemanager.scheduler.fifo.FifoScheduler"
        return {
            "yarn.nodemanager.resource.memory-mb": "16384",
            "yarn.nodemanager.resource.cpu-vcores": "16",
            "yarn.nodemanager.vmem-check-enabled": "false",
            "yarn.nodemanager.pmem-check-enabled": "false",
            # On EC2 all processes get credentials from the machine's role; here containers inherit them as variables.
            "yarn.nodemanager.env-whitelist": ",".join(["PATH", "JAVA_HOME", "HADOOP_CONF_DIR", *self.passed_on()]),
            "yarn.resourcemanager.scheduler.class": scheduler,
        }


def run_on_emr(machine: ClusterMachine, step: Mapping[str, Any]) -> str:
    """Run a step as EMR does, where command-runner.jar runs the arguments on the master; returns the output."""
    program, *words = step["Config"]["Args"]
    assert program == "spark-submit"
    with machine.yarn():
        return machine.submit([with_jars(word) for word in words])
