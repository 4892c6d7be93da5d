"""Plan a payment: whether a request is valid, and what becomes of it, before anything of it is stored."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from core.domain.exchange import Quote
from core.domain.fee_legs import FeeLeg, sum_minor
from core.domain.fees import Pricing
from core.domain.intents import IntentRow
from core.domain.refunds import Refundable
from core.domain.registry import OPERATIONS, Operation, Role
from core.services.access.keys import ADJUSTMENT_ALONE_SCOPE, Caller, HeldNonce
from core.services.payments.authorize import Moment
from core.services.payments.mandates import Drawn, Signed, draw_on
from core.services.payments.refunds import EXCEEDS, PAYER_OF, check_refund, exceeds_text, refund_by_rail
from core.services.payments.scanned import read_scanned, shown_parts
from core.services.problems import Refusal, require_currency
from core.services.terms.fees import Payment
from core.services.terms.quotes import USED, USED_TEXT, Locked, bought_by, check_quote
from core.services.terms.routes import Chosen, Route, choose_route, mask_payee
from core.services.wallets.wallets import Wallet
from schemas.api import IntentRequest
from schemas.codes.payable import Payable
from schemas.events import IntentState
from schemas.fees import FeePhase
from schemas.money import money_text
from schemas.operations import COLLECTED, Direction, OperationType
from schemas.permits import Payee
from schemas.rails import RailRegistration


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of one caller."""

    caller: Caller
    key: str
    request: IntentRequest
    request_hash: bytes
    intent_id: UUID
    traceparent: str | None = None
    nonce: HeldNonce | None = None
    """Spent with what the request makes; None where it was spent before."""


@dataclass(slots=True)
class Plan:
    """What becomes of one valid request."""

    operation: OperationType
    chosen: Chosen | None
    """None where no rail is needed."""
    fee_legs: tuple[FeeLeg, ...] = ()
    refunds: Refundable | None = None
    """The payment that it gives back."""
    quote: Quote | None = None
    """What it exchanges by."""
    payee: Payee | None = None
    """Whom the request names."""
    code: Payable | None = None
    """The scanned code that it names the payee by."""
    drawn: Drawn | None = None
    """The mandate that it pulls under."""
    by_two: bool = False
    """Whether a second key decides about it, asked for or not."""

    def moved_by_hand(self, request: IntentRequest) -> bool:
        """Whether a person gives out what is nobody's wallet's: two keys do so, above an amount."""
        return OPERATIONS[self.operation].movement(self.direction(request)).by_two

    def direction(self, request: IntentRequest) -> Direction | None:
        """Return in which direction it moves.

        A refund goes back to who paid it, out through the rail where it came in; out of suspense to the wallet that is
        named.
        """
        if self.refunds is None:
            return request.direction
        original = self.refunds.original
        if original.direction == Direction.SUSPENSE:
            return Direction.RELEASE
        return Direction.OUT if original.is_collected else None

    @property
    def lookup(self) -> bool:
        """Whether the payee is looked up before anything is held."""
        return self.chosen is not None and self.chosen.capabilities.lookup and OPERATIONS[self.operation].confirms_first


def require_operation(caller: Caller, request: IntentRequest) -> None:
    """Raise Refusal `operation_not_permitted` unless the key carries what the request asks for."""
    caller.require_operation(request.operation)
    if scope := OPERATIONS[request.operation].movement(request.direction).scope:
        caller.require_operation(scope)


def adjusts_alone(caller: Caller) -> bool:
    """Return whether the key moves money by hand without a second one, whatever the amount."""
    return ADJUSTMENT_ALONE_SCOPE in caller.operations


def asking_wallet(request: IntentRequest | IntentRow) -> UUID:
    """Return the wallet that a key confined to wallets must cover, to ask for the payment, confirm or cancel it."""
    if OPERATIONS[OperationType(request.operation)].asked_for is Role.COUNTERPARTY:
        return request.counterparty_wallet_id or request.wallet_id
    return request.wallet_id


