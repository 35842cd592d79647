"""A minGRU behind FastAPI the way of the tutorials: a Flax module, its weights restored by orbax, jit at first use.

`BENCHMARK_FILE` is what `cold_start_files` wrote.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from flax import nnx
from pydantic import BaseModel

from functions.llm.checkpoints.checkpoint import read_config
from functions.llm.models import MinGRU, MinGRUConfig, State, model_config
from functions.llm.tokenizers import load_tokenizer

FOLDER = Path(os.environ["BENCHMARK_CKPT"])
TOKENIZER = load_tokenizer(FOLDER / "tokenizer.json")


class Module(nnx.Module):
    """The model as a Flax module, its parameters under the names of the checkpoint."""

    def __init__(self, config: MinGRUConfig, rngs: nnx.Rngs) -> None:
        self.config = config
        drawn = MinGRU.init_params(config, rngs.params())
        self.params = nnx.Dict({_attribute(name): nnx.Param(array) for name, array in drawn.items()})

    def __call__(self, tokens: jax.Array, state: State) -> tuple[jax.Array, State]:
        """Return the likeliest next token, and the state."""
        params = {name: self.params[_attribute(name)][...] for name in self.config.param_shapes()}
        logits, state = MinGRU(self.config, params).scan(tokens, state)
        return jnp.argmax(logits[0, -1]), state


def _attribute(name: str) -> str:
    return name.replace(".", "_")


def _restored(config: MinGRUConfig) -> Module:
    module = Module(config, nnx.Rngs(0))
    like = {name: module.params[_attribute(name)][...] for name in config.param_shapes()}
    with ocp.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(Path(os.environ["BENCHMARK_FILE"]), like)
    nnx.update(module, nnx.State({"params": {_attribute(name): nnx.Param(array) for name, array in restored.items()}}))
    return module


CONFIG: MinGRUConfig = model_config(read_config(FOLDER)["model"])
MODULE = _restored(CONFIG)
STEP = nnx.jit(lambda module, tokens, state: module(tokens, state))

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
    tokens, state = TOKENIZER.encode(body.prompt), MinGRU(CONFIG, {}).init_state(1)
    for _ in range(body.max_tokens):
        token, state = STEP(MODULE, jnp.array([tokens]), state)
        tokens = [int(token)]
        yield TOKENIZER.decode(tokens)
