"""Refunds: which payment one is about, whether it may be, and how much of it is left, under the payment's lock."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from uuid import UUID

from core.domain.intents import IntentRow
from core.domain.operations import OPERATIONS
from core.domain.refunds import Refundable, RuleVersion
from core.services.keys import SUSPENSE_SCOPE, Caller
from core.services.problems import Refusal
from schemas.api import IntentRequest
from schemas.events import IntentState
from schemas.operations import Direction, OperationType

EXCEEDS = "refund_exceeds_original"


class Intents(Protocol):
    """Where payments and their refunds are kept."""

    async def load_intents(self, uow: Any, ids: Sequence[UUID], *, lock: bool = False) -> dict[UUID, IntentRow]: ...

    async def refunds_of(self, uow: Any, originals: Sequence[UUID]) -> list[IntentRow]:
        """Return the refunds of payments, but those that failed, were cancelled or expired."""
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
        if request.operation is OperationType.REFUND and request.original_intent_id is not None
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
    for refund in await ports.intents.refunds_of(uow, sorted(made)):
        if refund.original_intent_id is not None:
            made[refund.original_intent_id].count([refund])
    return dict(made)


def check_refund(caller: Caller, request: IntentRequest, originals: Mapping[UUID, Refundable]) -> Refundable | None:
    """Return the payment that a request refunds; None where it is no refund.

    What a provider gave back and suspense got is refunded once more: out of suspense, to a wallet that a person names.
    Raises Refusal: operation_not_permitted, original_not_expected, original_missing, original_not_found,
    original_not_refundable, original_not_settled, currency_mismatch, refund_wallet_differs, refund_exceeds_original.
    """
    at = "original_intent_id"
    if request.operation is not OperationType.REFUND:
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
    if not OPERATIONS[OperationType(original.operation)].refundable:
        text = f"{original.operation} is not refunded by its recipient: only payments between wallets are"
        raise Refusal("original_not_refundable", text, field=at)
    if original.state != IntentState.SETTLED:
        raise Refusal("original_not_settled", f"the payment is {original.state}: only SETTLED is refunded", field=at)
    if request.currency != original.currency:
        raise Refusal("currency_mismatch", f"the payment was in {original.currency}", field="currency")
    if request.wallet_id != original.counterparty_wallet_id:
        text = "a refund comes from the wallet that received the payment: name it in wallet_id"
        raise Refusal("refund_wallet_differs", text, field="wallet_id")
    return _fitting(found, request)


def _fitting(found: Refundable, request: IntentRequest) -> Refundable:
    if request.amount_minor > found.left_minor:
        raise Refusal(EXCEEDS, exceeds_text(found), field="amount_minor")
    return found


def exceeds_text(found: Refundable) -> str:
    """Return what is left, in words."""
    return f"{found.left_minor} of {found.original.received_minor} minor units are left to refund"
