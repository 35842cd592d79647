"""Where keys and accounts are kept, by the name that the settings give."""

from collections.abc import Mapping
from pathlib import Path

from functions.backend.adapters.memory_key_store import MemoryKeyStore
from functions.backend.application.key_store import KeyStore


def key_store_named(name: str, region: str, environ: Mapping[str, str]) -> KeyStore:
    """Give the store of `sqlite:PATH` or `dynamodb:TABLE`; of "", one that has no keys and forgets the sessions.

    What only one of them needs is imported for it alone. Nothing is opened before it is first used.
    """
    kind, _, place = name.partition(":")
    if kind == "sqlite":
        from functions.backend.adapters.sqlite_key_store import SQLiteKeyStore

        return SQLiteKeyStore(Path(place))
    if kind == "dynamodb":
        from functions.backend.adapters.dynamodb_key_store import DynamoDBKeyStore

        return DynamoDBKeyStore(place, region, environ)
    return MemoryKeyStore()
