"""Runs of a stage, or of the pipeline, on Glue, EMR Serverless or a cluster of EMR: started, followed and reported.

All services are used alike: `start` gives the id of a run, `look` its state, `tail` the last lines of its log.
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
    """Put the settings of one run into S3, and return where; None where the release's are to be used.

    `config` is the text of a TOML file that takes the place of the release's. Raises UsageError for what is not valid.
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


def run(account: Account, on: str, order: Order) -> None:
    """Run a job and wait for its end, showing its states and what it says. Raises FailedJobError where it fails."""
    service: Service = SERVICES[on](account, order)
    started = time.monotonic()
    run_id = service.start(order)
    if account.dry_run:
        service.look(run_id)
        service.news(run_id)
        return
    logger.info("%s on %s: run %s", order.job, on, run_id)
    try:
        found = _follow(account, service, run_id, order.poll_seconds)
    except KeyboardInterrupt:
        logger.warning("%s goes on as run %s: `status` shows it, and its service's console ends it", order.job, run_id)
        raise
    minutes = (time.monotonic() - started) / 60
    if found.state in DONE:
        logger.info("%s on %s: done in %.1f minutes", order.job, on, minutes)
        return
    tail = service.tail(run_id)
    _show(tail)
    code = exit_code(found.message)
    if code == FailedJobError.exit_code:
        code = exit_code("\n".join(tail))
    raise FailedJobError(
        f"{order.job} on {on} is {found.state} after {minutes:.1f} minutes (run {run_id}): "
        f"{' '.join(found.message.split())[:300] or 'the service does not say why'}; see the lines above",
        code,
    )


def _follow(account: Account, service: Service, run_id: str, poll_seconds: float) -> Look:
    state = ""
    while True:
        found = service.look(run_id)
        _show(service.news(run_id))
        if found.state != state:
            logger.info("%s: %s", run_id, found.state)
        state = found.state
        if state in ENDED:
            return found
        account.wait(poll_seconds)


def _show(lines: Iterable[str]) -> None:
    for line in lines:
        logger.info("  %s", line)
