"""What moto's CloudFormation lacks for the template: the SAM transform, and some types of resources.

`install()` teaches it to this process; a moto server must call it before it serves. `AWS::Lambda::Url` and
`AWS::Lambda::Alias` and the alarms become what moto's own services then show; what only has to be there is kept.
"""

import hashlib
import json
import uuid
from collections import defaultdict
from functools import wraps
from typing import Any, ClassVar

from moto.awslambda.models import LambdaFunction, LambdaStorage, lambda_backends
from moto.awslambda.responses import LambdaResponse
from moto.cloudformation import parsing
from moto.cloudformation.models import CloudFormationBackend
from moto.cloudwatch.models import cloudwatch_backends
from moto.core.common_models import CloudFormationModel
from moto.core.exceptions import JsonRESTError

from tests.infra.sam import transform

Properties = dict[str, Any]

KEPT: dict[str, list[Properties]] = defaultdict(list)
"""By type, the properties of resources that are in no service of moto's."""


class _Resource(CloudFormationModel):
    """One resource; `attributes` is what `Fn::GetAtt` gives."""

    type: ClassVar[str]

    def __init__(self, physical_id: str, **attributes: str) -> None:
        self.physical_resource_id = physical_id
        self.attributes = attributes

    @staticmethod
    def cloudformation_name_type() -> str:
        return ""

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        return True

    def get_cfn_attribute(self, name: str) -> str:
        return self.attributes[name]

    def is_created(self) -> bool:
        return True

    @classmethod
    def create(cls, name: str, properties: Properties, account: str, region: str) -> "_Resource":
        KEPT[cls.type].append(properties)
        return cls(name)

    @classmethod
    def create_from_cloudformation_json(cls, resource_name, cloudformation_json, account_id, region_name, **_):
        return cls.create(resource_name, cloudformation_json.get("Properties", {}), account_id, region_name)

    @classmethod
    def update_from_cloudformation_json(
        cls, original_resource, new_resource_name, cloudformation_json, account_id, region_name
    ):
        cls.remove(original_resource, account_id, region_name)
        created = cls.create(new_resource_name, cloudformation_json.get("Properties", {}), account_id, region_name)
        # moto compares the resource's own type with the template's.
        created.type = cls.type
        return created

    @classmethod
    def delete_from_cloudformation_json(cls, resource_name, cloudformation_json, account_id, region_name) -> None:
        return None

    @classmethod
    def remove(cls, original: "_Resource", account: str, region: str) -> None:
        """Undo `create` before the same resource is created with other properties."""


class _Version(_Resource):
    @classmethod
    def create(cls, name, properties, account, region):
        published = lambda_backends[account][region].publish_version(
            properties["FunctionName"], properties.get("Description", "")
        )
        return cls(published.function_arn, Version=str(published.version))


class _Alias(_Resource):
    @classmethod
    def create(cls, name, properties, account, region):
        backend = lambda_backends[account][region]
        alias = backend.create_alias(
            properties["Name"], properties["FunctionName"], str(properties["FunctionVersion"]), "", ""
        )
        return cls(alias.arn)

    @classmethod
    def remove(cls, original, account, region):
        function, name = original.physical_resource_id.rsplit(":", 1)
        lambda_backends[account][region].delete_alias(name, function)


class _Url(_Resource):
    @classmethod
    def create(cls, name, properties, account, region):
        # An alias' ARN has its name at the end, which moto's URLs cannot have.
        function = properties["TargetFunctionArn"]
        if function.startswith("arn:"):
            function = ":".join(function.split(":")[:7])
        config = lambda_backends[account][region].create_function_url_config(function, properties)
        config.url = config.url.rstrip("/") + "/"
        return cls(config.url, FunctionUrl=config.url, FunctionArn=config.function.function_arn)

    @classmethod
    def remove(cls, original, account, region):
        lambda_backends[account][region].delete_function_url_config(original.attributes["FunctionArn"])


class _Alarm(_Resource):
    @classmethod
    def create(cls, name, properties, account, region):
        cloudwatch_backends[account][region].put_metric_alarm(
            name=name,
            namespace=properties["Namespace"],
            metric_name=properties["MetricName"],
            comparison_operator=properties["ComparisonOperator"],
            evaluation_periods=int(properties["EvaluationPeriods"]),
            period=int(properties["Period"]),
            threshold=float(properties["Threshold"]),
            statistic=properties.get("Statistic", ""),
            extended_statistic=properties.get("ExtendedStatistic"),
            description=properties["AlarmDescription"],
            dimensions=properties["Dimensions"],
            alarm_actions=properties["AlarmActions"],
            ok_actions=properties.get("OKActions"),
            unit=properties.get("Unit"),
            treat_missing_data=properties["TreatMissingData"],
        )
        return cls(name)

    @classmethod
    def remove(cls, original, account, region):
        cloudwatch_backends[account][region].delete_alarms([original.physical_resource_id])


