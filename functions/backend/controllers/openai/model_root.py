"""A model's own root: the paths for OpenAI's clients under /models/{model}, where that model is the only one.

For clients that ask for tokens without saying of which model, since their server has one: lm-evaluation-harness does.
"""

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from functions.backend.domain.errors import InvalidRequest

SAID_OF_ROOTS = (
    "What is under /v1, and /tokenize, /detokenize and /tokenizer_info, is also under /models/{model}: there `model` "
    "is that one where a request names none. To name another is a 400, and the root of a model that is not here a 404."
)

_UNDER_A_ROOT = re.compile(r"(?P<root>/models/(?P<model>.+?))(/v1/.*|/tokenize|/detokenize|/tokenizer_info)", re.DOTALL)


class ModelRootMiddleware:
    """Has what is asked under a model's root routed as beside it: the routes, and what counts by them, are the same."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "http" and (found := _UNDER_A_ROOT.fullmatch(scope["path"])):
            # ASGI's word for where an application is mounted; the path stays what was asked.
            scope["root_path"] = found["root"]
            scope.setdefault("state", {})["model_root"] = found["model"]
        await self._app(scope, receive, send)


def model_root_of(scope: Scope) -> str | None:
    """Give the model under whose root this was asked; None is beside all."""
    model: str | None = scope.get("state", {}).get("model_root")
    return model


def model_under(root: str | None, model: str | None) -> str | None:
    """Give the model that is asked for by a request that names `model`, or none, under the root of `root`.

    Raises:
        InvalidRequest: it names another.
    """
    if root is not None and model is not None and model != root:
        raise InvalidRequest(
            f"model is {model[:100]!r}, and this is the root of {root[:100]!r}. Name that one or none, or ask for the "
            "path without its root, where all models are served.",
            field="model",
        )
    return model if root is None else root
