"""A permit raced against the void door on a real PostgreSQL: never both."""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from core.domain.context import Context
from core.domain.ids import mint_id
from core.domain.jobs import JobRow, mint_reference
from core.domain.redrive import Redrive
from core.domain.resolution import Pace
from core.services.on_call.dead_letters import LetterFilter
from core.services.settling.close_job import close_if_unsent
from core.services.settling.permits import grant_permits
from core.services.settling.rails import register
from core.services.settling.resolve import ResolverMemory, resolve_due
from core.services.settling.settle import Delivery, settle_batch
from core.services.terms.limits import LimitBook
from core.store.database import Database
from core.store.on_call.dead_letters import DeadLetterStore
from core.store.payments.intents import IntentStore
from core.store.settling import attempts, claims, facts, jobs, rails
from core.store.terms.limits import LimitStore
from fleet.stack.provision import RoleUrls
from schemas.events import IntentState
from schemas.operations import JobKind, OperationType
from schemas.permits import Payee, PermitRequest
from schemas.rails import RailRegistration
from schemas.results import Result

RAIL = "testrail"
TENANT = UUID(int=7)
_PACE = Pace(5.0, 2700.0)


class _Ledger:
    async def apply(self, uow: Any, transfers: Any) -> list[str]:
        return ["ok" for _ in transfers]


class _Vault:
    def open_instructions(self, sealed: Any) -> dict[UUID, tuple[Payee | None, str]]:
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
    limits: LimitBook = field(default_factory=lambda: LimitBook(LimitStore()))
    intents: Any = None
    ledger: Any = None
    vault: Any = None
    throttle: Any = None
    letters: Any = None
    claims: Any = claims
    pace: Any = _PACE
    shared_faults: tuple[type[Exception], ...] = (OSError,)


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
        " VALUES ($1, $2, 'k', 'PAYOUT', 'DISPATCHED', 1, $2, 100, 'THB', 'AUTHORIZED', 'testrail', 'p', 'a', 's')",
        [(intent_id, TENANT) for intent_id in intents],
    )
    deadline = datetime.now(UTC) + timedelta(hours=1)
    rows = [
        JobRow(mint_id(now), TENANT, intent_id, JobKind.PAY, OperationType.PAYOUT, RAIL, "p", "a", "sandbox",
               mint_reference(intent_id, 24), 100, "THB", deadline)
        for intent_id in intents
    ]  # fmt: skip
    async with database.unit_of_work(context) as uow:
        await jobs.insert_jobs(uow, rows)

    granted: set[UUID] = set()
    voided: set[UUID] = set()

    async def permit(ids: list[UUID]) -> None:
        request = PermitRequest(request_id=uuid4(), incarnation=uuid4(), job_ids=ids)
        answers = await grant_permits(partial(database.unit_of_work, context), ports, RAIL, "key", request)
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


class _Seal:
    def seal_bytes(self, plain: bytes, *, bound_to: str) -> bytes:
        return plain

    def open_bytes(self, ciphertext: bytes, *, bound_to: str) -> bytes:
        return ciphertext


def _registration() -> RailRegistration:
    return RailRegistration.model_validate(
        {
            "rail": RAIL,
            "provider": "p",
            "provider_account": "a",
            "payee_types": {},
            "operations": {
                "PAYOUT": {
                    "not_found_horizon_s": 120, "max_amount_minor": 10**9, "currencies": ["THB"], "inquiry": True
                }
            },
            "timing": {"send_by_s": 5, "call_total_s": 10, "claim_idle_s": 60},
        }
    )  # fmt: skip


