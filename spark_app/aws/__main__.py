"""`python -m spark_app.aws`: build, deploy, run, show and remove the deployment on AWS."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from spark_app.aws import artefacts, jobs, stacks
from spark_app.aws.account import Account
from spark_app.aws.failures import explain
from spark_app.aws.order import POLL_SECONDS, Order
from spark_app.aws.status import show_status
from spark_app.platform import log
from spark_app.platform.arguments import ArgumentParser
from spark_app.platform.errors import JobError, UsageError
from spark_app.platform.log import logger
from spark_app.platform.settings import Log
from spark_app.stages.pipeline import JOBS

NAME = "movie-reco"
OUT, CONFIG = Path("dist") / "aws", artefacts.ROOT / "conf" / "pipeline.toml"
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command of the command line; ends the process with the command's exit code unless that is 0."""
    log.set_up(Log())
    with contextlib.suppress(AttributeError):
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    code = _run(sys.argv[1:] if arguments is None else arguments)
    if code:
        sys.exit(code)


def _run(arguments: Sequence[str]) -> int:
    command = "aws"
    try:
        options = _parser().parse_args(arguments)
        command = f"aws {options.command}"
        COMMANDS[options.command](options)
    except KeyboardInterrupt:
        logger.error("%s: interrupted", command)
        return INTERRUPTED
    except Exception as error:
        failure = explain(error)
        if failure is None:
            logger.exception("%s: unexpected %s; please report it", command, type(error).__name__)
            return JobError.exit_code
        logger.error("%s: %s", command, failure)
        return failure.exit_code
    return 0


def _package(options: argparse.Namespace) -> None:
    release = artefacts.build(options.out, options.config or CONFIG, emr=not options.without_emr)
    for file in release.files:
        logger.info("%10s  %s", f"{file.stat().st_size:,}", file)
    logger.info("release %s", release.name)


def _deploy(options: argparse.Namespace) -> None:
    if options.release and options.config:
        raise UsageError("a release brings its own settings: give --release or --config, not both")
    overrides = dict(_pair("--parameter", text) for text in options.parameter)
    account = Account(dry_run=options.dry_run)
    _ = account.region  # raises before the build where no region is set
    built = None
    if not options.release:
        built = artefacts.build(options.out, options.config or CONFIG, emr=not options.without_emr)
    buckets = stacks.deploy_storage(account, options.name, overrides, options.poll_seconds)
    if built:
        stacks.upload(account, buckets["ArtefactsBucket"], built)
        prefix = built.prefix
    else:
        prefix = f"releases/{options.release.removeprefix('releases/').strip('/')}"
        stacks.check_release(account, buckets["ArtefactsBucket"], prefix)
    stack = stacks.deploy_jobs(account, options.name, buckets, prefix, overrides, options.poll_seconds)
    if options.dry_run:
        _summarise(account, options, prefix, built, overrides)
        return
    logger.info("deployed %s in %s", prefix, account.region)
    logger.info("deliver movies.csv and ratings.csv to s3://%s/", stack["RawBucket"])
    logger.info("find the results in s3://%s/recommendations/", stack["ProcessedBucket"])


def _summarise(
    account: Account,
    options: argparse.Namespace,
    prefix: str,
    built: artefacts.Release | None,
    overrides: Mapping[str, str],
) -> None:
    """Say in a few lines what the calls of a dry run would do."""
    logger.info(
        "dry run: %d calls printed, none sent to AWS; the same command without --dry-run would", account.printed
    )
    services = ", ".join(f"{count} of {service}" for service, count in stacks.resources().items())
    names = f"{stacks.storage_stack(options.name)} and {stacks.jobs_stack(options.name)}"
    logger.info("  create or update the stacks %s in %s: %s", names, account.region, services)
    if built:
        size = f"{sum(file.stat().st_size for file in built.files):,}"
        logger.info("  upload %d files (%s bytes) as %s, unless they are there", len(built.files), size, prefix)
    else:
        logger.info("  go back to %s, and upload nothing", prefix)
    values = ", ".join(f"{key}={value}" for key, value in overrides.items())
    logger.info("  set the parameters %s", values or "to what they are now, or to the templates' defaults")
    logger.info("  start no job, and delete no data")


