"""The families of recurrent language models."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from functions.llm.array_types import Params
from functions.llm.models.lstm import LSTM, LSTMConfig
from functions.llm.models.mingru import MinGRU, MinGRUConfig
from functions.llm.models.recurrent_lm import ConfigError, ModelConfig, RecurrentLM, State, check_params

__all__ = [
    "FAMILIES",
    "LSTM",
    "ConfigError",
    "LSTMConfig",
    "MinGRU",
    "MinGRUConfig",
    "ModelConfig",
    "RecurrentLM",
    "State",
    "build_model",
    "family_of",
    "model_config",
]

FAMILIES: dict[str, type[RecurrentLM]] = {"lstm": LSTM, "mingru": MinGRU}


def family_of(config: ModelConfig) -> type[RecurrentLM]:
    """Return the family that ``config`` is of."""
    return FAMILIES[config.family]


def model_config(values: Mapping[str, Any]) -> Any:
    """Return the configuration that ``values`` (config.json's "model") describes; what it does not know it names."""
    family = values.get("family")
    if not isinstance(family, str) or family not in FAMILIES:
        raise ConfigError(f"family is {family!r}; known are {', '.join(sorted(FAMILIES))}")
    config_type = FAMILIES[family].config_type
    known = {field.name: field for field in fields(config_type) if field.init}
    given = {name: value for name, value in values.items() if name != "family"}
    for name in given.keys() - known.keys():
        raise ConfigError(f"{name} is not a field of a {family}; known are {', '.join(known)}")
    for name, field in known.items():
        if field.default is MISSING and name not in given:
            raise ConfigError(f"{name} is missing; a {family} needs it")
        # JSON has one kind of number: a size of 2.5 would pass as a number and fail far from here.
        if field.type in (int, "int") and name in given and type(given[name]) is not int:
            raise ConfigError(f"{name} is {given[name]!r}; it must be a whole number")
    return config_type(**given)


def build_model(config: ModelConfig, params: Params) -> RecurrentLM:
    """Return the model of ``config`` over ``params``; refuse missing, foreign or misshapen parameters by name."""
    check_params(config, params)
    return family_of(config)(config, params)
