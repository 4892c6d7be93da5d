"""Runs one seed: builds the world, lets the faults happen, waits for the calm, and has the books judged."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from itertools import count
from typing import Any, Final
from unittest import mock
from uuid import UUID

from core.domain.context import Context
from core.domain.ids import derive_id
from core.domain.ledger import Transfer
from core.domain.operations import AccountCode, system_account, wallet_account
from core.domain.registry import TransferCode
from core.services.access.keys import Caller
from core.services.problems import Refusal
from core.services.settling.rails import pause, register, resume
from schemas.events import IntentState
from schemas.permits import Payee
from tests.simulation.adapter_side import Adapter
from tests.simulation.clockwork import VirtualLoop
from tests.simulation.core_side import (
    RAIL,
    Api,
    Bus,
    Inbox,
    Ports,
    payment,
    ports_of,
    relay_forever,
    resolve_forever,
    sweep_forever,
)
from tests.simulation.database import Database, DatabaseError, Key, Tables, Transaction
from tests.simulation.hosts import START, Clockwork, Event, Host, Rates
from tests.simulation.provider import Provider
from tests.simulation.rails import rail_of, registration
from tests.simulation.scenario import LONGEST_PAUSE_S, Order, Scenario, Told, calm, orders
from tests.simulation.streams import Stream

TENANT = UUID(int=0x5E11E4)
CALLER = Caller("key", TENANT, "service", None, frozenset({"*"}), None)
_FUNDS_MINOR: Final = (1_000_000, 1_000_000, 900)
_PATIENCE_S: Final = 900.0
"""How long after the calm the last intent may need."""
_SKEW_S: ContextVar[float] = ContextVar("skew_s", default=0.0)


class _HostClock:
    """`datetime` as an adapter's host sees it: an hour fast or slow, where the seed says so."""

    @staticmethod
    def now(zone: tzinfo) -> datetime:
        """Return the host's time."""
        elapsed_s = asyncio.get_running_loop().time() + _SKEW_S.get()
        return (START + timedelta(seconds=elapsed_s)).astimezone(zone)


@contextmanager
def virtual_clocks() -> Iterator[None]:
    """Let the shipping code read the virtual clock and mint ids that a seed repeats."""
    numbers = count(1)

    def clock_s() -> float:
        return asyncio.get_running_loop().time()

    def mint_id(_: int) -> UUID:
        return UUID(int=next(numbers))

    with (
        mock.patch("adapters.runtime.execution.clock_s", clock_s),
        mock.patch("adapters.runtime.messages.datetime", _HostClock),
        mock.patch("adapters.runtime.messages.mint_id", mint_id),
    ):
        yield


