"""Real servers on loopback ports, for as long as a test needs them."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from functions.frontend.app import build_app
from functions.frontend.settings import Settings
from local.tiers import HTTP_PROTOCOL


@contextmanager
def serve(app: ASGIApp) -> Iterator[str]:
    """The address of the app under uvicorn."""
    # Without uvicorn's own logging, whose settings would stay for the tests that come after.
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, http=HTTP_PROTOCOL, log_config=None))
    thread = threading.Thread(target=server.run, name="uvicorn")
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive(), "uvicorn has ended"
            assert time.monotonic() < deadline, "uvicorn does not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


@contextmanager
def serve_frontend(backend_url: str, timeout_s: float = 30.0, **settings: Any) -> Iterator[str]:
    """The address of a frontend in front of that backend."""
    with serve(build_app(Settings(backend_url, timeout_s, **settings))) as address:
        yield address
