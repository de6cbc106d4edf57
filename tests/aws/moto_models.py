"""Teach moto's CloudFormation the resource types of our templates that it lacks.

One boto3 call to the same server makes each of these resources, so moto's API checks the properties.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import boto3
from moto.cloudformation import parsing
from moto.core.common_models import CloudFormationModel
from moto.core.models import DEFAULT_ACCOUNT_ID as ACCOUNT_ID
from moto.emrserverless.exceptions import ValidationException
from moto.emrserverless.models import EMRServerlessBackend
from moto.glue.responses import GlueResponse
from moto.iam.models import Role, iam_backends

Properties = dict[str, Any]

CLASSIFIERS: dict[str, Properties] = {}
"""Glue's classifiers by name, since moto has no API for them."""

NO_BUDGET = "no budget"

BUCKET_POLICIES: dict[str, str] = {}
"""Policies by bucket. They are only noted: moto would enforce them and reject all requests here, which have no TLS."""


CONVERTERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("integer", "long"), int),
    **dict.fromkeys(("double", "float"), float),
    "boolean": lambda value: str(value).lower() == "true",
}


def fitted(shape: Any, value: Any) -> Any:
    """A value in the type that an API expects, since CloudFormation's parameters are texts even for numbers."""
    if shape.type_name == "structure":
        return {key: fitted(shape.members[key], item) for key, item in value.items() if key in shape.members}
    if shape.type_name == "list":
        return [fitted(shape.member, item) for item in value]
    if shape.type_name == "map":
        return {key: fitted(shape.value, item) for key, item in value.items()}
    return CONVERTERS.get(shape.type_name, str)(value)


def call(service: str, operation: str, properties: Properties, region: str) -> Any:
    """Call an operation with the properties of a resource as its arguments."""
    client = boto3.client(service, region_name=region)
    shape = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[operation]).input_shape
    unknown = set(properties) - set(shape.members)
    assert not unknown, f"{operation} has no {unknown}"
    return getattr(client, operation)(**fitted(shape, properties))


def named(service: str, create: str, delete: str, key: str = "Name") -> Any:
    """The functions that make and delete a resource whose id is its name, with its properties as arguments."""

    def make(properties: Properties, region: str) -> str:
        call(service, create, properties, region)
        return str(properties["Name"])

    def unmake(physical: str, region: str) -> None:
        call(service, delete, {key: physical}, region)

    return make, unmake


def database(properties: Properties, region: str) -> str:
    call("glue", "create_database", properties, region)
    return str(properties["DatabaseInput"]["Name"])


def classifier(properties: Properties, region: str) -> str:
    CLASSIFIERS[properties["CsvClassifier"]["Name"]] = dict(properties["CsvClassifier"])
    return str(properties["CsvClassifier"]["Name"])


def application(properties: Properties, region: str) -> str:
    arguments = {key[0].lower() + key[1:]: value for key, value in lowered(properties).items()}
    return str(call("emr-serverless", "create_application", {"clientToken": "x", **arguments}, region)["applicationId"])


def change_application(physical: str, properties: Properties, region: str) -> str:
    """Change an application in place, as CloudFormation does; AWS and moto refuse this while the application runs."""
    unchangeable = ("name", "type")
    arguments = {key: value for key, value in lowered(properties).items() if key not in unchangeable}
    call("emr-serverless", "update_application", {"applicationId": physical, "clientToken": "x", **arguments}, region)
    return physical


def unmake_application(physical: str, region: str) -> None:
    """Delete an application; AWS and moto refuse this while the application runs."""
    call("emr-serverless", "delete_application", {"applicationId": physical}, region)


def lowered(value: Any) -> Any:
    """The value with all keys in the form of EMR Serverless, whose first letter is small."""
    if isinstance(value, dict):
        return {key[0].lower() + key[1:]: lowered(item) for key, item in value.items()}
    return value


def bucket_policy(properties: Properties, region: str) -> str:
    BUCKET_POLICIES[properties["Bucket"]] = json.dumps(properties["PolicyDocument"])
    return str(properties["Bucket"])


def topic_policy(properties: Properties, region: str) -> str:
    (topic,) = properties["Topics"]
    policy = {"AttributeName": "Policy", "AttributeValue": json.dumps(properties["PolicyDocument"])}
    call("sns", "set_topic_attributes", {"TopicArn": topic, **policy}, region)
    return f"policy of {topic}"


def work_group(properties: Properties, region: str) -> str:
    arguments = {"Configuration": properties["WorkGroupConfiguration"], "Description": properties["Description"]}
    call("athena", "create_work_group", {"Name": properties["Name"], **arguments}, region)
    return str(properties["Name"])


def budget(properties: Properties, region: str) -> str:
    if not int(properties["Budget"]["BudgetLimit"]["Amount"]):  # moto ignores conditions when it updates a stack
        return NO_BUDGET
    budget_with_name = {"BudgetName": f"Budget-{uuid4()}", **properties["Budget"]}
    call("budgets", "create_budget", {"AccountId": ACCOUNT_ID, **properties, "Budget": budget_with_name}, region)
    return str(budget_with_name["BudgetName"])


