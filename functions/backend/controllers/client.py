"""The key that a request carries, and who asks as far as fairness is concerned."""

import hashlib

from starlette.requests import Request


def key_of(request: Request) -> str:
    """Give the API key that a request carries in Authorization, "" where it carries none."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def client_of(request: Request) -> str:
    """Give a name for the holder of the request's API key; all who send none are one client, without a name.

    The key itself goes no further than this: its hash says as well whose it is.
    """
    key = key_of(request)
    return hashlib.sha256(key.encode()).hexdigest()[:32] if key else ""
