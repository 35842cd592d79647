"""Who asks, as far as fairness is concerned."""

import hashlib

from starlette.requests import Request


def client_of(request: Request, key_header: str) -> str:
    """Give a name for the holder of the API key in that header; all who send none are one client, without a name.

    The key itself goes no further than this: its hash says as well whose it is.
    """
    scheme, _, key = request.headers.get(key_header, "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        return ""
    return hashlib.sha256(key.strip().encode()).hexdigest()[:32]
