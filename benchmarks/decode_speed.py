"""Decoding tokens per second: through Huginn's HTTP stream, and by the predecessor's loop in torch."""

import argparse
import time
from collections.abc import Generator
from pathlib import Path

from benchmarks.contender import take_turns
from benchmarks.report import Report
from benchmarks.server import as_folder, huginn_server

BUNDLED = Path("ckpts/muninn-char")
PROMPT = "Le soir tombe sur "
TOKENS = 1024
TEMPERATURE, TOP_K = 0.8, 40


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

    with as_folder(checkpoint) as folder, huginn_server(folder) as (port, _):
        request = {
            "prompt": PROMPT,
            "max_tokens": TOKENS,
            "temperature": TEMPERATURE,
            "top_k": TOP_K,
            "ignore_eos": True,
        }
        address = f"http://127.0.0.1:{port}/generate/stream"
        with httpx.Client(trust_env=False, timeout=60) as client:

            def text() -> float:
                started, tokens = time.perf_counter(), 0
                headers = {"accept": "text/event-stream"}
                with client.stream("POST", address, json=request, headers=headers) as answer:
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
