"""Books against intents: what each intent's state says that the ledger must hold, and what it holds. Pure."""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from core.domain.ids import derive_id
from core.domain.intents import IntentRow
from core.domain.ledger import Transfer, TransferFlags
from core.domain.operations import hold_transfers, post_transfers, posting_transfers
from core.domain.registry import OPERATIONS
from schemas.events import IntentState
from schemas.operations import OperationType


class BreakKind(StrEnum):
    """What can be wrong between intents and books; `ledger_…` kinds come from the ledger's own proof."""

    SETTLED_AMOUNT_MISMATCH = "settled_amount_mismatch"
    SETTLED_TRANSFERS_MISSING = "settled_transfers_missing"
    SETTLED_AMOUNT_ZERO = "settled_amount_zero"
    ORPHAN_HOLD = "orphan_hold"
    HOLD_MISSING = "hold_missing"
    ENDED_BUT_POSTED = "ended_but_posted"
    PROJECTION_DRIFT = "projection_drift"


@dataclass(frozen=True, slots=True)
class Break:
    """One thing that does not fit. `amount_minor` is what is at stake, where a single amount is."""

    kind: str
    tenant_id: UUID
    subject_id: UUID | None
    detail: str
    amount_minor: int = 0
    currency: str = ""

    @property
    def id(self) -> UUID:
        """The same kind about the same subject is one break."""
        return derive_id(self.subject_id or self.tenant_id, "break", self.kind, "" if self.subject_id else self.detail)


@dataclass(frozen=True, slots=True)
class Booked:
    """A transfer as it is in the books."""

    id: UUID
    debit_account_id: UUID
    credit_account_id: UUID
    amount_minor: int
    flags: int


@dataclass(frozen=True, slots=True)
class Told:
    """What the events of an intent say: how many, the highest number, the newest state."""

    events: int
    seq: int
    state: str


_UNPAID_ENDS = frozenset({IntentState.FAILED, IntentState.CANCELLED, IntentState.EXPIRED})
_HELD = frozenset({IntentState.REVIEW, IntentState.AUTHORIZED, IntentState.DISPATCHED, IntentState.UNRESOLVED})


def is_judged(intent: IntentRow) -> bool:
    """Whether the intent's money goes by legs that its state alone decides: all but collections."""
    return not OPERATIONS[OperationType(intent.operation)].collects


def transfers_of(intent: IntentRow) -> list[UUID]:
    """Return the id of every transfer that the intent may have in the books."""
    chains = (hold_transfers(intent), post_transfers(intent), posting_transfers(intent))
    return [transfer.id for chain in chains for transfer in chain]


def breaks_of(intent: IntentRow, booked: Mapping[UUID, Booked], resolved: Set[UUID], told: Told | None) -> list[Break]:
    """Return what does not fit. `booked` are the intent's transfers, `resolved` its holds that are resolved."""
    found: list[Break] = []
    state = IntentState(intent.state)
    if state is IntentState.SETTLED:
        found += _settled(intent, booked)
    elif state in _UNPAID_ENDS:
        found += _ended(intent, booked)
    holds = [hold for hold in hold_transfers(intent) if hold.id in booked]
    if state in _HELD:
        gone = [hold for hold in hold_transfers(intent) if hold.id not in booked or hold.id in resolved]
        if gone:
            text = f"{state}, and {len(gone)} of its holds are not held"
            found.append(_break(intent, BreakKind.HOLD_MISSING, text, sum(hold.amount_minor for hold in gone)))
    elif orphans := [hold for hold in holds if hold.id not in resolved]:
        text = f"{state}, and {len(orphans)} of its holds are still held"
        found.append(_break(intent, BreakKind.ORPHAN_HOLD, text, sum(booked[x.id].amount_minor for x in orphans)))
    if told is None or (told.events, told.seq, told.state) != (intent.version, intent.version, intent.state):
        events = "no event" if told is None else f"{told.events} events up to {told.seq} in {told.state}"
        text = f"the intent is {intent.state} in version {intent.version}, its events say {events}"
        found.append(_break(intent, BreakKind.PROJECTION_DRIFT, text))
    return found


def _settled(intent: IntentRow, booked: Mapping[UUID, Booked]) -> list[Break]:
    posts = post_transfers(intent)
    # Held first and posted, or settled at once: whichever left anything in the books.
    expected = posts if any(x.id in booked or x.pending_id in booked for x in posts) else posting_transfers(intent)
    missing = [x for x in expected if x.id not in booked or _voids(booked[x.id])]
    there = [(x, booked[x.id]) for x in expected if x.id in booked and not _voids(booked[x.id])]
    zero = [x for x, entry in there if entry.amount_minor == 0]
    differing = [(x, entry) for x, entry in there if entry.amount_minor != 0 and not _same(x, entry)]
    found = []
    if missing:
        text = f"SETTLED, and {len(missing)} of its {len(expected)} transfers are not in the books"
        found.append(_break(intent, BreakKind.SETTLED_TRANSFERS_MISSING, text, sum(x.amount_minor for x in missing)))
    if zero:
        text = f"SETTLED, and {len(zero)} of its transfers moved 0"
        found.append(_break(intent, BreakKind.SETTLED_AMOUNT_ZERO, text, sum(x.amount_minor for x in zero)))
    if differing:
        told = ", ".join(f"{entry.amount_minor} instead of {x.amount_minor}" for x, entry in differing)
        at_stake = sum(abs(entry.amount_minor - x.amount_minor) for x, entry in differing)
        found.append(_break(intent, BreakKind.SETTLED_AMOUNT_MISMATCH, f"SETTLED, and moved {told}", at_stake))
    return found


def _ended(intent: IntentRow, booked: Mapping[UUID, Booked]) -> list[Break]:
    posted = [
        booked[x.id]
        for x in (*post_transfers(intent), *posting_transfers(intent))
        if x.id in booked and not _voids(booked[x.id])
    ]
    if not posted:
        return []
    text = f"{intent.state}, and {len(posted)} transfers of it were posted"
    return [_break(intent, BreakKind.ENDED_BUT_POSTED, text, sum(entry.amount_minor for entry in posted))]


def _voids(entry: Booked) -> bool:
    return bool(entry.flags & TransferFlags.VOID_PENDING)


def _same(expected: Transfer, entry: Booked) -> bool:
    told = (entry.debit_account_id, entry.credit_account_id, entry.amount_minor)
    return told == (expected.debit_account_id, expected.credit_account_id, expected.amount_minor)


def _break(intent: IntentRow, kind: BreakKind, detail: str, amount_minor: int = 0) -> Break:
    return Break(kind.value, intent.tenant_id, intent.id, detail, amount_minor, intent.currency)
