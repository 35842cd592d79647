"""A paced model, and the web tiers before it as where others are let in: who asks is asked who they are."""

import asyncio
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.server import tier_server, wait_until_ready
from functions.backend.adapters.sqlite_key_store import SQLiteKeyStore
from functions.backend.domain.key import Key, digest_of, mint
from functions.backend.domain.principal import GENERATE
from functions.backend.domain.quota import Quota
from functions.frontend.entrance import COOKIE
from functions.frontend.session import Session, SessionSeal

PAGE, V1 = "through frontend and backend", "from the backend's /v1"
# More than a load needs, but counted.
KEY_QUOTA = Quota(10**9, 10**9, 10**6)


@dataclass(frozen=True)
class Way:
    """One way to the tokens.

    Args:
        port: of this machine.
        path: to POST to.
        pids: the process of each tier that is passed.
        fields: what is asked beside prompt and number of tokens.
        headers: who asks, made anew for each stream.
    """

    port: int
    path: str
    pids: Mapping[str, int] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    headers: Callable[[], Mapping[str, str]] = dict


@contextmanager
def paced_llm() -> Iterator[int]:
    """Serve the paced model in a process of its own; give its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.paced_llm", str(port)])
    try:
        wait_until_ready(f"http://127.0.0.1:{port}/readyz", process)
        yield port
    finally:
        process.terminate()
        process.wait()


@contextmanager
def tiers_before(llm_port: int) -> Iterator[Mapping[str, Way]]:
    """Serve backend and frontend in front of a model; give the ways through them."""
    secret = secrets.token_hex(32)
    guarded = {"HUGINN_AUTH": "on", "HUGINN_HOST": "127.0.0.1", "SESSION_SECRET": secret, "METRICS_PORT": "0"}
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "keys.db")
        key = asyncio.run(_new_key(store))
        llm_url = f"http://127.0.0.1:{llm_port}/generate/stream"
        backend_env = {**guarded, "LLM_URL": llm_url, "KEY_STORE": f"sqlite:{store}"}
        with tier_server("backend", backend_env) as (backend_port, backend_pid):
            frontend_env = {**guarded, "BACKEND_URL": f"http://127.0.0.1:{backend_port}"}
            with tier_server("frontend", frontend_env) as (port, frontend_pid):
                yield {
                    PAGE: Way(
                        port,
                        "/api/llm/stream",
                        {"frontend": frontend_pid, "backend": backend_pid},
                        headers=partial(_new_session, secret),
                    ),
                    V1: Way(
                        backend_port,
                        "/v1/completions",
                        {"backend": backend_pid},
                        {"model": "paced", "stream": True},
                        partial(_bearer, key),
                    ),
                }


# A way is told to the process that reads, so what it calls has a name.


def _new_session(secret: str) -> dict[str, str]:
    return {"cookie": f"{COOKIE}={SessionSeal([secret]).write(Session.begin(time.time()))}"}


def _bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def _new_key(path: Path) -> str:
    key_id, text = mint(secrets.token_bytes(38))
    store = SQLiteKeyStore(path)
    await store.add(Key(key_id, "load", digest_of(text), frozenset({GENERATE}), time.time(), KEY_QUOTA))
    await store.aclose()
    return text
