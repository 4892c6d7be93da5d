"""Quotes: what an exchange costs, offered once and for a while, and whether a request may use one."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from core.domain.exchange import ROUNDING, Exchanged, Quote, exchange_from, exchange_to
from core.domain.fees import Pricing
from core.domain.ids import mint_id
from core.domain.rates import Pair, Rate, is_too_old
from core.domain.registry import OPERATIONS
from core.services.access.keys import Caller
from core.services.problems import Refusal, require_currency
from core.services.terms.fees import Bought, Payment
from core.services.wallets.wallets import Wallet
from schemas.api import IntentRequest
from schemas.exchange import QuoteRequest, QuoteSide, QuoteView
from schemas.fees import FeePhase
from schemas.money import money_text
from schemas.operations import OperationType

USED = "quote_used"
USED_TEXT = "another exchange used this quote: ask for a new one"


@dataclass(frozen=True, slots=True)
class Offer:
    """The terms of a pair and its rate in force, as they are at a moment of the database."""

    now: datetime
    pair: Pair
    enabled: bool
    spread_basis_points: int
    rate_max_age_s: int
    quote_ttl_s: int
    rate: Rate | None
    rate_version: int
    observed_at: datetime | None


class Quotes(Protocol):
    """Where quotes are kept."""

    async def offer(self, uow: Any, tenant_id: UUID, pair: Pair) -> Offer | None: ...

    async def insert_quote(self, uow: Any, quote: Quote) -> None: ...

    async def find_quotes(
        self, uow: Any, ids: Sequence[UUID], *, lock: bool = False
    ) -> tuple[dict[UUID, Quote], datetime | None]: ...

    async def use_quotes(self, uow: Any, used: Mapping[UUID, UUID]) -> None: ...


class Wallets(Protocol):
    """Finds wallets of the tenant."""

    async def find_wallets(self, uow: Any, ids: Sequence[UUID]) -> dict[UUID, Wallet]: ...


class Fees(Protocol):
    """Prices payments of a tenant."""

    async def fees_for(self, uow: Any, tenant_id: UUID, payments: Sequence[Payment]) -> Sequence[Pricing | Refusal]: ...


class QuotePorts(Protocol):
    """What quoting works with."""

    @property
    def quotes(self) -> Quotes: ...
    @property
    def wallets(self) -> Wallets: ...
    @property
    def fees(self) -> Fees: ...


@dataclass(frozen=True, slots=True)
class Locked:
    """The quotes that the requests of a batch name, locked, at a moment of the database."""

    quotes: Mapping[UUID, Quote]
    now: datetime | None


async def make_quote(uow: Any, ports: QuotePorts, caller: Caller, request: QuoteRequest) -> QuoteView:
    """Make a quote and keep it.

    Raises Refusal: operation_not_permitted, account_not_permitted, unknown_currency, counterparty_same,
    wallet_not_found, currency_mismatch, counterparty_owner_differs, pair_not_offered, rate_stale,
    exchange_amount_out_of_bounds, and what the fee rules raise.
    """
    caller.require_operation(OperationType.EXCHANGE)
    caller.require_account(request.wallet_id)
    await _check_wallets(uow, ports.wallets, caller, request)
    asked = Pair(request.from_currency, request.to_currency)
    offer = await ports.quotes.offer(uow, caller.tenant_id, asked)
    if offer is None or not offer.enabled:
        raise Refusal("pair_not_offered", f"{asked} is not exchanged here", field="to_currency")
    if (
        offer.rate is None
        or offer.observed_at is None
        or is_too_old(offer.observed_at, offer.rate_max_age_s, offer.now)
    ):
        last = f"the last one is of {offer.observed_at:%Y-%m-%dT%H:%M:%SZ}" if offer.observed_at else "there is none"
        raise Refusal(
            "rate_stale", f"no rate of {offer.pair} is fresh enough ({last}): ask again once one was recorded"
        )
    amounts = _amounts(request, offer, offer.rate)
    quote = Quote(
        id=mint_id(time.time_ns() // 1_000_000),
        tenant_id=caller.tenant_id,
        service_key_id=caller.key_id,
        wallet_id=request.wallet_id,
        counterparty_wallet_id=request.counterparty_wallet_id,
        from_currency=request.from_currency,
        to_currency=request.to_currency,
        from_minor=amounts.from_minor,
        to_minor=amounts.to_minor,
        spread_minor=amounts.spread_minor,
        side=request.side,
        pair=offer.pair,
        rate=offer.rate,
        rate_version=offer.rate_version,
        spread_basis_points=offer.spread_basis_points,
        created_at=offer.now,
        expires_at=offer.now + timedelta(seconds=offer.quote_ttl_s),
    )
    fees = await _fees(uow, ports.fees, quote, request.channel)
    await ports.quotes.insert_quote(uow, quote)
    return quote_view(quote, offer.now, fees)


async def show_quote(uow: Any, quotes: Quotes, caller: Caller, quote_id: UUID) -> QuoteView:
    """Return a quote. Raises Refusal `not_found`, also for one of a wallet that the key does not cover."""
    found, now = await quotes.find_quotes(uow, [quote_id])
    quote = found.get(quote_id)
    if quote is None or now is None or (caller.accounts is not None and quote.wallet_id not in caller.accounts):
        raise Refusal("not_found", "there is no such quote")
    return quote_view(quote, now)


async def lock_quotes(uow: Any, quotes: Quotes, tenant_id: UUID, requests: Sequence[IntentRequest]) -> Locked:
    """Return the quotes that requests name, locked until the end. Costs nothing where none names one.

    Who asks later for the same quote waits here, and sees that it was used.
    """
    ids = {request.quote_id for request in requests if request.quote_id is not None}
    if not ids:
        return Locked({}, None)
    found, now = await quotes.find_quotes(uow, sorted(ids), lock=True)
    return Locked({each.id: each for each in found.values() if each.tenant_id == tenant_id}, now)


def check_quote(request: IntentRequest, locked: Locked) -> Quote | None:
    """Return the quote that an exchange goes by; None for any other operation.

    Raises Refusal: quote_not_expected, quote_missing, quote_not_found, quote_mismatch, quote_used, quote_expired.
    """
    at = "quote_id"
    if not OPERATIONS[request.operation].exchanges:
        if request.quote_id is not None:
            raise Refusal("quote_not_expected", f"{request.operation} exchanges nothing: leave it out", field=at)
        return None
    if request.quote_id is None:
        raise Refusal("quote_missing", "ask for a quote first: POST /v1/quotes, and name it in quote_id", field=at)
    quote = locked.quotes.get(request.quote_id)
    if quote is None or locked.now is None:
        raise Refusal("quote_not_found", "there is no such quote", field=at)
    for field, quoted in (
        ("wallet_id", quote.wallet_id),
        ("counterparty_wallet_id", quote.counterparty_wallet_id),
        ("currency", quote.from_currency),
        ("amount_minor", quote.from_minor),
    ):
        if getattr(request, field) != quoted:
            raise Refusal("quote_mismatch", f"the quote says {field} {quoted}: send what was quoted", field=field)
    state = quote.state(locked.now)
    if state == "USED":
        raise Refusal(USED, USED_TEXT, field=at)
    if state == "EXPIRED":
        text = f"the quote was good until {quote.expires_at:%Y-%m-%dT%H:%M:%SZ}: ask for a new one"
        raise Refusal("quote_expired", text, field=at)
    return quote


def quote_view(quote: Quote, now: datetime, fees: Pricing | None = None) -> QuoteView:
    """Return the quote as it is shown, with its fees where they were asked for."""
    return QuoteView(
        id=quote.id,
        state=quote.state(now),
        wallet_id=quote.wallet_id,
        counterparty_wallet_id=quote.counterparty_wallet_id,
        from_currency=quote.from_currency,
        from_minor=quote.from_minor,
        to_currency=quote.to_currency,
        to_minor=quote.to_minor,
        side=quote.side,
        base=quote.pair.base,
        counter=quote.pair.counter,
        rate=str(quote.rate),
        rate_version=quote.rate_version,
        spread_basis_points=quote.spread_basis_points,
        spread_minor=quote.spread_minor,
        rounding=ROUNDING[quote.side],
        fee_minor=None if fees is None else fees.minor(FeePhase.PRE),
        received_minor=None if fees is None else quote.to_minor - fees.minor(FeePhase.POST),
        created_at=quote.created_at,
        expires_at=quote.expires_at,
        intent_id=quote.intent_id,
    )


async def _check_wallets(uow: Any, wallets: Wallets, caller: Caller, request: QuoteRequest) -> None:
    require_currency(request.from_currency, "from_currency")
    require_currency(request.to_currency, "to_currency")
    at = "counterparty_wallet_id"
    if request.wallet_id == request.counterparty_wallet_id:
        raise Refusal("counterparty_same", "a wallet cannot pay itself: name another one", field=at)
    found = await wallets.find_wallets(uow, [request.wallet_id, request.counterparty_wallet_id])
    sides = (
        ("wallet_id", request.wallet_id, request.from_currency),
        (at, request.counterparty_wallet_id, request.to_currency),
    )
    for field, wallet_id, currency in sides:
        wallet = found.get(wallet_id)
        if wallet is None or wallet.tenant_id != caller.tenant_id:
            raise Refusal("wallet_not_found", "create the wallet first: POST /v1/wallets", field=field)
        if wallet.currency != currency:
            raise Refusal("currency_mismatch", f"the wallet holds {wallet.currency}", field=field)
    if len({wallet.owner for wallet in found.values()}) > 1:
        text = "an exchange is between wallets of one owner: pay others by INTERNAL_P2P afterwards"
        raise Refusal("counterparty_owner_differs", text, field=at)


def _amounts(request: QuoteRequest, offer: Offer, rate: Rate) -> Exchanged:
    ratio = rate.ratio(offer.pair, request.from_currency)
    compute = exchange_from if request.side is QuoteSide.FROM else exchange_to
    amounts = compute(request.amount_minor, ratio, offer.spread_basis_points)
    if not amounts.fits:
        remedy = "ask for less" if amounts.to_minor else "ask for more"
        text = (
            f"{money_text(amounts.from_minor, request.from_currency)} would buy"
            f" {money_text(amounts.to_minor, request.to_currency)}: {remedy}"
        )
        raise Refusal("exchange_amount_out_of_bounds", text, field="amount_minor")
    return amounts


async def _fees(uow: Any, fees: Fees, quote: Quote, channel: str) -> Pricing:
    """Return what the fee rules of now take. Raises Refusal, theirs."""
    payment = Payment(
        quote.from_minor,
        quote.from_currency,
        OperationType.EXCHANGE,
        channel=channel,
        wallet_id=quote.wallet_id,
        bought=bought_by(quote),
    )
    [answer] = await fees.fees_for(uow, quote.tenant_id, [payment])
    if isinstance(answer, Refusal):
        raise answer
    return answer


def bought_by(quote: Quote) -> Bought:
    """Return what the fee rules are asked about beside what is paid."""
    return Bought(quote.to_minor, quote.to_currency, quote.counterparty_wallet_id)
