"""One payment over the real processes is one trace at a collector, and nothing in it names the payee."""

import tempfile
from pathlib import Path
from uuid import uuid4

from core.store.database import Database
from fleet.client import FleetClient
from fleet.demo.payments_file import PaymentLine
from fleet.demo.runner import run_payments
from fleet.stack.stack import StackPlan, running
from tests.support.otlp import Span, collecting

PAYEE, MESSAGE = "0812345678", "canary rent of Somchai"
API, WORKER, ADAPTER = "core-api", "core-worker", "promptpay-1"


def shape_of(spans: list[Span]) -> set[tuple[str, str, str]]:
    """Return name, process and the parent's name of every span."""
    names = {span.span_id: span.name for span in spans}
    return {(span.name, span.process, names.get(span.parent_id, span.parent_id)) for span in spans}


def below(name: str) -> set[tuple[str, str, str]]:
    """Return what one job leaves behind: published, permitted, called, settled."""
    job = f"promptpay {name}"
    called = "provider lookup" if name == "lookup" else "provider submit"
    return {
        ("publish job", WORKER, "POST request"),
        (job, ADAPTER, "publish job"),
        ("permit", ADAPTER, job),
        (called, ADAPTER, job),
        ("settle", WORKER, job),
    }


async def test_one_payment_is_one_trace_from_the_request_to_its_settlement() -> None:
    with collecting() as collector, tempfile.TemporaryDirectory(prefix="fleet-trace-") as home:
        export = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "200"}
        plan = StackPlan(Path(home), rails={"promptpay": 1}, core_env=export, adapter_env=export)
        async with running(plan) as stack:
            info = stack.info
            database = await Database.connect(info.database_url, max_size=2)
            async with FleetClient(info.public_url, info.key_id, info.key_secret) as client:
                one = PaymentLine(
                    line=1, reference=f"trace-{uuid4().hex[:8]}", wallet="wallet-0", payee_type="mobile", payee=PAYEE,
                    amount_minor=4321, currency="THB", message=MESSAGE,
                )  # fmt: skip
                run = await run_payments(
                    client,
                    database,
                    [one],
                    opening_balance="1000.00",
                    wait_s=40,
                    progress=lambda _: None,
                    pay_in=stack.pay_in,
                )
            assert run.ends["SETTLED"] == 1
            async with database.acquire() as connection:
                (intent_id,) = run.accepted
                traceparent = await connection.fetchval(
                    "SELECT traceparent FROM fleet.intents WHERE id = $1", intent_id
                )
            await database.close()
        spans = collector.of_trace(traceparent[3:35])
        # The request's own span is the root: whoever pays by hand sends no trace of their own.
        root = {("POST request", API, "")}
        assert shape_of(spans) == root | below("lookup") | below("pay")
        told = {span.attributes["fleet.intent_id"] for span in spans if span.name.startswith("promptpay ")}
        assert told == {str(intent_id)}
        batches = [span for span in collector.spans if traceparent[3:35] in span.links]
        assert batches, "FastStream's own span of a batch links to what it carried"
        assert {span.process for span in batches} == {WORKER, ADAPTER}
        exported = b"".join(collector.raw)
        assert not [secret for secret in (PAYEE, MESSAGE, "4321") if secret.encode() in exported]
