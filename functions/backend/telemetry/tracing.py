"""Whether the environment asks for spans, by OpenTelemetry's own variables; nothing of it is imported otherwise."""

import asyncio
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from functions.backend.telemetry.spans import Spans


class TracingError(ValueError):
    """Spans are asked for, and cannot be sent; the message names the variable and the way out."""


def asks_for(environ: Mapping[str, str], signal: str) -> str | None:
    """Give the variable that asks for a signal, TRACES or METRICS, to be sent by OTLP; None if it is not to be."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get(f"OTEL_{signal}_EXPORTER") == "none":
        return None
    names = (f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return next((name for name in names if environ.get(name)), None)


def traces_wanted(environ: Mapping[str, str]) -> bool:
    """Say whether requests are to be sent as spans.

    Raises:
        TracingError: they are, and the library is not installed.
    """
    asked_by = asks_for(environ, "TRACES")
    if asked_by is None:
        return False
    if not _is_installed():
        raise TracingError(
            f"{asked_by} is set, and the library that sends spans is not installed; install huginn[telemetry] or, for "
            "an image, build it with --build-arg ALSO=telemetry; or unset the variable."
        )
    return True


def begin_tracing(tier: str, *, wanted: bool) -> "Spans | None":
    """Give what makes spans of requests; None if nobody wants them."""
    if not wanted:
        return None
    from functions.backend.telemetry.spans import Spans

    return Spans(tier)


async def end_tracing(spans: "Spans | None") -> None:
    """Send what has not been sent."""
    if spans is not None:
        await asyncio.to_thread(spans.stop)


def _is_installed() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http.trace_exporter") is not None
    except ModuleNotFoundError:
        return False
