"""Read intents: one, or a list, newest first."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Any, Final, Protocol
from uuid import UUID

from core.domain.context import Context
from core.domain.fee_legs import FeeLeg, plain_legs
from core.domain.intents import IntentRow
from core.services.access.keys import Caller
from core.services.cursors import decode_cursor, encode_cursor, id_of
from core.services.payments.plans import asking_wallet
from core.services.problems import Refusal
from schemas.announced_returns import ReturnedView
from schemas.api import LookupView, QrParts
from schemas.events import IntentState
from schemas.fees import FeePhase
from schemas.operations import Direction

_BACK: Final = frozenset({Direction.RETURN, Direction.SUSPENSE, Direction.REVERSAL, Direction.RECEIVABLE})
"""Directions of the refunds that book what a provider gave or took back."""

UnitOfWorkFactory = Callable[[Context], AbstractAsyncContextManager[Any]]


@dataclass(frozen=True, slots=True)
class IntentFilter:
    """What a list is narrowed to; None narrows nothing. `accounts` is what the key may see."""

    state: IntentState | None = None
    wallet_id: UUID | None = None
    reference: str | None = None
    original_intent_id: UUID | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    accounts: Sequence[UUID] | None = None


class IntentReader(Protocol):
    """Where intents are read."""

    async def load_intents(self, uow: Any, ids: Sequence[UUID]) -> dict[UUID, IntentRow]: ...
    async def page_of_intents(
        self, uow: Any, wanted: IntentFilter, before: UUID | None, limit: int
    ) -> list[IntentRow]: ...
    async def returned_of(self, uow: Any, intent_id: UUID) -> ReturnedView | None: ...


class ReadService:
    """Shows the intents of the caller's tenant and accounts; what it may not see does not exist."""

    def __init__(
        self, unit_of_work: UnitOfWorkFactory, intents: IntentReader, maybe_old: UnitOfWorkFactory | None = None
    ) -> None:
        self._unit_of_work, self._intents = unit_of_work, intents
        self._maybe_old = maybe_old or unit_of_work

    async def get(self, caller: Caller, intent_id: UUID) -> IntentRow:
        """Return one intent. Raises Refusal `not_found`."""
        return (await self.show(caller, intent_id))[0]

    async def show(self, caller: Caller, intent_id: UUID) -> tuple[IntentRow, ReturnedView | None]:
        """Return one intent, and what came back of it or is announced to. Raises Refusal `not_found`."""
        async with self._unit_of_work(caller.context()) as uow:
            row = visible(await self._intents.load_intents(uow, [intent_id]), intent_id, caller)
            return row, await returned_of(uow, self._intents, row)

    async def page(
        self, caller: Caller, wanted: IntentFilter, cursor: str | None, limit: int
    ) -> tuple[list[IntentRow], str | None]:
        """Return a page and the next one's cursor. Raises Refusal: account_not_permitted, cursor_malformed."""
        before = None
        if cursor is not None:
            before = id_of(decode_cursor(cursor, 1)[0])
        if wanted.wallet_id is not None:
            caller.require_account(wanted.wallet_id)
        # A first page may be a little old. A page behind a cursor is not read where less may be known than was shown.
        async with (self._maybe_old if before is None else self._unit_of_work)(caller.context()) as uow:
            rows = await self._intents.page_of_intents(uow, wanted, before, limit + 1)
        following = encode_cursor(str(rows[limit - 1].id)) if len(rows) > limit else None
        return rows[:limit], following


class Sight(Enum):
    """How much of an intent a caller sees."""

    WHOLE = auto()
    """Who pays, and who sees every wallet."""
    ASKED = auto()
    """Whose wallet asked for another's money: all but why that one could not pay."""
    RECEIVED = auto()
    """Who got the money: that it came, from which wallet, with which comment."""


def sight_of(row: IntentRow, caller: Caller) -> Sight | None:
    """Return how much of the intent the caller may see; None where it does not exist for that one."""
    if caller.accounts is None or row.wallet_id in caller.accounts:
        return Sight.WHOLE
    if row.counterparty_wallet_id not in caller.accounts:
        return None
    if asking_wallet(row) in caller.accounts:
        return Sight.ASKED
    # Before, and where nothing ever comes, it is the payer's alone: what failed tells what the payer has left.
    return Sight.RECEIVED if row.state == IntentState.SETTLED else None


