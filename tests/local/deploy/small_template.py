"""A stack with what `huginn deploy` looks at, and little else."""

from typing import Any

NAMES = ("Stage", "LlmImageUri", "ArtefactBucket", "FrontendKey", "BackendKey", "OperationsKey")


def small_template(**resources: Any) -> dict[str, Any]:
    """The template, with resources added, or left out where they are None."""
    known = {
        "Role": {
            "Type": "AWS::IAM::Role",
            "Properties": {"AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": []}},
        },
        "Backend": function("BackendKey"),
        "Llm": function("FrontendKey"),
        "Checkpoints": {"Type": "AWS::S3::Bucket", "Properties": {}},
    }
    merged = {name: each for name, each in {**known, **resources}.items() if each is not None}
    outputs = {"PageUrl": "http://127.0.0.1:9/", "LlmFunctionName": {"Ref": "Llm"}}
    return {
        "Parameters": {
            **{name: {"Type": "String"} for name in NAMES},
            "LlmMemoryMb": {"Type": "Number", "Default": 3008},
        },
        "Resources": merged,
        "Outputs": {name: {"Value": value} for name, value in outputs.items()},
    }


def function(key: str) -> dict[str, Any]:
    """A function made of the zip that a parameter names."""
    return {
        "Type": "AWS::Lambda::Function",
        "Properties": {
            "Runtime": "python3.12",
            "Handler": "app.handler",
            "Role": {"Fn::GetAtt": ["Role", "Arn"]},
            "MemorySize": {"Ref": "LlmMemoryMb"},
            "Code": {"S3Bucket": {"Ref": "ArtefactBucket"}, "S3Key": {"Ref": key}},
        },
    }
