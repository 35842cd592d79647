"""The predecessor's language model as an ONNX graph: token and state in, likeliest token and state out."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from functions.llm.models import LSTMConfig


def write_onnx(config: LSTMConfig, params: Mapping[str, NDArray[np.float32]], file: Path) -> None:
    """Write the graph: inputs ``token`` (1, B), ``h0``, ``c0``, ... (1, B, H); outputs ``next`` and ``h0_out``, ..."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = [numpy_helper.from_array(params["emb.weight"], "emb")]
    nodes = [helper.make_node("Gather", ["emb", "token"], ["x0"])]
    inputs = [helper.make_tensor_value_info("token", TensorProto.INT64, [1, "B"])]
    outputs = [helper.make_tensor_value_info("next", TensorProto.INT64, [1, "B"])]
    for layer in range(config.layers):
        for name, array in zip("wrb", _layer(params, layer), strict=True):
            weights.append(numpy_helper.from_array(array, f"{name}{layer}"))
        lstm = [f"x{layer}", f"w{layer}", f"r{layer}", f"b{layer}", "", f"h{layer}", f"c{layer}"]
        made = [f"y{layer}", f"h{layer}_out", f"c{layer}_out"]
        nodes += [
            helper.make_node("LSTM", lstm, made, hidden_size=config.hid),
            # (T, directions, B, H): there is one direction.
            helper.make_node("Squeeze", [f"y{layer}", "directions"], [f"x{layer + 1}"]),
        ]
        for name in (f"h{layer}", f"c{layer}"):
            inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, "B", config.hid]))
            outputs.append(helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, [1, "B", config.hid]))
    weights += [
        numpy_helper.from_array(np.array([1]), "directions"),
        numpy_helper.from_array(np.ascontiguousarray(params["head.weight"].T), "head"),
        numpy_helper.from_array(params["head.bias"], "head_bias"),
    ]
    nodes += [
        helper.make_node("MatMul", [f"x{config.layers}", "head"], ["scores"]),
        helper.make_node("Add", ["scores", "head_bias"], ["logits"]),
        helper.make_node("ArgMax", ["logits"], ["next"], axis=-1, keepdims=0),
    ]
    graph = helper.make_graph(nodes, "lstm", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(file))


def write_dynamic_int8(source: Path, file: Path) -> None:
    """Write the graph of ``source`` with onnxruntime's dynamic quantization."""
    import logging

    from onnxruntime.quantization import QuantType, quantize_dynamic

    # It would advise a preprocessing that this graph does not need.
    logging.getLogger().setLevel(logging.ERROR)
    quantize_dynamic(source, file, weight_type=QuantType.QInt8)


def _layer(params: Mapping[str, NDArray[np.float32]], layer: int) -> tuple[NDArray[np.float32], ...]:
    """Return W (1, 4H, I), R (1, 4H, H) and B (1, 8H), with an axis of directions in front."""
    w, r, b_ih, b_hh = (
        _onnx_order(params[f"rnn.{name}_l{layer}"]) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    return w[None], r[None], np.concatenate([b_ih, b_hh])[None]


def _onnx_order(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return torch's gates i f g o in ONNX's order i o f c."""
    i, f, g, o = np.split(rows, 4)
    return np.concatenate([i, o, f, g])
