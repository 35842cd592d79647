"""The predecessor's language model in torch: what the peers run, over the very weights that Huginn has."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from functions.llm.models import LSTMConfig


def torch_lm(config: LSTMConfig, params: Mapping[str, NDArray[np.float32]]) -> Any:
    """Return an ``nn.Module`` with ``emb``, ``rnn`` and ``head``, in evaluation mode."""
    import torch
    from torch import nn

    module = nn.ModuleDict(
        {
            "emb": nn.Embedding(config.vocab_size, config.emb),
            "rnn": nn.LSTM(config.emb, config.hid, config.layers, batch_first=True),
            "head": nn.Linear(config.hid, config.vocab_size),
        }
    )
    module.load_state_dict({name: torch.tensor(array) for name, array in params.items()})
    return module.eval()


def dynamic_int8(module: Any) -> Any:
    """Return the module with torch's dynamic quantization: int8 matrices, activations rounded at each call."""
    import torch
    from torch import nn

    with warnings.catch_warnings():
        # Deprecated in favour of torchao, which has nothing for nn.LSTM.
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(module, {nn.LSTM, nn.Linear}, dtype=torch.qint8)
