"""What moto's CloudFormation does not know of our templates, made by the APIs that moto does have.

Each resource is made by one call of boto3 to the same server, whose own checks hold for the properties then.
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
"""Glue's classifiers by name: moto has no call for them."""

NO_BUDGET = "no budget"

BUCKET_POLICIES: dict[str, str] = {}
"""Policies by bucket: moto holds to them, and then takes nothing that comes without TLS, as all does here."""


CONVERTERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("integer", "long"), int),
    **dict.fromkeys(("double", "float"), float),
    "boolean": lambda value: str(value).lower() == "true",
}


def fitted(shape: Any, value: Any) -> Any:
    """A value as an API takes it: CloudFormation's parameters are texts, also where numbers are meant."""
    if shape.type_name == "structure":
        return {key: fitted(shape.members[key], item) for key, item in value.items() if key in shape.members}
    if shape.type_name == "list":
        return [fitted(shape.member, item) for item in value]
    if shape.type_name == "map":
        return {key: fitted(shape.value, item) for key, item in value.items()}
    return CONVERTERS.get(shape.type_name, str)(value)


def call(service: str, operation: str, properties: Properties, region: str) -> Any:
    """Send the properties of a resource as the arguments of an operation."""
    client = boto3.client(service, region_name=region)
    shape = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[operation]).input_shape
    unknown = set(properties) - set(shape.members)
    assert not unknown, f"{operation} has no {unknown}"
    return getattr(client, operation)(**fitted(shape, properties))


def named(service: str, create: str, delete: str, key: str = "Name") -> Any:
    """A resource whose properties are the arguments of a call, and that is known by its name."""

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
    asked = {key[0].lower() + key[1:]: value for key, value in lowered(properties).items()}
    return str(call("emr-serverless", "create_application", {"clientToken": "x", **asked}, region)["applicationId"])


def change_application(physical: str, properties: Properties, region: str) -> str:
    """Change an application as CloudFormation does, in place; AWS, and moto too, refuses that while it runs."""
    kept = ("name", "type")
    asked = {key: value for key, value in lowered(properties).items() if key not in kept}
    call("emr-serverless", "update_application", {"applicationId": physical, "clientToken": "x", **asked}, region)
    return physical


def unmake_application(physical: str, region: str) -> None:
    """Delete an application, which is refused while it runs."""
    call("emr-serverless", "delete_application", {"applicationId": physical}, region)


def lowered(value: Any) -> Any:
    """Keys as EMR Serverless has them."""
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
    asked = {"Configuration": properties["WorkGroupConfiguration"], "Description": properties["Description"]}
    call("athena", "create_work_group", {"Name": properties["Name"], **asked}, region)
    return str(properties["Name"])


def budget(properties: Properties, region: str) -> str:
    if not int(properties["Budget"]["BudgetLimit"]["Amount"]):  # moto forgets conditions when it updates a stack
        return NO_BUDGET
    named = {"BudgetName": f"Budget-{uuid4()}", **properties["Budget"]}
    call("budgets", "create_budget", {"AccountId": ACCOUNT_ID, **properties, "Budget": named}, region)
    return str(named["BudgetName"])


def unmake_budget(physical: str, region: str) -> None:
    if physical != NO_BUDGET:
        call("budgets", "delete_budget", {"AccountId": ACCOUNT_ID, "BudgetName": physical}, region)


def replace_budget(physical: str, properties: Properties, region: str) -> str:
    """Replace a budget as CloudFormation does, the new one first: AWS, and moto too, refuses a name that is taken."""
    replacement = budget(properties, region)
    unmake_budget(physical, region)
    return replacement


def nothing(physical: str, region: str) -> None:
    """Deleted with what it belongs to."""


def declare(
    kind: str,
    make: Callable[[Properties, str], str],
    unmake: Callable[[str, str], None] = nothing,
    change: Callable[[str, Properties, str], str] | None = None,
) -> type[CloudFormationModel]:
    """Tell moto of a kind of resource; one that has no `change` is made anew."""

    class Model(CloudFormationModel):
        def __init__(self, physical: str) -> None:
            self.physical_resource_id = physical

        @staticmethod
        def cloudformation_name_type() -> str:
            return ""

        @staticmethod
        def cloudformation_type() -> str:
            return kind

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
    """Glue's UpdateClassifier. Nothing says whether it keeps what is not given; here it does not."""
    given = self.parameters["CsvClassifier"]
    assert given["Name"] in CLASSIFIERS
    CLASSIFIERS[given["Name"]] = given
    return "{}"


GlueResponse.update_classifier = update_classifier  # type: ignore[attr-defined]

_delete_role = Role.delete_from_cloudformation_json


def delete_role(name: str, resource: Any, account_id: str, region: str) -> None:
    """Delete a role with its attachments, as CloudFormation does; moto's refuses."""
    role = iam_backends[account_id]["aws"].get_role(name)
    for policy in list(role.managed_policies.values()):
        policy.detach_from(role)
    _delete_role(name, resource, account_id, region)


Role.delete_from_cloudformation_json = staticmethod(delete_role)  # type: ignore[assignment, method-assign]

_stop_application = EMRServerlessBackend.stop_application


def stop_application(self: EMRServerlessBackend, application_id: str) -> None:
    """EMR Serverless's StopApplication, which refuses an application that does not run, or has jobs."""
    if self.applications[application_id].state not in ("STARTING", "STARTED"):
        raise ValidationException("Application cannot be STOPPED. It must be one of [STARTING, STARTED]")
    if any(run.state in ("SUBMITTED", "RUNNING") for run in self.job_runs.get(application_id, [])):
        raise ValidationException("Application has jobs that are not complete")
    _stop_application(self, application_id)


EMRServerlessBackend.stop_application = stop_application  # type: ignore[method-assign]

_references = parsing.get_references_from_template


def references(template: Any) -> list[str]:
    """What a part of a template refers to, also inside of texts: without those moto misses what a parameter changes."""
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
"""Kept, since moto knows of them only as long as they are there."""
