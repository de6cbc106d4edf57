"""The command line of all jobs: it reads options, runs the job and returns an exit code."""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from spark_app.platform import log, s3, storage
from spark_app.platform.arguments import ArgumentParser
from spark_app.platform.errors import JobError, StorageError, UsageError
from spark_app.platform.interrupts import SHELL_CODE, Interrupts, raised
from spark_app.platform.lock import holding
from spark_app.platform.log import logger
from spark_app.platform.session import check_schemes, explain, spark_session
from spark_app.platform.settings import Log, Settings, build_settings
from spark_app.stages import tracking
from spark_app.stages.pipeline import JOBS, Job
from spark_app.zones.manifest import NOTHING_NEW, RunRecord, versions
from spark_app.zones.processed import ProcessedZone, noting_run

OPTIONS = ("--config", "--raw-path", "--processed-path", "--set", "--help")
GLUE_OPTIONS = ("--JOB_NAME", "--JOB_ID", "--JOB_RUN_ID")
"""Options that AWS Glue gives every script it starts."""

BYTE_ORDER_MARK = "\ufeff"
"""Windows editors put it before the text of a file."""

GLUE_CONF = "--conf"
"""The option of Glue itself whose name resembles one of ours."""

TYPO_SIMILARITY, HINT_SIMILARITY = 0.6, 0.5
"""How similar (0 to 1) a name must be to an option to count as its misspelling, and to be hinted at."""


def main(job: str, arguments: Sequence[str] | None = None) -> None:
    """Run a job as a command; exits with the job's exit code, or returns if that is 0."""
    code = run_job(job, sys.argv[1:] if arguments is None else arguments)
    if code > SHELL_CODE:
        # Interrupted: Java may be gone, and Python would complain of that while it ends.
        sys.stderr.flush()
        os._exit(code)
    # AWS Glue treats every SystemExit as a failure, so success returns.
    if code:
        sys.exit(code)


def run_job(name: str, arguments: Sequence[str]) -> int:
    """Run a job by name; returns its exit code. An expected failure logs one line on standard error."""
    log.set_up(Log())
    came = Interrupts()
    try:
        with raised(name, came):
            settings = read_settings(JOBS[name], arguments)
            record = RunRecord(name, settings)
            log.set_up(settings.log, job=name, run_id=record.run_id)
            _execute(JOBS[name], settings, record, came)
    except KeyboardInterrupt:
        return came.exit_code
    except Exception as error:
        if came:
            return came.exit_code
        failure = _as_job_error(error)
        if failure is None:
            logger.exception("%s: unexpected %s; please report it", name, type(error).__name__)
            return JobError.exit_code
        logger.error("%s: %s", name, failure)
        logger.debug("%s: caused by", name, exc_info=error)
        return failure.exit_code
    return 0


def read_settings(job: Job, arguments: Sequence[str]) -> Settings:
    """The settings of the command line and of its --config file, with both roots absolute.

    Raises UsageError for an unknown option or key, with the nearest known one, and for a value that does not fit. AWS
    Glue passes options of its own: of these only misspellings of our options are errors.
    """
    parser = _parser(job)
    options, unknown = parser.parse_known_args(arguments)
    if _is_started_by_glue(arguments):
        unknown = [argument for argument in unknown if _is_misspelt_option(argument)]
    if unknown:
        raise UsageError(_explain_unknown(unknown[0]))
    settings = build_settings(_read_config(options.config), options.config or "", options.set)
    raw = options.raw_path or settings.raw.path
    processed = options.processed_path or settings.processed.path
    if job.needs_raw and not raw:
        raise UsageError("no raw zone: give --raw-path, or path under [raw] in the --config file")
    if job.needs_processed and not processed:
        raise UsageError("no processed zone: give --processed-path, or path under [processed] in the --config file")
    check_schemes(raw, processed)
    raw, processed = (storage.normalise(root) if root else "" for root in (raw, processed))
    if raw and raw == processed:
        raise UsageError(f"the raw and the processed zone are both {raw}: give them different paths")
    return settings.model_copy(
        update={
            "raw": settings.raw.model_copy(update={"path": raw}),
            "processed": settings.processed.model_copy(update={"path": processed}),
        }
    )


