"""Quotes and exchanges on a real database with the real ledger: each quote once, both legs or none."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from core.domain.context import Context
from core.domain.operations import liquidity_account, spread_account
from tests.integration.api.conftest import World
from tests.support.signed import Signed

RATE = "35.1275"


@dataclass(frozen=True, slots=True)
class Desk:
    """A tenant that exchanges dollars and baht, and a user with a wallet of either."""

    world: World
    treasury: Signed
    usd: str
    thb: str

    @property
    def api(self) -> Signed:
        """The client of the user's service."""
        return self.world.api

    async def wallet(self, currency: str, owner: str = "anna") -> str:
        """Open a wallet."""
        made = await self.api.post("/v1/wallets", {"owner": owner, "currency": currency})
        wallet_id: str = made.json()["id"]
        return wallet_id

    async def adjust(self, wallet: str, amount_minor: int, currency: str, direction: str = "CREDIT") -> Any:
        """Move money by hand."""
        body = {"operation": "MANUAL_ADJUSTMENT", "wallet_id": wallet, "amount_minor": amount_minor}
        body |= {"currency": currency, "direction": direction}
        return (await self.treasury.post("/v1/intents", body, key=uuid4().hex)).json()

    async def provide(self, amount_minor: int, currency: str) -> None:
        """Fund the liquidity of a currency through a wallet of the house."""
        house = await self.wallet(currency, "house")
        for direction in ("CREDIT", "TO_LIQUIDITY"):
            assert (await self.adjust(house, amount_minor, currency, direction))["state"] == "SETTLED"

    async def tell(self, rate: str = RATE, **changed: Any) -> None:
        """Record a rate of dollars in baht."""
        told = {"base": "USD", "counter": "THB", "rate": rate, "source": "test"} | changed
        answer = await self.treasury.post("/v1/rates", {"rates": [told]})
        assert answer.status_code == 201, answer.text

    async def terms(self, **changed: Any) -> None:
        """Set the terms of the pair."""
        body = {"base": "USD", "counter": "THB", "spread_basis_points": 50, "rate_max_age_s": 600} | changed
        assert (await self.treasury.post("/v1/exchange-pairs", body)).status_code == 201

    async def asks(self, amount_minor: int = 10_000, back: bool = False, **changed: Any) -> Any:
        """Ask for a quote of dollars into baht, or back."""
        sides = (("THB", self.thb), ("USD", self.usd)) if back else (("USD", self.usd), ("THB", self.thb))
        (source, wallet), (target, other) = sides
        body = {"wallet_id": wallet, "counterparty_wallet_id": other, "from_currency": source, "to_currency": target}
        return await self.api.post("/v1/quotes", body | {"amount_minor": amount_minor} | changed)

    async def quote(self, amount_minor: int = 10_000, back: bool = False, **changed: Any) -> dict[str, Any]:
        """Return a quote."""
        answer = await self.asks(amount_minor, back, **changed)
        assert answer.status_code == 201, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def use(self, quote: dict[str, Any], key: Any = "", api: Any = None, **changed: Any) -> Any:
        """Ask for the exchange that a quote offers, changed."""
        body = {
            "operation": "EXCHANGE",
            "wallet_id": quote["wallet_id"],
            "counterparty_wallet_id": quote["counterparty_wallet_id"],
            "amount_minor": quote["from_minor"],
            "currency": quote["from_currency"],
            "quote_id": quote["id"],
        }
        return await (api or self.api).post("/v1/intents", body | changed, key=key or uuid4().hex)

    async def balances(self) -> tuple[int, int, int, int, int, int]:
        """Return dollars and baht of the user, of liquidity and of spreads."""
        tenant = self.world.tenant_id
        wanted = [UUID(self.usd), UUID(self.thb)]
        wanted += [
            make(tenant, currency).id for make in (liquidity_account, spread_account) for currency in ("USD", "THB")
        ]
        ports = self.world.core.ports
        async with ports.unit_of_work(Context(tenant, "test")) as uow:
            found = await ports.ledger.lookup_accounts(uow, wanted)
            assert (await ports.ledger.verify(uow)).holds
        return tuple(found[each].posted_minor if each in found else 0 for each in wanted)  # type: ignore[return-value]


