"""Settings with which EMR runs the jobs, the same on EMR Serverless and on a cluster."""

from __future__ import annotations

from spark_app.aws.account import Account
from spark_app.aws.artefacts import ENVIRONMENT
from spark_app.aws.order import Order
from spark_app.platform.errors import UsageError

DELTA_JARS = "/usr/share/aws/delta/lib/delta-spark.jar,/usr/share/aws/delta/lib/delta-storage.jar"
PYTHON = "./environment/bin/python"
"""The archive's Python, relative to the working folder of a driver or an executor."""

SIZES = {
    "spark.driver.cores": "4",
    "spark.driver.memory": "18g",
    "spark.driver.memoryOverhead": "4g",
    "spark.executor.cores": "4",
    "spark.executor.memory": "18g",
    "spark.executor.memoryOverhead": "5g",
}
"""Drivers and executors on EMR: 4 cores and 23 GB, including the memory that Python needs beside Java. EMR Serverless
offers workers of that size, and YARN offers 24 GB on a machine of 32 GB."""


def check_environment(account: Account, order: Order) -> None:
    """Raise UsageError where the release has no packages for EMR."""
    key = f"{order.stack['Release']}/{ENVIRONMENT}"
    if not account.pages("s3", "list_objects_v2", "Contents", Bucket=order.stack["ArtefactsBucket"], Prefix=key):
        if account.dry_run:
            return
        raise UsageError(f"{order.stack['Release']} was built with --without-emr: deploy again without that option")
