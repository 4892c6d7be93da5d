"""A running system with something to do for the people of the console: 12 dead letters of a kind among many."""

import asyncio
import base64
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import asyncpg

from core.domain.context import Context
from core.domain.ids import derive_id
from core.domain.roles import Role
from core.services.access.people import PeopleService
from core.services.on_call.dead_letters import receive
from core.store.access.people import StoredPeople
from core.store.database import Database
from core.store.on_call.audit import AuditStore
from core.store.on_call.dead_letters import DeadLetterStore
from core.store.vault import PostgresVault
from fleet.client import FleetClient
from fleet.stack.profile import STANDARD
from fleet.stack.provision import with_database
from fleet.stack.stack import WORKER, Stack, StackPlan, running
from fleet.stack.tenant import TENANT
from schemas.api import IntentRequest, WalletRequest
from schemas.dead_letters import DeadLetter
from schemas.operations import JobKind, OperationType
from schemas.permits import Payee
from schemas.streams import jobs_stream

RAIL: Final = "noop"
KINDS: Final = {
    "gateway_envelope": "the gateway envelope could not be read",
    "settlement_window": "the settlement window was shut",
    "checksum_digit": "the checksum digit was missing",
    "routing_table": "the routing table was stale",
}
"""Kinds of dead letters that can be redriven, 12 of each, by their fingerprints."""
OF_ONE_KIND: Final = 12
PASSWORD: Final = "correct horse battery staple"  # noqa: S105 - of people who live as long as this system does
PEOPLE: Final = {"olga": Role.OPERATOR, "petra": Role.APPROVER, "victor": Role.VIEWER}

_OTHERS: Final = """
INSERT INTO fleet.dead_letters (id, tenant_id, stream, entry_id, rail, job_id, error_class, fingerprint, message,
    deliveries, body, operation, provider, reference, received_at)
SELECT gen_random_uuid(), $1, '{noop}:jobs', n || '-0', 'noop', gen_random_uuid(),
    (ARRAY['deliveries_exhausted', 'provider_timeout', 'malformed_answer'])[1 + n % 3], 'kind' || n % 50,
    'the provider said number ' || n % 50, 3, '', 'PAYOUT', 'noop', 'REF' || n, now() - n * interval '1 second'
FROM generate_series(1, $2) n
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """The system, and by kind the 12 payments whose jobs died."""

    stack: Stack
    payments: dict[str, list[UUID]]

    @property
    def url(self) -> str:
        """Return where the console is."""
        return self.stack.info.console_url


@asynccontextmanager
async def scene(home: Path, others: int) -> AsyncIterator[Scene]:
    """Run a system with people in it, 12 dead letters of each kind, and so many others."""
    plan = StackPlan(
        home,
        # Real timings: nobody has to hurry before the payments expire.
        profile=STANDARD,
        rails={RAIL: 1},
        console_port=0,
        core_env={"FLEET_REDRIVE_APPROVAL_ABOVE": "10"},
    )
    async with running(plan) as stack:
        database = await Database.connect(stack.info.database_url, max_size=2, application_name="scene")
        try:
            await _people(database)
            owner = await _owner_of(stack)
            try:
                await owner.execute(_OTHERS, TENANT, others)
                payments = await _dead_payments(stack, database)
                await owner.execute("ANALYZE fleet.dead_letters")
            finally:
                await owner.close()
        finally:
            await database.close()
        yield Scene(stack, payments)


async def until(look: Callable[[], Awaitable[object]], what: str, within_s: int = 60) -> None:
    """Wait until something is so. Raises TimeoutError naming it."""
    deadline = time.monotonic() + within_s
    while not await look():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {within_s} s")
        await asyncio.sleep(0.2)


async def _people(database: Database) -> None:
    unused = timedelta(0)
    service = PeopleService(database.unit_of_work, StoredPeople(), AuditStore(), idle=unused, longest=unused)
    for name, role in PEOPLE.items():
        await service.add("scene", name=name, role=role, password=PASSWORD)


async def _dead_payments(stack: Stack, database: Database) -> dict[str, list[UUID]]:
    """Make payments, and let their jobs die before any was sent, as an adapter gives them up."""
    info = stack.info
    async with FleetClient(info.public_url, info.key_id, info.key_secret) as client:
        wallet = (await client.create_wallet(WalletRequest(owner="shop", currency="THB"))).id
        fund = IntentRequest(
            operation=OperationType.MANUAL_ADJUSTMENT, wallet_id=wallet, amount_minor=10_000_000, currency="THB"
        )
        await client.create_intent(fund, idempotency_key=uuid4().hex)
        # Nothing is relayed while they die.
        worker = stack.supervisor.pid(WORKER)
        os.kill(worker, signal.SIGSTOP)
        try:
            payee = Payee(type="any", value="Somchai 0812345678")
            pay = IntentRequest(
                operation=OperationType.PAYOUT, wallet_id=wallet, amount_minor=12_500, currency="THB", payee=payee
            )
            made = {
                kind: [(await client.create_intent(pay, idempotency_key=uuid4().hex)).id for _ in range(OF_ONE_KIND)]
                for kind in KINDS
            }
            owner = await _owner_of(stack)
            try:
                await owner.execute("DELETE FROM fleet.outbox")
            finally:
                await owner.close()
            await _bury(database, base64.b64decode(info.master_key), made)
        finally:
            os.kill(worker, signal.SIGCONT)
    return made


async def _bury(database: Database, master_key: bytes, payments: dict[str, list[UUID]]) -> None:
    letters = [
        DeadLetter(
            job_id=derive_id(intent, "job", JobKind.PAY), rail=RAIL, stream=jobs_stream(RAIL),
            entry_id=f"0-{place + 1}", error_class="deliveries_exhausted", fingerprint=kind,
            message=KINDS[kind], deliveries=3,
            body='{"amount_minor":12500,"currency":"THB"}',
        )
        for place, (kind, intent) in enumerate((kind, intent) for kind in payments for intent in payments[kind])
    ]  # fmt: skip
    async with database.unit_of_work(Context(None, "scene")) as uow:
        await receive(uow, DeadLetterStore(PostgresVault(master_key)), letters)


async def _owner_of(stack: Stack) -> asyncpg.Connection:
    if stack.postgres is None:
        raise RuntimeError("the scene needs the embedded PostgreSQL: unset DATABASE_URL")
    return await asyncpg.connect(with_database(stack.postgres.admin_url, stack.plan.database_name))
