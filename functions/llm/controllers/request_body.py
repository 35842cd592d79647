"""The body of a request, never more of it than a request may have."""

from starlette.requests import Request

from functions.llm.controllers.errors import BodyTooLargeError, UnsupportedMediaTypeError

MAX_BODY_BYTES = 1_000_000


async def read_json_body(request: Request) -> bytes:
    """Return the body; BodyTooLargeError as soon as it is, UnsupportedMediaTypeError if it is not said to be JSON."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        found = f"The body is {media_type[:100]}" if media_type else "The body does not say what it is"
        raise UnsupportedMediaTypeError(f"{found}; send JSON with the header content-type: application/json.")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        raise _too_large()
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _too_large()
    return bytes(body)


def _too_large() -> BodyTooLargeError:
    return BodyTooLargeError(f"The body is larger than {MAX_BODY_BYTES} bytes. Send a shorter prompt.")
