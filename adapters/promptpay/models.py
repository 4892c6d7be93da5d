"""The payloads of IPPS (PPXC). No public documentation exists: the contract is a design, modelled on SCB's.

Amounts are decimal text of baht; references are ours; `status` counts, never the code beside it.
"""

from datetime import datetime
from enum import StrEnum

from pydantic import AwareDatetime, BaseModel, ConfigDict


class Payload(BaseModel):
    """A provider's message: fields that we do not know are ignored, those that we need are checked."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class TransferStatus(StrEnum):
    """Every status that the contract names."""

    LOOKED_UP = "LOOKED_UP"
    PROCESSING = "PROCESSING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"
    REFUNDED = "REFUNDED"


class Channel(StrEnum):
    """How a payee is named: by a proxy of tag 29, by a bill's biller and references, or by an account at a bank."""

    PROXY = "TAG29"
    BILL = "TAG30"
    ACCOUNT = "ACCOUNT"


class LookupRequest(Payload):
    """Who is behind a proxy, a bill or an account, would it be paid, and what would it cost?"""

    client_ref: str
    channel: Channel
    amount: str
    proxy_type: str | None = None
    proxy: str | None = None
    """Of TAG29: the proxy as it stands in a code. Of ACCOUNT: the account's number."""
    bank_code: str | None = None
    biller: str | None = None
    ref1: str | None = None
    ref2: str | None = None


class LookupAnswer(Payload):
    """The payee, masked, the fee, and until when a transfer may be bound to this."""

    lookup_id: str
    payee_name: str
    fee: str
    expires_at: datetime


class TransferRequest(Payload):
    """Pay what was looked up. `client_ref` is the idempotency key."""

    client_ref: str
    lookup_id: str
    amount: str


class TransferAnswer(Payload):
    """A transfer as the provider sees it. The status is text: one that we do not know must not break the reading."""

    client_ref: str
    status: str
    psp_txid: str | None = None
    amount: str | None = None
    reason: str = ""


class QrStatus(StrEnum):
    """Every status of a code that the contract names."""

    ACTIVE = "ACTIVE"
    PAID = "PAID"
    EXPIRED = "EXPIRED"
    CANCELED = "CANCELED"
    RETURNED = "RETURNED"


class QrRequest(Payload):
    """A code that is payable once, until it expires, or a static one. `client_ref` is the idempotency key."""

    client_ref: str
    amount: str
    ref1: str
    expires_at: datetime | None = None
    """None makes a static code: payable again and again, until it is cancelled."""


class QrPayment(Payload):
    """One payment that was booked for a code. A code that is payable once may have got two all the same."""

    psp_txid: str
    amount: str
    bank_ref: str | None = None


class QrAnswer(Payload):
    """A code as the provider sees it."""

    client_ref: str
    status: str
    payload: str | None = None
    expires_at: datetime | None = None
    payments: tuple[QrPayment, ...] = ()
    """What was paid for it, in order."""
    reason: str = ""


class RefundRequest(Payload):
    """Pay back what was paid by a transaction. `client_ref` is the refund's own, and its idempotency key."""

    client_ref: str
    psp_txid: str
    amount: str


class RegisterKind(StrEnum):
    """What a line of the day's register is about."""

    TRANSFER = "TRANSFER"
    QR_PAYMENT = "QR_PAYMENT"
    QR_RETURN = "QR_RETURN"
    REFUND = "REFUND"


class RegisterItem(Payload):
    """One line of the day's register."""

    line: int
    type: str
    psp_txid: str
    client_ref: str
    amount: str
    fee: str
    status: str
    at: AwareDatetime


class RegisterPage(Payload):
    """Some lines of the day's register; `next` names those that follow."""

    items: list[RegisterItem]
    next: int | None


class Webhook(Payload):
    """What IPPS tells by itself; the signature covers every byte of it."""

    event_id: str
    type: str
    psp_txid: str | None = None
    bank_ref: str | None = None
    client_ref: str
    amount: str | None = None
    status: str
    occurred_at: datetime


class ErrorAnswer(Payload):
    """A refusal; `status` stands beside it where the reference already has one."""

    code: str
    message: str = ""
    status: str | None = None
