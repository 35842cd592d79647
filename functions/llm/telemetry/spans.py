"""Requests as OpenTelemetry's spans, sent by OTLP; the library makes the messages and reads its own variables.

Importing this module needs the extra `telemetry`. Names by the semantic conventions:
https://opentelemetry.io/docs/specs/semconv/http/http-spans/, https://opentelemetry.io/docs/specs/semconv/gen-ai/
"""

import asyncio
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from functions.llm.telemetry.current import CurrentRequest
from functions.llm.telemetry.trace_context import TraceContext

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"})
_FLUSH_S = 2.0
# What is left when the last streams were given their time, and a container is about to be killed.
_STOP_S = 1.0


class _ChosenIds(IdGenerator):
    """Gives the ids that the log and the next tier know."""

    def __init__(self) -> None:
        self.trace = TraceContext("0" * 32, "0" * 16)

    def generate_span_id(self) -> int:
        return int(self.trace.span_id, 16)

    def generate_trace_id(self) -> int:
        return int(self.trace.trace_id, 16)


class Spans:
    """The spans of one tier's requests; a thread of its own sends them.

    Args:
        tier: names the service, where no variable does.
        environ: the resource's name, and whether this is AWS Lambda, whose processes are frozen between answers.
    """

    def __init__(self, tier: str, environ: Mapping[str, str] = os.environ) -> None:
        self._tier, self._environ = tier, environ
        self._ids = _ChosenIds()

    @cached_property
    def _exporter(self) -> SpanExporter:
        return OTLPSpanExporter()

    @cached_property
    def _provider(self) -> TracerProvider:
        # Not before the first request: processes that come out of one snapshot must not have one name.
        attributes = {"service.instance.id": str(uuid.uuid4())}
        if "OTEL_SERVICE_NAME" not in self._environ and "service.name=" not in self._environ.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        ):
            attributes["service.name"] = self._environ.get("AWS_LAMBDA_FUNCTION_NAME", f"huginn-{self._tier}")
        provider = TracerProvider(resource=Resource.create(attributes), id_generator=self._ids, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(self._exporter))
        return provider

    def begin(self, trace: TraceContext, scope: Mapping[str, Any]) -> Span:
        """Give the span of a request that has arrived, with the ids of ``trace``."""
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        attributes = {
            "http.request.method": method,
            "url.path": scope["path"],
            "url.scheme": scope.get("scheme", "http"),
            "network.protocol.version": scope.get("http_version", "1.1"),
        }
        if server := scope.get("server"):
            attributes |= {"server.address": server[0], "server.port": server[1]}
        # What follows is done by this thread at once, so that nobody else takes these ids.
        self._ids.trace = trace
        return self._provider.get_tracer("huginn").start_span(
            method,
            _context_of(trace),
            SpanKind.SERVER,
            {key: each for key, each in attributes.items() if each is not None},
        )

    async def end(
        self, span: Span, request: CurrentRequest, fields: Mapping[str, Any], scope: Mapping[str, Any]
    ) -> None:
        """End the span with what the request's line in the log tells."""
        if span.is_recording():
            route = getattr(scope.get("route"), "path", None)
            if route is not None:
                span.update_name(f"{fields['method']} {route}")
                span.set_attribute("http.route", route)
            span.set_attributes(_attributes(request, fields))
            for name, time_ns in request.moments:
                span.add_event(name, timestamp=time_ns)
            # A request that cannot be served is the client's failure, and none of this tier.
            if fields["status"] >= 500 or (fields["status"] < 400 and "error" in fields):
                span.set_status(StatusCode.ERROR)
        span.end(time.time_ns())
        if "AWS_LAMBDA_FUNCTION_NAME" in self._environ:
            await asyncio.to_thread(_done_within, _FLUSH_S, self._provider.force_flush)

    def stop(self) -> None:
        """Send what has not been sent; that it could not be is in the library's log.

        A collector that takes it and does not answer is left alone after a moment.
        """
        if "_provider" in self.__dict__ and not _done_within(_STOP_S, self._provider.shutdown):
            # It is not tried again after that, nor by a process that lives on.
            self._exporter.shutdown()


def _done_within(seconds: float, send: Callable[[], object]) -> bool:
    # The library has no limit for either; its own is that of each message, ten seconds.
    thread = threading.Thread(target=send, name="spans", daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


def _context_of(trace: TraceContext) -> Context:
    if trace.parent_id is None:
        return Context()
    parent = SpanContext(
        int(trace.trace_id, 16),
        int(trace.parent_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if trace.sampled else TraceFlags.DEFAULT),
        trace_state=TraceState.from_header([trace.state] if trace.state else []),
    )
    return set_span_in_context(NonRecordingSpan(parent), Context())


def _attributes(request: CurrentRequest, fields: Mapping[str, Any]) -> dict[str, Any]:
    attributes = {"http.response.status_code": fields["status"], "huginn.request_id": request.id}
    if "error" in fields or fields["status"] >= 500:
        attributes["error.type"] = fields.get("error", str(fields["status"]))
    if "model" in fields:
        attributes |= {"gen_ai.operation.name": "text_completion", "gen_ai.response.model": fields["model"]}
    for name, field in (("gen_ai.usage.input_tokens", "prompt_tokens"), ("gen_ai.usage.output_tokens", "tokens")):
        if field in fields:
            attributes[name] = fields[field]
    if "finish_reason" in fields:
        attributes["gen_ai.response.finish_reasons"] = [fields["finish_reason"]]
    return attributes
