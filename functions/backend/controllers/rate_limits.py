"""Tells in an answer's headers what is left of a quota, in the names and the form that OpenAI's clients read."""

import math
from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions.backend.domain.quota import RateLimits


def rate_limit_headers(limits: RateLimits) -> Mapping[str, str]:
    """Give x-ratelimit-limit-, -remaining- and -reset- for tokens (a minute), tokens-day, concurrency (requests)."""
    headers = {}
    for limit in limits:
        headers[f"x-ratelimit-limit-{limit.name}"] = str(limit.limit)
        headers[f"x-ratelimit-remaining-{limit.name}"] = str(limit.remaining)
        if limit.reset_s is not None:
            headers[f"x-ratelimit-reset-{limit.name}"] = _duration(limit.reset_s)
    return headers


def remember_limits(scope: Scope, limits: RateLimits) -> None:
    """Have RateLimitMiddleware tell these limits in the answer to this scope."""
    scope.setdefault("state", {})["rate_limits"] = limits


class RateLimitMiddleware:
    """Adds the limits that were remembered for a request to its answer, whatever that is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start":
                limits = scope.get("state", {}).get("rate_limits", ())
                if limits:
                    MutableHeaders(scope=message).update(rate_limit_headers(limits))
            await send(message)

        await self._app(scope, receive, send_with_limits)


def _duration(seconds: float) -> str:
    """Give a time as 1h2m3s, without the parts that are nothing; 0 is 0s."""
    whole = math.ceil(seconds)
    parts = ((whole // 3600, "h"), (whole // 60 % 60, "m"), (whole % 60, "s"))
    return "".join(f"{count}{unit}" for count, unit in parts if count) or "0s"
