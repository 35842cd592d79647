"""Whether a service answers, asked over HTTP."""

import http.client
import json
from urllib.parse import urlsplit

# A service that accepts and does not answer is asked again; meanwhile nobody looks for Ctrl-C.
PATIENCE_S = 1.0


def why_not_ready(url: str) -> str | None:
    """Give None if a GET of `url` is answered with 200, else the reason in words."""
    parts = urlsplit(url)
    # http.client asks the address itself: a proxy in the environment does not stand between us and this machine.
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE_S)
    try:
        connection.request("GET", parts.path)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        return f"{url} does not answer ({error or type(error).__name__})"
    finally:
        connection.close()
    if response.status == 200:
        return None
    return f"{url} answers {response.status}: {_message(body)}"


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace") or "nothing"
