"""A request's JSON: what a megabyte of it costs, before anybody's quota is asked, is little."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator
from starlette.requests import Request

from functions.backend.domain.prompt import MAX_ENTRIES, expect_few

# What is made of so much takes some milliseconds.
_READ_AT_ONCE_BYTES = 50_000

Made = TypeVar("Made")


class Body(BaseModel):
    """A JSON object whose types are checked here; its values are the domain's to check."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _in_brief(cls, body: Any) -> Any:
        """Refuse what has too many entries before any is converted; of unknown fields leave one to be told of.

        Raises:
            InvalidRequest: names the field and its limit.
        """
        if not isinstance(body, dict):
            return body
        known = cls.model_fields
        for name in MAX_ENTRIES:
            entries = body.get(name) if name in known else None
            if isinstance(entries, list | dict):
                expect_few(name, len(entries))
        unknown = next((name for name in body if name not in known), None)
        return {name: value for name, value in body.items() if name in known or name == unknown}


async def read_body(request: Request, make: Callable[[bytes], Made]) -> Made:
    """Give what `make` makes of a body; of a large one beside the event loop, on which everybody's streams are."""
    body = await request.body()
    return make(body) if len(body) <= _READ_AT_ONCE_BYTES else await asyncio.to_thread(make, body)
