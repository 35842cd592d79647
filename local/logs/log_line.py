"""One line of a tier's log, and how a person reads it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

_COLOURS = {"frontend": 36, "backend": 33, "llm": 35}
_RED = 31
_URGENT = {"warning", "error", "critical"}
# What stands in a place of its own, or is for machines.
_PLACED = {
    "time", "level", "tier", "event", "message", "logger", "request_id", "trace_id", "span_id", "exception",
    "method", "path", "status", "duration_ms",
}  # fmt: skip


@dataclass(frozen=True)
class LogLine:
    """A line.

    Args:
        tier: who said it.
        time: when, in UTC.
        fields: its JSON; what was no JSON is a message.
        is_structured: whether it was JSON of ours.
    """

    tier: str
    time: datetime
    fields: Mapping[str, Any]
    is_structured: bool = True

    @classmethod
    def parse(cls, text: str, tier: str, now: datetime) -> Self:
        """Give the line that a tier has written; one that is no JSON of ours was said now."""
        try:
            fields = json.loads(text)
            time = datetime.fromisoformat(fields["time"])
            return cls(str(fields["tier"]), time.astimezone(UTC), fields)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            stamp = now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            return cls(tier, now.astimezone(UTC), {"time": stamp, "tier": tier, "message": text}, is_structured=False)

    @property
    def is_urgent(self) -> bool:
        """Whether a person should see it unasked: a warning or worse, or what came from outside of the log."""
        return not self.is_structured or self.fields.get("level") in _URGENT

    def belongs_to(self, request_id: str) -> bool:
        """Say whether it tells of that request."""
        return self.fields.get("request_id") == request_id

    def to_json(self) -> str:
        """Give it as a line of JSON."""
        return json.dumps(self.fields, ensure_ascii=False, separators=(",", ":"))

    def text(self, *, whole: bool = False) -> str:
        """Give it in words, without time and tier, and with nothing that a terminal would obey.

        Args:
            whole: with all lines of a traceback, not only its last.
        """
        fields = self.fields
        if fields.get("event") == "request":
            said = f"{fields.get('method')} {fields.get('path')} {fields.get('status')} {fields.get('duration_ms')} ms"
        else:
            level = str(fields.get("level", "info"))
            what = str(fields.get("message", fields.get("event", "")))
            said = f"{level.upper()} {what}" if level in _URGENT else what
        told = [f"{name}={value}" for name, value in fields.items() if self.is_structured and name not in _PLACED]
        said = _harmless("  ".join([said, " ".join(told)] if told else [said]))
        traceback = str(fields.get("exception", "")).rstrip("\n").split("\n")
        if whole and traceback != [""]:
            return "\n".join([said, *map(_harmless, traceback)])
        return f"{said}  {_harmless(traceback[-1])}" if traceback != [""] else said

    def to_terminal(self, *, colour: bool) -> str:
        """Give it as one line with time, tier and request."""
        time = self.time.astimezone().strftime("%H:%M:%S.%f")[:-3]
        request = f"  [{_harmless(str(self.fields['request_id']))}]" if "request_id" in self.fields else ""
        name, said = f"{_harmless(self.tier):<8}", self.text()
        if colour:
            name = f"\x1b[{_COLOURS.get(self.tier, 34)}m{name}\x1b[0m"
            said = f"\x1b[{_RED}m{said}\x1b[0m" if self._has_failed else said
            request = f"\x1b[2m{request}\x1b[0m"
        return f"{time} {name}  {said}{request}"

    @property
    def _has_failed(self) -> bool:
        status = self.fields.get("status")
        return self.fields.get("level") in {"error", "critical"} or (isinstance(status, int) and status >= 500)


def _harmless(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
