"""The predecessor's loop behind FastAPI, as one writes it: a generator, iterated by the server's pool of threads.

`BENCHMARK_CKPT` names the checkpoint folder. It speaks Huginn's event stream, and knows only the fields below.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from safetensors.numpy import load_file

from benchmarks.torch_lm import torch_lm
from functions.llm.checkpoints.checkpoint import read_config
from functions.llm.models import model_config
from functions.llm.tokenizers import load_tokenizer

FOLDER = Path(os.environ["BENCHMARK_CKPT"])
CONFIG = model_config(read_config(FOLDER)["model"])
MODEL = torch_lm(CONFIG, load_file(FOLDER / "model.safetensors"))
TOKENIZER = load_tokenizer(FOLDER / "tokenizer.json")

app = FastAPI()


class Body(BaseModel):
    """A request."""

    prompt: list[int]
    max_tokens: int
    temperature: float
    top_k: int
    seed: int


@app.get("/readyz")
def readyz() -> dict[str, str]:
    """Answer when the module has been imported, which loads the model."""
    return {"status": "ready"}


@app.post("/generate/stream")
def generate_stream(body: Body) -> StreamingResponse:
    """Stream the tokens as they are drawn."""
    return StreamingResponse(_frames(body), media_type="text/event-stream")


def _frames(body: Body) -> Iterator[str]:
    drawn_by = torch.Generator().manual_seed(body.seed)
    tokens, state = torch.tensor([body.prompt]), None
    for position in range(len(body.prompt), len(body.prompt) + body.max_tokens):
        # Not around the yield: the mode belongs to the thread, and the next step may run on another.
        with torch.inference_mode():
            hidden, state = MODEL["rnn"](MODEL["emb"](tokens), state)
            scores = MODEL["head"](hidden[0, -1]) / body.temperature
            scores[scores < torch.topk(scores, body.top_k).values[-1]] = -torch.inf
            tokens = torch.multinomial(torch.softmax(scores, dim=-1), 1, generator=drawn_by)[None]
        token = tokens.item()
        fields = {"i": position, "id": token, "text": TOKENIZER.token_bytes(token).decode("utf-8", "replace")}
        yield f"event: token\ndata: {json.dumps(fields, ensure_ascii=False)}\n\n"
    yield 'event: done\ndata: {"finish_reason": "length"}\n\n'
