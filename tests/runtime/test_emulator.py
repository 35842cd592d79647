"""The emulator does what AWS documents, as seen by AWS's own clients on both sides: awslambdaric below, boto3 above."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.undisturbed import undisturbed


@undisturbed
def test_a_request_becomes_an_event_and_the_answer_a_response(run_plain, http):
    """Path, query, headers, cookies and body arrive; status, headers, cookies and body come back."""
    with run_plain("echo") as emulator:
        answer = http.post(
            f"{emulator.url}/a%20b?x=1&x=2&y=", headers={"X-One": "1", "cookie": "c=3; d=4"}, json={"k": "é"}
        )
        binary = http.post(emulator.url, content=b"\xff", headers={"content-type": "image/png"}).json()["event"]
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


@undisturbed
def test_a_process_has_one_invocation_at_a_time_and_a_third_request_is_refused(run_plain, http, lambda_client):
    """Two environments serve two requests at once; who comes then gets a 429, and later is served again."""
    with run_plain("sleep", max_environments=2) as emulator, ThreadPoolExecutor(2) as pool:
        slow = [pool.submit(http.get, f"{emulator.url}/?s=0.5") for _ in range(2)]
        while len(emulator.invocations) < 2 or not all(each.deadline_ms for each in emulator.invocations):
            time.sleep(0.01)
        refused = http.get(f"{emulator.url}/?s=0")
        client = lambda_client(emulator)
        with pytest.raises(client.exceptions.TooManyRequestsException):
            client.invoke(FunctionName="function", Payload=b"{}")
        assert [each.result().text for each in slow] == ["slept", "slept"]
        assert http.get(f"{emulator.url}/?s=0").text == "slept"
        assert len({environment.pid for environment in emulator.environments}) == 2
    assert refused.status_code == 429
    assert refused.json()["message"] == "Rate Exceeded."


def test_an_environment_serves_again_and_again(run_plain, http):
    """The process of the first request is that of the second."""
    with run_plain("echo") as emulator:
        assert http.get(emulator.url).json()["process"] == http.get(emulator.url).json()["process"]


@undisturbed
def test_time_out_kills_the_process(run_plain, http):
    """Who takes longer than the function may is ended with a 502, and a new process serves the next request."""
    with run_plain("sleep", timeout_s=0.4, max_environments=1) as emulator:
        assert http.get(f"{emulator.url}/?s=30").status_code == 502
        assert emulator.invocations[0].failure.error_type == "Sandbox.Timedout"
        assert http.get(f"{emulator.url}/?s=0").text == "slept"


@pytest.mark.parametrize(("handler", "error"), [("fail", "ValueError"), ("leave", "exit status 3")])
def test_a_failure_is_told(run_plain, http, lambda_client, handler, error):
    """By a 502 to a browser, and in full to Lambda's API."""
    with run_plain(handler) as emulator:
        client = lambda_client(emulator)
        assert http.get(emulator.url).status_code == 502
        answer = client.invoke(FunctionName="function", Payload=b"{}")
        assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
        assert error in answer["Payload"].read().decode()
        events = list(client.invoke_with_response_stream(FunctionName="function", Payload=b"{}")["EventStream"])
        assert error in events[-1]["InvokeComplete"]["ErrorDetails"]


def test_lambdas_own_api_by_name_version_and_arn(run_plain, lambda_client):
    """The payload arrives and comes back as it is, in one piece and as a stream of events."""
    with run_plain("echo", name="llm") as emulator:
        client = lambda_client(emulator)
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