@pytest.fixture
async def desk(world: World) -> Desk:
    """A user with 1,000.00 dollars; 100,000.00 baht to sell, and a rate of now."""
    scopes = ["RATES", "LIQUIDITY", "MANUAL_ADJUSTMENT", "ADJUSTMENT_ALONE", "ADJUSTMENT_DEBIT", "FEES"]
    treasury = await world.other(operations=scopes)
    desk = Desk(world, treasury, "", "")
    desk = Desk(world, treasury, await desk.wallet("USD"), await desk.wallet("THB"))
    await desk.adjust(desk.usd, 100_000, "USD")
    await desk.provide(10_000_000, "THB")
    await desk.terms()
    await desk.tell()
    return desk


async def test_both_legs_move_what_the_quote_said(desk: Desk) -> None:
    quote = await desk.quote()
    assert (quote["from_minor"], quote["to_minor"], quote["spread_minor"]) == (10_000, 349_518, 1757)
    assert (quote["rate"], quote["base"], quote["counter"], quote["rounding"]) == (RATE, "USD", "THB", "DOWN")
    assert (quote["state"], quote["fee_minor"]) == ("OPEN", 0)
    intent = (await desk.use(quote)).json()
    assert intent["state"] == "SETTLED", intent
    agreed = {"quote_id": quote["id"], "currency": "THB", "to_minor": 349_518, "received_minor": 349_518}
    agreed["spread_minor"] = 1757
    assert intent["exchange"] == agreed
    assert (await desk.api.get(f"/v1/intents/{intent['id']}")).json()["exchange"] == agreed
    shown = (await desk.api.get(f"/v1/quotes/{quote['id']}")).json()
    assert (shown["state"], shown["intent_id"]) == ("USED", intent["id"])
    assert await desk.balances() == (90_000, 349_518, 10_000, 10_000_000 - 351_275, 0, 1757)


async def test_an_exact_amount_is_bought_at_a_price_rounded_up_and_sold_back_at_a_loss(desk: Desk) -> None:
    quote = await desk.quote(350_000, side="TO")
    assert (quote["from_minor"], quote["to_minor"], quote["rounding"]) == (10_014, 350_000, "UP")
    assert (await desk.use(quote)).json()["state"] == "SETTLED"
    back = await desk.quote(350_000, back=True)
    assert (back["to_minor"], back["base"]) == (9_913, "USD")
    assert (await desk.use(back)).json()["state"] == "SETTLED"
    usd, thb, *_, spread_usd, _ = await desk.balances()
    assert (usd, thb, spread_usd) == (100_000 - 10_014 + 9_913, 0, 9_963 - 9_913)


async def test_of_fifty_that_use_one_quote_at_once_exactly_one_wins(desk: Desk, second: Signed) -> None:
    quote = await desk.quote()
    # Keys of their own have transactions of their own, which meet in the quote's lock.
    answers = await asyncio.gather(*(desk.use(quote, api=api) for api in await desk.world.at_both(second, 50)))
    outcomes = Counter(
        "SETTLED" if (body := answer.json()).get("state") == "SETTLED" else (body.get("failure") or body)["code"]
        for answer in answers
    )
    assert outcomes == {"SETTLED": 1, "quote_used": 49}
    assert await desk.balances() == (90_000, 349_518, 10_000, 10_000_000 - 351_275, 0, 1757)


async def test_the_same_key_answers_the_same_also_when_the_quote_is_used_and_expired(desk: Desk) -> None:
    await desk.terms(quote_ttl_s=2)
    quote = await desk.quote()
    first, second = await desk.use(quote, "k-1"), await desk.use(quote, "k-1")
    assert (first.status_code, first.json()["state"]) == (201, "SETTLED")
    await expire(desk)
    for again in (second, await desk.use(quote, "k-1")):
        assert again.headers["Idempotent-Replayed"] == "true"
        assert again.json() == first.json()
    other = await desk.use(quote, "k-1", reference="another")
    assert other.json()["code"] == "idempotency_conflict"
    assert (await desk.use(quote, "k-2")).json()["code"] == "quote_used"


