"""What is known of a model that can be asked."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One model; `name` is what a request's `model` says, `default` marks the one that serves when it says nothing."""

    name: str
    family: str
    vocab_size: int
    tokenizer: str
    parameters: int
    size_bytes: int
    digest: str
    default: bool
