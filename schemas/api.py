"""The public HTTP contract, shared by the API and the typed client."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from pydantic import Discriminator, Field, Tag, model_validator

from schemas.announced_returns import ReturnedView
from schemas.base import Contract, Flag
from schemas.codes.payable import MAX_CODE_CHARACTERS, CodeKind
from schemas.collections import NextAction
from schemas.events import IntentState
from schemas.exchange import ExchangeView
from schemas.fees import FeeLegView, Label
from schemas.jobs import AmountMinor, CurrencyCode
from schemas.limits import LimitExceeded
from schemas.operations import Direction, OperationType
from schemas.permits import Payee
from schemas.wallets import ExternalId, WalletStatus

IdempotencyKey = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")]
ClientReference = Annotated[str, Field(max_length=64, pattern=r"^[\x20-\x7e]*$")]


class AutoConfirm(Contract):
    """Confirm beforehand: if the lookup answers this name (where given) and at most this fee, pay at once."""

    payee_name: Annotated[str, Field(max_length=140)] | None = None
    max_fee_minor: Annotated[int, Field(strict=True, ge=0)]


class OnBehalfOf(Contract):
    """Whom a payment is made for. The key acts on that user's wallets alone; events and views tell it."""

    user: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\x21-\x7e]+$")]
    """The owner of the wallet."""
    agent: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\x21-\x7e]+$")] | None = None
    """Who acts for the user in the tenant's house, such as an employee's id."""


class ScannedPayee(Contract):
    """Whom to pay, as the text of a payment code: PromptPay's credit transfer (tag 29) or bill payment (tag 30)."""

    qr: Annotated[str, Field(min_length=1, max_length=MAX_CODE_CHARACTERS)]


PAYEE_TAGS: Final = ("named payee", "scanned payee")
"""How errors name the two forms of a payee: no part of a field's path."""


def _payee_form(value: Any) -> str:
    scanned = "qr" in value if isinstance(value, dict) else isinstance(value, ScannedPayee)
    return PAYEE_TAGS[scanned]


AskedPayee = Annotated[
    Annotated[Payee, Tag(PAYEE_TAGS[0])] | Annotated[ScannedPayee, Tag(PAYEE_TAGS[1])], Discriminator(_payee_form)
]


class IntentRequest(Contract):
    """One payment. Amounts are integers of minor units; decimals and floats are refused."""

    operation: OperationType
    wallet_id: UUID
    amount_minor: AmountMinor
    currency: CurrencyCode
    payee: AskedPayee | None = None
    """Type and value, or the text of a payment code in `qr`."""
    counterparty_wallet_id: UUID | None = None
    """The wallet that gets the money of an operation between two wallets; in the currency of the first."""
    message: Annotated[str, Field(max_length=140)] = ""
    comment: Annotated[str, Field(max_length=140)] = ""
    """Shown in the wallets' histories and statements, stored as it is; between wallets `message` stands in for it."""
    reference: ClientReference = ""
    """The client's own reference, shown in lists; it is no idempotency key."""
    auto_confirm: AutoConfirm | None = None
    channel: Label = ""
    """Where the payment came from, such as app or web; fees may depend on it."""
    original_intent_id: UUID | None = None
    """Of REFUND: the settled payment to give back, in part or whole. `wallet_id` is the wallet that received it."""
    direction: (
        Literal[
            Direction.CREDIT,
            Direction.DEBIT,
            Direction.TO_LIQUIDITY,
            Direction.FROM_LIQUIDITY,
            Direction.TO_SUSPENSE,
        ]
        | None
    ) = None
    """Of MANUAL_ADJUSTMENT: whether the wallet gets the amount (left out, too) or gives it, to or from equity or the
    liquidity of its currency, or to suspense."""
    quote_id: UUID | None = None
    """Of EXCHANGE: the quote to use; wallets, amount and currency are those that it says."""
    requires_monitoring: Flag = False
    """Hold the money and wait for a decision of another key before the payment goes on."""
    on_behalf_of: OnBehalfOf | None = None

    @property
    def named_payee(self) -> Payee | None:
        """The payee by type and value; a code is none before it was read."""
        return self.payee if isinstance(self.payee, Payee) else None


class BatchItem(Contract):
    """One payment of a batch with its own idempotency key."""

    idempotency_key: IdempotencyKey
    intent: IntentRequest


class IntentBatchRequest(Contract):
    """Up to 1,000 payments; one bad item fails alone."""

    items: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=1000)]
    """Each is a BatchItem, validated one by one so that one bad line does not refuse its neighbours."""


class Failure(Contract):
    """Why an intent ended unpaid: a stable code and a sentence; with `limit_exceeded` the limit."""

    code: str
    message: str
    limit: LimitExceeded | None = None


class QrParts(Contract):
    """What a scanned code says; its payee stands masked in the intent, its references stand masked here."""

    kind: CodeKind
    amount_minor: int | None
    """None where the payer chooses."""
    currency: str
    one_time: bool
    """Whether the code is for one payment."""
    merchant_name: str | None = None
    biller_id: str | None = None
    ref1_masked: str | None = None
    ref2_masked: str | None = None


class LookupView(Contract):
    """What the lookup answered; confirm binds to it."""

    payee_name_masked: str | None
    fee_minor: int
    expires_at: datetime | None
    qr: QrParts | None = None
    """Of a payee that came as a scanned code: its parts."""


