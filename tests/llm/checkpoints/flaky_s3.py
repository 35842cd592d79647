"""As much of S3 as a download asks for, on loopback, with the faults of networks and of other people."""

import hashlib
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class FlakyS3:
    """Objects by "bucket/key", and what goes wrong.

    Args:
        objects: what there is.
        errors: "bucket/key" to the status and code of the error that answers for it.
        cut_after: how many bytes of each body come before the connection ends, while `cuts` lasts.
        cuts: how many more connections are cut.
        ignores_ranges: whether it sends the whole whatever was asked for.
        stalled_after: how many bytes all bodies together may bring before they stand still, until `released`.
        before_range: is called with the server before a range is sent.
        asked: method, "bucket/key" and range of every request.
    """

    objects: dict[str, bytes] = field(default_factory=dict)
    errors: dict[str, tuple[int, str]] = field(default_factory=dict)
    cut_after: int = 0
    cuts: int = 0
    ignores_ranges: bool = False
    stalled_after: int | None = None
    before_range: "object" = None
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    sent: int = 0
    stalled: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    def ranges_of(self, suffix: str) -> list[str]:
        """The ranges that were asked for of objects that end so, in this order."""
        return [asked for method, key, asked in self.asked if method == "GET" and asked and key.endswith(suffix)]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def log_message(self, *_args):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        s3, asked = self.server.s3, self.headers.get("Range")
        key = unquote(urlsplit(self.path).path).lstrip("/")
        with s3.lock:
            s3.asked.append((self.command, key, asked))
        if asked and s3.before_range:
            s3.before_range(s3)
        content = s3.objects.get(key)
        etag = content and f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
        if key in s3.errors:
            self.refuse(*s3.errors[key])
        elif content is None:
            self.refuse(404, "NoSuchKey")
        elif self.headers.get("If-Match", etag) != etag:
            self.refuse(412, "PreconditionFailed")
        else:
            self.deliver(content, etag, None if s3.ignores_ranges else asked)

    def deliver(self, content, etag, asked):
        begin, end = 0, len(content)
        if asked:
            first, last = re.fullmatch(r"bytes=(\d+)-(\d+)", asked).groups()
            begin, end = int(first), min(int(last) + 1, len(content))
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(content)}")
        self.send_header("ETag", etag)
        self.send_header("Last-Modified", formatdate(0, usegmt=True))
        self.send_header("Content-Length", str(end - begin))
        self.end_headers()
        if self.command == "GET":
            try:
                self.send(content[begin:end], asked)
            except OSError:
                self.close_connection = True  # the client has gone

    def send(self, content, asked):
        s3 = self.server.s3
        with s3.lock:
            cut = asked is not None and s3.cuts > 0 and s3.cut_after < len(content)
            s3.cuts -= cut
        if cut:
            self.wfile.write(content[: s3.cut_after])
            self.close_connection = True
            return
        for at in range(0, len(content), 500):
            if s3.stalled_after is not None and asked and s3.sent >= s3.stalled_after:
                s3.stalled.set()
                s3.released.wait(60)
            piece = content[at : at + 500]
            self.wfile.write(piece)
            with s3.lock:
                s3.sent += len(piece)

    def refuse(self, status, code):
        said = f"<Error><Code>{code}</Code><Message>As told.</Message></Error>".encode()
        said = said if self.command == "GET" else b""
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)


class Server(ThreadingHTTPServer):
    """Many connections."""

    daemon_threads = True

    def __init__(self, s3):
        super().__init__(("127.0.0.1", 0), Handler)
        self.s3 = s3

    def handle_error(self, *_args):
        pass  # a client that has gone


@contextmanager
def serving(s3: FlakyS3):
    """Serve ``s3`` within the context."""
    with Server(s3) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        s3.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield s3
        finally:
            s3.released.set()
            server.shutdown()
            thread.join()
