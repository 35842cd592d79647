"""Tokens per second of 1, 4 and 16 texts at once: what company costs."""

import argparse
from pathlib import Path
from typing import Any

from benchmarks.contender import Contender, take_turns
from benchmarks.report import Report
from benchmarks.step_contenders import CHUNK, LARGE, SHAPE, checkpoint_texts, huginn_texts, torch_texts

BUNDLED = Path("ckpts/muninn-char")
BATCHES = (1, 4, 16)
LSTM_NAME = f"LSTM {SHAPE.layers} x {SHAPE.hid}"
LARGE_NAME = f"LSTM {LARGE.layers} x {LARGE.hid}"
CONTENDERS: dict[str, tuple[Contender, tuple[Any, ...]]] = {
    f"{LSTM_NAME}, torch, float32 without oneDNN": (torch_texts, (BATCHES, "float32 without oneDNN")),
    f"{LSTM_NAME}, torch, dynamic int8": (torch_texts, (BATCHES, "dynamic int8")),
    f"{LSTM_NAME}, Huginn, float32, XLA": (huginn_texts, (BATCHES, "float32", False)),
    f"{LSTM_NAME}, Huginn, float32, kernel": (huginn_texts, (BATCHES, "float32", True)),
    f"{LSTM_NAME}, Huginn, bfloat16, kernel": (huginn_texts, (BATCHES, "bfloat16", True)),
    f"{LSTM_NAME}, Huginn, int8, kernel": (huginn_texts, (BATCHES, "int8", True)),
    f"{LARGE_NAME}, Huginn, float32, kernel": (huginn_texts, (BATCHES, "float32", True, LARGE)),
    f"{LARGE_NAME}, Huginn, bfloat16, kernel": (huginn_texts, (BATCHES, "bfloat16", True, LARGE)),
    "muninn-char, Huginn, float32, XLA": (checkpoint_texts, (BATCHES, BUNDLED, False)),
    "muninn-char, Huginn, float32, kernel": (checkpoint_texts, (BATCHES, BUNDLED, True)),
}


def run(args: argparse.Namespace) -> Report:
    """Measure half a second for each batch a turn; the ratios are to one text by the same contender."""
    turns = take_turns(CONTENDERS, args.rounds)
    rates = {
        _row(name, batch): [turn[batch].rate for turn in rounds] for name, rounds in turns.items() for batch in BATCHES
    }
    return Report(
        "several texts at once, of all together",
        "tokens/s",
        rates,
        _row(next(iter(CONTENDERS)), 1),
        [f"Greedy; Huginn by the programs that serve, {CHUNK} tokens a dispatch; everybody with default threads."],
        [(_row(name, batch), _row(name, 1)) for name in CONTENDERS for batch in BATCHES[1:]],
    )


def _row(name: str, batch: int) -> str:
    return f"{name}, {batch} text{'s' * (batch > 1)}"