def _parser(job: Job) -> ArgumentParser:
    parser = ArgumentParser(
        prog=f"spark-submit jobs/{job.name}.py" if _is_submitted() else f"movie-reco run {job.name}",
        description=job.purpose,
        epilog="Exit codes: 0 done, 1 unexpected, 2 usage or configuration, 3 input missing or breaks its contract, "
        "4 too many rejected rows, 5 the model failed its gate, 6 another run holds the lock, 7 storage unreachable or "
        "refused.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="settings, a TOML file; conf/pipeline.toml explains each key")
    parser.add_argument("--raw-path", "--raw_path", metavar="URI", help="root of the raw zone")
    parser.add_argument("--processed-path", "--processed_path", metavar="URI", help="root of the processed zone")
    parser.add_argument(
        "--set",
        metavar="SECTION.KEY=VALUE",
        action="append",
        default=[],
        help="override one setting, such as recommend.n=20; can be repeated",
    )
    return parser


def _is_submitted() -> bool:
    """Whether this process runs one of the scripts in `jobs`, as spark-submit does."""
    return Path(sys.argv[0]).parent.name == "jobs"


def _is_started_by_glue(arguments: Sequence[str]) -> bool:
    return any(argument.partition("=")[0] in GLUE_OPTIONS for argument in arguments)


def _is_misspelt_option(argument: str) -> bool:
    """Whether an unknown argument from Glue is a misspelling of one of our options.

    Glue passes its own options too, and each version adds new ones. It removes some of them, but leaves their values.
    """
    name = argument.partition("=")[0]
    return name.startswith("-") and name != GLUE_CONF and _nearest(name, TYPO_SIMILARITY) is not None


def _nearest(name: str, cutoff: float) -> str | None:
    return next(iter(difflib.get_close_matches(name.lower().replace("_", "-"), OPTIONS, n=1, cutoff=cutoff)), None)


def _explain_unknown(argument: str) -> str:
    if not argument.startswith("-"):
        return f"unexpected argument '{argument}'; options begin with --, and --help lists them"
    name = argument.partition("=")[0]
    nearest = _nearest(name, HINT_SIMILARITY)
    return f"unknown option {name}; " + (f"did you mean {nearest}?" if nearest else f"known are {', '.join(OPTIONS)}")


def _read_config(path: str | None) -> str | None:
    if path is None:
        return None
    check_schemes(path)
    try:
        return storage.read_text(path).removeprefix(BYTE_ORDER_MARK)
    except s3.failures(UnicodeDecodeError) as error:
        why = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else storage.reason(error)
        raise UsageError(f"cannot read the --config file {path}: {why}") from error


def _execute(job: Job, settings: Settings, record: RunRecord, came: Interrupts) -> None:
    """Run a job under the lock of its processed zone, and write a manifest there, also when the job fails."""
    zone = ProcessedZone(settings.processed.path) if settings.processed.path else None
    roots = {"--raw-path": settings.raw.path, "--processed-path": settings.processed.path}
    for option, root in roots.items():
        if s3.is_s3(root):
            s3.check(option, root)
    if zone and not job.needs_raw:
        zone.check_exists()  # else the lock would make a folder of a mistyped name
    with contextlib.ExitStack() as stack:
        if zone:
            stack.enter_context(holding("processed", zone.root, record.run_id, settings.storage.lease_seconds))
            storage.remove(zone.staging)  # left by a killed run
            stack.callback(_discard, zone.staging)
        with _noting_failure(record, zone, came):
            is_current = _is_current(job, settings, record)
        if not is_current:
            spark = stack.enter_context(
                spark_session(f"movie-reco {job.name}", list(roots.values()), catalogued=job.catalogued)
            )
            record.versions = versions(spark)
            # `raised` again, since Spark has set a handler of its own
            with _noting_failure(record, zone, came), raised(job.name, came), noting_run(spark, record.run_id):
                job.run(spark, settings, record)
            spark.catalog.clearCache()
        if zone:
            record.write_manifest(zone.manifest(record.run_id), NOTHING_NEW if record.is_nothing_new else "done")
            logger.info("manifest: %s", zone.manifest(record.run_id))
            tracking.export(zone, record.manifest("done"))


@contextlib.contextmanager
def _noting_failure(record: RunRecord, zone: ProcessedZone | None, came: Interrupts) -> Iterator[None]:
    """Write the manifest of a run that fails or is interrupted in the block."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if zone:
            # The failure of the job must be reported, even where the manifest cannot be written.
            with contextlib.suppress(StorageError):
                _write_end(record, zone, error, came)
        raise


def _is_current(job: Job, settings: Settings, record: RunRecord) -> bool:
    """Whether all that the job would write is there already. Then it is done, in a second and without Spark."""
    if not (job.is_current and job.is_current(settings, record)):
        return False
    record.stages.append({"stage": job.name, "status": NOTHING_NEW, "seconds": record.seconds})
    logger.info("%s: nothing new: what is published is of these files and settings", job.name)
    return True


def _write_end(record: RunRecord, zone: ProcessedZone, error: BaseException, came: Interrupts) -> None:
    """Write the manifest of a run that failed or was interrupted. What Spark raises after a signal is no failure."""
    if came:
        for stage in record.stages:
            stage["status"] = stage["status"].replace("failed", "interrupted")
        record.write_manifest(zone.manifest(record.run_id), "interrupted", came.how)
    elif isinstance(error, Exception):
        failure = str(_as_job_error(error) or error)
        record.write_manifest(zone.manifest(record.run_id), "failed", failure)
        tracking.export(zone, record.manifest("failed", failure))


def _discard(path: str) -> None:
    """Remove files that nobody needs; a failure to remove them must not make the run fail."""
    with s3.ignoring_failures():
        storage.remove(path)


def _as_job_error(error: Exception) -> JobError | None:
    """The expected failure behind an error; None where the error is unexpected."""
    if isinstance(error, JobError):
        return error
    return explain(error)
