"""From a process's start to its first token over HTTP: ours in three states of its caches, and what others would write.

Every contender is a server of its own, started by uvicorn, that answers the same request by the same weights with the
same greedy token; the clock runs from fork and exec until the client has read the token. The disk's cache is warm.
llama.cpp alone brings its own server and, having no minGRU, another architecture of the same size.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.charts import Bar, Panel, bar_chart, readable
from benchmarks.report import Report, machine
from benchmarks.server import AS_SERVED, QUIET

BUNDLED = Path("ckpts/muninn-char")
# 191 million parameters, half of them in the vocabulary, as in an RWKV-7 of that size.
LARGE = {"vocab_size": 65536, "width": 768, "hidden": 1216, "layers": 12}
ASKED = {"prompt": "ROMEO:", "max_tokens": 1, "temperature": 0, "seed": 1}
FIRST_TOKEN_WITHIN_S = 120
POLL_S = 0.0005
# Longer: to be asked costs a server what it needs to get ready.
READY_POLL_S = 0.002

AHEAD = "huginn, compiled ahead"
CACHED = "huginn, XLA's cache filled"
NEW = "huginn, nothing cached"
NAIVE = "Flax module, orbax, jit"
TORCH = "torch"
ONNX = "onnxruntime"
LLAMA = "llama.cpp, an RWKV-7"


class NotReadyError(RuntimeError):
    """A server has answered that it is not available."""


@dataclass(frozen=True)
class Server:
    """How to start a contender.

    Args:
        command: Python's arguments; the port comes after them.
        environ: what it needs to know.
        before: what is done before each start, outside the clock.
        path: where it generates.
        asked: the request.
    """

    command: Sequence[str]
    environ: Mapping[str, str]
    before: Callable[[], None] = lambda: None
    path: str = "/generate/stream"
    asked: str = json.dumps(ASKED)


@dataclass(frozen=True)
class ColdStarts:
    """One table for each size of model."""

    reports: Mapping[str, Report]

    def as_text(self) -> str:
        """Return both tables in Markdown."""
        return "\n".join(report.as_text() for report in self.reports.values())

    def as_json(self) -> dict[str, Any]:
        """Return every figure of every round."""
        return {name: report.as_json() for name, report in self.reports.items()}

    def as_svg(self) -> str:
        """Return both tables as bars."""
        panels = [
            Panel(
                f"{name}, {report.unit}",
                [
                    Bar(who, figures, f"{readable(median(figures))}  ({report.ratio(who):.2f}x)")
                    for who, figures in report.rates.items()
                ],
            )
            for name, report in self.reports.items()
        ]
        return bar_chart("process start to first token over HTTP", panels, [machine()])


def run(args: argparse.Namespace) -> ColdStarts:
    """Measure one start of each contender a round, for the bundled model and for a large one of random weights."""
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder, "large", "random-191m")
        _make_random(large)
        reports = {}
        for name, path in {"muninn-char": BUNDLED.absolute(), "191M parameters": large}.items():
            reports[name] = _report(name, path, Path(folder, name), args)
        return ColdStarts(reports)


def _report(name: str, checkpoint: Path, folder: Path, args: argparse.Namespace) -> Report:
    servers = _servers(checkpoint, folder)
    found: dict[str, list[float]] = {contender: [] for contender in servers}
    tokens = set()
    # The first turn of each fills the disk's cache, and XLA's.
    for turn in range(args.rounds + 1):
        for contender, server in servers.items():
            server.before()
            ms, token = first_token(server)
            if contender != LLAMA:
                tokens.add(token)
            if turn:
                found[contender].append(ms)
            print(f"{name}, round {turn}/{args.rounds}  {contender}: {ms:.0f} ms", file=sys.stderr)
    if len(tokens) != 1:
        raise RuntimeError(f"the contenders do not agree on the first token: {tokens}")
    return Report(
        f"process start to first token over HTTP, {name}",
        "ms",
        found,
        TORCH,
        [
            "Greedy, float32, FastAPI and uvicorn in all of them but llama.cpp; the disk's cache is warm.",
            "llama.cpp has no minGRU: by its own server, it runs an RWKV-7 of random weights, as wide, as deep and, "
            "within 1%, of as many parameters.",
        ],
        [(AHEAD, TORCH), (CACHED, TORCH), (AHEAD, NAIVE), (AHEAD, LLAMA)],
    )


def _servers(checkpoint: Path, folder: Path) -> dict[str, Server]:
    from benchmarks.cold_start_files import write_gguf, write_onnx, write_orbax

    caches = {name: folder / name for name in ("ahead", "cached", "new")}
    compiled = subprocess.run(
        [sys.executable, "-m", "functions.llm.cli", "compile", checkpoint],
        env=os.environ | {"CACHE_PATH": str(caches["ahead"])},
        check=False,
        stdout=subprocess.PIPE,
    )
    if compiled.returncode != 0:
        raise RuntimeError("huginn compile has failed; the reason stands above")
    write_orbax(checkpoint, folder / "orbax")
    write_onnx(checkpoint, folder / "model.onnx")
    write_gguf(checkpoint, folder / "model.gguf")

    def ours(cache: str, before: Callable[[], None] = lambda: None) -> Server:
        environ = {"CKPT_PATH": str(checkpoint), "METRICS_PORT": "0", "CACHE_PATH": str(caches[cache])}
        return Server(_uvicorn("functions.llm.handler:app", *AS_SERVED), environ, before)

    def peer(module: str, path: Path | None = None) -> Server:
        environ = {"BENCHMARK_CKPT": str(checkpoint)} | ({"BENCHMARK_FILE": str(path)} if path else {})
        return Server(_uvicorn(f"benchmarks.{module}:app"), environ)

    return {
        AHEAD: ours("ahead"),
        CACHED: ours("cached"),
        NEW: ours("new", lambda: shutil.rmtree(caches["new"], ignore_errors=True)),
        NAIVE: peer("cold_flax", folder / "orbax"),
        TORCH: peer("cold_torch"),
        ONNX: peer("cold_onnx", folder / "model.onnx"),
        LLAMA: Server(
            ("-m", "benchmarks.cold_llama"),
            {"BENCHMARK_FILE": str(folder / "model.gguf")},
            path="/completion",
            asked=json.dumps(ASKED | {"stream": True}),
        ),
    }


def _uvicorn(app: str, *flags: str) -> tuple[str, ...]:
    return ("-m", "uvicorn", app, "--log-level", "error", *flags)


def first_token(server: Server) -> tuple[float, str]:
    """Return the milliseconds from starting ``server`` to reading its first token, and the token."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, *server.command, "--port", str(port)]
    started = time.perf_counter()
    process = subprocess.Popen(command, env={**os.environ, **QUIET, **server.environ})
    try:
        while True:
            with _connected(port, process, started + FIRST_TOKEN_WITHIN_S) as connection:
                connection.sendall(
                    f"POST {server.path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
                    f"content-length: {len(server.asked)}\r\nconnection: close\r\n\r\n{server.asked}".encode()
                )
                try:
                    token = _first_of_body(connection)
                except NotReadyError:
                    # llama.cpp listens before it has loaded its model.
                    if time.perf_counter() > started + FIRST_TOKEN_WITHIN_S:
                        raise
                    time.sleep(READY_POLL_S)
                else:
                    return (time.perf_counter() - started) * 1e3, token
    finally:
        process.kill()
        process.wait()


