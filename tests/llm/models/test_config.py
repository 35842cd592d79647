"""A configuration that is wrong says where."""

import jax.numpy as jnp
import pytest

from functions.llm.models import MinGRU, MinGRUConfig, build_model, model_config
from functions.llm.models.recurrent_lm import ConfigError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vocab_size": 5}, "family is None"),
        ({"family": "gpt", "vocab_size": 5}, "family is 'gpt'"),
        ({"family": "lstm"}, "vocab_size is missing"),
        ({"family": "lstm", "vocab_size": 5, "heads": 2}, "heads is not a field"),
        ({"family": "lstm", "vocab_size": 0}, "vocab_size is 0"),
        ({"family": "mingru", "vocab_size": 5, "layers": 1.5}, "layers is 1.5"),
        ({"family": "mingru", "vocab_size": True}, "vocab_size is True"),
        ({"family": "mingru", "vocab_size": 5, "dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_a_wrong_field_is_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        model_config(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.pop("norm"), "norm is missing"),
        (lambda p: p.update(extra=jnp.zeros(1)), "extra is not a parameter"),
        (lambda p: p.update(norm=jnp.zeros(3)), r"norm has shape \(3,\), the config says \(4,\)"),
    ],
)
def test_a_wrong_parameter_is_named(change: object, message: str) -> None:
    config = MinGRUConfig(vocab_size=5, width=4, hidden=4, layers=1)
    params = {name: jnp.zeros(shape) for name, shape in config.param_shapes().items()}
    assert isinstance(build_model(config, params), MinGRU)
    change(params)  # type: ignore[operator]
    with pytest.raises(ConfigError, match=message):
        build_model(config, params)
