"""What people on call see of alerts about payments, and how they close them."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from schemas.base import Contract
from schemas.on_call import Reason


class AlertKind(StrEnum):
    """What an alert can be about. Alerts are narrowed by these; an answer's `kind` is a text: old ones are kept."""

    AMOUNT_DIFFERS = "amount_differs"
    AMOUNT_MISSING = "amount_missing"
    CALLBACK_DIFFERS = "callback_differs"
    COLLECTION_RETURNED = "collection_returned"
    CURRENCY_DIFFERS = "currency_differs"
    END_DOUBTED = "end_doubted"
    FAILURE_AFTER_SUCCESS = "failure_after_success"
    FEE_NOT_RETURNED = "fee_not_returned"
    FOUND_WITHOUT_LOOKUP = "found_without_lookup"
    LEDGER_REFUSED = "ledger_refused"
    NAME_OF_ANOTHER_TRANSACTION = "name_of_another_transaction"
    PAYMENT_RETURNED = "payment_returned"
    RECONCILIATION_BREAK = "reconciliation_break"
    REFERENCE_DIFFERS = "reference_differs"
    REFUND_RUNNING = "refund_running"
    RESOLUTION_FAILED = "resolution_failed"
    RETURN_DIFFERS = "return_differs"
    RETURN_EXCEEDS_ORIGINAL = "return_exceeds_original"
    RETURN_IN_SUSPENSE = "return_in_suspense"
    RETURN_NOT_BOOKED = "return_not_booked"
    RETURN_OF_UNKNOWN_PAYMENT = "return_of_unknown_payment"
    RETURN_UNCONFIRMED = "return_unconfirmed"
    RETURN_WITHOUT_ATTEMPT = "return_without_attempt"
    RETURNED_AFTER_VOID = "returned_after_void"
    SAME_FACT_OTHER_MONEY = "same_fact_other_money"
    SAME_TRANSACTION_OTHER_MONEY = "same_transaction_other_money"
    SECOND_RETURN = "second_return"
    SECOND_TRANSACTION = "second_transaction"
    STRANDED_OVERHELD = "stranded_overheld"
    STRANDED_UNANSWERED = "stranded_unanswered"
    STRANDED_UNASKED = "stranded_unasked"
    STRANDED_UNCANCELLED = "stranded_uncancelled"
    STRANDED_UNCHECKED = "stranded_unchecked"
    STRANDED_UNCLOSED = "stranded_unclosed"
    STRANDED_UNENDED = "stranded_unended"
    STRANDED_UNOWNED = "stranded_unowned"
    STRANDED_UNQUEUED = "stranded_unqueued"
    STRANDED_UNRELEASED = "stranded_unreleased"
    STRANDED_UNREVIEWED = "stranded_unreviewed"
    STRANDED_UNSENT = "stranded_unsent"
    STRANDED_UNTOLD = "stranded_untold"
    SUCCESS_AFTER_VOID = "success_after_void"
    SUCCESS_WITHOUT_ATTEMPT = "success_without_attempt"
    SUSPENSE_AMOUNT_DIFFERS = "suspense_amount_differs"
    SUSPENSE_CURRENCY_DIFFERS = "suspense_currency_differs"
    SUSPENSE_FEE_WALLET_CLOSED = "suspense_fee_wallet_closed"
    SUSPENSE_FEES_NOT_COVERED = "suspense_fees_not_covered"
    SUSPENSE_LATE_PAYMENT = "suspense_late_payment"
    SUSPENSE_RETURNED_BEFORE = "suspense_returned_before"
    SUSPENSE_SECOND_PAYMENT = "suspense_second_payment"
    SUSPENSE_UNKNOWN_REFERENCE = "suspense_unknown_reference"
    SUSPENSE_WALLET_CLOSED = "suspense_wallet_closed"
    SUSPENSE_WALLET_FROZEN = "suspense_wallet_frozen"
    TRANSACTION_MISSING = "transaction_missing"
    TRANSACTION_OF_ANOTHER = "transaction_of_another"
    TRANSACTION_OF_ANOTHER_COLLECTION = "transaction_of_another_collection"
    UNCONFIRMED_PAYMENT = "unconfirmed_payment"
    UNRESOLVED = "unresolved"
    UNUSABLE_RESULT = "unusable_result"
    VERDICT_NOT_OF_A_COLLECTION = "verdict_not_of_a_collection"
    VERDICT_NOT_OF_A_LOOKUP = "verdict_not_of_a_lookup"
    VERDICT_NOT_OF_A_PAYMENT = "verdict_not_of_a_payment"
    VOID_RATE_EXCEEDED = "void_rate_exceeded"
    WEBHOOK_DEAD = "webhook_dead"
    WEBHOOK_DISABLED = "webhook_disabled"


class AlertSeverity(StrEnum):
    """Who closes it: `page` is about money, and two people close it."""

    PAGE = "page"
    TICKET = "ticket"


class AlertState(StrEnum):
    """Whether anybody has looked after it."""

    OPEN = "OPEN"
    PROPOSED = "PROPOSED"
    """A person asked to close it, and a second one has to agree."""
    CLOSED = "CLOSED"


class AlertsWanted(StrEnum):
    """Which alerts a list has."""

    WAITING = "WAITING"
    """Open ones, and those that somebody proposed to close."""
    OPEN = "OPEN"
    PROPOSED = "PROPOSED"
    CLOSED = "CLOSED"
    ALL = "ALL"


class AlertView(Contract):
    """One alert about a payment, or about the core's own work."""

    id: UUID
    tenant_id: UUID
    severity: AlertSeverity
    kind: str
    """Its section is in docs/runbook.md."""
    detail: str
    intent_id: UUID | None
    job_id: UUID | None
    state: AlertState
    stands: str
    """Why it cannot be closed yet: what it tells of is still so. Empty: it can."""
    raised_at: datetime
    age_s: int
    proposed_by: str | None
    proposed_at: datetime | None
    closed_by: str | None
    """`core` where it made good by itself what the alert told of."""
    closed_because: str
    closed_at: datetime | None


class AlertList(Contract):
    """Alerts, the oldest first."""

    items: list[AlertView]
    next_cursor: str | None = None


class AlertClosing(Contract):
    """Why an alert is closed, or why a second person agrees to that."""

    reason: Reason
