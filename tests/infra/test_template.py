"""What the one template says, and the stack that it makes."""

import json
import re
import subprocess
import sys
import zipfile
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import boto3
import pytest
from cfnlint.api import lint
from fastapi.routing import iter_route_contexts

from functions.backend.app import build_app
from functions.backend.controllers import timeout as backend_timeout
from functions.backend.domain.quota import Quota
from functions.backend.settings import Settings
from functions.frontend.app import build_app as build_page
from functions.frontend.settings import Settings as FrontendSettings
from functions.llm.controllers import envelope
from local.template import INFRA, build_template, read_template
from tests.backend.key_store_server import KEY_SCHEMA
from tests.infra.moto_shim import KEPT
from tests.infra.sam import PARAMETERS, REGION, transform

TIERS = ("FrontendFunction", "BackendFunction", "LlmFunction")
OPERATIONS = ("Canary", "OnCheckpoint", "GenerateBatch")


def physical_ids(stack: Any) -> dict[str, str]:
    """What CloudFormation calls the resources that the template names."""
    resources = boto3.client("cloudformation").describe_stack_resources(StackName="huginn-prod")["StackResources"]
    return {each["LogicalResourceId"]: each.get("PhysicalResourceId", "") for each in resources}


def function_of(stack: Any, logical_id: str) -> dict[str, Any]:
    return boto3.client("lambda").get_function(FunctionName=physical_ids(stack)[logical_id])["Configuration"]


def statements(policy: Any) -> list[dict[str, Any]]:
    return policy["Statement"] if isinstance(policy["Statement"], list) else [policy["Statement"]]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_the_same_sources_give_the_same_bytes(packaged, tmp_path):
    """Nothing of the time, the place or a former run is in what is uploaded."""
    again = build_template(tmp_path / "a folder")
    for name in ("sam.json", "deployment.zip"):
        assert (again / name).read_bytes() == (packaged / name).read_bytes()
    assert sorted(path.name for path in INFRA.iterdir() if path.name != "__pycache__") == sorted(
        {".chalice", "app.py", "tiers.yaml"} | {path.name for path in INFRA.glob("*.py")}
    ), "Chalice has written into the project"


def test_the_linter_finds_nothing(packaged, template):
    """Neither in what is uploaded nor in what SAM makes of it."""
    text = (packaged / "sam.json").read_text("utf-8")
    assert lint(text, regions=[REGION]) == []
    plain = json.dumps(transform(template, PARAMETERS))
    # SAM puts the image's address where its parameter stood.
    assert [str(each) for each in lint(plain, regions=[REGION]) if "LlmImageUri not used" not in each.message] == []


def test_the_template_fits_into_a_request(packaged):
    """CloudFormation takes 51,200 bytes; more would have to lie in a bucket first."""
    assert (packaged / "sam.json").stat().st_size < 51_200


def test_short_tags_are_what_they_stand_for(tmp_path):
    """Nested, in lists, under merged keys: JSON knows only the long form."""
    path = tmp_path / "short.yaml"
    path.write_text(
        "a: &a {x: !Ref P}\nb: {<<: *a, y: !Select [1, !Split [/, !GetAtt A.B.C]]}\nc: !Not [!Condition D]\n"
    )
    assert read_template(path) == {
        "a": {"x": {"Ref": "P"}},
        "b": {"x": {"Ref": "P"}, "y": {"Fn::Select": [1, {"Fn::Split": ["/", {"Fn::GetAtt": ["A", "B.C"]}]}]}},
        "c": {"Fn::Not": [{"Condition": "D"}]},
    }


