"""What a template's stack will hold."""

import pytest

from local.deploy.costs import SECONDS_PER_MONTH
from local.deploy.shape import read_deployment

TEMPLATE = {
    "Parameters": {
        "LlmMemoryMb": {"Type": "Number", "Default": 3008},
        "KeepWarm": {"Type": "String", "Default": "false"},
    },
    "Conditions": {
        "Warm": {"Fn::Equals": [{"Ref": "KeepWarm"}, "true"]},
        "Cold": {"Fn::Not": [{"Condition": "Warm"}]},
    },
    "Globals": {"Function": {"MemorySize": 256}},
    "Resources": {
        "Llm": {
            "Type": "AWS::Serverless::Function",
            "Properties": {
                "PackageType": "Image",
                "MemorySize": {"Ref": "LlmMemoryMb"},
                "SnapStart": {"ApplyOn": "PublishedVersions"},
                "FunctionUrlConfig": {"InvokeMode": "RESPONSE_STREAM"},
            },
        },
        "Backend": {
            "Type": "AWS::Serverless::Function",
            "Properties": {"MemorySize": 512, "FunctionUrlConfig": {"InvokeMode": "RESPONSE_STREAM"}},
        },
        "Canary": {
            "Type": "AWS::Serverless::Function",
            "Properties": {
                "Events": {
                    "Often": {
                        "Type": "Schedule",
                        "Properties": {"Schedule": {"Fn::If": ["Warm", "rate(5 minutes)", "rate(1 hour)"]}},
                    }
                }
            },
        },
        "Batch": {
            "Type": "AWS::Serverless::Function",
            "Properties": {"Events": {"Queue": {"Type": "SQS", "Properties": {}}}},
        },
        "Keys": {"Type": "AWS::DynamoDB::Table", "Properties": {}},
        "Secret": {"Type": "AWS::SecretsManager::Secret", "Properties": {}},
        "Errors": {"Type": "AWS::CloudWatch::Alarm", "Properties": {"Namespace": "AWS/Lambda", "MetricName": "Errors"}},
        "First": {"Type": "AWS::CloudWatch::Alarm", "Properties": {"Namespace": "Huginn", "MetricName": "First"}},
        "OnlyCold": {
            "Type": "AWS::CloudWatch::Alarm",
            "Condition": "Cold",
            "Properties": {"Namespace": "Huginn", "MetricName": "First"},
        },
    },
}


def test_the_template_is_read():
    """Sizes by function, alarms, metrics of our own once each, queues and snapshots."""
    shape = read_deployment(TEMPLATE, {}, image_bytes=1, stored_bytes=2, metrics=3)
    assert (shape.secrets, shape.tables) == (1, 1)
    assert (shape.llm_mb, shape.backend_mb, shape.canary_mb) == (3008, 512, 256)
    assert (shape.alarms, shape.metrics, shape.queues, shape.snapshots) == (3, 4, 1, 1)
    assert (shape.image_bytes, shape.stored_bytes) == (1, 2)
    assert shape.canary_runs_per_month == pytest.approx(730)


def test_each_published_version_has_a_snapshot():
    """The served one, CloudFormation's and the former one: three times the price of one."""
    shape = read_deployment(TEMPLATE, {}, image_bytes=0, stored_bytes=0, versions=3)
    assert shape.snapshots == 3


def test_parameters_count():
    """What is passed stands for the default, in values and in conditions."""
    shape = read_deployment(TEMPLATE, {"LlmMemoryMb": "2048", "KeepWarm": "true"}, image_bytes=0, stored_bytes=0)
    assert shape.llm_mb == 2048
    assert shape.alarms == 2
    assert shape.canary_runs_per_month == pytest.approx(SECONDS_PER_MONTH / 300)
