"""Exposure: what liquidity there is of each currency, and what was bought, sold and earned, as the ledger says."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from core.domain.exchange import average_rate
from core.domain.operations import liquidity_account
from core.services.ledger_port import Ledger
from core.services.problems import Refusal, require_currency
from schemas.exchange import CurrencyExposure, ExposureView, PairExposure
from schemas.money import known_currencies


@dataclass(frozen=True, slots=True)
class AccountFlows:
    """What one account of liquidity holds, and what went through it."""

    account_id: UUID
    position_minor: int
    held_minor: int
    may_overdraw: bool
    bought_minor: int
    sold_minor: int
    spread_minor: int
    moved_by_hand_minor: int


@dataclass(frozen=True, slots=True)
class PairFlows:
    """What was exchanged from one account of liquidity's currency into another's."""

    from_account_id: UUID
    to_account_id: UUID
    count: int
    from_minor: int
    to_minor: int
    spread_minor: int


class LiquidityStore(Protocol):
    """Reads what the ledger has of liquidity; lets it be overdrawn."""

    async def flows(
        self, uow: Any, accounts: Sequence[UUID], since: datetime | None
    ) -> tuple[list[AccountFlows], list[PairFlows]]:
        """Return both of one snapshot."""
        ...

    async def set_overdraft(self, uow: Any, tenant_id: UUID, account_id: UUID, currency: str, allowed: bool) -> bool:
        """Change the account's flag and keep who did it; False where it is overdrawn now."""
        ...


async def exposure(uow: Any, store: LiquidityStore, tenant_id: UUID, since: datetime | None) -> ExposureView:
    """Return positions of now and flows since a moment (left out: ever)."""
    currencies = {liquidity_account(tenant_id, code).id: code for code in known_currencies()}
    accounts, pairs = await store.flows(uow, list(currencies), since)
    return ExposureView(
        since=since,
        currencies=sorted(
            (_currency(currencies[each.account_id], each) for each in accounts), key=lambda c: c.currency
        ),
        pairs=sorted(
            (_pair(currencies[each.from_account_id], currencies[each.to_account_id], each) for each in pairs),
            key=lambda pair: (pair.from_currency, pair.to_currency),
        ),
    )


async def allow_overdraft(
    uow: Any, store: LiquidityStore, ledger: Ledger, tenant_id: UUID, currency: str, allowed: bool
) -> ExposureView:
    """Let a currency's liquidity go below zero, or no more; return what there is of every currency.

    Raises Refusal: unknown_currency, liquidity_overdrawn.
    """
    require_currency(currency)
    account = liquidity_account(tenant_id, currency)
    await ledger.create_accounts(uow, [account])
    if not await store.set_overdraft(uow, tenant_id, account.id, currency, allowed):
        text = f"the liquidity of {currency} is below zero: put in what is missing first"
        raise Refusal("liquidity_overdrawn", text, field="may_overdraw")
    return await exposure(uow, store, tenant_id, None)


def _currency(currency: str, flows: AccountFlows) -> CurrencyExposure:
    return CurrencyExposure(
        currency=currency,
        position_minor=flows.position_minor,
        held_minor=flows.held_minor,
        may_overdraw=flows.may_overdraw,
        bought_minor=flows.bought_minor,
        sold_minor=flows.sold_minor,
        spread_minor=flows.spread_minor,
        moved_by_hand_minor=flows.moved_by_hand_minor,
    )


def _pair(from_currency: str, to_currency: str, flows: PairFlows) -> PairExposure:
    return PairExposure(
        from_currency=from_currency,
        to_currency=to_currency,
        count=flows.count,
        from_minor=flows.from_minor,
        to_minor=flows.to_minor,
        spread_minor=flows.spread_minor,
        average_rate=average_rate(flows.from_minor, from_currency, flows.to_minor, to_currency),
    )
