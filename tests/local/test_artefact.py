"""The backend's zip, unpacked and run as Lambda would run it: nothing installed, the wrapper in front, the runtime."""

import json
import subprocess
import sys
import threading
import venv
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from local.emulator import Emulator
from local.package import build_zip

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
TOKENS = 6
# Longer than anything here takes on a busy machine, and yet an end for what would hang.
PATIENCE_S = 30.0


class StepwiseModel:
    """A model service that writes each token only once the reader has the one before."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []
        self._has_read = threading.Semaphore(1)
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                model.seen.append({name.lower(): value for name, value in self.headers.items()})
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.end_headers()
                for i in range(TOKENS):
                    if not model._has_read.acquire(timeout=PATIENCE_S):
                        return
                    self.wfile.write(f'event: token\ndata: {{"i":{i},"id":1,"text":" t{i}"}}\n\n'.encode())
                usage = '{"prompt_tokens":1,"completion_tokens":6,"total_tokens":7}'
                done = f'event: done\ndata: {{"finish_reason":"stop","usage":{usage},"seed":1,"model":"m"}}\n\n'
                self.wfile.write(done.encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/generate/stream"

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._has_read.release(TOKENS)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def go_on(self) -> None:
        self._has_read.release()


@pytest.fixture(scope="module")
def task_root(tmp_path_factory) -> Path:
    """What Lambda would have under /var/task, modes included."""
    root = tmp_path_factory.mktemp("task")
    with zipfile.ZipFile(build_zip("backend", tmp_path_factory.mktemp("zip"), PYTHON).path) as archive:
        for entry in archive.infolist():
            Path(archive.extract(entry, root)).chmod(entry.external_attr >> 16 & 0o777)
    return root


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory) -> Path:
    """A Python that has nothing but its standard library."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    return folder / "bin" / "python"


def test_the_unpacked_zip_streams(task_root, bare_python):
    """Each token has reached the reader before the next one is made, the request was signed, nothing was missing."""
    with StepwiseModel() as model:
        environment = {
            "_HANDLER": "functions.backend.handler.app", "LLM_URL": model.url, "LLM_AUTH": "sigv4", "PYTHONPATH": "",
            "HUGINN_AUTH": "off", "HUGINN_HOST": "127.0.0.1",
        }  # fmt: skip
        # As AWS_LAMBDA_EXEC_WRAPPER has it: the wrapper is given the interpreter, and the rest of AWS's command.
        command = [str(task_root / "functions/runtime/bootstrap"), str(bare_python), "/var/runtime/bootstrap.py"]
        with (
            Emulator(command, environment, task_root=task_root, max_environments=1, timeout_s=PATIENCE_S) as emulator,
            httpx.Client(trust_env=False, timeout=PATIENCE_S) as client,
            client.stream(
                "POST", f"{emulator.url}/api/llm/stream", content=json.dumps({"prompt": "ROMEO:"}),
                headers={"content-type": "application/json", "accept": "text/event-stream"},
            ) as answer,
        ):  # fmt: skip
            assert answer.status_code == 200, emulator.log()
            received = ""
            for chunk in answer.iter_text():
                for _ in range(chunk.count("event: token")):
                    model.go_on()
                received += chunk
    assert [f'" t{i}"' in received for i in range(TOKENS)] == [True] * TOKENS
    assert received.count("event: done") == 1
    [headers] = model.seen
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=testing/")
    assert headers["x-amz-security-token"] == "testing"


def test_its_bytecode_is_what_runs(task_root, bare_python):
    """Of all that the handler imports from the zip, nothing is compiled at the start."""
    run = subprocess.run(
        [bare_python, "-v", "-B", "-c", "import functions.backend.handler, functions.runtime.__main__"],
        cwd=task_root,
        env={"LLM_URL": "http://127.0.0.1:1/generate/stream"},
        capture_output=True,
        text=True,
        check=True,
    )
    matched = [line for line in run.stderr.splitlines() if line.startswith("# code object from")]
    ours = [line for line in matched if str(task_root) in line]
    assert len(ours) > 100
    assert [line for line in ours if not line.rstrip("'\"").endswith(".pyc")] == []
