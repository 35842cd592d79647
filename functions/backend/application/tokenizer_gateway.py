"""The port to the models' tokenizers."""

from collections.abc import Sequence
from typing import Protocol

from functions.backend.domain.conversation import Conversation
from functions.backend.domain.tokenizer_card import TokenizerCard, Tokens


class TokenizerGateway(Protocol):
    """Cuts texts into tokens and puts them together, as a model does; `model` None is the one that serves by default.

    All raise LLMError where the service is away, does not know the model, or finds a fault in what it was given.
    """

    async def tokenize(self, text: str | Conversation, model: str | None, request_id: str) -> Tokens:
        """Give the tokens of a text, or of a conversation as the model's chat template writes it."""
        ...

    async def detokenize(self, ids: Sequence[int], model: str | None, request_id: str) -> str:
        """Give the text of tokens."""
        ...

    async def tokenizer(self, model: str | None, request_id: str) -> TokenizerCard:
        """Tell what is known of a model's tokens."""
        ...
