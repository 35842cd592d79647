"""The frontend's wiring, all of it."""

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from pathlib import Path

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from functions.frontend.backend_client import BackendClient
from functions.frontend.entrance import Entrance
from functions.frontend.envelope import Envelope
from functions.frontend.errors import AnsweredError, ErrorBody, error_response, routing_error_response
from functions.frontend.languages import load_languages
from functions.frontend.last_words import LastWords
from functions.frontend.markup import Markup
from functions.frontend.own_name import OwnName
from functions.frontend.pages import build_pages
from functions.frontend.password import Password
from functions.frontend.patience import Patience
from functions.frontend.relay import build_relay
from functions.frontend.session import LIFETIME_S, SessionSeal
from functions.frontend.session_page import PasswordPage, build_sessions
from functions.frontend.settings import Settings
from functions.frontend.static_files import StaticFiles
from functions.frontend.status_page import build_status_page
from functions.frontend.telemetry.request_log import RequestLog
from functions.frontend.telemetry.tracing import begin_tracing, end_tracing
from functions.frontend.traffic import UNROUTED, Traffic, TrafficMiddleware, note_error

HERE = Path(__file__).parent
# What fails here, where the answer is not the backend's own: counted from 0 on.
# A rate needs its zero. What the backend has answered with an error stands in the backend's own figures, too.
KNOWN_CODES = (
    "backend_unavailable", "backend_timeout", "internal", "method_not_allowed", "misdirected_request", "not_found",
    "not_ready", "password_required", "request_timeout", "slow_reader", "text_cut_off", "too_many_guesses",
    "unreadable", "wrong_password",
)  # fmt: skip
# Who asks for text or gives a password, and whoever finds no route.
COUNTED_ROUTES = ("/", "/api/llm/generate", "/api/llm/stream", "/session", UNROUTED)


def build_app(settings: Settings) -> FastAPI:
    """The page, its static files, and the relay to the backend."""
    backend = BackendClient(settings.backend_url, settings.backend_timeout_s, settings.backend_connect_timeout_s)
    static = StaticFiles(HERE / "static")
    languages = load_languages(HERE / "strings")
    seal = SessionSeal(settings.session_secrets, settings.page_password) if settings.session_secrets else None
    entrance = Entrance(seal, asks=bool(settings.page_password), always_secure=settings.cookie_secure)
    always = {"status_view": settings.status_view, "session_s": LIFETIME_S if entrance.has_sessions else None}
    markup = Markup(HERE / "templates", static, languages, **always)
    asking = PasswordPage(markup)
    traffic = Traffic()
    spans = begin_tracing("frontend", wanted=settings.traces)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with _served_metrics(settings, traffic):
            yield
        await backend.close()
        await end_tracing(spans)

    # No OpenAPI page: it would load scripts from elsewhere, and the API that it should describe is the backend's.
    app = FastAPI(title="Huginn, the page", lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    app.add_middleware(OwnName, wanted=settings.own_names_alone)
    app.add_middleware(Patience, patience_s=settings.reader_timeout_s)
    app.add_middleware(LastWords)
    app.add_middleware(RequestLog, spans=spans)
    app.add_middleware(Envelope)
    if settings.metrics_port:
        app.add_middleware(TrafficMiddleware, traffic=traffic)
    app.include_router(build_pages(markup, backend, entrance, asking))
    app.include_router(build_relay(backend))
    app.include_router(static.build_router())
    if settings.status_view:
        app.include_router(build_status_page(markup, backend, entrance, asking))
    password = Password(settings.page_password) if settings.page_password else None
    app.include_router(build_sessions(entrance, password, asking))

    @app.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz(request: Request) -> JSONResponse:
        if await backend.is_ready():
            return JSONResponse({"status": "ready"})
        note_error(request.scope, "not_ready")
        message = f"The backend at {settings.backend_url} is not ready. Ask its /readyz for the reason."
        return error_response(503, ErrorBody("not_ready", message, retryable=True), {"retry-after": "1"})

    @app.exception_handler(AnsweredError)
    async def failed(request: Request, failure: AnsweredError) -> JSONResponse:
        note_error(request.scope, failure.error.code)
        return error_response(failure.status, failure.error)

    @app.exception_handler(ClientDisconnect)
    async def left(_: Request, __: ClientDisconnect) -> Response:
        # Nobody reads it; the access log shows nginx's number for the case.
        return Response(status_code=499)

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> JSONResponse:
        note_error(request.scope, "method_not_allowed" if error.status_code == 405 else "not_found")
        return routing_error_response(error, request.method, request.url.path)

    return app


def _served_metrics(settings: Settings, traffic: Traffic) -> AbstractContextManager[object]:
    if not settings.metrics_port:
        return nullcontext()
    from functions.frontend.metrics import MetricsServer, registry_of

    registry = registry_of(traffic, KNOWN_CODES, COUNTED_ROUTES)
    return MetricsServer(registry, settings.metrics_host, settings.metrics_port)
