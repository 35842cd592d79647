"""A request's body, read up to a limit."""

from starlette.requests import Request

from functions.frontend.errors import ErrorBody, RefusedError

MAX_BODY_BYTES = 1_000_000


async def read_body(request: Request) -> bytes:
    """The whole body.

    Raises:
        RefusedError: it is longer than MAX_BODY_BYTES; no more than that was ever held.
    """
    # Only a hint, but it spares a well-mannered client from sending the rest.
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced[:20]) > MAX_BODY_BYTES:
        raise _too_large()
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _too_large()
    return bytes(body)


def _too_large() -> RefusedError:
    message = f"The request's body is larger than {MAX_BODY_BYTES:,} bytes. Send a shorter prompt."
    return RefusedError(413, ErrorBody("body_too_large", message))