def unmake_budget(physical: str, region: str) -> None:
    if physical != NO_BUDGET:
        call("budgets", "delete_budget", {"AccountId": ACCOUNT_ID, "BudgetName": physical}, region)


def replace_budget(physical: str, properties: Properties, region: str) -> str:
    """Replace a budget as CloudFormation does: it makes the new budget first, so the name must not be in use."""
    replacement = budget(properties, region)
    unmake_budget(physical, region)
    return replacement


def nothing(physical: str, region: str) -> None:
    """Delete nothing: the resource is deleted with the one that it belongs to."""


def declare(
    resource_type: str,
    make: Callable[[Properties, str], str],
    unmake: Callable[[str, str], None] = nothing,
    change: Callable[[str, Properties, str], str] | None = None,
) -> type[CloudFormationModel]:
    """Register a resource type with moto. A changed resource without `change` is deleted and made again."""

    class Model(CloudFormationModel):
        def __init__(self, physical: str) -> None:
            self.physical_resource_id = physical

        @staticmethod
        def cloudformation_name_type() -> str:
            return ""

        @staticmethod
        def cloudformation_type() -> str:
            return resource_type

        @classmethod
        def has_cfn_attr(cls, attr: str) -> bool:
            return False

        @classmethod
        def create_from_cloudformation_json(
            cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
        ) -> Model:
            return cls(make(cloudformation_json["Properties"], region_name))

        @classmethod
        def update_from_cloudformation_json(
            cls,
            original_resource: Any,
            new_resource_name: str,
            cloudformation_json: Any,
            account_id: str,
            region_name: str,
        ) -> Model:
            if original_resource and change:
                return cls(
                    change(original_resource.physical_resource_id, cloudformation_json["Properties"], region_name)
                )
            if original_resource:
                unmake(original_resource.physical_resource_id, region_name)
            return cls(make(cloudformation_json["Properties"], region_name))

        @classmethod
        def delete_from_cloudformation_json(
            cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str
        ) -> None:
            unmake(resource_name, region_name)

    return Model


def update_classifier(self: GlueResponse) -> str:
    """Glue's UpdateClassifier. It drops properties that are not given; AWS does not document whether Glue does."""
    properties = self.parameters["CsvClassifier"]
    assert properties["Name"] in CLASSIFIERS
    CLASSIFIERS[properties["Name"]] = properties
    return "{}"


GlueResponse.update_classifier = update_classifier  # type: ignore[attr-defined]

_delete_role = Role.delete_from_cloudformation_json


def delete_role(name: str, resource: Any, account_id: str, region: str) -> None:
    """Delete a role and its attachments, as CloudFormation does; moto refuses to delete a role with attachments."""
    role = iam_backends[account_id]["aws"].get_role(name)
    for policy in list(role.managed_policies.values()):
        policy.detach_from(role)
    _delete_role(name, resource, account_id, region)


Role.delete_from_cloudformation_json = staticmethod(delete_role)  # type: ignore[assignment, method-assign]

_stop_application = EMRServerlessBackend.stop_application


def stop_application(self: EMRServerlessBackend, application_id: str) -> None:
    """EMR Serverless's StopApplication, which refuses an application that does not run or has active jobs."""
    if self.applications[application_id].state not in ("STARTING", "STARTED"):
        raise ValidationException("Application cannot be STOPPED. It must be one of [STARTING, STARTED]")
    if any(run.state in ("SUBMITTED", "RUNNING") for run in self.job_runs.get(application_id, [])):
        raise ValidationException("Application has jobs that are not complete")
    _stop_application(self, application_id)


EMRServerlessBackend.stop_application = stop_application  # type: ignore[method-assign]

_references = parsing.get_references_from_template


def references(template: Any) -> list[str]:
    """The names that a part of a template refers to, also inside texts: moto itself overlooks changes in texts."""
    return _references(template) + re.findall(r"\$\{(\w+)[.}]", json.dumps(template))


parsing.get_references_from_template = references

MODELS = [
    declare("AWS::Glue::Database", database),
    declare("AWS::Glue::Classifier", classifier),
    declare("AWS::Glue::Crawler", *named("glue", "create_crawler", "delete_crawler")),
    declare("AWS::Glue::Job", *named("glue", "create_job", "delete_job", "JobName")),
    declare("AWS::Glue::Workflow", *named("glue", "create_workflow", "delete_workflow")),
    declare("AWS::Glue::Trigger", *named("glue", "create_trigger", "delete_trigger")),
    declare("AWS::Scheduler::Schedule", *named("scheduler", "create_schedule", "delete_schedule")),
    declare("AWS::EMRServerless::Application", application, unmake_application, change_application),
    declare("AWS::S3::BucketPolicy", bucket_policy),
    declare("AWS::SNS::TopicPolicy", topic_policy),
    declare("AWS::Athena::WorkGroup", work_group),
    declare("AWS::Budgets::Budget", budget, unmake_budget, replace_budget),
]
"""Keeps the classes alive: moto finds them only while they exist."""
