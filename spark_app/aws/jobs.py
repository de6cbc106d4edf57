"""Start a stage or the pipeline on Glue, EMR Serverless or a cluster of EMR, follow the run and report its end.

All services have the same methods: `start` returns the id of a run, `look` its state, `news` the new lines of its log,
`tail` the last lines.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence

import tomlkit

from spark_app.aws.account import Account
from spark_app.aws.artefacts import SETTINGS
from spark_app.aws.emr import Emr
from spark_app.aws.emr_serverless import EmrServerless
from spark_app.aws.failures import FailedJobError, exit_code
from spark_app.aws.glue import Glue
from spark_app.aws.order import DONE, ENDED, Look, Order, Service
from spark_app.platform.log import logger
from spark_app.platform.settings import build_settings, merge_settings

SERVICES: Mapping[str, type[Glue] | type[EmrServerless] | type[Emr]] = {
    "glue": Glue,
    "emr-serverless": EmrServerless,
    "emr": Emr,
}


def settings_of_run(
    account: Account, stack: Mapping[str, str], config: str | None, assignments: Sequence[str]
) -> str | None:
    """Put the settings of one run into S3 and return their URI; None where the run uses the release's settings.

    `config` is the text of a TOML file that replaces the release's; `assignments` are texts SECTION.KEY=VALUE. Raises
    UsageError where a setting is not valid.
    """
    if config is None and not assignments:
        return None
    bucket = stack["ArtefactsBucket"]
    if config is None:
        answer = account.call("s3", "get_object", Bucket=bucket, Key=f"{stack['Release']}/{SETTINGS}")
        config = "" if account.dry_run else answer["Body"].read().decode()
    text = tomlkit.dumps(merge_settings(config, "--config", assignments))
    build_settings(text, "--config")
    key = f"settings/{hashlib.sha256(text.encode()).hexdigest()[:16]}.toml"
    account.call("s3", "put_object", Bucket=bucket, Key=key, Body=text.encode())
    return f"s3://{bucket}/{key}"


def run(account: Account, service_name: str, order: Order) -> None:
    """Run a job and wait for its end; log its states and its own log lines. Raises FailedJobError where it fails."""
    service: Service = SERVICES[service_name](account, order)
    started = time.monotonic()
    run_id = service.start(order)
    if account.dry_run:
        service.look(run_id)
        service.news(run_id)
        return
    logger.info("%s on %s: run %s", order.job, service_name, run_id)
    try:
        end = _follow(account, service, run_id, order.poll_seconds)
    except KeyboardInterrupt:
        logger.warning(
            "%s continues as run %s: `status` shows it; stop it in the console of the service", order.job, run_id
        )
        raise
    minutes = (time.monotonic() - started) / 60
    if end.state in DONE:
        logger.info("%s on %s: done in %.1f minutes", order.job, service_name, minutes)
        return
    tail = service.tail(run_id)
    _show(tail)
    code = exit_code(end.message)
    if code == FailedJobError.exit_code:
        code = exit_code("\n".join(tail))
    raise FailedJobError(
        f"{order.job} on {service_name} is {end.state} after {minutes:.1f} minutes (run {run_id}): "
        f"{' '.join(end.message.split())[:300] or 'the service gives no reason'}; see the lines above",
        code,
    )


def _follow(account: Account, service: Service, run_id: str, poll_seconds: float) -> Look:
    state = ""
    while True:
        look = service.look(run_id)
        _show(service.news(run_id))
        if look.state != state:
            logger.info("%s: %s", run_id, look.state)
        state = look.state
        if state in ENDED:
            return look
        account.wait(poll_seconds)


def _show(lines: Iterable[str]) -> None:
    for line in lines:
        logger.info("  %s", line)
