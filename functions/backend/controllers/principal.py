"""Who asks, by the key or the cookie that a request carries."""

import re
from collections.abc import Awaitable, Callable

from starlette.requests import Request

from functions.backend.application.authentication import Authentication
from functions.backend.controllers.client import client_of, key_of
from functions.backend.domain.errors import Unauthenticated
from functions.backend.domain.principal import Principal, anonymous
from functions.backend.domain.session import COOKIE

PrincipalOf = Callable[[Request], Awaitable[Principal]]
"""Gives who sends a request, or raises Unauthenticated or KeyStoreUnavailable."""

# The page's own doors; what is for programs takes keys alone.
DOORS_OF_THE_PAGE = "/api/"
_NOBODY = "Send an API key, Authorization: Bearer hgn_..., or open the page. `huginn keys new NAME` makes a key."


async def let_everybody_in(request: Request) -> Principal:
    """Take everybody for anonymous; who sends a key is told apart by it, whatever it is."""
    return anonymous(client_of(request))


def ask_who_is_there(authentication: Authentication) -> PrincipalOf:
    """Give what wants an API key in Authorization, or, from the page, its session."""

    async def principal_of(request: Request) -> Principal:
        if key := key_of(request):
            return await authentication.of_key(key)
        cookie = _cookie_of(request)
        if cookie and request.url.path.startswith(DOORS_OF_THE_PAGE):
            return authentication.of_session(cookie)
        raise Unauthenticated(_NOBODY)

    return principal_of


def _cookie_of(request: Request) -> str:
    # Not request.cookies: that reads everything that a browser has for this host.
    match = re.search(rf"(?:^|;)\s*{COOKIE}=([A-Za-z0-9._=-]+)", request.headers.get("cookie", ""))
    return match[1] if match else ""
