"""Puts the backend together."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from fastapi import FastAPI

from functions.backend.adapters.http_llm_gateway import HTTPLLMGateway
from functions.backend.adapters.http_llm_status import HTTPLLMStatus
from functions.backend.adapters.http_tokenizer_gateway import HTTPTokenizerGateway
from functions.backend.adapters.key_stores import key_store_named
from functions.backend.adapters.sigv4 import SigV4Auth
from functions.backend.application.authentication import Authentication
from functions.backend.application.check_prompts import CheckPrompts
from functions.backend.application.generate_choices import GenerateChoices, StreamChoices
from functions.backend.application.generate_stream import GenerateStream
from functions.backend.application.generate_text import GenerateText
from functions.backend.application.kept_answer import KeptAnswer
from functions.backend.application.llm_gateway import LLMGateway
from functions.backend.application.metering import Metering
from functions.backend.application.read_status import ReadStatus
from functions.backend.controllers.admin import admin_router
from functions.backend.controllers.body_limit import BodyLimitMiddleware
from functions.backend.controllers.cross_origin import allow_origins
from functions.backend.controllers.document import REFUSED_EVERYWHERE, DocumentedAPI
from functions.backend.controllers.errors import install_error_answers, known_codes
from functions.backend.controllers.generate import generate_router
from functions.backend.controllers.health import health_router
from functions.backend.controllers.last_words import LastWords
from functions.backend.controllers.models import models_router
from functions.backend.controllers.openai.chat import chat_router
from functions.backend.controllers.openai.completions import completions_router
from functions.backend.controllers.openai.errors import chat_shape, openai_shape
from functions.backend.controllers.openai.model_root import SAID_OF_ROOTS, ModelRootMiddleware
from functions.backend.controllers.openai.models import openai_models_router
from functions.backend.controllers.openai.surface import OpenAISurface
from functions.backend.controllers.openai.tokenization import tokenization_router
from functions.backend.controllers.own_name import OwnNameMiddleware
from functions.backend.controllers.patience import Patience
from functions.backend.controllers.principal import ask_who_is_there, let_everybody_in
from functions.backend.controllers.rate_limits import RateLimitMiddleware
from functions.backend.controllers.request_id import RequestIdMiddleware
from functions.backend.controllers.status import status_router
from functions.backend.controllers.traffic import UNROUTED, Traffic, TrafficMiddleware
from functions.backend.domain.prompt import PromptLimits
from functions.backend.settings import Settings, is_loopback
from functions.backend.telemetry.request_log import RequestLog
from functions.backend.telemetry.tracing import begin_tracing, end_tracing

_log = logging.getLogger(__name__)

MAX_BODY_BYTES = 1_000_000
BODY_WITHIN_S = 30.0
# With the streams' grace and the last spans, it must be over when a container is killed, ten seconds after SIGTERM.
ENDS_WITHIN_S = 2.0
# Where an error is counted from 0 on, for a rate needs its zero: where text is asked for, and where no route was found.
COUNTED_ROUTES = ("/api/llm/generate", "/api/llm/stream", "/v1/chat/completions", "/v1/completions", UNROUTED)


def build_app(settings: Settings, gateway: LLMGateway | None = None) -> FastAPI:
    """Give the backend; without a gateway of the caller's own it asks the model service that the settings name."""
    # Nothing is connected here: that waits for the first call, for on Lambda the life span below never runs.
    auth = SigV4Auth(settings.aws_region, os.environ, partial(datetime.now, UTC)) if settings.signs else None
    over_http = HTTPLLMGateway(settings.llm_url, settings.llm_timeout_s, settings.llm_connect_timeout_s, auth)
    gateway = gateway or over_http
    llm_status = HTTPLLMStatus(settings.llm_url)
    traffic = Traffic()
    spans = begin_tracing("backend", wanted=settings.traces)
    store = key_store_named(settings.key_store, settings.aws_region, os.environ)
    authentication = Authentication(
        store, settings.session_secrets, settings.session_quota, settings.all_sessions_quota
    )
    metering = Metering(store, settings.llm_memory_mb, authentication.good_for)
    principal_of = ask_who_is_there(authentication) if settings.auth == "on" else let_everybody_in

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with _served_metrics(settings, traffic):
            yield
            await _last_ends(traffic, metering)
        await over_http.aclose()
        await llm_status.aclose()
        await store.aclose()
        await end_tracing(spans)

    # The interactive documentation of FastAPI loads its scripts from elsewhere; the document itself is enough.
    app = DocumentedAPI(
        asks=settings.auth == "on",
        title="Huginn",
        summary="Streams the tokens of recurrent language models",
        description=f"{SAID_OF_ROOTS}\n\n{REFUSED_EVERYWHERE}",
        version="1",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    answer = install_error_answers(
        app, {"/v1/chat": chat_shape, **dict.fromkeys(("/v1", "/tokenize", "/detokenize", "/models"), openai_shape)}
    )
    limits = PromptLimits(settings.max_prompt_tokens)
    stream = GenerateStream(gateway)
    text = GenerateText(gateway)
    # What a form on a page is for.
    short = replace(limits, characters=settings.max_prompt_chars)
    app.include_router(generate_router(stream, text, short, principal_of, metering, settings.request_timeout_s))
    app.include_router(models_router(gateway, principal_of))
    # Anybody may ask there, without a key: however often, the model is asked once a second.
    app.include_router(health_router(KeptAnswer(gateway.ready, time.time)))
    check_prompts = CheckPrompts(gateway)
    openai = OpenAISurface(
        GenerateChoices(text, check_prompts),
        StreamChoices(stream, check_prompts),
        gateway,
        limits,
        principal_of,
        metering,
        settings.request_timeout_s,
    )
    app.include_router(openai_models_router(openai))
    app.include_router(completions_router(openai))
    app.include_router(chat_router(openai))
    app.include_router(tokenization_router(HTTPTokenizerGateway(over_http), principal_of, metering, limits))
    if is_loopback(settings.host) and not settings.on_lambda:
        app.add_middleware(OwnNameMiddleware, answer=answer)
    app.add_middleware(Patience, patience_s=settings.reader_timeout_s)
    app.add_middleware(LastWords)
    app.add_middleware(ModelRootMiddleware)
    app.include_router(admin_router(store, principal_of))
    app.add_middleware(RateLimitMiddleware)
    app.add_middleware(BodyLimitMiddleware, max_bytes=MAX_BODY_BYTES, within_s=BODY_WITHIN_S)
    app.add_middleware(RequestLog, spans=spans)
    if settings.cors_origins:
        allow_origins(app, settings.cors_origins)
    app.add_middleware(RequestIdMiddleware)
    if not settings.on_lambda:
        # There, each answer may be another instance's, which knows of itself alone.
        app.include_router(status_router(ReadStatus(llm_status, time.monotonic), traffic, principal_of))
        app.add_middleware(TrafficMiddleware, traffic=traffic)
    return app


async def _last_ends(traffic: Traffic, metering: Metering) -> None:
    """Return when all requests are at their end, and what they have used is kept; after a while in any case.

    The server cancels what still runs, and asks for the life span's end at once: who was cancelled says his last words
    only now, and needs the store.
    """
    try:
        async with asyncio.timeout(ENDS_WITHIN_S):
            await traffic.idle()
            await metering.settled()
    except TimeoutError:
        _log.warning("stopping, though not all requests are at their end: what they have used may be lost")


def _served_metrics(settings: Settings, traffic: Traffic) -> AbstractContextManager[object]:
    if not settings.metrics_port or settings.on_lambda:
        return nullcontext()
    from functions.backend.metrics import MetricsServer, registry_of

    registry = registry_of(traffic, known_codes(), COUNTED_ROUTES)
    return MetricsServer(registry, settings.metrics_host, settings.metrics_port)
