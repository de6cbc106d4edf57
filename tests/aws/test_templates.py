"""Rules for the templates and for the Spark settings on AWS."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spark_app.aws.artefacts import CONF, chained, parse_conf
from spark_app.aws.stacks import CSV_CLASSIFIER
from spark_app.platform.glue import CLIENT, METASTORE_CLIENT
from spark_app.stages.pipeline import JOBS
from tests.test_project import spark_defaults

Template = Callable[[str], dict[str, Any]]
MAX_BYTES = 1_000_000
MAX_BYTES_IN_CALL = 51_200
MAX_PARAMETER = 4096


def test_cfn_lint_finds_nothing() -> None:
    program, templates = str(Path(sys.executable).with_name("cfn-lint")), map(str, sorted(CONF.glob("*.yaml")))
    command = [program, "-r", "eu-west-1", "us-east-1", "-t", *templates]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_templates_fit_into_a_call_or_an_object() -> None:
    # The call itself sends storage.yaml, since there is no bucket yet. CloudFormation reads jobs.yaml from the release.
    assert (CONF / "storage.yaml").stat().st_size < MAX_BYTES_IN_CALL
    assert (CONF / "jobs.yaml").stat().st_size < MAX_BYTES


def test_the_classifier_is_updated_to_what_it_is_and_its_reader(template: Template) -> None:
    classifier = template("jobs")["Resources"]["CsvClassifier"]["Properties"]["CsvClassifier"]
    assert {**classifier, "Serde": "OpenCSVSerDe"} == {"Name": classifier["Name"], **CSV_CLASSIFIER}


@pytest.mark.parametrize("name", ["storage", "jobs"])
def test_parameters_and_outputs_are_described(template: Template, name: str) -> None:
    parsed = template(name)
    for key, entry in {**parsed["Parameters"], **parsed["Outputs"]}.items():
        assert entry["Description"].strip().endswith("."), key
    groups = parsed["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert sorted(key for group in groups for key in group["Parameters"]) == sorted(parsed["Parameters"])


def test_buckets_are_encrypted_versioned_private_and_outlive_the_stack(template: Template) -> None:
    resources = template("storage")["Resources"]
    buckets = {key: entry for key, entry in resources.items() if entry["Type"] == "AWS::S3::Bucket"}
    assert set(buckets) == {"RawBucket", "ProcessedBucket", "ArtefactsBucket"}
    for key, entry in buckets.items():
        # A failed deployment deletes its new, empty buckets, so that the next deployment can make them.
        assert (entry["DeletionPolicy"], entry["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")
        bucket = entry["Properties"]
        (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
        assert bucket["VersioningConfiguration"]["Status"] == "Enabled"
        assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
        assert len(bucket["PublicAccessBlockConfiguration"]) == 4
        rules = {rule["Id"] for rule in bucket["LifecycleConfiguration"]["Rules"]}
        assert {"uploads-that-were-never-completed", "old-versions"} <= rules
        # No rule removes releases, since a release can run for years.
        assert not [rule for rule in bucket["LifecycleConfiguration"]["Rules"] if "releases" in rule.get("Prefix", "")]
        (statement,) = resources[f"{key}Policy"]["Properties"]["PolicyDocument"]["Statement"]
        assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
        assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        assert len(statement["Resource"]) == 2


def test_there_is_a_glue_job_for_each_job_of_the_package(template: Template) -> None:
    resources = template("jobs")["Resources"]
    scripts = [
        entry["Properties"]["Command"]["ScriptLocation"]["Fn::Sub"].rpartition("/")[2]
        for entry in resources.values()
        if entry["Type"] == "AWS::Glue::Job"
    ]
    assert set(scripts) == {f"{job}.py" for job in JOBS}


def test_every_log_group_forgets(template: Template) -> None:
    groups = [entry for entry in template("jobs")["Resources"].values() if entry["Type"] == "AWS::Logs::LogGroup"]
    assert len(groups) == 3
    assert all(group["Properties"]["RetentionInDays"] == {"Ref": "LogDays"} for group in groups)


def test_spark_runs_on_aws_as_on_one_machine_but_for_what_the_services_decide() -> None:
    local, cluster, aws = spark_defaults("local"), spark_defaults("cluster"), spark_defaults("aws")
    of_one_machine = {
        *("spark.master", "spark.app.name", "spark.driver.memory", "spark.driver.bindAddress", "spark.driver.host"),
        *("spark.ui.enabled", "spark.sql.shuffle.partitions", "spark.jars.packages", "spark.jars.excludes"),
        *("spark.hadoop.javax.jdo.option.ConnectionURL", "spark.sql.warehouse.dir", "spark.driver.extraJavaOptions"),
        *("spark.python.unix.domain.socket.enabled", "spark.hadoop.fs.defaultFS", "spark.sql.files.maxPartitionBytes"),
    }
    assert set(local) - set(aws) == of_one_machine
    assert {key: aws[key] for key in local if key in aws} == {key: local[key] for key in local if key in aws}
    of_a_cluster = set(aws) - set(local) - {METASTORE_CLIENT}
    assert of_a_cluster == {"spark.stage.maxConsecutiveAttempts", "spark.task.maxFailures", "spark.executorEnv.LC_ALL"}
    assert {key: aws[key] for key in of_a_cluster} == {key: cluster[key] for key in of_a_cluster}
    assert aws[METASTORE_CLIENT].endswith(CLIENT)
    # Glue and EMR have their own settings for writing to S3.
    assert not [key for key in aws if "s3" in key.lower() or "commit" in key.lower()]


def test_what_spark_needs_is_one_value_for_glue() -> None:
    settings = parse_conf((CONF / "spark-defaults.conf").read_text())
    value = chained(settings)
    assert dict(part.split("=", 1) for part in value.split(" --conf ")) == settings
    assert len(value) < MAX_PARAMETER
    # Glue and EMR Serverless do not remove quotes, so no value may need them.
    assert not [part for part in settings.values() if set(part) & set(" '\"\\")]
