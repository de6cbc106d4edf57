"""The permissions of each role, according to the deployed policies."""

from __future__ import annotations

import ast
import json
from typing import Any

import pytest
from moto.iam.access_control import IAMPolicy, PermissionResult

from spark_app.zones.processed import MADE_BY, ProcessedZone
from tests.aws.conftest import ACCOUNT, REGION, client

JOBS = ("Ingest", "Catalog", "Crawler", "Etl", "Model", "Maintain", "Pipeline")
EVERYBODY = (*JOBS, "EmrService", "Schedule", "Analyst")
DATA = tuple(f"arn:aws:s3:::movie-reco-{zone}-{ACCOUNT}-{REGION}" for zone in ("raw", "processed", "artefacts"))
RAW, PROCESSED, ARTEFACTS = DATA
GLUE = f"arn:aws:glue:{REGION}:{ACCOUNT}"
LOGS = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group"

Policies = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def policies(deployed: dict[str, str]) -> Policies:
    """The policy documents of each role of the deployed stack, except AWS's own policies."""
    iam = client("iam")
    stack = client("cloudformation").list_stack_resources(StackName="movie-reco-jobs")["StackResourceSummaries"]
    by_role: Policies = {}
    for resource in stack:
        if resource["ResourceType"] != "AWS::IAM::Role":
            continue
        role = resource["PhysicalResourceId"]
        inline = iam.list_role_policies(RoleName=role)["PolicyNames"]
        # moto returns documents that CloudFormation made as Python literals, not as JSON.
        texts = [iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"] for name in inline]
        documents = [ast.literal_eval(text) for text in texts]
        for attached in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
            arn = attached["PolicyArn"]
            if not arn.startswith("arn:aws:iam::aws:"):
                version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
                answer = iam.get_policy_version(PolicyArn=arn, VersionId=version)
                documents.append(answer["PolicyVersion"]["Document"])
        by_role[resource["LogicalResourceId"].removesuffix("Role")] = documents
    assert deployed["AnalystRoleArn"].endswith(f":role/movie-reco-analyst-{REGION}")
    return by_role


def may(documents: list[dict[str, Any]], action: str, resource: str, context: dict[str, str] | None = None) -> bool:
    """Whether the policies of a role permit an action: one allows it, and none denies it."""
    results = [
        IAMPolicy({"policy_document": json.dumps(document)}).is_action_permitted(
            action, resource, incoming_condition_values=context
        )
        for document in documents
    ]
    return PermissionResult.PERMITTED in results and PermissionResult.DENIED not in results


def test_there_is_a_role_for_each_family(policies: Policies) -> None:
    assert set(policies) == set(EVERYBODY)


@pytest.mark.parametrize(
    ("action", "resource", "who"),
    [
        ("s3:GetObject", f"{RAW}/ratings.csv", {"Ingest", "Catalog", "Crawler", "Etl", "Pipeline"}),
        ("s3:ListBucket", RAW, {"Ingest", "Catalog", "Crawler", "Etl", "Pipeline"}),
        ("s3:PutObject", f"{RAW}/ratings.csv", {"Ingest", "Pipeline"}),
        ("s3:DeleteObject", f"{RAW}/ratings.csv", {"Ingest", "Pipeline"}),
        ("s3:GetObject", f"{PROCESSED}/delta/ratings/x.parquet", {"Catalog", "Etl", "Model", "Maintain", "Pipeline"}),
        ("s3:PutObject", f"{PROCESSED}/_lock.json", {"Catalog", "Etl", "Model", "Maintain", "Pipeline"}),
        ("s3:PutObject", f"{PROCESSED}/_staging/x", {"Catalog", "Etl", "Model", "Maintain", "Pipeline"}),
        ("s3:PutObject", f"{PROCESSED}/runs/x.json", {"Catalog", "Etl", "Model", "Maintain", "Pipeline"}),
        ("s3:PutObject", f"{PROCESSED}/final/movies.parquet", {"Etl", "Maintain", "Pipeline"}),
        ("s3:PutObject", f"{PROCESSED}/models/current.json", {"Model", "Maintain", "Pipeline"}),
        ("s3:PutObject", f"{PROCESSED}/recommendations/movie_recommendations.csv", {"Model", "Maintain", "Pipeline"}),
        ("s3:PutObject", f"{PROCESSED}/reports/x.html", {"Model", "Maintain", "Pipeline"}),
        ("s3:PutObject", f"{PROCESSED}/tuning/best.toml", {"Model", "Maintain", "Pipeline"}),
        ("s3:GetObject", f"{PROCESSED}/final/movies.parquet", set(JOBS) - {"Ingest", "Crawler"} | {"Analyst"}),
        ("s3:GetObject", f"{PROCESSED}/recommendations/a.csv", set(JOBS) - {"Ingest", "Crawler"} | {"Analyst"}),
        ("s3:GetObject", f"{PROCESSED}/delta/user_features/x", set(JOBS) - {"Ingest", "Crawler"}),
        ("s3:GetObject", f"{ARTEFACTS}/releases/1/movie_reco.zip", set(JOBS) - {"Crawler"}),
        ("s3:PutObject", f"{ARTEFACTS}/releases/1/movie_reco.zip", set()),
        ("s3:PutObject", f"{ARTEFACTS}/settings/1.toml", set()),
        ("s3:PutObject", f"{ARTEFACTS}/logs/emr/x", {"Pipeline"}),
        ("s3:GetBucketLocation", PROCESSED, set(JOBS) - {"Ingest", "Crawler"} | {"Analyst"}),
        ("glue:UpdateTable", f"{GLUE}:table/movie_reco_raw_db/movies_csv", {"Catalog", "Crawler", "Pipeline"}),
        ("glue:BatchCreatePartition", f"{GLUE}:table/movie_reco_raw_db/days", {"Crawler"}),
        ("glue:UpdateTable", f"{GLUE}:table/movie_reco_db/final", {"Catalog", "Pipeline"}),
        ("glue:GetTable", f"{GLUE}:table/movie_reco_db/final", {"Catalog", "Pipeline", "Analyst"}),
        ("glue:GetTable", f"{GLUE}:table/movie_reco_db/ratings", {"Catalog", "Pipeline"}),
        ("glue:GetTable", f"{GLUE}:table/movie_reco_raw_db/ratings_csv", {"Catalog", "Crawler", "Pipeline"}),
        ("glue:UpdateTable", f"{GLUE}:table/of_others/x", set()),
        ("glue:GetDatabase", f"{GLUE}:database/global_temp", set(JOBS) - {"Crawler"}),
        ("glue:CreateDatabase", f"{GLUE}:database/global_temp", set()),
        ("glue:StartCrawler", f"{GLUE}:crawler/movie-reco-raw", {"Catalog", "Pipeline"}),
        ("glue:StartWorkflowRun", f"{GLUE}:workflow/movie-reco", {"Schedule"}),
        ("glue:StartWorkflowRun", f"{GLUE}:workflow/of-others", set()),
        ("glue:UpdateJob", f"{GLUE}:job/movie-reco-etl", set()),
        ("logs:CreateLogGroup", f"{LOGS}:/movie-reco/glue/output", set(JOBS) - {"Crawler"}),
        ("logs:CreateLogGroup", f"{LOGS}:/aws-glue/crawlers", set(JOBS)),
        ("logs:CreateLogGroup", f"{LOGS}:/of/others", set()),
        ("logs:PutLogEvents", f"{LOGS}:/of/others:log-stream:x", set()),
        ("sts:AssumeRole", f"arn:aws:iam::{ACCOUNT}:role/anything", set()),
        ("iam:CreateRole", "*", set()),
    ],
)
def test_who_may(policies: Policies, action: str, resource: str, who: set[str]) -> None:
    assert {role for role in policies if may(policies[role], action, resource)} == who


@pytest.mark.parametrize("bucket", DATA)
@pytest.mark.parametrize(
    "action",
    ["s3:DeleteBucket", "s3:PutBucketPolicy", "s3:DeleteObjectVersion", "s3:PutBucketVersioning", "s3:PutObjectAcl"],
)
def test_nobody_may_harm_a_bucket(policies: Policies, action: str, bucket: str) -> None:
    for resource in (bucket, f"{bucket}/x"):
        assert not [role for role in policies if may(policies[role], action, resource)]


def test_one_role_is_handed_on_by_one_and_to_one_service(policies: Policies) -> None:
    (statement,) = [entry for entry in policies["EmrService"][0]["Statement"] if entry["Action"] == "iam:PassRole"]
    role = statement["Resource"]
    assert "PipelineRole" in role
    ec2, glue = ({"iam:PassedToService": f"{service}.amazonaws.com"} for service in ("ec2", "glue"))
    assert {who for who in policies if may(policies[who], "iam:PassRole", role, ec2)} == {"EmrService"}
    assert not [who for who in policies if may(policies[who], "iam:PassRole", role, glue)]
    assert not [who for who in policies if may(policies[who], "iam:PassRole", f"{role}-other", ec2)]


def test_the_analyst_lists_results_only(policies: Policies) -> None:
    analyst = policies["Analyst"]
    # moto ignores patterns in conditions, so compare them: the listed prefixes are those that the role may read.
    by_sid = {entry["Sid"]: entry for document in analyst for entry in document["Statement"]}
    listed = by_sid["ListResults"]["Condition"]["StringLike"]["s3:prefix"]
    assert sorted(f"{PROCESSED}/{prefix}" for prefix in listed) == sorted(by_sid["ReadResults"]["Resource"])
    answers = by_sid["ListAnswersOfQueries"]
    assert answers["Condition"] == {"StringLike": {"s3:prefix": "temporary/athena/*"}}
    assert answers["Resource"] == ARTEFACTS
    group = f"arn:aws:athena:{REGION}:{ACCOUNT}:workgroup"
    assert may(analyst, "athena:StartQueryExecution", f"{group}/movie-reco-analysts")
    assert not may(analyst, "athena:StartQueryExecution", f"{group}/primary")


def test_the_analyst_finds_the_tables_in_the_console(policies: Policies) -> None:
    analyst, ours = policies["Analyst"], f"arn:aws:athena:{REGION}:{ACCOUNT}:datacatalog/AwsDataCatalog"
    for action in ("ListDataCatalogs", "ListEngineVersions", "ListWorkGroups"):
        assert may(analyst, f"athena:{action}", "*", {"aws:RequestedRegion": REGION}), action
        assert not may(analyst, f"athena:{action}", "*", {"aws:RequestedRegion": "us-east-1"}), action
    for action in ("GetDatabase", "GetDataCatalog", "GetTableMetadata", "ListDatabases", "ListTableMetadata"):
        assert may(analyst, f"athena:{action}", ours), action
        assert not may(analyst, f"athena:{action}", ours.replace("AwsDataCatalog", "of-others")), action


def test_no_statement_allows_every_action_or_all_resources(policies: Policies) -> None:
    for role, documents in policies.items():
        for statement in (entry for document in documents for entry in document["Statement"]):
            actions, resources = (
                [entry] if isinstance(entry, str) else entry for entry in (statement["Action"], statement["Resource"])
            )
            assert not [action for action in actions if "*" in action], role
            # Where AWS has no ARN for a resource, a condition limits the statement.
            assert "*" not in resources or statement.get("Condition"), role


def test_rules_that_see_a_failure_may_tell_the_topic(deployed: dict[str, str]) -> None:
    rules = client("events").list_rules(NamePrefix="movie-reco")["Rules"]
    targets = [client("events").list_targets_by_rule(Rule=rule["Name"])["Targets"] for rule in rules]
    topics = {target["Arn"] for targets_of_rule in targets for target in targets_of_rule}
    (topic,) = topics
    policy = json.loads(client("sns").get_topic_attributes(TopicArn=topic)["Attributes"]["Policy"])
    (statement,) = policy["Statement"]
    assert statement["Principal"] == {"Service": "events.amazonaws.com"}
    assert statement["Resource"] == topic
    assert "Condition" not in statement, "EventBridge sends nothing that a condition could test"


def test_each_stage_may_write_what_it_makes(policies: Policies) -> None:
    zone = ProcessedZone("s3://zone")
    role_of_stage = {"etl": "Etl", "explore": "Model", "recommend": "Model"}
    for table, stage in MADE_BY.items():
        for file in ("part-0.parquet", "_delta_log/00000000000000000000.json"):
            key = f"{zone.table(table)}/{file}".replace("s3://zone", PROCESSED)
            who = {role for role in policies if may(policies[role], "s3:PutObject", key)}
            assert who == {role_of_stage[stage], "Maintain", "Pipeline"}, table


def test_each_job_of_glue_may_list_the_buckets_that_it_is_given(policies: Policies) -> None:
    """A job lists each of its root folders before it begins."""
    stack = client("cloudformation").list_stack_resources(StackName="movie-reco-jobs")["StackResourceSummaries"]
    roles = {entry["PhysicalResourceId"]: entry["LogicalResourceId"].removesuffix("Role") for entry in stack}
    for job in client("glue").get_jobs()["Jobs"]:
        documents = policies[roles[job["Role"].rpartition("/")[2]]]
        arguments = job["DefaultArguments"]
        roots = [arguments[option] for option in ("--raw-path", "--processed-path") if option in arguments]
        assert roots
        for root in roots:
            assert may(documents, "s3:ListBucket", root.replace("s3://", "arn:aws:s3:::")), (job["Name"], root)
