"""A minGRU behind FastAPI in torch, as one writes it: weights by safetensors, the prompt in one pass, then steps."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from functions.llm.tokenizers import load_tokenizer

FOLDER = Path(os.environ["BENCHMARK_CKPT"])
SIZES = json.loads((FOLDER / "config.json").read_text())["model"]
WEIGHTS = load_file(FOLDER / "model.safetensors")
TOKENIZER = load_tokenizer(FOLDER / "tokenizer.json")

app = FastAPI()


class Body(BaseModel):
    """A request."""

    prompt: str
    max_tokens: int


@app.post("/generate/stream")
def generate_stream(body: Body) -> StreamingResponse:
    """Stream the likeliest tokens."""
    return StreamingResponse(_texts(body), media_type="text/plain")


def _texts(body: Body) -> Iterator[str]:
    layers = range(SIZES["layers"])
    states = [(torch.zeros(SIZES["conv"] - 1, SIZES["width"]), torch.zeros(SIZES["hidden"])) for _ in layers]
    tokens = TOKENIZER.encode(body.prompt)
    for _ in range(body.max_tokens):
        # Not around the yield: the mode belongs to the thread, and the next step may run on another.
        with torch.inference_mode():
            x = WEIGHTS["embedding"][torch.tensor(tokens)]
            for layer in layers:
                x, states[layer] = _block(f"layers.{layer}.", x, *states[layer])
            tokens = [int((_norm(x[-1:], "norm") @ WEIGHTS["head.weight"].T).argmax())]
        yield TOKENIZER.decode(tokens)


def _block(prefix: str, x: Tensor, past: Tensor, h: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    def weight(name: str) -> Tensor:
        return WEIGHTS[prefix + name]

    taps = weight("mixer.conv.taps")
    seen = torch.cat([past, _norm(x, f"{prefix}mixer.norm")])
    u = sum(seen[k : k + len(x)] * taps[k] for k in range(len(taps))) + weight("mixer.conv.bias")
    z = torch.sigmoid(functional.linear(u, weight("mixer.gate.weight"), weight("mixer.gate.bias")))
    gated = z * functional.linear(u, weight("mixer.candidate.weight"))
    made = []
    for t in range(len(x)):
        h = (1 - z[t]) * h + gated[t]
        made.append(h)
    x = x + functional.linear(torch.stack(made), weight("mixer.out.weight"))
    up = functional.gelu(functional.linear(_norm(x, f"{prefix}mlp.norm"), weight("mlp.up.weight")), approximate="tanh")
    return x + functional.linear(up, weight("mlp.down.weight")), (seen[len(x) :], h)


def _norm(x: Tensor, name: str) -> Tensor:
    return functional.rms_norm(x, (x.shape[-1],), WEIGHTS[name], 1e-6)
