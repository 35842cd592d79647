"""A table of DynamoDB over its JSON protocol: five operations, signed by ourselves, on one pooled client."""

import asyncio
import base64
import json
import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx

from functions.backend.adapters.sigv4 import SigV4Auth
from functions.backend.domain.errors import KeyStoreUnavailable

_log = logging.getLogger(__name__)

Item = dict[str, Any]
"""Attributes by name: text, numbers, bytes, and maps of these."""

# It answers within milliseconds, and the reader of a text waits for it.
_TIMEOUT_S = 3.0
_CONNECT_TIMEOUT_S = 1.0
# Nothing was done, and soon it will be.
_THROTTLED = frozenset({"ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"})
_TRIES = 3
_FIRST_PAUSE_S = 0.05
# More are refused; and of these a busy table, or one with large items, leaves some for another time.
_BATCH = 100
_BATCH_TRIES = 6


class ConditionFailed(Exception):  # noqa: N818 - it says what is the case
    """The item is not what the condition says; `item` is what it is, None where there is none."""

    def __init__(self, item: Item | None) -> None:
        super().__init__("the condition is not met")
        self.item = item


class DynamoDB:
    """One table, whose items are found by `pk` and `sk`. Everything may raise KeyStoreUnavailable."""

    def __init__(self, table: str, region: str, environ: Mapping[str, str]) -> None:
        self._table = table
        given = environ.get("AWS_ENDPOINT_URL_DYNAMODB") or environ.get("AWS_ENDPOINT_URL")
        self._url = given or f"https://dynamodb.{region}.amazonaws.com"
        self._auth = SigV4Auth(region, environ, partial(datetime.now, UTC), service="dynamodb")
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def get(self, pk: str, sk: str) -> Item | None:
        """Give an item, as it is now."""
        key = _written({"pk": pk, "sk": sk})
        answer = await self._ask("GetItem", {"TableName": self._table, "Key": key, "ConsistentRead": True})
        return _read(answer["Item"]) if "Item" in answer else None

    async def get_many(self, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Item]:
        """Give the items that there are of these `pk` and `sk`, as they are now."""
        # One that is asked for twice would be refused.
        wanted = [_written({"pk": pk, "sk": sk}) for pk, sk in dict.fromkeys(keys)]
        found: list[Item] = []
        for first in range(0, len(wanted), _BATCH):
            found += await self._get_batch(wanted[first : first + _BATCH])
        return {(item["pk"], item["sk"]): item for item in found}

    async def _get_batch(self, wanted: list[dict[str, Any]]) -> list[Item]:
        found: list[Item] = []
        for attempt in range(_BATCH_TRIES):
            if attempt:
                await asyncio.sleep(_FIRST_PAUSE_S * 2**attempt)
            asked = {"RequestItems": {self._table: {"Keys": wanted, "ConsistentRead": True}}}
            answer = await self._ask("BatchGetItem", asked)
            found += map(_read, answer["Responses"].get(self._table, ()))
            if self._table not in answer["UnprocessedKeys"]:
                return found
            wanted = answer["UnprocessedKeys"][self._table]["Keys"]
        raise self._unavailable("BatchGetItem", f"{len(wanted)} items were left out {_BATCH_TRIES} times")

    async def query(self, pk: str) -> list[Item]:
        """Give all items of a partition."""
        asked: dict[str, Any] = {
            "TableName": self._table,
            "KeyConditionExpression": "pk = :pk",
            "ExpressionAttributeValues": _written({":pk": pk}),
            "ConsistentRead": True,
        }
        found: list[Item] = []
        while True:
            answer = await self._ask("Query", asked)
            found += map(_read, answer["Items"])
            if "LastEvaluatedKey" not in answer:
                return found
            asked["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def put(self, item: Item, condition: str) -> None:
        """Write an item, if the condition holds.

        Raises:
            ConditionFailed: it does not.
        """
        asked = {"TableName": self._table, "Item": _written(item), "ConditionExpression": condition}
        await self._ask("PutItem", asked)

    async def update(
        self,
        pk: str,
        sk: str,
        expression: str,
        condition: str,
        names: Mapping[str, str],
        values: Item,
    ) -> Item:
        """Change an item, if the condition holds, and give what it is then.

        It may be asked twice: the condition must not hold any more where the change is no good twice.

        Raises:
            ConditionFailed: it does not; has what the item is.
        """
        asked: dict[str, Any] = {
            "TableName": self._table,
            "Key": _written({"pk": pk, "sk": sk}),
            "UpdateExpression": expression,
            "ConditionExpression": condition,
            "ExpressionAttributeValues": _written(values),
            "ReturnValues": "ALL_NEW",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        if names:
            asked["ExpressionAttributeNames"] = dict(names)
        return _read((await self._ask("UpdateItem", asked))["Attributes"])

    async def aclose(self) -> None:
        """Close the connections; a later call opens new ones."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()

    async def _ask(self, operation: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        body = json.dumps(asked).encode()
        headers = {"content-type": "application/x-amz-json-1.0", "x-amz-target": f"DynamoDB_20120810.{operation}"}
        for attempt in range(_TRIES):
            if attempt:
                await asyncio.sleep(_FIRST_PAUSE_S * 2**attempt)
            try:
                answer = await self._live_client().post(self._url, content=body, headers=headers)
                said: dict[str, Any] = json.loads(answer.content)
            except (httpx.TransportError, ValueError) as error:
                failure = f"{type(error).__name__}: {error}"
                continue
            if answer.status_code == httpx.codes.OK:
                return said
            kind = str(said.get("__type", "")).rpartition("#")[2]
            if kind == "ConditionalCheckFailedException":
                raise ConditionFailed(_read(said["Item"]) if said.get("Item") else None)
            failure = f"{answer.status_code} {kind}: {said.get('message') or said.get('Message') or ''}"
            if kind not in _THROTTLED and not httpx.codes.is_server_error(answer.status_code):
                break
        raise self._unavailable(operation, failure) from OSError(failure)

    def _unavailable(self, operation: str, failure: str) -> KeyStoreUnavailable:
        # The client is not told what our tables are called.
        _log.warning("%s on the table %s at %s: %s", operation, self._table, self._url, failure)
        return KeyStoreUnavailable("The keys cannot be looked up now. Try again.")

    def _live_client(self) -> httpx.AsyncClient:
        """Give the client of the running loop, made on first use: see HTTPLLMGateway."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._loop = loop
            self._client = httpx.AsyncClient(
                auth=self._auth,
                trust_env=False,
                timeout=httpx.Timeout(_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S),
            )
        return self._client


def _written(item: Mapping[str, object]) -> dict[str, Any]:
    return {name: _write_value(value) for name, value in item.items()}


def _write_value(value: object) -> dict[str, Any]:
    match value:
        case str():
            return {"S": value}
        case bytes():
            return {"B": base64.b64encode(value).decode()}
        case int() | float():
            return {"N": repr(value)}
        case dict():
            return {"M": _written(value)}
        case _:
            raise TypeError(f"{type(value).__name__} is no attribute here")


def _read(item: Mapping[str, Mapping[str, Any]]) -> Item:
    return {name: _read_value(value) for name, value in item.items()}


def _read_value(value: Mapping[str, Any]) -> object:
    [(kind, said)] = value.items()
    match kind:
        case "S":
            return said
        case "B":
            return base64.b64decode(said)
        case "N":
            return int(said) if said.lstrip("-").isdecimal() else float(said)
        case "M":
            return _read(said)
        case _:
            raise KeyStoreUnavailable(f"An attribute of the type {kind} is in the table of keys.")
