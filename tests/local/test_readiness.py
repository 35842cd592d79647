"""What counts as an answer of a service that is starting."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

from local.readiness import why_not_ready


@contextmanager
def answering(status: int, body: bytes):
    """A server on loopback that always says the same; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/readyz"
        finally:
            server.shutdown()
            thread.join()


def test_200_is_ready():
    """Whatever the body says."""
    with answering(200, b"{}") as url:
        assert why_not_ready(url) is None


def test_503_is_not_ready_for_the_reason_it_gives():
    """The error's own message, where the body has the shape that all tiers write."""
    with answering(503, b'{"error": {"code": "not_ready", "message": "The model is loading."}}') as url:
        assert why_not_ready(url) == f"{url} answers 503: The model is loading."


def test_a_stranger_is_quoted():
    """A body of another shape is shown as it is."""
    with answering(404, b"no such page") as url:
        assert why_not_ready(url) == f"{url} answers 404: no such page"


def test_nobody_there_is_not_ready(free_ports):
    """A refused connection is a reason, not an exception."""
    reason = why_not_ready(f"http://127.0.0.1:{free_ports['llm']}/readyz")
    assert reason is not None
    assert "does not answer" in reason


def test_silence_is_not_ready(taken_port):
    """Somebody accepts and says nothing: the answer comes soon all the same."""
    reason = why_not_ready(f"http://127.0.0.1:{taken_port}/readyz")
    assert reason is not None
    assert "does not answer" in reason
