"""Payouts of a rail that the small core of tests knows, and what its adapter told of them."""

import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from redis.asyncio import Redis

from adapters.runtime.port import Rail
from adapters.testkit.permit_server import PermitServer
from schemas.ids import mint_id
from schemas.jobs import Job
from schemas.operations import JobKind, OperationType
from schemas.permits import LookupBinding, Payee
from schemas.results import Result
from schemas.streams import results_stream

AMOUNT_MINOR: Final = 2_500
"""What each of these payouts is about."""


class Pays(Protocol):
    """What a rail's harness needs for a payout by way of the streams."""

    rail: Rail
    payee: Payee
    currency: str

    async def prepare(self, amount_minor: int) -> LookupBinding | None:
        """Return the lookup that a payment of this amount needs, if the rail has lookups."""
        ...

    async def paid(self, reference: str) -> list[int]:
        """Return the amounts that the provider's own book shows as paid under the reference."""
        ...


def payout(harness: Pays) -> Job:
    """Return a payout as the core dispatches it."""
    registration, now = harness.rail.registration(), datetime.now(UTC)
    return Job(
        job_id=mint_id(time.time_ns() // 1_000_000),
        tenant_id=uuid.uuid4(),
        intent_id=uuid.uuid4(),
        rail=registration.rail,
        provider=registration.provider,
        operation=OperationType.PAYOUT,
        kind=JobKind.PAY,
        amount_minor=AMOUNT_MINOR,
        currency=harness.currency,
        deadline=now + timedelta(minutes=5),
    )


def new_reference(harness: Pays) -> str:
    """Return a reference that the provider never saw, as long as the rail's shortest."""
    operations = harness.rail.registration().operations.values()
    return f"CERT{uuid.uuid4().hex.upper()}"[: min(each.reference_length for each in operations)]


async def make_known(harness: Pays, core: PermitServer, job: Job, reference: str) -> None:
    """Let the core grant permits for the job: each under this reference, with what the rail needs to pay."""
    registration, lookup = harness.rail.registration(), await harness.prepare(AMOUNT_MINOR)
    instruction: dict[str, Any] = {"payee": harness.payee.model_dump(mode="json"), "message": "conformance"}
    if lookup is not None:
        instruction["lookup"] = lookup.model_dump(mode="json")
    core.know(
        job,
        reference=reference,
        provider_account=registration.provider_account,
        environment=registration.environment,
        instruction=instruction,
    )


async def results_of(admin: Redis, rail: str) -> dict[uuid.UUID, Result]:
    """Return the last result of each job that the rail's stream carries."""
    entries: Any = await admin.xrange(results_stream(rail))
    told = [Result.model_validate_json(fields[b"body"]) for _, fields in entries]
    return {result.job_id: result for result in told}
