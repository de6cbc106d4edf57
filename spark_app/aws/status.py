"""The command `status`: a table of what is deployed and how the last runs ended."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from spark_app.aws.account import Account
from spark_app.aws.stacks import jobs_stack, outputs, status, storage_stack
from spark_app.stages.pipeline import JOBS

REGISTER = "register"
"""The last Glue job of the workflow; unlike the others it is not a stage."""

LAST_RUNS = 3
ACTIVE = ["STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING", "TERMINATING"]


def show_status(account: Account, name: str) -> None:
    """Print the stacks, the release, and the last runs on each service. Raises UsageError where nothing is deployed."""
    table = Table("what", "state", "since")
    table.add_column("more", overflow="fold")
    stack = outputs(account, jobs_stack(name))
    for stack_name in (storage_stack(name), jobs_stack(name)):
        release = stack["Release"] if stack_name == jobs_stack(name) else ""
        table.add_row(stack_name, status(account, stack_name), "", release)
    for row in (
        *_glue(account, name),
        *_workflow(account, stack["Workflow"]),
        *_emr(account, name, stack["ApplicationId"]),
    ):
        table.add_row(*row)
    if not account.dry_run:
        Console().print(table)


def _glue(account: Account, name: str) -> Iterator[tuple[str, str, str, str]]:
    for job in (*JOBS, REGISTER):
        answer = account.call("glue", "get_job_runs", JobName=f"{name}-{job}", MaxResults=1)
        if account.dry_run or not answer["JobRuns"]:
            continue
        run = answer["JobRuns"][0]
        seconds = run.get("ExecutionTime") or 0
        more = run.get("ErrorMessage") or (f"{seconds / 60:.1f} min" if seconds else "")
        yield f"glue {job}", run["JobRunState"], _when(run.get("StartedOn")), more


def _workflow(account: Account, workflow: str) -> Iterator[tuple[str, str, str, str]]:
    answer = account.call("glue", "get_workflow", Name=workflow)
    run = {} if account.dry_run else answer["Workflow"].get("LastRun", {})
    if run:
        figures = run.get("Statistics", {})
        counts = ", ".join(f"{figures[key]} {key.removesuffix('Actions').lower()}" for key in figures if figures[key])
        yield f"workflow {workflow}", run.get("Status", ""), _when(run.get("StartedOn")), counts


def _emr(account: Account, name: str, application: str) -> Iterator[tuple[str, str, str, str]]:
    answer = account.call("emr-serverless", "get_application", applicationId=application)
    runs = account.pages("emr-serverless", "list_job_runs", "jobRuns", applicationId=application)
    clusters = account.pages("emr", "list_clusters", "Clusters", ClusterStates=ACTIVE)
    if account.dry_run:
        return
    yield f"emr-serverless {application}", answer["application"]["state"], "", ""
    for run in sorted(runs, key=lambda run: run["createdAt"], reverse=True)[:LAST_RUNS]:
        yield (
            f"emr-serverless {run.get('name', '')}",
            run["state"],
            _when(run["createdAt"]),
            run.get("stateDetails", ""),
        )
    for cluster in clusters:
        if cluster["Name"].startswith(f"{name}-"):
            state = cluster["Status"]
            yield (
                f"emr {cluster['Name']}",
                state["State"],
                _when(state["Timeline"].get("CreationDateTime")),
                cluster["Id"],
            )


def _when(moment: Any) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if isinstance(moment, datetime) else ""