async def test_facts_settle_retry_wait_and_become_dead_letters(
    fresh_database: RoleUrls, admin_connection: asyncpg.Connection
) -> None:
    database = await Database.connect(fresh_database.worker, max_size=4)
    ports: Any = _Ports(intents=IntentStore(), ledger=_Ledger(), vault=_Vault(), throttle=_Throttle())
    letters = DeadLetterStore(_Seal())  # type: ignore[arg-type]
    ports.letters = letters
    context = Context(None, "test")
    now = int(time.time() * 1000)
    deadline = datetime.now(UTC) + timedelta(hours=1)
    rows = []
    async with database.unit_of_work(context) as uow:
        await register(uow, rails, _registration())
        for _ in range(4):
            intent_id = mint_id(now)
            await admin_connection.execute(
                "INSERT INTO fleet.intents (id, tenant_id, service_key_id, operation, state, version, wallet_id,"
                " amount_minor, currency, accept_state, rail, provider, provider_account, environment) VALUES"
                " ($1, $2, 'k', 'PAYOUT', 'DISPATCHED', 1, $2, 100, 'THB', 'AUTHORIZED', 'testrail', 'p', 'a', 's')",
                intent_id,
                TENANT,
            )
            rows.append(
                JobRow(mint_id(now), TENANT, intent_id, JobKind.PAY, OperationType.PAYOUT, RAIL, "p", "a", "sandbox",
                       mint_reference(intent_id, 24), 100, "THB", deadline)
            )  # fmt: skip
        await jobs.insert_jobs(uow, rows)
    request = PermitRequest(request_id=uuid4(), incarnation=uuid4(), job_ids=[row.id for row in rows])
    for _ in range(2):  # the second time is a repeat of a lost reply: the same fences
        answers = await grant_permits(partial(database.unit_of_work, context), ports, RAIL, "key", request)
        assert [getattr(answer, "fence", None) for answer in answers] == [1, 1, 1, 1]

    def told(row: JobRow, verdict: str, entry: str, **more: Any) -> Delivery:
        result = Result.model_validate(
            {"job_id": row.id, "rail": RAIL, "kind": "pay", "fence": 1, "verdict": verdict, "basis": "SUBMISSION",
             "observed_at": deadline} | more
        )  # fmt: skip
        return Delivery(RAIL, "{testrail}:results", entry, result.model_dump_json(), result=result)

    batch = [
        told(rows[0], "SUCCEEDED", "1-0", amount_minor=100, currency="THB"),
        told(rows[0], "SUCCEEDED", "2-0", amount_minor=100, currency="THB"),
        told(rows[1], "DECLINED", "3-0", reason="refused"),
        told(rows[2], "UNKNOWN", "4-0"),
        told(rows[3], "NOT_SENT", "5-0", retry_after_s=2),
        told(rows[3], "SUCCEEDED", "6-0", fence=9),
        Delivery(RAIL, "{testrail}:results", "7-0", "no json", error="unparseable"),
    ]
    for _ in range(2):  # a replay after a lost ack changes nothing
        settled = await settle_batch(ports, lambda: database.unit_of_work(context), batch)
        assert [error for _, error in settled.unusable] == ["unparseable", "attempt_missing"]
    states = await admin_connection.fetch("SELECT state FROM fleet.intents ORDER BY id")
    assert sorted(row["state"] for row in states) == ["DISPATCHED", "DISPATCHED", "FAILED", "SETTLED"]
    found = {row["id"]: row["state"] for row in await admin_connection.fetch("SELECT id, state FROM fleet.jobs")}
    assert [found[row.id] for row in rows] == ["CLOSED", "CLOSED", "WAITING", "READY"]
    assert await admin_connection.fetchval("SELECT count(*) FROM fleet.dead_letters") == 2
    async with database.unit_of_work(context) as uow:
        assert await facts.unapplied_positives(uow, [row.intent_id for row in rows]) == {rows[3].intent_id}
    await admin_connection.execute("UPDATE fleet.jobs SET next_check_at = now() WHERE state = 'WAITING'")
    memory = ResolverMemory(100)
    assert await resolve_due(ports, lambda: database.unit_of_work(context), memory, 100) == 1
    assert await admin_connection.fetchval("SELECT count(*) FROM fleet.jobs WHERE kind = 'inquire'") == 1
    async with database.unit_of_work(context) as uow:
        assert {view.verdict[0] for view in await letters.list_letters(uow, LetterFilter(), 9)} <= set(Redrive)
    await database.close()