async def expire(desk: Desk) -> None:
    """Let every quote expire."""
    await desk.world.admin.execute("UPDATE fleet.quotes SET expires_at = now() - interval '1 second'")


async def test_a_quote_that_expired_is_refused_and_can_be_asked_for_anew(desk: Desk) -> None:
    quote = await desk.quote()
    until = datetime.fromisoformat(quote["expires_at"])
    assert until - datetime.fromisoformat(quote["created_at"]) == timedelta(seconds=30)
    await expire(desk)
    answer = await desk.use(quote, "k")
    assert (answer.status_code, answer.json()["code"]) == (409, "quote_expired")
    assert (await desk.api.get(f"/v1/quotes/{quote['id']}")).json()["state"] == "EXPIRED"
    # The key was not used up by the refusal.
    assert (await desk.use(await desk.quote(), "k")).json()["state"] == "SETTLED"


async def test_a_request_that_differs_from_its_quote_is_refused(desk: Desk) -> None:
    quote = await desk.quote()
    usd, thb = await desk.wallet("USD"), await desk.wallet("THB")
    others: dict[str, Any] = {"wallet_id": usd, "counterparty_wallet_id": thb, "amount_minor": 10_001}
    for field, other in others.items():
        answer = await desk.use(quote, **{field: other})
        assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "quote_mismatch", field)
    assert (await desk.use(quote, currency="THB")).json()["code"] == "currency_mismatch"
    assert (await desk.use(quote, quote_id=None)).json()["code"] == "quote_missing"
    assert (await desk.use(quote, quote_id=str(uuid4()))).json()["code"] == "quote_not_found"
    assert (await desk.use(quote, operation="INTERNAL_P2P", counterparty_wallet_id=usd)).json()[
        "code"
    ] == "quote_not_expected"
    assert (await desk.use(quote)).json()["state"] == "SETTLED"


async def test_a_quote_of_another_tenant_or_wallet_is_not_there(desk: Desk) -> None:
    world, quote = desk.world, await desk.quote()
    tenant = uuid4()
    await world.admin.execute("INSERT INTO fleet.tenants (tenant_id, name) VALUES ($1, 'rival')", tenant)
    root = Context(None, "test")
    key = await world.core.keys.create(
        root, tenant_id=tenant, name="rival", operations=["*", "MANUAL_ADJUSTMENT", "ADJUSTMENT_ALONE"]
    )
    rival = Desk(world, Signed(world.api.http, key.id, key.secret), "", "")
    rival = Desk(World(world.settings, world.core, rival.treasury, tenant, key, world.admin), rival.treasury, "", "")
    usd, thb = await rival.wallet("USD"), await rival.wallet("THB")
    foreign = await desk.use(quote, api=rival.api, wallet_id=usd, counterparty_wallet_id=thb)
    assert foreign.json()["code"] == "quote_not_found"
    assert (await rival.api.get(f"/v1/quotes/{quote['id']}")).json()["code"] == "not_found"
    confined = await world.other(operations=["EXCHANGE"], accounts=[UUID(desk.thb)])
    assert (await confined.get(f"/v1/quotes/{quote['id']}")).json()["code"] == "not_found"
    assert (await desk.use(quote, api=confined)).json()["code"] == "account_not_permitted"


async def test_what_cannot_be_quoted_is_refused_with_its_cause(desk: Desk) -> None:
    async def code(**changed: Any) -> str:
        answer = await desk.asks(**changed)
        assert answer.status_code in (409, 422), answer.text
        return str(answer.json()["code"])

    jpy, bert = await desk.wallet("JPY"), await desk.wallet("THB", "bert")
    assert await code(to_currency="JPY", counterparty_wallet_id=jpy) == "pair_not_offered"
    assert await code(counterparty_wallet_id=bert) == "counterparty_owner_differs"
    assert await code(counterparty_wallet_id=jpy) == "currency_mismatch"
    assert await code(counterparty_wallet_id=str(uuid4())) == "wallet_not_found"
    assert await code(counterparty_wallet_id=desk.usd) == "counterparty_same"
    assert await code(to_currency="XXX") == "unknown_currency"
    assert await code(to_currency="USD") == "invalid_request"
    assert await code(amount_minor=34, back=True) == "exchange_amount_out_of_bounds"
    assert await code(amount_minor=10**15) == "exchange_amount_out_of_bounds"
    await desk.terms(enabled=False)
    assert await code() == "pair_not_offered"


