"""W3C Trace Context, level 1: where a request comes from, and where it is now (https://www.w3.org/TR/trace-context-1/).

A tier is a span: it takes over the trace of who calls, or begins one, and tells its own span to whom it calls.
"""

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_KEY = r"[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13}"
_MEMBER = re.compile(rf"({_KEY})=[ -+\--<>-~]{{0,255}}[!-+\--<>-~]")
_MAX_MEMBERS = 32
# As much as everybody has to pass on; more is somebody's mistake, and would go through all tiers.
_MAX_STATE = 512


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One span of a trace.

    Args:
        trace_id: of the whole trace, 32 hexadecimal digits.
        span_id: of this span, 16 of them.
        parent_id: of the span that called; None where the trace begins here.
        sampled: whether the span is recorded.
        state: what others keep in `tracestate`, passed on as it came.
    """

    trace_id: str
    span_id: str
    parent_id: str | None = None
    sampled: bool = True
    state: str = ""

    @classmethod
    def from_headers(cls, headers: Iterable[tuple[bytes, bytes]]) -> "TraceContext":
        """Give a span under the one that ASGI's headers name; without a valid one, the first of a new trace."""
        found = [(name, value.decode("latin-1").strip()) for name, value in headers if name.startswith(b"trace")]
        parents = [value for name, value in found if name == b"traceparent"]
        parent = _PARENT.fullmatch(parents[0]) if len(parents) == 1 else None
        if parent is None or not _is_valid(parent):
            # Every request is logged, which is a record: who comes after us may look for it.
            return cls(secrets.token_hex(16), secrets.token_hex(8))
        state = _valid_state([value for name, value in found if name == b"tracestate"])
        return cls(parent[2], secrets.token_hex(8), parent[3], bool(int(parent[4], 16) & 1), state)

    def to_headers(self) -> dict[str, str]:
        """Give what tells another tier of this span."""
        headers = {"traceparent": f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"}
        return headers | {"tracestate": self.state} if self.state else headers


def _is_valid(parent: re.Match[str]) -> bool:
    version, trace_id, span_id, _, rest = parent.groups()
    # A later version may say more after the fields that are known; this one may not.
    return version != "ff" and (version != "00" or rest is None) and int(trace_id, 16) > 0 and int(span_id, 16) > 0


def _valid_state(values: list[str]) -> str:
    members = [member.strip() for member in ",".join(values).split(",")]
    matches = [_MEMBER.fullmatch(member) for member in members if member]
    keys = [match[1] for match in matches if match is not None]
    if len(keys) != len(matches) or len(set(keys)) != len(keys) or len(keys) > _MAX_MEMBERS:
        return ""
    state = ",".join(member for member in members if member)
    return state if len(state) <= _MAX_STATE else ""
