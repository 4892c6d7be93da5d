"""The fee book: a tenant's rules in memory, at most a second old, and the fees of a whole batch by them."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol
from uuid import UUID
from zoneinfo import ZoneInfo

from core.domain.fee_language import FeeError
from core.domain.fees import (
    FREE,
    BusinessTime,
    FeeIndex,
    FeeInput,
    FeeRule,
    Pricing,
    ShelfKey,
    both,
    business_time,
    compile_rule,
    index_rules,
    price,
)
from core.services.problems import Refusal
from schemas.fees import FeeRuleRequest


@dataclass(frozen=True, slots=True)
class StoredRule:
    """One version of a rule as it is stored; it stands in for the versions before it from `valid_from` on."""

    id: UUID
    version: int
    name: str
    enabled: bool
    request: FeeRuleRequest
    valid_from: datetime
    created_at: datetime
    created_by: str


@dataclass(frozen=True, slots=True)
class BookState:
    """What a reader compares: nothing is loaded while the revision stays."""

    revision: int
    zone: ZoneInfo
    now: datetime
    """The database's time, by which validity is judged."""


class FeeRuleReader(Protocol):
    """Where rules are read."""

    async def book_state(self, uow: Any, tenant_id: UUID) -> BookState: ...

    async def tiers_of(self, uow: Any, wallet_ids: Sequence[UUID]) -> Mapping[UUID, str]: ...

    async def load_rules(self, uow: Any, tenant_id: UUID, at: datetime | None = None) -> Sequence[StoredRule]:
        """Return every version that is in force at a moment (left out: now) or will be later, newest first by rule."""
        ...


class Bought(NamedTuple):
    """What an exchange buys, in minor units of `currency`."""

    amount_minor: int
    currency: str
    wallet_id: UUID
    """The wallet that gets it."""


class Payment(NamedTuple):
    """A payment to be priced; `amount_minor` is in minor units of `currency`."""

    amount_minor: int
    currency: str
    operation: str
    channel: str = ""
    wallet_id: UUID | None = None
    """The wallet that pays."""
    bought: Bought | None = None
    """Of an exchange."""

    @property
    def shelves(self) -> Iterator[ShelfKey]:
        """Where the rules stand that it meets."""
        yield self.operation, self.currency, False
        if self.bought is not None:
            yield self.operation, self.bought.currency, True

    def at(self, moment: BusinessTime, tier: str) -> FeeInput:
        """Return what the rules see of it at a moment, of a payer of this tier."""
        return FeeInput(self.amount_minor, self.currency, self.operation, moment, tier, self.channel, self.wallet_id)


@dataclass(frozen=True, slots=True)
class _Kept:
    looked_at_s: float
    state: BookState
    index: FeeIndex


class FeeBook:
    """Prices by rules that are at most `fresh_s` seconds old; each version of a rule is compiled once."""

    def __init__(self, rules: FeeRuleReader, fresh_s: float = 1) -> None:
        self._rules, self._fresh_s = rules, fresh_s
        self._kept: dict[UUID, _Kept] = {}
        self._compiled: dict[UUID, dict[tuple[UUID, int], FeeRule]] = {}

    async def fees_for(self, uow: Any, tenant_id: UUID, payments: Sequence[Payment]) -> list[Pricing | Refusal]:
        """Return the fees of each payment now, or why it has none: fee_rule_fails, fee_exceeds_amount.

        A tenant without rules costs one small query a second. Where rules of these payments read the tier, the tiers of
        their wallets are read as they are now, at once for the whole batch.
        """
        kept = await self._fresh(uow, tenant_id)
        if not kept.index:
            return [FREE] * len(payments)
        passed = timedelta(seconds=time.monotonic() - kept.looked_at_s)
        moment = business_time(kept.state.now + passed, kept.state.zone)
        tiers = await self._tiers(uow, kept.index, payments)
        return [_priced(kept.index, payment, moment, _tier(tiers, payment)) for payment in payments]

    async def _tiers(self, uow: Any, index: FeeIndex, payments: Sequence[Payment]) -> dict[UUID, str]:
        reading = {key for key, shelf in index.items() if "tier" in shelf.variables}
        if not reading:
            return {}
        wanted = {
            payment.wallet_id.int: payment.wallet_id
            for payment in payments
            if payment.wallet_id is not None and not reading.isdisjoint(payment.shelves)
        }
        return dict(await self._rules.tiers_of(uow, list(wanted.values()))) if wanted else {}

    async def _fresh(self, uow: Any, tenant_id: UUID) -> _Kept:
        kept = self._kept.get(tenant_id)
        now = time.monotonic()
        if kept is not None and now - kept.looked_at_s < self._fresh_s:
            return kept
        state = await self._rules.book_state(uow, tenant_id)
        if kept is not None and kept.state.revision == state.revision:
            index = kept.index
        else:
            stored = await self._rules.load_rules(uow, tenant_id) if state.revision else ()
            known = self._compiled.get(tenant_id, {})
            rules = rules_in_force(stored, known)
            self._compiled[tenant_id] = {(rule.id, rule.version): rule for rule in rules}
            index = index_rules(rules)
        self._kept[tenant_id] = _Kept(now, state, index)
        return self._kept[tenant_id]


def rules_in_force(stored: Sequence[StoredRule], known: dict[tuple[UUID, int], FeeRule] | None = None) -> list[FeeRule]:
    """Return the versions with the time each is in force: until its end, or until a later version begins.

    `stored` is sorted by rule, the newest version first; `known` are rules that were compiled before.
    """
    rules: list[FeeRule] = []
    rule_id: UUID | None = None
    succeeded_at: datetime | None = None
    for version in stored:
        if version.id != rule_id:
            rule_id, succeeded_at = version.id, None
        ends = [end for end in (version.request.valid_until, succeeded_at) if end is not None]
        until_at = min(ends, default=None)
        if version.enabled and (until_at is None or version.valid_from < until_at):
            rule = (known or {}).get((version.id, version.version)) or compile_rule(
                version.request, version.id, version.version, version.valid_from, until_at
            )
            rules.append(rule if rule.until_at == until_at else replace(rule, until_at=until_at))
        succeeded_at = version.valid_from if succeeded_at is None else min(succeeded_at, version.valid_from)
    return rules


def _tier(tiers: Mapping[UUID, str], payment: Payment) -> str:
    return tiers.get(payment.wallet_id, "") if payment.wallet_id is not None else ""


def _priced(index: FeeIndex, payment: Payment, moment: BusinessTime, tier: str) -> Pricing | Refusal:
    asked = payment.at(moment, tier)
    try:
        if payment.bought is None:
            return price(index, asked)
        amount_minor, currency, wallet_id = payment.bought
        bought = asked._replace(amount_minor=amount_minor, currency=currency, wallet_id=wallet_id, bought=True)
        return both(price(index, asked), price(index, bought))
    except FeeError as error:
        return Refusal(error.code, str(error))


def refusal_of(error: FeeError) -> Refusal:
    """Return the refusal of a rule that cannot be kept."""
    return Refusal(error.code, str(error), field=error.field or None)
