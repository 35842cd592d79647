"""API keys: what their holder has, and what is kept of them."""

import hashlib
import hmac
import re
from dataclasses import dataclass

from functions.backend.domain.principal import SCOPES, Principal
from functions.backend.domain.quota import NO_LIMITS, Quota

PREFIX = "hgn"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LENGTH = 8
# 43 of 62 characters hold 32 bytes.
_SECRET_BYTES = 32
_SECRET_LENGTH = 43
_TEXT = re.compile(rf"{PREFIX}_([0-9A-Za-z]{{{_ID_LENGTH}}})_([0-9A-Za-z]{{{_SECRET_LENGTH}}})")


@dataclass(frozen=True, slots=True)
class Key:
    """What is kept of a key; its text is not among it. Times are seconds since 1970.

    The text holds 256 random bits, so that one SHA-256 of it tells nothing, and no slow hash is needed.

    Raises:
        ValueError: says what is wrong with the name or the scopes.
    """

    id: str
    name: str
    digest: bytes
    scopes: frozenset[str]
    created: float
    quota: Quota = NO_LIMITS
    expires: float | None = None
    revoked: float | None = None

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > 100 or not self.name.isprintable():
            raise ValueError("a key's name is 1 to 100 printable characters")
        if not self.scopes or not self.scopes <= SCOPES:
            unknown = ", ".join(sorted(self.scopes - SCOPES)) or "none"
            raise ValueError(f"the scopes are {unknown}; they must be of {', '.join(sorted(SCOPES))}")

    def is_good(self, now: float) -> bool:
        """Say whether its holder is let in."""
        return self.revoked is None and (self.expires is None or now < self.expires)

    @property
    def principal(self) -> Principal:
        """Its holder."""
        return Principal(self.id, "key", self.scopes, self.quota)


def mint(random: bytes) -> tuple[str, str]:
    """Give a new key's id and its text, made of so many random bytes (38).

    Raises:
        ValueError: there are not so many.
    """
    if len(random) != _SECRET_BYTES + 6:
        raise ValueError(f"a key is made of {_SECRET_BYTES + 6} random bytes, not of {len(random)}")
    # 6 bytes are a little more than 8 characters of 62 can tell apart; what is lost is the remainder.
    key_id = _base62(random[_SECRET_BYTES:], _ID_LENGTH)
    return key_id, f"{PREFIX}_{key_id}_{_base62(random[:_SECRET_BYTES], _SECRET_LENGTH)}"


def id_of(text: str) -> str | None:
    """Give the id that stands in a key's text; None where the text is no key."""
    match = _TEXT.fullmatch(text)
    return match[1] if match else None


def digest_of(text: str) -> bytes:
    """Give what is kept in place of a key's text."""
    return hashlib.sha256(text.encode()).digest()


def matches(text: str, digest: bytes) -> bool:
    """Say whether the text is the one of that digest, in a time that does not depend on where they differ."""
    return hmac.compare_digest(digest_of(text), digest)


def _base62(random: bytes, length: int) -> str:
    number = int.from_bytes(random, "big")
    characters = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        characters.append(_ALPHABET[digit])
    return "".join(reversed(characters))
