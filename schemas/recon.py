"""Reconciliation as people see it: runs, breaks, and how they are put right. Amounts are minor units."""

from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from schemas.base import AnyMoment, Contract
from schemas.on_call import Reason


class BreakState(StrEnum):
    """The life of a break."""

    OPEN = "OPEN"
    PROPOSED = "PROPOSED"
    """Somebody says how it is put right; a second person has to agree."""
    RESOLVED = "RESOLVED"
    GONE = "GONE"
    """A later full run did not find it any more."""


class BreakName(StrEnum):
    """Every kind of break: between intents and books, of the ledger's own proof, of registers, of quarantined facts."""

    ENDED_BUT_POSTED = "ended_but_posted"
    HOLD_MISSING = "hold_missing"
    LEDGER_ACCOUNT_MISSING = "ledger_account_missing"
    LEDGER_BALANCE_DIFFERS = "ledger_balance_differs"
    LEDGER_CHAIN_BROKEN = "ledger_chain_broken"
    LEDGER_FLAG_BROKEN = "ledger_flag_broken"
    LEDGER_LEDGER_UNBALANCED = "ledger_ledger_unbalanced"
    LEDGER_RESOLUTION_UNFOUNDED = "ledger_resolution_unfounded"
    ORPHAN_HOLD = "orphan_hold"
    PAYMENT_QUARANTINED = "payment_quarantined"
    PROJECTION_DRIFT = "projection_drift"
    REGISTER_ABSENT = "register_absent"
    REGISTER_AMOUNT = "register_amount"
    REGISTER_DUPLICATE = "register_duplicate"
    REGISTER_FEE = "register_fee"
    REGISTER_MISSING_HERE = "register_missing_here"
    REGISTER_MISSING_THERE = "register_missing_there"
    REGISTER_STATUS = "register_status"
    SETTLED_AMOUNT_MISMATCH = "settled_amount_mismatch"
    SETTLED_AMOUNT_ZERO = "settled_amount_zero"
    SETTLED_TRANSFERS_MISSING = "settled_transfers_missing"


class BreakView(Contract):
    """One thing that did not fit."""

    id: UUID
    tenant_id: UUID
    kind: str
    subject_id: UUID | None
    amount_minor: int
    currency: str
    detail: str
    state: BreakState
    owner: str
    reason: str
    entry_intent_id: UUID | None
    proposed_by: str
    resolved_by: str
    first_seen_at: datetime
    last_seen_at: datetime
    ended_at: datetime | None
    age_s: int
    rail: str = ""
    """Of a break that a register told of: where, about which day, and under which reference."""
    provider_account: str = ""
    environment: str = ""
    business_day: date | None = None
    reference: str = ""
    intent_id: UUID | None = None
    """The payment of ours that it is about, where there is one."""


class BreakEntry(Contract):
    """One transfer that puts a break right: booked by the payment that is named, or a void that is to be booked."""

    transfer_id: UUID
    what: Literal["booked", "void"]
    debit_account_id: UUID
    credit_account_id: UUID
    amount_minor: int
    """Of a void, what was held from the debit account and is given back to it."""
    currency: str


class BreakShown(BreakView):
    """One break, what putting it right books, and whether a second person has to agree."""

    entries: list[BreakEntry]
    needs_approval: bool


class BreakList(Contract):
    """Breaks, the oldest first."""

    items: list[BreakView]
    next_cursor: str | None = None


class BreakOwner(Contract):
    """Who looks after a break."""

    owner: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[!-~]+$")]


class BreakResolution(Contract):
    """How a break is put right: by the entry that was made for it; books are never edited."""

    reason: Reason
    entry_intent_id: UUID | None = None


class BreakPreview(Contract):
    """The body of `POST /v1/breaks/{break_id}/preview`."""

    entry_intent_id: UUID | None = None


class BooksCompared(StrEnum):
    """What the books are compared with."""

    LEDGER = "ledger"
    """With themselves: every transfer."""
    INTENTS = "intents"
    """With every payment and its events."""


class BooksAsked(Contract):
    """The body of `POST /v1/recon/books`."""

    what: BooksCompared
    since: AnyMoment | None = None
    """Of intents: only those made since; left out, all, and breaks that are not found any more end."""


class ReconReport(Contract):
    """What one run found."""

    what: str
    compared: int
    unjudged: int
    """Intents whose legs their state alone does not decide, such as collections."""
    found: dict[str, int]
    new: int
    gone: int
    """Breaks that were open and are not found any more; only a full run ends them."""
    since: datetime | None = None

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.found
