"""A permit raced against the void door on a real PostgreSQL: never both."""

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from core.domain.context import Context
from core.domain.ids import mint_id
from core.domain.jobs import JobRow, mint_reference
from core.services.close_job import close_if_unsent
from core.services.permits import grant_permits
from core.services.rails import register
from core.store import attempts, facts, jobs, rails
from core.store.database import Database
from core.store.intents import IntentStore
from fleet.stack.provision import RoleUrls
from schemas.events import IntentState
from schemas.operations import JobKind, OperationType
from schemas.permits import Payee, PermitRequest
from schemas.rails import RailRegistration

RAIL = "testrail"
TENANT = UUID(int=7)


class _Ledger:
    async def apply(self, uow: Any, transfers: Any) -> list[str]:
        return ["ok" for _ in transfers]


class _Vault:
    async def open_instructions(self, uow: Any, sealed: Any) -> dict[UUID, tuple[Payee | None, str]]:
        return {item.intent_id: (None, "") for item in sealed}


class _Throttle:
    def throttled(self, rail: str) -> bool:
        return False


@dataclass
class _Ports:
    attempts: Any = attempts
    facts: Any = facts
    jobs: Any = jobs
    rails: Any = rails
    intents: Any = None
    ledger: Any = None
    vault: Any = None
    throttle: Any = None


async def test_a_permit_and_a_void_never_both_win(
    fresh_database: RoleUrls, admin_connection: asyncpg.Connection
) -> None:
    database = await Database.connect(fresh_database.worker, max_size=4)
    ports = _Ports(intents=IntentStore(), ledger=_Ledger(), vault=_Vault(), throttle=_Throttle())
    context = Context(None, "test")
    registration = RailRegistration.model_validate(
        {
            "rail": RAIL,
            "provider": "p",
            "provider_account": "a",
            "payee_types": {},
            "operations": {"PAYOUT": {"not_found_horizon_s": 120, "max_amount_minor": 10**9, "currencies": ["THB"]}},
            "timing": {"send_by_s": 5, "call_total_s": 10, "claim_idle_s": 60},
        }
    )
    async with database.unit_of_work(context) as uow:
        await register(uow, rails, registration)
    now = int(time.time() * 1000)
    intents = [mint_id(now) for _ in range(2_000)]
    await admin_connection.executemany(
        "INSERT INTO fleet.intents (id, tenant_id, service_key_id, operation, state, version, wallet_id, amount_minor,"
        " currency, accept_state, rail, provider, provider_account, environment)"
        " VALUES ($1, $2, 'k', 'PAYOUT', 'DISPATCHED', 1, $2, 100, 'THB', 'AUTHORIZED', 'testrail', 'p', 'a', 'sandbox')",
        [(intent_id, TENANT) for intent_id in intents],
    )
    deadline = datetime.now(UTC) + timedelta(hours=1)
    rows = [
        JobRow(mint_id(now), TENANT, intent_id, JobKind.PAY, OperationType.PAYOUT, RAIL, "p", "a", "sandbox",
               mint_reference(intent_id, 24), 100, "THB", deadline)
        for intent_id in intents
    ]  # fmt: skip
    async with database.unit_of_work(context) as uow:
        assert len(await jobs.insert_jobs(uow, rows)) == 2_000

    granted: set[UUID] = set()
    voided: set[UUID] = set()

    async def permit(ids: list[UUID]) -> None:
        request = PermitRequest(request_id=uuid4(), incarnation=uuid4(), job_ids=ids)
        async with database.unit_of_work(context) as uow:
            answers = await grant_permits(uow, ports, RAIL, "key", request)
        granted.update(answer.job_id for answer in answers if answer.answer == "GRANTED")

    async def void(ids: list[UUID]) -> None:
        async with database.unit_of_work(context) as uow:
            voided.update(await close_if_unsent(uow, ports, ids, to=IntentState.CANCELLED, type="cancelled"))

    ids = [row.id for row in rows]
    for start in range(0, 2_000, 40):
        part = ids[start : start + 40]
        calls = [permit(part[:30]), void(part[10:]), permit(part[20:]), void(part[:15])]
        await asyncio.gather(*(calls if start % 80 else reversed(calls)))
    await database.close()

    permitted = {row.intent_id for row in rows if row.id in granted}
    assert permitted
    assert voided
    assert permitted & voided == set()
    attempted = await admin_connection.fetchval("SELECT count(*) FROM fleet.attempts")
    assert attempted == len(granted)
