"""Registers of providers and banks: which are wanted, how they come, and what a day's comparison finds.

A register speaks of every tenant of a provider account; so do its breaks, each under the tenant of the payment that it
is about, or the system's where no payment of ours is.
"""

import time
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final, Protocol
from uuid import UUID

from core.domain.context import Context
from core.domain.ids import mint_id
from core.domain.registers import (
    ABSENT_KIND,
    SYSTEM_TENANT,
    Account,
    BusinessDays,
    DayFiles,
    RegisterBreak,
    Span,
    absent_id,
    breaks_in,
)
from core.services.on_call.audit import Act, Journal
from core.services.problems import Refusal
from core.telemetry.catalogue import COMPARISON_SECONDS, LINES_COMPARED
from schemas.rails import RailRegistration
from schemas.registers import (
    CarriedItem,
    LineCount,
    MatchClass,
    RegisterAwaited,
    RegisterClosed,
    RegisterFileView,
    RegisterOpened,
    RegisterRun,
    RegisterState,
    RegisterWanted,
    Side,
    Tally,
)

PAGE: Final = 1000
AROUND_DAYS: Final = 10
"""How far around a day other registers are looked into."""
DAY_S: Final = 86_400
SCHEDULE: Final = "core"
"""Who compares by the schedule: of what a person asked for, the journal tells also where nothing was found."""


@dataclass(frozen=True, slots=True)
class RegisterPace:
    """How registers are followed: for how many days back one is wanted, how near to a day's end a payment may be in
    the next register, and how long after the end a register is asked for. Durations are seconds.
    """

    days_back: int = 3
    edge_s: float = 7200
    ready_after_s: float = 1800


class Registers(Protocol):
    """Where registers and runs are kept."""

    async def want(self, uow: Any, account: Account, days: Sequence[date], *, again: bool) -> None: ...
    async def wanted(
        self, uow: Any, rail: str, only: Sequence[Account] | None = None, asker: UUID | None = None
    ) -> list[RegisterWanted]: ...
    async def awaited(self, uow: Any, rail: str | None, day: date | None) -> list[RegisterAwaited]: ...
    async def open(self, uow: Any, rail: str, asked: RegisterOpened, source: str) -> UUID: ...
    async def is_loading(self, uow: Any, rail: str, file_id: UUID) -> bool: ...
    async def take(
        self, uow: Any, file_id: UUID, records: Iterable[tuple[Any, ...]] | AsyncIterable[tuple[Any, ...]]
    ) -> int: ...
    async def close(
        self,
        uow: Any,
        rail: str,
        file_id: UUID,
        state: RegisterState,
        lines: int,
        file_hash: bytes,
        *,
        agrees: bool = False,
    ) -> RegisterFileView: ...
    async def files(
        self, uow: Any, rail: str | None, day: date | None, limit: int, before: UUID | None = None
    ) -> list[RegisterFileView]: ...
    async def find(self, uow: Any, file_id: UUID) -> RegisterFileView | None: ...
    async def counts(self, uow: Any, file_id: UUID) -> list[LineCount]: ...
    async def runs(self, uow: Any, first: date, last: date, rail: str | None) -> list[RegisterRun]: ...
    async def run(self, uow: Any, run_id: UUID) -> RegisterRun | None: ...
    async def carried(
        self, uow: Any, run_id: UUID, limit: int, after: tuple[datetime, UUID] | None = None
    ) -> list[CarriedItem]: ...
    async def accounts(self, uow: Any) -> list[Account]: ...


class Matching(Protocol):
    """What compares, set by set in the database."""

    async def now(self, uow: Any) -> datetime: ...
    async def try_lock(self, uow: Any, account: Account, day: date) -> bool: ...
    async def files(self, uow: Any, account: Account, day: date, following: date, around_days: int) -> DayFiles: ...
    async def compare(self, uow: Any, account: Account, day: date, files: DayFiles, span: Span) -> list[Tally]: ...
    async def write_found(self, uow: Any) -> None: ...
    async def doubt_ends(self, uow: Any, account: Account) -> None: ...
    async def page(
        self, uow: Any, account: Account, day: date, after: int, limit: int
    ) -> tuple[list[RegisterBreak], int]: ...
    async def missing_there(self, uow: Any) -> tuple[int, int]: ...
    async def record(self, uow: Any, account: Account, day: date, rows: Sequence[Sequence[Any]]) -> int: ...
    async def end_unseen(self, uow: Any, account: Account, day: date) -> int: ...
    async def keep_run(self, uow: Any, run: RegisterRun) -> None: ...