def _run_job(options: argparse.Namespace) -> None:
    conf = dict(_pair("--conf", text) for text in options.conf)
    account = Account(dry_run=options.dry_run)
    stack = stacks.outputs(account, stacks.jobs_stack(options.name))
    config = None
    if options.config:
        try:
            config = options.config.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the --config file {options.config}: {error}") from error
    settings = jobs.settings_of_run(account, stack, config, options.set)
    order = Order(
        options.name, options.job, stack, settings, conf, options.executors, options.subnet, options.poll_seconds
    )
    jobs.run(account, options.on, order)


def _status(options: argparse.Namespace) -> None:
    show_status(Account(dry_run=options.dry_run), options.name)


def _destroy(options: argparse.Namespace) -> None:
    if options.data and not (options.yes or options.dry_run):
        raise UsageError("--data deletes all buckets with every version of every object: confirm with --yes")
    account = Account(dry_run=options.dry_run)
    stacks.stop_application(account, stacks.jobs_stack(options.name), options.poll_seconds)
    stacks.destroy(account, stacks.jobs_stack(options.name), options.poll_seconds)
    if not options.data:
        logger.info("the buckets and their data stay; `destroy --data --yes` deletes them too")
        return
    stacks.destroy_storage(account, options.name, options.poll_seconds)


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "package": _package,
    "deploy": _deploy,
    "run": _run_job,
    "status": _status,
    "destroy": _destroy,
}


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m spark_app.aws",
        description="Build, deploy, run, show and remove the deployment on AWS. Credentials and region come from "
        "AWS's own chains: AWS_PROFILE, AWS_REGION and so on.",
        epilog="Exit codes: 0 done; 2 wrong usage, no credentials or no region; 7 AWS refused a request or cannot be "
        "reached. After a failed job, `run` ends with the exit code of the job; the README lists these codes.",
        allow_abbrev=False,
    )
    common = ArgumentParser(add_help=False)
    common.add_argument("--name", default=NAME, help=f"the prefix of all names on AWS (default {NAME})")
    common.add_argument("--dry-run", action="store_true", help="print each call to AWS and send none")
    common.add_argument(
        "--every",
        dest="poll_seconds",
        type=float,
        default=POLL_SECONDS,
        metavar="SECONDS",
        help="time between two checks while waiting (default %(default)g)",
    )
    build = ArgumentParser(add_help=False)
    build.add_argument("--config", type=Path, metavar="FILE", help="the jobs' settings (default conf/pipeline.toml)")
    build.add_argument(
        "--out", type=Path, default=OUT, metavar="FOLDER", help=f"the folder for releases (default {OUT})"
    )
    build.add_argument(
        "--without-emr", action="store_true", help="leave out the packages for EMR (150 MB); Glue does not need them"
    )

    commands = parser.add_subparsers(dest="command", required=True, parser_class=ArgumentParser, metavar="COMMAND")
    commands.add_parser(
        "package", parents=[build], help="build a release: the package, entry scripts, packages for EMR"
    )
    deploy = commands.add_parser(
        "deploy", parents=[common, build], help="build and upload a release, and deploy both stacks"
    )
    deploy.add_argument(
        "--release", metavar="NAME", help="deploy a release that was uploaded before, instead of building one"
    )
    deploy.add_argument(
        "--parameter",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a parameter of the templates in conf/aws, such as Email=me@example.com; all others keep their values",
    )
    run = commands.add_parser("run", parents=[common], help="run a stage or the pipeline, and wait for its end")
    run.add_argument("job", choices=sorted(JOBS), metavar="JOB", help=f"one of {', '.join(JOBS)}")
    run.add_argument("--on", required=True, choices=list(jobs.SERVICES), help="the service that runs the job")
    run.add_argument("--config", type=Path, metavar="FILE", help="settings for this run, instead of the release's")
    run.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="one setting for this run")
    run.add_argument("--conf", action="append", default=[], metavar="KEY=VALUE", help="a Spark setting for this run")
    run.add_argument("--executors", type=int, default=3, help="the most executors on EMR (default %(default)d)")
    run.add_argument("--subnet", metavar="ID", help="the subnet of an EMR cluster (default: one of the default VPC)")
    commands.add_parser("status", parents=[common], help="show what is deployed and how the last runs ended")
    destroy = commands.add_parser("destroy", parents=[common], help="remove the jobs; the data stays")
    destroy.add_argument("--data", action="store_true", help="also delete the buckets with all their data")
    destroy.add_argument("--yes", action="store_true", help="confirm --data")
    return parser


def _pair(option: str, text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise UsageError(f"{option} takes KEY=VALUE; got '{text}'")
    return key, value


if __name__ == "__main__":
    main()
