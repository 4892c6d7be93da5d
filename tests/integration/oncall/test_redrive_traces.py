"""A redriven job is a trace of its own, linked to the one in which the job died."""

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from core.services.on_call.redrives import ask_redrive
from core.services.on_call.run_redrives import run_redrives
from schemas.on_call import RedriveRequest
from tests.integration.oncall.conftest import bury
from tests.integration.oncall.test_redrives import FAST, person
from tests.integration.permits.conftest import World, pay_job
from wire.tracing import trace_into

FIRST = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
BODY = {"selection": {"error_class": "poison"}, "reason": "the gateway is back", "incident": "INC-1"} | FAST


async def redriven(world: World, traceparent: str | None) -> str | None:
    """Bury a payment of that trace and redrive it; return the trace that its job goes out in again."""
    intent = await world.pay(await world.wallet(1000))
    await bury(world, intent)
    await world.admin.execute("UPDATE fleet.jobs SET traceparent = $2 WHERE intent_id = $1", intent, traceparent)
    await ask_redrive(world.core.worker_ports, person(world, "anna"), RedriveRequest.model_validate(BODY))
    while await world.admin.fetchval("SELECT state FROM fleet.jobs WHERE intent_id = $1", intent) == "DEAD":
        await run_redrives(world.core.worker_ports, world.uow)
    found: str | None = await world.admin.fetchval(
        "SELECT traceparent FROM fleet.outbox WHERE job_id = $1 ORDER BY round DESC LIMIT 1", pay_job(intent)
    )
    return found


async def test_a_redrive_goes_on_in_a_trace_that_links_to_the_first(world: World) -> None:
    exporter = InMemorySpanExporter()
    end = trace_into("test", SimpleSpanProcessor(exporter))
    try:
        sent = await redriven(world, FIRST)
    finally:
        end()
    (span,) = exporter.get_finished_spans()
    context = span.get_span_context()
    assert context is not None
    assert (sent or "").startswith(f"00-{context.trace_id:032x}-{context.span_id:016x}-")
    assert [f"{link.context.trace_id:032x}-{link.context.span_id:016x}" for link in span.links] == [FIRST[3:52]]
    assert span.parent is None


async def test_without_a_collector_a_redrive_stays_in_its_first_trace(world: World) -> None:
    assert await redriven(world, FIRST) == FIRST