async def test_a_rate_that_is_too_old_is_not_quoted_by_until_a_fresh_one_comes(desk: Desk) -> None:
    await desk.terms(rate_max_age_s=1)
    earlier = datetime.now(UTC) - timedelta(seconds=5)
    await desk.world.admin.execute("ALTER TABLE fleet.exchange_rates DISABLE TRIGGER refuse_change")
    await desk.world.admin.execute("UPDATE fleet.exchange_rates SET observed_at = $1", earlier)
    answer = await desk.asks()
    assert (answer.status_code, answer.json()["code"]) == (409, "rate_stale")
    await desk.terms(rate_max_age_s=600)
    assert (await desk.quote())["rate"] == RATE
    await desk.tell("36")
    assert (await desk.quote())["rate"] == "36"


async def test_an_exchange_without_funds_or_without_liquidity_moves_nothing(desk: Desk) -> None:
    before = await desk.balances()
    poor = (await desk.use(await desk.quote(100_001))).json()
    assert (poor["state"], poor["failure"]["code"]) == ("FAILED", "insufficient_funds")
    assert await desk.balances() == before
    await desk.adjust(desk.usd, 900_000, "USD")
    before = await desk.balances()
    # 3,000.00 dollars are worth 105,382.50 baht, and there are 100,000.00.
    quote = await desk.quote(300_000)
    dry = (await desk.use(quote)).json()
    assert (dry["state"], dry["failure"]["code"]) == ("FAILED", "insufficient_liquidity")
    assert await desk.balances() == before
    # A quote is used by the exchange that was accepted with it, also where that one failed.
    assert (await desk.use(quote)).json()["code"] == "quote_used"


async def test_fees_are_taken_on_top_in_the_source_currency_and_shown_with_the_quote(desk: Desk) -> None:
    rule = {"name": "fx", "operation": "EXCHANGE", "currency": "USD", "fee": {"fixed_minor": 25, "basis_points": 10}}
    assert (await desk.treasury.post("/v1/fee-rules", rule)).status_code == 201
    desk.world.forget_fees()
    quote = await desk.quote()
    assert quote["fee_minor"] == 35
    agreed = await desk.use(quote, auto_confirm={"max_fee_minor": 34})
    assert agreed.json()["code"] == "fee_above_agreed"
    intent = (await desk.use(quote, auto_confirm={"max_fee_minor": 35})).json()
    assert (intent["state"], intent["fee_minor"], intent["exchange"]["to_minor"]) == ("SETTLED", 35, 349_518)
    assert (await desk.balances())[:3] == (100_000 - 10_035, 349_518, 10_000)


