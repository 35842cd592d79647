"""What Lambda hands over, and how the app sees it."""

import json
import re

import pytest

from functions.runtime.tracing import traceparent

HTTP_API = {
    "version": "2.0",
    "routeKey": "$default",
    "rawPath": "/echo",
    "rawQueryString": "a=1",
    "headers": {"x-one": "1", "host": "abc.execute-api.eu-west-1.amazonaws.com"},
    "requestContext": {
        "domainName": "abc.execute-api.eu-west-1.amazonaws.com",
        "http": {"method": "POST", "path": "/echo", "sourceIp": "1.2.3.4"},
        "stage": "$default",
    },
    "body": "e30=",
    "isBase64Encoded": True,
}
REST_API = {
    "resource": "/{proxy+}",
    "path": "/echo",
    "httpMethod": "POST",
    "headers": {"X-One": "1"},
    "multiValueHeaders": {"X-One": ["1"]},
    "queryStringParameters": {"a": "1"},
    "multiValueQueryStringParameters": {"a": ["1"]},
    "requestContext": {"identity": {"sourceIp": "1.2.3.4"}, "stage": "prod"},
    "body": "{}",
    "isBase64Encoded": False,
}
LOAD_BALANCER = {
    "requestContext": {"elb": {"targetGroupArn": "arn"}},
    "httpMethod": "POST",
    "path": "/echo",
    "queryStringParameters": {"a": "1"},
    "headers": {"x-one": "1"},
    "body": "{}",
    "isBase64Encoded": False,
}
NAMED = {"HTTP API": HTTP_API, "REST API": REST_API, "load balancer": LOAD_BALANCER}


def invoke(client, event) -> dict:
    return json.loads(client.invoke(FunctionName="function", Payload=json.dumps(event))["Payload"].read())


def test_function_url(run, http):
    """Method, path, query, headers and body, and the invocation's id in the context."""
    with run() as emulator:
        seen = http.put(f"{emulator.url}/echo?a=1&b=%20", headers={"X-One": "1"}, content=b"hello").json()
        assert seen["request_id"] == emulator.invocations[0].request_id
    assert (seen["method"], seen["path"], seen["query"], seen["body"]) == ("PUT", "/echo", "a=1&b=%20", "hello")
    assert seen["headers"]["x-one"] == "1"


def test_a_large_event(run, http):
    """Lambda hands it over in chunks; it arrives whole."""
    body = "é" * 200_000
    with run() as emulator:
        assert http.post(emulator.url, content=body, headers={"content-type": "text/plain"}).json()["body"] == body


@pytest.mark.parametrize("source", NAMED)
def test_sources_that_take_one_body(run, lambda_client, source):
    """They get the answer as they want it, though the app streams."""
    with run() as emulator:
        client = lambda_client(emulator)
        answer = invoke(client, NAMED[source])
        headed = invoke(client, json.loads(json.dumps(NAMED[source]).replace("/echo", "/headed")))
    seen = json.loads(answer["body"])
    assert (answer["statusCode"], answer["isBase64Encoded"]) == (200, False)
    assert (seen["method"], seen["path"], seen["query"], seen["body"]) == ("POST", "/echo", "a=1", "{}")
    assert seen["headers"]["x-one"] == "1"
    assert (headed["statusCode"], headed["body"]) == (418, "short and stout")
    assert "a=1; Path=/" in json.dumps(headed)
    assert "b=2" in json.dumps(headed)


def test_a_header_that_comes_twice(run, lambda_client):
    """A load balancer may hand over each by itself; none is lost."""
    event = {**LOAD_BALANCER, "multiValueHeaders": {"x-one": ["1"], "x-two": ["a", "b"]}}
    with run() as emulator:
        answer = invoke(lambda_client(emulator), event)
    assert [value for name, value in json.loads(answer["body"])["header_list"] if name == "x-two"] == ["a", "b"]


@pytest.mark.parametrize(
    ("mode", "event", "streams"),
    [("streaming", REST_API, True), ("auto", REST_API, False), ("buffered", "a Function URL's", False)],
)
def test_who_deploys_can_say_how_to_answer(run, http, lambda_client, mode, event, streams):
    """A REST API that streams cannot be told from one that does not."""
    with run("app", {"RUNTIME_RESPONSE_MODE": mode}) as emulator:
        if event is REST_API:
            lambda_client(emulator).invoke(FunctionName="function", Payload=json.dumps(event))
        else:
            assert http.get(f"{emulator.url}/headed").text == "short and stout"
        assert emulator.invocations[0].head.streaming == streams


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}},
        {"source": "serverless-plugin-warmup"},
        {"ping": True},
        {"warmer": True, "concurrency": 3},
    ],
)
def test_pings_are_answered_without_the_app(run, lambda_client, event):
    """What only wants the function to be warm gets a word, and no request reaches the app, which would fail here."""
    with run("fail_early") as emulator:
        answer = lambda_client(emulator).invoke(FunctionName="function", Payload=json.dumps(event))
        assert "FunctionError" not in answer
        assert json.loads(answer["Payload"].read()) == {"status": "warm"}


@pytest.mark.parametrize(
    ("event", "named"),
    [({"Records": [{"eventSource": "aws:sqs"}]}, "Records"), ([1], "list"), ({"requestContext": {}}, "requestContext")],
)
def test_other_events_are_refused_by_name(run, http, lambda_client, event, named):
    """The error says what the event had, and the process goes on."""
    with run() as emulator:
        error = invoke(lambda_client(emulator), event)
        assert http.get(emulator.url).status_code == 200
    assert error["errorType"] == "Runtime.UnknownEvent"
    assert named in error["errorMessage"]


def test_the_trace_goes_on(run, http):
    """Lambda's trace header is the app's, under both names and in the variable; a caller's own traceparent stays."""
    with run() as emulator:
        seen = http.get(emulator.url, headers={"x-amzn-trace-id": "Root=1-00000000-000000000000000000000000"}).json()
        trace_id = emulator.invocations[0].trace_id
        own = f"00-{'1' * 32}-{'2' * 16}-01"
        kept = http.get(emulator.url, headers={"traceparent": own}).json()
    assert seen["headers"]["x-amzn-trace-id"] == seen["trace"] == trace_id
    assert seen["headers"]["traceparent"] == traceparent(trace_id)
    assert kept["headers"]["traceparent"] == own


def test_the_same_trace_in_w3cs_words():
    """The root is the trace, the parent the parent, sampled is a flag; without a parent there is a fresh one."""
    root = "Root=1-5759e988-bd862e3fe1be46a994272793"
    trace = "5759e988bd862e3fe1be46a994272793"
    assert traceparent(f"{root};Parent=53995c3f42cd8ad8;Sampled=1") == f"00-{trace}-53995c3f42cd8ad8-01"
    assert traceparent(f"{root};Parent=53995c3f42cd8ad8;Sampled=0") == f"00-{trace}-53995c3f42cd8ad8-00"
    alone = [traceparent(f"{root};Lineage=1:abcdef01:0") for _ in range(2)]
    assert all(re.fullmatch(f"00-{trace}-[0-9a-f]{{16}}-00", each) for each in alone)
    assert alone[0] != alone[1]
    assert traceparent("") is traceparent("Self=1") is traceparent("Root=1-xyz-0") is None
