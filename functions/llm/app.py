"""The llm function as an ASGI app: all wiring, in one place."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from fastapi import FastAPI

from functions.llm.controllers.errors import HANDLERS, InternalErrors, known_codes
from functions.llm.controllers.generate import generate_router
from functions.llm.controllers.health import health_router
from functions.llm.controllers.last_words import LastWords
from functions.llm.controllers.models import models_router
from functions.llm.controllers.own_name import OwnName
from functions.llm.controllers.request_id import RequestIds
from functions.llm.controllers.status import status_router
from functions.llm.controllers.tokenizer import tokenizer_router
from functions.llm.emf import EmfLog, FlushAfterAnswer
from functions.llm.inference.engine import Engine
from functions.llm.inference.prompt_cache import PromptCache
from functions.llm.inference.sampling import MAX_SEED
from functions.llm.inference.warm_up import DefaultModel
from functions.llm.metrics import Metrics, MetricsServer
from functions.llm.served_first import default_model
from functions.llm.settings import Settings, SettingsError
from functions.llm.telemetry.request_log import RequestLog
from functions.llm.telemetry.tracing import begin_tracing, end_tracing

if TYPE_CHECKING:
    from functions.llm.otlp import OtlpExport

# The container gives streams 7 s to end, and is killed after 10: what is being computed or compiled has this much of
# the rest, and the last spans and metrics after it as much again.
STOP_WITHIN_S = 1.0


def build_app(settings: Settings, default: DefaultModel | None = None) -> FastAPI:
    """Return the app; its lifespan loads the first model and serves the metrics, and without one both wait.

    Args:
        settings: what the environment decides.
        default: the model that is served first, if somebody has begun to load it already.
    """
    metrics = Metrics(
        slots=settings.max_active,
        max_queue=settings.max_queue,
        watts_per_cpu=settings.watts_per_cpu,
        refusals=known_codes(),
    )
    default = default or default_model(settings)
    store = default.store
    store.observe(metrics)
    cache = PromptCache(settings.prompt_cache_bytes, metrics)
    engine = Engine(max_queue=settings.max_queue, max_active=settings.max_active, cache=cache, observer=metrics)

    otlp = _otlp_export(settings, metrics) if settings.otlp else None
    spans = begin_tracing("llm", wanted=settings.traces)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        # On Lambda, whose processes are frozen between answers, the metrics go out at the end of each.
        sending = None if settings.lambda_name else otlp
        with MetricsServer(metrics, settings.metrics_host, settings.metrics_port):
            if sending is not None:
                sending.begin()
            default.begin()
            if settings.snap_start:
                # What is compiled now is in the snapshot, and no process that comes out of it waits for a compiler.
                await asyncio.to_thread(default.complete)
            yield
            in_time = time.monotonic() + STOP_WITHIN_S
            await asyncio.to_thread(engine.stop, STOP_WITHIN_S)
            await asyncio.to_thread(default.stop, max(0.0, in_time - time.monotonic()))
            # Side by side, for a collector may take both and never answer.
            await asyncio.gather(end_tracing(spans), _end_export(sending))

    app = FastAPI(
        title="Huginn llm",
        summary="Text from recurrent language models.",
        lifespan=lifespan,
        # Their pages load scripts from elsewhere; the document itself is at /openapi.json.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    draw_seed = partial(secrets.randbelow, MAX_SEED + 1)
    app.include_router(
        generate_router(
            store,
            engine,
            metrics,
            draw_seed,
            settings.request_timeout_s,
            settings.max_prompt_tokens,
            settings.reader_timeout_s,
        )
    )
    app.include_router(models_router(store))
    app.include_router(tokenizer_router(store, settings.max_prompt_tokens, settings.request_timeout_s))
    app.include_router(health_router(default))
    if settings.lambda_name is None:
        # There, an instance that is asked for the status may be another one each time, and knows of itself alone.
        app.include_router(status_router(metrics.registry))
    for error, handler in HANDLERS.items():
        app.add_exception_handler(error, handler)
    app.add_middleware(LastWords)
    app.add_middleware(InternalErrors)
    app.add_middleware(OwnName, wanted=settings.own_names_alone)
    app.add_middleware(RequestLog, spans=spans)
    app.add_middleware(RequestIds)
    if settings.lambda_name is not None:
        log = EmfLog(metrics.registry, settings.lambda_name, time.time, partial(print, end="", flush=True))
        app.add_middleware(FlushAfterAnswer, flush=log.flush)
        if otlp is not None:
            app.add_middleware(FlushAfterAnswer, flush=otlp.send_if_due, in_thread=True)
    return app


async def _end_export(otlp: "OtlpExport | None") -> None:
    if otlp is not None:
        await asyncio.to_thread(otlp.stop)


def _otlp_export(settings: Settings, metrics: Metrics) -> "OtlpExport":
    try:
        from functions.llm.otlp import OtlpExport
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"OTEL_EXPORTER_OTLP_ENDPOINT is set, and {error.name} is not installed; install huginn[telemetry] or, for "
            "an image, build it with --build-arg ALSO=telemetry; or unset the variable."
        ) from error
    return OtlpExport(metrics.registry, time.time_ns, settings.otlp_interval_ms / 1000)
