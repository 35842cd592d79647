"""The port to the model service: what the backend needs from it, whatever stands behind."""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from functions.backend.domain.conversation import Conversation
from functions.backend.domain.events import Event
from functions.backend.domain.generation import Generation
from functions.backend.domain.model_card import ModelCard
from functions.backend.domain.prompt import Prompt


class LLMGateway(Protocol):
    """A model service. `request_id` travels with every call, so that one request can be followed through all logs."""

    def stream(
        self, generation: Generation, request_id: str, client: str = "", timeout_s: float | None = None
    ) -> AsyncGenerator[Event]:
        """Tell what happens while the text is made, as it happens; the last event is a Done or a StreamError.

        `client` is an opaque name: the model service's places are shared fairly between clients. It is told to be done
        after `timeout_s`, and then says in its last event that it was not; nothing here waits for it to keep its word.

        Closing the generator, or cancelling its reader, ends the generation over there at once.

        Raises:
            LLMError: while iterating; nothing was or nothing more will be told.
        """
        ...

    async def check(self, prompts: Sequence[Prompt | Conversation], model: str | None, request_id: str) -> None:
        """Return when each of them can be generated from, as far as that is known without doing it.

        Raises:
            LLMError: one of them is refused, or nobody can say.
        """
        ...

    async def models(self, request_id: str) -> tuple[ModelCard, ...]:
        """List the models that can be asked.

        Raises:
            LLMError: the list could not be had.
        """
        ...

    async def ready(self, request_id: str) -> bool:
        """Say whether a generation would be served now; never raises for a service that is away."""
        ...
