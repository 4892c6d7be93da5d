"""Exchanges with yen, which have no decimals, on either side: fees on top and out of it, statements of both wallets."""

import csv
import io
from typing import Any

import pytest

from tests.integration.api.conftest import World
from tests.integration.api.test_exchange import Desk
from tests.integration.api.test_exchange import desk as desk  # noqa: PLC0414 - a fixture
from tests.integration.api.test_statements import DAYS


async def rule(desk: Desk, currency: str, phase: str, **fee: Any) -> None:
    """Take a fee of exchanges in a currency."""
    body = {"name": f"{phase}-{currency}".lower(), "operation": "EXCHANGE", "currency": currency, "phase": phase}
    assert (await desk.treasury.post("/v1/fee-rules", body | {"fee": fee})).status_code == 201


@pytest.fixture
async def yen(desk: Desk) -> str:
    """A wallet with 10,000 yen; a baht is 4.2105 of them, and 100,000 of the house's are to be had."""
    wallet = await desk.wallet("JPY")
    await desk.adjust(wallet, 10_000, "JPY")
    await desk.provide(100_000, "JPY")
    await desk.adjust(desk.thb, 100_000, "THB")
    await desk.terms(base="THB", counter="JPY", spread_basis_points=100)
    await desk.tell("4.2105", base="THB", counter="JPY")
    for currency, on_top in (("THB", 150), ("JPY", 15)):
        await rule(desk, currency, "PRE", fixed_minor=on_top)
        await rule(desk, currency, "POST", basis_points=250)
    desk.world.forget_fees()
    return wallet


def sides(desk: Desk, yen: str, sold: bool) -> dict[str, Any]:
    """Return what a quote is asked with: of yen for baht where they are `sold`, else of baht for yen."""
    ours, theirs = {"wallet": yen, "currency": "JPY"}, {"wallet": desk.thb, "currency": "THB"}
    source, target = (ours, theirs) if sold else (theirs, ours)
    return {
        "wallet_id": source["wallet"], "from_currency": source["currency"],
        "counterparty_wallet_id": target["wallet"], "to_currency": target["currency"],
    }  # fmt: skip


async def posted(desk: Desk, wallet: str) -> int:
    return int((await desk.api.get(f"/v1/wallets/{wallet}")).json()["posted_minor"])


@pytest.mark.parametrize(
    ("sold", "side", "asked", "paid", "bought", "spread", "on_top", "out_of"),
    [
        # 1,000.00 baht are 4,210.5 yen: of 4,210 a hundredth and the fraction stay with the house.
        (False, "FROM", 100_000 - 150, 99_850, 4_162, 42, 150, 104),
        # 999 yen cost 239.6606 baht: rounded up, so that what is paid is worth it and the spread.
        (False, "TO", 999, 23_967, 999, 10, 150, 25),
        # 1,000 yen are 237.50 baht and a fraction.
        (True, "FROM", 1_000, 1_000, 23_512, 238, 15, 588),
        (True, "TO", 23_512, 1_000, 23_512, 238, 15, 588),
        # One yen alone is 23.75 satang.
        (True, "FROM", 1, 1, 23, 0, 15, 1),
    ],
    ids=["bought for baht", "an amount of yen", "sold", "for an amount of baht", "one yen"],
)
async def test_yen_are_exchanged_whole_with_fees_on_top_and_out_of_them(
    desk: Desk, yen: str, sold: bool, side: str, asked: int, paid: int, bought: int, spread: int, on_top: int,
    out_of: int,
) -> None:  # fmt: skip
    about = sides(desk, yen, sold)
    before = await posted(desk, yen), await posted(desk, desk.thb)
    quote = await desk.quote(asked, side=side, **about)
    assert (quote["from_minor"], quote["to_minor"], quote["spread_minor"]) == (paid, bought, spread)
    assert (quote["fee_minor"], quote["received_minor"]) == (on_top, bought - out_of)
    intent = (await desk.use(quote)).json()
    assert (intent["state"], intent["fee_minor"]) == ("SETTLED", on_top), intent
    legs = {(leg["phase"], leg["currency"]): leg["amount_minor"] for leg in intent["fees"]}
    assert legs == {("PRE", about["from_currency"]): on_top, ("POST", about["to_currency"]): out_of}
    given, got = -(paid + on_top), bought - out_of
    after = (given, got) if sold else (got, given)
    assert (await posted(desk, yen), await posted(desk, desk.thb)) == (before[0] + after[0], before[1] + after[1])
    report = {each["currency"]: each for each in (await desk.treasury.get("/v1/exposure")).json()["currencies"]}
    for each in report.values():
        moved = each["moved_by_hand_minor"] + each["bought_minor"] - each["sold_minor"] - each["spread_minor"]
        assert each["position_minor"] == moved
    assert report[about["to_currency"]]["spread_minor"] == spread
    await desk.balances()  # proves the ledgers


async def test_what_buys_no_whole_yen_is_refused_and_what_a_fee_leaves_nothing_of_too(desk: Desk, yen: str) -> None:
    about = sides(desk, yen, False)
    refused = await desk.asks(23, **about)
    assert (refused.status_code, refused.json()["code"]) == (422, "exchange_amount_out_of_bounds")
    await rule(desk, "JPY", "POST", fixed_minor=1)
    desk.world.forget_fees()
    refused = await desk.asks(24, **about)
    assert (refused.status_code, refused.json()["code"]) == (422, "fee_exceeds_amount")


async def test_both_statements_of_an_exchange_have_the_decimals_of_their_currency(desk: Desk, yen: str) -> None:
    world: World = desk.world
    for sold in (False, True):
        quote = await desk.quote(1_000, **sides(desk, yen, sold))
        assert (await desk.use(quote)).json()["state"] == "SETTLED"
    for wallet, decimals in ((yen, 0), (desk.thb, 2)):
        query = DAYS | {"tz": "Asia/Tokyo"}
        document = (await world.api.get(f"/v1/wallets/{wallet}/statement", **query)).json()
        answer = await world.api.get(f"/v1/wallets/{wallet}/statement", **query, format="csv")
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        balances = [row["balance"] for row in rows if row["balance"]]
        assert {len(each.partition(".")[2]) for each in balances} == {decimals}
        closing = await posted(desk, wallet)
        assert document["closing_balance_minor"] == closing
        assert int(balances[-1].replace(".", "")) == closing
        sums = [*document["totals"], document["fees"]]
        came = sum(each["credit_minor"] - each["debit_minor"] for each in sums)
        assert document["opening_balance_minor"] + came == closing
