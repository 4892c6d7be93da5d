"""A core and a rail's own adapter with its provider, a step at a time: permit, call, verdict, settlement."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from adapters.runtime.core_client import CoreUnavailableError
from adapters.runtime.execution import Executor
from adapters.runtime.further import told_apart
from adapters.runtime.messages import result_of
from adapters.runtime.timing import clock_s
from core.api.internal import InternalPorts
from core.services.money_in.provider_payments import receive_payments
from core.services.settling.permits import grant_permits
from core.services.settling.rails import register
from core.services.settling.resolve import resolve_due
from core.services.settling.settle import Delivery, settle_batch
from core.store.settling import attempts, rails
from core.store.settling.evidence import EvidenceStore
from schemas.announced_returns import AnnouncedReturns
from schemas.collections import ProviderPaymentAnswers, ProviderPaymentBatch
from schemas.permits import PermitRequest
from schemas.rails import EvidenceItem
from schemas.results import Result
from tests.integration.permits.conftest import NeverThrottled, World, long_open


@dataclass(slots=True)
class DirectCore:
    """An adapter's way into the core, without the network between."""

    world: World
    rail: str
    away: bool = False

    async def post_evidence(self, items: Sequence[EvidenceItem]) -> None:
        if self.away:
            raise CoreUnavailableError("away")
        async with self.world.uow() as uow:
            await self.world.core.worker_ports.evidence.insert_evidence(
                uow, self.rail, [EvidenceItem(**dict(i)) for i in items]
            )

    async def post_payments(self, batch: ProviderPaymentBatch) -> ProviderPaymentAnswers:
        return await receive_payments(self.world.core.worker_ports, self.world.uow, self.rail, batch)

    async def tell(self, result: Result) -> None:
        stream = f"{{{self.rail}}}:results"
        delivery = Delivery(self.rail, stream, "1-0", result.model_dump_json(), result=result)
        await settle_batch(self.world.core.worker_ports, self.world.uow, [delivery])

    async def keep_evidence(self, item: EvidenceItem) -> UUID | None:
        await self.post_evidence([item])
        return item.id

    async def announce(self, told: AnnouncedReturns) -> None:
        async with self.world.uow() as uow:
            await self.world.core.worker_ports.announced.keep(uow, self.rail, told)


@dataclass(slots=True)
class AtWork:
    """The adapter of one rail."""

    core: DirectCore
    adapter: Any

    async def begin(self, *operations: str, currency: str) -> None:
        """Register the rail, and let these operations go over it."""
        world, registration = self.core.world, self.adapter.registration()
        world.memory.open_since |= long_open(self.core.rail)
        await world.admin.execute("DELETE FROM fleet.routes WHERE operation = ANY ($1::text[])", operations)
        await world.admin.execute(
            "INSERT INTO fleet.routes (tenant_id, operation, currency, rail, provider, provider_account)"
            " SELECT $1, operation, $2, $3, $4, $5 FROM unnest($6::text[]) AS operation",
            world.caller.tenant_id,
            currency,
            self.core.rail,
            registration.provider,
            registration.provider_account,
            operations,
        )
        async with world.uow() as uow:
            await register(uow, rails, registration)

    async def work(self, job_id: UUID) -> None:
        """Do one job as the adapter does: permit, call, verdict."""
        world, rail = self.core.world, self.core.rail
        vault = world.core.worker_ports.vault
        ports = InternalPorts(attempts, rails, vault, NeverThrottled(), EvidenceStore(vault))
        asked = PermitRequest(request_id=uuid4(), incarnation=uuid4(), job_ids=[job_id])
        (granted,) = await grant_permits(world.uow, ports, rail, "key", asked)
        assert granted.answer == "GRANTED", granted
        call_total_s = self.adapter.registration().timing.call_total_s
        executed = await Executor(self.adapter, rail, call_total_s).execute(granted, clock_s())
        executed = await told_apart(self.core, granted, executed)
        await self.core.tell(result_of(rail, granted, executed, None, uuid4(), datetime.now(UTC)))

    async def poll(self) -> None:
        """Let the resolver ask about everything that waits, and the adapter answer."""
        world = self.core.world
        await world.check_now()
        await resolve_due(world.core.worker_ports, world.uow, world.memory, 100)
        rows = await world.admin.fetch(
            "SELECT id FROM fleet.jobs WHERE kind IN ('inquire', 'cancel') AND closed_at IS NULL ORDER BY id"
        )
        for row in rows:
            await self.work(row["id"])