@pytest.mark.parametrize("decision", ["", "APPROVE", "REJECT"])
async def test_a_fee_out_of_an_exchange_comes_out_of_what_is_bought(desk: Desk, decision: str) -> None:
    partner = await desk.wallet("THB", "partner")
    shares = [{"qualifier": "fx", "parts": 2}, {"wallet_id": partner, "parts": 1}]
    rule: dict[str, Any] = {"name": "out-of", "operation": "EXCHANGE", "currency": "THB", "phase": "POST"}
    rule |= {"when": "currency == 'THB' && amount_minor > 349000", "fee": {"fixed_minor": 100}, "shares": shares}
    assert (await desk.treasury.post("/v1/fee-rules", rule)).status_code == 201
    # One of the other currency is about what is bought of that, and so takes nothing here.
    other = {"name": "other", "operation": "EXCHANGE", "currency": "USD", "phase": "POST", "fee": {"fixed_minor": 5}}
    assert (await desk.treasury.post("/v1/fee-rules", other)).status_code == 201
    desk.world.forget_fees()
    before, quote = await desk.balances(), await desk.quote()
    assert (quote["to_minor"], quote["fee_minor"], quote["received_minor"]) == (349_518, 0, 349_418)
    intent = (await desk.use(quote, requires_monitoring=bool(decision))).json()
    assert (intent["state"], intent["fee_minor"]) == ("REVIEW" if decision else "SETTLED", 0)
    assert (intent["exchange"]["to_minor"], intent["exchange"]["received_minor"]) == (349_518, 349_418)
    legs = [(leg["qualifier"], leg["amount_minor"], leg["currency"]) for leg in intent["fees"]]
    assert legs == [("fx", 67, "THB"), ("", 33, "THB")]
    if decision:
        reviewer = await desk.world.other(operations=["REVIEW"])
        body = {"decision": decision, "reason": "looked at"}
        assert (await reviewer.post(f"/v1/intents/{intent['id']}/review", body)).status_code == 200
    done = int(decision != "REJECT")
    assert (await desk.balances())[:2] == (before[0] - 10_000 * done, before[1] + 349_418 * done)
    assert (await desk.api.get(f"/v1/wallets/{partner}")).json()["posted_minor"] == 33 * done
    report = (await desk.treasury.get("/v1/exposure")).json()
    thb = next(each for each in report["currencies"] if each["currency"] == "THB")
    assert (thb["sold_minor"], thb["spread_minor"]) == (349_518 * done, 1_757 * done)
    assert thb["position_minor"] == thb["moved_by_hand_minor"] - thb["sold_minor"] - thb["spread_minor"]
    assert [each["to_minor"] for each in report["pairs"]] == [349_518] * done


async def test_a_fee_that_takes_all_that_is_bought_refuses_the_exchange_and_its_quote(desk: Desk) -> None:
    quote = await desk.quote()
    rule = {"name": "all", "operation": "EXCHANGE", "currency": "THB", "phase": "POST", "fee": {"basis_points": 10_000}}
    assert (await desk.treasury.post("/v1/fee-rules", rule)).status_code == 201
    desk.world.forget_fees()
    for answer in (await desk.use(quote), await desk.asks()):
        assert (answer.status_code, answer.json()["code"]) == (422, "fee_exceeds_amount")
    tried = {"operation": "EXCHANGE", "amount_minor": 500, "currency": "THB"}
    free = (await desk.api.post("/v1/fees:dry-run", tried)).json()
    assert (free["rules"], free["received_minor"]) == ([], 500), "what is paid in baht is another side"
    taken = await desk.api.post("/v1/fees:dry-run", tried | {"bought": True})
    assert taken.json()["code"] == "fee_exceeds_amount"


async def test_exchanges_both_ways_at_once_create_and_lose_nothing(desk: Desk) -> None:
    await desk.adjust(desk.thb, 1_000_000, "THB")
    await desk.provide(100_000, "USD")
    before = await desk.balances()
    quotes = [await desk.quote(777 + 13 * n, back=n % 2 == 1, side="TO" if n % 3 else "FROM") for n in range(20)]
    answers = await asyncio.gather(*(desk.use(quote) for quote in quotes))
    assert {answer.json()["state"] for answer in answers} == {"SETTLED"}
    after = await desk.balances()
    for place in (0, 1):
        assert sum(after[place::2]) == sum(before[place::2])
        currency = ("USD", "THB")[place]
        paid = sum(quote["from_minor"] for quote in quotes if quote["from_currency"] == currency)
        got = sum(quote["to_minor"] for quote in quotes if quote["to_currency"] == currency)
        assert after[place] - before[place] == got - paid
        assert after[4 + place] == sum(quote["spread_minor"] for quote in quotes if quote["to_currency"] == currency)


async def test_limits_count_an_exchange_in_the_source_currency(desk: Desk) -> None:
    limiter = await desk.world.other(operations=["LIMITS"])
    limit = {"name": "fx-day", "kind": "DAY", "currency": "USD", "operation": "EXCHANGE", "max_amount_minor": 15_000}
    assert (await limiter.post("/v1/limits", limit)).status_code == 201
    assert (await desk.use(await desk.quote())).json()["state"] == "SETTLED"
    over = (await desk.use(await desk.quote())).json()
    assert (over["failure"]["code"], over["failure"]["limit"]["remaining_minor"]) == ("limit_exceeded", 5_000)
    assert (await desk.use(await desk.quote(5_000))).json()["state"] == "SETTLED"


