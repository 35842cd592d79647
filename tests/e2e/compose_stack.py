"""The system of local/compose.yml, really running: a project of its own, on ports and with checkpoints of its own."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from functions.llm.checkpoints.checkpoint import save_checkpoint
from functions.llm.models import MinGRU, MinGRUConfig
from functions.llm.tokenizers import ByteTokenizer
from tests.unused_ports import unused_port

REPOSITORY = Path(__file__).parents[2]
PROJECT = "huginn-test"
# Whatever is asked of the engine; a build of everything has its own limit.
PATIENCE_S = 120
BUILDS_WITHIN_S = 600
# What the backend waits for a silent model. (The slow one takes a while to load.)
LLM_TIMEOUT_S = 6
LISTENERS = ("PAGE", "API", "PROMETHEUS", "GRAFANA", "LAMBDA_PAGE", "LAMBDA_API")


@dataclass(frozen=True)
class Event:
    """One event of a stream, and when it came by the clock on the wall."""

    name: str
    data: dict
    at: float


class Stack:
    """`docker compose` on the project, and the addresses of what it publishes."""

    def __init__(self, ckpts: Path) -> None:
        self.ports = {name: unused_port() for name in LISTENERS}
        # Nothing of who runs the tests: another CKPT_PATH or LLM_URL would be another system.
        kept = ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "XDG_RUNTIME_DIR")
        self.environ = {name: os.environ[name] for name in kept if name in os.environ} | {
            "COMPOSE_PROJECT_NAME": PROJECT,
            "HUGINN_CKPTS": str(ckpts),
            "LLM_TIMEOUT_S": str(LLM_TIMEOUT_S),
            **{f"HUGINN_{name}_PORT": str(port) for name, port in self.ports.items()},
        }

    def url(self, listener: str) -> str:
        return f"http://127.0.0.1:{self.ports[listener]}"

    def docker(self, *arguments: str, within_s: float = PATIENCE_S, check: bool = True, **environ: str) -> str:
        """Run docker, and give what it prints; if it fails, the test does, with all that it said."""
        ended = subprocess.run(
            ["docker", *arguments], cwd=REPOSITORY, env={**self.environ, **environ}, capture_output=True, text=True,
            timeout=within_s, check=False,
        )  # fmt: skip
        assert ended.returncode == 0 or not check, f"docker {' '.join(arguments)}:\n{ended.stdout}{ended.stderr}"
        return ended.stdout

    def compose(self, *arguments: str, **options) -> str:
        return self.docker("compose", "-f", "local/compose.yml", *arguments, **options)

    def up(self, *services: str, profile: str = "", **options) -> None:
        """Bring services up and wait until they are healthy; their logs are told if they are not."""
        profiles = ["--profile", profile] if profile else []
        try:
            # It was built, all at once, before anybody waited for it.
            waiting = ("--no-build", "--wait", "--wait-timeout", str(PATIENCE_S))
            self.compose(*profiles, "up", *waiting, *services, **options)
        except AssertionError as error:
            logs = self.compose("--profile", "*", "logs", "--no-color", "--tail", "30", check=False)
            raise AssertionError(f"{error}\n{logs}") from None

    def down(self) -> None:
        self.compose("--profile", "*", "down", "--volumes", "--remove-orphans")

    def container(self, service: str) -> str:
        """The id of a service's one container."""
        (found,) = self.compose("--profile", "*", "ps", "--all", "--quiet", service).split()
        return found

    def inspect(self, service: str) -> dict:
        return json.loads(self.docker("inspect", self.container(service)))[0]

    def run_in(self, service: str, *command: str) -> str:
        return self.compose("--profile", "*", "exec", "-T", service, *command)

    def sample(self, service: str, name: str) -> float:
        """What a tier's own metrics say, added up over the labels."""
        ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9108/metrics').read().decode())"
        lines = self.run_in(service, "python", "-c", ask).splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def query(self, expression: str) -> list[dict]:
        """What Prometheus finds for an expression."""
        answer = httpx.get(
            f"{self.url('PROMETHEUS')}/api/v1/query", params={"query": expression}, timeout=30, trust_env=False
        ).json()
        assert answer["status"] == "success", answer
        return answer["data"]["result"]

    def post(self, listener: str = "API", **body: object) -> httpx.Response:
        return httpx.post(
            f"{self.url(listener)}/api/llm/generate", json={"prompt": "ROMEO:", **body}, timeout=30, trust_env=False
        )

    @contextmanager
    def stream(self, listener: str = "API", **body: object) -> Iterator[Iterator[Event]]:
        """The events of one text, as they come."""
        with httpx.stream(
            "POST", f"{self.url(listener)}/api/llm/stream", json={"prompt": "ROMEO:", **body},
            headers={"accept": "text/event-stream"}, timeout=30, trust_env=False,
        ) as response:  # fmt: skip
            assert response.status_code == 200, response.read()
            yield _events(response)

    def is_well(self, listener: str = "PAGE") -> bool:
        """Whether a text of the slow model, which is loaded when somebody asks for it, comes to its end."""
        return self.post(listener, model="slow", max_tokens=3).status_code == 200


def _events(response: httpx.Response) -> Iterator[Event]:
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield Event(name, json.loads(line.removeprefix("data: ")), time.time())


def make_checkpoints(folder: Path) -> Path:
    """The bundled model, and `slow`: random weights, so many that the longest text takes far longer than a test."""
    bundled = REPOSITORY / "ckpts" / "muninn-char"
    (folder / bundled.name).mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "card.md"):
        shutil.copy(bundled / name, folder / bundled.name / name)
    config = MinGRUConfig(vocab_size=256, width=512, hidden=1536, layers=12, dropout=0.0)
    draw = np.random.default_rng(0)
    params = {name: draw.random(shape, np.float32) / 100 for name, shape in config.param_shapes().items()}
    save_checkpoint(folder / "slow", MinGRU(config, params), ByteTokenizer(), "# slow\n")
    # What the containers run as is nobody on this machine.
    for path in [folder.parent, folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def wait_until(true, within_s: float = 30.0):
    """Wait until something is the case, and give it."""
    deadline = time.monotonic() + within_s
    while not (found := true()):
        assert time.monotonic() < deadline, "it never was"
        time.sleep(0.2)
    return found
