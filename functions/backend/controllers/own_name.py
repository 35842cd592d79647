"""Keeps other sites' pages out of what is for one machine alone."""

from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from functions.backend.domain.errors import BackendError


class MisdirectedRequest(BackendError):  # noqa: N818
    """A request to a name that is not this machine's."""

    code = "misdirected_request"

    def __init__(self, host: str) -> None:
        super().__init__(
            f"This is for one machine alone, and {host[:80]!r} may be anybody's name. Ask by 127.0.0.1 or localhost; "
            "or, where it is published by that name, set HUGINN_HOST to it."
        )


class OwnNameMiddleware:
    """Refuses what is asked by a name that somebody else could own.

    A page of somebody else's site is at a name of theirs, which they can have mean this machine once it is loaded (DNS
    rebinding); for the browser, all that it asks here is then the same site. Nobody owns an address, localhost, or a
    name without a dot, by which containers know each other.

    Args:
        app: what is kept.
        answer: gives the answer to an error.
    """

    def __init__(self, app: ASGIApp, answer: Callable[[Request, Exception], Awaitable[Response]]) -> None:
        self._app = app
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "http":
            for name, value in scope["headers"]:
                if name == b"host" and not _is_own(host := value.decode("latin-1")):
                    refusal = await self._answer(Request(scope, receive), MisdirectedRequest(host))
                    await refusal(scope, receive, send)
                    return
        await self._app(scope, receive, send)


def _is_own(host: str) -> bool:
    try:
        name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return False
    if "." not in name or name.endswith(".localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
