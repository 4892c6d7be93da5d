"""The core's processes: the use cases as they ship, each on a host that may die at any step."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from core.domain.context import Context
from core.domain.ids import derive_id
from core.domain.intents import IntentRow
from core.domain.resolution import Pace
from core.services.access.keys import Caller
from core.services.on_call.dead_letters import receive
from core.services.payments.authorize import authorize, new_job
from core.services.payments.cancel import cancel
from core.services.payments.confirm import confirm
from core.services.problems import Refusal
from core.services.settling.permits import grant_permits
from core.services.settling.resolve import ResolverMemory, resolve_due
from core.services.settling.settle import Delivery, settle_batch
from core.services.terms.limits import LimitBook
from core.services.vault_port import Plain
from schemas.api import ConfirmRequest
from schemas.dead_letters import DeadLetter
from schemas.events import IntentState
from schemas.operations import JobKind, OperationType
from schemas.permits import Payee, PermitAnswer, PermitRequest
from schemas.rails import EvidenceItem
from schemas.results import Result
from tests.simulation.database import ConnectionLostError, Database, DatabaseError, Transaction
from tests.simulation.hosts import Host
from tests.simulation.store_jobs import Attempts, Jobs, due_at, mark_dispatched, requeue_lost, take_due
from tests.simulation.store_payments import (
    ClaimStore,
    Evidence,
    Facts,
    Intents,
    Ledger,
    Letters,
    Limits,
    RailStore,
    Routes,
    Vault,
)
from tests.simulation.streams import Stream

RAIL = "simulated"
CONFIRM_WITHIN = timedelta(seconds=150)
CORE_IDLE_S = 20.0
"""After this long another settler claims what one has read."""


class Open:
    """The results stream is never above its high-water."""

    def throttled(self, rail: str) -> bool:
        """Never."""
        return False


@dataclass(frozen=True, slots=True)
class Ports:
    """What every use case works with, on one host."""

    unit_of_work: Callable[[Context], Transaction]
    pace: Pace = field(default_factory=lambda: Pace(8, 60))
    review_within: timedelta = timedelta(days=1)
    ledger: Any = field(default_factory=Ledger)
    intents: Any = field(default_factory=Intents)
    jobs: Any = field(default_factory=Jobs)
    attempts: Any = field(default_factory=Attempts)
    facts: Any = field(default_factory=Facts)
    claims: Any = field(default_factory=ClaimStore)
    rails: Any = field(default_factory=RailStore)
    letters: Any = field(default_factory=Letters)
    evidence: Any = field(default_factory=Evidence)
    vault: Any = field(default_factory=Vault)
    routes: Any = field(default_factory=lambda: Routes(RAIL))
    fee_rules: Any = None
    quotes: Any = None
    tenants: Any = None
    collections: Any = None
    doubts: Any = None
    limits: LimitBook = field(default_factory=lambda: LimitBook(Limits()))
    throttle: Any = field(default_factory=Open)
    shared_faults: tuple[type[Exception], ...] = (DatabaseError,)


def ports_of(database: Database, host: Host) -> Ports:
    """Wire the use cases of one host to the database."""
    return Ports(lambda context: Transaction(database, host, context))


@dataclass(slots=True)
class Bus:
    """The streams of the rail."""

    jobs: Stream
    control: Stream
    results: Stream
    dead: Stream

    def of(self, name: str) -> Stream:
        """Return the stream that a job row names."""
        return self.control if name.endswith("control") else self.jobs


class Api:
    """What clients and adapters call. Every call is one transaction or more, under the caller's own timing."""

    def __init__(self, ports: Ports, database: Database, host: Host) -> None:
        self._ports, self._database, self._host = ports, database, host
        self.away = False

    async def permits(self, asked: PermitRequest) -> list[PermitAnswer]:
        """Grant permits. Raises DatabaseError."""
        await self._reach()
        return await grant_permits(
            lambda: self._ports.unit_of_work(Context(None, "rail")), self._ports, RAIL, "key", asked
        )

    async def keep_evidence(self, item: EvidenceItem) -> None:
        """Keep the name of an answer. Raises DatabaseError."""
        await self._reach()
        async with self._ports.unit_of_work(Context(None, "rail")) as uow:
            await uow.step()
            uow.put("evidence", item.id, item.payee_name or "")

    async def accept(self, caller: Caller, key: str, row: IntentRow, payee: Payee, *, lookup: bool) -> IntentRow:
        """Accept a payment under its key, once: as AcceptService does, one request at a time."""
        await self._reach()
        async with self._ports.unit_of_work(caller.context()) as uow:
            await uow.lock("keys", [key])
            if (known := uow.look("keys", key)) is not None:
                found: IntentRow = (await self._ports.intents.load_intents(uow, [known]))[known]
                return found
            uow.put("keys", key, row.id)
            moment = await self._ports.intents.moment(uow)
            row.ledger_epoch = moment.ledger_epoch
            plain = Plain(row.id, row.tenant_id, self._ports.vault.subject_id(row.tenant_id, payee), payee, "")
            sealed = (await self._ports.vault.seal_instructions(uow, [plain], {}))[row.id]
            row.subject_id, row.instruction = sealed.subject_id, sealed.ciphertext
            if lookup:
                row.deadline = moment.now + CONFIRM_WITHIN
            await self._ports.intents.insert_intents(uow, [row])
            if lookup:
                job = new_job(row, JobKind.LOOKUP, moment.now + CONFIRM_WITHIN, 24, moment.ledger_epoch)
                await self._ports.jobs.insert_jobs(uow, [job])
            else:
                await authorize(uow, self._ports, [row])
            return row

    async def cancel(self, caller: Caller, intent_id: UUID) -> IntentState:
        """Cancel as a client does. Raises Refusal, DatabaseError."""
        await self._reach()
        return IntentState((await cancel(self._ports, caller, intent_id)).state)

    async def confirm(self, caller: Caller, intent_id: UUID) -> IntentState:
        """Look at the intent and confirm what was found. Raises Refusal, DatabaseError."""
        await self._reach()
        row: IntentRow | None = self._database.tables["intents"].get(intent_id)
        if row is None or row.lookup is None:
            raise Refusal("wrong_state", "nothing was found yet")
        request = ConfirmRequest(amount_minor=row.amount_minor, fee_minor=row.fee_minor)
        return IntentState((await confirm(self._ports, caller, intent_id, request)).state)

    async def _reach(self) -> None:
        await self._host.step()
        if self.away:
            raise ConnectionLostError("the core is away")


