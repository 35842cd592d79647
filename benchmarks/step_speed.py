"""Tokens per second of one text, each token fed back: Huginn, torch and onnxruntime over the same weights."""

import argparse
from typing import Any

from benchmarks.contender import Contender, take_turns
from benchmarks.report import Report
from benchmarks.step_contenders import CHUNK, SHAPE, Turn, huginn_texts, onnx_texts, torch_texts

ALONE = (1,)
CONTENDERS: dict[str, tuple[Contender, tuple[Any, ...]]] = {
    "torch, float32": (torch_texts, (ALONE, "float32")),
    "torch, float32 without oneDNN": (torch_texts, (ALONE, "float32 without oneDNN")),
    "torch, dynamic int8": (torch_texts, (ALONE, "dynamic int8")),
    "onnxruntime, float32": (onnx_texts, (ALONE, "float32")),
    "onnxruntime, dynamic int8": (onnx_texts, (ALONE, "dynamic int8")),
} | {
    f"Huginn, {precision}, {'kernel' if native else 'XLA'}": (huginn_texts, (ALONE, precision, native))
    for precision in ("float32", "bfloat16", "int8")
    for native in (False, True)
}
COMPARISONS = (
    ("Huginn, float32, kernel", "onnxruntime, float32"),
    ("Huginn, int8, kernel", "onnxruntime, float32"),
    ("Huginn, int8, kernel", "onnxruntime, dynamic int8"),
    ("Huginn, int8, kernel", "torch, dynamic int8"),
)


def run(args: argparse.Namespace) -> Report:
    """Measure half a second a turn."""
    turns = take_turns(CONTENDERS, args.rounds)
    found = {name: [turn[1] for turn in rounds] for name, rounds in turns.items()}
    return Report(
        f"one text at a time, LSTM {SHAPE.layers} x {SHAPE.hid}, embedding {SHAPE.emb}, vocabulary {SHAPE.vocab_size}",
        "tokens/s",
        {name: [turn.rate for turn in rounds] for name, rounds in found.items()},
        "onnxruntime, float32",
        [
            f"Greedy; Huginn by the programs that serve, {CHUNK} tokens a dispatch, the peers token by token; "
            "everybody with their default threads.",
            agreement({name: rounds[0] for name, rounds in found.items()}),
        ],
        COMPARISONS,
    )


def agreement(turns: dict[str, Turn]) -> str:
    """Return which float32 contenders wrote the same text; others may differ by what rounding does."""
    exact = {name: turn.text for name, turn in turns.items() if "float32" in name}
    if len(set(exact.values())) == 1:
        return "The first 64 tokens of all that compute in float32 are the same."
    return f"THE FLOAT32 TEXTS DIFFER, so these do not all compute the same: {exact}"
