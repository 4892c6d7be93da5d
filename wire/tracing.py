"""Traces by OpenTelemetry: one payment is one trace, from the request to what settled it.

Off, and then no span is made, nothing is imported and nothing is exported, unless `OTEL_EXPORTER_OTLP_ENDPOINT` (or
`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`) says where to. A trace travels as its W3C `traceparent`, in rows and in stream
entries, so a span is begun from that text and never from what happens to be current: batches hold many payments.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, Self

if TYPE_CHECKING:
    from types import TracebackType

    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.trace import Span, Tracer

Kind = Literal["SERVER", "CLIENT", "PRODUCER", "CONSUMER", "INTERNAL"]

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_EXPORT_TIMEOUT_S: Final = 3


class _Exporting:
    """What this process exports by: nothing, until it is told to."""

    tracer: "Tracer | None" = None
    provider: "TracerProvider | None" = None


_EXPORTING: Final = _Exporting()


def is_on() -> bool:
    """Whether spans are made. Ask first wherever a batch would be walked for them."""
    return _EXPORTING.tracer is not None


def start_tracing(process: str) -> Callable[[], None]:
    """Export this process's spans where the environment says so; return what to call at the end.

    A collector that is away costs spans, never a payment: they are sent from a thread, in batches, and dropped.
    """
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return lambda: None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return trace_into(process, BatchSpanProcessor(OTLPSpanExporter(timeout=_EXPORT_TIMEOUT_S)))


def trace_into(process: str, processor: "SpanProcessor") -> Callable[[], None]:
    """Make spans and hand them to a processor; return what ends that."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    resource = Resource.create({"service.name": "psp-fleet", "service.instance.id": process})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    _EXPORTING.tracer, _EXPORTING.provider = provider.get_tracer("psp-fleet"), provider

    def end() -> None:
        _EXPORTING.tracer = _EXPORTING.provider = None
        provider.shutdown()

    return end


def stream_middlewares() -> list[Any]:
    """Return FastStream's own middleware for traces; none while nothing is exported."""
    if _EXPORTING.provider is None:
        return []
    from faststream.redis.opentelemetry import RedisTelemetryMiddleware

    return [RedisTelemetryMiddleware(tracer_provider=_EXPORTING.provider)]


class Traced:
    """An open span; ended by `end` or at the end of a `with`. Where nothing is exported it does nothing."""

    __slots__ = ("_span",)

    def __init__(self, span: "Span | None") -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        """The span as the next one's parent; empty where nothing is exported."""
        if self._span is None:
            return ""
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def child(self, name: str, kind: Kind, elapsed_s: float, **attributes: str | int) -> None:
        """Tell of something inside that took so long and ended just now."""
        if self._span is not None:
            now_ns = time.time_ns()
            began_ns = now_ns - int(elapsed_s * 1e9)
            begin(name, kind, self.traceparent, attributes, began_ns=began_ns).end()

    def tell(self, **attributes: str | int) -> None:
        """Say more about it."""
        if self._span is not None:
            self._span.set_attributes({f"fleet.{key}": value for key, value in attributes.items()})

    def end(self, error: BaseException | None = None, **attributes: str | int) -> None:
        """End the span. An error is told by its class alone: its text may quote a payee."""
        if self._span is None:
            return
        self.tell(**attributes)
        if error is not None:
            from opentelemetry.trace import StatusCode

            self._span.set_status(StatusCode.ERROR, type(error).__name__)
        self._span.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: "TracebackType | None") -> None:
        self.end(error)


_OFF: Final = Traced(None)


def begin(
    name: str,
    kind: Kind,
    parent: str | None = None,
    attributes: Mapping[str, str | int] | None = None,
    *,
    links: Sequence[str] = (),
    began_ns: int | None = None,
) -> Traced:
    """Begin a span under a `traceparent`, or a trace of its own; `links` are others that it follows from.

    Attributes are named `fleet.…`: ids and words of closed lists, never a payee, an amount or a provider's raw text.
    """
    if (tracer := _EXPORTING.tracer) is None:
        return _OFF
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanKind, get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    def extracted(traceparent: str) -> Context:
        return TraceContextTextMapPropagator().extract({"traceparent": traceparent}, Context())

    others = [get_current_span(extracted(each)).get_span_context() for each in links if each]
    return Traced(
        tracer.start_span(
            name,
            extracted(parent) if parent else Context(),
            kind=SpanKind[kind],
            attributes={f"fleet.{key}": value for key, value in (attributes or {}).items()},
            links=[Link(other) for other in others if other.is_valid],
            start_time=began_ns,
        )
    )


def begin_each(name: str, kind: Kind, parents: Sequence[str | None], told: Sequence[Mapping[str, str]]) -> list[Traced]:
    """Begin a span for each of a batch; an empty list where nothing is exported."""
    if not is_on():
        return []
    return [begin(name, kind, parent, each) for parent, each in zip(parents, told, strict=True)]


def end_each(spans: Sequence[Traced], error: BaseException | None = None) -> None:
    """End the spans of a batch."""
    for span in spans:
        span.end(error)
