"""All tiers with the bundled model, and programs that run in an environment of other people's clients, offline."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.clients.environments import BUILD, is_ready, python_of
from tests.local.huginn_up import Up, unused_ports

HERE = Path(__file__).parent
CHECKPOINT = HERE.parents[1] / "ckpts" / "muninn-char"
# Not how long anything may take, but when a test gives up on a program that hangs.
PATIENCE_S = 240


@dataclass(frozen=True)
class API:
    """The API of a running Huginn."""

    url: str
    model: str

    def generate(self, prompt: str, **fields: object) -> Any:
        """What our own API answers: the reference for what clients get through OpenAI's."""
        return self._post("/api/llm/generate", {"prompt": prompt, "temperature": 0, **fields})

    def chat(self, said: str, **fields: object) -> str:
        """What a conversation of one message is answered, by a request that no library has written."""
        messages = [{"role": "user", "content": said}]
        answer = self._post("/v1/chat/completions", {"messages": messages, "temperature": 0, **fields})
        text: str = answer["choices"][0]["message"]["content"]
        return text

    def _post(self, path: str, body: dict[str, object]) -> Any:
        request = Request(f"{self.url}{path}", json.dumps(body).encode(), {"content-type": "application/json"})
        with urlopen(request, timeout=PATIENCE_S) as answer:
            return json.load(answer)


@pytest.fixture(scope="session")
def api() -> Iterator[API]:
    """A `huginn up` on free ports."""
    up = Up(CHECKPOINT, unused_ports())
    try:
        up.wait_until_ready()
        yield API(f"http://127.0.0.1:{up.ports['api']}", CHECKPOINT.name)
    finally:
        up.close()


@dataclass(frozen=True)
class Client:
    """Runs a command of an environment, and gives what it printed; it must succeed, and ask nobody but this machine."""

    folder: Path

    def __call__(self, command: list[str | Path], **environ: str) -> str:
        asked = self.folder / "asked.txt"
        result = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environ(asked) | environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
        assert not asked.exists(), f"it asked for others than this machine:\n{asked.read_text('utf-8')}"
        return result.stdout

    def _environ(self, asked: Path) -> dict[str, str]:
        # What does not go through Python's or Node's sockets finds a proxy that is not there.
        nowhere = dict.fromkeys(
            ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"
        )
        return {
            **nowhere,
            "no_proxy": "127.0.0.1,localhost",
            "NO_PROXY": "127.0.0.1,localhost",
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(HERE / "offline"),
            "NODE_OPTIONS": f"--require={HERE / 'offline' / 'offline.cjs'}",
            "HUGINN_ASKED": str(asked),
            "DO_NOT_TRACK": "1",
        }


@pytest.fixture
def client(tmp_path) -> Client:
    """Runs commands of other people's in a folder of their own."""
    return Client(tmp_path)


@pytest.fixture
def run_program(client, api) -> Callable[..., Any]:
    """Run a file of programs/ in an environment, `run_program("openai2", "openai_sdk.py")`: the JSON that it prints."""

    def run(environment: str, program: str, **environ: str) -> Any:
        if environment == "node" and shutil.which("npm") is None:
            pytest.skip("needs Node and npm (apt-get install npm)")
        expect_ready(environment)
        file = HERE / "programs" / program
        if environment == "node":
            # Node looks for packages beside the program.
            file = BUILD / "node" / program
            file.write_bytes((HERE / "programs" / program).read_bytes())
        interpreter = "node" if environment == "node" else python_of(environment)
        # Some say things of their own before.
        return json.loads(client([interpreter, file, api.url, api.model], **environ).splitlines()[-1])

    return run


def expect_ready(environment: str) -> None:
    """Say how an environment is made where it is not there, or is not what its requirements say."""
    assert is_ready(environment), f"build/clients/{environment} is not made, or is out of date: make clients"
