"""A visitor's session: what the page's cookie says, and the signature that keeps others from saying it.

The cookie is `v1.<payload>.<mac>`, both in base64url without padding. The payload is compact JSON: `sid`, who it is;
`iat`, when it was made; `exp`, until when it holds; `auth_time`, when its visitor came in, all in seconds since 1970;
and, where that took a password, `pwd`: which one, told by a digest that is of use to nobody without the secret. The mac
is HMAC-SHA256 over `v1.<payload>`. The backend reads the same form, and has no use for the last two;
tests/contract/golden/session_*.json hold both to it.
"""

import base64
import hmac
import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Self

LIFETIME_S = 900
# However often it is renewed: whoever got hold of a session keeps it for no longer.
LONGEST_S = 24 * 3600

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
    auth_time: int

    @classmethod
    def begin(cls, now: float) -> Self:
        """A new visitor's."""
        return cls(_base64url(secrets.token_bytes(_SID_BYTES)), int(now), int(now) + LIFETIME_S, int(now))

    @property
    def ends(self) -> int:
        """The time after which there is no renewing it."""
        return self.auth_time + LONGEST_S

    def renewed(self, now: float) -> Self:
        """The same visitor's for longer where more than half of the time is over, else this very session."""
        if now <= (self.iat + self.exp) / 2 or self.exp >= self.ends:
            return self
        return type(self)(self.sid, int(now), min(int(now) + LIFETIME_S, self.ends), self.auth_time)


class SessionSeal:
    """Writes and reads the cookie. The first secret signs; all are accepted, so that a secret can be replaced.

    The password ends with its sessions: those that another one began, or none, are not read.
    """

    def __init__(self, signing_secrets: Sequence[str], password: str = "") -> None:
        """Keep a key of each secret, which is of use for nothing but sessions."""
        self._keys = [_hmac(secret.encode(), b"huginn session v1") for secret in signing_secrets]
        self._pwds = [_password_tag(key, password) for key in self._keys]

    def write(self, session: Session) -> str:
        """The cookie's value."""
        payload = {**asdict(session), **({"pwd": self._pwds[0]} if self._pwds[0] else {})}
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
        said = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        if said.get("pwd", "") not in self._pwds:
            return None
        session = Session(said["sid"], said["iat"], said["exp"], said["auth_time"])
        return session if now < min(session.exp + late_s, session.ends) else None


def _password_tag(key: bytes, password: str) -> str:
    # Half a mac: it only has to differ from another password's.
    return _base64url(_hmac(key, b"password " + password.encode())[:16]) if password else ""


def _mac(key: bytes, signed: str) -> str:
    return _base64url(_hmac(key, signed.encode()))


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
