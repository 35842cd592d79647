"""Lambda's own API: Invoke and InvokeWithResponseStream, as its SDKs speak them."""

import json
import re
import struct
from binascii import crc32

from local.emulator.http_server import Headers, Response
from local.emulator.invocation import Invocation

INVOKE = re.compile(r"/2015-03-31/functions/(?P<name>[^/]+)/invocations")
STREAM = re.compile(r"/2021-11-15/functions/(?P<name>[^/]+)/response-streaming-invocations")
_STRING = 7


async def answer_invoke(invocation: Invocation, response: Response) -> None:
    """Send the payload, or the error, once it is complete."""
    await invocation.ended.wait()
    headers = _headers(invocation)
    if invocation.failure is not None:
        headers.append(("X-Amz-Function-Error", "Unhandled"))
        response.whole(200, invocation.failure.body, headers)
    else:
        response.whole(200, invocation.payload, headers)


async def answer_stream(invocation: Invocation, response: Response) -> None:
    """Send every chunk of the payload as an event, and at the end how it went."""
    headers = [*_headers(invocation), ("content-type", "application/vnd.amazon.eventstream")]
    response.begin(200, headers)
    async for chunk in invocation.chunks():
        await response.chunk(event_frame("PayloadChunk", chunk, "application/octet-stream"))
    complete: dict[str, str] = {}
    if invocation.failure is not None:
        complete = {"ErrorCode": invocation.failure.error_type, "ErrorDetails": invocation.failure.body.decode()}
    await response.chunk(event_frame("InvokeComplete", json.dumps(complete).encode(), "application/json"))
    response.end()


def event_frame(event_type: str, payload: bytes, content_type: str) -> bytes:
    """Give one message of application/vnd.amazon.eventstream."""
    pairs = {":event-type": event_type, ":content-type": content_type, ":message-type": "event"}
    headers = b"".join(
        struct.pack(f"!B{len(name)}sBH{len(value)}s", len(name), name.encode(), _STRING, len(value), value.encode())
        for name, value in pairs.items()
    )
    # The two lengths, their checksum and the message's are four bytes each.
    lengths = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    message = lengths + struct.pack("!I", crc32(lengths)) + headers + payload
    return message + struct.pack("!I", crc32(message))


def too_many(response: Response) -> None:
    """Answer where every environment is busy."""
    response.json(
        429,
        {"Reason": "ReservedFunctionConcurrentInvocationLimitExceeded", "Type": "User", "message": "Rate Exceeded."},
        [("X-Amzn-ErrorType", "TooManyRequestsException")],
    )


def not_found(response: Response, name: str) -> None:
    response.json(
        404,
        {"Type": "User", "Message": f"Function not found: {name}"},
        [("X-Amzn-ErrorType", "ResourceNotFoundException")],
    )


def _headers(invocation: Invocation) -> Headers:
    return [("X-Amzn-RequestId", invocation.request_id), ("X-Amz-Executed-Version", invocation.qualifier)]
