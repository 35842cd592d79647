"""The page itself, and the answer to its form where there is no JavaScript."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from functions.frontend import form
from functions.frontend.backend_client import BackendClient, BackendError
from functions.frontend.disconnect import unless_client_leaves
from functions.frontend.entrance import Entrance, Visit
from functions.frontend.errors import AnsweredError, ErrorBody, RefusedError
from functions.frontend.markup import Markup
from functions.frontend.request_body import read_body
from functions.frontend.session_page import PasswordPage
from functions.frontend.traffic import note_error


@dataclass(frozen=True)
class Answer:
    """A finished generation, as the page shows it."""

    prompt: str
    text: str
    model: str
    seed: int
    finish_reason: str
    tokens: int
    seconds: float

    def as_turn(self) -> dict[str, Any]:
        """The same as the scripts keep it (`static/turns.js`), for a page whose scripts came late."""
        return {
            "prompt": self.prompt, "text": self.text, "model": self.model, "count": self.tokens,
            "perSecond": None, "firstMs": None, "end": self.finish_reason, "seed": str(self.seed),
        }  # fmt: skip


@dataclass(frozen=True)
class View:
    """What one rendering of the page shows beside the form: an answer, or an error, or neither."""

    fields: Mapping[str, str] = field(default_factory=dict)
    answer: Answer | None = None
    error: ErrorBody | None = None


def build_pages(markup: Markup, backend: BackendClient, entrance: Entrance, asking: PasswordPage) -> APIRouter:
    """The page, and the answer to its form."""
    router = APIRouter()
    template = markup.load("page.html", groups=form.GROUPS, max_tokens=form.MAX_TOKENS, seed=form.SEED)

    def respond(request: Request, view: View, status: int = 200) -> HTMLResponse:
        return markup.respond(request, template, status, view=view, fields={**form.DEFAULTS, **view.fields})

    @router.api_route("/", methods=["GET", "HEAD"])
    async def show(request: Request) -> Response:
        visit = entrance.enter(request)
        if visit is None:
            return asking.respond(request, "/")
        response = respond(request, View())
        entrance.mark(request, visit, response)
        return response

    @router.post("/")
    async def generate(request: Request) -> HTMLResponse:
        """Generate as the form says, and show the page with the answer and with all that was typed."""
        fields: dict[str, str] = {}
        try:
            form.refuse_other_sites(request.headers.get("sec-fetch-site", "same-origin"))
            fields = form.parse_form(await read_body(request), request.headers.get("content-type", ""))
            visit = entrance.enter(request)
            if visit is None:
                raise RefusedError(401, ErrorBody("password_required", "The page's password is wanted for a session."))
            work = _generate(backend, form.request_from_form(fields), request.state.request_id, visit)
            answer = await unless_client_leaves(request.receive, work)
        except AnsweredError as failure:
            note_error(request.scope, failure.error.code)
            return respond(request, View(fields, error=failure.error), failure.status)
        response = respond(request, View(fields, answer=answer))
        entrance.mark(request, visit, response)
        return response

    return router


async def _generate(backend: BackendClient, request: dict[str, Any], request_id: str, visit: Visit) -> Answer:
    """The backend's answer.

    Raises:
        BackendError: it could not be had.
        RefusedError: the backend said no, in the words that are in the error.
    """
    begin = time.monotonic()
    response = await backend.generate(request, request_id, visit.headers)
    seconds = time.monotonic() - begin
    try:
        body = response.json()
        if not response.is_success:
            raise RefusedError(response.status_code, _error(body["error"], response.headers.get("retry-after", "")))
        return Answer(
            # The API trims prompts; shown untrimmed, prompt and continuation would not be the text the model saw.
            prompt=request["prompt"].strip(),
            text=str(body["text"]),
            model=str(body["model"]),
            seed=int(body["seed"]),
            finish_reason=str(body["finish_reason"]),
            tokens=int(body["usage"]["completion_tokens"]),
            seconds=seconds,
        )
    except (ValueError, KeyError, TypeError) as error:
        message = f"The backend answered {response.status_code} with a body that is not as the API has it ({error!r})."
        raise BackendError(502, ErrorBody("unreadable", message)) from error


def _error(error: Mapping[str, Any], retry_after: str) -> ErrorBody:
    field_name = error.get("field")
    return ErrorBody(
        code=str(error["code"]),
        message=str(error["message"]),
        field=None if field_name is None else str(field_name),
        retryable=bool(error.get("retryable", False)),
        retry_after_s=int(retry_after) if re.fullmatch("[0-9]{1,9}", retry_after) else None,
    )
