"""Our framing on the wire, against that of AWS's own Node client."""

import base64
import contextlib
import json
import re
import shutil
from pathlib import Path

import httpx
import pytest

from local.emulator import Emulator

NODE = Path(__file__).parent / "node"
CLIENT = NODE / "node_modules" / "aws-lambda-ric" / "index.mjs"


@pytest.fixture
def node_command() -> list[str]:
    """Runs `app.mjs` by aws-lambda-ric; without node or the package the test is skipped, and says what to do."""
    node = shutil.which("node")
    if node is None or not CLIENT.exists():
        pytest.skip(f"needs node, and AWS's client in it: npm ci --ignore-scripts --prefix {NODE}")
    return [node, "--require", str(NODE / "rapid_client.cjs"), str(CLIENT)]


def wire_of(emulator: Emulator, http: httpx.Client, path: str) -> tuple[bytes, dict]:
    """The request that brought the answer, without what differs from run to run, and the error in its trailer."""
    with contextlib.suppress(httpx.RemoteProtocolError):
        http.get(f"{emulator.url}{path}")
    invocation = emulator.invocations[-1]
    wire = invocation.wire.replace(invocation.request_id.encode(), b"ID")
    wire = re.sub(rb"\r\nHost: 127\.0\.0\.1:\d+\r\n", b"\r\nHost: 127.0.0.1:PORT\r\n", wire)
    trailer = re.search(rb"\r\nLambda-Runtime-Function-Error-Body: (\S+)\r\n", wire)
    if trailer is None:
        return wire, {}
    error = json.loads(base64.b64decode(trailer[1], validate=True))
    # Where in the code it happened is the only thing that is each one's own.
    error["trace"] = [type(line) for line in error["trace"]][:1]
    return wire.replace(trailer[1], b"BODY"), error


@pytest.mark.parametrize("query", ["", "fail"])
def test_a_streamed_response_is_the_same_byte_for_byte(run, http, node_command, query):
    """Request, prelude, delimiter, chunks, end and trailers: all but ids, ports and the place of an error."""
    variables = {"_HANDLER": "app.handler", "AWS_LAMBDA_NODEJS_USE_ALTERNATIVE_CLIENT_1": "true"}
    with Emulator(node_command, variables, task_root=NODE) as theirs:
        expected, expected_error = wire_of(theirs, http, f"/two_chunks?{query}")
        assert theirs.environments[0].alive, theirs.log()
    with run() as ours:
        found, error = wire_of(ours, http, f"/two_chunks?{query}")
    assert b"\r\n3\r\none\r\n6\r\ntwo \xc3\xa9\r\n0\r\n" in expected
    assert found == expected
    assert list(error.items()) == list(expected_error.items())
    assert bool(error) == (query == "fail")
