"""Several prompts in one request: all are found good before the first costs anything."""

from collections.abc import Sequence
from contextlib import closing

from functions.backend.application.llm_gateway import LLMGateway
from functions.backend.application.time_limit import Deadline, TimeLimit
from functions.backend.domain.generation import Generation


class CheckPrompts:
    """Asks once for all of them. One alone is refused before anything is made of it, whoever refuses it."""

    def __init__(self, gateway: LLMGateway) -> None:
        self._gateway = gateway

    async def __call__(self, generations: Sequence[Generation], request_id: str, deadline: Deadline) -> None:
        """Return when the model service would begin with any of a request's texts.

        Raises:
            LLMError: it refuses one of them, or nobody can say in time.
        """
        # Texts of one prompt share it, and all are of one model.
        prompts = {id(generation.prompt): generation.prompt for generation in generations}
        if len(prompts) > 1:
            with closing(TimeLimit(deadline)) as limit, limit:
                await self._gateway.check(list(prompts.values()), generations[0].model, request_id)
