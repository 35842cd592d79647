"""The body of a request, never more of it than a request may have."""

import asyncio

from starlette.requests import Request

from functions.llm.controllers.errors import BodyTooLargeError, BodyTooSlowError, UnsupportedMediaTypeError

MAX_BODY_BYTES = 1_000_000
BODY_WITHIN_S = 30.0


async def read_json_body(request: Request) -> bytes:
    """Return the body.

    Raises:
        UnsupportedMediaTypeError: it is not said to be JSON.
        BodyTooLargeError: as soon as it is.
        BodyTooSlowError: it is not here in time.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        found = f"The body is {media_type[:100]}" if media_type else "The body does not say what it is"
        raise UnsupportedMediaTypeError(f"{found}; send JSON with the header content-type: application/json.")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        raise _too_large()
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise _too_large()
    except TimeoutError:
        raise BodyTooSlowError(f"The body was not here within {BODY_WITHIN_S:g} s. Send it at once.") from None
    return bytes(body)


def _too_large() -> BodyTooLargeError:
    return BodyTooLargeError(f"The body is larger than {MAX_BODY_BYTES} bytes. Send a shorter prompt.")