def visible(rows: dict[UUID, IntentRow], intent_id: UUID, caller: Caller) -> IntentRow:
    """Return the intent that the caller may see. Raises Refusal `not_found`."""
    row = rows.get(intent_id)
    if row is None or sight_of(row, caller) is None:
        raise Refusal("not_found", "there is no such intent")
    return row


async def returned_of(uow: Any, intents: IntentReader, row: IntentRow) -> ReturnedView | None:
    """Return what came back of a payment by a rail that has ended; of a refund that books that, of its original."""
    if row.rail is None or not IntentState(row.state).is_terminal:
        return None
    about = row.original_intent_id if row.direction in _BACK else None
    return await intents.returned_of(uow, about or row.id)


_NOT_RECEIVED: Final[dict[str, Any]] = {
    "requires_monitoring": False,
    "on_behalf_of": None,
    "reference": "",
    "failure": None,
    "deadline": None,
}
"""What who got the money is shown instead of what the payer's side alone knows."""
_NOT_TOLD: Final = "the payer cannot pay this: why is the payer's to see"


def intent_shown(row: IntentRow, caller: Caller, returned: ReturnedView | None = None) -> dict[str, Any]:
    """Return as much of the intent as the caller may see, in the shape of `schemas.api.IntentView`."""
    view = intent_view(row, returned)
    sight = sight_of(row, caller)
    if sight is Sight.WHOLE:
        return view
    if sight is Sight.ASKED:
        failure = view["failure"]
        return view | {"failure": failure and {"code": failure["code"], "message": _NOT_TOLD, "limit": None}}
    # The fees on top are the payer's; those out of the amount say why less came.
    taken = [leg for leg in row.fee_legs if leg.phase is FeePhase.POST or row.is_refund]
    return view | _NOT_RECEIVED | {"fee_minor": 0, "fees": _fees(row, taken)}


def intent_view(row: IntentRow, returned: ReturnedView | None = None) -> dict[str, Any]:
    """Return the intent as the API shows it, in the shape of `schemas.api.IntentView`: plain, for the hot path."""
    lookup = None
    if row.lookup is not None:
        lookup = LookupView(
            payee_name_masked=row.lookup.get("payee_name_masked"),
            fee_minor=row.lookup.get("fee_minor", 0) + row.fees_on_top_minor,
            expires_at=row.lookup.get("expires_at"),
            qr=QrParts(**row.payee_qr) if row.payee_qr is not None else None,
        ).model_dump()
    failure = None
    if row.failure_code is not None:
        exceeded = (row.limits or {}).get("exceeded")
        failure = {"code": row.failure_code, "message": row.failure_message or "", "limit": exceeded}
    return {
        "id": row.id,
        "operation": row.operation,
        "state": row.state,
        "wallet_id": row.wallet_id,
        "amount_minor": row.amount_minor,
        "currency": row.currency,
        "fee_minor": row.fee_minor,
        "received_minor": row.recipient_minor,
        "fees": _fees(row, row.fee_legs) if row.fee_legs else [],
        "counterparty_wallet_id": row.counterparty_wallet_id,
        "direction": row.direction,
        "original_intent_id": row.original_intent_id,
        "requires_monitoring": row.requires_monitoring,
        "on_behalf_of": row.on_behalf_of,
        "exchange": (row.exchange._asdict() | {"received_minor": row.bought_minor}) if row.exchange else None,
        "payee_type": row.payee_type,
        "payee_masked": row.payee_masked,
        "reference": row.client_reference,
        "comment": row.comment,
        "rail": row.rail,
        "provider_reference": row.provider_reference,
        "lookup": lookup,
        "failure": failure,
        "next_action": row.next_action,
        "confirmed_minor": row.confirmed_minor,
        "returned": returned.model_dump() if returned is not None else None,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "deadline": row.deadline,
    }


def _fees(row: IntentRow, legs: Sequence[FeeLeg]) -> list[dict[str, Any]]:
    shown = plain_legs(legs)
    for leg, plain in zip(legs, shown, strict=True):
        plain["currency"] = row.currency_of_fee(leg)
    return shown
