"""Reconciliation of the books with themselves and with the intents; breaks with an owner, an age and a way out."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, Final, Protocol
from uuid import UUID

from core.domain.context import Context
from core.domain.ids import derive_id
from core.domain.intents import IntentRow
from core.domain.ledger import Transfer, TransferFlags, TransferResult
from core.domain.operations import hold_transfers, void_transfers
from core.domain.reconciliation import Booked, Break, BreakKind, Told, breaks_of, is_judged, transfers_of
from core.domain.registers import PREFIX as REGISTER_PREFIX
from core.services.access.keys import RECONCILIATION_SCOPE, REDRIVE_APPROVAL_SCOPE, Caller
from core.services.cursors import decode_cursor, encode_cursor, id_of, malformed_cursor
from core.services.ledger_port import Ledger, LedgerReport
from core.services.on_call.audit import Act, Journal
from core.services.on_call.redrives import SYSTEM_TENANT, background_context, reach
from core.services.problems import Refusal
from core.services.recon.registers import Registers, require_known
from schemas.events import IntentState
from schemas.recon import BreakList, BreakResolution, BreakState, BreakView, ReconReport

PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Books:
    """What the books and the events hold for a page of intents."""

    booked: dict[UUID, Booked]
    resolved: set[UUID]
    told: dict[UUID, Told]


class Reconciler(Protocol):
    """What reconciliation needs of its store."""

    async def freeze(self, uow: Any) -> None: ...

    async def alone(self, uow: Any, what: str, longest_s: int) -> bool: ...
    async def oldest(self, uow: Any) -> datetime | None: ...

    def walk(
        self, uow: Any, since: datetime | None, page: int, until: datetime | None = None
    ) -> AsyncIterator[list[IntentRow]]:
        """Read intents in id order, a page at a time; those made before `until`."""
        ...

    async def books(self, uow: Any, intents: Sequence[UUID], transfers: Sequence[UUID]) -> Books: ...
    async def homeless_holds(self, uow: Any, since: datetime | None, until: datetime | None = None) -> list[Break]: ...
    async def record(self, uow: Any, breaks: Sequence[Break]) -> int: ...
    async def end_missing(self, uow: Any, kinds: Sequence[str], seen: Sequence[UUID]) -> int: ...
    async def page(
        self,
        uow: Any,
        tenant_id: UUID | None,
        state: BreakState | None,
        kind: str | None,
        limit: int,
        rail: str | None = None,
        day: date | None = None,
        after: tuple[datetime, UUID] | None = None,
    ) -> list[BreakView]: ...
    async def between(self, uow: Any, begin: datetime, end: datetime, limit: int) -> list[BreakView]: ...
    async def find(self, uow: Any, break_id: UUID, tenant_id: UUID | None) -> BreakView | None: ...
    async def puts_another_right(self, uow: Any, entry: UUID, break_id: UUID) -> bool: ...
    async def change(self, uow: Any, break_id: UUID, **changed: Any) -> None: ...


class ReconPorts(Protocol):
    """What reconciliation works with, under the worker role."""

    @property
    def unit_of_work(self) -> Callable[[Context], AbstractAsyncContextManager[Any]]: ...
    @property
    def recon(self) -> Reconciler: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def ledger(self) -> Ledger: ...
    @property
    def intents(self) -> Any: ...
    @property
    def registers(self) -> Registers: ...
    @property
    def break_approval_above_minor(self) -> int: ...


async def reconcile_ledger(ports: ReconPorts, context: Context) -> ReconReport:
    """Prove the ledger from its transfers and record what the proof names. Reads every transfer."""
    async with ports.unit_of_work(context) as uow:
        report = await ports.ledger.verify(uow)
    return await _proven(ports, context, report)


async def reconcile_ledger_alone(ports: ReconPorts, context: Context, longest_s: int) -> ReconReport | None:
    """As `reconcile_ledger`, within a bound of seconds; None where somebody else is at it.

    Raises what the database answers where it takes longer: then nothing is proven and nothing is recorded.
    """
    async with ports.unit_of_work(context) as uow:
        if not await ports.recon.alone(uow, "ledger", longest_s):
            return None
        report = await ports.ledger.verify(uow)
    return await _proven(ports, context, report)


async def _proven(ports: ReconPorts, context: Context, report: LedgerReport) -> ReconReport:
    found = [Break(f"ledger_{x.kind}", SYSTEM_TENANT, x.subject_id, x.detail) for x in report.discrepancies]
    return await _recorded(ports, context, "ledger", found, report.transfers, 0, since=None)


async def reconcile_intents(
    ports: ReconPorts, context: Context, since: datetime | None = None, until: datetime | None = None
) -> ReconReport:
    """Compare every intent, or those made since, and before `until`, with books and events; record what does not fit.

    One moment is looked at, however long it takes; memory is a page of intents.
    """
    found: list[Break] = []
    compared = unjudged = 0
    async with ports.unit_of_work(context) as uow:
        await ports.recon.freeze(uow)
        async for page in ports.recon.walk(uow, since, PAGE, until):
            judged = [intent for intent in page if is_judged(intent)]
            ids = {intent.id: transfers_of(intent) for intent in judged}
            books = await ports.recon.books(uow, list(ids), [each for chain in ids.values() for each in chain])
            for intent in judged:
                found += breaks_of(intent, books.booked, books.resolved, books.told.get(intent.id))
            compared += len(page)
            unjudged += len(page) - len(judged)
        found += await ports.recon.homeless_holds(uow, since, until)
    return await _recorded(ports, context, "intents", found, compared, unjudged, since=since)


async def _recorded(
    ports: ReconPorts,
    context: Context,
    what: str,
    found: Sequence[Break],
    compared: int,
    unjudged: int,
    *,
    since: datetime | None,
) -> ReconReport:
    async with ports.unit_of_work(context) as uow:
        new = await ports.recon.record(uow, found)
        gone = 0
        if since is None:
            kinds = ["ledger"] if what == "ledger" else [kind.value for kind in BreakKind]
            gone = await ports.recon.end_missing(uow, kinds, [each.id for each in found])
        if found or gone:
            data = {"what": what, "found": len(found), "new": new, "gone": gone}
            act = Act(SYSTEM_TENANT, context.actor, "reconciled", f"recon:{what}", data)
            await ports.journal.append(uow, [act])
    counts: dict[str, int] = {}
    for each in found:
        counts[each.kind] = counts.get(each.kind, 0) + 1
    return ReconReport(what=what, compared=compared, unjudged=unjudged, found=counts, new=new, gone=gone, since=since)


async def list_breaks(
    ports: ReconPorts,
    caller: Caller,
    *,
    state: BreakState | None,
    kind: str | None = None,
    rail: str | None = None,
    day: date | None = None,
    cursor: str | None = None,
    limit: int = 100,
) -> BreakList:
    """Return a page of breaks, the oldest first.

    Raises Refusal: operation_not_permitted, cursor_malformed, not_found (no such rail).
    """
    caller.require_operation(RECONCILIATION_SCOPE)
    after = None if cursor is None else after_of(cursor)
    async with ports.unit_of_work(background_context(caller)) as uow:
        await require_known(uow, ports.registers, rail)
        found = await ports.recon.page(uow, reach(caller), state, kind, limit + 1, rail, day, after)
    last = found[limit - 1] if len(found) > limit else None
    following = None if last is None else encode_cursor(last.first_seen_at.isoformat(), str(last.id))
    return BreakList(items=found[:limit], next_cursor=following)


def after_of(cursor: str) -> tuple[datetime, UUID]:
    """Return the moment and the id that a page ended with. Raises Refusal `cursor_malformed`."""
    at, last = decode_cursor(cursor, 2)
    try:
        moment = datetime.fromisoformat(at)
    except ValueError as error:
        raise malformed_cursor() from error
    if moment.tzinfo is None:
        raise malformed_cursor()
    return moment, id_of(last)


async def assign_break(ports: ReconPorts, caller: Caller, break_id: UUID, owner: str) -> BreakView:
    """Say who looks after a break. Raises Refusal: operation_not_permitted, not_found."""
    caller.require_operation(RECONCILIATION_SCOPE)
    async with ports.unit_of_work(background_context(caller)) as uow:
        row = await found_break(uow, ports, caller, break_id)
        await ports.recon.change(uow, row.id, owner=owner)
        await _note(uow, ports, caller, row, "break_assigned", {"owner": owner})
        return await found_break(uow, ports, caller, break_id)


async def resolve_break(ports: ReconPorts, caller: Caller, break_id: UUID, asked: BreakResolution) -> BreakView:
    """Put a break right by a new entry, or by an explanation where no money is at stake.

    Above the threshold, where the core itself writes the entry, and where a difference from a register is explained
    instead of booked, a second person approves. Raises Refusal:
    operation_not_permitted, not_found, wrong_break_state, entry_missing.
    """
    caller.require_operation(RECONCILIATION_SCOPE)
    actor = caller.context().actor
    async with ports.unit_of_work(background_context(caller)) as uow:
        row = await found_break(uow, ports, caller, break_id)
        _require_state(row, BreakState.OPEN)
        entry = asked.entry_intent_id
        made = await require_entry(uow, ports, row, entry)
        changed = {"reason": asked.reason, "entry_intent_id": entry, "proposed_by": actor}
        alone = not needs_approval(ports, row, made)
        if alone:
            end = {"state": BreakState.RESOLVED, "resolved_by": actor, "ended_at": "now"}
            await ports.recon.change(uow, row.id, **changed, **end)
        else:
            await ports.recon.change(uow, row.id, **changed, state=BreakState.PROPOSED)
        data = {"reason": asked.reason, "entry_intent_id": entry}
        await _note(uow, ports, caller, row, "break_resolved" if alone else "break_proposed", data)
        return await found_break(uow, ports, caller, break_id)


async def require_entry(uow: Any, ports: ReconPorts, row: BreakView, entry: UUID | None) -> IntentRow | None:
    """Return the payment that puts a break right, None where none has to. Raises Refusal `entry_missing`."""
    if entry is None:
        if row.amount_minor > 0 and row.kind != BreakKind.ORPHAN_HOLD and not _is_theirs(row):
            text = "money is at stake: make the entry that puts it right, and name it"
            raise Refusal("entry_missing", text, field="entry_intent_id")
        return None
    made: IntentRow | None = (await ports.intents.load_intents(uow, [entry])).get(entry)
    # A line that no payment of ours is about has no tenant: whoever it is put right for has the entry.
    if made is None or row.tenant_id not in (SYSTEM_TENANT, made.tenant_id) or made.state != IntentState.SETTLED:
        raise Refusal("entry_missing", "no settled payment of the tenant has this id", field="entry_intent_id")
    if row.currency and made.currency != row.currency:
        text = f"the payment is in {made.currency}, the break in {row.currency}: name the entry that puts it right"
        raise Refusal("entry_missing", text, field="entry_intent_id")
    if await ports.recon.puts_another_right(uow, entry, row.id):
        text = "the payment puts another break right already: each has an entry of its own"
        raise Refusal("entry_missing", text, field="entry_intent_id")
    return made


def needs_approval(ports: ReconPorts, row: BreakView, entry: IntentRow | None) -> bool:
    """Whether a second person has to agree with how a break is put right."""
    if row.kind.startswith("ledger_") or row.kind in (BreakKind.PROJECTION_DRIFT, BreakKind.ORPHAN_HOLD):
        # What contradicts itself in the books has no amount that would tell how grave it is.
        return True
    if row.amount_minor > ports.break_approval_above_minor:
        return True
    if entry is None:
        return row.amount_minor > 0
    # Another sum, or a payment of before, may be the entry all the same: two people say so.
    return entry.received_minor != row.amount_minor or entry.created_at is None or entry.created_at < row.first_seen_at


async def approve_break(ports: ReconPorts, caller: Caller, break_id: UUID) -> BreakView:
    """Agree with how another person puts a break right; an orphan hold is voided by this, by a new transfer.

    Raises Refusal: operation_not_permitted, not_found, wrong_break_state, redrive_own, wrong_state.
    """
    caller.require_operation(RECONCILIATION_SCOPE)
    caller.require_operation(REDRIVE_APPROVAL_SCOPE)
    actor = caller.context().actor
    async with ports.unit_of_work(background_context(caller)) as uow:
        row = await found_break(uow, ports, caller, break_id)
        _require_state(row, BreakState.PROPOSED)
        if row.proposed_by == actor:
            raise Refusal("redrive_own", "who proposed how to put a break right may not approve it")
        end = {"state": BreakState.RESOLVED, "resolved_by": actor, "ended_at": "now"}
        await ports.recon.change(uow, row.id, **end)
        await _note(uow, ports, caller, row, "break_approved", {"proposed_by": row.proposed_by})
        if row.kind == BreakKind.ORPHAN_HOLD and row.subject_id is not None:
            await _release(uow, ports, row.subject_id)
        return await found_break(uow, ports, caller, break_id)


async def _release(uow: Any, ports: ReconPorts, subject_id: UUID) -> None:
    """Void what is still held of an intent that ended, or a hold that no intent knows."""
    answers = await ports.ledger.apply(uow, await voids_of(uow, ports, subject_id))
    if any(answer not in (TransferResult.OK, TransferResult.EXISTS) for answer in answers):
        raise Refusal("wrong_state", f"the ledger answered {', '.join(sorted(set(answers)))}")


async def voids_of(uow: Any, ports: ReconPorts, subject_id: UUID) -> list[Transfer]:
    """Return what gives back what is still held of an intent that ended, or a hold that no intent knows.

    The intent is locked. Raises Refusal: wrong_state, not_found.
    """
    intent: IntentRow | None = (await ports.intents.load_intents(uow, [subject_id], lock=True)).get(subject_id)
    if intent is None:
        hold = (await ports.ledger.lookup_transfers(uow, [subject_id])).get(subject_id)
        if hold is None:
            raise Refusal("not_found", "neither a payment nor a hold has this id")
        return [_voiding(hold)]
    if not IntentState(intent.state).is_terminal or intent.state == IntentState.SETTLED:
        raise Refusal("wrong_state", f"the intent is {intent.state}: its holds are not orphans")
    books = await ports.recon.books(uow, [intent.id], [hold.id for hold in hold_transfers(intent)])
    held = books.booked.keys() - books.resolved
    return [_alone(void) for void in void_transfers(intent) if void.pending_id in held]


def _is_theirs(row: BreakView) -> bool:
    """Whether it may be the provider's to put right, by a newer register: then an explanation and two people do."""
    return row.kind.startswith(REGISTER_PREFIX)


def _alone(void: Transfer) -> Transfer:
    return replace(void, flags=TransferFlags.VOID_PENDING)


def _voiding(hold: Transfer) -> Transfer:
    return replace(
        hold, id=derive_id(hold.id, "resolution"), flags=TransferFlags.VOID_PENDING, pending_id=hold.id, timeout_s=None
    )


async def found_break(uow: Any, ports: ReconPorts, caller: Caller, break_id: UUID) -> BreakView:
    """Return one break, locked. Raises Refusal `not_found`."""
    row = await ports.recon.find(uow, break_id, reach(caller))
    if row is None:
        raise Refusal("not_found", "there is no such break")
    return row


def _require_state(row: BreakView, state: BreakState) -> None:
    if row.state is not state:
        raise Refusal("wrong_break_state", f"the break is {row.state}: this needs {state}")


async def _note(
    uow: Any, ports: ReconPorts, caller: Caller, row: BreakView, action: str, data: Mapping[str, Any]
) -> None:
    act = Act(row.tenant_id, caller.context().actor, action, f"break:{row.id}", {"kind": row.kind, **data})
    await ports.journal.append(uow, [act])
