"""What the tests of the template and of the operations share."""

import json

import boto3
import pytest
from moto import mock_aws

from local.template import build_template
from tests.infra import moto_shim
from tests.infra.sam import PARAMETERS, REGION


@pytest.fixture(scope="session")
def packaged(tmp_path_factory):
    """The folder that `build_template` makes."""
    return build_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def template(packaged):
    """The template as it goes to CloudFormation."""
    return json.loads((packaged / "sam.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def aws():
    """AWS in this process: nothing that these tests ask of it leaves the machine."""
    with pytest.MonkeyPatch.context() as environ, mock_aws():
        for name, value in {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            environ.setenv(name, value)
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
            environ.delenv(name, raising=False)
        moto_shim.install()
        yield


@pytest.fixture(scope="module")
def stack(aws, packaged):
    """The outputs of the template's stack, all of whose resources are there."""
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=PARAMETERS["ArtefactBucket"])
    for key in ("FrontendKey", "BackendKey", "OperationsKey"):
        code = (packaged / "deployment.zip").read_bytes()
        s3.put_object(Bucket=PARAMETERS["ArtefactBucket"], Key=PARAMETERS[key], Body=code)
    cloudformation = boto3.client("cloudformation")
    given = PARAMETERS | {
        "AlarmEmail": "someone@example.org",
        "MonthlyBudgetUsd": "20",
        "LlmReservedConcurrency": "4",
        "KeepWarm": "true",
        "OtlpEndpoint": "https://collector.example.org",
        "AllSessionsTokensPerDay": "1000000",
    }
    cloudformation.create_stack(
        StackName="huginn-prod",
        TemplateBody=(packaged / "sam.json").read_text("utf-8"),
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    found = cloudformation.describe_stacks(StackName="huginn-prod")["Stacks"][0]
    assert found["StackStatus"] == "CREATE_COMPLETE"
    return {each["OutputKey"]: each["OutputValue"] for each in found["Outputs"]}
