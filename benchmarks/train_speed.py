"""Training tokens per second: the predecessor's LSTM shape in Huginn and in torch."""

import argparse
import time
from collections.abc import Generator
from typing import Any

import numpy as np

from benchmarks.contender import take_turns
from benchmarks.report import Report

EMB, HID, LAYERS, VOCABULARY = 256, 512, 2, 2637
BATCH, LENGTH = 64, 256


def run(args: argparse.Namespace) -> Report:
    """Measure one update a turn."""
    rates = take_turns(
        {
            "torch float32": (torch_steps, (False,)),
            "huginn float32": (huginn_steps, ("float32",)),
            "torch bfloat16 (autocast)": (torch_steps, (True,)),
            "huginn bfloat16": (huginn_steps, ("bfloat16",)),
        },
        args.rounds,
    )
    return Report(
        f"LSTM training, emb {EMB}, hid {HID}, {LAYERS} layers, vocabulary {VOCABULARY}, batch {BATCH} x {LENGTH}",
        "tokens/s",
        rates,
        "torch float32",
        ["One update with AdamW and clipping a turn, the contenders in turn; the first update is not counted."],
    )


def _batch() -> tuple[Any, Any]:
    rows = np.random.default_rng(0).integers(0, VOCABULARY, (BATCH, LENGTH + 1))
    return rows[:, :-1].copy(), rows[:, 1:].copy()


def huginn_steps(dtype: str) -> Generator[float, None, None]:
    """Update by Huginn's trainer."""
    from functions.llm.training.memory import keep_freed_memory

    keep_freed_memory()
    from functions.llm.models import LSTMConfig
    from functions.llm.training.options import TrainingOptions
    from functions.llm.training.trainer import Trainer

    config = LSTMConfig(vocab_size=VOCABULARY, emb=EMB, hid=HID, layers=LAYERS)
    trainer = Trainer(config, TrainingOptions(batch=BATCH, length=LENGTH, dtype=dtype))
    inputs, targets = _batch()
    trainer.update(inputs, targets)
    yield 0.0
    while True:
        started = time.perf_counter()
        trainer.update(inputs, targets)
        yield BATCH * LENGTH / (time.perf_counter() - started)


def torch_steps(autocast: bool) -> Generator[float, None, None]:
    """Update by torch's LSTM, as one would write it, with the memory setting that `huginn train` makes for itself."""
    from functions.llm.training.memory import keep_freed_memory

    keep_freed_memory()
    import torch
    from torch import nn

    emb = nn.Embedding(VOCABULARY, EMB)
    rnn = nn.LSTM(EMB, HID, LAYERS, batch_first=True)
    head = nn.Linear(HID, VOCABULARY)
    parameters = [*emb.parameters(), *rnn.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1)
    inputs, targets = (torch.as_tensor(array) for array in _batch())

    def update() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            logits = head(rnn(emb(inputs))[0])
        loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        loss.item()

    update()
    yield 0.0
    while True:
        started = time.perf_counter()
        update()
        yield BATCH * LENGTH / (time.perf_counter() - started)