def test_the_operations_run_from_their_zip(packaged, tmp_path):
    """What Chalice packs imports by itself; boto3 is the managed runtime's."""
    zipfile.ZipFile(packaged / "deployment.zip").extractall(tmp_path)
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import app, chalice, infra.checkpoint_files as files;"
    )
    program += "print(*(module.__file__ for module in (app, chalice, files)), *app.app.handler_map)"
    result = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    *files, first, second, third = result.stdout.split()
    assert all(file.startswith(str(tmp_path)) for file in files)
    assert {first, second, third} == {"canary", "on_checkpoint", "generate_batch"}


@pytest.mark.parametrize(
    "changed",
    [
        {"LlmMemoryMb": 4096},
        {"Checkpoint": "s3://ckpts/raven"},
        {"LlmImageUri": "1.dkr.ecr.us-east-1/i@b"},
        {"OtlpEndpoint": "https://collector.example.org"},
    ],
)
def test_a_changed_model_is_another_version(template, changed):
    """The alias moves to what the parameters say: SAM's own hash sees no parameter but the image."""

    def version_of(parameters: dict[str, Any]) -> tuple[str, str]:
        resources = transform(template, {**PARAMETERS, **parameters})["Resources"]
        [(name, version)] = [(k, v) for k, v in resources.items() if v["Type"] == "AWS::Lambda::Version"]
        defaults = {name: str(each.get("Default")) for name, each in template["Parameters"].items()}
        values = {**defaults, **{key: str(value) for key, value in {**PARAMETERS, **parameters}.items()}}
        # CloudFormation replaces a version whose description has changed.
        return name, re.sub(
            r"\$\{(\w+)\}", lambda match: values[match[1]], version["Properties"]["Description"]["Fn::Sub"]
        )

    assert version_of({}) == version_of({})
    assert version_of(changed) != version_of({})