class _Distribution(_Resource):
    @classmethod
    def create(cls, name, properties, account, region):
        KEPT[cls.type].append(properties)
        identity = f"E{name[-12:].upper()}"
        return cls(identity, Id=identity, DomainName=f"{identity.lower()}.cloudfront.net")


_CREATED = {
    "AWS::Lambda::Version": _Version,  # moto has one, of which nothing can be asked
    "AWS::Lambda::Alias": _Alias,
    "AWS::Lambda::Url": _Url,
    "AWS::CloudWatch::Alarm": _Alarm,
    "AWS::S3::BucketPolicy": _Resource,  # moto would refuse whatever a policy denies on a condition
    "AWS::CloudFront::Distribution": _Distribution,
    "AWS::Lambda::EventInvokeConfig": _Resource,
    "AWS::SNS::Subscription": _Resource,
    "AWS::Budgets::Budget": _Resource,
    "AWS::SecretsManager::Secret": _Resource,
}


def install() -> None:
    """Teach moto's CloudFormation, in this process, what it lacks; a second call does nothing."""
    if "AWS::Lambda::Url" in parsing.get_model_map():
        return
    parsing.get_model_map().update({
        name: type(name.replace("::", ""), (base,), {"type": name}) for name, base in _CREATED.items()
    })  # fmt: skip
    _revise()
    _revise_aliases()
    _number_versions()
    for method in ("create_stack", "create_change_set", "update_stack"):
        _transform_before(method)


def _revise() -> None:
    """Give configurations their RevisionId, and refuse a change of one that is not the newest."""
    get, update = LambdaFunction.get_configuration, LambdaFunction.update_configuration

    def revision(function) -> str:
        return hashlib.sha256(json.dumps(function.environment_vars, sort_keys=True).encode()).hexdigest()[:32]

    def get_configuration(self, *args, **arguments):
        return {**get(self, *args, **arguments), "RevisionId": revision(self)}

    def update_configuration(self, changes):
        if changes.get("RevisionId", revision(self)) != revision(self):
            raise JsonRESTError("PreconditionFailedException", "The RevisionId provided does not match the latest one.")
        return update(self, {name: value for name, value in changes.items() if name != "RevisionId"})

    LambdaFunction.get_configuration = get_configuration
    LambdaFunction.update_configuration = update_configuration


def _revise_aliases() -> None:
    """Refuse a change of an alias that is not the newest, and give each change a RevisionId of its own."""
    update = LambdaResponse.update_alias

    def update_alias(self):
        *_, function, _, name = self.path.split("/")
        alias = self.backend.get_alias(name, function)
        if json.loads(self.body).get("RevisionId", alias.revision_id) != alias.revision_id:
            raise JsonRESTError("PreconditionFailedException", "The RevisionId provided does not match the latest one.")
        alias.revision_id = str(uuid.uuid4())
        return update(self)

    LambdaResponse.update_alias = update_alias


def _number_versions() -> None:
    """Never use the number of a deleted version again."""
    publish, used = LambdaStorage.publish_version, defaultdict(int)

    def publish_version(self, name_or_arn, description=""):
        known = {id(each) for each in self._functions[name_or_arn]["versions"]}
        published = publish(self, name_or_arn, description)
        if id(published) not in known:
            key = (id(self), name_or_arn)
            used[key] = max(used[key] + 1, int(published.version))
            published.set_version(used[key])
            self._arns[published.function_arn] = published
        return published

    LambdaStorage.publish_version = publish_version


def _transform_before(name: str) -> None:
    method = getattr(CloudFormationBackend, name)

    @wraps(method)
    def transforming(self, *args, **arguments):
        arguments["template"] = plain_template(arguments["template"], arguments["parameters"])
        return method(self, *args, **arguments)

    setattr(CloudFormationBackend, name, transforming)


def plain_template(text: str, parameters: Any) -> str:
    """The template that CloudFormation would run: `text`, or what SAM makes of it where it asks for that."""
    if '"AWS::Serverless-2016-10-31"' not in text:
        return text
    if isinstance(parameters, list):
        parameters = {
            each["parameter_key"]: each["parameter_value"] for each in parameters if "parameter_value" in each
        }
    return json.dumps(transform(json.loads(text), parameters))
