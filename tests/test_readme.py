"""The README's commands work as they stand there, and the files that it names exist.

Every fenced block marked `sh` is run, in order, as one person would in one terminal: variables and the folder are kept
from block to block. Of a block marked `console` the lines after `$ ` are run, and the others are what they print. What
stands under `<!-- not run: the reason -->` is not run, and is checked for its syntax only. A block that ends with
`make up` or `huginn up` is run beside the following ones, until the next such block or the end.
"""

import ast
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from local.ports import LISTENERS
from tests.local.huginn_up import unused_ports

REPOSITORY = Path(__file__).parents[1]
README = REPOSITORY / "README.md"

BLOCK_TIMEOUT_S = 600
STOPPED_WITHIN_S = 30

FENCE = re.compile(
    r"^(?:<!--\s*not run:(?P<reason>.*?)-->\n+)?```(?P<language>sh|console)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SERVES = re.compile(r"^(?:\w+=\S+ +)*(?:make up|(?:\S*/)?huginn up)\b")


@dataclass(frozen=True)
class Block:
    """Commands of the README: what to run, and why not if not."""

    line: int
    commands: str
    not_run: str | None

    @property
    def serves(self) -> bool:
        """Whether its last command goes on until it is interrupted."""
        return SERVES.match(self.commands.strip().splitlines()[-1]) is not None


def read_blocks(text: str) -> list[Block]:
    """The commands in a text, in order."""
    blocks = []
    for found in FENCE.finditer(text):
        body = found["body"]
        if found["language"] == "console":
            body = "".join(line.removeprefix("$ ") for line in body.splitlines(keepends=True) if line.startswith("$ "))
        blocks.append(Block(text.count("\n", 0, found.start("body")) + 1, body, found["reason"]))
    return blocks


class Terminal:
    """Runs blocks one after another in a folder, and keeps what a terminal keeps."""

    def __init__(self, folder: Path, ports: dict[str, int]) -> None:
        self.folder = folder
        self.ports = ports
        self.state = folder.parent / "state.sh"
        self.state.write_text("", "utf-8")
        self.serving: subprocess.Popen[str] | None = None
        self.environ = {
            **{name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")},
            # The environment's packages, and the copy's code.
            "PYTHONPATH": str(folder),
            # What is compiled here is of no use to anybody else.
            "CACHE_PATH": str(folder.parent / "cache"),
            **{listener.variable: str(ports[listener.name]) for listener in LISTENERS},
        }

    def run(self, block: Block) -> None:
        """Run a block to its end, or until it serves."""
        # Somebody may have a Huginn running at the ports that the README names.
        commands = block.commands
        for listener in LISTENERS:
            commands = re.sub(rf"\b{listener.default}\b", str(self.ports[listener.name]), commands)
        state = shlex.quote(str(self.state))
        script = f'. {state}\n{commands}\n{{ export -p; printf "cd %q\\n" "$PWD"; }} > {state}'
        if block.serves:
            self.interrupt()
            self._serve(script, block)
        else:
            result = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", script],
                cwd=self.folder,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=BLOCK_TIMEOUT_S,
                check=False,
            )
            assert result.returncode == 0, f"README.md:{block.line}\n{commands}\n{result.stdout}\n{result.stderr}"

    def interrupt(self) -> None:
        """Press Ctrl-C, if something serves, and see that it leaves nothing."""
        if self.serving is None:
            return
        process, self.serving = self.serving, None
        try:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
            process.wait(STOPPED_WITHIN_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        for port in self.ports.values():
            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", port)) != 0, f"port {port} still answers"

    def _serve(self, script: str, block: Block) -> None:
        # A process group of its own stands for the foreground job that a terminal sends Ctrl-C to.
        self.serving = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        said: list[str] = []
        threading.Thread(target=said.extend, args=(self.serving.stdout,), daemon=True).start()
        deadline = time.monotonic() + BLOCK_TIMEOUT_S
        while not any("Ctrl-C" in line for line in said):
            assert self.serving.poll() is None, f"README.md:{block.line} ended:\n{''.join(said)}"
            assert time.monotonic() < deadline, f"README.md:{block.line} is not ready:\n{''.join(said)}"
            time.sleep(0.1)


@pytest.fixture
def terminal(tmp_path) -> Iterator[Terminal]:
    """A terminal in a copy of what git has, with this environment in place of one of its own."""
    folder = tmp_path / "huginn"
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listing.stdout.decode().split("\0")):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    terminal = Terminal(folder, unused_ports())
    yield terminal
    terminal.interrupt()


@pytest.mark.minutes
def test_commands_work(terminal):
    """From the first to the last, as they stand there."""
    blocks = [block for block in read_blocks(README.read_text("utf-8")) if block.not_run is None]
    assert any(block.serves for block in blocks), "the README shows how to start"
    for block in blocks:
        terminal.run(block)
    terminal.interrupt()


def test_what_is_not_run_has_a_reason():
    """A reason that a reader can judge, and few of them."""
    blocks = read_blocks(README.read_text("utf-8"))
    not_run = [block for block in blocks if block.not_run is not None]
    assert [block for block in not_run if len((block.not_run or "").split()) < 3] == []
    assert len(not_run) * 2 <= len(blocks)


def test_what_is_not_run_is_at_least_shell():
    """Its syntax is right."""
    for block in read_blocks(README.read_text("utf-8")):
        subprocess.run(["bash", "-n", "-c", block.commands], check=True)


def test_named_files_exist():
    """Links within the repository, and paths in code type, lead somewhere."""
    text = README.read_text("utf-8")
    links = re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", text)
    paths = re.findall(r"`((?:functions|local|tests|benchmarks|requirements|\.ci)/[\w./-]*)`", text)
    assert paths
    assert [name for name in {*links, *paths} if not (REPOSITORY / name).exists()] == []


def test_every_setting_is_named():
    """What a function reads from its environment stands in the table, but for what Lambda and a desktop set."""
    table = README.read_text("utf-8").partition("\n## Configuration\n")[2].partition("\n\n`make up`")[0]
    for path in sorted(REPOSITORY.glob("functions/*/settings.py")):
        constants = [
            node.value for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Constant)
        ]
        # The page's tier writes its own without their prefix.
        names = {str(name) for name in constants if re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+", str(name))}
        own = {name for name in names if not name.startswith(("AWS_LAMBDA_", "XDG_"))}
        assert own
        assert [name for name in sorted(own) if f"{name}`" not in table] == []


def test_blocks_are_read_as_they_are_meant():
    """The rules at the top of this file, on a text that has a case of each."""
    text = """
```sh
make up
```
<!-- not run: it takes half an hour -->
```sh
make train
```
```json
{"not": "a command"}
```
```console
$ echo one
one
$ HUGINN_PAGE_PORT=1 .venv/bin/huginn up --verbose
```
"""
    blocks = read_blocks(text)
    assert [block.commands for block in blocks] == [
        "make up\n",
        "make train\n",
        "echo one\nHUGINN_PAGE_PORT=1 .venv/bin/huginn up --verbose\n",
    ]
    assert [block.serves for block in blocks] == [True, False, True]
    assert [block.not_run for block in blocks] == [None, " it takes half an hour ", None]
    assert [text.splitlines()[block.line - 1] for block in blocks] == ["make up", "make train", "$ echo one"]
