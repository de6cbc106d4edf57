"""What a release of EMR needs to run the jobs, on EMR Serverless and on a cluster alike."""

from __future__ import annotations

from spark_app.aws.account import Account
from spark_app.aws.artefacts import ENVIRONMENT
from spark_app.aws.order import Order
from spark_app.platform.errors import UsageError

DELTA_JARS = "/usr/share/aws/delta/lib/delta-spark.jar,/usr/share/aws/delta/lib/delta-storage.jar"
PYTHON = "./environment/bin/python"
"""The archive's Python, from the working folder of a driver or an executor."""

SIZES = {
    "spark.driver.cores": "4",
    "spark.driver.memory": "18g",
    "spark.driver.memoryOverhead": "4g",
    "spark.executor.cores": "4",
    "spark.executor.memory": "18g",
    "spark.executor.memoryOverhead": "5g",
}
"""Drivers and executors on EMR: 4 cores and, with what Python needs beside Java, 23 GB. EMR Serverless has workers of
that size, and YARN gives 24 GB on a machine of 32."""


def check_environment(account: Account, order: Order) -> None:
    """Raise UsageError where the release has no packages for EMR."""
    key = f"{order.stack['Release']}/{ENVIRONMENT}"
    if not account.pages("s3", "list_objects_v2", "Contents", Bucket=order.stack["ArtefactsBucket"], Prefix=key):
        if account.dry_run:
            return
        raise UsageError(f"{order.stack['Release']} was built with --without-emr: deploy again without that")
