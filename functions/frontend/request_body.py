"""A request's body, read up to a limit."""

import asyncio

from starlette.requests import Request

from functions.frontend.errors import ErrorBody, RefusedError

MAX_BODY_BYTES = 1_000_000
BODY_WITHIN_S = 30.0


async def read_body(request: Request) -> bytes:
    """The whole body.

    Raises:
        RefusedError: it is longer than MAX_BODY_BYTES, and no more than that was ever held; or it is not here in time.
    """
    # Only a hint, but it spares a well-mannered client from sending the rest.
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced[:20]) > MAX_BODY_BYTES:
        raise _too_large()
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise _too_large()
    except TimeoutError:
        message = f"The request's body was not here within {BODY_WITHIN_S:g} s. Send it at once."
        raise RefusedError(408, ErrorBody("request_timeout", message, retryable=True)) from None
    return bytes(body)


def _too_large() -> RefusedError:
    message = f"The request's body is larger than {MAX_BODY_BYTES:,} bytes. Send a shorter prompt."
    return RefusedError(413, ErrorBody("body_too_large", message))
