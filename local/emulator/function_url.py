"""A Function URL: an HTTP request becomes an event of version 2.0, and the answer an HTTP response."""

import base64
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from urllib.parse import parse_qsl, unquote

from local.emulator.http_server import Headers, Request, Response
from local.emulator.invocation import INTEGRATION_RESPONSE, Invocation

HOST = "abcdefghijklmnopqrstuvwxyz012345.lambda-url.eu-west-1.on.aws"
_TEXT = ("text/", "application/json", "application/javascript", "application/xml", "application/x-www-form-urlencoded")
# Between prelude and payload.
_DELIMITER = bytes(8)
_CONNECTION_HEADERS = {"connection", "transfer-encoding", "keep-alive", "content-length"}


async def url_event(request: Request, request_id: str) -> bytes:
    """Give the event that a Function URL makes of a request."""
    now = datetime.now(UTC)
    headers: dict[str, str] = {}
    for name, value in request.headers:
        key = name.lower()
        if key not in {"cookie", "connection", "transfer-encoding", "host"}:
            headers[key] = f"{headers[key]},{value}" if key in headers else value
    headers |= {"host": HOST, "x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "https", "x-forwarded-port": "443"}
    query: dict[str, str] = {}
    for name, value in parse_qsl(request.query, keep_blank_values=True):
        query[name] = f"{query[name]},{value}" if name in query else value
    body = await request.body()
    cookies = [cookie.strip() for cookie in request.header("cookie").split(";") if cookie.strip()]
    event = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": unquote(request.path),
        "rawQueryString": request.query,
        **({"cookies": cookies} if cookies else {}),
        "headers": headers,
        **({"queryStringParameters": query} if query else {}),
        "requestContext": {
            "accountId": "anonymous",
            "apiId": HOST.partition(".")[0],
            "domainName": HOST,
            "domainPrefix": HOST.partition(".")[0],
            "http": {
                "method": request.method,
                "path": unquote(request.path),
                "protocol": "HTTP/1.1",
                "sourceIp": "127.0.0.1",
                "userAgent": request.header("user-agent"),
            },
            "requestId": request_id,
            "routeKey": "$default",
            "stage": "$default",
            "time": now.strftime("%d/%b/%Y:%H:%M:%S +0000"),
            "timeEpoch": int(1000 * time.time()),
        },
        "isBase64Encoded": False,
    }
    if body:
        is_text = request.header("content-type").lower().startswith(_TEXT)
        event["body"] = body.decode() if is_text else base64.b64encode(body).decode()
        event["isBase64Encoded"] = not is_text
    return json.dumps(event).encode()


async def answer_streaming(invocation: Invocation, response: Response) -> None:
    """Send the answer as it comes, as InvokeMode RESPONSE_STREAM does; one that fails midway is cut off."""
    await invocation.begun.wait()
    if invocation.head is None:
        return bad_gateway(response)
    if not invocation.head.streaming:
        return await answer_buffered(invocation, response)
    chunks = invocation.chunks()
    if invocation.head.content_type == INTEGRATION_RESPONSE:
        prelude, first = await _read_prelude(chunks)
        if prelude is None or not first:
            # An answer whose payload has no byte never arrives.
            return bad_gateway(response)
        status, headers = _head_of(json.loads(prelude))
    else:
        status, headers, first = 200, [("content-type", invocation.head.content_type)], b""
    response.begin(status, headers)
    await response.chunk(first)
    async for chunk in chunks:
        await response.chunk(chunk)
    if invocation.failure is not None:
        return response.cut()
    return response.end()


async def answer_buffered(invocation: Invocation, response: Response) -> None:
    """Send the answer once it is complete, as InvokeMode BUFFERED does."""
    await invocation.ended.wait()
    if invocation.head is None or invocation.failure is not None:
        return bad_gateway(response)
    payload = invocation.payload
    if invocation.head.content_type == INTEGRATION_RESPONSE:
        prelude, _, body = payload.partition(_DELIMITER)
        status, headers = _head_of(json.loads(prelude))
        return response.whole(status, body, headers)
    if invocation.head.streaming:
        return response.whole(200, payload, [("content-type", invocation.head.content_type)])
    answer = json.loads(payload)
    if not isinstance(answer, dict) or "statusCode" not in answer:
        # What is no HTTP response is the body of one.
        return response.whole(200, payload, [("content-type", "application/json")])
    status, headers = _head_of(answer)
    text = answer.get("body") or ""
    return response.whole(status, base64.b64decode(text) if answer.get("isBase64Encoded") else text.encode(), headers)


def bad_gateway(response: Response) -> None:
    """Answer for a function that failed."""
    response.json(502, {"Message": "Internal Server Error"})


def too_many(response: Response) -> None:
    """Answer where every environment is busy."""
    response.json(
        429,
        {"Reason": "ReservedFunctionConcurrentInvocationLimitExceeded", "Type": "User", "message": "Rate Exceeded."},
        [("x-amzn-errortype", "TooManyRequestsException"), ("retry-after", "1")],
    )


async def _read_prelude(chunks: AsyncIterator[bytes]) -> tuple[bytes | None, bytes]:
    """Give the prelude, None where there is no whole one, and the first of what comes after it."""
    data = b""
    async for chunk in chunks:
        data += chunk
        prelude, delimiter, first = data.partition(_DELIMITER)
        if delimiter and first:
            return prelude, first
    return None, b""


def _head_of(answer: dict[str, object]) -> tuple[int, Headers]:
    headers: Headers = []
    for name, value in _mapping(answer.get("headers")).items():
        headers.append((name, str(value)))
    for name, values in _mapping(answer.get("multiValueHeaders")).items():
        headers += [(name, str(value)) for value in (values if isinstance(values, list) else [values])]
    cookies = answer.get("cookies") or []
    assert isinstance(cookies, list)
    headers += [("set-cookie", cookie) for cookie in cookies]
    status = answer.get("statusCode", 200)
    assert isinstance(status, int)
    return status, [(name, value) for name, value in headers if name.lower() not in _CONNECTION_HEADERS]


def _mapping(value: object) -> dict[str, object]:
    assert value is None or isinstance(value, dict)
    return value or {}
