"""GET /api/admin/keys and GET /api/admin/usage, for the holders of a key with the scope admin."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from typing_extensions import TypedDict

from functions.backend.application.key_store import KeyStore
from functions.backend.controllers.errors import error_answers
from functions.backend.controllers.principal import PrincipalOf
from functions.backend.domain.key import Key
from functions.backend.domain.principal import ADMIN
from functions.backend.domain.usage_total import UsageTotal

_REFUSALS = (401, 403, 500, 503)
_FRESH = {"cache-control": "no-store"}


class KeyBody(TypedDict):
    """A key without its text, which nobody has but its holder. Times are seconds since 1970; no limit is null."""

    id: str
    name: str
    scopes: list[str]
    tokens_per_minute: int | None
    tokens_per_day: int | None
    concurrency: int | None
    created: float
    expires: float | None
    revoked: float | None


class KeysBody(TypedDict):
    """All keys, the oldest first."""

    keys: list[KeyBody]


class UsageTotalBody(TypedDict):
    """What was used since the key is there; memory and dollars are estimates."""

    requests: int
    prompt_tokens: int
    cached_prompt_tokens: int
    completion_tokens: int
    cpu_seconds: float
    gb_seconds: float
    cost_usd: float


class KeyUsageBody(TypedDict):
    """What one key has used."""

    id: str
    name: str
    usage: UsageTotalBody


class AllUsageBody(TypedDict):
    """What each key has used, and all together."""

    keys: list[KeyUsageBody]
    total: UsageTotalBody


def admin_router(store: KeyStore, principal_of: PrincipalOf) -> APIRouter:
    """Give the routes that tell of keys and of what they have used."""
    router = APIRouter(prefix="/api/admin", tags=["admin"])

    async def keys_for(request: Request) -> list[Key]:
        (await principal_of(request)).require(ADMIN)
        return list(await store.keys())

    @router.get(
        "/keys",
        summary="List the keys",
        responses={200: {"model": KeysBody, "description": "The keys"}, **error_answers(*_REFUSALS)},
    )
    async def keys(request: Request) -> Response:
        body = KeysBody(keys=[key_body(key) for key in await keys_for(request)])
        return JSONResponse(body, headers=_FRESH)

    @router.get(
        "/usage",
        summary="Tell what each key has used",
        responses={200: {"model": AllUsageBody, "description": "The sums"}, **error_answers(*_REFUSALS)},
    )
    async def usage(request: Request) -> Response:
        found = await keys_for(request)
        totals = await store.totals([key.principal.account for key in found])
        each = [
            KeyUsageBody(id=key.id, name=key.name, usage=usage_body(total))
            for key, total in zip(found, totals, strict=True)
        ]
        return JSONResponse(AllUsageBody(keys=each, total=usage_body(sum(totals, start=UsageTotal()))), headers=_FRESH)

    return router


def key_body(key: Key) -> KeyBody:
    """Give a key as JSON."""
    return KeyBody(
        id=key.id,
        name=key.name,
        scopes=sorted(key.scopes),
        tokens_per_minute=key.quota.tokens_per_minute,
        tokens_per_day=key.quota.tokens_per_day,
        concurrency=key.quota.concurrency,
        created=key.created,
        expires=key.expires,
        revoked=key.revoked,
    )


def usage_body(total: UsageTotal) -> UsageTotalBody:
    """Give a sum as JSON."""
    return UsageTotalBody(
        requests=total.requests,
        prompt_tokens=total.prompt_tokens,
        cached_prompt_tokens=total.cached_prompt_tokens,
        completion_tokens=total.completion_tokens,
        cpu_seconds=total.cpu_seconds,
        gb_seconds=total.gb_seconds,
        cost_usd=total.cost_usd,
    )
