"""What is asked and answered here, counted.

In plain integers: a chunk of a stream costs two additions, and nobody who does not look needs a library for it.
"""

import asyncio
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions.backend.telemetry import current

# From an answer out of memory to a prompt of minutes.
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
UNROUTED = "none"
CLIENT_LEFT = 499  # nginx's number for an answer that nobody waited for

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Codes come from tables, ours and the model service's; a service that sends ever new ones must not fill the memory.
_MAX_CODES = 100
_LOOK_EVERY_S = 0.01


class Durations:
    """How often something took how long; `counts` has one more than `bounds`, for what took longer than all."""

    def __init__(self, bounds: Sequence[float] = BUCKETS_S) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds


class RouteTraffic:
    """What one route has sent, and how long it took: to the first byte of a body, and to the end."""

    def __init__(self) -> None:
        self.chunks = 0
        self.bytes = 0
        self.first_byte = Durations()
        self.whole = Durations()


class Traffic:
    """Everything since the start; only the event loop's thread writes it."""

    def __init__(self) -> None:
        self.answers: Counter[tuple[str, str, int]] = Counter()  # by method, route and status
        self.errors: Counter[tuple[str, str]] = Counter()  # by code and route, within streams too
        self.routes: dict[str, RouteTraffic] = {}
        self.in_progress = 0
        self.open_streams = 0
        self._codes: set[str] = set()

    def by_class(self) -> dict[str, int]:
        """Give how many were answered with 2xx, 3xx, 4xx and 5xx."""
        classes = dict.fromkeys(("2xx", "3xx", "4xx", "5xx"), 0)
        for (_, _, status), count in list(self.answers.items()):
            classes[f"{status // 100}xx"] = classes.get(f"{status // 100}xx", 0) + count
        return classes

    def by_code(self) -> dict[str, int]:
        """Give how many ended with an error, by its code."""
        codes: Counter[str] = Counter()
        for (code, _), count in self.errors.items():
            codes[code] += count
        return dict(codes)

    async def idle(self) -> None:
        """Return when nothing is in progress."""
        while self.in_progress:  # noqa: ASYNC110 - an event would be set and cleared by every request
            await asyncio.sleep(_LOOK_EVERY_S)

    def failed(self, code: str, route: str) -> None:
        """Count an error by its code, and by the route that was asked."""
        code = code if code in self._codes or len(self._codes) < _MAX_CODES else "other"
        self._codes.add(code)
        self.errors[code, route] += 1


def note_error(scope: Scope, code: str) -> None:
    """Leave word for those who count and log that this request ends with an error; the first word counts."""
    current.note_error(scope.setdefault("state", {}).setdefault("error_code", code))


class TrafficMiddleware:
    """Counts everything that passes; to stand outside of all others."""

    def __init__(self, app: ASGIApp, traffic: Traffic, clock: Callable[[], float] = time.perf_counter) -> None:
        self._app = app
        self._traffic = traffic
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send, self._traffic, self._clock)
        self._traffic.in_progress += 1
        try:
            await self._app(scope, receive, answer.send)
        except Exception:
            # Where nothing has begun: the server's own 500, which is made outside of all middleware.
            answer.status = answer.status or 500
            note_error(scope, "internal")
            raise
        finally:
            self._traffic.in_progress -= 1
            answer.count(scope)


class _Answer:
    """One answer on its way."""

    def __init__(self, send: Send, traffic: Traffic, clock: Callable[[], float]) -> None:
        self._send = send
        self._traffic = traffic
        self._clock = clock
        self._began = clock()
        self._first_byte_s: float | None = None
        self._chunks = 0
        self._bytes = 0
        self._is_stream = False
        self.status = 0

    # Not a coroutine of its own: it would be one more to run for every chunk.
    def send(self, message: Message) -> Awaitable[None]:
        """Count, and pass on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if all(name.lower() != b"content-length" for name, _ in message.get("headers", ())):
                self._is_stream = True
                self._traffic.open_streams += 1
        else:
            if body := message.get("body"):
                if not self._chunks:
                    self._first_byte_s = self._clock() - self._began
                self._chunks += 1
                self._bytes += len(body)
            if not message.get("more_body"):
                # Before the client can know that it has read everything, and looks here.
                self._close()
        return self._send(message)

    def _close(self) -> None:
        self._traffic.open_streams -= self._is_stream
        self._is_stream = False

    def count(self, scope: Scope) -> None:
        """Add this one to the others."""
        traffic = self._traffic
        self._close()
        path = getattr(scope.get("route"), "path", UNROUTED)
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        traffic.answers[method, path, self.status or CLIENT_LEFT] += 1
        if code := scope.get("state", {}).get("error_code"):
            traffic.failed(code, path)
        route = traffic.routes.setdefault(path, RouteTraffic())
        route.chunks += self._chunks
        route.bytes += self._bytes
        route.whole.observe(self._clock() - self._began)
        if self._first_byte_s is not None:
            route.first_byte.observe(self._first_byte_s)
