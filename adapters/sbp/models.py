"""The payloads of QP. No public documentation exists: the contract is a design, modelled on Raiffeisen's public API.

Source of the shapes and codes: Raiffeisen-DGTL/ecom-API, `payout.yml` and `sbp.yml`. Amounts are JSON numbers of
roubles, read by their digits (`client.read_json`), never as floating point. References are ours: `id` of a payout.
"""

from enum import StrEnum

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from schemas.collections import TRANSACTION_LENGTH_MAX


class Payload(BaseModel):
    """A provider's message: fields that we do not know are ignored, those that we need are checked."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )


class PayoutStatus(StrEnum):
    """Every status of a payout that the contract names."""

    IN_PROGRESS = "IN_PROGRESS"
    PENDING = "PENDING"
    WAITING_CONFIRMATION = "WAITING_CONFIRMATION"
    COMPLETED = "COMPLETED"
    DECLINED = "DECLINED"


class DeclineReason(StrEnum):
    """Every reason of a declined payout that the contract names."""

    SYSTEM_ERROR = "SYSTEM_ERROR"
    TIMEOUT = "TIMEOUT"
    BANK_NOT_SUPPORTED = "BANK_NOT_SUPPORTED"
    RECEIVER_ACCOUNT_ERROR = "RECEIVER_ACCOUNT_ERROR"
    WRONG_RECIPIENT = "WRONG_RECIPIENT"


class Bank(Payload):
    """A member of SBP that takes payouts."""

    alias: str = Field(min_length=1, max_length=40)
    member_id: str = Field(pattern=r"^[0-9]{12}$")
    name: str = ""


class PayoutParams(Payload):
    """Whom to pay: a phone at a bank."""

    phone: str
    bank_alias: str


class CheckRequest(Payload):
    """Who is behind this phone at this bank, and what would a payout cost?"""

    account: str
    amount: str
    currency: str = "RUB"
    payout_params: PayoutParams


class CheckAnswer(Payload):
    """The receiver as the system masks him, the fee, and until when a payout may be bound to this."""

    check_id: str
    receiver_name: str = Field(max_length=140)
    fee: str
    expires_date: AwareDatetime


class PayoutRequest(Payload):
    """Pay what was checked. `id` is unique for ever; a draft waits for its confirmation."""

    id: str
    account: str
    amount: str
    currency: str = "RUB"
    payout_method: str = "SBP"
    payout_params: PayoutParams
    check_id: str
    payment_details: str = ""
    draft: bool = False


class StatusAnswer(Payload):
    """The status counts. It is text: one that we do not know must not break the reading."""

    value: str
    date: str = ""
    decline_reason: str = ""


class PayoutAnswer(Payload):
    """A payout as the provider sees it."""

    id: str
    amount: str
    currency: str = Field(pattern=r"^[A-Z]{3}$")
    status: StatusAnswer
    transaction_id: str | None = Field(default=None, max_length=TRANSACTION_LENGTH_MAX)


class ErrorAnswer(Payload):
    """A refusal, possibly under HTTP 200; SUCCESS is what some answers say beside what was asked."""

    code: str
    message: str = ""


class QrType(StrEnum):
    """A dynamic code is paid once; a static one as often as somebody likes."""

    DYNAMIC = "QRDynamic"
    STATIC = "QRStatic"


class QrStatus(StrEnum):
    """Every status of a QR code that the contract names."""

    NEW = "NEW"
    IN_PROGRESS = "IN_PROGRESS"
    PAID = "PAID"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


class PaymentStatus(StrEnum):
    """Every status of a payment by a QR code that the contract names."""

    SUCCESS = "SUCCESS"
    DECLINED = "DECLINED"
    NO_INFO = "NO_INFO"
    IN_PROGRESS = "IN_PROGRESS"


class RefundStatus(StrEnum):
    """Every status of a refund that the contract names."""

    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    DECLINED = "DECLINED"


class QrRequest(Payload):
    """Issue a QR code for an order of ours; `order` is unique for ever."""

    order: str
    account: str
    amount: str
    currency: str = "RUB"
    qr_type: QrType
    qr_expiration_date: str | None = None
    additional_info: str = ""


class PaymentAnswer(Payload):
    """One payment by a QR code."""

    transaction_id: str = Field(min_length=1, max_length=TRANSACTION_LENGTH_MAX, pattern=r"^[\x21-\x7e]+$")
    amount: str
    currency: str = Field(pattern=r"^[A-Z]{3}$")
    payment_status: str
    transaction_date: AwareDatetime


class OrderAnswer(Payload):
    """An order: its QR code, unless it was cancelled before it had one, and every payment by it."""

    order: str
    qr_status: str
    qr_id: str | None = None
    qr_type: str | None = None
    payload: str | None = None
    qr_expiration_date: AwareDatetime | None = None
    payments: list[PaymentAnswer] = []


class RegisterKind(StrEnum):
    """What a line of the day's register is about."""

    PAYOUT = "PAYOUT"
    PAYMENT = "PAYMENT"
    REFUND = "REFUND"


class RegisterItem(Payload):
    """One line of the day's register."""

    line: int
    type: str
    transaction_id: str
    reference: str
    amount: str
    fee: str
    status: str
    date: AwareDatetime


class RegisterPage(Payload):
    """Some lines of the day's register; `next` names those that follow."""

    items: list[RegisterItem]
    next: str | None


class RefundRequest(Payload):
    """Pay a part of a payment back. `refundId` is unique for ever."""

    refund_id: str
    transaction_id: str
    amount: str


class RefundAnswer(Payload):
    """A refund as the provider sees it."""

    refund_id: str
    amount: str
    currency: str = Field(pattern=r"^[A-Z]{3}$")
    refund_status: str
