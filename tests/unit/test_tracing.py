"""Traces cost nothing where nobody wants them, and say nothing that they must not."""

import subprocess
import sys
import time

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from wire import tracing

_LOOK = """
import sys
import adapters.promptpay.__main__, core.__main__
from wire.tracing import is_on, start_tracing
start_tracing("test")()
assert not is_on()
print(sorted(name for name in sys.modules if name.startswith("opentelemetry.sdk.trace") or "otlp" in name))
"""


def test_without_an_endpoint_no_process_even_imports_the_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    done = subprocess.run([sys.executable, "-c", _LOOK], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_a_payment_asks_of_traces_that_are_off_is_a_few_calls() -> None:
    """Every step of a payment: two jobs, each published, worked, permitted, called, published and settled."""
    assert tracing.begin_each("publish job", "PRODUCER", ["x"] * 500, [{}] * 500) == []
    began_s = time.thread_time()
    for _ in range(10_000):
        traced = tracing.begin("promptpay pay", "CONSUMER", "")
        traced.child("provider submit", "CLIENT", 0.1)
        traced.end()
    spent_us = (time.thread_time() - began_s) * 1e6 / 10_000
    assert spent_us < 20, "a payment costs some 300 us in all: this is far below what can be measured there"


def test_an_error_is_told_by_its_class_and_never_by_its_text() -> None:
    exporter = InMemorySpanExporter()
    end = tracing.trace_into("test", SimpleSpanProcessor(exporter))
    try:
        with pytest.raises(ValueError, match="Somchai"), tracing.begin("settle", "CONSUMER", None, {"job_id": "1"}):
            raise ValueError("payee Somchai is odd")
    finally:
        end()
    (span,) = exporter.get_finished_spans()
    assert "Somchai" not in span.to_json()
    assert (span.status.description, dict(span.attributes or {})) == ("ValueError", {"fleet.job_id": "1"})


def test_a_parent_that_is_none_begins_a_trace_and_garbage_is_no_parent() -> None:
    exporter = InMemorySpanExporter()
    end = tracing.trace_into("test", SimpleSpanProcessor(exporter))
    try:
        for parent in (None, "", "00-nonsense", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"):
            tracing.begin("x", "INTERNAL", parent).end()
    finally:
        end()
    *roots, child = exporter.get_finished_spans()
    assert [span.parent for span in roots] == [None] * 3
    assert child.parent is not None
    assert f"{child.parent.trace_id:032x}" == "4bf92f3577b34da6a3ce929d0e0e4736"