def test_every_function_is_as_its_tier_needs_it(stack, template):
    """Zips on AWS's Python, the backend under the runtime that streams, the model as an image with a snapshot."""
    frontend, backend, llm = (function_of(stack, name) for name in TIERS)
    assert frontend["Handler"] == "functions.frontend.handler.handler"
    assert backend["Handler"] == "functions.backend.handler.app"
    assert backend["Environment"]["Variables"]["AWS_LAMBDA_EXEC_WRAPPER"] == "/var/task/functions/runtime/bootstrap"
    assert backend["Environment"]["Variables"]["LLM_URL"] == stack["LlmUrl"] + "generate/stream"
    assert backend["Environment"]["Variables"]["LLM_AUTH"] == "sigv4"
    for function, header in ((backend, backend_timeout.HEADER), (llm, envelope.TIMEOUT)):
        assert function["Environment"]["Variables"]["RUNTIME_TIMEOUT_HEADER"] == header
    assert frontend["Runtime"] == backend["Runtime"] == "python3.12"
    image = template["Resources"]["LlmFunction"]["Properties"]
    assert image["PackageType"] == "Image"  # which moto makes a zip of
    assert image["ImageConfig"] == {
        "EntryPoint": ["python", "-m", "functions.runtime"],
        "Command": ["functions.llm.handler.app"],
    }
    assert llm["MemorySize"] == 3008
    assert llm["Environment"]["Variables"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == "https://collector.example.org"
    assert template["Parameters"]["OtlpEndpoint"]["Default"] == ""
    otlp = template["Resources"]["LlmFunction"]["Properties"]["Environment"]["Variables"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
    assert otlp["Fn::If"] == ["SendsOtlp", {"Ref": "OtlpEndpoint"}, {"Ref": "AWS::NoValue"}]
    # Who knows more speaks first: the model ends its answer before the backend's time is over.
    assert llm["Timeout"] < backend["Timeout"]
    for name in OPERATIONS:
        operation = function_of(stack, name)
        assert operation["Runtime"] == "python3.12"
        assert operation["Environment"]["Variables"]["LLM_FUNCTION"] == stack["LlmFunctionName"]


def test_reserved_concurrency_and_snapshots(stack, template):
    """Reserved as the parameter says, on the model alone; versions get a snapshot."""
    client = boto3.client("lambda")
    reserved = {
        name: client.get_function_concurrency(FunctionName=physical_ids(stack)[name]).get(
            "ReservedConcurrentExecutions"
        )
        for name in (*TIERS, *OPERATIONS)
    }
    assert {name: int(value) for name, value in reserved.items() if value is not None} == {"LlmFunction": 4}
    llm = transform(template, PARAMETERS)["Resources"]["LlmFunction"]["Properties"]
    assert llm["SnapStart"] == {"ApplyOn": "PublishedVersions"}


def test_the_model_is_served_by_its_alias(stack):
    """`live` is a published version: $LATEST is where on_checkpoint tries things."""
    alias = boto3.client("lambda").get_alias(FunctionName=stack["LlmFunctionName"], Name="live")
    assert alias["FunctionVersion"] == "1"


def test_the_model_s_url_alone_wants_a_signature(stack, template):
    """The web tiers ask by themselves who is there; those that stream, stream; the model's URL is its alias'."""
    client, ids = boto3.client("lambda"), physical_ids(stack)
    urls = {}
    for name in TIERS:
        config = client.get_function_url_config(FunctionName=ids[name])
        urls[name] = (config["AuthType"], config["InvokeMode"])
    assert urls == {
        "FrontendFunction": ("NONE", "BUFFERED"),
        "BackendFunction": ("NONE", "RESPONSE_STREAM"),
        "LlmFunction": ("AWS_IAM", "RESPONSE_STREAM"),
    }
    url = transform(template, PARAMETERS)["Resources"]["LlmFunctionUrl"]
    assert url["Properties"]["TargetFunctionArn"] == {"Ref": "LlmFunctionAliaslive"}


def test_everybody_reaches_the_web_tiers_by_their_urls_and_nobody_the_model(stack, template):
    """A URL without a signature wants two permissions, the second for what comes by it alone; nothing else is open."""
    public = [
        each["Properties"]
        for each in transform(template, PARAMETERS)["Resources"].values()
        if each["Type"] == "AWS::Lambda::Permission" and each["Properties"]["Principal"] != "events.amazonaws.com"
    ]
    everybody = [
        permission
        for name in ("FrontendFunction", "BackendFunction")
        for permission in (
            {"Action": "lambda:InvokeFunctionUrl", "FunctionUrlAuthType": "NONE", "FunctionName": {"Ref": name}},
            {"Action": "lambda:InvokeFunction", "InvokedViaFunctionUrl": True, "FunctionName": {"Ref": name}},
        )
    ]
    in_order = partial(sorted, key=partial(json.dumps, sort_keys=True))
    assert in_order(public) == in_order([{**each, "Principal": "*"} for each in everybody])
    client, ids = boto3.client("lambda"), physical_ids(stack)
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_policy(FunctionName=ids["LlmFunction"])


def test_the_backend_invokes_the_model_by_its_url_alone(template):
    """What is behind the URL is granted for what comes through it."""
    resources = transform(template, PARAMETERS)["Resources"]
    backend = statements(resources["BackendRole"]["Properties"]["Policies"][0]["PolicyDocument"])
    [invoke] = [each for each in backend if each["Action"] == "lambda:InvokeFunction"]
    assert invoke["Condition"] == {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}}


def test_cloudfront_routes_and_signs_nothing(stack):
    """The page is the default, /api and /v1 go straight to the API, uncached and uncompressed, with their headers."""
    config = KEPT["AWS::CloudFront::Distribution"][-1]["DistributionConfig"]
    client, ids = boto3.client("lambda"), physical_ids(stack)
    for origin, name in zip(config["Origins"], ("FrontendFunction", "BackendFunction"), strict=True):
        url = client.get_function_url_config(FunctionName=ids[name])["FunctionUrl"]
        assert url.startswith(f"https://{origin['DomainName']}")
        # It would write a signature over the reader's Authorization.
        assert "OriginAccessControlId" not in origin
    default = config["DefaultCacheBehavior"]
    routes = {each["PathPattern"]: each for each in config["CacheBehaviors"]}
    assert {path: each["TargetOriginId"] for path, each in {"*": default, **routes}.items()} == {
        "*": "frontend",
        "/static/*": "frontend",
        "/api/*": "backend",
        "/v1/*": "backend",
        "/models/*": "backend",
        "/tokeniz*": "backend",
        "/detokenize": "backend",
        "/readyz": "backend",
        "/openapi.json": "backend",
    }
    for path, each in {"*": default, **routes}.items():
        assert "FunctionAssociations" not in each
        if path != "/static/*":
            # Managed-CachingDisabled, and Managed-AllViewerExceptHostHeader: keys and cookies arrive as they were sent.
            assert each["CachePolicyId"] == "4135ea2d-6df8-44a3-9df3-4b5a84be39ad"
            assert each["OriginRequestPolicyId"] == "b689b0a8-53d0-40ab-baf2-68738e2966ac"
        if each["TargetOriginId"] == "backend":
            assert each["Compress"] in (False, "false")


def test_every_path_is_answered_by_the_tier_that_knows_it(stack):
    """Also one that is new: whoever adds a route to the API or to the page need not know of the distribution."""
    config = KEPT["AWS::CloudFront::Distribution"][-1]["DistributionConfig"]
    behaviors = [*config["CacheBehaviors"], {**config["DefaultCacheBehavior"], "PathPattern": "*"}]
    # As on Lambda, where they stand behind it.
    api, page = build_app(Settings(on_lambda=True)), build_page(FrontendSettings(status_view=False))
    lost = set()
    for origin, app in (("backend", api), ("frontend", page)):
        for route in iter_route_contexts(app.routes):
            first = next(each for each in behaviors if fnmatchcase(route.path, each["PathPattern"]))
            if first["TargetOriginId"] != origin or not route.methods <= set(first["AllowedMethods"]):
                lost.add((origin, route.path))
    assert lost == {
        # Whether a process lives is asked by who started it; of all behind one name, the page's says it.
        ("backend", "/livez"),
        # Whether a text would be written is for the API to say.
        ("frontend", "/readyz"),
        # What the page relays where it stands alone.
        ("frontend", "/api/llm/stream"),
        ("frontend", "/api/llm/generate"),
        ("frontend", "/api/llm/models"),
    }


def test_the_page_asks_the_backend_and_gives_up_before_cloudfront_does(stack):
    """A form without scripts is answered in words, by who knows most: the backend, the page's server, CloudFront."""
    frontend = function_of(stack, "FrontendFunction")
    variables = {name: str(value) for name, value in frontend["Environment"]["Variables"].items()}
    settings = FrontendSettings.from_env({**variables, "SESSION_SECRET": "x" * 64, "PAGE_PASSWORD": ""})
    assert f"{settings.backend_url}/" == stack["BackendUrl"]
    assert settings.session_secrets
    longest_s = settings.backend_timeout_s + settings.backend_connect_timeout_s
    [origin, _] = KEPT["AWS::CloudFront::Distribution"][-1]["DistributionConfig"]["Origins"]
    assert longest_s < frontend["Timeout"] < int(origin["CustomOriginConfig"]["OriginReadTimeout"])


def test_who_asks_is_known_in_the_cloud(stack, template):
    """Both web tiers have the same secret, which nobody has seen; the backend finds keys in the table of this stack."""
    frontend, backend = (
        template["Resources"][name]["Properties"]["Environment"]["Variables"]
        for name in ("FrontendFunction", "BackendFunction")
    )
    assert frontend["HUGINN_AUTH"] == backend["HUGINN_AUTH"] == "on"
    assert frontend["SESSION_SECRET"] == backend["SESSION_SECRET"]
    assert frontend["SESSION_SECRET"] == {"Fn::Sub": "{{resolve:secretsmanager:${SessionSecret}}}"}
    made = template["Resources"]["SessionSecret"]["Properties"]["GenerateSecretString"]
    assert made == {"PasswordLength": 64, "ExcludePunctuation": True}
    assert made["PasswordLength"] >= 32
    assert frontend["PAGE_PASSWORD"]["Fn::If"][0] == "HasPassword"
    assert template["Parameters"]["PagePasswordSecret"]["Default"] == ""
    variables = function_of(stack, "BackendFunction")["Environment"]["Variables"]
    # moto leaves a number a number.
    texts = {name: str(value) for name, value in variables.items()}
    settings = Settings.from_env({**texts, "SESSION_SECRET": "x" * 64, "AWS_REGION": REGION})
    assert (settings.auth, settings.key_store) == ("on", f"dynamodb:{stack['KeyTable']}")
    assert settings.llm_memory_mb == 3008
    assert settings.all_sessions_quota == Quota(tokens_per_day=1_000_000)
    assert template["Parameters"]["AllSessionsTokensPerDay"]["Default"] == 0
    backend_limit = backend["ALL_SESSIONS_TOKENS_PER_DAY"]["Fn::If"]
    assert backend_limit == ["LimitsAllSessions", {"Ref": "AllSessionsTokensPerDay"}, {"Ref": "AWS::NoValue"}]


def test_the_table_of_keys_is_what_the_backend_expects(stack, template):
    """Its keys, and the attribute by which sessions' accounts go away; the backend may do with it what it does."""
    table = boto3.client("dynamodb").describe_table(TableName=stack["KeyTable"])["Table"]
    assert table["KeySchema"] == KEY_SCHEMA
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    properties = template["Resources"]["KeyTable"]["Properties"]
    assert properties["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}
    resources = transform(template, PARAMETERS)["Resources"]
    granted = [
        (name, each["Action"], each["Resource"])
        for name, role in resources.items()
        if role["Type"] == "AWS::IAM::Role"
        for each in statements(role["Properties"]["Policies"][0]["PolicyDocument"])
        if "dynamodb" in json.dumps(each)
    ]
    assert granted == [
        (
            "BackendRole",
            ["dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:Query", "dynamodb:UpdateItem"],
            {"Fn::GetAtt": ["KeyTable", "Arn"]},
        )
    ]


def test_what_fires_the_operations(stack, template):
    """The canary by the clock, on_checkpoint by config.json in this bucket, the batches by their queue."""
    events, ids = boto3.client("events"), physical_ids(stack)
    targets = {}
    for rule in events.list_rules()["Rules"]:
        [target] = events.list_targets_by_rule(Rule=rule["Name"])["Targets"]
        targets[target["Arn"].rsplit(":", 1)[1]] = rule
    # The stack is kept warm; who does not ask for that has a third of the visits.
    assert targets[ids["Canary"]]["ScheduleExpression"] == "rate(5 minutes)"
    assert template["Parameters"]["KeepWarm"]["Default"] == "false"
    schedule = template["Resources"]["Canary"]["Properties"]["Events"]["CanaryEvent"]["Properties"]["Schedule"]
    assert schedule["Fn::If"] == ["KeepsWarm", "rate(5 minutes)", "rate(15 minutes)"]
    pattern = json.loads(targets[ids["OnCheckpoint"]]["EventPattern"])
    assert pattern["detail"]["bucket"]["name"] == [stack["CheckpointBucket"]]
    assert pattern["detail"]["object"]["key"] == [{"suffix": "/config.json"}]
    variables = function_of(stack, "GenerateBatch")["Environment"]["Variables"]
    assert str(variables["LLM_RESERVED_CONCURRENCY"]) == "4"  # which moto leaves a number
    [mapping] = boto3.client("lambda").list_event_source_mappings()["EventSourceMappings"]
    queue = boto3.client("sqs").get_queue_attributes(QueueUrl=stack["BatchQueueUrl"], AttributeNames=["All"])[
        "Attributes"
    ]
    assert mapping["EventSourceArn"] == queue["QueueArn"]
    assert mapping["FunctionArn"].endswith(ids["GenerateBatch"])
    assert mapping["BatchSize"] == 1
    # A job is given to nobody else while somebody works at it.
    assert int(queue["VisibilityTimeout"]) >= function_of(stack, "GenerateBatch")["Timeout"]
    for name in ("Canary", "OnCheckpoint"):
        [statement] = json.loads(boto3.client("lambda").get_policy(FunctionName=ids[name])["Policy"])["Statement"]
        assert statement["Condition"]["ArnLike"]["AWS:SourceArn"] == targets[ids[name]]["Arn"]


@pytest.mark.parametrize("name", ["CheckpointBucket", "BatchBucket"])
def test_buckets_are_encrypted_versioned_and_private(stack, template, name):
    """And outlive the stack: nobody's weights go with it."""
    s3, bucket = boto3.client("s3"), stack[name]
    rule = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    # moto makes a bucket with its encryption and nothing else of what it is told.
    resource = template["Resources"][name]
    assert resource["Properties"]["VersioningConfiguration"] == {"Status": "Enabled"}
    blocked = resource["Properties"]["PublicAccessBlockConfiguration"]
    assert len(blocked) == 4
    assert set(blocked.values()) == {True}
    [policy] = [each["PolicyDocument"] for each in KEPT["AWS::S3::BucketPolicy"] if each["Bucket"] == bucket]
    [statement] = policy["Statement"]
    assert statement["Effect"] == "Deny"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    # But for a stack that never came to be, which has nobody's.
    assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")


def test_only_new_checkpoints_are_events(template):
    """The checkpoint bucket tells EventBridge what is new in it; the other has nobody to tell."""
    checkpoints, batches = (template["Resources"][name]["Properties"] for name in ("CheckpointBucket", "BatchBucket"))
    assert checkpoints["NotificationConfiguration"] == {"EventBridgeConfiguration": {"EventBridgeEnabled": True}}
    assert batches["NotificationConfiguration"] == {"Ref": "AWS::NoValue"}


def test_every_log_is_kept_as_long_as_asked(stack):
    """Each function writes to a group of its own, which CloudFormation made: one that Lambda makes is kept for ever."""
    groups = {each["logGroupName"]: each for each in boto3.client("logs").describe_log_groups()["logGroups"]}
    assert set(groups) == {
        f"/aws/lambda/huginn-prod-{name}"
        for name in ("frontend", "backend", "llm", "canary", "on-checkpoint", "generate-batch")
    }
    assert {int(each["retentionInDays"]) for each in groups.values()} == {30}


def test_every_function_writes_to_its_own_group(template):
    """And its role may write there."""
    resources = transform(template, PARAMETERS)["Resources"]
    functions = {name: each for name, each in resources.items() if each["Type"] == "AWS::Lambda::Function"}
    assert set(functions) == {*TIERS, *OPERATIONS}
    for function in functions.values():
        group = function["Properties"]["LoggingConfig"]["LogGroup"]["Ref"]
        role = resources[function["Properties"]["Role"]["Fn::GetAtt"][0]]
        [log] = [
            each
            for each in statements(role["Properties"]["Policies"][0]["PolicyDocument"])
            if "logs:PutLogEvents" in as_list(each["Action"])
        ]
        assert log["Resource"] == {"Fn::GetAtt": [group, "Arn"]}


# What ends in a wildcard, and why it has to.
WILDCARDS = {
    "${CheckpointBucket.Arn}/*": "a checkpoint's place in its bucket is its owner's choice",
    "${CheckpointBucket.Arn}/*/verdict.json": "the same",
    "${BatchBucket.Arn}/*": "so is a batch's",
    "${LlmFunction.Arn}:*": "a version's number is not known before it is published",
}


def test_no_role_may_do_more_than_its_work(template):
    """No action has a wildcard, no resource is everything, and no role is shared or assumed by another service."""
    resources = transform(template, PARAMETERS)["Resources"]
    roles = {name: each["Properties"] for name, each in resources.items() if each["Type"] == "AWS::IAM::Role"}
    used = [
        each["Properties"]["Role"]["Fn::GetAtt"][0]
        for each in resources.values()
        if each["Type"] == "AWS::Lambda::Function"
    ]
    assert sorted(used) == sorted(roles)
    found = set()
    for role in roles.values():
        assert "ManagedPolicyArns" not in role
        [trust] = statements(role["AssumeRolePolicyDocument"])
        assert trust["Principal"] == {"Service": "lambda.amazonaws.com"}
        for policy in role["Policies"]:
            for statement in statements(policy["PolicyDocument"]):
                assert set(statement) & {"NotAction", "NotResource"} == set()
                for action in as_list(statement["Action"]):
                    assert re.fullmatch(r"[a-z0-9]+:[A-Za-z]+", action), action
                for resource in as_list(statement["Resource"]):
                    text = json.dumps(resource)
                    assert re.match(r'\{"Fn::(Sub|GetAtt)": ', text), f"{text} is not of this stack"
                    if "*" in text:
                        found.add(resource["Fn::Sub"])
    assert found == set(WILDCARDS)


def test_the_model_is_invoked_by_those_who_must(template):
    """The backend by the URL; the canary, the batches and on_checkpoint by Lambda's API; the frontend not at all."""
    resources = transform(template, PARAMETERS)["Resources"]
    may = set()
    for name, role in resources.items():
        if role["Type"] == "AWS::IAM::Role":
            text = json.dumps(role)
            if "lambda:InvokeFunction" in text:
                assert "LlmFunction" in text
                may.add(name)
    assert may == {"BackendRole", "CanaryRole", "OnCheckpointRole", "GenerateBatchRole"}


def test_alarms_reach_somebody(stack):
    """Errors and throttles of all six, the first token, the canary, batches given up; a mail for each."""
    alarms = {each["AlarmName"]: each for each in boto3.client("cloudwatch").describe_alarms()["MetricAlarms"]}
    ids = physical_ids(stack)
    watched = {(each["Namespace"], each["MetricName"], each["Dimensions"][0]["Value"]) for each in alarms.values()}
    for name in (*TIERS, *OPERATIONS):
        for metric in ("Errors", "Throttles"):
            assert ("AWS/Lambda", metric, ids[name]) in watched
    assert ("Huginn", "TimeToFirstToken", ids["LlmFunction"]) in watched
    assert ("Huginn/Canary", "Streamed", ids["LlmFunction"]) in watched
    assert any(namespace == "AWS/SQS" for namespace, _, _ in watched)
    assert len(watched) == len(alarms) == 15
    topics = {action for each in alarms.values() for action in each["AlarmActions"]}
    subscription = KEPT["AWS::SNS::Subscription"][-1]
    assert topics == {subscription["TopicArn"]}
    assert subscription["Endpoint"] == "someone@example.org"
    [canary] = [each for each in alarms.values() if each["MetricName"] == "Streamed"]
    # A canary that does not come is no good news.
    assert canary["TreatMissingData"] == "breaching"


def test_the_budget_is_the_parameters(stack):
    """So much in a month, told at 80% of it."""
    budget = KEPT["AWS::Budgets::Budget"][-1]
    assert budget["Budget"]["BudgetLimit"] == {"Amount": 20, "Unit": "USD"}
    first = budget["NotificationsWithSubscribers"][0]
    assert first["Notification"]["Threshold"] == 80
    assert first["Subscribers"][0]["Address"] == "someone@example.org"