async def test_an_exchange_under_review_holds_both_sides_until_it_is_decided(desk: Desk) -> None:
    reviewer = await desk.world.other(operations=["REVIEW"])
    before = await desk.balances()
    for decision, state in (("REJECT", "FAILED"), ("APPROVE", "SETTLED")):
        intent = (await desk.use(await desk.quote(), requires_monitoring=True)).json()
        assert intent["state"] == "REVIEW"
        assert (await desk.api.get(f"/v1/wallets/{desk.usd}")).json()["held_minor"] == 10_000
        body = {"decision": decision, "reason": "looked at"}
        decided = await reviewer.post(f"/v1/intents/{intent['id']}/review", body)
        assert decided.status_code == 200, decided.text
        assert (await desk.api.get(f"/v1/intents/{intent['id']}")).json()["state"] == state
        if decision == "REJECT":
            assert await desk.balances() == before
    assert await desk.balances() == (90_000, 349_518, 10_000, 10_000_000 - 351_275, 0, 1757)


async def test_an_exchange_is_not_refunded_but_exchanged_back(desk: Desk) -> None:
    intent = (await desk.use(await desk.quote())).json()
    body = {"operation": "REFUND", "wallet_id": desk.thb, "amount_minor": 1, "currency": "THB"}
    answer = await desk.api.post("/v1/intents", body | {"original_intent_id": intent["id"]}, key="r")
    assert answer.json()["code"] == "original_not_refundable"


