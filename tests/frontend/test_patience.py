"""A browser that stalls: the relay holds little for it, ends the work behind it, and says so."""

import socket
from contextlib import closing

import httpx
import pytest

from functions.frontend.app import build_app
from functions.frontend.settings import Settings, SettingsError
from tests.frontend.fake_backend import PATIENCE_S, Script, token_events
from tests.frontend.loopback import serve

FLOOD = token_events(["x" * 4000]) * 20_000  # 80 MB


@pytest.mark.parametrize("content_type", ["text/event-stream", "text/plain"])
def test_a_reader_who_stalls_ends_the_work_and_hears_so(backend, content_type):
    """An event stream has an error as its last event; what is no event stream is cut off."""
    backend.scripts["/api/llm/stream"] = Script(200, {"content-type": content_type}, FLOOD)
    with serve(build_app(Settings(backend.url, reader_timeout_s=0.4))) as url:
        address = httpx.URL(url)
        with closing(socket.socket()) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(PATIENCE_S)
            connection.connect((address.host, address.port))
            connection.sendall(b"POST /api/llm/stream HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}")
            assert backend.client_left.wait(PATIENCE_S)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            said = bytearray()
            while (piece := connection.recv(1 << 20)) and not said.endswith(b"0\r\n\r\n"):
                said += piece
        assert len(said) < 40_000_000
        if content_type == "text/event-stream":
            last = said.rsplit(b"\n\n", 2)[-2]
            assert b"event: error\ndata: " in last
            assert b'"slow_reader"' in last
        else:
            assert not said.endswith(b"0\r\n\r\n")
        assert httpx.get(f"{url}/livez", timeout=30, trust_env=False).status_code == 200


def test_a_patience_that_is_none_stops_the_start():
    """By its name."""
    with pytest.raises(SettingsError, match="READER_TIMEOUT_S"):
        Settings.from_env({"READER_TIMEOUT_S": "0"})
