"""POST /session: a session is renewed by the page's scripts, and begun by whoever gives the password."""

from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from jinja2 import Template
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response

from functions.frontend.entrance import Entrance
from functions.frontend.errors import AnsweredError, ErrorBody, RefusedError
from functions.frontend.form import FORM_TYPE, refuse_other_sites
from functions.frontend.markup import Markup
from functions.frontend.password import Password
from functions.frontend.request_body import read_body
from functions.frontend.session import LIFETIME_S
from functions.frontend.traffic import note_error

# Where somebody wanted to go who was asked for the password first.
PLACES = ("/", "/status")


class PasswordPage:
    """The page that asks for the password."""

    def __init__(self, markup: Markup) -> None:
        """Load the template."""
        self._markup = markup
        self._template: Template = markup.load("password.html")

    def respond(self, request: Request, place: str, error: ErrorBody | None = None, status: int = 200) -> Response:
        """The page; whoever gives the password goes on to `place`."""
        response = self._markup.respond(request, self._template, status, place=place, error=error)
        response.headers["cache-control"] = "no-store"
        return response


def build_sessions(entrance: Entrance, password: Password | None, asking: PasswordPage) -> APIRouter:
    """The route."""
    router = APIRouter()

    @router.post("/session")
    async def session(request: Request) -> Response:
        if not entrance.has_sessions:
            raise HTTPException(404)
        refuse_other_sites(request.headers.get("sec-fetch-site", "same-origin"))
        if _media_type(request) == FORM_TYPE:
            return await begin(request)
        visit = entrance.enter(request)
        if visit is None:
            raise RefusedError(401, ErrorBody("password_required", "The page's password is wanted for a session."))
        response = JSONResponse({"expires_in_s": LIFETIME_S})
        entrance.mark(request, visit, response)
        return response

    async def begin(request: Request) -> Response:
        # A script says that it reads JSON; a browser that sends a form shows what comes.
        as_json = "application/json" in request.headers.get("accept", "")
        place = "/"
        try:
            fields = _fields(await read_body(request))
            place = fields.get("place", "/") if fields.get("place") in PLACES else "/"
            if password is not None:
                await password.check(fields.get("password", ""))
        except AnsweredError as failure:
            if as_json:
                raise
            note_error(request.scope, failure.error.code)
            return asking.respond(request, place, failure.error, failure.status)
        response: Response = JSONResponse({"expires_in_s": LIFETIME_S})
        if not as_json:
            language = request.query_params.get("lang", "")
            target = f"{place}?lang={language}" if language.isalpha() and language.isascii() else place
            # 303: the browser goes there with GET, and a reload does not send the password again.
            response = RedirectResponse(target, 303, {"cache-control": "no-store"})
        entrance.mark(request, entrance.welcome(), response)
        return response

    return router


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").split(";", maxsplit=1)[0].strip().lower()


def _fields(body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qs(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=4)
    except ValueError as error:
        raise RefusedError(400, ErrorBody("invalid_form", f"The form cannot be read: {error}.")) from None
    return {name: values[-1] for name, values in pairs.items()}
