"""The frontend's zip, unpacked and run as Lambda would run it, with the backend where it is there: behind TLS."""

import base64
import datetime as dt
import ipaddress
import json
import ssl
import subprocess
import sys
import threading
import venv
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from local.package import build_zip

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
CALL = """
import json, sys
from functions.frontend.handler import handler
print(json.dumps([handler(event, None) for event in json.load(sys.stdin)]))
"""
ANSWER = {
    "model": "raven", "text": " a raven", "finish_reason": "length", "seed": 1,
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}  # fmt: skip


class FunctionURL:
    """The backend's address in the cloud, as far as the page asks it; `pem` is whom its name is trusted by."""

    def __init__(self, folder) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []
        url = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                url.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                body = json.dumps(ANSWER).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.pem = _certificate(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "backend.pem")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}/"

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _certificate(folder) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "the backend")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "backend.pem").write_bytes(private + pem)
    return pem.decode()


def _event(path: str, method: str = "GET", body: bytes = b"", cookies: tuple[str, ...] = ()) -> dict:
    """What a Function URL sends for a request that came through CloudFront."""
    headers = {"content-type": "application/x-www-form-urlencoded", "x-forwarded-proto": "https"}
    return {
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "", "headers": headers,
        "cookies": list(cookies),
        "requestContext": {"http": {"method": method, "path": path, "sourceIp": "127.0.0.1"}, "stage": "$default"},
        "body": base64.b64encode(body).decode() if body else None, "isBase64Encoded": bool(body),
    }  # fmt: skip


@pytest.fixture(scope="module")
def task_root(tmp_path_factory):
    """What Lambda would have under /var/task."""
    root = tmp_path_factory.mktemp("task")
    with zipfile.ZipFile(build_zip("frontend", tmp_path_factory.mktemp("zip"), PYTHON).path) as archive:
        archive.extractall(root)
    return root


def test_the_form_without_scripts_is_answered_from_the_zip(task_root, tmp_path):
    """Invocation after invocation, in the reader's name, within the time that CloudFront waits; nothing is missing."""
    venv.create(tmp_path / "bare", with_pip=False)
    with FunctionURL(tmp_path) as backend:
        with (task_root / "certifi" / "cacert.pem").open("a") as trusted:
            trusted.write(backend.pem)
        events = [_event("/"), *[_event("/", "POST", b"prompt=ROMEO%3A", ("huginn_session=forged",))] * 2]
        run = subprocess.run(
            [tmp_path / "bare" / "bin" / "python", "-W", "ignore", "-c", CALL],
            cwd=task_root, input=json.dumps(events), capture_output=True, text=True, timeout=60, check=False,
            env={
                "BACKEND_URL": backend.url, "BACKEND_TIMEOUT_S": "50", "HUGINN_AUTH": "on", "SESSION_SECRET": "s" * 64,
                "AWS_LAMBDA_FUNCTION_NAME": "page",
            },
        )  # fmt: skip
    assert run.returncode == 0, run.stderr
    page, *answers = json.loads(run.stdout.splitlines()[-1])
    assert page["statusCode"] == 200
    for answer, (path, headers) in zip(answers, backend.seen, strict=True):
        assert answer["statusCode"] == 200
        assert " a raven" in answer["body"]
        assert path == "/api/llm/generate"
        # The session that the answer gives the browser, and not what it came with.
        [cookie] = answer["cookies"]
        assert cookie.startswith(headers["cookie"] + ";")
        assert headers["cookie"].startswith("huginn_session=v1.")
        assert headers["x-huginn-timeout-s"] == "48.000"
