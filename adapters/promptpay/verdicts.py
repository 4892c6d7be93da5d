"""What each answer of IPPS means for the money. Pure; docs/rails/promptpay.md has these tables, written from here.

What is not listed here is UNKNOWN: the money stays held and the status is asked for.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from adapters.promptpay.models import QrStatus, TransferStatus
from adapters.runtime import errors
from adapters.runtime.references import ReferenceTaken, ReferenceUnknown
from schemas.results import Verdict

LOOKUP_EXPIRED: Final = "lookup_expired"

STATUSES: Final[Mapping[str, Verdict]] = {
    TransferStatus.PROCESSING: Verdict.PENDING,
    TransferStatus.SUCCEEDED: Verdict.SUCCEEDED,
    TransferStatus.FAILED: Verdict.DECLINED,
    TransferStatus.CANCELED: Verdict.CANCELLED,
    TransferStatus.EXPIRED: Verdict.DECLINED,
    TransferStatus.REFUNDED: Verdict.RETURNED,
}
"""Of a transfer. LOOKED_UP is no status of one."""

QR_STATUSES: Final[Mapping[str, Verdict]] = {
    QrStatus.ACTIVE: Verdict.AWAITING_PAYMENT,
    QrStatus.PAID: Verdict.PAID,
    QrStatus.EXPIRED: Verdict.EXPIRED,
    QrStatus.CANCELED: Verdict.CANCELLED,
    QrStatus.RETURNED: Verdict.RETURNED,
}

REFUND_STATUSES: Final[Mapping[str, Verdict]] = {
    TransferStatus.PROCESSING: Verdict.PENDING,
    TransferStatus.SUCCEEDED: Verdict.SUCCEEDED,
    TransferStatus.FAILED: Verdict.DECLINED,
    TransferStatus.CANCELED: Verdict.CANCELLED,
}
"""Of a refund. REFUNDED is a payment's, and says nothing about a refund."""

REASONS: Final = ("account_closed", "insufficient_provider_funds", "limit_exceeded")
"""Reasons of a decline that the contract names, as they are; any other becomes `declined`."""

REFUSED: Final[Mapping[tuple[int, str], str]] = {
    (404, "payee_not_found"): "payee_not_found",
    (404, "biller_not_found"): "biller_not_found",
    (422, "bill_reference_refused"): "bill_reference_refused",
    (422, "bill_amount_refused"): "bill_amount_refused",
    (409, "bill_already_paid"): "bill_already_paid",
    (410, "bill_expired"): "bill_expired",
    (422, "amount_invalid"): "amount_invalid",
    (422, "amount_mismatch"): "amount_mismatch",
    (422, "field_invalid"): "field_invalid",
    (404, "payment_not_found"): "payment_not_found",
    (422, "refund_exceeds_payment"): "refund_exceeds_payment",
}
"""The request was refused for good, and nothing was executed."""

NOT_TAKEN: Final[Mapping[tuple[int, str], str]] = {
    (410, "lookup_expired"): LOOKUP_EXPIRED,
    (404, "lookup_not_found"): LOOKUP_EXPIRED,
}
"""The request was not taken, and never will be under this lookup."""

NOT_FOUND: Final = (
    (404, "transfer_not_found"),
    (404, "qr_not_found"),
    (404, "refund_not_found"),
    (404, "register_not_found"),
)
TAKEN: Final = (409, "duplicate_reference")
THROTTLED: Final = (429, "throttled")
MISCONFIGURED: Final = (401, "signature_invalid")
"""With their codes alone: what stands between us and the provider answers 401, 403 and 429 too, and may have passed the
request on before."""
NOT_CANCELABLE: Final = (409, "not_cancelable")
"""The refusal to cancel carries the transfer itself: its status is the answer."""

_SEVERAL: Final = f", of the one payment; of several {Verdict.UNKNOWN}, since which one came back is not told"


def verdict_of(table: Mapping[str, Verdict], status: str) -> Verdict:
    """Return what a status means; one outside the contract is UNKNOWN."""
    return table.get(status, Verdict.UNKNOWN)


def reason_of(verdict: Verdict, reason: str) -> str:
    """Return why, in our words, where the verdict is a refusal."""
    if verdict not in (Verdict.DECLINED, Verdict.CANCELLED):
        return ""
    return reason if reason in REASONS else "declined"


def refusal(http_status: int, code: str, evidence: str, after_s: int) -> Exception:
    """Return what an answer without success says; what is not listed may have been executed."""
    answer = (http_status, code)
    if answer in REFUSED:
        return errors.Rejected(REFUSED[answer], evidence=evidence)
    if answer in NOT_TAKEN:
        return errors.NotSent(code, reason=NOT_TAKEN[answer], evidence=evidence)
    if answer in NOT_FOUND:
        return ReferenceUnknown(evidence)
    if answer == TAKEN:
        return ReferenceTaken()
    if answer == THROTTLED:
        return errors.Throttled("throttled", after_s=after_s, evidence=evidence)
    if answer == MISCONFIGURED:
        return errors.Misconfigured(f"the provider refuses our credentials: {http_status}", evidence=evidence)
    return errors.Indeterminate(f"HTTP {http_status}", reason="provider_error", evidence=evidence)


def tables() -> Iterator[str]:
    """Yield the lines of the tables in docs/rails/promptpay.md."""
    for of, statuses in (("transfer", STATUSES), ("QR code", QR_STATUSES), ("refund", REFUND_STATUSES)):
        yield f"| status of a {of} | verdict |"
        yield "|---|---|"
        for status, verdict in statuses.items():
            several = statuses is QR_STATUSES and verdict is Verdict.RETURNED
            yield f"| `{status}` | {verdict}{_SEVERAL if several else ''} |"
        yield f"| any other status | {Verdict.UNKNOWN} |"
        yield ""
    yield "| reason beside a decline | ours |"
    yield "|---|---|"
    for reason in REASONS:
        yield f"| `{reason}` | `{reason}` |"
    yield "| any other reason | `declined` |"
    yield ""
    yield "| HTTP status and code | verdict | reason |"
    yield "|---|---|---|"
    for (http_status, code), ours in REFUSED.items():
        yield f"| {http_status} `{code}` | {Verdict.DECLINED}, of this request | `{ours}` |"
    for (http_status, code), ours in NOT_TAKEN.items():
        yield f"| {http_status} `{code}` | {Verdict.NOT_SENT}, no retry | `{ours}` |"
    for http_status, code in NOT_FOUND:
        yield f"| {http_status} `{code}` | {Verdict.NOT_FOUND}, to an inquiry | |"
    yield f"| {TAKEN[0]} `{TAKEN[1]}` | the status of the reference is asked for | |"
    yield f"| {NOT_CANCELABLE[0]} `{NOT_CANCELABLE[1]}` | the status beside it counts | |"
    yield f"| {THROTTLED[0]} `{THROTTLED[1]}` | {Verdict.NOT_SENT}, later | `throttled` |"
    text = f"{Verdict.NOT_SENT}, later; the adapter is not ready"
    yield f"| {MISCONFIGURED[0]} `{MISCONFIGURED[1]}` | {text} | `misconfigured` |"
    yield f"| any other code and status | {Verdict.UNKNOWN} | `provider_error` |"
    yield f"| success whose body is not the contract's | {Verdict.UNKNOWN} | `protocol_violation` |"