async def relay_forever(host: Host, database: Database, bus: Bus, woken: asyncio.Event) -> None:
    """Relay both streams; a crash between XADD and commit adds the entry again."""
    while True:
        woken.clear()
        try:
            # The adapter's order of streams plays no part: each has its rows.
            moved = await _relay(host, database, bus.jobs) + await _relay(host, database, bus.control)
        except DatabaseError:
            await asyncio.sleep(0.5)
            continue
        if not moved:
            await _sleep_until(woken, host, _next_relay_s(host, database))


async def _relay(host: Host, database: Database, stream: Stream) -> int:
    async with Transaction(database, host, Context(None, "relay")) as uow:
        rows = await take_due(uow, stream.name, 50)
        if not rows:
            return 0
        await host.step()
        epoch, entry_ids = stream.epoch, [stream.add(row.body) for row in rows]
        await host.step()
        await mark_dispatched(uow, rows, entry_ids, epoch)
    return len(rows)


def _next_relay_s(host: Host, database: Database) -> float:
    now = host.world.now
    waits = [(row.not_before - now).total_seconds() for row in database.tables["outbox"].values()]
    return max(0.05, min(waits, default=600.0))


async def sweep_forever(host: Host, database: Database, bus: Bus) -> None:
    """Put back jobs whose entry is lost. It is bolder than the shipping sweeper: an entry that was acked is lost."""
    while True:
        await asyncio.sleep(15)
        lost = []
        for job_id in sorted(database.open_jobs):
            job, dispatch = database.tables["jobs"][job_id], database.tables["dispatch"][job_id]
            if job.state != "QUEUED" or host.world.now - job.queued_at < timedelta(seconds=30):
                continue
            stream = bus.of(job.stream)
            if dispatch.epoch != stream.epoch or dispatch.entry_id not in stream.entries:
                lost.append((job_id, dispatch.entry_id))
        try:
            if lost:
                async with Transaction(database, host, Context(None, "sweeper")) as uow:
                    await requeue_lost(uow, lost)
        except DatabaseError:
            continue


