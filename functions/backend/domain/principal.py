"""Who asks, and what they may."""

from dataclasses import dataclass
from typing import Literal

from functions.backend.domain.errors import Forbidden
from functions.backend.domain.quota import NO_LIMITS, Quota

GENERATE = "generate"
ADMIN = "admin"
SCOPES = frozenset({GENERATE, ADMIN})

Kind = Literal["key", "session", "anonymous"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody: the holder of a key, a reader of the page, or anybody where nobody is asked.

    `id` is the key's, the session's, or what tells anonymous clients apart ("" is all of them). `shared` is what all
    of their kind may use together; None where that has no limits.
    """

    id: str
    kind: Kind
    scopes: frozenset[str]
    quota: Quota = NO_LIMITS
    shared: Quota | None = None

    @property
    def account(self) -> str:
        """The name under which what they use is counted."""
        return f"{self.kind}:{self.id}"

    @property
    def accounts(self) -> "tuple[tuple[str, Quota], ...]":
        """All names under which it is counted, each with what may be used there; their own is the first."""
        own = (self.account, self.quota)
        return (own,) if self.shared is None else (own, (f"{self.kind}s", self.shared))

    @property
    def client(self) -> str:
        """The name by which the model service shares its places fairly; all without one are one client."""
        return self.id if self.kind == "anonymous" else self.account

    def require(self, scope: str) -> None:
        """Return if they may do that.

        Raises:
            Forbidden: they may not.
        """
        if scope not in self.scopes:
            raise Forbidden(scope)


def anonymous(name: str = "") -> Principal:
    """Give anybody, where nobody is asked who they are: they may generate, without limits."""
    return Principal(name, "anonymous", frozenset({GENERATE}))
