"""Refunds: which payment one is about, whether it may be, and how much of it is left, under the payment's lock."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol
from uuid import UUID

from core.domain.intents import IntentRow
from core.domain.refunds import Refundable, RuleVersion
from core.domain.registry import OPERATIONS
from core.services.access.keys import SUSPENSE_SCOPE, Caller
from core.services.problems import Refusal
from core.services.terms.routes import Chosen, Route, terms
from schemas.api import IntentRequest
from schemas.events import IntentState
from schemas.money import money_text
from schemas.operations import Direction, OperationType
from schemas.rails import RailRegistration

EXCEEDS = "refund_exceeds_original"
PAYER_OF: Final = "transaction"
"""The type of payee that a refund names: whoever paid this transaction."""
_CAME_BACK: Final = frozenset({Direction.RETURN, Direction.SUSPENSE})


class Intents(Protocol):
    """Where payments and their refunds are kept."""

    async def load_intents(self, uow: Any, ids: Sequence[UUID], *, lock: bool = False) -> dict[UUID, IntentRow]: ...

    async def refunds_of(self, uow: Any, originals: Sequence[UUID]) -> list[IntentRow]:
        """Return the refunds of payments, but those that ended unpaid and never proved paid."""
        ...


class FeeRules(Protocol):
    """What rules say about refunds."""

    async def rules_that_return(self, uow: Any, versions: Sequence[RuleVersion]) -> frozenset[RuleVersion]: ...


class RefundPorts(Protocol):
    """What refunds work with."""

    @property
    def intents(self) -> Intents: ...
    @property
    def fee_rules(self) -> FeeRules: ...


async def lock_originals(
    uow: Any, ports: RefundPorts, tenant_id: UUID, requests: Sequence[IntentRequest]
) -> dict[UUID, Refundable]:
    """Return the payments that the refunds among the requests are about, locked until the end, by id.

    Costs nothing where there is no refund. Who asks later waits here, and counts what was refunded before it.
    """
    ids = {
        request.original_intent_id
        for request in requests
        if OPERATIONS[request.operation].refunds and request.original_intent_id is not None
    }
    if not ids:
        return {}
    found = await ports.intents.load_intents(uow, sorted(ids), lock=True)
    return await refundable(uow, ports, [row for row in found.values() if row.tenant_id == tenant_id])


async def refundable(uow: Any, ports: RefundPorts, originals: Sequence[IntentRow]) -> dict[UUID, Refundable]:
    """Return what is left of payments whose rows are locked."""
    if not originals:
        return {}
    versions = {(leg.rule_id, leg.rule_version) for row in originals for leg in row.fee_legs}
    returning = await ports.fee_rules.rules_that_return(uow, sorted(versions)) if versions else frozenset()
    made: Mapping[UUID, Refundable] = {row.id: Refundable(row, returning) for row in originals}
    out: dict[UUID, UUID] = {}
    for refund in await ports.intents.refunds_of(uow, sorted(made)):
        if refund.original_intent_id is not None:
            made[refund.original_intent_id].count([refund])
            if refund.direction == Direction.OUT:
                out[refund.id] = refund.original_intent_id
    # What a provider gave back of a refund that it had paid out did not reach who paid, and may be refunded again.
    for back in await ports.intents.refunds_of(uow, sorted(out)) if out else ():
        if back.original_intent_id is not None and back.direction in _CAME_BACK:
            made[out[back.original_intent_id]].uncount([back])
    return dict(made)


def check_refund(caller: Caller, request: IntentRequest, originals: Mapping[UUID, Refundable]) -> Refundable | None:
    """Return the payment that a request refunds; None where it is no refund.

    What a provider gave back and suspense got is refunded once more: out of suspense, to a wallet that a person names.
    What was collected is refunded through its rail: see `refund_by_rail`.
    Raises Refusal: operation_not_permitted, original_not_expected, original_missing, original_not_found,
    original_not_refundable, original_not_settled, currency_mismatch, refund_wallet_differs, refund_exceeds_original.
    """
    at = "original_intent_id"
    if not OPERATIONS[request.operation].refunds:
        if request.original_intent_id is not None:
            raise Refusal("original_not_expected", f"{request.operation} refunds nothing: leave it out", field=at)
        return None
    if request.original_intent_id is None:
        raise Refusal("original_missing", "name the payment to refund in original_intent_id", field=at)
    found = originals.get(request.original_intent_id)
    if found is None:
        raise Refusal("original_not_found", "there is no such payment", field=at)
    original = found.original
    if original.direction == Direction.SUSPENSE:
        caller.require_operation(SUSPENSE_SCOPE)
        if request.currency != original.currency:
            raise Refusal("currency_mismatch", f"the payment was in {original.currency}", field="currency")
        return _fitting(found, request)
    if not OPERATIONS[OperationType(original.operation)].refundable and not original.is_collected:
        text = f"{original.operation} is not refunded by its recipient: only what a wallet received is"
        raise Refusal("original_not_refundable", text, field=at)
    if original.state != IntentState.SETTLED:
        raise Refusal("original_not_settled", f"the payment is {original.state}: only SETTLED is refunded", field=at)
    if request.currency != original.currency:
        raise Refusal("currency_mismatch", f"the payment was in {original.currency}", field="currency")
    recipient = original.wallet_id if original.is_collected else original.counterparty_wallet_id
    if request.wallet_id != recipient:
        text = "a refund comes from the wallet that received the payment: name it in wallet_id"
        raise Refusal("refund_wallet_differs", text, field="wallet_id")
    return _fitting(found, request)


def refund_by_rail(found: Refundable, request: IntentRequest, rails: Mapping[str, RailRegistration]) -> Chosen:
    """Return how a payment that was collected goes back: by the rail and the provider account that it came by.

    `rails` are the registrations of today. Raises Refusal before anything is held: original_not_refundable (its
    transaction is not known), rail_unavailable, refund_not_offered, refund_parts_not_offered, amount_out_of_bounds.
    """
    original = found.original
    if original.rail is None or not original.provider_reference:
        text = "the payment's transaction at the provider is not known"
        raise Refusal("original_not_refundable", text, field="original_intent_id")
    registration = rails.get(original.rail)
    scope = (original.provider, original.provider_account, original.environment)
    if registration is None or scope != (
        registration.provider, registration.provider_account, registration.environment,
    ):  # fmt: skip
        text = f"no adapter of rail {original.rail} serves the account that took the payment: start it and repeat"
        raise Refusal("rail_unavailable", text)
    collected = registration.operations.get(OperationType(original.operation))
    capabilities = registration.operations.get(OperationType.REFUND)
    offered = "none" if collected is None or capabilities is None else collected.refunds
    if capabilities is None or offered == "none" or request.currency not in capabilities.currencies:
        text = f"rail {original.rail} gives no {original.operation} back"
        raise Refusal("refund_not_offered", text, field="original_intent_id")
    if offered == "full" and request.amount_minor != found.whole_minor:
        text = f"rail {original.rail} gives a payment back whole: {money_text(found.whole_minor, request.currency)}"
        raise Refusal("refund_parts_not_offered", text, field="amount_minor")
    if not capabilities.min_amount_minor <= request.amount_minor <= capabilities.max_amount_minor:
        text = (
            f"rail {original.rail} takes {money_text(capabilities.min_amount_minor, request.currency)}"
            f" to {money_text(capabilities.max_amount_minor, request.currency)}"
        )
        raise Refusal("amount_out_of_bounds", text, field="amount_minor")
    route = Route(original.rail, *scope, registration)
    return Chosen(route, capabilities, terms(registration, OperationType.REFUND))


def _fitting(found: Refundable, request: IntentRequest) -> Refundable:
    if request.amount_minor > found.left_minor:
        raise Refusal(EXCEEDS, exceeds_text(found), field="amount_minor")
    return found


def exceeds_text(found: Refundable) -> str:
    """Return what is left, in words."""
    return (
        f"{money_text(found.left_minor, found.original.currency)} of"
        f" {money_text(found.original.received_minor, found.original.currency)} are left to refund"
    )
