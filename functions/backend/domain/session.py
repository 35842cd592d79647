"""The page's session as its cookie says it: `v1.<payload>.<mac>`, made by the frontend, believed here.

The payload is JSON in base64url: `sid` names the session, `iat` and `exp` (seconds since 1970) bound its time. How long
it may be renewed, and for whom, is the page's affair, and so is what else is in there. Who holds the secret can make
one, and nobody else.
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Sequence

COOKIE = "huginn_session"
# Clocks of two machines differ a little.
_SKEW_S = 30
_SID = re.compile(r"[A-Za-z0-9_-]{22}")
# A session's cookie has some 130 characters; what is longer is not hashed.
_MAX_LENGTH = 400


def read_session(cookie: str, secrets: Sequence[str], now: float) -> str | None:
    """Give the id of the session; None where the cookie was not made with any of the secrets, or its time is over."""
    version, _, rest = cookie.partition(".")
    payload, _, mac = rest.partition(".")
    if version != "v1" or len(cookie) > _MAX_LENGTH or not cookie.isascii():
        return None
    good = [hmac.compare_digest(mac, _mac(secret, payload)) for secret in secrets]
    if not any(good):
        return None
    try:
        said = json.loads(_from_base64url(payload))
        sid, issued, expires = said["sid"], said["iat"], said["exp"]
    except (ValueError, KeyError, TypeError, binascii.Error):
        return None
    if not (isinstance(sid, str) and _SID.fullmatch(sid) and _is_number(issued) and _is_number(expires)):
        return None
    return sid if issued - _SKEW_S <= now < expires else None


def _mac(secret: str, payload: str) -> str:
    key = hmac.digest(secret.encode(), b"huginn session v1", hashlib.sha256)
    made = hmac.digest(key, f"v1.{payload}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(made).decode().rstrip("=")


def _from_base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
