"""The emulator does what AWS documents, as seen by AWS's own clients on both sides: awslambdaric below, boto3 above."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import boto3
import httpx
import pytest
from botocore.config import Config

from tests.runtime.emulator import Emulator

FOLDER = Path(__file__).parent / "emulated"


@contextmanager
def emulated(handler: str, **options):
    """A function of plain_handlers, run by awslambdaric."""
    command = [sys.executable, "-m", "awslambdaric", f"plain_handlers.{handler}"]
    with Emulator(command, {"PYTHONPATH": str(FOLDER)}, task_root=FOLDER, **options) as emulator:
        yield emulator


@contextmanager
def lambda_client(emulator):
    """boto3's client of the emulator, which asks once."""
    client = boto3.client(
        "lambda",
        endpoint_url=emulator.url,
        region_name="eu-west-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(retries={"total_max_attempts": 1}),
    )
    try:
        yield client
    finally:
        client.close()


def test_a_request_becomes_an_event_and_the_answer_a_response():
    """Path, query, headers, cookies and body arrive; status, headers, cookies and body come back."""
    with emulated("echo") as emulator:
        answer = httpx.post(
            f"{emulator.url}/a%20b?x=1&x=2&y=", headers={"X-One": "1", "cookie": "c=3; d=4"}, json={"k": "é"}
        )
        binary = httpx.post(emulator.url, content=b"\xff", headers={"content-type": "image/png"}).json()["event"]
    assert answer.status_code == 201
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
    event = answer.json()["event"]
    assert event["version"] == "2.0"
    assert event["rawPath"] == event["requestContext"]["http"]["path"] == "/a b"
    assert event["rawQueryString"] == "x=1&x=2&y="
    assert event["queryStringParameters"] == {"x": "1,2", "y": ""}
    assert event["headers"]["x-one"] == "1"
    assert event["cookies"] == ["c=3", "d=4"]
    assert (event["body"], event["isBase64Encoded"]) == ('{"k":"é"}', False)
    assert ".lambda-url." in event["requestContext"]["domainName"]
    assert (binary["body"], binary["isBase64Encoded"]) == ("/w==", True)
    assert 29_000 < answer.json()["left_ms"] <= 30_000


def test_a_process_has_one_invocation_at_a_time_and_a_third_request_is_refused():
    """Two environments serve two requests at once; who comes then gets a 429, and later is served again."""
    with emulated("sleep", max_environments=2) as emulator, ThreadPoolExecutor(2) as pool:
        slow = [pool.submit(httpx.get, f"{emulator.url}/?s=1") for _ in range(2)]
        while len(emulator.invocations) < 2 or not all(each.deadline_ms for each in emulator.invocations):
            threading.Event().wait(0.01)
        refused = httpx.get(f"{emulator.url}/?s=0")
        with lambda_client(emulator) as client, pytest.raises(client.exceptions.TooManyRequestsException):
            client.invoke(FunctionName="function", Payload=b"{}")
        assert [each.result().text for each in slow] == ["slept", "slept"]
        assert httpx.get(f"{emulator.url}/?s=0").text == "slept"
        assert len({environment.pid for environment in emulator.environments}) == 2
    assert refused.status_code == 429
    assert refused.json()["message"] == "Rate Exceeded."


def test_an_environment_serves_again_and_again():
    """The process of the first request is that of the second."""
    with emulated("echo") as emulator:
        assert httpx.get(emulator.url).json()["process"] == httpx.get(emulator.url).json()["process"]


def test_time_out_kills_the_process():
    """Who takes longer than the function may is ended with a 502, and a new process serves the next request."""
    with emulated("sleep", timeout_s=0.4, max_environments=1) as emulator:
        assert httpx.get(f"{emulator.url}/?s=30").status_code == 502
        assert emulator.invocations[0].failure.error_type == "Sandbox.Timedout"
        assert httpx.get(f"{emulator.url}/?s=0").text == "slept"


@pytest.mark.parametrize(("handler", "error"), [("fail", "ValueError"), ("leave", "exit status 3")])
def test_a_failure_is_told(handler, error):
    """By a 502 to a browser, and in full to Lambda's API."""
    with emulated(handler) as emulator, lambda_client(emulator) as client:
        assert httpx.get(emulator.url).status_code == 502
        answer = client.invoke(FunctionName="function", Payload=b"{}")
        assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
        assert error in answer["Payload"].read().decode()
        events = list(client.invoke_with_response_stream(FunctionName="function", Payload=b"{}")["EventStream"])
        assert error in events[-1]["InvokeComplete"]["ErrorDetails"]


def test_lambdas_own_api_by_name_version_and_arn():
    """The payload arrives and comes back as it is, in one piece and as a stream of events."""
    with emulated("echo", name="llm") as emulator, lambda_client(emulator) as client:
        arn = "arn:aws:lambda:eu-west-1:123456789012:function:llm:live"
        answer = client.invoke(FunctionName=arn, Payload=b'{"a": 1}')
        assert answer["ExecutedVersion"] == "live"
        assert b'\\"a\\": 1' in answer["Payload"].read()
        stream = client.invoke_with_response_stream(FunctionName="llm", Qualifier="live", Payload=b'{"a": 2}')
        *chunks, complete = stream["EventStream"]
        assert b'\\"a\\": 2' in b"".join(chunk["PayloadChunk"]["Payload"] for chunk in chunks)
        assert complete == {"InvokeComplete": {}}
        assert client.invoke(FunctionName="llm", InvocationType="Event", Payload=b"{}")["StatusCode"] == 202
        with pytest.raises(client.exceptions.ResourceNotFoundException):
            client.invoke(FunctionName="another", Payload=b"{}")
