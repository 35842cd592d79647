"""Which other sites' pages may call this API from their scripts: none, unless somebody says so."""

from collections.abc import Sequence

from fastapi import FastAPI

# What a script may read of an answer beside what it always may.
_EXPOSED = (
    "retry-after",
    "x-request-id",
    "x-should-retry",
    *(
        f"x-ratelimit-{figure}-{limit}"
        for limit in ("tokens", "tokens-day", "concurrency")
        for figure in ("limit", "remaining", "reset")
    ),
)
_REMEMBERED_S = 600


def allow_origins(app: FastAPI, origins: Sequence[str]) -> None:
    """Let the pages of these origins call `app`; "*" is everybody's. A key is a header, and cookies are not sent."""
    from starlette.middleware.cors import CORSMiddleware

    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "POST"],
        # Clients have headers of their own, of which a list would never be whole; none means anything without a key.
        allow_headers=["*"],
        expose_headers=list(_EXPOSED),
        max_age=_REMEMBERED_S,
    )
