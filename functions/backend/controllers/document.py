"""Parts of the OpenAPI document that FastAPI does not write by itself."""

from typing import Any

from fastapi import FastAPI
from pydantic import TypeAdapter

from functions.backend.controllers.principal import DOORS_OF_THE_PAGE
from functions.backend.domain.prompt import Range
from functions.backend.domain.session import COOKIE

# FastAPI keeps bounds in double precision. Beyond, a whole number need not be one of these; the next one may be.
_EXACT = 2**53

REFUSED_EVERYWHERE = (
    "What no operation here says of itself: another path is a 404, another method on a path a 405 that names those in "
    "`allow`, and where this is published on loopback alone, a `host` that is not this machine's a 421; each with the "
    "JSON of the errors of the paths beside it."
)


class DocumentedAPI(FastAPI):
    """FastAPI whose OpenAPI document says who may ask, and whole numbers to the last digit.

    Args:
        asks: whether anybody is asked who they are.
        options: FastAPI's.
    """

    def __init__(self, *, asks: bool, **options: Any) -> None:
        """Remember what the document is to say of keys."""
        super().__init__(**options)
        self._asks = asks

    def openapi(self) -> dict[str, Any]:
        """Give the document, made once."""
        if self.openapi_schema is None:
            document = _exact(super().openapi())
            if self._asks:
                _say_who_may_ask(document)
            self.openapi_schema = document
        return self.openapi_schema


def _exact(value: Any) -> Any:
    """Write whole numbers as such: 9.223372036854776e+18 is taken for another number than it stands for."""
    match value:
        case dict():
            return {name: _exact(each) for name, each in value.items()}
        case list():
            return [_exact(each) for each in value]
        case float() if value.is_integer():
            return int(value)
        case _:
            return value


def _say_who_may_ask(document: dict[str, Any]) -> None:
    key = {"type": "http", "scheme": "bearer", "description": "a key of `huginn keys new`"}
    session = {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "the session of a reader of the page"}
    document["components"]["securitySchemes"] = {"key": key, "session": session}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            # What may be refused so asks who is there.
            if "401" in operation["responses"]:
                operation["security"] = [{"key": []}] + [{"session": []}] * path.startswith(DOORS_OF_THE_PAGE)


def range_schema(allowed: Range) -> dict[str, Any]:
    """Give a range as JSON schema says it. It documents: the domain is what enforces it."""
    low = {"minimum" if allowed.low_included else "exclusiveMinimum": allowed.low}
    if isinstance(allowed.high, int) and allowed.high > _EXACT:
        return {**low, "exclusiveMaximum": allowed.high + 1}
    return {**low, "maximum": allowed.high}


def event_schema(data: Any, *, last: str | None = None) -> dict[str, Any]:
    """Give the schema of each event of a stream, as FastAPI tells of one (OpenAPI 3.2's `itemSchema`).

    Args:
        data: the types of the JSON that an event carries.
        last: what the last event carries instead, if that is no JSON.
    """
    schema = TypeAdapter(data).json_schema()
    parts = schema.pop("$defs", {})
    told = {"contentMediaType": "application/json", "contentSchema": with_parts(schema, parts)}
    said = {"type": "string", **told} if last is None else {"type": "string", "if": {"const": last}, "else": told}
    return {"type": "object", "required": ["data"], "properties": {"event": {"type": "string"}, "data": said}}


def with_parts(schema: Any, parts: dict[str, Any]) -> Any:
    """Put the parts where they are referred to: a reference would look for them in the document's root."""
    if isinstance(schema, list):
        return [with_parts(element, parts) for element in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return with_parts(parts[schema["$ref"].rpartition("/")[2]], parts)
    return {name: with_parts(value, parts) for name, value in schema.items()}
