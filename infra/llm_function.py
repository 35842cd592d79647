"""The llm function, asked through Lambda's own API as its Function URL would ask it."""

import base64
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from botocore.eventstream import ParserError
from botocore.exceptions import BotoCoreError, ClientError, EventStreamError
from urllib3.exceptions import HTTPError

# Where the status ends and the body begins.
PRELUDE_END = b"\0" * 8

# Of the function's refusals, those that another attempt may change: too many at once, not ready, a text broken off.
RETRYABLE_STATUSES = frozenset({429, 500, 502, 503, 504})

# What is said of a request that never reached a model, for reasons that pass and are nobody's fault.
PASSING_CODES = frozenset({"throttled", "unavailable"})

# Of Lambda's refusals with a status below 500, those that pass: an instance is being made, or could not be in time.
PASSING_REFUSALS = frozenset({"ResourceConflictException", "RequestTimeout"})


class LlmError(Exception):
    """The function gave no answer, or broke it off.

    Args:
        code: a word for programs.
        retryable: whether another attempt may succeed.
    """

    def __init__(self, code: str, message: str, *, retryable: bool) -> None:
        """Keep what a line of a batch is told."""
        super().__init__(message)
        self.code = code
        self.retryable = retryable


@dataclass(frozen=True)
class Chunk:
    """A piece of an answer's body, and when it came, in seconds since the request."""

    content: bytes
    at_s: float


@dataclass(frozen=True)
class LlmFunction:
    """One qualifier of the llm function.

    What AWS says for good, such as that it is not there or may not be asked, is botocore's ClientError.

    Args:
        client: boto3's for Lambda. It must not repeat a request by itself: each is a text that is paid for.
        name: the function's name or ARN.
        qualifier: "$LATEST", a version's number, or an alias.
        clock: seconds, from any beginning.
    """

    client: Any
    name: str
    qualifier: str
    clock: Callable[[], float] = time.monotonic

    def stream(self, request: Mapping[str, Any], *, accept: str = "text/plain") -> Iterator[Chunk]:
        """Yield the pieces of the text that `request` asks for, each as it comes.

        Raises:
            LlmError: there is no text, or no end of it.
        """
        begin = self.clock()
        pieces = self._invoke(url_event("/generate/stream", request, accept))
        status, rest = self._read_prelude(pieces)
        if status != 200:
            raise _refusal(status, rest + b"".join(pieces))
        if rest:
            yield Chunk(rest, self.clock() - begin)
        for content in pieces:
            if content:
                yield Chunk(content, self.clock() - begin)

    def generate(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Give the whole answer to `request`: text, finish_reason, usage, and what else the wire says.

        Raises:
            LlmError: there is none.
        """
        pieces = self._invoke(url_event("/generate", request, "application/json"))
        status, rest = self._read_prelude(pieces)
        body = rest + b"".join(pieces)
        if status != 200:
            raise _refusal(status, body)
        answer: dict[str, Any] = json.loads(body)
        return answer

    def _read_prelude(self, pieces: Iterator[bytes]) -> tuple[int, bytes]:
        """Give the status that an answer begins with, and what has come of its body at the same time."""
        head = b""
        for content in pieces:
            head += content
            prelude, found, rest = head.partition(PRELUDE_END)
            if found:
                return _status(prelude), rest
        raise LlmError("no_answer", f"{self._shown} answered without a status.", retryable=True)

    @property
    def _shown(self) -> str:
        return f"{self.name}:{self.qualifier}"

    def _invoke(self, event: Mapping[str, Any]) -> Iterator[bytes]:
        try:
            answer = self.client.invoke_with_response_stream(
                FunctionName=self.name, Qualifier=self.qualifier, Payload=json.dumps(event).encode()
            )
            # Whoever stops reading early would leave the connection open.
            with closing(answer["EventStream"]) as parts:
                for part in parts:
                    if "PayloadChunk" in part:
                        yield part["PayloadChunk"]["Payload"]
                    elif code := part.get("InvokeComplete", {}).get("ErrorCode"):
                        details = part["InvokeComplete"].get("ErrorDetails", "")
                        message = f"{self._shown} failed: {code}: {details[:500]}"
                        raise LlmError("function_error", message, retryable=True)
        except (ClientError, BotoCoreError, HTTPError, ParserError) as error:
            # The last two come from within an answer, which botocore reads as it comes.
            code = _passing(error)
            if code is None:
                raise
            raise LlmError(code, f"{self._shown}: {error}", retryable=True) from error


def _passing(error: Exception) -> str | None:
    """A word for the error if it is a matter of the moment; None for AWS's word on the request itself."""
    if not isinstance(error, ClientError) or isinstance(error, EventStreamError):
        return "unavailable"
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status == 429 or code == "TooManyRequestsException":
        return "throttled"
    passes = status >= 500 or status == 408 or code.startswith("SnapStart") or code in PASSING_REFUSALS
    return "unavailable" if passes else None


def url_event(path: str, body: Mapping[str, Any], accept: str) -> dict[str, Any]:
    """The event that a Function URL makes of a POST."""
    http = {"method": "POST", "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1", "userAgent": "huginn"}
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"content-type": "application/json", "accept": accept, "host": "llm.lambda-url.local"},
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "huginn",
            "domainName": "llm.lambda-url.local",
            "domainPrefix": "llm",
            "http": http,
            "requestId": "operations",
            "routeKey": "$default",
            "stage": "$default",
            "time": "01/Jan/1970:00:00:00 +0000",
            "timeEpoch": 0,
        },
        "body": base64.b64encode(json.dumps(body).encode()).decode(),
        "isBase64Encoded": True,
    }


def _status(prelude: bytes) -> int:
    return int(json.loads(prelude)["statusCode"])


def _refusal(status: int, body: bytes) -> LlmError:
    try:
        error = json.loads(body)["error"]
        code, message = str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        code, message = "refused", f"The llm function answered {status}: {body[:200]!r}"
    return LlmError(code, message, retryable=status in RETRYABLE_STATUSES)
