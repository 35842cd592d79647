"""A streamed answer on the wire, as AWS's own clients frame it."""

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence

from functions.runtime.errors import error_body, error_type

Headers = Sequence[tuple[bytes, bytes]]

_HEAD = """\
POST {path} HTTP/1.1
Lambda-Runtime-Function-Response-Mode: streaming
Trailer: Lambda-Runtime-Function-Error-Type
Trailer: Lambda-Runtime-Function-Error-Body
Content-Type: application/vnd.awslambda.http-integration-response
Transfer-Encoding: chunked
Host: {host}
Connection: keep-alive
"""
# Between the prelude and the payload.
_DELIMITER = bytes(8)
# A payload without a byte never arrives. This one harms no JSON, text or HTML, and a response that cannot have a body
# (a 204, an answer to HEAD) loses it on its way.
_LEAST_PAYLOAD = b"\n"


class ResponseStream:
    """An answer of which every piece is on its way once `write` returns; its connection is its own.

    Args:
        reader: of a fresh connection to the Runtime API.
        writer: of the same.
        path: where the answer goes.
        host: for the header of that name.
        headers: what the request has to carry besides.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        path: str,
        host: str,
        headers: Mapping[str, str],
    ) -> None:
        self._reader = reader
        self._writer = writer
        head = _HEAD.format(path=path, host=host) + "".join(f"{name}: {value}\n" for name, value in headers.items())
        self._head = head.replace("\n", "\r\n").encode("latin-1") + b"\r\n"
        self._is_empty = True

    async def start(self, status: int, headers: Headers) -> None:
        """Send the response's head."""
        prelude = json.dumps(prelude_of(status, headers), separators=(",", ":"), ensure_ascii=False).encode()
        self._writer.write(self._head + _chunk(prelude) + _chunk(_DELIMITER))
        await self._writer.drain()

    async def write(self, data: bytes) -> None:
        """Send a piece of the body, as a chunk of its own."""
        if data:
            self._is_empty = False
            self._writer.write(_chunk(data))
            await self._writer.drain()

    async def finish(self) -> bytes:
        """End the answer well; give the status line that comes back."""
        if self._is_empty:
            await self.write(_LEAST_PAYLOAD)
        return await self._end(b"")

    async def fail(self, error: BaseException) -> bytes:
        """End the answer with an error, which Lambda counts and logs; give the status line that comes back."""
        body = base64.b64encode(error_body(error, trace_key="trace")).decode()
        trailers = (
            f"Lambda-Runtime-Function-Error-Type: {error_type(error)}\r\nLambda-Runtime-Function-Error-Body: {body}\r\n"
        )
        return await self._end(trailers.encode("latin-1"))

    def abort(self) -> None:
        """Leave the answer where it is, dropping what could not be sent; of one that has ended nothing changes."""
        self._writer.transport.abort()

    async def _end(self, trailers: bytes) -> bytes:
        try:
            self._writer.write(b"0\r\n" + trailers + b"\r\n")
            await self._writer.drain()
            # Not before it is accepted may the next invocation be asked for.
            head = await self._reader.readuntil(b"\r\n\r\n")
            return head.partition(b"\r\n")[0]
        finally:
            self._writer.close()


def prelude_of(status: int, headers: Headers) -> dict[str, object]:
    """Give a response's head as Lambda takes it: repeated headers joined, cookies by themselves.

    The headers' names are in lower case.
    """
    joined: dict[str, str] = {}
    cookies: list[str] = []
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if name == "set-cookie":
            cookies.append(value)
        elif name != "content-length" or value != "0":  # for even an empty payload gets a byte
            joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return {"statusCode": status, "headers": joined, **({"cookies": cookies} if cookies else {})}


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
