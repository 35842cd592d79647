"""Keeps other sites' pages out of what is for one machine alone."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from functions.llm.controllers.errors import Problem
from functions.llm.telemetry.current import note_error


class OwnName:
    """Middleware that refuses what is asked by a name that somebody else could own.

    A page of somebody else's site is at a name of theirs, which they can have mean this machine once it is loaded (DNS
    rebinding); for the browser, all that it asks here is then the same site. Nobody owns an address, localhost, or a
    name without a dot, by which containers know each other.
    """

    def __init__(self, app: ASGIApp, *, wanted: bool) -> None:
        self._app = app
        self._wanted = wanted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass through, or answer 421."""
        if self._wanted and scope["type"] == "http":
            for name, value in scope["headers"]:
                if name == b"host" and not _is_own(host := value.decode("latin-1")):
                    message = (
                        f"This is for one machine alone, and {host[:80]!r} may be anybody's name. Ask by 127.0.0.1 or "
                        "localhost."
                    )
                    note_error("misdirected_request")
                    await Problem(421, "misdirected_request", message).to_response()(scope, receive, send)
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
