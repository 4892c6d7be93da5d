"""A core without its listeners: real PostgreSQL, real ledger, real vault; the tests play adapter and provider."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from core.api.internal import InternalPorts
from core.bootstrap import Core
from core.domain.context import Context
from core.domain.ids import derive_id
from core.domain.ledger import AccountBalance
from core.services.access.keys import Caller
from core.services.settling.close_job import ResolutionRefusedError
from core.services.settling.permits import grant_permits
from core.services.settling.rails import register
from core.services.settling.resolve import ResolverMemory, resolve_due
from core.services.settling.settle import Delivery, Settled, settle_batch
from core.services.wallets.histories import EntryFilter, read_history
from core.store.database import UnitOfWork
from core.store.settling import attempts, rails
from core.store.settling.evidence import EvidenceStore
from fleet.stack.provision import RoleUrls
from schemas.api import IntentRequest, WalletEntry, WalletRequest
from schemas.operations import JobKind, OperationType
from schemas.permits import PermitRequest
from schemas.rails import EvidenceItem, RailRegistration
from schemas.results import Result
from tests.support.event_log import prove_events
from tests.support.warm_sessions import warm_core, warm_settings

RAIL = "testrail"
I_S, H_S = 60, 120


_DEBITS = ["DIRECT_DEBIT"]


class NeverThrottled:
    """A results stream with room."""

    def throttled(self, rail: str) -> bool:
        return False


@dataclass(slots=True)
class World:
    """What a test acts through; times pass by moving the stored ones back."""

    core: Core
    admin: asyncpg.Connection
    caller: Caller
    memory: ResolverMemory
    numbers: Any = field(default_factory=lambda: count(1))

    def uow(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """Open a transaction as background work does."""
        return self.core.worker_database.unit_of_work(Context(None, "test"))

    async def register(
        self, account: str = "main", also: Sequence[str] = (), environment: str = "sandbox", **capabilities: Any
    ) -> None:
        """Register the rail for payouts, and `also` other operations, with these capabilities beside the least ones."""
        base = {"not_found_horizon_s": H_S, "max_amount_minor": 10**9, "currencies": ["THB"]}
        body = {
            "rail": RAIL,
            "provider": "p",
            "provider_account": account,
            "environment": environment,
            "payee_types": {
                "mobile": {"pattern": "0[0-9]{9}", "example": "0812345678", "remedy": "ten digits"},
                "mandate": {"pattern": "[^;]+(;[^;]+){4}", "example": "M;D;S;A;N", "remedy": "", "operations": _DEBITS},
            },
            "operations": dict.fromkeys(("PAYOUT", *also), base | capabilities),
            "timing": {"send_by_s": 5, "call_total_s": 10, "claim_idle_s": I_S},
        }
        async with self.uow() as uow:
            await register(uow, rails, RailRegistration.model_validate(body))

    def forget_terms(self) -> None:
        """Do to what the core remembers of routes and fee rules what a second does."""
        self.core.ports.routes._routes.clear()
        self.core.ports.fees._kept.clear()

    async def wallet(self, amount_minor: int) -> UUID:
        """Open a wallet that holds this much."""
        view, _ = await self.core.wallets.create(self.caller, WalletRequest(owner="anna", currency="THB"))
        await self._accept({"operation": "MANUAL_ADJUSTMENT", "wallet_id": view.id, "amount_minor": amount_minor})
        return view.id

    def callers(self, count: int) -> list[Caller]:
        """Return callers with a key each, hence transactions of their own; requests of one key share one."""
        return [replace(self.caller, key_id=f"key-{n}") for n in range(count)]

    async def pay(self, wallet_id: UUID, amount_minor: int = 100, *, caller: Caller | None = None, **more: Any) -> UUID:
        """Ask for a payout; return the intent."""
        payee = {"type": "mobile", "value": "0812345678"}
        asked = {"operation": "PAYOUT", "wallet_id": wallet_id, "amount_minor": amount_minor, "payee": payee}
        return await self._accept(asked | more, caller)

    async def _accept(self, asked: dict[str, object], caller: Caller | None = None) -> UUID:
        request = IntentRequest.model_validate({"currency": "THB"} | asked)
        accepted = await self.core.accept.accept(caller or self.caller, f"key-{next(self.numbers)}", request)
        return accepted.intent.id

    async def ask(
        self,
        ids: Sequence[UUID],
        request: UUID | None = None,
        incarnation: UUID | None = None,
        serves: frozenset[UUID] | None = None,
    ) -> list[Any]:
        """Ask permits for jobs, as the rail's adapter does."""
        vault = self.core.worker_ports.vault
        ports = InternalPorts(attempts, rails, vault, NeverThrottled(), EvidenceStore(vault))
        asked = PermitRequest(request_id=request or uuid4(), incarnation=incarnation or uuid4(), job_ids=list(ids))
        return await grant_permits(self.uow, ports, RAIL, "key", asked, serves)

    async def sent(self, intent_id: UUID) -> Any:
        """Give the payment its permit, whatever was given before has run out; return the permit."""
        await self.admin.execute("UPDATE fleet.jobs SET busy_until = now() WHERE intent_id = $1", intent_id)
        (answer,) = await self.ask([pay_job(intent_id)])
        assert answer.answer == "GRANTED", answer
        return answer

    def fact(self, job_id: UUID, verdict: str, **more: Any) -> Delivery:
        """Return a result of the job as it comes from the stream."""
        base = {"job_id": job_id, "rail": RAIL, "kind": "pay", "fence": 1, "verdict": verdict, "basis": "SUBMISSION"}
        result = Result.model_validate(base | {"observed_at": datetime.now(UTC)} | more)
        entry_id = f"{next(self.numbers)}-0"
        return Delivery(RAIL, f"{{{RAIL}}}:results", entry_id, result.model_dump_json(), result=result)

    async def settle(self, *deliveries: Delivery) -> Settled:
        """Settle the batch as the settler does."""
        return await settle_batch(self.core.worker_ports, self.uow, deliveries)

    def losing(self, races: int) -> Callable[[], AbstractAsyncContextManager[UnitOfWork]]:
        """Return a maker of transactions of which the first ones lose a race at the ledger, whatever was done in them.

        What a wallet that spends, freezes or closes between a look at it and the ledger's own look comes to.
        """
        left = count(races, -1)

        @asynccontextmanager
        async def opened() -> AsyncIterator[UnitOfWork]:
            async with self.uow() as uow:
                yield uow
                if next(left) > 0:
                    raise ResolutionRefusedError("the ledger answered EXCEEDS_CREDITS")

        return opened

    async def tell(self, job_id: UUID, verdict: str, **more: Any) -> Settled:
        """Settle one result."""
        return await self.settle(self.fact(job_id, verdict, **more))

    async def answer_question(self, intent_id: UUID, verdict: str, kind: str = "inquire", **more: Any) -> Settled:
        """Answer the open inquiry or cancel of the intent."""
        rows = await self.admin.fetch(
            "SELECT id FROM fleet.jobs WHERE intent_id = $1 AND kind = $2 AND closed_at IS NULL", intent_id, kind
        )
        assert len(rows) == 1, rows
        return await self.tell(rows[0]["id"], verdict, kind=kind, fence=0, basis="REFERENCE_STATUS", **more)

    async def resolve(self) -> int:
        """Run one step of a resolver that has seen the rail open for long."""
        return await resolve_due(self.core.worker_ports, self.uow, self.memory, 100)

    async def pass_time(self, seconds: float) -> None:
        """Move every stored time of intents, jobs and permits into the past by this much."""
        span = f"interval '{seconds} seconds'"
        await self.admin.execute(
            f"UPDATE fleet.jobs SET deadline = deadline - {span}, busy_until = busy_until - {span},"
            f" first_granted_at = first_granted_at - {span}, next_check_at = next_check_at - {span},"
            f" not_before = not_before - {span}, created_at = created_at - {span};"
            f"UPDATE fleet.attempts SET granted_at = granted_at - {span};"
            f"UPDATE fleet.intents SET deadline = deadline - {span}"
        )

    async def check_now(self) -> None:
        """Make every scheduled check due."""
        await self.admin.execute("UPDATE fleet.jobs SET next_check_at = now() WHERE next_check_at IS NOT NULL")

    async def state(self, intent_id: UUID) -> tuple[str, str | None]:
        """Return state and reason of the failure."""
        row = await self.admin.fetchrow("SELECT state, failure_code FROM fleet.intents WHERE id = $1", intent_id)
        assert row is not None
        return row["state"], row["failure_code"]

    async def job(self, job_id: UUID) -> dict[str, Any]:
        """Return the row of a job, empty where there is none."""
        return dict(await self.admin.fetchrow("SELECT * FROM fleet.jobs WHERE id = $1", job_id) or {})

    async def balance(self, wallet_id: UUID) -> AccountBalance:
        """Return the wallet's balances."""
        async with self.uow() as uow:
            return (await self.core.worker_ports.ledger.lookup_accounts(uow, [wallet_id]))[wallet_id]

    async def money(self, wallet_id: UUID) -> tuple[int, int]:
        """Return what the wallet owns and what of it is held."""
        balance = await self.balance(wallet_id)
        return balance.posted_minor, balance.debits_pending_minor

    async def history(self, wallet_id: UUID) -> list[WalletEntry]:
        """Return the wallet's newest entries."""
        page = await read_history(self.core.ports, self.caller, wallet_id, EntryFilter(), None, 10)
        return list(page.items)

    async def alerts(self) -> list[tuple[str, str]]:
        """Return severity and kind of every alert."""
        rows = await self.admin.fetch("SELECT severity, kind FROM fleet.alerts ORDER BY raised_at, kind")
        return [(row["severity"], row["kind"]) for row in rows]

    async def keep_name(self, name: str) -> UUID:
        """Keep an evidence with a payee's name; return its id."""
        item = EvidenceItem(id=uuid4(), kind="lookup_answer", payee_name=name)
        async with self.uow() as uow:
            await self.core.worker_ports.evidence.insert_evidence(uow, RAIL, [item])
        return item.id

    async def prove(self) -> None:
        """Prove the ledger, that no intent ended with a hold or an open job left, and one event per change."""
        async with self.uow() as uow:
            report = await self.core.worker_ports.ledger.verify(uow)
        assert report.holds, report.discrepancies
        left = await self.admin.fetchval(
            "SELECT count(*) FROM fleet.jobs j JOIN fleet.intents i ON i.id = j.intent_id WHERE j.closed_at IS NULL"
            " AND i.state IN ('SETTLED', 'FAILED', 'CANCELLED', 'EXPIRED')"
        )
        assert left == 0
        held = await self.admin.fetchval(
            # The fees that a refund gives back are held from the accounts that got them.
            "SELECT coalesce(sum(amount_minor + fee_minor + CASE"
            " WHEN original_intent_id IS NULL OR direction = 'OUT' THEN 0 ELSE ("
            " SELECT coalesce(sum((leg->>'amount_minor')::bigint), 0) FROM jsonb_array_elements(fee_legs) leg"
            ") END), 0) FROM fleet.intents"
            " WHERE state IN ('REVIEW', 'AUTHORIZED', 'DISPATCHED', 'UNRESOLVED')"
            " AND (operation NOT IN ('TOPUP', 'DEPOSIT', 'DIRECT_DEBIT') OR direction = 'RELEASE')"
        )
        assert report.pending_minor == held
        await prove_events(self.admin)


