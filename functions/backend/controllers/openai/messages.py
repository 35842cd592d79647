"""The messages of a conversation, from OpenAI's forms to what chat templates read."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from functions.backend.domain.conversation import MAX_MESSAGES
from functions.backend.domain.errors import InvalidRequest

# Readers of JSON give up at 200, and what is sent on has some levels more; no template looks so deep.
_MAX_DEPTH = 100
# More than the longest conversation has room for, and few enough to be written as JSON in some milliseconds.
_MAX_VALUES = 100_000

ROLES = ("system", "developer", "user", "assistant", "tool")

_PART = {
    "type": "object",
    "required": ["type", "text"],
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
}
_CALL = {
    "type": "object",
    "required": ["function"],
    "properties": {
        "id": {"type": "string"},
        "type": {"const": "function"},
        "function": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string"}, "arguments": {"description": "JSON, or text that is"}},
        },
    },
}
_NAMES = {"name": {"type": ["string", "null"]}, "tool_call_id": {"type": ["string", "null"]}}
_SAYS = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {
        "role": {"enum": list(ROLES)},
        "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": _PART}]},
        "tool_calls": {"anyOf": [{"type": "array", "items": _CALL}, {"type": "null"}]},
        **_NAMES,
    },
}
_CALLS = {
    "type": "object",
    "required": ["role", "tool_calls"],
    "properties": {
        "role": {"const": "assistant"},
        "content": {"type": "null"},
        "tool_calls": {"type": "array", "minItems": 1, "items": _CALL},
        **_NAMES,
    },
}
MESSAGES_SCHEMA: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "maxItems": MAX_MESSAGES,
    "items": {"anyOf": [_SAYS, _CALLS]},
}
TOOLS_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "function"],
                "properties": {
                    "type": {"const": "function"},
                    "function": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {"name": {"type": "string", "minLength": 1}, "parameters": {"type": "object"}},
                    },
                },
            },
        },
        {"type": "null"},
    ]
}


def read_messages(messages: object) -> tuple[Mapping[str, object], ...]:
    """Give messages as templates read them: contents as text, a call's arguments as what their JSON says.

    Raises:
        InvalidRequest: says which message is at fault, and what is expected.
    """
    if not isinstance(messages, list) or not messages:
        raise _fault("it must be a list of at least one message")
    if len(messages) > MAX_MESSAGES:
        raise _fault(f"it has {len(messages)} entries and may have at most {MAX_MESSAGES}")
    read = tuple(_message(message, f"[{place}]") for place, message in enumerate(messages))
    _expect_plain(read, "messages")
    return read


def read_tools(tools: object) -> tuple[Mapping[str, object], ...]:
    """Give the tools that may be called; None is none.

    Raises:
        InvalidRequest: one of them is no function with a name.
    """
    if tools is None:
        return ()
    if not isinstance(tools, list) or not all(map(_is_function, tools)):
        raise InvalidRequest(
            "tools must be a list of functions, each such as "
            '{"type": "function", "function": {"name": "...", "parameters": {...}}}.',
            field="tools",
        )
    _expect_plain(tools, "tools")
    return tuple(tools)


def read_options(options: Mapping[str, object] | None) -> Mapping[str, object]:
    """Give more variables for a template; None is none.

    Raises:
        InvalidRequest: one of them is nothing that JSON can say.
    """
    _expect_plain(options or {}, "chat_template_kwargs")
    return options or {}


def _is_function(tool: object) -> bool:
    function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
    if not isinstance(function, dict) or not isinstance(function.get("parameters", {}), dict):
        return False
    return isinstance(function.get("name"), str) and bool(function["name"])


def _expect_plain(value: object, field: str) -> None:
    _expect_small(value, field)
    # Python reads NaN, and halves of characters within JSON within JSON; nobody else does.
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        raise InvalidRequest(f"{field} holds what is not JSON, such as NaN.", field=field) from None


def _expect_small(value: object, field: str) -> None:
    level, count = [value], 0
    for _ in range(_MAX_DEPTH):
        level = [part for each in level for part in _parts(each)]
        count += len(level)
        if count > _MAX_VALUES:
            raise InvalidRequest(f"{field} holds more than {_MAX_VALUES} values.", field=field)
        if not level:
            return
    raise InvalidRequest(f"{field} holds lists or objects within each other, {_MAX_DEPTH} deep.", field=field)


def _parts(value: object) -> Iterable[object]:
    match value:
        case Mapping():
            return value.values()
        case list() | tuple():
            return value
        case _:
            return ()


def _message(message: object, where: str) -> Mapping[str, object]:
    if not isinstance(message, dict):
        raise _fault("it must be an object with a role and a content", where)
    role = message.get("role")
    if role not in ROLES:
        raise _fault(f"role is {role!r:.40}; it must be one of {', '.join(ROLES)}", where)
    read: dict[str, object] = {"role": role, "content": _content(message.get("content"), where)}
    calls = message.get("tool_calls")
    if calls is not None:
        if not isinstance(calls, list):
            raise _fault("tool_calls must be a list", where)
        read["tool_calls"] = [_call(call, where) for call in calls]
    if message.get("content") is None and not (calls and role == "assistant"):
        raise _fault("it has no content", where)
    for name in ("name", "tool_call_id"):
        if message.get(name) is not None:
            if not isinstance(message[name], str):
                raise _fault(f"{name} must be text", where)
            read[name] = message[name]
    return read


def _content(content: object, where: str) -> str:
    match content:
        case None:
            return ""
        case str():
            return content
        case list():
            return "".join(_part(part, where) for part in content)
        case _:
            raise _fault("content must be text, or a list of parts", where)


def _part(part: object, where: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get("text") if isinstance(part, dict) and kind == "text" else None
    if not isinstance(text, str):
        raise _fault(
            f"a part of its content is {kind!r:.40}; the models here read text alone, as "
            '{"type": "text", "text": "..."}',
            where,
        )
    return text


def _call(call: object, where: str) -> Mapping[str, object]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise _fault("a tool call needs a function with a name", where)
    arguments = function.get("arguments", "{}")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            raise _fault(f"the arguments of {function['name'][:40]} are not JSON", where) from None
    if not isinstance(call.get("id", ""), str) or call.get("type", "function") != "function":
        raise _fault("a tool call's id must be text, and its type function", where)
    return {
        "id": call.get("id", ""),
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments},
    }


def _fault(said: str, where: str = "") -> InvalidRequest:
    return InvalidRequest(f"messages{where}: {said}.", field="messages")


def names_of(tools: Sequence[Mapping[str, object]]) -> frozenset[str]:
    """Give the names of the functions that may be called."""
    names = set()
    for tool in tools:
        function = tool["function"]
        assert isinstance(function, dict)
        names.add(str(function["name"]))
    return frozenset(names)
