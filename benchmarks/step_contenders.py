"""Who decodes, token by token, each drawn token fed back: torch, onnxruntime, Huginn, all over the same weights.

Each contender decodes greedily from B one-token prompts, for every B that it is asked for, and reads the tokens on the
host every CHUNK tokens, as a server that streams them must.
"""

import itertools
import tempfile
import time
import zlib
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from functions.llm.checkpoints.checkpoint import load_checkpoint
from functions.llm.inference.programs import MAX_CHUNK, Programs, batch_sizes, program_specs
from functions.llm.models import LSTM, LSTMConfig, RecurrentLM
from functions.llm.native.accelerated import accelerated
from functions.llm.ops.quantized import quantize

SHAPE = LSTMConfig(vocab_size=97, emb=512, hid=512, layers=3)
LARGE = LSTMConfig(vocab_size=97, emb=1024, hid=1024, layers=3)
"""100 MB in float32: more than the caches hold."""

CHUNK = MAX_CHUNK
TURN_S = 0.5
"""How long a turn is, for each batch; the chunk that is under way is finished."""

Chunks = Callable[[], NDArray[Any]]
"""Returns the next CHUNK tokens of each text, (B, CHUNK)."""


class Turn(NamedTuple):
    """What one turn of a contender found.

    Args:
        rate: tokens a second, of all texts together.
        text: a checksum of the first tokens: who computes the same has the same.
    """

    rate: float
    text: int


Turns = Generator[dict[int, Turn], None, None]


def weights(shape: LSTMConfig | None = None) -> dict[str, NDArray[np.float32]]:
    """Return the same random parameters in every process, of SHAPE if of no other."""
    shape = shape or SHAPE
    rng = np.random.default_rng(0)
    # Three times torch's own bound, or the greedy text would be one token for ever, which any mistake writes as well.
    bound = 3 * shape.hid**-0.5
    return {
        name: (rng.normal(size=sizes) if name == "emb.weight" else rng.uniform(-bound, bound, sizes)).astype(np.float32)
        for name, sizes in shape.param_shapes().items()
    }


def prompts(batch: int) -> NDArray[np.int64]:
    """Return the token that each of the texts begins with."""
    return np.arange(batch, dtype=np.int64) % SHAPE.vocab_size


def torch_texts(batches: Sequence[int], precision: str) -> Turns:
    """Decode by torch's modules; ``precision`` is "float32", "float32 without oneDNN" or "dynamic int8"."""
    import torch

    from benchmarks.torch_lm import dynamic_int8, torch_lm

    torch.backends.mkldnn.enabled = precision != "float32 without oneDNN"
    module = torch_lm(SHAPE, weights())
    if precision == "dynamic int8":
        module = dynamic_int8(module)

    def begin(batch: int) -> Chunks:
        token = torch.tensor(prompts(batch))[:, None]
        zeros = torch.zeros(SHAPE.layers, batch, SHAPE.hid)
        state = (zeros, zeros)

        def chunk() -> NDArray[Any]:
            nonlocal token, state
            made = []
            with torch.inference_mode():
                for _ in range(CHUNK):
                    x, state = module["rnn"](module["emb"](token), state)
                    token = module["head"](x[:, -1]).argmax(-1, keepdim=True)
                    made.append(token)
                return np.asarray(torch.cat(made, 1))

        return chunk

    yield from _turns(begin, batches)


def onnx_texts(batches: Sequence[int], precision: str) -> Turns:
    """Decode by an onnxruntime session; ``precision`` is "float32" or "dynamic int8"."""
    import onnxruntime as ort

    from benchmarks.onnx_lm import write_dynamic_int8, write_onnx

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "lstm.onnx")
        write_onnx(SHAPE, weights(), file)
        if precision == "dynamic int8":
            source, file = file, Path(folder, "int8.onnx")
            write_dynamic_int8(source, file)
        session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [put.name for put in session.get_inputs()]
    outputs = [put.name for put in session.get_outputs()]

    def begin(batch: int) -> Chunks:
        zeros = np.zeros((1, batch, SHAPE.hid), np.float32)
        held = [prompts(batch)[None], *[zeros] * (2 * SHAPE.layers)]

        def chunk() -> NDArray[Any]:
            nonlocal held
            made = []
            for _ in range(CHUNK):
                held = session.run(outputs, dict(zip(names, held, strict=True)))
                made.append(held[0][0])
            return np.stack(made, 1)

        return chunk

    yield from _turns(begin, batches)


def huginn_texts(batches: Sequence[int], precision: str, native: bool, shape: LSTMConfig | None = None) -> Turns:
    """Decode by the programs that serving calls; ``precision`` is "float32", "bfloat16" or "int8", of the matrices."""
    arrays = weights(shape)
    model = LSTM(shape or SHAPE, {name: _held(name, array, precision) for name, array in arrays.items()})
    yield from _program_turns(_by_kernel(model) if native else model, batches)


def checkpoint_texts(batches: Sequence[int], folder: Path, native: bool) -> Turns:
    """Decode from a checkpoint by the programs that serving calls."""
    model = load_checkpoint(folder).model
    yield from _program_turns(_by_kernel(model) if native else model, batches)


def _held(name: str, array: NDArray[np.float32], precision: str) -> Any:
    is_matrix = array.ndim == 2 and name != "emb.weight"
    if precision == "float32" or not is_matrix:
        return jnp.asarray(array)
    return quantize(jnp.asarray(array)) if precision == "int8" else jnp.asarray(array, jnp.bfloat16)


def _by_kernel(model: RecurrentLM) -> RecurrentLM:
    faster = accelerated(model)
    if faster is None:
        raise RuntimeError("there is no kernel here for this model: .venv/bin/huginn doctor says why")
    return faster


def _program_turns(model: RecurrentLM, batches: Sequence[int]) -> Turns:
    programs = Programs(model)

    def begin(batch: int) -> Chunks:
        size = next(size for size in batch_sizes(model) if size >= batch)
        _, texts, samplers, forced, counts, _ = program_specs(model)[f"decode-{size}"].args
        texts = texts._replace(last_token=prompts(size).astype(np.int32))
        # On the device, as a server keeps them.
        samplers, forced = jax.device_put((samplers._replace(temperature=np.zeros(size, np.float32)), forced))
        # Rows that fill the batch up make no token.
        counts = np.where(np.arange(size) < batch, CHUNK, 0).astype(counts.dtype)

        def chunk() -> NDArray[Any]:
            nonlocal texts
            drawn, texts = programs.decode(texts, samplers, forced, counts, wants_top=False)
            ids: NDArray[Any] = np.asarray(drawn.ids)[:batch]
            return ids

        return chunk

    yield from _turns(begin, batches)


def _turns(begin: Callable[[int], Chunks], batches: Sequence[int]) -> Turns:
    chunks = {batch: begin(batch) for batch in batches}
    texts = {
        batch: zlib.crc32(np.stack([chunk() for _ in range(4)]).astype("<i8").tobytes())
        for batch, chunk in chunks.items()
    }
    yield {}
    while True:
        yield {batch: Turn(batch * CHUNK * _chunks_per_second(chunk), texts[batch]) for batch, chunk in chunks.items()}


def _checksum(chunks: Sequence[NDArray[Any]]) -> int:
    return zlib.crc32(np.concatenate(chunks, 1).astype("<i8").tobytes())


def _chunks_per_second(chunk: Callable[[], Any]) -> float:
    started = time.perf_counter()
    for made in itertools.count(1):
        chunk()
        seconds = time.perf_counter() - started
        if seconds >= TURN_S:
            return made / seconds
    raise AssertionError
