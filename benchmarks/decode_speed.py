"""Decoding tokens per second: through Huginn's HTTP stream, and by the predecessor's loop in torch."""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.contender import take_turns
from benchmarks.report import Report

BUNDLED = Path("ckpts/muninn-char")
PROMPT = "Le soir tombe sur "
TOKENS = 1024
TEMPERATURE, TOP_K = 0.8, 40
READY_WITHIN_S = 120


def run(args: argparse.Namespace) -> Report:
    """Measure one text of 1,024 tokens a turn, the prompt's reading and the first token's wait included."""
    rates = take_turns(
        {
            "the predecessor's loop in torch": (torch_loop, (args.predecessor,)),
            "the same model, huginn, HTTP stream": (served, (args.predecessor,)),
            "muninn-char, huginn, HTTP stream": (served, (BUNDLED,)),
        },
        args.rounds,
    )
    return Report(
        f"decoding {TOKENS:,} tokens, one stream, temperature {TEMPERATURE}, top-k {TOP_K}",
        "tokens/s",
        rates,
        "the predecessor's loop in torch",
        ["float32; the stream is text/event-stream, read by httpx in another process than the model's."],
    )


def served(checkpoint: Path) -> Generator[float, None, None]:
    """Read the llm function's stream over loopback."""
    import httpx

    with tempfile.TemporaryDirectory() as folder, _llm(_as_folder(checkpoint, Path(folder))) as address:
        request = {
            "prompt": PROMPT,
            "max_tokens": TOKENS,
            "temperature": TEMPERATURE,
            "top_k": TOP_K,
            "ignore_eos": True,
        }
        with httpx.Client(trust_env=False, timeout=60) as client:

            def text() -> float:
                started, tokens = time.perf_counter(), 0
                headers = {"accept": "text/event-stream"}
                with client.stream("POST", f"{address}/generate/stream", json=request, headers=headers) as answer:
                    answer.raise_for_status()
                    for line in answer.iter_lines():
                        tokens += line == "event: token"
                if tokens != TOKENS:
                    raise RuntimeError(f"{tokens} tokens came, {TOKENS} were asked for")
                return tokens / (time.perf_counter() - started)

            text()
            yield 0.0
            while True:
                yield text()


def _as_folder(checkpoint: Path, folder: Path) -> Path:
    if checkpoint.is_dir():
        return checkpoint
    from functions.llm.checkpoints.checkpoint import save_checkpoint
    from functions.llm.checkpoints.torch_import import import_torch_checkpoint

    model, tokenizer = import_torch_checkpoint(checkpoint)
    save_checkpoint(folder / "predecessor", model, tokenizer, "")
    return folder / "predecessor"


@contextmanager
def _llm(checkpoint: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "functions.llm.handler:app",
        "--port",
        str(port),
        "--log-level",
        "error",
    ]
    environ = os.environ | {"CKPT_PATH": str(checkpoint), "METRICS_PORT": "0"}
    process = subprocess.Popen(command, env=environ)
    try:
        _wait_until_ready(f"http://127.0.0.1:{port}/readyz", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _wait_until_ready(address: str, process: subprocess.Popen[bytes]) -> None:
    import httpx

    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(address, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"{address} was not ready within {READY_WITHIN_S} s")


def torch_loop(checkpoint: Path) -> Generator[float, None, None]:
    """Sample as the predecessor did: one token at a time, its state handed on, filter and softmax on the logits."""
    import torch
    from torch import nn

    stored = torch.load(checkpoint, weights_only=True)
    config, chars = stored["config"], stored["chars"]
    emb = nn.Embedding(len(chars), config["emb"])
    rnn = nn.LSTM(config["emb"], config["hid"], config["layers"], batch_first=True)
    head = nn.Linear(config["hid"], len(chars))
    nn.ModuleDict({"emb": emb, "rnn": rnn, "head": head}).load_state_dict(stored["state_dict"])
    ids = {char: n for n, char in enumerate(chars)}

    def text() -> float:
        started = time.perf_counter()
        with torch.no_grad():
            logits, state = rnn(emb(torch.tensor([[ids[char] for char in PROMPT]])))
            made = []
            for _ in range(TOKENS):
                scores = head(logits[0, -1]) / TEMPERATURE
                scores[scores < torch.topk(scores, TOP_K).values[-1]] = -torch.inf
                token = torch.multinomial(torch.softmax(scores, dim=-1), 1)
                made.append(chars[token.item()])
                logits, state = rnn(emb(token[None]), state)
        return TOKENS / (time.perf_counter() - started)

    text()
    yield 0.0
    while True:
        yield text()
