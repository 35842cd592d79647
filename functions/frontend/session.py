"""A visitor's session: what the page's cookie says, and the signature that keeps others from saying it.

The cookie is `v1.<payload>.<mac>`, both in base64url without padding. The payload is compact JSON: `sid`, who it is;
`iat`, when it was made; `exp`, until when it holds, in seconds since 1970. The mac is HMAC-SHA256 over `v1.<payload>`.
The backend reads the same form; tests/contract/golden/session_*.json hold both to it.
"""

import base64
import hmac
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

LIFETIME_S = 900

_VERSION = "v1"
_SID_BYTES = 16
# Nobody's cookie is longer: what is, is refused before anything is computed from it.
_MAX_COOKIE_LENGTH = 512


@dataclass(frozen=True)
class Session:
    """One visitor for a while."""

    sid: str
    iat: int
    exp: int

    @classmethod
    def begin(cls, now: float) -> Self:
        """A new visitor's."""
        return cls(_base64url(secrets.token_bytes(_SID_BYTES)), int(now), int(now) + LIFETIME_S)

    def renewed(self, now: float) -> Self:
        """The same visitor's for longer where more than half of the time is over, else this very session."""
        if now <= (self.iat + self.exp) / 2:
            return self
        return type(self)(self.sid, int(now), int(now) + LIFETIME_S)


class SessionSeal:
    """Writes and reads the cookie. The first secret signs; all are accepted, so that a secret can be replaced."""

    def __init__(self, signing_secrets: Sequence[str]) -> None:
        """Keep a key of each secret, which is of use for nothing but sessions."""
        self._keys = [_hmac(secret.encode(), b"huginn session v1") for secret in signing_secrets]

    def write(self, session: Session) -> str:
        """The cookie's value."""
        payload = {"sid": session.sid, "iat": session.iat, "exp": session.exp}
        signed = f"{_VERSION}.{_base64url(json.dumps(payload, separators=(',', ':')).encode())}"
        return f"{signed}.{_mac(self._keys[0], signed)}"

    def read(self, value: str, now: float, late_s: float = 0.0) -> Session | None:
        """The session that the cookie's value is; None where it is not one of ours or ended more than `late_s` ago."""
        # What is not ASCII, hmac would not compare.
        if len(value) > _MAX_COOKIE_LENGTH or not value.isascii():
            return None
        signed, _, mac = value.rpartition(".")
        # Each key is tried, so that the time tells nothing of which it was.
        valid = [hmac.compare_digest(_mac(key, signed), mac) for key in self._keys]
        if not any(valid) or not signed.startswith(f"{_VERSION}."):
            return None
        payload = signed.removeprefix(f"{_VERSION}.")
        # Signed by us, so that it is ours to the last character: nothing here can fail.
        fields = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        session = Session(fields["sid"], fields["iat"], fields["exp"])
        return session if now < session.exp + late_s else None


def _mac(key: bytes, signed: str) -> str:
    return _base64url(_hmac(key, signed.encode()))


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
