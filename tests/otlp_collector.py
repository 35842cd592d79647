"""A collector of OpenTelemetry's spans on the loopback."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@contextmanager
def collected() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """An address, and all that is sent to /v1/traces under it."""
    received: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            received.append(ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def mute() -> Iterator[str]:
    """The address of a collector that takes what it is sent, and never answers, until it is gone at the end.

    Nobody may go on trying then: the library's repetitions draw from `random`, which Hypothesis watches for others.
    """
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    left = set(threading.enumerate()) - before
    deadline = time.monotonic() + 10
    for thread in left:
        thread.join(max(0, deadline - time.monotonic()))
    assert not [thread.name for thread in left if thread.is_alive()]


def spans_of(received: list[ExportTraceServiceRequest]) -> list:
    """All spans, as they came."""
    resources = [resource for request in received for resource in request.resource_spans]
    return [span for resource in resources for scope in resource.scope_spans for span in scope.spans]
