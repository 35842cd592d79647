"""A checkpoint in the forms that the peers of `cold_start` load."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from functions.llm.checkpoints.checkpoint import load_checkpoint
from functions.llm.models import MinGRU

RWKV_CONTEXT = 1024
RWKV_HEAD = 64
# Of its low-rank parts: this makes it as large as the minGRU, within 1%, in both sizes.
RWKV_RANK = 48


def write_orbax(checkpoint: Path, path: Path) -> None:
    """Write the parameters as orbax keeps a tree."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, dict(load_checkpoint(checkpoint).model.params))


def write_onnx(checkpoint: Path, path: Path) -> None:
    """Write one step of a minGRU as an ONNX graph, its weights in a file of their own beside it.

    Inputs are token, conv0.. and h0..; outputs are logits and the states, under the inputs' names with "_next".
    """
    import onnx
    from onnx import TensorProto, helper

    model = load_checkpoint(checkpoint).model
    assert isinstance(model, MinGRU)
    c = model.config
    graph = _Graph({name: np.asarray(array, np.float32) for name, array in model.params.items()})
    x = graph.op("Gather", "embedding", "token")
    inputs = [helper.make_tensor_value_info("token", TensorProto.INT64, [1])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, c.vocab_size])]
    for layer in range(c.layers):
        x = graph.block(layer, x)
        for name, shape in {f"conv{layer}": [c.conv - 1, c.width], f"h{layer}": [1, c.hidden]}.items():
            inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
            outputs.append(helper.make_tensor_value_info(f"{name}_next", TensorProto.FLOAT, shape))
    graph.op("Gemm", graph.norm(x, "norm"), "head.weight", to="logits", transB=1)
    made = helper.make_graph(graph.nodes, "step", inputs, outputs, graph.initializers())
    onnx.save(
        helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10),
        path,
        save_as_external_data=True,
        location=f"{path.name}.data",
    )


def write_gguf(checkpoint: Path, path: Path) -> None:
    """Write an RWKV-7 of random weights, as llama.cpp loads it, with a minGRU's vocabulary, width and depth."""
    from gguf import GGUFWriter, TokenType

    found = load_checkpoint(checkpoint)
    assert isinstance(found.model, MinGRU)
    c = found.model.config
    writer = GGUFWriter(path, "rwkv7")
    writer.add_context_length(RWKV_CONTEXT)
    writer.add_embedding_length(c.width)
    writer.add_block_count(c.layers)
    writer.add_feed_forward_length(4 * c.width)
    writer.add_head_count(0)
    writer.add_wkv_head_size(RWKV_HEAD)
    writer.add_layer_norm_eps(1e-5)
    writer.add_decay_lora_rank(RWKV_RANK)
    writer.add_iclr_lora_rank(RWKV_RANK)
    writer.add_value_residual_mix_lora_rank(RWKV_RANK)
    writer.add_gate_lora_rank(RWKV_RANK)
    # Its tokens are in Python's notation, of which only the backslash itself needs any in a character.
    texts = [found.tokenizer.decode([token]).replace("\\", "\\\\") for token in range(c.vocab_size)]
    writer.add_tokenizer_model("rwkv")
    writer.add_token_list(texts)
    writer.add_token_types([TokenType.NORMAL] * c.vocab_size)
    rng = np.random.default_rng(0)
    for name, shape in _rwkv_shapes(c.vocab_size, c.width, c.layers):
        writer.add_tensor(name, 0.02 * rng.standard_normal(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _rwkv_shapes(vocab_size: int, width: int, layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name in ("token_embd", "output"):
        yield f"{name}.weight", (vocab_size, width)
    blocks = [f"blk.{layer}." for layer in range(layers)]
    norms = [f"{block}{name}" for block in blocks for name in ("attn_norm", "attn_norm_2", "time_mix_ln")]
    for norm in ("token_embd_norm", "output_norm", *norms):
        yield f"{norm}.weight", (width,)
        yield f"{norm}.bias", (width,)
    for block in blocks:
        for name in ("w0", "a0", "v0", "k_k", "k_a", "r_k"):
            yield f"{block}time_mix_{name}.weight", (width,)
        for name in "wavg":
            yield f"{block}time_mix_{name}1.weight", (RWKV_RANK, width)
            yield f"{block}time_mix_{name}2.weight", (width, RWKV_RANK)
        yield f"{block}time_mix_lerp_fused.weight", (6, 1, 1, width)
        for name in ("receptance", "key", "value", "output"):
            yield f"{block}time_mix_{name}.weight", (width, width)
        yield f"{block}channel_mix_lerp_k.weight", (1, 1, width)
        yield f"{block}channel_mix_key.weight", (4 * width, width)
        yield f"{block}channel_mix_value.weight", (width, 4 * width)


class _Graph:
    """Nodes over named tensors; every method returns the name of its result."""

    def __init__(self, weights: dict[str, NDArray[np.float32]]) -> None:
        self.nodes: list[Any] = []
        self._weights = weights

    def initializers(self) -> list[Any]:
        from onnx import numpy_helper

        return [numpy_helper.from_array(array, name) for name, array in self._weights.items()]

    def op(self, kind: str, *inputs: str, to: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        name = to or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self._weights)}"
        self._weights[name] = np.asarray(value, dtype)
        return name

    def norm(self, x: str, weight: str) -> str:
        mean = self.op("ReduceMean", self.op("Mul", x, x), self.constant([-1], np.int64), keepdims=1)
        root = self.op("Sqrt", self.op("Add", mean, self.constant(1e-6)))
        return self.op("Mul", self.op("Div", x, root), weight)

    def block(self, layer: int, x: str) -> str:
        mixer, mlp = f"layers.{layer}.mixer.", f"layers.{layer}.mlp."
        u = self.norm(x, f"{mixer}norm")
        seen = self.op("Concat", f"conv{layer}", u, axis=0)
        start, end = self.constant([1], np.int64), self.constant([1 << 30], np.int64)
        self.op("Slice", seen, start, end, self.constant([0], np.int64), to=f"conv{layer}_next")
        tapped = self.op("Mul", seen, f"{mixer}conv.taps")
        u = self.op("ReduceSum", tapped, self.constant([0], np.int64), keepdims=1)
        u = self.op("Add", u, f"{mixer}conv.bias")
        z = self.op("Sigmoid", self.op("Gemm", u, f"{mixer}gate.weight", f"{mixer}gate.bias", transB=1))
        candidate = self.op("Gemm", u, f"{mixer}candidate.weight", transB=1)
        kept = self.op("Mul", self.op("Sub", self.constant(1.0), z), f"h{layer}")
        h = self.op("Add", kept, self.op("Mul", z, candidate), to=f"h{layer}_next")
        x = self.op("Add", x, self.op("Gemm", h, f"{mixer}out.weight", transB=1))
        up = self.op("Gemm", self.norm(x, f"{mlp}norm"), f"{mlp}up.weight", transB=1)
        down = self.op("Gemm", self.op("Gelu", up, approximate="tanh"), f"{mlp}down.weight", transB=1)
        return self.op("Add", x, down)