async def exposed(desk: Desk, **query: str) -> dict[str, Any]:
    answer = await desk.treasury.get("/v1/exposure", **query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def test_the_exposure_is_what_the_ledger_says(desk: Desk) -> None:
    for amount in (10_000, 3_333, 1):
        assert (await desk.use(await desk.quote(amount))).json()["state"] == "SETTLED"
    assert (await desk.use(await desk.quote(100_000, back=True))).json()["state"] == "SETTLED"
    assert (await desk.use(await desk.quote(100_000), requires_monitoring=True)).json()["failure"]
    held = (await desk.use(await desk.quote(1_000), requires_monitoring=True)).json()
    assert held["state"] == "REVIEW"
    await desk.adjust(desk.usd, 300, "USD", "TO_LIQUIDITY")
    report = await exposed(desk)
    usd, thb = sorted(report["currencies"], key=lambda each: each["currency"] == "THB")
    _, _, own_usd, own_thb, spread_usd, spread_thb = await desk.balances()
    assert (usd["position_minor"], thb["position_minor"]) == (own_usd, own_thb)
    assert (usd["spread_minor"], thb["spread_minor"]) == (spread_usd, spread_thb)
    for each in (usd, thb):
        explained = each["moved_by_hand_minor"] + each["bought_minor"] - each["sold_minor"] - each["spread_minor"]
        assert explained == each["position_minor"]
    assert (usd["bought_minor"], usd["moved_by_hand_minor"], usd["held_minor"]) == (13_334, 300, 0)
    assert (thb["moved_by_hand_minor"], thb["held_minor"]) == (10_000_000, 35_127)
    there = next(pair for pair in report["pairs"] if pair["from_currency"] == "USD")
    assert (there["count"], there["from_minor"]) == (3, 13_334)
    assert (there["to_minor"], there["spread_minor"]) == (thb["sold_minor"], thb["spread_minor"])
    assert Decimal(there["average_rate"]) == round(Decimal(there["to_minor"]) / 13_334, 8)
    later = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    after = await exposed(desk, since=later)
    assert (after["pairs"], [each["bought_minor"] for each in after["currencies"]]) == ([], [0, 0])
    assert {each["position_minor"] for each in after["currencies"]} == {own_usd, own_thb}


async def test_liquidity_goes_below_zero_only_while_the_tenant_allows_it(desk: Desk) -> None:
    await desk.adjust(desk.usd, 900_000, "USD")

    async def allow(may_overdraw: bool) -> Any:
        return await desk.treasury.post("/v1/liquidity", {"currency": "THB", "may_overdraw": may_overdraw})

    assert (await desk.use(await desk.quote(300_000))).json()["failure"]["code"] == "insufficient_liquidity"
    assert (await allow(True)).status_code == 200
    assert (await desk.use(await desk.quote(300_000))).json()["state"] == "SETTLED"
    thb = next(each for each in (await exposed(desk))["currencies"] if each["currency"] == "THB")
    assert (thb["position_minor"], thb["may_overdraw"]) == (10_000_000 - 10_538_250, True)
    refused = await allow(False)
    assert (refused.status_code, refused.json()["code"]) == (409, "liquidity_overdrawn")
    await desk.provide(538_250, "THB")
    assert (await allow(False)).status_code == 200
    assert (await desk.use(await desk.quote(100))).json()["failure"]["code"] == "insufficient_liquidity"
    changes = await desk.world.admin.fetch("SELECT may_overdraw, changed_by FROM fleet.liquidity_changes ORDER BY 1")
    assert [tuple(row) for row in changes] == [
        (False, f"key:{desk.treasury.key_id}"),
        (True, f"key:{desk.treasury.key_id}"),
    ]
    for answer in (await desk.api.get("/v1/exposure"), await desk.api.post("/v1/liquidity", {})):
        assert (answer.status_code, answer.json()["code"]) == (403, "operation_not_permitted")


async def test_nobody_lets_the_liquidity_of_another_tenant_or_another_account_be_overdrawn(desk: Desk) -> None:
    ports, text = desk.world.core.ports, "SELECT fleet.set_overdraft($1, $2, true)"
    tenant = desk.world.tenant_id
    async with ports.unit_of_work(Context(tenant, "test")) as uow:
        assert not await uow.connection.fetchval(text, tenant, UUID(desk.usd))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with ports.unit_of_work(Context(uuid4(), "test")) as uow:
            await uow.connection.fetchval(text, tenant, liquidity_account(tenant, "THB").id)


async def test_liquidity_is_moved_by_a_key_that_names_it_and_never_beyond_what_is_there(desk: Desk) -> None:
    body = {"operation": "MANUAL_ADJUSTMENT", "wallet_id": desk.usd, "amount_minor": 5, "currency": "USD"}
    without = await desk.api.post("/v1/intents", body | {"direction": "TO_LIQUIDITY"}, key="x")
    assert (without.status_code, without.json()["code"]) == (403, "operation_not_permitted")
    dry = await desk.adjust(desk.usd, 1, "USD", "FROM_LIQUIDITY")
    assert (dry["state"], dry["failure"]["code"]) == ("FAILED", "insufficient_liquidity")
    assert (await desk.adjust(desk.usd, 700, "USD", "TO_LIQUIDITY"))["state"] == "SETTLED"
    assert (await desk.adjust(desk.usd, 200, "USD", "FROM_LIQUIDITY"))["state"] == "SETTLED"
    assert (await desk.balances())[:3] == (99_500, 0, 500)


@pytest.mark.parametrize("decision", ["APPROVE", "REJECT"])
async def test_an_exchange_that_waits_for_a_decision_holds_both_legs_and_moves_both_or_none(
    desk: Desk, decision: str
) -> None:
    before = await desk.balances()
    quote = await desk.quote()
    held = (await desk.use(quote, requires_monitoring=True)).json()
    assert held["state"] == "REVIEW", held
    assert await desk.balances() == before
    wallet = (await desk.api.get(f"/v1/wallets/{desk.usd}")).json()
    assert (wallet["held_minor"], wallet["available_minor"]) == (10_000, 90_000)
    assert (await desk.use(quote)).json()["code"] == "quote_used"
    reviewer = await desk.world.other(operations=["REVIEW"])
    body = {"decision": decision, "reason": "looked at"}
    decided = (await reviewer.post(f"/v1/intents/{held['id']}/review", body)).json()
    after = await desk.balances()
    if decision == "APPROVE":
        assert decided["state"] == "SETTLED"
        assert (after[0], after[1]) == (before[0] - 10_000, before[1] + quote["to_minor"])
    else:
        assert (decided["state"], decided["failure"]["code"]) == ("FAILED", "review_rejected")
        assert after == before
    assert (await desk.api.get(f"/v1/wallets/{desk.usd}")).json()["held_minor"] == 0