def _connected(port: int, process: subprocess.Popen[bytes], deadline: float) -> socket.socket:
    while time.perf_counter() < deadline and process.poll() is None:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=FIRST_TOKEN_WITHIN_S)
        except ConnectionRefusedError:
            time.sleep(POLL_S)
    raise RuntimeError(f"{process.args!r} did not listen within {FIRST_TOKEN_WITHIN_S} s")


def _first_of_body(connection: socket.socket) -> str:
    """Return the first chunk of a chunked body."""
    received = b""
    while (piece := connection.recv(65536)) != b"":
        received += piece
        head, complete, body = received.partition(b"\r\n\r\n")
        if complete and head.startswith(b"HTTP/1.1 503 "):
            raise NotReadyError(received.decode("latin-1"))
        if complete and not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(received.decode("latin-1"))
        size, _, chunk = body.partition(b"\r\n")
        if size and chunk and len(chunk) >= int(size, 16):
            return chunk[: int(size, 16)].decode()
    raise RuntimeError(f"the connection ended before the first token: {received!r}")


def _make_random(path: Path) -> None:
    """Write a checkpoint of random weights, its vocabulary made of the first characters of Unicode."""
    import jax

    from functions.llm.checkpoints.checkpoint import save_checkpoint
    from functions.llm.models import MinGRU, MinGRUConfig
    from functions.llm.tokenizers import CharTokenizer

    config = MinGRUConfig(dropout=0.0, **LARGE)
    codes = (code for code in range(32, 0x20000) if not 0xD800 <= code < 0xE000)
    tokenizer = CharTokenizer.from_chars(chr(next(codes)) for _ in range(config.vocab_size))
    params = MinGRU.init_params(config, jax.random.key(0))
    save_checkpoint(path, MinGRU(config, params), tokenizer, "# Random weights\n")