def plan_payment(
    asked: Asked,
    wallets: Mapping[UUID, Wallet],
    routes: Any,
    originals: Mapping[UUID, Refundable],
    quotes: Locked,
    rails: Mapping[str, RailRegistration],
    signed: Signed,
) -> Plan:
    """Return what becomes of the request. Raises Refusal, in the order of docs/errors.md."""
    request = asked.request
    operation = OPERATIONS[request.operation]
    require_currency(request.currency)
    wallet = wallets.get(request.wallet_id)
    if wallet is None or wallet.tenant_id != asked.caller.tenant_id:
        raise Refusal("wallet_not_found", "create the wallet first: POST /v1/wallets", field="wallet_id")
    if wallet.currency != request.currency:
        raise Refusal("currency_mismatch", f"the wallet holds {wallet.currency}", field="currency")
    if request.on_behalf_of is not None and request.on_behalf_of.user != wallet.owner:
        text = "the wallet is not this user's: a key acts for a user on that user's wallets alone"
        raise Refusal("on_behalf_of_differs", text, field="on_behalf_of.user")
    _check_counterparty(asked, operation, wallets)
    refunds = check_refund(asked.caller, request, originals)
    quote = check_quote(request, quotes)
    if request.direction is not None and request.direction not in operation.offers:
        raise Refusal(
            "direction_not_expected", f"{request.operation} has one direction: leave it out", field="direction"
        )
    if not operation.needs_payee and request.payee is not None:
        raise Refusal("payee_not_expected", f"{request.operation} has no payee: leave it out", field="payee")
    if refunds is not None and refunds.original.is_collected:
        return Plan(request.operation, refund_by_rail(refunds, request, rails), refunds=refunds)
    if not operation.needs_rail:
        return Plan(request.operation, None, refunds=refunds, quote=quote)
    named, code = read_scanned(request)
    named, drawn = draw_on(named, signed)
    chosen = choose_route(routes, named, needs_payee=operation.needs_payee)
    if drawn is not None:
        drawn.take(chosen.capabilities.business_timezone)
    return Plan(request.operation, chosen, payee=named.named_payee, code=code, drawn=drawn)


def _check_counterparty(asked: Asked, operation: Operation, wallets: Mapping[UUID, Wallet]) -> None:
    request, at = asked.request, "counterparty_wallet_id"
    if request.counterparty_wallet_id is None:
        if operation.needs_counterparty:
            text = f"{request.operation} goes to another wallet: name it in counterparty_wallet_id"
            raise Refusal("counterparty_missing", text, field=at)
        return
    if not operation.needs_counterparty:
        raise Refusal("counterparty_not_expected", f"{request.operation} has no counterparty: leave it out", field=at)
    if request.counterparty_wallet_id == request.wallet_id:
        raise Refusal("counterparty_same", "a wallet cannot pay itself: name another one", field=at)
    other = wallets.get(request.counterparty_wallet_id)
    if other is None or other.tenant_id != asked.caller.tenant_id:
        raise Refusal("wallet_not_found", "create the wallet first: POST /v1/wallets", field=at)
    if other.currency != request.currency and not operation.exchanges:
        raise Refusal("currency_mismatch", f"the counterparty's wallet holds {other.currency}", field=at)


def priced_as(request: IntentRequest, quote: Quote | None) -> Payment:
    """Return what the fee rules are asked about."""
    return Payment(
        request.amount_minor,
        request.currency,
        request.operation,
        channel=request.channel,
        wallet_id=request.wallet_id,
        bought=None if quote is None else bought_by(quote),
    )


def with_fees(plan: Plan, request: IntentRequest, answer: Pricing | Refusal) -> Plan | Refusal:
    """Return the plan with its fees, or why they stop it."""
    if isinstance(answer, Refusal):
        return answer
    agreed, on_top_minor = request.auto_confirm, answer.minor(FeePhase.PRE)
    if not plan.lookup and agreed is not None and on_top_minor > agreed.max_fee_minor:
        text = f"the fee is {money_text(on_top_minor, request.currency)}: raise max_fee_minor to agree"
        return Refusal("fee_above_agreed", text, field="auto_confirm.max_fee_minor")
    if plan.chosen is not None and (refusal := _out_of_bounds(plan, plan.chosen, request, answer)) is not None:
        return refusal
    plan.fee_legs = answer.legs
    return plan


def _out_of_bounds(plan: Plan, chosen: Chosen, request: IntentRequest, pricing: Pricing) -> Refusal | None:
    """Return why the rail does not carry the amount with its fees: too little is left of it, or too much is asked."""
    if OPERATIONS[plan.operation].collects:
        return _asks_too_much(plan, chosen, request, request.amount_minor + pricing.minor(FeePhase.PRE))
    paid_minor, least_minor = request.amount_minor - pricing.minor(FeePhase.POST), chosen.capabilities.min_amount_minor
    if paid_minor >= least_minor:
        return None
    least, left = money_text(least_minor, request.currency), money_text(paid_minor, request.currency)
    text = f"after fees {left} are left, and the rail takes no less than {least}"
    return Refusal("amount_out_of_bounds", text, field="amount_minor")


