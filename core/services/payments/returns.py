"""Returns: a provider gives a payment back, and the core makes the refund that says so, once for each payment."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from core.domain.fee_legs import FeeLeg
from core.domain.ids import id_time_ms, mint_id
from core.domain.intents import IntentRow
from core.domain.ledger import AccountBalance, AccountFlags, Transfer
from core.domain.operations import accounts_of, posting_transfers
from core.services.ledger_port import Ledger
from core.services.payments.refunds import FeeRules, refundable
from core.services.settling.facts import Alert
from core.services.terms.limits import LimitBook
from schemas.events import IntentState
from schemas.operations import Direction, OperationType


@dataclass(frozen=True, slots=True)
class Returned:
    """What a provider gave back of a payment whose row is locked; the amount is minor units."""

    original: IntentRow
    amount_minor: int
    provider_tx_id: str | None
    job_id: UUID
    at: datetime
    """The database's time of the fact."""


class Tenants(Protocol):
    """What tenants want done with returns."""

    async def returns_to(self, uow: Any, tenant_ids: Sequence[UUID]) -> dict[UUID, str]:
        """Return WALLET or SUSPENSE for each tenant."""
        ...


class ReturnPorts(Protocol):
    """What returns work with."""

    @property
    def intents(self) -> Any: ...
    @property
    def fee_rules(self) -> FeeRules: ...
    @property
    def tenants(self) -> Tenants: ...
    @property
    def ledger(self) -> Ledger: ...
    @property
    def limits(self) -> LimitBook: ...
    @property
    def facts(self) -> Any: ...


async def returned_before(uow: Any, ports: ReturnPorts, originals: Sequence[UUID]) -> dict[UUID, int]:
    """Return what was given back of payments by their providers, in minor units; those without a return are absent."""
    back: Counter[UUID] = Counter()
    for row in await ports.intents.refunds_of(uow, originals):
        if row.direction in (Direction.RETURN, Direction.SUSPENSE):
            back[row.original_intent_id] += row.amount_minor
    return dict(back)


async def make_refunds(
    uow: Any, ports: ReturnPorts, returns: Sequence[Returned]
) -> tuple[list[IntentRow], list[Transfer]]:
    """Insert a settled refund for each return; the caller applies the transfers and commits the limits.

    The money goes to the wallet that paid, with the fees that their rules return; to suspense, without them, where that
    wallet is closed, there is none, or the tenant wants to look first. A share of a fee stays where it went, if to a
    wallet that cannot give it now: what the provider gave back does not wait for that. Each raises an alert.
    """
    if not returns:
        return [], []
    originals = [each.original for each in returns]
    left = await refundable(uow, ports, originals)
    policies = await ports.tenants.returns_to(uow, sorted({row.tenant_id for row in originals}))
    partners = {share for row in originals for leg in row.fee_legs if (share := leg.account.wallet_id) is not None}
    wallets = await ports.ledger.lookup_accounts(uow, sorted({row.wallet_id for row in originals} | partners))
    giving = _Giving(wallets)
    refunds: list[IntentRow] = []
    alerts = []
    for each in returns:
        original = each.original
        closed = wallets[original.wallet_id].account.flags & AccountFlags.CLOSED
        # What a person paid back out of suspense was in no wallet, and rests there again.
        ownerless = original.direction == Direction.PAYBACK
        parked = bool(closed) or ownerless or policies[original.tenant_id] == "SUSPENSE"
        refund = _refund(each, Direction.SUSPENSE if parked else Direction.RETURN)
        # A refund that comes back is in the wallet again; the fees that went back with it stay there, too.
        legs = () if parked or original.is_refund else left[original.id].take(each.amount_minor) or ()
        refund.fee_legs = tuple(leg for leg in legs if giving.may_give(leg))
        if len(refund.fee_legs) < len(legs):
            text = f"{refund.id}: a wallet cannot give its share of the fee back"
            alerts.append(Alert(original.tenant_id, "ticket", "fee_not_returned", original.id, each.job_id, text))
        await ports.limits.note_refund(uow, refund, original, refund.amount_minor)
        refunds.append(refund)
        kind = "return_in_suspense" if parked else "payment_returned"
        alerts.append(
            Alert(original.tenant_id, "page" if parked else "ticket", kind, original.id, each.job_id, str(refund.id))
        )
    await ports.intents.insert_intents(uow, refunds)
    await ports.facts.raise_alerts(uow, alerts)
    accounts = {account.id: account for refund in refunds for account in accounts_of(refund)}
    await ports.ledger.create_accounts(uow, [accounts[key] for key in sorted(accounts)])
    return refunds, [transfer for refund in refunds for transfer in posting_transfers(refund)]


class _Giving:
    """What wallets can still give in one transaction."""

    def __init__(self, wallets: Mapping[UUID, AccountBalance]) -> None:
        self._wallets = wallets
        self._given: Counter[UUID] = Counter()

    def may_give(self, leg: FeeLeg) -> bool:
        """Whether the account that got a fee can give this part of it back, and count that it does."""
        wallet_id = leg.account.wallet_id
        if wallet_id is None:
            return True
        balance = self._wallets[wallet_id]
        shut = balance.account.flags & (AccountFlags.CLOSED | AccountFlags.FROZEN)
        if shut or self._given[wallet_id] + leg.amount_minor > balance.available_minor:
            return False
        self._given[wallet_id] += leg.amount_minor
        return True


def _refund(returned: Returned, direction: Direction) -> IntentRow:
    original = returned.original
    # Of now, and not of the original's time: histories are in the order of ids.
    refund_id = mint_id(max(int(returned.at.timestamp() * 1000), id_time_ms(original.id)))
    return IntentRow(
        id=refund_id,
        tenant_id=original.tenant_id,
        service_key_id=original.service_key_id,
        operation=OperationType.REFUND,
        state=IntentState.SETTLED,
        accept_state=IntentState.SETTLED,
        wallet_id=original.wallet_id,
        amount_minor=returned.amount_minor,
        currency=original.currency,
        client_reference=original.client_reference,
        rail=original.rail,
        provider=original.provider,
        provider_account=original.provider_account,
        environment=original.environment,
        payee_type=original.payee_type,
        payee_masked=original.payee_masked,
        provider_reference=returned.provider_tx_id,
        decision="POST",
        ledger_epoch=original.ledger_epoch,
        traceparent=original.traceparent,
        direction=direction,
        original_intent_id=original.id,
        created_at=returned.at,
        updated_at=returned.at,
    )
