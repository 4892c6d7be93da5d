"""One break, and what putting it right books: shown before anybody says yes."""

from typing import Any
from uuid import UUID

from core.domain.intents import IntentRow
from core.domain.ledger import Transfer, TransferFlags
from core.domain.reconciliation import BreakKind, transfers_of
from core.services.access.keys import RECONCILIATION_SCOPE, Caller
from core.services.on_call.redrives import background_context
from core.services.problems import Refusal
from core.services.recon.recon import ReconPorts, found_break, needs_approval, require_entry, voids_of
from schemas.recon import BreakEntry, BreakShown, BreakState, BreakView

_OPEN = (BreakState.OPEN, BreakState.PROPOSED)


async def show_break(ports: ReconPorts, caller: Caller, break_id: UUID) -> BreakShown:
    """Return one break with the entry that is proposed for it. Raises Refusal: operation_not_permitted, not_found."""
    caller.require_operation(RECONCILIATION_SCOPE)
    async with ports.unit_of_work(background_context(caller)) as uow:
        row = await found_break(uow, ports, caller, break_id)
        entry = row.entry_intent_id
        made = None if entry is None else (await ports.intents.load_intents(uow, [entry])).get(entry)
        return await _shown(uow, ports, row, made)


async def preview_break(ports: ReconPorts, caller: Caller, break_id: UUID, entry: UUID | None) -> BreakShown:
    """Return what putting a break right by this entry would mean; nothing is changed.

    Raises Refusal: operation_not_permitted, not_found, entry_missing.
    """
    caller.require_operation(RECONCILIATION_SCOPE)
    async with ports.unit_of_work(background_context(caller)) as uow:
        row = await found_break(uow, ports, caller, break_id)
        made = await require_entry(uow, ports, row, entry)
        return await _shown(uow, ports, row, made)


async def _shown(uow: Any, ports: ReconPorts, row: BreakView, made: IntentRow | None) -> BreakShown:
    entries = []
    if row.kind == BreakKind.ORPHAN_HOLD and row.subject_id is not None and row.state in _OPEN:
        try:
            voids = await voids_of(uow, ports, row.subject_id)
        except Refusal:
            voids = []  # what was held is no orphan any more: to agree is refused, with the reason
        holds = await ports.ledger.lookup_transfers(uow, [each.pending_id for each in voids if each.pending_id])
        entries = [_void(each, holds, row.currency) for each in voids]
    elif made is not None:
        booked = (await ports.recon.books(uow, [made.id], transfers_of(made))).booked
        entries = [
            BreakEntry(
                transfer_id=each.id, what="booked", debit_account_id=each.debit_account_id,
                credit_account_id=each.credit_account_id, amount_minor=each.amount_minor, currency=made.currency,
            )
            for each in booked.values() if not each.flags & (TransferFlags.PENDING | TransferFlags.VOID_PENDING)
        ]  # fmt: skip
    return BreakShown(**dict(row), entries=entries, needs_approval=needs_approval(ports, row, made))


def _void(void: Transfer, holds: dict[UUID, Transfer], currency: str) -> BreakEntry:
    """The hold's own money goes back the way it came."""
    hold = holds.get(void.pending_id, void) if void.pending_id else void
    return BreakEntry(
        transfer_id=void.id, what="void", debit_account_id=hold.debit_account_id,
        credit_account_id=hold.credit_account_id, amount_minor=hold.amount_minor, currency=currency,
    )  # fmt: skip
