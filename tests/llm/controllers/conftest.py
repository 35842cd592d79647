"""The llm function behind a real server on the loopback."""

import asyncio
import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import httpx
import jax
import jax.numpy as jnp
import pytest
import uvicorn

from functions.llm.app import build_app
from functions.llm.checkpoints.checkpoint import save_checkpoint
from functions.llm.models import LSTM, LSTMConfig
from functions.llm.settings import Settings
from functions.llm.tokenizers import ByteTokenizer
from local.tiers import HTTP_PROTOCOL
from tests.unused_ports import unused_port

WAIT_S = 120


@dataclass(frozen=True)
class Service:
    """A running llm function: how to call it, and where it is."""

    http: httpx.Client
    port: int
    metrics_port: int

    def metric(self, name: str, **labels: str) -> float:
        """The value of a sample on the metrics port, 0 if it is not there."""
        wanted = name + (json.dumps(labels).replace('": "', '="').replace('{"', "{") if labels else "")
        page = httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=WAIT_S).text
        return next((float(line.split()[-1]) for line in page.splitlines() if line.startswith(wanted + " ")), 0.0)

    def wait_for(self, name: str, value: float, **labels: str) -> None:
        """Wait until a metric has a value: the engine works on a thread of its own."""
        deadline = time.monotonic() + WAIT_S
        while self.metric(name, **labels) != value:
            assert time.monotonic() < deadline, f"{name} is {self.metric(name, **labels)}, not {value}"
            time.sleep(0.02)

    @contextmanager
    def stream(self, accept: str = "text/event-stream", **body: object) -> Iterator[httpx.Response]:
        with self.http.stream("POST", "/generate/stream", json=body, headers={"accept": accept}) as response:
            yield response


@pytest.fixture(scope="session")
def serving() -> Callable[[Settings], AbstractContextManager[Service]]:
    """Serves the app of some settings on free ports until the context ends."""
    return _serving


@contextmanager
def _serving(settings: Settings) -> Iterator[Service]:
    settings = replace(settings, metrics_port=unused_port(), metrics_host="127.0.0.1")
    config = uvicorn.Config(
        build_app(settings),
        host="127.0.0.1",
        port=0,
        http=HTTP_PROTOCOL,
        log_config=None,
        ws="none",
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    port = int(listener.getsockname()[1])
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_S) as http:
            deadline = time.monotonic() + WAIT_S
            while not server.started:
                assert thread.is_alive()
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield Service(http, port, settings.metrics_port)
    finally:
        server.should_exit = True
        thread.join(WAIT_S)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def served_folder(checkpoints_folder: Path, reciter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Besides the tiny models: one that takes its time, and one that breaks when it has spoken for a while."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(checkpoints_folder, folder, dirs_exist_ok=True)
    config = LSTMConfig(vocab_size=256, emb=64, hid=960, layers=1)
    slow = LSTM(config, LSTM.init_params(config, jax.random.key(3)))
    save_checkpoint(folder / "slow", slow, ByteTokenizer(), "# slow\n")
    alphabet = b"abcdefghijklmnopqrstuvwxyz"
    recited = reciter(ByteTokenizer(), dict(pairwise(alphabet))).checkpoint.model
    # Having said "l" it knows nothing any more.
    broken = dict(recited.params) | {"emb.weight": recited.params["emb.weight"].at[ord("l")].set(jnp.nan)}
    save_checkpoint(folder / "breaking", LSTM(recited.config, broken), ByteTokenizer(), "# breaking\n")
    return folder


@pytest.fixture(scope="session")
def service(served_folder: Path) -> Iterator[Service]:
    """The function with its default settings, tiny-char first."""
    with _serving(Settings(ckpt_path=served_folder / "tiny-char")) as service:
        deadline = time.monotonic() + WAIT_S
        while service.http.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield service


@pytest.fixture
def narrow_service(served_folder: Path) -> Iterator[Service]:
    """A function that answers one at a time and lets one wait, with the slow model."""
    with _serving(Settings(ckpt_path=served_folder / "slow", max_active=1, max_queue=1)) as service:
        yield service