def pay_job(intent_id: UUID) -> UUID:
    """Return the id of the intent's payment."""
    return derive_id(intent_id, "job", JobKind.PAY)


def lookup_job(intent_id: UUID) -> UUID:
    """Return the id of the intent's lookup."""
    return derive_id(intent_id, "job", JobKind.LOOKUP)


@pytest.fixture
async def world(fresh_database: RoleUrls, admin_connection: asyncpg.Connection) -> AsyncIterator[World]:
    """A core with a tenant and a route to the test's rail, which no adapter has registered yet."""
    async with open_world(fresh_database, admin_connection) as world:
        yield world


def long_open(rail: str) -> dict[tuple[str, str], datetime]:
    """What a resolver remembers that has seen every operation of the rail open for long."""
    return {(rail, str(each)): datetime(2026, 1, 1, tzinfo=UTC) for each in OperationType}


@asynccontextmanager
async def open_world(urls: RoleUrls, admin_connection: asyncpg.Connection) -> AsyncIterator[World]:
    """Open a world on a database of its own."""
    tenant = uuid4()
    await admin_connection.execute("INSERT INTO fleet.tenants (tenant_id, name) VALUES ($1, 'shop')", tenant)
    await admin_connection.execute(
        "INSERT INTO fleet.routes (tenant_id, operation, currency, rail, provider, provider_account)"
        " VALUES ($1, 'PAYOUT', 'THB', $2, 'p', 'main')",
        tenant,
        RAIL,
    )
    caller = Caller("key", tenant, "service", None, frozenset({"*", "MANUAL_ADJUSTMENT", "ADJUSTMENT_ALONE"}), None)
    async with warm_core(warm_settings(urls)) as core:
        yield World(
            core,
            admin_connection,
            caller,
            ResolverMemory(600, long_open(RAIL)),
        )
