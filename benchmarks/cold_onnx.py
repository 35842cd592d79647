"""A minGRU behind FastAPI in onnxruntime, as one writes it: `BENCHMARK_FILE` is what `cold_start_files` wrote."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from functions.llm.tokenizers import load_tokenizer

SESSION = onnxruntime.InferenceSession(os.environ["BENCHMARK_FILE"], providers=["CPUExecutionProvider"])
TOKENIZER = load_tokenizer(Path(os.environ["BENCHMARK_CKPT"], "tokenizer.json"))
NAMES = [output.name for output in SESSION.get_outputs()]

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
    states = {entry.name: np.zeros(entry.shape, np.float32) for entry in SESSION.get_inputs() if entry.name != "token"}
    tokens = TOKENIZER.encode(body.prompt)
    for _ in range(body.max_tokens):
        for token in tokens:
            found = dict(zip(NAMES, SESSION.run(NAMES, {"token": np.array([token]), **states}), strict=True))
            states = {name: found[f"{name}_next"] for name in states}
        tokens = [int(found["logits"].argmax())]
        yield TOKENIZER.decode(tokens)
