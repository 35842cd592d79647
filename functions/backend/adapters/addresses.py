"""Where the model service's name leads: every address behind it, and which is asked next."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

_log = logging.getLogger(__name__)

# A container that has come is found so soon, and one that is gone forgotten; the name server hardly notices.
_ASK_AGAIN_S = 3.0
# How long a request waits for the name server: where it knows no address at all, and where it knows some.
_PATIENCE_S = 5.0
_PATIENCE_WITH_SOME_S = 0.5
# How long one that failed, and one that was full, is left alone, as long as there is another.
_FAILED_S = 5.0
_FULL_S = 1.0


Place = tuple[int, str, int]
"""The family of an address (socket.AF_...), the address, the port."""

Resolve = Callable[[str, int], Awaitable[Sequence[Place]]]


async def system_places(host: str, port: int) -> Sequence[Place]:
    """Give where a name leads, preferred places first; raises OSError where it leads nowhere."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, str(place[0]), int(place[1])) for family, *_, place in found]


@dataclass(eq=False)
class Address:
    """One instance of the model service, as far as this process knows it."""

    host: str
    port: int
    open_requests: int = 0
    taken_last: int = 0
    alone_until: float = 0.0
    has_failed: bool = False


class Addresses:
    """The addresses of one name: least busy first, in turn among equals, and those that failed only as a last resort.

    A name that has addresses of both families mostly means the same machines twice: the system's preferred family is
    taken, and the other where that one fails.
    """

    def __init__(self, host: str, port: int, clock: Callable[[], float], resolve: Resolve) -> None:
        self._host = host
        self._port = port
        self._clock = clock
        self._resolve = resolve
        self._known: list[Address] = []
        self._preferred: list[Address] = []
        self._asking: asyncio.Task[None] | None = None
        self._asked_at: float | None = None
        self._turn = 0

    async def working(self) -> Sequence[Address]:
        """Give every address but those that failed and are left alone; all of them where there is no other.

        Raises:
            OSError: the name leads nowhere, and never did.
        """
        await self._ask()
        now = self._clock()
        working = [place for place in self._preferred if not (place.has_failed and now < place.alone_until)]
        return working or self._preferred

    async def best(self, but: Collection[Address] = ()) -> Address | None:
        """Give the one to ask next, of those that are not among `but`; None where there is no other.

        Raises:
            OSError: the name leads nowhere, and never did.
        """
        await self._ask()
        now = self._clock()
        left = [address for address in self._known if address not in but]
        return min(left, key=lambda address: self._rank(address, now), default=None)

    def opened(self, address: Address) -> None:
        """Hear that a request begins there."""
        self._turn += 1
        address.taken_last = self._turn
        address.open_requests += 1

    def closed(self, address: Address) -> None:
        """Hear that it is over."""
        address.open_requests -= 1

    def failed(self, address: Address) -> None:
        """Hear that nobody answered there: perhaps the name leads elsewhere by now."""
        address.has_failed = True
        address.alone_until = self._clock() + _FAILED_S
        self._asked_at = None

    def full(self, address: Address) -> None:
        """Hear that it cannot take more just now."""
        address.has_failed = False
        address.alone_until = self._clock() + _FULL_S

    def answered(self, address: Address) -> None:
        """Hear that it does."""
        address.has_failed = False
        address.alone_until = 0.0

    def _rank(self, address: Address, now: float) -> tuple[bool, bool, int, int]:
        return now < address.alone_until, address not in self._preferred, address.open_requests, address.taken_last

    async def _ask(self) -> None:
        asking = self._asking
        if asking is None:
            if self._asked_at is not None and self._clock() - self._asked_at < _ASK_AGAIN_S:
                return
            # A task of its own: who began it may leave, and the others still need the answer.
            asking = self._asking = asyncio.create_task(self._look_up())
            asking.add_done_callback(self._asked)
        elif self._known and self._asked_at is not None:
            # Who comes while the question is under way takes what is known.
            return
        patience_s = _PATIENCE_WITH_SOME_S if self._known else _PATIENCE_S
        await asyncio.wait({asking}, timeout=patience_s)
        if self._known:
            return
        if not asking.done():
            raise TimeoutError(f"the name server did not say within {patience_s:g} s where {self._host} is")
        asking.result()

    def _asked(self, asking: asyncio.Task[None]) -> None:
        self._asking = None
        if not asking.cancelled():
            # Whoever waited has it too; and if all have left, nobody misses it.
            asking.exception()

    async def _look_up(self) -> None:
        try:
            found = await self._resolve(self._host, self._port)
        except OSError as error:
            if not self._known:
                raise
            # The name server may be away, and the machines be there.
            _log.warning("%s leads nowhere just now (%s); its last addresses are kept", self._host, error)
        else:
            self._learn(found)
        self._asked_at = self._clock()

    def _learn(self, found: Sequence[Place]) -> None:
        known = {(address.host, address.port): address for address in self._known}
        places = {(host, port): family for family, host, port in found}
        self._known = [known.get(place) or Address(*place) for place in places]
        first = found[0][0]
        self._preferred = [address for address in self._known if places[address.host, address.port] == first]
