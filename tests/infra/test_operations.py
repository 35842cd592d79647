"""The canary, on_checkpoint and the batches, run by Chalice's test client against moto and an emulated llm function."""

import hashlib
import importlib.util
import json
import shutil
import struct
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import boto3
import botocore.waiter
import pytest
from botocore.awsrequest import AWSResponse, HeadersDict
from botocore.exceptions import ClientError
from chalice.local import LambdaContext
from chalice.test import Client
from urllib3.exceptions import ReadTimeoutError

from infra import batch, canary, new_checkpoint
from infra.llm_function import Chunk, LlmError
from local.emulator import Emulator
from local.template import INFRA

REPOSITORY = Path(__file__).parents[2]
CHECKPOINT = REPOSITORY / "ckpts" / "muninn-char"
COMMAND = [sys.executable, "-m", "functions.runtime", "tests.infra.fake_llm.app"]


@pytest.fixture(scope="module")
def operations():
    """infra/app.py as Lambda imports it."""
    spec = importlib.util.spec_from_file_location("app", INFRA / "app.py")
    module = importlib.util.module_from_spec(spec)
    # Chalice looks its handlers up by the module's name.
    sys.modules["app"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["app"]


@pytest.fixture(scope="module")
def unwatched_queue(stack):
    """A queue in the place of the stack's, whose messages moto itself would give to the function, in a container."""
    return boto3.client("sqs").create_queue(QueueName="batches")["QueueUrl"]


@pytest.fixture
def client(stack, operations, monkeypatch, unwatched_queue):
    """The operations, with the environment that the template gives them."""
    for name, value in {
        "LLM_FUNCTION": stack["LlmFunctionName"],
        "LLM_ALIAS": "live",
        "BATCH_BUCKET": stack["BatchBucket"],
        "BATCH_QUEUE_URL": unwatched_queue,
        "LLM_RESERVED_CONCURRENCY": "-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(operations, "PAUSE_S", 0.01)
    with Client(operations.app) as client:
        yield client


@pytest.fixture
def llm(stack, monkeypatch):
    """Starts an emulated llm function, which is what Lambda's API then invokes; all else of the API stays moto's."""
    running: list[Emulator] = []
    asked: list[str] = []

    def reroute(request: Any, **_: Any) -> None:
        path = request.url.split("amazonaws.com", 1)[1]
        asked.append(path.rpartition("Qualifier=")[2])
        request.url = running[-1].url + path

    session = boto3.Session()
    session.events.register("before-sign.lambda.InvokeWithResponseStream", reroute)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", session)

    def start(**environment: str) -> list[str]:
        environment = {"PYTHONPATH": str(REPOSITORY), **environment}
        emulator = Emulator(
            COMMAND, environment, name=stack["LlmFunctionName"], max_environments=8, task_root=REPOSITORY
        )
        running.append(emulator.__enter__())
        return asked

    yield start
    for emulator in running:
        emulator.__exit__(None, None, None)


class _Body:
    """An answer's body as botocore reads it: what there is, or an exception in its place."""

    def __init__(self, content: bytes | Exception) -> None:
        self.content = content

    def stream(self):
        if isinstance(self.content, Exception):
            raise ReadTimeoutError(None, "", "Read timed out.") from self.content
        yield self.content

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def lambda_answers(stack, monkeypatch):
    """Says what Lambda's API answers when the llm function is invoked."""
    session = boto3.Session()
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", session)

    def answer(status: int, headers: dict[str, str], body: bytes | Exception) -> None:
        def respond(**_: Any) -> AWSResponse:
            return AWSResponse("https://lambda", status, HeadersDict(headers), _Body(body))

        session.events.register_first("before-send.lambda.InvokeWithResponseStream", respond)

    return answer


# The canary.


def _physical_id(logical_id: str) -> str:
    found = boto3.client("cloudformation").describe_stack_resource(
        StackName="huginn-prod", LogicalResourceId=logical_id
    )
    return found["StackResourceDetail"]["PhysicalResourceId"]


def visit(client: Client, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """One visit of the canary: the line that it writes."""
    event = client.events.generate_cw_event("aws.events", "Scheduled Event", {}, [])
    client.lambda_.invoke("canary", event)
    [line] = [each for each in capsys.readouterr().out.splitlines() if each.startswith("{")]
    return json.loads(line)


def test_a_stream_is_good_news(client, llm, capsys, stack):
    """The line is one that CloudWatch takes metrics from: every metric and dimension that it names is in it."""
    asked = llm()
    line = visit(client, capsys)
    directive = line["_aws"]["CloudWatchMetrics"][0]
    assert directive["Namespace"] == "Huginn/Canary"
    assert {each["Name"] for each in directive["Metrics"]} == {"Streamed", "FirstChunkMs"}
    assert all(name in line for each in directive["Dimensions"] for name in each)
    assert line["Function"] == stack["LlmFunctionName"]
    assert (line["Streamed"], line["Problem"]) == (1, "")
    assert line["FirstChunkMs"] > 0
    assert asked == ["live"]


@pytest.mark.parametrize(
    ("kind", "problem"), [("together", "The text came in one piece."), ("break", "function_error")]
)
def test_what_is_no_stream_is_seen(client, llm, capsys, kind, problem):
    """One piece, and a text that breaks off: neither is hidden by what has come before."""
    llm(FAKE_STREAM=kind)
    line = visit(client, capsys)
    assert line["Streamed"] == 0
    assert problem in line["Problem"]


def test_a_model_may_be_fast(client, llm, capsys):
    """Of one that is through with a short text in a moment a long text is asked, before it is called broken."""
    llm(FAKE_STREAM="fast")
    assert visit(client, capsys)["Streamed"] == 1


LAMBDA_ERRORS = {
    "ServiceException": 500,
    "EC2ThrottledException": 502,
    "ResourceNotReadyException": 502,
    "SnapStartException": 400,
    "SnapStartNotReadyException": 409,
    "SnapStartTimeoutException": 408,
}


@pytest.mark.parametrize(("code", "status"), LAMBDA_ERRORS.items())
def test_what_aws_cannot_do_now_is_seen(client, lambda_answers, capsys, code, status):
    """It is written down as any other visit without a text; a canary that failed would have written nothing."""
    lambda_answers(status, {"x-amzn-errortype": code}, b'{"message": "Later."}')
    line = visit(client, capsys)
    assert line["Streamed"] == 0
    assert line["Problem"].startswith("unavailable: ")
    assert code in line["Problem"]


def message(headers: dict[str, str], payload: bytes) -> bytes:
    """One of an event stream's."""
    pairs = b"".join(
        struct.pack(f"!B{len(n)}sBH{len(v)}s", len(n), n.encode(), 7, len(v), v.encode()) for n, v in headers.items()
    )
    lengths = struct.pack("!II", 16 + len(pairs) + len(payload), len(pairs))
    whole = lengths + struct.pack("!I", crc32(lengths)) + pairs + payload
    return whole + struct.pack("!I", crc32(whole))


EXCEPTION = message({":message-type": "error", ":error-code": "InternalError", ":error-message": "Later."}, b"")


@pytest.mark.parametrize(
    "body", [EXCEPTION, EXCEPTION[:-1] + b"!", TimeoutError()], ids=["an error", "a damaged message", "silence"]
)
def test_an_answer_that_aws_breaks_off_is_seen(client, lambda_answers, capsys, body):
    """Within a stream, too, what is a matter of the moment has one name."""
    lambda_answers(200, {"content-type": "application/vnd.amazon.eventstream"}, body)
    line = visit(client, capsys)
    assert line["Streamed"] == 0
    assert line["Problem"].startswith("unavailable: ")


@pytest.mark.parametrize(("code", "status"), [("AccessDeniedException", 403), ("ResourceNotFoundException", 404)])
def test_what_will_not_pass_is_an_error(client, lambda_answers, code, status):
    """Nobody waits for a permission to appear."""
    lambda_answers(status, {"x-amzn-errortype": code}, b"{}")
    with pytest.raises(ClientError, match=code):
        client.lambda_.invoke("canary", client.events.generate_cw_event("aws.events", "Scheduled Event", {}, []))


def test_a_busy_model_is_no_broken_stream(client, lambda_answers, capsys):
    """Where no place is free nothing is known of the stream: the line has no metric, and says why."""
    lambda_answers(429, {"x-amzn-errortype": "TooManyRequestsException"}, b"{}")
    line = visit(client, capsys)
    assert line["_aws"]["CloudWatchMetrics"] == []
    assert "Streamed" not in line
    assert line["Problem"].startswith("throttled: ")


def test_the_canary_outlives_the_silence_of_the_model(operations, stack):
    """What it saw is written down before its own time is over, also where it has waited as long as it does."""
    timeout = boto3.client("lambda").get_function_configuration(FunctionName=_physical_id("Canary"))["Timeout"]
    patience = operations.CANARY_PATIENCE
    assert patience.connect_timeout + patience.read_timeout < timeout - 10


def test_pieces_that_come_together_are_no_stream():
    """Many pieces at one time were collected somewhere."""
    assert not canary.judge([Chunk(b"a", 0.5), Chunk(b"b", 0.5001)]).streamed
    assert canary.judge([Chunk(b"a", 0.5), Chunk(b"b", 0.51)]).streamed
    assert not canary.judge([]).streamed


# on_checkpoint.


@pytest.fixture(scope="module")
def told(stack):
    """A queue in the place of on_checkpoint: what arrives there is what the stack's rule lets through."""
    s3, events, sqs = boto3.client("s3"), boto3.client("events"), boto3.client("sqs")
    # Which moto does not do from the template.
    s3.put_bucket_notification_configuration(
        Bucket=stack["CheckpointBucket"], NotificationConfiguration={"EventBridgeConfiguration": {}}
    )
    queue = sqs.create_queue(QueueName="told")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    # moto stops at targets that it does not know, and takes the canary's rule for one that wants every event.
    for rule in events.list_rules()["Rules"]:
        targets = events.list_targets_by_rule(Rule=rule["Name"])["Targets"]
        events.remove_targets(Rule=rule["Name"], Ids=[each["Id"] for each in targets])
        if "EventPattern" in rule:
            events.put_targets(Rule=rule["Name"], Targets=[{"Id": "told", "Arn": arn}])
    return queue


@pytest.fixture
def time_left(monkeypatch):
    """Lambda's 15 minutes, of which the test decides what is left; Chalice's client gives 3 s."""
    seconds = [900.0]
    monkeypatch.setattr(LambdaContext, "get_remaining_time_in_millis", lambda _: seconds[0] * 1000)
    return seconds


@pytest.fixture
def upload(stack, told, time_left):
    """Puts a checkpoint into the bucket, config.json last, and gives the event that EventBridge then makes."""
    s3, sqs, bucket = boto3.client("s3"), boto3.client("sqs"), stack["CheckpointBucket"]

    def put(name: str, folder: Path = CHECKPOINT) -> dict[str, Any]:
        for file in ("model.safetensors", "tokenizer.json", "card.md", "config.json"):
            s3.put_object(Bucket=bucket, Key=f"models/{name}/{file}", Body=(folder / file).read_bytes())
        messages = sqs.receive_message(QueueUrl=told, MaxNumberOfMessages=10).get("Messages", [])
        for each in messages:
            sqs.delete_message(QueueUrl=told, ReceiptHandle=each["ReceiptHandle"])
        seen = [json.loads(each["Body"]) for each in messages]
        assert {each["detail"]["object"]["key"] for each in seen} == {f"models/{name}/config.json"}
        return seen[0]

    return put


def served(stack) -> tuple[str, dict[str, str]]:
    """The version behind the alias, and its environment."""
    client = boto3.client("lambda")
    version = client.get_alias(FunctionName=stack["LlmFunctionName"], Name="live")["FunctionVersion"]
    found = client.get_function_configuration(FunctionName=stack["LlmFunctionName"], Qualifier=version)
    return version, found["Environment"]["Variables"]


def latest(stack) -> dict[str, str]:
    """The environment of $LATEST."""
    found = boto3.client("lambda").get_function_configuration(FunctionName=stack["LlmFunctionName"])
    return found["Environment"]["Variables"]


def kept(stack, key: str) -> dict[str, Any]:
    return json.loads(boto3.client("s3").get_object(Bucket=stack["CheckpointBucket"], Key=key)["Body"].read())


def test_a_good_checkpoint_is_served(client, llm, upload, stack):
    """Its config.json is the one event; $LATEST and the new version write text before the alias moves to it."""
    asked = llm(FAKE_MODEL="good")
    before, _ = served(stack)
    event = upload("good")
    verdict = client.lambda_.invoke("on_checkpoint", event).payload
    version, variables = served(stack)
    assert verdict["served"], verdict
    assert (verdict["version"], verdict["former_version"]) == (version, before)
    assert version != before
    assert variables["CKPT_PATH"] == f"s3://{stack['CheckpointBucket']}/models/good"
    assert variables["CHECKPOINT_DIGEST"] == hashlib.sha256((CHECKPOINT / "model.safetensors").read_bytes()).hexdigest()
    assert asked == ["%24LATEST", version]
    assert kept(stack, "models/good/verdict.json")["version"] == version
    # EventBridge may tell it twice.
    again = client.lambda_.invoke("on_checkpoint", event).payload
    assert again["served"]
    assert served(stack)[0] == version
    assert len(asked) == 2


def test_versions_that_nobody_is_served_by_are_deleted(client, llm, upload, stack, tmp_path):
    """Each snapshot costs: of ours the served one stays and the one before it; CloudFormation's is its own."""
    aws = boto3.client("lambda")

    def versions() -> list[str]:
        found = aws.list_versions_by_function(FunctionName=stack["LlmFunctionName"])["Versions"]
        return [each["Version"] for each in found if each["Version"] != "$LATEST"]

    published = []
    for name in ("first", "second", "third"):
        llm(FAKE_MODEL=name)
        published.append(client.lambda_.invoke("on_checkpoint", upload(name)).payload["version"])
    assert versions() == ["1", *published[1:]]
    # What was published for nothing goes at once.
    llm(FAKE_MODEL="fourth", FAKE_LOGPROB="nan", FAKE_SOUND_ONCE=str(tmp_path / "once"))
    assert not client.lambda_.invoke("on_checkpoint", upload("fourth")).payload["served"]
    assert versions() == ["1", *published[1:]]


def test_a_damaged_checkpoint_is_refused(client, llm, upload, stack, tmp_path):
    """One bit: nothing is changed, nobody is asked, and the reason stands beside it."""
    asked = llm()
    before = served(stack), latest(stack)
    folder = tmp_path / "damaged"
    shutil.copytree(CHECKPOINT, folder)
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    verdict = client.lambda_.invoke("on_checkpoint", upload("damaged", folder)).payload
    assert not verdict["served"]
    assert (served(stack), latest(stack)) == before
    assert asked == []
    assert "SHA-256" in kept(stack, "models/damaged/verdict.json")["reason"]


def test_a_checkpoint_that_does_not_write_is_refused(client, llm, upload, stack):
    """Its files are whole, but the smoke generation is none: $LATEST is put back, the alias never moved.

    What it becomes later is written over what it was: nobody finds two verdicts.
    """
    llm(FAKE_MODEL="unfit", FAKE_LOGPROB="nan")
    before = served(stack), latest(stack)
    event = upload("unfit")
    verdict = client.lambda_.invoke("on_checkpoint", event).payload
    assert not verdict["served"]
    assert "no number" in verdict["reason"]
    assert (served(stack), latest(stack)) == before
    assert kept(stack, "models/unfit/verdict.json") == verdict
    llm(FAKE_MODEL="unfit")
    verdict = client.lambda_.invoke("on_checkpoint", event).payload
    assert verdict["served"]
    assert kept(stack, "models/unfit/verdict.json") == verdict


@pytest.fixture
def meanwhile(monkeypatch):
    """Has somebody do something just before a smoke generation, the first or, with a version, the second."""

    def arrange(act: Callable[[], Any], *, version: bool = False) -> None:
        smoke_test = new_checkpoint.Deployment._smoke_test

        def acting(self: Any, qualifier: str, facts: Any) -> None:
            if (qualifier != "$LATEST") == version:
                act()
            smoke_test(self, qualifier, facts)

        monkeypatch.setattr(new_checkpoint.Deployment, "_smoke_test", acting)

    return arrange


def version_numbers(stack) -> list[str]:
    found = boto3.client("lambda").list_versions_by_function(FunctionName=stack["LlmFunctionName"])["Versions"]
    return [each["Version"] for each in found]


def test_an_alias_that_somebody_else_moves_is_left(client, llm, upload, stack, meanwhile):
    """AWS refuses the second change; the environment is put back, and the error is told, so that it comes again."""
    llm(FAKE_MODEL="late")
    before = served(stack), latest(stack), version_numbers(stack)
    change = {"FunctionName": stack["LlmFunctionName"], "Name": "live", "Description": "theirs"}
    meanwhile(lambda: boto3.client("lambda").update_alias(**change), version=True)
    with pytest.raises(ClientError, match=r"PreconditionFailed.* UpdateAlias "):
        client.lambda_.invoke("on_checkpoint", upload("late"))
    assert (served(stack), latest(stack), version_numbers(stack)) == before


def test_what_aws_cannot_do_now_is_no_fault_of_the_checkpoint(client, lambda_answers, upload, stack):
    """Neither served nor refused: the environment is put back, and the event comes again."""
    lambda_answers(500, {"x-amzn-errortype": "ServiceException"}, b"{}")
    before = served(stack), latest(stack)
    event = upload("unlucky")
    with pytest.raises(LlmError, match="ServiceException"):
        client.lambda_.invoke("on_checkpoint", event)
    assert (served(stack), latest(stack)) == before
    with pytest.raises(ClientError, match="NoSuchKey"):
        kept(stack, "models/unlucky/refused.json")


def test_a_change_by_somebody_else_is_not_overwritten(client, llm, upload, stack, monkeypatch):
    """Of two who change $LATEST at a time AWS refuses the second; nothing is changed, and it is tried again."""
    llm(FAKE_MODEL="second")
    event = upload("second")
    turn = new_checkpoint.Deployment._turn

    def overtaken(self: Any, checkpoint: Any) -> Any:
        found = turn(self, checkpoint)
        configure(stack, {"CKPT_PATH": "theirs"})
        return found

    monkeypatch.setattr(new_checkpoint.Deployment, "_turn", overtaken)
    before = served(stack)
    with pytest.raises(ClientError, match=r"PreconditionFailed.* UpdateFunctionConfiguration "):
        client.lambda_.invoke("on_checkpoint", event)
    assert (served(stack), latest(stack)) == (before, {"CKPT_PATH": "theirs"})
    configure(stack, before[1])


def configure(stack, variables: dict[str, str]) -> None:
    """Change $LATEST, as somebody else does."""
    aws = boto3.client("lambda")
    aws.update_function_configuration(FunctionName=stack["LlmFunctionName"], Environment={"Variables": variables})


def test_who_is_overtaken_undoes_nothing_of_the_others(client, llm, upload, stack, meanwhile):
    """It was no fault of the checkpoint: no verdict, another attempt; what the other changed and published stays."""
    llm(FAKE_MODEL="theirs")
    before, theirs = served(stack), {"CKPT_PATH": "theirs", "METRICS_PORT": "0"}
    published = []

    def overtake() -> None:
        configure(stack, theirs)
        description = f"{new_checkpoint.DESCRIPTION}theirs"
        answer = boto3.client("lambda").publish_version(FunctionName=stack["LlmFunctionName"], Description=description)
        published.append(answer["Version"])

    meanwhile(overtake)
    with pytest.raises(new_checkpoint.OvertakenError, match="serves 'theirs', expected 'mine'"):
        client.lambda_.invoke("on_checkpoint", upload("mine"))
    assert (served(stack), latest(stack)) == (before, theirs)
    assert published[0] in version_numbers(stack)
    with pytest.raises(ClientError, match="NoSuchKey"):
        kept(stack, "models/mine/verdict.json")
    configure(stack, before[1])


def test_a_younger_version_is_not_deleted(client, llm, upload, stack, meanwhile):
    """Who publishes after us is about to serve it."""
    llm(FAKE_MODEL="older")
    published = []

    def overtake() -> None:
        configure(stack, latest(stack) | {"CKPT_PATH": "theirs"})
        description = f"{new_checkpoint.DESCRIPTION}theirs"
        answer = boto3.client("lambda").publish_version(FunctionName=stack["LlmFunctionName"], Description=description)
        published.append(answer["Version"])

    meanwhile(overtake, version=True)
    verdict = client.lambda_.invoke("on_checkpoint", upload("older")).payload
    assert int(verdict["version"]) < int(published[0])
    assert {verdict["version"], published[0]} <= set(version_numbers(stack))
    configure(stack, served(stack)[1])


def test_one_at_a_time_is_tried(client, llm, upload, stack, time_left, monkeypatch):
    """The second waits for its turn, and if it takes too long leaves it to another attempt; nothing is changed."""
    asked = llm(FAKE_MODEL="patient")
    before = served(stack)
    theirs = {"CKPT_PATH": "theirs", "METRICS_PORT": "0"}
    configure(stack, theirs)
    # moto leaves it as it was made.
    monkeypatch.setattr(new_checkpoint, "_age_s", lambda _: 1.0)
    waits = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        time_left[0] -= 100

    monkeypatch.setattr(new_checkpoint.time, "sleep", wait)
    event = upload("patient")
    with pytest.raises(new_checkpoint.OvertakenError, match="changed by somebody else"):
        client.lambda_.invoke("on_checkpoint", event)
    assert (served(stack), latest(stack), asked) == (before, theirs, [])
    assert len(waits) > 1
    # The other is done.
    time_left[0] = 900
    monkeypatch.setattr(new_checkpoint.time, "sleep", lambda _: configure(stack, before[1]))
    assert client.lambda_.invoke("on_checkpoint", event).payload["served"]


def test_what_lambda_has_ended_is_not_put_back(client, llm, upload, stack, monkeypatch):
    """A former attempt that was ended left its checkpoint on $LATEST: what is served is what is gone back to."""
    llm(FAKE_MODEL="ended", FAKE_LOGPROB="nan")
    before = served(stack)
    monkeypatch.setattr(new_checkpoint, "LONGEST_TRIAL_S", 0.0)
    configure(stack, before[1] | {"CKPT_PATH": "s3://never/tried", "CHECKPOINT_DIGEST": "1" * 64})
    assert not client.lambda_.invoke("on_checkpoint", upload("ended")).payload["served"]
    assert (served(stack), latest(stack)) == (before, before[1])


def test_there_is_time_to_put_everything_back(client, llm, upload, stack, time_left, monkeypatch, operations):
    """A snapshot that takes for ever is waited for no longer than a minute before Lambda ends us: and that is told."""
    llm(FAKE_MODEL="slow")
    before = served(stack), latest(stack), version_numbers(stack)
    pending: list[str] = []

    def never_active(parsed: dict[str, Any], **_: Any) -> None:
        if parsed.get("Description", "").endswith("models/slow"):
            pending.append("")
            parsed["State"] = "Pending"

    def pass_time(seconds: float) -> None:
        # AWS's answer takes time as well.
        time_left[0] -= seconds + 1

    event = upload("slow")
    boto3.DEFAULT_SESSION.events.register("after-call.lambda.GetFunctionConfiguration", never_active)
    monkeypatch.setattr(botocore.waiter.time, "sleep", pass_time)
    monkeypatch.setattr(operations, "PAUSE_S", 5.0)
    verdict = client.lambda_.invoke("on_checkpoint", event).payload
    assert len(pending) > 10
    assert time_left[0] >= 55
    assert not verdict["served"]
    assert "Max attempts exceeded" in verdict["reason"]
    assert (served(stack), latest(stack), version_numbers(stack)) == before


def test_a_model_that_does_not_answer_is_given_up_in_time(client, llm, upload, stack, time_left):
    """A minute before Lambda ends us nobody waits any more: everything is as it was, and it comes again."""
    llm(FAKE_MODEL="hangs", FAKE_DELAY_S="2")
    before = served(stack), latest(stack)
    time_left[0] = new_checkpoint.RESERVE_S + 1
    with pytest.raises(LlmError, match="timed out"):
        client.lambda_.invoke("on_checkpoint", upload("hangs"))
    assert (served(stack), latest(stack)) == before


def test_a_version_that_cannot_be_deleted_hides_no_verdict(client, llm, upload, stack):
    """AWS refuses while it is at the snapshot; a later checkpoint's attempt deletes it."""
    llm(FAKE_MODEL="kept")

    def conflict(**_: Any) -> Any:
        raise ClientError({"Error": {"Code": "ResourceConflictException", "Message": "busy"}}, "DeleteFunction")

    event = upload("kept")
    boto3.DEFAULT_SESSION.events.register("before-call.lambda.DeleteFunction", conflict)
    boto3.DEFAULT_SESSION.events.register("before-call.lambda.ListVersionsByFunction", conflict)
    verdict = client.lambda_.invoke("on_checkpoint", event).payload
    assert verdict["served"]
    assert kept(stack, "models/kept/verdict.json") == verdict


def test_a_deployment_says_nothing_of_a_digest(template):
    """CloudFormation sets the whole environment, so no digest stands beside the path of another checkpoint."""
    variables = template["Resources"]["LlmFunction"]["Properties"]["Environment"]["Variables"]
    assert new_checkpoint.CKPT_PATH in variables
    assert new_checkpoint.DIGEST not in variables


# What each may do.

ACTIONS = {
    "lambda:InvokeWithResponseStream": "lambda:InvokeFunction",
    "s3:HeadObject": "s3:GetObject",
    "s3:ListObjectsV2": "s3:ListBucket",
}
"""Of operations, the actions that they need; the others are actions themselves."""


@pytest.fixture
def asked_of_aws():
    """Runs something, and gives the actions that AWS would have had to allow."""

    def record(run: Callable[[], Any]) -> set[str]:
        operations: set[str] = set()

        def note(event_name: str, **_: Any) -> None:
            _, service, operation = event_name.split(".")
            operations.add(f"{service}:{operation}")

        # The clients are made when the operation runs, and take over what the session has then.
        boto3.DEFAULT_SESSION.events.register("before-call", note)
        try:
            run()
        finally:
            boto3.DEFAULT_SESSION.events.unregister("before-call", note)
        return {ACTIONS.get(each, each) for each in operations}

    return record


def allowed(name: str) -> set[str]:
    policy = json.loads((INFRA / ".chalice" / f"policy-{name}.json").read_text("utf-8"))
    actions = [each["Action"] for each in policy["Statement"]]
    return {action for each in actions for action in ([each] if isinstance(each, str) else each)}


def test_each_may_do_what_it_does(
    client, llm, upload, stack, asked_of_aws, enough_time, monkeypatch, operations, unwatched_queue, tmp_path
):
    """Whatever an operation asks of AWS its policy allows; what a policy allows of the model, the operation does."""
    llm(FAKE_MODEL="allowed")
    good, damaged = upload("allowed"), upload("allowed-too")
    event = client.events.generate_cw_event("aws.events", "Scheduled Event", {}, [])
    assert asked_of_aws(lambda: client.lambda_.invoke("canary", event)) <= allowed("canary")

    done = asked_of_aws(lambda: client.lambda_.invoke("on_checkpoint", good))
    assert done <= allowed("on-checkpoint")
    llm(FAKE_MODEL="allowed-too", FAKE_LOGPROB="nan", FAKE_SOUND_ONCE=str(tmp_path / "once"))
    done |= asked_of_aws(lambda: client.lambda_.invoke("on_checkpoint", damaged))
    assert done <= allowed("on-checkpoint")
    assert {each for each in allowed("on-checkpoint") if each.startswith("lambda:")} <= done

    message = order(client, stack, "allowed.jsonl", [json.dumps({"prompt": f"p{n}"}) for n in range(9)])
    done = asked_of_aws(lambda: consume(client, message))
    monkeypatch.setattr(operations.BatchWriter, "run", lambda *_: False)
    done |= asked_of_aws(lambda: consume(client, message))
    boto3.client("sqs").purge_queue(QueueUrl=unwatched_queue)
    assert {"s3:ListBucket", "sqs:SendMessage"} <= done <= allowed("generate-batch")


# Batches.


def order(client: Client, stack, name: str, lines: list[str]) -> str:
    """Put a file of requests, and give the message that asks for its answers."""
    boto3.client("s3").put_object(Bucket=stack["BatchBucket"], Key=f"in/{name}", Body="\n".join(lines).encode())
    return json.dumps({"input": f"in/{name}", "output": f"out/{name}"})


def consume(client: Client, *messages: str) -> None:
    """Have the consumer take messages, as Lambda gives them to it."""
    client.lambda_.invoke("generate_batch", client.events.generate_sqs_event(list(messages)))


def answers(stack, name: str) -> list[dict[str, Any]]:
    body = boto3.client("s3").get_object(Bucket=stack["BatchBucket"], Key=f"out/{name}")["Body"].read()
    return [json.loads(line) for line in body.decode().splitlines()]


@pytest.fixture
def enough_time(monkeypatch):
    """Lambda gives 15 minutes; Chalice's client gives what a stage's configuration says, which is less."""
    monkeypatch.setattr(batch, "LONGEST_ATTEMPT_S", float("-inf"))


def prompts_seen(log: Path) -> list[str]:
    return [json.loads(line) for line in log.read_text("utf-8").splitlines()]


def test_every_line_has_its_answer(client, llm, stack, tmp_path, enough_time):
    """In order, with its number and id; what cannot be answered says why, and does not stop the others."""
    llm(FAKE_LOG=str(tmp_path / "log"))
    lines = [json.dumps({"prompt": f"p{number}", "id": f"n{number}"}) for number in range(18)]
    lines[3] = "no json"
    lines[5] = json.dumps({"prompt": "refuse"})
    lines[7] = json.dumps({"prompt": f"fail once {tmp_path / 'marker'}"})
    lines[9] = ""
    consume(client, order(client, stack, "all.jsonl", lines))
    found = answers(stack, "all.jsonl")
    assert [each["line"] for each in found] == [number for number in range(1, 19) if number != 10]
    by_line = {each["line"]: each for each in found}
    assert (by_line[1]["id"], by_line[1]["text"]) == ("n0", "p0!")
    assert by_line[4]["error"]["code"] == "invalid_json"
    assert by_line[6]["error"] == {"code": "invalid_prompt", "message": "It says refuse."}
    assert by_line[8]["text"].startswith("fail once")
    asked = prompts_seen(tmp_path / "log")
    assert sorted(set(asked)) == sorted({json.loads(line)["prompt"] for line in lines if line.startswith("{")})
    assert len(asked) == 16 + 1


def test_a_message_that_comes_twice_is_answered_once(client, llm, stack, tmp_path, enough_time):
    """After the first, nobody is asked again; the answers stay those that they were."""
    llm(FAKE_LOG=str(tmp_path / "log"))
    message = order(client, stack, "twice.jsonl", [json.dumps({"prompt": f"p{n}"}) for n in range(9)])
    consume(client, message)
    first = answers(stack, "twice.jsonl")
    # Whoever tidies up the parts of what is finished does not have it written again.
    s3, bucket = boto3.client("s3"), stack["BatchBucket"]
    parts = s3.list_objects_v2(Bucket=bucket, Prefix="out/twice.jsonl.parts/")["Contents"]
    assert len(parts) == 2
    for part in parts:
        s3.delete_object(Bucket=bucket, Key=part["Key"])
    consume(client, message)
    assert answers(stack, "twice.jsonl") == first
    assert len(prompts_seen(tmp_path / "log")) == 9


def test_two_at_the_same_time_write_each_line_once(client, stack, operations, monkeypatch, enough_time):
    """SQS may give a message to two consumers: what one has written is what the other finds, though texts are drawn."""
    monkeypatch.setattr(operations, "LlmFunction", lambda *_: _Model())
    message = order(client, stack, "race.jsonl", [json.dumps({"prompt": f"p{n}"}) for n in range(17)])
    event = client.events.generate_sqs_event([message])
    # Not through the client, which exchanges os.environ for the time of a call.
    consumer = operations.app.handler_map["generate_batch"]
    keep, faster = batch.BatchWriter._keep, []

    def overtaken(self: batch.BatchWriter, key: str, part: bytes) -> None:
        if not faster:
            faster.append(None)
            consumer(event, LambdaContext("generate_batch", 512))
            faster[0] = answers(stack, "race.jsonl")
        keep(self, key, part)

    monkeypatch.setattr(batch.BatchWriter, "_keep", overtaken)
    consumer(event, LambdaContext("generate_batch", 512))
    assert [each["line"] for each in faster[0]] == list(range(1, 18))
    assert answers(stack, "race.jsonl") == faster[0]


def test_of_two_parts_the_first_is_kept(stack):
    """Drawn texts differ: what has once been an answer stays it."""
    s3, bucket = boto3.client("s3"), stack["BatchBucket"]
    writer = batch.BatchWriter(s3, bucket, function=None)
    for part in (b"first", b"second"):
        writer._keep("out/part.jsonl", part)
    assert s3.get_object(Bucket=bucket, Key="out/part.jsonl")["Body"].read() == b"first"


def test_what_there_is_no_time_for_is_sent_on(client, llm, stack, tmp_path, monkeypatch, operations, unwatched_queue):
    """After one part the time is over: the rest is another message's, which asks for nothing twice."""
    log = tmp_path / "log"
    llm(FAKE_LOG=str(log))
    message = order(client, stack, "long.jsonl", [json.dumps({"prompt": f"p{n}"}) for n in range(20)])
    left = [lambda: 1000.0 if not log.exists() or len(prompts_seen(log)) < 8 else 10.0, lambda: 1000.0]
    monkeypatch.setattr(operations, "BatchWriter", lambda *given: _Hurried(batch.BatchWriter(*given), left.pop(0)))
    consume(client, message)
    assert len(prompts_seen(log)) == 8
    [sent] = boto3.client("sqs").receive_message(QueueUrl=unwatched_queue)["Messages"]
    assert json.loads(sent["Body"]) == json.loads(message)
    consume(client, sent["Body"])
    assert [each["line"] for each in answers(stack, "long.jsonl")] == list(range(1, 21))
    assert len(prompts_seen(log)) == 20


class _Hurried:
    """A writer whose time is what the test says."""

    def __init__(self, writer: batch.BatchWriter, seconds_left: Any) -> None:
        self._writer, self._seconds_left = writer, seconds_left

    def run(self, job: batch.Job, _: Any) -> bool:
        return self._writer.run(job, self._seconds_left)


class _Model:
    """Draws texts, and has none for the prompts that a test says.

    Args:
        errors: by prompt, the code of what is said instead.
    """

    def __init__(self, **errors: str) -> None:
        self.errors, self.asked, self.at_a_time = errors, [], 0
        self._running, self._lock = 0, threading.Lock()

    def generate(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self._running += 1
            self.at_a_time = max(self.at_a_time, self._running)
        time.sleep(0.005)
        with self._lock:
            self._running -= 1
        self.asked.append(request["prompt"])
        if code := self.errors.get(request["prompt"]):
            raise LlmError(code, "Come again.", retryable=True)
        return {"text": uuid.uuid4().hex}


class _Run:
    """A writer with Lambda's 15 minutes, of which pauses alone take any."""

    def __init__(self, stack: Any, model: _Model, width: int = 4) -> None:
        self.pauses: list[float] = []
        s3 = boto3.client("s3")
        self.writer = batch.BatchWriter(s3, stack["BatchBucket"], model, width, self.pauses.append)

    def do(self, name: str, prompts: list[str], seconds: float = 900) -> bool:
        lines = "\n".join(json.dumps({"prompt": each}) for each in prompts)
        self.writer.s3_client.put_object(Bucket=self.writer.bucket, Key=f"in/{name}", Body=lines.encode())
        self.pauses.clear()
        return self.writer.run(batch.Job(f"in/{name}", f"out/{name}"), lambda: seconds - sum(self.pauses))


@pytest.mark.parametrize("code", ["throttled", "unavailable", "queue_full"])
def test_who_is_busy_is_waited_for(stack, code):
    """Longer from time to time, while an attempt still fits into the time left; the other lines are not lost."""
    model, prompts = _Model(p3=code), [f"p{n}" for n in range(8)]
    run = _Run(stack, model)
    assert not run.do(f"busy-{code}.jsonl", prompts)
    assert run.pauses == [1, 2, 4, 8, 16, 32, *[60] * 8]
    assert 900 - sum(run.pauses) >= batch.LONGEST_ATTEMPT_S
    model.errors.clear()
    before = len(model.asked)
    assert run.do(f"busy-{code}.jsonl", prompts)
    assert model.asked[before:] == ["p3"]
    assert [each["line"] for each in answers(stack, f"busy-{code}.jsonl")] == list(range(1, 9))


def test_a_job_that_gets_nowhere_is_given_up(stack):
    """A run without one line answered has failed, so that SQS counts it; what goes on for ever costs for ever."""
    with pytest.raises(LlmError) as failure:
        _Run(stack, _Model(p0="throttled", p1="throttled")).do("nowhere.jsonl", ["p0", "p1"])
    assert failure.value.code == "throttled"


def test_a_line_that_fails_does_not_take_others_with_it(stack):
    """It is tried three times, then the job comes again; what its neighbours have cost is not paid again."""
    model, prompts = _Model(p2="function_error"), ["p0", "p1", "p2", "p3"]
    run = _Run(stack, model)
    with pytest.raises(LlmError, match="Come again"):
        run.do("poison.jsonl", prompts)
    assert sorted(model.asked) == ["p0", "p1", "p2", "p2", "p2", "p3"]
    model.errors.clear()
    assert run.do("poison.jsonl", prompts)
    assert model.asked[6:] == ["p2"]


def test_no_attempt_begins_that_could_not_end(stack):
    """Before each there is as much time as the llm function may take; where there is less, what was done is kept."""
    model = _Model(p1="throttled")
    run = _Run(stack, model, width=1)
    assert not run.do("short.jsonl", ["p0", "p1", "p2"], seconds=batch.LONGEST_ATTEMPT_S + 2)
    assert (model.asked, run.pauses) == (["p0", "p1", "p1", "p2"], [1])
    assert not run.do("short.jsonl", ["p0", "p1", "p2"], seconds=batch.LONGEST_ATTEMPT_S - 1)
    assert len(model.asked) == 4


def test_readers_have_half_of_the_places(stack):
    """Both consumers together take the other half; each takes one at least, and not more than eight."""
    widths = {reserved: batch.width_for(reserved) for reserved in (-1, 0, 1, 4, 8, 20, 1000)}
    assert widths == {-1: 4, 0: 1, 1: 1, 4: 1, 8: 2, 20: 5, 1000: 8}
    model = _Model()
    assert _Run(stack, model, width=2).do("width.jsonl", [f"p{n}" for n in range(16)])
    assert model.at_a_time <= 2


@pytest.mark.parametrize(
    "body", ["", "[]", '{"input": "a"}', '{"input": "a", "output": "a"}', '{"input": 1, "output": ""}']
)
def test_a_message_that_is_no_job_is_refused(body):
    """In words, before anything is read or written."""
    with pytest.raises(batch.JobError, match=r"input|JSON"):
        batch.Job.from_message(body)