class Inbox:
    """Consumes results and dead letters on one host: a batch is one transaction, the ack follows its commit."""

    def __init__(self, host: Host, ports: Ports, bus: Bus) -> None:
        self._host, self._ports, self._bus = host, ports, bus
        self._held: set[str] = set()
        self._life = host.lives

    def alive_until_s(self, entry_id: str) -> float:
        """The last heartbeat for an entry: now, unless its host stands still or died."""
        if entry_id not in self._held or self._life != self._host.lives:
            return 0.0
        since = self._host.paused_since_s
        return self._host.world.loop.time() if since is None else since

    async def run(self, stream: Stream) -> None:
        """Consume for ever."""
        while True:
            await self._host.step()
            stream.arrived.clear()
            entries = stream.claim(self, CORE_IDLE_S, 20) + stream.read(self, 20)
            if not entries:
                await _sleep_until(stream.arrived, self._host, 10.0 if stream.pending else 600.0)
                continue
            self._held |= {entry.entry_id for entry in entries}
            await self._until_committed(stream, entries)
            await self._host.step()
            stream.ack(self, [entry.entry_id for entry in entries])
            self._held -= {entry.entry_id for entry in entries}

    async def _until_committed(self, stream: Stream, entries: list[Any]) -> None:
        while True:
            try:
                if stream is self._bus.dead:
                    async with self._uow() as uow:
                        await receive(uow, self._ports.letters, [_letter(entry.body) for entry in entries])
                else:
                    await settle_batch(self._ports, self._uow, [_delivery(stream, entry) for entry in entries])
            except DatabaseError:
                await asyncio.sleep(self._host.world.chance.uniform(0.1, 2))
            else:
                return

    def _uow(self) -> Transaction:
        return self._ports.unit_of_work(Context(None, "core"))


def _letter(body: str) -> DeadLetter:
    return DeadLetter.model_validate_json(body)


def _delivery(stream: Stream, entry: Any) -> Delivery:
    try:
        result, error = Result.model_validate_json(entry.body), ""
    except ValidationError:
        result, error = None, "unparseable"
    return Delivery(RAIL, stream.name, entry.entry_id, entry.body, entry.deliveries, result, error)


async def resolve_forever(host: Host, database: Database, ports: Ports, voids_per_minute: int) -> None:
    """Resolve what is due, then sleep until more is."""
    memory = ResolverMemory(voids_per_minute)
    while True:
        try:
            if await resolve_due(ports, lambda: ports.unit_of_work(Context(None, "core")), memory, 20):
                continue
        except DatabaseError:
            await asyncio.sleep(0.5)
            continue
        jobs = database.tables["jobs"]
        due = [at for job_id in database.open_jobs if (at := due_at(jobs[job_id])) is not None]
        left_s = (min(due) - host.world.now).total_seconds() if due else 10.0
        await asyncio.sleep(min(10.0, max(0.2, left_s)))


async def _sleep_until(event: asyncio.Event, host: Host, longest_s: float) -> None:
    timer = host.world.loop.call_later(longest_s, event.set)
    try:
        await event.wait()
    finally:
        timer.cancel()


def payment(chance_id: UUID, caller: Caller, wallet_id: UUID, amount_minor: int, account: str) -> IntentRow:
    """Return a new payout as acceptance writes it."""
    return IntentRow(
        id=chance_id,
        tenant_id=caller.tenant_id,
        service_key_id=caller.key_id,
        operation=OperationType.PAYOUT,
        state=IntentState.VALIDATED,
        wallet_id=wallet_id,
        amount_minor=amount_minor,
        currency="THB",
        accept_state=IntentState.VALIDATED,
        rail=RAIL,
        provider="simulator",
        provider_account=account,
        environment="sandbox",
        payee_masked="*****5678",
    )


def pay_job_of(intent_id: UUID) -> UUID:
    """Return the id of an intent's payment."""
    return derive_id(intent_id, "job", JobKind.PAY)


def lookup_job_of(intent_id: UUID) -> UUID:
    """Return the id of an intent's lookup."""
    return derive_id(intent_id, "job", JobKind.LOOKUP)
