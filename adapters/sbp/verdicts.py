"""What each answer of QP means for the money. Pure; the tables in docs/rails/sbp.md are written from this module.

What is not listed here is UNKNOWN: the money stays held and the status is asked for.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from adapters.runtime import errors
from adapters.runtime.references import ReferenceTaken, ReferenceUnknown
from adapters.sbp.models import DeclineReason, PaymentStatus, PayoutStatus, QrStatus, RefundStatus
from schemas.results import Verdict

LOOKUP_EXPIRED: Final = "lookup_expired"
SUCCESS: Final = "SUCCESS"

STATUSES: Final[Mapping[str, Verdict]] = {
    PayoutStatus.IN_PROGRESS: Verdict.PENDING,
    PayoutStatus.PENDING: Verdict.PENDING,
    PayoutStatus.WAITING_CONFIRMATION: Verdict.PENDING,
    PayoutStatus.COMPLETED: Verdict.SUCCEEDED,
    PayoutStatus.DECLINED: Verdict.DECLINED,
}

QR_STATUSES: Final[Mapping[str, Verdict]] = {
    QrStatus.NEW: Verdict.AWAITING_PAYMENT,
    QrStatus.IN_PROGRESS: Verdict.AWAITING_PAYMENT,
    QrStatus.CANCELLED: Verdict.CANCELLED,
    QrStatus.EXPIRED: Verdict.EXPIRED,
}
"""Of a code that nobody paid by. `PAID` without a payment is UNKNOWN: the payments say what was received."""

PAYMENT_STATUSES: Final[Mapping[str, Verdict]] = {
    PaymentStatus.SUCCESS: Verdict.PAID,
    PaymentStatus.IN_PROGRESS: Verdict.PENDING,
    PaymentStatus.NO_INFO: Verdict.PENDING,
    PaymentStatus.DECLINED: Verdict.DECLINED,
}
"""Of one payment by a code. A declined one leaves the code as it is."""

REFUND_STATUSES: Final[Mapping[str, Verdict]] = {
    RefundStatus.IN_PROGRESS: Verdict.PENDING,
    RefundStatus.COMPLETED: Verdict.SUCCEEDED,
    RefundStatus.DECLINED: Verdict.DECLINED,
}

DECLINES: Final[Mapping[str, str]] = {
    DeclineReason.SYSTEM_ERROR: "provider_error",
    DeclineReason.TIMEOUT: "provider_timeout",
    DeclineReason.BANK_NOT_SUPPORTED: "payee_bank_not_supported",
    DeclineReason.RECEIVER_ACCOUNT_ERROR: "payee_account_refused",
    DeclineReason.WRONG_RECIPIENT: "payee_mismatch",
}
"""Reasons of DECLINED, in our words; any other is `declined`."""

REFUSED: Final[Mapping[str, str]] = {
    "ERROR.INVALID_REQUEST": "field_invalid",
    "ERROR.INVALID_AMOUNT": "amount_invalid",
    "ERROR.AMOUNT_LIMIT_EXCEEDED": "limit_exceeded",
    "ERROR.INSUFFICIENT_FUNDS": "insufficient_provider_funds",
    "ERROR.BANK_NOT_SUPPORTED": "payee_bank_not_supported",
    "ERROR.RECEIVER_NOT_FOUND": "payee_not_found",
    "ERROR.WRONG_RECIPIENT": "payee_mismatch",
    "ERROR.CHECK_MISMATCH": "lookup_mismatch",
    "ERROR.REFUND_INSUFFICIENT_FUNDS": "refund_exceeds_payment",
    "ERROR.PAYMENT_NOT_FOUND": "payment_not_found",
}
"""The request was refused for good, and nothing was executed."""

NOT_TAKEN: Final[Mapping[str, str]] = {
    "ERROR.CHECK_EXPIRED": LOOKUP_EXPIRED,
    "ERROR.CHECK_NOT_FOUND": LOOKUP_EXPIRED,
}
"""The request was not taken, and never will be under this check."""

MISCONFIGURED: Final = frozenset({"ERROR.UNAUTHORIZED", "ERROR.ACCOUNT_IS_NOT_REGISTERED"})
THROTTLED: Final = "ERROR.TOO_MANY_REQUESTS"
PAYOUT_EXISTS, PAYOUT_NOT_FOUND = "ERROR.PAYOUT_EXISTS", "ERROR.PAYOUT_NOT_FOUND"
ORDER_EXISTS, ORDER_NOT_FOUND = "ERROR.ORDER_EXISTS", "ERROR.ORDER_NOT_FOUND"
REFUND_EXISTS, REFUND_NOT_FOUND = "ERROR.REFUND_EXISTS", "ERROR.REFUND_NOT_FOUND"
TAKEN: Final = frozenset({PAYOUT_EXISTS, ORDER_EXISTS, REFUND_EXISTS})
REGISTER_NOT_FOUND: Final = "ERROR.REGISTER_NOT_FOUND"
NOT_FOUND: Final = frozenset({PAYOUT_NOT_FOUND, ORDER_NOT_FOUND, REFUND_NOT_FOUND, REGISTER_NOT_FOUND})


def verdict_of(status: str) -> Verdict:
    """Return what a status of the reference means; one outside the contract is UNKNOWN."""
    return STATUSES.get(status, Verdict.UNKNOWN)


def reason_of(verdict: Verdict, reason: str) -> str:
    """Return why, in our words, where the verdict is a decline."""
    return DECLINES.get(reason, "declined") if verdict is Verdict.DECLINED else ""


def refusal(http_status: int, code: str, evidence: str, after_s: int) -> Exception:
    """Return what a body with an error code says, under whatever HTTP status below 500 it came.

    A server error says nothing whatever its body says: it may have been executed.
    """
    if http_status < 500:
        if code in REFUSED:
            return errors.Rejected(REFUSED[code], evidence=evidence)
        if code in NOT_TAKEN:
            return errors.NotSent(code, reason=NOT_TAKEN[code], evidence=evidence)
        if code in TAKEN:
            return ReferenceTaken()
        if code in NOT_FOUND:
            return ReferenceUnknown(evidence)
        if code == THROTTLED:
            return errors.Throttled("throttled", after_s=after_s, evidence=evidence)
        if code in MISCONFIGURED:
            return errors.Misconfigured(f"the provider refuses our credentials or account: {code}", evidence=evidence)
    return errors.Indeterminate(f"HTTP {http_status}", reason="provider_error", evidence=evidence)


def tables() -> Iterator[str]:
    """Yield the lines of the tables in docs/rails/sbp.md."""
    yield "| status of a payout | verdict | reason |"
    yield "|---|---|---|"
    for status, verdict in STATUSES.items():
        if verdict is not Verdict.DECLINED:
            yield f"| `{status}` | {verdict} | |"
    for reason, ours in DECLINES.items():
        yield f"| `DECLINED`, `{reason}` | {Verdict.DECLINED} | `{ours}` |"
    yield f"| `DECLINED`, any other reason | {Verdict.DECLINED} | `declined` |"
    yield f"| any other status | {Verdict.UNKNOWN} | |"
    yield ""
    yield "| status of a QR code that nobody paid by | verdict |"
    yield "|---|---|"
    for status, verdict in QR_STATUSES.items():
        yield f"| `{status}` | {verdict} |"
    yield f"| any other status | {Verdict.UNKNOWN} |"
    yield ""
    yield "| status of a payment by a QR code | verdict |"
    yield "|---|---|"
    for status, verdict in PAYMENT_STATUSES.items():
        yield f"| `{status}` | {verdict if verdict is not Verdict.DECLINED else 'none: the code may still be paid'} |"
    yield f"| any other status, and no payment that succeeded | {Verdict.UNKNOWN} |"
    yield ""
    yield "| status of a refund | verdict |"
    yield "|---|---|"
    for status, verdict in REFUND_STATUSES.items():
        yield f"| `{status}` | {verdict} |"
    yield f"| any other status | {Verdict.UNKNOWN} |"
    yield ""
    yield "| code in the body, HTTP 200 to 499 | verdict | reason |"
    yield "|---|---|---|"
    for code, ours in REFUSED.items():
        yield f"| `{code}` | {Verdict.DECLINED}, of this request | `{ours}` |"
    for code, ours in NOT_TAKEN.items():
        yield f"| `{code}` | {Verdict.NOT_SENT}, no retry | `{ours}` |"
    yield f"| `{THROTTLED}` | {Verdict.NOT_SENT}, later | `throttled` |"
    for code in sorted(MISCONFIGURED):
        yield f"| `{code}` | {Verdict.NOT_SENT}, later; the adapter is not ready | `misconfigured` |"
    for code in sorted(TAKEN):
        yield f"| `{code}` | the status of the reference is asked for | |"
    for code in sorted(NOT_FOUND):
        yield f"| `{code}` | {Verdict.NOT_FOUND}, to an inquiry | |"
    yield f"| any other code, and every HTTP status from 500 | {Verdict.UNKNOWN} | `provider_error` |"
