"""`movie-reco run JOB`: runs a job without spark-submit and without a checkout, with settings of Spark of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pyspark import SparkContext

from spark_app import cli
from spark_app.platform import log, s3
from spark_app.platform.errors import JobError, UsageError
from spark_app.platform.log import logger
from spark_app.platform.session import explain
from spark_app.platform.settings import Log
from spark_app.platform.spark_versions import IS_3
from spark_app.stages.pipeline import JOBS

USAGE = f"""usage: movie-reco run [OPTIONS OF SPARK] JOB [OPTIONS]
       movie-reco show ... | movie-reco check ...

JOB is one of {", ".join(JOBS)}; `movie-reco run JOB --help` lists its options.
Options before JOB are those of spark-submit, such as --driver-memory 12g.
`movie-reco show --help` and `movie-reco check --help` list what can be asked without Spark."""

LEFT_BY_OTHERS = (
    *("SPARK_HOME", "SPARK_REMOTE", "SPARK_ENV_LOADED", "SPARK_DIST_CLASSPATH"),
    *("PYSPARK_DRIVER_PYTHON", "PYSPARK_DRIVER_PYTHON_OPTS", "PYSPARK_SUBMIT_ARGS"),
)
"""Variables of another Spark, which would change what runs here."""

PACKAGED = Path(__file__).with_name("conf") / ("3.5" if IS_3 else "4.1")
OF_CHECKOUT = Path(sys.prefix) / "conf" if IS_3 else Path(__file__).parents[1] / "conf"

# spark-class reads the file like this, but would split its path at blanks.
READ_SPARK_ENV = 'set -a; . "$SPARK_CONF_DIR/spark-env.sh"; env -0'

OF_IVY = re.compile(
    rb"WARNING: Using incubator|Setting default log level|To adjust logging level|"
    rb":: |Ivy Default|The jars for|[a-z.]+#.* added as a dep|NOTE: Picked up|"
    rb"\t(confs:|found |::|-+$|\||[a-z.]+#.* (by|from [a-z-]+ in) \[|[0-9]+ artifacts)"
)
"""Lines that Spark prints about its jars at each start, which do not help a user."""


def main(arguments: Sequence[str]) -> None:
    """Run a job as a command; exits with the job's exit code, or returns if that is 0."""
    before, name, options = _split(arguments)
    if name is None:
        asks = "--help" in before or "-h" in before
        with contextlib.suppress(BrokenPipeError):
            print(USAGE, file=sys.stdout if asks else sys.stderr, flush=True)
        sys.exit(0 if asks else UsageError.exit_code)
    in_s3 = _is_in_s3(name, options)
    if in_s3 is not None:
        try:
            start_java("s3" if in_s3 else "local", before)
        except Exception as error:
            failure = error if isinstance(error, JobError) else explain(error)
            if failure is None:
                raise
            log.set_up(Log())
            logger.error("%s: %s", name, failure)
            sys.exit(failure.exit_code)
    cli.main(name, options)


def _split(arguments: Sequence[str]) -> tuple[list[str], str | None, list[str]]:
    """The options of Spark, the job (None where there is none) and the options of the job."""
    place = next((place for place, word in enumerate(arguments) if word in JOBS), None)
    if place is None:
        return list(arguments), None, []
    return list(arguments[:place]), arguments[place], list(arguments[place + 1 :])


def _is_in_s3(name: str, options: Sequence[str]) -> bool | None:
    """Whether a zone of the job is in S3; None for options that `cli` answers without Spark, with help or an error."""
    if "--help" in options or "-h" in options:
        return None
    try:
        settings = cli.read_settings(JOBS[name], options)
    except JobError:
        return None
    return any(s3.is_s3(root) for root in (settings.raw.path, settings.processed.path))


def start_java(conf: Literal["local", "s3"] = "local", options_of_spark: Sequence[str] = ()) -> None:
    """Start Java with the settings of Spark that come with the package; `SparkSession.builder` then uses it.

    The settings are those for zones on a disk, or in S3. Options are those of spark-submit, such as `--driver-memory`.
    If Java runs already, nothing changes. Raises UsageError where the machine is not fit, as conf/machine.sh says.
    """
    if SparkContext._gateway is not None:
        return
    for variable in LEFT_BY_OTHERS:
        os.environ.pop(variable, None)
    folder = (PACKAGED if PACKAGED.is_dir() else OF_CHECKOUT) / conf
    os.environ |= {"SPARK_CONF_DIR": str(folder), "PYSPARK_PYTHON": sys.executable}
    asked = subprocess.run(["bash", "-c", READ_SPARK_ENV], capture_output=True, text=True, check=False)  # noqa: S603, S607
    if asked.returncode:
        raise UsageError(asked.stderr.strip().removeprefix("movie-reco: "))
    os.environ |= dict(line.split("=", 1) for line in asked.stdout.split("\0") if "=" in line)
    os.environ["SPARK_ENV_LOADED"] = "1"
    if options_of_spark:
        os.environ["PYSPARK_SUBMIT_ARGS"] = shlex.join([*options_of_spark, "pyspark-shell"])
    with _without_lines_of_ivy():
        SparkContext._ensure_initialized()


@contextlib.contextmanager
def _without_lines_of_ivy() -> Iterator[None]:
    """Leave OF_IVY out of the standard error of a process that the block starts, as long as that process lives."""
    sys.stderr.flush()
    shown, (read, write) = os.dup(2), os.pipe()
    os.dup2(write, 2)
    os.close(write)

    def pass_on() -> None:
        with os.fdopen(read, "rb") as lines:
            for line in lines:
                if not OF_IVY.match(line):
                    os.write(shown, line)

    thread = threading.Thread(target=pass_on, name="standard error of Java", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        os.dup2(shown, 2)
        thread.join(timeout=1)  # what Java says of its end comes before what we say
        raise
    finally:
        os.dup2(shown, 2)