class RegisterPorts(Protocol):
    """What registers are worked with, under the worker role."""

    @property
    def unit_of_work(self) -> Callable[[Context], AbstractAsyncContextManager[Any]]: ...
    @property
    def registers(self) -> Registers: ...
    @property
    def matching(self) -> Matching: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def rails(self) -> Any: ...
    @property
    def register_pace(self) -> RegisterPace: ...


class DayBusyError(RuntimeError):
    """Somebody compares this very day of this account at this moment."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """What a rail's registration says about time: its days, and how old a payment may be when it settles."""

    days: BusinessDays
    lookback: timedelta


def calendar_of(registration: RailRegistration | None) -> Calendar:
    """Return the calendar of a rail; one that never registered has days of UTC."""
    if registration is None:
        return Calendar(BusinessDays(), timedelta(days=2))
    declared = list(registration.operations.values())
    longest_s = max((each.not_found_horizon_s for each in declared), default=0)
    lives_s = max((each.collection_lives_s or 0 for each in declared), default=0)
    days = BusinessDays(declared[0].business_timezone, declared[0].cut_off) if declared else BusinessDays()
    return Calendar(days, timedelta(days=2 + (longest_s + lives_s) // DAY_S))


async def close_register(
    uow: Any, ports: RegisterPorts, rail: str, file_id: UUID, closed: RegisterClosed, *, agrees: bool = False
) -> RegisterFileView:
    """Make a register count; `agrees`: a second person's word counts against one that was fetched.

    Raises Refusal: not_found, register_incomplete, invalid_request.
    """
    if closed.absent and closed.lines:
        raise Refusal("invalid_request", "a register that is absent has no lines", field="absent")
    state = RegisterState.ABSENT if closed.absent else RegisterState.COMPLETE
    file_hash = bytes.fromhex(closed.file_hash)
    view = await ports.registers.close(uow, rail, file_id, state, closed.lines, file_hash, agrees=agrees)
    data = {"state": view.state, "lines": view.lines, "sha256": view.file_hash, "day": view.business_day.isoformat()}
    act = Act(SYSTEM_TENANT, uow.context.actor, "register_received", f"register:{view.id}", data)
    await ports.journal.append(uow, [act])
    return view


async def want_registers(ports: RegisterPorts, context: Context, now: datetime) -> None:
    """Ask for the register of every day that has ended lately, once its provider has had the time to write it."""
    async with ports.unit_of_work(context) as uow:
        for account in await ports.registers.accounts(uow):
            calendar = await _calendar(uow, ports, account.rail)
            await ports.registers.want(uow, account, _lately(ports, calendar.days, now), again=False)


async def compare_lately(ports: RegisterPorts, context: Context, now: datetime) -> list[RegisterRun]:
    """Compare the days that ended lately and whose register came, or a neighbour's, since they were compared last.

    Several may call this at once: a day that somebody compares is left to them.
    """
    runs = []
    async with ports.unit_of_work(context) as uow:
        accounts = await ports.registers.accounts(uow)
        calendars = {each.rail: await _calendar(uow, ports, each.rail) for each in accounts}
        due = []
        for account in accounts:
            for day in _lately(ports, calendars[account.rail].days, now):
                if await _is_due(uow, ports, account, day, now):
                    due.append((account, day))  # noqa: PERF401 - an awaited condition reads worse in an extend
    for account, day in due:
        try:
            runs.append(await compare_day(ports, context, account, day))
        except DayBusyError:
            continue
    return runs


async def compare_day(ports: RegisterPorts, context: Context, account: Account, day: date) -> RegisterRun:
    """Compare one day of a provider account and keep what was found: breaks, what is carried over, and the tallies.

    One transaction, and memory of a page, whatever the register's length. Raises DayBusyError.
    """
    began_s = time.monotonic()
    run = await _compared(ports, context, account, day)
    COMPARISON_SECONDS.labels(account.rail).observe(time.monotonic() - began_s)
    for tally in run.tallies:
        if tally.side is Side.THEIRS:
            LINES_COMPARED.labels(account.rail, tally.match.value).inc(tally.count)
    return run


async def accounts_of_rail(uow: Any, registers: Registers, rail: str) -> list[Account]:
    """Return the provider accounts of a rail. Raises Refusal `not_found` where it has none."""
    found = [each for each in await registers.accounts(uow) if each.rail == rail]
    if not found:
        text = "no such rail has registered, and no register of it came: fleet rails list shows those that have"
        raise Refusal("not_found", text, field="rail")
    return found


async def require_known(uow: Any, registers: Registers, rail: str | None) -> None:
    """Raise Refusal `not_found` unless the rail has a provider account; None is every rail.

    Of a misspelt rail there is nothing to list: that would read as if all were well.
    """
    if rail is not None:
        await accounts_of_rail(uow, registers, rail)


async def _compared(ports: RegisterPorts, context: Context, account: Account, day: date) -> RegisterRun:
    async with ports.unit_of_work(context) as uow:
        if not await ports.matching.try_lock(uow, account, day):
            raise DayBusyError
        started_at = await ports.matching.now(uow)
        calendar = await _calendar(uow, ports, account.rail)
        files = await ports.matching.files(uow, account, day, calendar.days.following(day), AROUND_DAYS)
        begin, end = calendar.days.window(day)
        span = Span(begin, end, calendar.lookback, timedelta(seconds=ports.register_pace.edge_s))
        tallies = await ports.matching.compare(uow, account, day, files, span)
        if files.state == RegisterState.COMPLETE:
            found, new = breaks_in(tallies), await _record(uow, ports, account, day)
        else:
            tallies, found, new = await _without_register(uow, ports, account, day, files.state, tallies)
        gone = await ports.matching.end_unseen(uow, account, day)
        run = RegisterRun(
            id=mint_id(time.time_ns() // 1_000_000),
            rail=account.rail,
            provider_account=account.provider_account,
            environment=account.environment,
            business_day=day,
            register_state=files.state,
            tallies=tallies,
            breaks=found,
            new_breaks=new,
            gone=gone,
            run_by=context.actor,
            started_at=started_at,
            finished_at=started_at,
        )
        await ports.matching.keep_run(uow, run)
        if found or gone or context.actor != SCHEDULE:
            data = {"day": day.isoformat(), "found": found, "new": new, "gone": gone}
            await ports.journal.append(uow, [Act(SYSTEM_TENANT, context.actor, "reconciled", f"recon:{run.id}", data)])
        kept: RegisterRun | None = await ports.registers.run(uow, run.id)
        return kept or run


async def _record(uow: Any, ports: RegisterPorts, account: Account, day: date) -> int:
    await ports.matching.write_found(uow)
    await ports.matching.doubt_ends(uow, account)
    new = after = 0
    while True:
        breaks, after = await ports.matching.page(uow, account, day, after, PAGE)
        if not breaks:
            return new
        # Two lines about one payment may be the same break: it is told once.
        rows = {each.id: _row(each) for each in breaks}
        new += await ports.matching.record(uow, account, day, list(rows.values()))


def _row(each: RegisterBreak) -> tuple[Any, ...]:
    return (
        each.id, each.tenant_id or SYSTEM_TENANT, each.kind, each.subject_id, each.at_stake_minor, each.currency,
        each.detail, each.reference, each.intent_id,
    )  # fmt: skip


async def _without_register(
    uow: Any, ports: RegisterPorts, account: Account, day: date, state: str, tallies: Sequence[Tally]
) -> tuple[list[Tally], int, int]:
    """A day without payments needs no register; one with payments and none is one break, not one for each payment."""
    count, amount_minor = await ports.matching.missing_there(uow)
    if not count:
        return list(tallies), 0, 0
    text = f"no register of the day ({state.lower()}), and {count} payments of ours that none tells of"
    currencies = {each.currency for each in tallies if each.match is MatchClass.MISSING_THERE}
    one = next(iter(currencies)) if len(currencies) == 1 else ""
    row = (absent_id(account, day), SYSTEM_TENANT, ABSENT_KIND, None, amount_minor if one else 0, one, text, "", None)
    return list(tallies), 1, await ports.matching.record(uow, account, day, [row])


def _lately(ports: RegisterPorts, days: BusinessDays, now: datetime) -> list[date]:
    ended = days.last_closed(now - timedelta(seconds=ports.register_pace.ready_after_s))
    lately = [ended - timedelta(days=back) for back in range(ports.register_pace.days_back)]
    return [day for day in sorted(lately) if days.is_open(day)]


async def _is_due(uow: Any, ports: RegisterPorts, account: Account, day: date, now: datetime) -> bool:
    """Whether no run saw the newest registers of the day and its neighbours, or the last run is a day old."""
    runs = await ports.registers.runs(uow, day, day, account.rail)
    mine = [each for each in runs if Account(each.rail, each.provider_account, each.environment) == account]
    if not mine:
        return True
    last = mine[0].started_at
    if now - last > timedelta(days=1):
        return True
    files = await ports.registers.files(uow, account.rail, None, 100)
    return any(
        each.completed_at is not None and each.completed_at > last
        and abs((each.business_day - day).days) <= 1 for each in files
    )  # fmt: skip


async def _calendar(uow: Any, ports: RegisterPorts, rail: str) -> Calendar:
    state = await ports.rails.rail_state(uow, rail)
    return calendar_of(state.registration)
