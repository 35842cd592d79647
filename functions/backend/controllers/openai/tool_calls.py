"""The calls of functions in what a model writes.

Two forms are known, those that most published chat templates teach: once for each call,
<tool_call>{"name": ..., "arguments": {...}}</tool_call>, and an answer that is nothing but such an object (with
`parameters` for `arguments` in some).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call: the function's name, and its arguments as JSON."""

    name: str
    arguments: str


class ToolCallReader:
    """Tells text from calls, in whatever pieces the text comes. What only looks like a call stays text.

    Law: how the text was cut changes neither the text that comes out, joined, nor the calls.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._held = ""
        self._called = False
        self._whole: bool | None = None  # whether the answer may be nothing but a call; None before its first character

    def push(self, text: str) -> Iterator[str | ToolCall]:
        """Give what is certain now."""
        if not self._names:
            yield text
            return
        self._held += text
        if self._whole is None and (begun := self._held.lstrip()):
            self._whole = begun[0] in "{["
        if self._whole is False:
            yield from self._blocks()

    def flush(self) -> Iterator[str | ToolCall]:
        """Give what the end of the text decides."""
        held, self._held = self._held, ""
        calls = _calls(held, self._names) if self._whole else None
        if calls:
            yield from calls
        elif held and not self._says_nothing(held):
            yield held

    def _says_nothing(self, text: str) -> bool:
        """Say whether a text only parts one call from the next, or from the end."""
        return self._called and not text.strip()

    def _blocks(self) -> Iterator[str | ToolCall]:
        while (start := self._held.find(_OPEN)) >= 0:
            if start:
                if not self._says_nothing(self._held[:start]):
                    yield self._held[:start]
                self._held = self._held[start:]
            end = self._held.find(_CLOSE)
            if end < 0:
                return
            block, self._held = self._held[: end + len(_CLOSE)], self._held[end + len(_CLOSE) :]
            calls = _calls(block[len(_OPEN) : -len(_CLOSE)], self._names)
            if calls:
                self._called = True
                yield from calls
            else:
                yield block
        kept = next((length for length in range(len(_OPEN) - 1, 0, -1) if self._held.endswith(_OPEN[:length])), 0)
        certain = self._held[: len(self._held) - kept]
        if certain and not self._says_nothing(certain):
            self._held = self._held[len(certain) :]
            yield certain


def _calls(text: str, names: frozenset[str]) -> list[ToolCall] | None:
    """Give the calls that a text is, None where it is none."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return None
    calls = []
    for call in said if isinstance(said, list) else [said]:
        name = call.get("name") if isinstance(call, dict) else None
        if not isinstance(name, str) or name not in names:
            return None
        arguments = call.get("arguments", call.get("parameters", {}))
        # Some models write the arguments as JSON within JSON, as the API does.
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        calls.append(ToolCall(name, arguments))
    return calls or None