@dataclass(slots=True)
class Simulation:
    """One seed's world, and what is left of it to be judged."""

    scenario: Scenario
    loop: VirtualLoop = field(default_factory=VirtualLoop)
    told: list[Told] = field(default_factory=list)
    restored_to_s: float | None = None
    restored_at_s: float | None = None
    regressions: list[tuple[UUID, str]] = field(default_factory=list)
    """Intents that left an end."""
    expired_in_pause: list[UUID] = field(default_factory=list)
    """Held intents that expired unsent although their rail had been paused for a while."""
    took_s: float = 0.0
    world: Clockwork = field(init=False)
    database: Database = field(init=False)
    provider: Provider = field(init=False)
    hosts: list[Host] = field(default_factory=list)
    api: Api = field(init=False)
    bus: Bus = field(init=False)
    account: str = "first"

    def __post_init__(self) -> None:
        self.world = Clockwork(self.loop, str(self.scenario.seed), Rates())
        self.database = Database(self.world)
        self.provider = Provider(self.world, self.scenario.profile, self.scenario.moods())
        names = (f"{{{RAIL}}}:{kind}" for kind in ("jobs", "control", "results", "jobs.dlq"))
        self.bus = Bus(*(Stream(self.world, name) for name in names))

    @property
    def trace(self) -> list[Event]:
        """What happened, in order."""
        return self.world.trace

    def run(self) -> None:
        """Run to the end. Raises what a process of the system raised and should not have."""
        began_s = time.perf_counter()
        with virtual_clocks():
            try:
                self.loop.run_until_complete(self._run())
            finally:
                self.loop.run_until_complete(self._end())
                self.loop.close()
        self.took_s = time.perf_counter() - began_s

    async def _end(self) -> None:
        for host in self.hosts:
            host.stop()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _run(self) -> None:
        self.api = Api(self._ports_on(quiet := self._host("api", lambda _: None)), self.database, quiet)
        await self._fund(quiet)
        self._start_core()
        adapters = [self._host(f"adapter {number}", self._start_adapter) for number in (1, 2)]
        self.database.watchers.append(self._watch)
        for host in self.hosts:
            host.start()
        self.world.rates = self.scenario.rates()
        wishes = [self._client(order) for order in orders(self.scenario)]
        happens = {
            "wipe": self._wipe, "tail": self._tail, "outage": self._outage, "core_outage": self._core_outage,
            "rotation": self._rotation, "rail_pause": self._rail_pause, "restore": self._restore,
        }  # fmt: skip
        accidents = [happens[name](*when) for name, when in self.scenario.accidents.items() if name in happens]
        self._skew(adapters)
        running = asyncio.gather(*wishes, *accidents)
        await asyncio.sleep(self.scenario.calm_at_s)
        self.world.rates = Rates()
        calm(self.provider.moods)
        self.provider.outage = ""
        self.world.note("world", "the calm begins")
        # A restore may have brought an old pause back.
        await self._insist(lambda uow: resume(uow, self._ports_on(self.hosts[0]).rails, RAIL), self.hosts[0])
        await self._until_quiet()
        await running

    async def _until_quiet(self) -> None:
        until_s = self.loop.time() + _PATIENCE_S
        while self.loop.time() < until_s:
            await asyncio.sleep(20)
            self._raise_failures()
            await self._reconcile()
            states = {IntentState(row.state) for row in self.database.tables["intents"].values()}
            if all(state.is_terminal or state is IntentState.UNRESOLVED for state in states):
                # What still is on its way must find an end unmoved; what is in doubt is asked about a few times more.
                longer_s = 300 if IntentState.UNRESOLVED in states else 40
                until_s = min(until_s, self.loop.time() + longer_s)

    def _raise_failures(self) -> None:
        for host in self.hosts:
            if host.failure is not None:
                raise host.failure

    def _host(self, name: str, start: Any) -> Host:
        host = Host(self.world, name, start, LONGEST_PAUSE_S)
        self.hosts.append(host)
        return host

    def _ports_on(self, host: Host) -> Ports:
        return ports_of(self.database, host)

    def _start_core(self) -> None:
        woken = asyncio.Event()
        self.database.watchers.append(lambda writes: self._wake(woken, writes))
        database, bus = self.database, self.bus
        voids = self.scenario.chance("voids").choice((5, 600))
        for number in (1, 2):
            self._host(f"relay {number}", lambda host: host.spawn(relay_forever(host, database, bus, woken)))
            self._host(f"settler {number}", self._start_settler)
            self._host(
                f"resolver {number}",
                lambda host: host.spawn(resolve_forever(host, database, self._ports_on(host), voids)),
            )
        self._host("sweeper", lambda host: host.spawn(sweep_forever(host, database, bus)))

    def _start_settler(self, host: Host) -> None:
        inbox = Inbox(host, self._ports_on(host), self.bus)
        host.spawn(inbox.run(self.bus.results))
        host.spawn(inbox.run(self.bus.dead))

    def _start_adapter(self, host: Host) -> None:
        host.spawn(self._serve(host, self.account))

    async def _serve(self, host: Host, account: str) -> None:
        declared = registration(self.scenario.profile, account)
        while True:
            try:
                async with Transaction(self.database, host, Context(None, "rail")) as uow:
                    await register(uow, self._ports_on(host).rails, declared)
                break
            except DatabaseError:
                await asyncio.sleep(1)
        adapter = Adapter(host, self.api, self.bus, rail_of(self.provider, host, account))
        host.spawn(adapter.run(self.bus.jobs))
        host.spawn(adapter.run(self.bus.control))

    async def _fund(self, host: Host) -> None:
        ports = self._ports_on(host)
        self.database.tables["epochs"][1] = (START, START)
        async with Transaction(self.database, host, Context(None, "setup")) as uow:
            await register(uow, ports.rails, registration(self.scenario.profile, self.account))
            equity = system_account(TENANT, "THB", AccountCode.EQUITY)
            await ports.ledger.create_accounts(uow, [equity])
            for number, funds_minor in enumerate(_FUNDS_MINOR):
                wallet = wallet_account(wallet_of(number), TENANT, "THB")
                await ports.ledger.create_accounts(uow, [wallet])
                given = Transfer(
                    derive_id(wallet.id, "funds"), TENANT, equity.id, wallet.id, funds_minor, wallet.ledger,
                    TransferCode.ADJUSTMENT,
                )  # fmt: skip
                await ports.ledger.apply(uow, [given])

    def _wake(self, woken: asyncio.Event, writes: dict[Key, Any]) -> None:
        if any(table == "outbox" and row is not None for (table, _), row in writes.items()):
            woken.set()

    def _watch(self, writes: dict[Key, Any]) -> None:
        """Note each change of an intent, and whether one left its end."""
        for (table, key), row in writes.items():
            if table == "intents":
                before = self._states.get(key)
                if before is not None and before.is_terminal and row.state != before:
                    self.regressions.append((key, f"{before} became {row.state}"))
                if before != row.state:
                    self.world.note("core", f"intent is {row.state} {row.failure_code or ''}", key)
                if row.failure_code == "deadline_unsent" and row.decision == "VOID" and before != row.state:
                    self._note_waiting(key)
                self._states[key] = IntentState(row.state)

    def _note_waiting(self, intent_id: UUID) -> None:
        began = self.database.tables["pauses"].get((RAIL, "*"))
        # What a resolver had begun before the pause may end a little later.
        if began is not None and self.world.now - began > timedelta(seconds=LONGEST_PAUSE_S + 20):
            self.expired_in_pause.append(intent_id)

    _states: dict[UUID, IntentState] = field(default_factory=dict)

    async def _client(self, order: Order) -> None:
        told = Told(order)
        self.told.append(told)
        await asyncio.sleep(order.at_s)
        chance = self.scenario.chance(f"id {order.number}")
        intent_id = UUID(int=(1_000 + order.number) << 80 | chance.getrandbits(62) | 0x7 << 76 | 0b10 << 62)
        row = payment(intent_id, CALLER, wallet_of(order.wallet), order.amount_minor, self.account)
        if order.auto_confirms:
            row.auto_confirm = {"max_fee_minor": 0, "payee_name": "anong p." if order.number % 2 else None}
        lookup = self.scenario.profile.lookup
        for _ in range(6):
            asked_at_s = self.loop.time()
            try:
                payee = Payee(type="mobile", value="0812345678")
                accepted = await self.api.accept(CALLER, f"key {order.number}", row, payee, lookup=lookup)
            except DatabaseError:
                await asyncio.sleep(chance.uniform(0.5, 3))
                continue
            told.accepted, told.accepted_in_s = accepted.id, (asked_at_s, self.loop.time())
            break
        if told.accepted is None:
            return
        await asyncio.gather(self._cancels(told, intent_id), self._confirms(told, intent_id))

    async def _cancels(self, told: Told, intent_id: UUID) -> None:
        if told.order.cancels_after_s is None:
            return
        await asyncio.sleep(told.order.cancels_after_s)
        for _ in range(3):
            asked_at_s = self.loop.time()
            try:
                state = await self.api.cancel(CALLER, intent_id)
            except DatabaseError:
                await asyncio.sleep(1)
                continue
            except Refusal:
                return
            if state is IntentState.CANCELLED:
                told.cancelled_in_s = (asked_at_s, self.loop.time())
                self.world.note("client", "is told CANCELLED", intent_id)
            return

    async def _confirms(self, told: Told, intent_id: UUID) -> None:
        if not self.scenario.profile.lookup:
            return
        await asyncio.sleep(told.order.confirms_after_s)
        for _ in range(4):
            try:
                await self.api.confirm(CALLER, intent_id)
            except (DatabaseError, Refusal):
                await asyncio.sleep(15)
            else:
                return

    async def _wipe(self, at_s: float, _: float) -> None:
        await asyncio.sleep(at_s)
        self.world.note("streams", "are wiped")
        for stream in (self.bus.jobs, self.bus.control, self.bus.results, self.bus.dead):
            stream.wipe()

    async def _tail(self, at_s: float, _: float) -> None:
        await asyncio.sleep(at_s)
        self.world.note("streams", "lose their tails")
        for stream in (self.bus.jobs, self.bus.control, self.bus.results):
            stream.lose_tail(3)

    async def _outage(self, at_s: float, lasts_s: float) -> None:
        await asyncio.sleep(at_s)
        self.provider.outage = "hangs" if self.scenario.chance("outage kind").random() < 0.6 else "refuses"
        self.world.note("provider", f"{self.provider.outage} for {lasts_s:.0f} s")
        await asyncio.sleep(lasts_s)
        self.provider.outage = ""

    async def _core_outage(self, at_s: float, lasts_s: float) -> None:
        await asyncio.sleep(at_s)
        self.api.away = True
        self.world.note("api", f"is away for {lasts_s:.0f} s")
        await asyncio.sleep(lasts_s)
        self.api.away = False

    async def _rotation(self, at_s: float, lasts_s: float) -> None:
        """The provider account changes: one adapter after the other is started with the new one."""
        await asyncio.sleep(at_s)
        self.account = "second"
        for host in (each for each in self.hosts if each.name.startswith("adapter")):
            self.world.note(host.name, "is deployed anew with another provider account")
            host.kill(2)
            await asyncio.sleep(lasts_s / 4)

    async def _rail_pause(self, at_s: float, lasts_s: float) -> None:
        await asyncio.sleep(at_s)
        host, rails = self.hosts[0], self._ports_on(self.hosts[0]).rails
        self.world.note("operator", f"pauses the rail for {lasts_s:.0f} s")
        await self._insist(lambda uow: pause(uow, rails, RAIL, reason="simulated"), host)
        await asyncio.sleep(lasts_s)
        await self._insist(lambda uow: resume(uow, rails, RAIL), host)

    async def _insist(self, act: Any, host: Host) -> None:
        while True:
            try:
                async with Transaction(self.database, host, Context(None, "operator")) as uow:
                    await act(uow)
            except DatabaseError:
                await asyncio.sleep(1)
            else:
                return

    async def _restore(self, at_s: float, lasts_s: float) -> None:
        """PostgreSQL becomes what it was a while ago, and the ledger epoch rises before anybody connects."""
        await asyncio.sleep(at_s)
        backup: Tables = self.database.snapshot()
        self.restored_to_s = self.loop.time()
        await asyncio.sleep(lasts_s / 3)
        self.database.restore(backup)
        self.restored_at_s = self.loop.time()
        epochs = self.database.tables["epochs"]
        epochs[max(epochs) + 1] = (self.world.now, None)
        self._states = {key: IntentState(row.state) for key, row in backup["intents"].items()}
        self.world.note("database", f"is restored to what it was {lasts_s / 3:.0f} s ago")

    async def _reconcile(self) -> None:
        """Clear the epoch where the provider's register shows nothing that the open jobs of before do not know."""
        epochs = self.database.tables["epochs"]
        newest = max(epochs)
        raised_at, cleared_at = epochs[newest]
        if cleared_at is not None or self.world.now - raised_at < timedelta(seconds=200):
            return
        doubted = [job for job_id in self.database.open_jobs
                   if (job := self.database.tables["jobs"][job_id]).ledger_epoch < newest]  # fmt: skip
        if not any(self.paid(job.intent_id) for job in doubted):
            epochs[newest] = (raised_at, self.world.now)
            self.world.note("operator", "clears the ledger epoch")

    def _skew(self, adapters: list[Host]) -> None:
        if self.scenario.strikes("skew"):
            for host, skew_s in zip(adapters, (3600.0, -3600.0), strict=True):
                host.context.run(_SKEW_S.set, skew_s)

    def paid(self, intent_id: UUID) -> list[Any]:
        """Return what the provider really paid for an intent, by any of its accounts and references."""
        from tests.simulation.judge import subjects_of

        return [each for subject in subjects_of(intent_id) for each in self.provider.payments(subject)]


def wallet_of(number: int) -> UUID:
    """Return the id of a wallet."""
    return UUID(int=0xA11E7 << 64 | number + 1)