class IntentView(Contract):
    """One intent as the API shows it."""

    id: UUID
    operation: OperationType
    state: IntentState
    wallet_id: UUID
    amount_minor: int
    currency: str
    fee_minor: int
    """What the payer pays beside the amount; before the lookup, without the provider's part."""
    received_minor: int
    """What the recipient gets: the amount less the fees taken out of it; of EXCHANGE, before it is exchanged; of money
    in, what the wallet is left with: what came, or is to come, less every fee, those on top included."""
    fees: list[FeeLegView]
    """The fees by rule."""
    counterparty_wallet_id: UUID | None = None
    direction: Direction | None = None
    original_intent_id: UUID | None = None
    """The payment that a refund is about; `fees` are then those that went back."""
    requires_monitoring: bool = False
    on_behalf_of: OnBehalfOf | None = None
    exchange: ExchangeView | None = None
    """Of EXCHANGE: what is bought, and what the counterparty's wallet gets of it."""
    payee_type: str | None
    payee_masked: str | None
    reference: str
    comment: str = ""
    rail: str | None
    provider_reference: str | None
    lookup: LookupView | None
    failure: Failure | None
    next_action: NextAction | None = None
    """Of a collection that waits for its payer: what to show."""
    confirmed_minor: int | None = None
    """Of a collection: what was received and credited, where that is not just the amount, or fees are on top of it."""
    returned: ReturnedView | None = None
    """Of one payment that is asked for by its id, and ended: what came back of it, or is announced to, and why. A
    refund that books what came back tells of its payment. Lists leave it out."""
    created_at: datetime
    updated_at: datetime
    deadline: datetime | None


class Problem(Contract):
    """RFC 9457 problem details with our stable `code` and the field at fault."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    field: str | None = None
    instance: str | None = None
    limit_id: UUID | None = None
    """With `limit_exceeded`: which limit, what is left of it and when it renews."""
    remaining_minor: int | None = None
    remaining_count: int | None = None
    renews_at: datetime | None = None


class BatchItemResult(Contract):
    """The outcome of one item: `intent` where it was accepted (or replayed), else `problem`."""

    index: int
    status: int
    intent: IntentView | None = None
    problem: Problem | None = None
    replayed: bool = False


class IntentBatchResponse(Contract):
    """One result per item, in order."""

    results: list[BatchItemResult]


class IntentPage(Contract):
    """A page of intents, newest first; `next_cursor` is absent on the last."""

    items: list[IntentView]
    next_cursor: str | None


class ConfirmRequest(Contract):
    """Binds to what was looked up: a differing amount or fee is refused."""

    amount_minor: AmountMinor
    fee_minor: Annotated[int, Field(strict=True, ge=0)]
    payee_name_masked: str | None = None


class ReviewDecision(StrEnum):
    """What becomes of an intent in REVIEW."""

    APPROVE = "APPROVE"
    REJECT = "REJECT"


class ReviewRequest(Contract):
    """A decision about an intent in REVIEW. Rejecting needs a reason: the client is told it."""

    decision: ReviewDecision
    reason: Annotated[str, Field(max_length=200)] = ""

    @model_validator(mode="after")
    def _says_why(self) -> Self:
        if self.decision is ReviewDecision.REJECT and not self.reason.strip():
            raise ValueError("say why it is rejected")
        return self


class WalletRequest(Contract):
    """A wallet of one owner in one currency; the core issues its id, an external id may be attached."""

    owner: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\x21-\x7e]+$")]
    currency: CurrencyCode
    external_id: ExternalId | None = None


class WalletView(Contract):
    """A wallet with its balances in minor units: available = posted minus held."""

    id: UUID
    owner: str
    currency: str
    external_id: str | None
    status: WalletStatus
    posted_minor: int
    held_minor: int
    available_minor: int
    created_at: datetime


class WalletPage(Contract):
    """A page of wallets; `next_cursor` is absent on the last."""

    items: list[WalletView]
    next_cursor: str | None = None


class EntryKind(StrEnum):
    """What an entry is of: the payment itself, a fee of it, a correction by hand, money whose owner is
    not known, a side of an exchange, or what the exchange earns the tenant."""

    PRINCIPAL = "PRINCIPAL"
    FEE = "FEE"
    ADJUSTMENT = "ADJUSTMENT"
    SUSPENSE = "SUSPENSE"
    EXCHANGE = "EXCHANGE"
    SPREAD = "SPREAD"


class WalletEntry(Contract):
    """One posted entry of a wallet; `amount_minor` is signed, `balance_minor` is the balance after it."""

    transfer_id: UUID
    intent_id: UUID | None
    amount_minor: int
    balance_minor: int
    operation: OperationType | None
    """What moved it; absent where no intent stands behind it."""
    from_name: str
    """Who paid: the owner of the wallet, or nothing where the money came out of an account of the tenant's own."""
    to_name: str
    """Who got it: the owner of the wallet, or the masked payee outside."""
    comment: str = ""
    kind: EntryKind
    state: IntentState | None = None
    """The payment's."""
    at: datetime


class WalletHistory(Contract):
    """Newest first; `next_cursor` is absent on the last page."""

    items: list[WalletEntry]
    next_cursor: str | None