def _asks_too_much(plan: Plan, chosen: Chosen, request: IntentRequest, asked_minor: int) -> Refusal | None:
    asked, most_minor = money_text(asked_minor, request.currency), chosen.capabilities.max_amount_minor
    most_minor = min(most_minor, chosen.route.terms.max_amount_minor or most_minor)
    if asked_minor > most_minor:
        most = money_text(most_minor, request.currency)
        text = f"with fees {asked} are asked for, and the rail takes no more than {most}"
        return Refusal("amount_out_of_bounds", text, field="amount_minor")
    signed_minor = plan.drawn.mandate.max_amount_minor if plan.drawn is not None else None
    if signed_minor is not None and asked_minor > signed_minor:
        most = money_text(signed_minor, request.currency)
        text = f"with fees {asked} are asked for, and one debit under this mandate takes {most} at the most"
        return Refusal("mandate_amount_exceeded", text, field="amount_minor")
    return None


def payee_of(plan: Plan) -> Payee | None:
    """Return whom the provider pays: of a refund of what was collected, whoever paid that transaction."""
    if plan.refunds is not None and plan.chosen is not None:
        return Payee(type=PAYER_OF, value=plan.refunds.original.provider_reference or "")
    return plan.payee


def row_of(asked: Asked, plan: Plan, moment: Moment) -> IntentRow:
    """Return the intent as it is before anything is held."""
    request, payee = asked.request, payee_of(plan)
    counterparty: UUID | None = request.counterparty_wallet_id
    direction = plan.direction(request)
    if plan.refunds is not None:
        counterparty = None if direction is not None else plan.refunds.original.wallet_id
    route: Route | None = plan.chosen.route if plan.chosen else None
    return IntentRow(
        id=asked.intent_id,
        tenant_id=asked.caller.tenant_id,
        service_key_id=asked.caller.key_id,
        operation=request.operation,
        state=IntentState.VALIDATED,
        accept_state=IntentState.VALIDATED,
        wallet_id=request.wallet_id,
        amount_minor=request.amount_minor,
        currency=request.currency,
        client_reference=request.reference,
        rail=route.rail if route else None,
        provider=route.provider if route else None,
        provider_account=route.provider_account if route else None,
        environment=route.environment if route else None,
        payee_type=payee.type if payee else None,
        payee_masked=mask_payee(payee.value) if payee else None,
        payee_qr=shown_parts(plan.code) if plan.code else None,
        auto_confirm=request.auto_confirm.model_dump(mode="json") if request.auto_confirm else None,
        ledger_epoch=moment.ledger_epoch,
        traceparent=asked.traceparent,
        fee_legs=plan.fee_legs,
        fee_minor=(on_top_minor := sum_minor(plan.fee_legs, FeePhase.PRE)),
        asked_minor=request.amount_minor + on_top_minor if on_top_minor and request.operation in COLLECTED else None,
        counterparty_wallet_id=counterparty,
        direction=direction,
        original_intent_id=request.original_intent_id,
        requires_monitoring=request.requires_monitoring or plan.by_two,
        on_behalf_of=request.on_behalf_of.model_dump(exclude_none=True) if request.on_behalf_of else None,
        # What a message to somebody outside says is sealed with the payee, and never shown here.
        comment=request.comment or (request.message if payee is None else ""),
        created_at=moment.now,
        updated_at=moment.now,
    )


def take(row: IntentRow, plan: Plan) -> tuple[str, str] | None:
    """Let a new intent take what there is once: of a refund's original, or a quote; code and text where it is gone.

    It was there when this was planned, but others of the same batch may have come first. A refund notes the fees that
    go back, an exchange the terms of its quote.
    """
    if plan.refunds is not None:
        legs = plan.refunds.take(row.amount_minor)
        if legs is None:
            return EXCEEDS, exceeds_text(plan.refunds)
        row.fee_legs = legs
    if plan.quote is not None:
        row.exchange = plan.quote.terms()
        if plan.quote.intent_id is not None:
            return USED, USED_TEXT
        plan.quote.intent_id = row.id
    return None
