"""Fee rules over HTTP: checked when saved, versions never edited, one tenant's alone, tried without paying."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from core.domain.context import Context
from core.domain.fees import FREE, Pricing
from core.services.problems import Refusal
from core.services.terms.fees import FeeBook, Payment
from core.store.terms.fees import FeeRuleStore
from schemas.fees import FeePhase
from tests.integration.api.conftest import World, payout
from tests.support.signed import Signed

ONE_PERCENT: dict[str, Any] = {
    "name": "one-percent",
    "operation": "PAYOUT",
    "currency": "THB",
    "fee": {"kind": "RATE", "fixed_minor": 5, "basis_points": 100},
}


@pytest.fixture
async def operator(world: World) -> Signed:
    """A client whose key names FEES, and payouts to try."""
    return await world.other(operations=["FEES", "PAYOUT", "WALLETS"])


async def put(operator: Signed, status: int = 201, **changed: Any) -> dict[str, Any]:
    answer = await operator.post("/v1/fee-rules", ONE_PERCENT | changed)
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def tried(operator: Signed, amount_minor: int = 10_000, **changed: Any) -> dict[str, Any]:
    body = {"operation": "PAYOUT", "amount_minor": amount_minor, "currency": "THB"} | changed
    answer = await operator.post("/v1/fees:dry-run", body)
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = answer.json()
    return view


async def priced(world: World, book: FeeBook, amount_minor: int = 10_000) -> Pricing | Refusal:
    async with world.core.ports.unit_of_work(Context(world.tenant_id, "test")) as uow:
        payment = Payment(amount_minor, "THB", "PAYOUT")
        return (await book.fees_for(uow, world.tenant_id, [payment]))[0]


async def test_a_key_that_does_not_name_fees_neither_sets_nor_sees_rules(world: World) -> None:
    before = await world.contents()
    for answer in (
        await world.api.post("/v1/fee-rules", ONE_PERCENT),
        await world.api.get("/v1/fee-rules"),
        await world.api.get(f"/v1/fee-rules/{uuid4()}/versions"),
        await world.api.post(f"/v1/fee-rules/{uuid4()}/disable", {}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "operation_not_permitted")
    assert await world.contents() == before


async def test_a_rule_is_tried_changed_and_disabled_and_every_version_stays(world: World, operator: Signed) -> None:
    first = await put(operator)
    assert (first["version"], first["enabled"]) == (1, True)
    assert (await put(operator, status=200))["version"] == 1
    view = await tried(operator)
    assert (view["pre_minor"], view["debited_minor"], view["received_minor"]) == (105, 10_105, 10_000)
    assert [(rule["name"], rule["outcome"]) for rule in view["rules"]] == [("one-percent", "APPLIED")]
    second = await put(operator, phase="POST", when="amount_minor > 20000")
    assert (second["id"], second["version"]) == (first["id"], 2)
    assert [(rule["version"], rule["outcome"]) for rule in (await tried(operator))["rules"]] == [(2, "CONDITION_FALSE")]
    assert (await tried(operator, 30_000))["received_minor"] == 30_000 - 305
    disabled = await operator.post(f"/v1/fee-rules/{first['id']}/disable", {})
    assert (disabled.json()["version"], disabled.json()["enabled"]) == (3, False)
    assert (await operator.post(f"/v1/fee-rules/{first['id']}/disable", {})).json()["version"] == 3
    assert (await tried(operator, 30_000))["rules"] == []
    versions = (await operator.get(f"/v1/fee-rules/{first['id']}/versions")).json()["items"]
    assert [(each["version"], each["enabled"], each["rule"]["phase"]) for each in versions] == [
        (3, False, "POST"), (2, True, "POST"), (1, True, "PRE")
    ]  # fmt: skip
    # What was in force between the first version and the second is still known.
    assert (await tried(operator, at=first["valid_from"]))["pre_minor"] == 105
    listed = (await operator.get("/v1/fee-rules")).json()["items"]
    assert [(each["name"], each["version"]) for each in listed] == [("one-percent", 3)]
    with pytest.raises(asyncpg.RestrictViolationError):
        await world.admin.execute("UPDATE fleet.fee_rules SET body = '{}'")


async def test_a_version_of_the_future_leaves_the_present_one_in_force_until_it_begins(operator: Signed) -> None:
    await put(operator)
    later = datetime.now(UTC) + timedelta(days=30)
    await put(operator, fee={"kind": "RATE", "fixed_minor": 900}, valid_from=later.isoformat())
    assert (await tried(operator))["pre_minor"] == 105
    assert (await tried(operator, at=later.isoformat()))["pre_minor"] == 900
    rules = (await tried(operator))["rules"]
    assert [(rule["version"], rule["outcome"]) for rule in rules] == [(1, "APPLIED"), (2, "NOT_IN_FORCE")]


async def test_a_dry_run_tells_of_each_rule_why_it_applied_or_not(operator: Signed) -> None:
    await put(operator, name="gold", priority=1, when="tier == 'gold'", last=True, fee={"kind": "RATE"})
    await put(operator, name="night", priority=2, when="hour < 6", fee={"kind": "RATE", "fixed_minor": 50})
    await put(operator, name="split", priority=3, shares=[{"parts": 2}, {"qualifier": "partner", "parts": 1}])
    noon = "2030-01-01T12:00:00Z"
    view = await tried(operator, at=noon)
    assert [rule["outcome"] for rule in view["rules"]] == ["CONDITION_FALSE", "CONDITION_FALSE", "APPLIED"]
    assert [(leg["code"], leg["qualifier"], leg["amount_minor"]) for leg in view["legs"]] == [
        ("FEE_INCOME", "", 70), ("FEE_INCOME", "partner", 35)
    ]  # fmt: skip
    gold = await tried(operator, at=noon, tier="gold")
    assert [rule["outcome"] for rule in gold["rules"]] == ["NOTHING_DUE", "AFTER_LAST", "AFTER_LAST"]
    assert (gold["legs"], gold["pre_minor"]) == ([], 0)


async def test_the_hours_of_rules_are_those_of_the_tenants_timezone(world: World, operator: Signed) -> None:
    await put(operator, when="hour == 19 && weekday == 2")
    noon = "2030-01-01T12:00:00Z"
    assert (await tried(operator, at=noon))["pre_minor"] == 0
    await world.admin.execute("UPDATE fleet.tenants SET business_timezone = 'Asia/Bangkok'")
    assert (await tried(operator, at=noon))["pre_minor"] == 105
    for unknown in ("Asia/Bankok", "PST8PDT,M3", ""):
        with pytest.raises((asyncpg.CheckViolationError, asyncpg.InvalidParameterValueError)):
            await world.admin.execute("UPDATE fleet.tenants SET business_timezone = $1", unknown)


@pytest.mark.parametrize(
    ("changed", "code", "field", "told"),
    [
        ({"currency": "XXX"}, "unknown_currency", "currency", "XXX"),
        ({"when": "amount_minor >\n  && 5"}, "fee_syntax", "when", "line 2, column 3"),
        ({"when": "[1].exists(tier, true)"}, "fee_expression_forbidden", "when", "line 1, column 5: no loops"),
        ({"when": "balance > 5"}, "fee_name_unknown", "when", "no variable balance"),
        ({"when": "amount_minor"}, "fee_result_type", "when", "neither true nor false"),
        ({"fee": {"kind": "FORMULA", "expression": "1 / (amount_minor - 1)"}}, "fee_rule_fails", "fee.expression", ""),
        ({"samples": [{"amount_minor": 100, "fee_minor": 7}]}, "fee_sample_differs", "samples.0.fee_minor", "is 6"),
        ({"shares": [{}, {"wallet_id": str(uuid4())}]}, "fee_account_unknown", "shares.1.wallet_id", "none of this"),
        ({"minimum_minor": 9, "maximum_minor": 8}, "invalid_request", None, "exceeds"),
        ({"when": "tier == '\0'"}, "invalid_request", "when", "not written as it has"),
        ({"valid_until": "9999-12-31T23:59:59-12:00"}, "invalid_request", "valid_until", "less than"),
        ({"operation": "MANUAL_ADJUSTMENT"}, "operation_not_supported", "operation", "no fees"),
    ],
)  # fmt: skip
async def test_a_bad_rule_is_refused_with_its_place_and_nothing_is_kept(
    world: World, operator: Signed, changed: dict[str, Any], code: str, field: str | None, told: str
) -> None:
    before = await world.contents()
    answer = await operator.post("/v1/fee-rules", ONE_PERCENT | changed)
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem.get("field")) == (422, code, field), problem
    assert told in problem["detail"]
    assert await world.contents() == before


async def test_a_share_goes_to_a_wallet_of_the_tenant_in_the_rules_currency_alone(operator: Signed) -> None:
    wallets = [
        (await operator.post("/v1/wallets", {"owner": "partner", "currency": currency})).json()["id"]
        for currency in ("THB", "USD")
    ]
    await put(operator, shares=[{"wallet_id": wallets[0]}])
    refused = await operator.post("/v1/fee-rules", ONE_PERCENT | {"shares": [{"wallet_id": wallets[1]}]})
    assert refused.json()["code"] == "fee_account_unknown"


async def test_a_payment_whose_fees_leave_nothing_is_refused_in_the_dry_run(operator: Signed) -> None:
    await put(operator, phase="POST", fee={"kind": "RATE", "fixed_minor": 100})
    body = {"operation": "PAYOUT", "amount_minor": 100, "currency": "THB"}
    answer = await operator.post("/v1/fees:dry-run", body)
    assert (answer.status_code, answer.json()["code"]) == (422, "fee_exceeds_amount")
    assert (await operator.post("/v1/fees:dry-run", body | {"operation": "REFUND"})).status_code == 403


async def test_another_tenant_neither_sees_nor_touches_a_rule(world: World, operator: Signed) -> None:
    mine = await put(operator)
    tenant = uuid4()
    await world.admin.execute("INSERT INTO fleet.tenants (tenant_id, name) VALUES ($1, 'other')", tenant)
    key = await world.core.keys.create(
        Context(world.tenant_id, "test"), tenant_id=tenant, name="x", operations=["FEES", "PAYOUT"]
    )
    other = Signed(world.api.http, key.id, key.secret)
    assert (await other.get("/v1/fee-rules")).json()["items"] == []
    assert (await other.get(f"/v1/fee-rules/{mine['id']}/versions")).status_code == 404
    assert (await other.post(f"/v1/fee-rules/{mine['id']}/disable", {})).status_code == 404
    assert (await tried(other))["rules"] == []
    theirs = await put(other)
    assert (theirs["id"] != mine["id"], theirs["version"]) == (True, 1)


async def test_people_who_set_one_rule_at_once_make_versions_in_a_row(operator: Signed) -> None:
    fees = [{"kind": "RATE", "fixed_minor": number} for number in range(8)]
    made = await asyncio.gather(*(put(operator, fee=fee) for fee in fees))
    assert sorted(each["version"] for each in made) == list(range(1, 9))


async def test_the_book_learns_of_a_rule_once_what_it_read_is_old_and_loads_it_once(
    world: World, operator: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, loads = FeeRuleStore(), []
    load = store.load_rules

    async def counted(uow: Any, tenant_id: UUID, at: datetime | None = None) -> Any:
        loads.append(tenant_id)
        return await load(uow, tenant_id, at)

    monkeypatch.setattr(store, "load_rules", counted)
    book = FeeBook(store, fresh_s=60)
    assert (await priced(world, book), loads) == (FREE, [])
    await put(operator)
    assert await priced(world, book) == FREE
    monkeypatch.setattr(book, "_fresh_s", 0)
    for _ in range(3):
        pricing = await priced(world, book)
        assert isinstance(pricing, Pricing)
        assert pricing.minor(FeePhase.PRE) == 105
    assert len(loads) == 1


async def test_one_payment_without_a_price_does_not_hold_up_its_neighbours(world: World, operator: Signed) -> None:
    await put(operator, phase="POST", fee={"kind": "RATE", "fixed_minor": 100})
    book = FeeBook(FeeRuleStore())
    assert isinstance(await priced(world, book), Pricing)
    async with world.core.ports.unit_of_work(Context(world.tenant_id, "test")) as uow:
        payments = [Payment(amount, "THB", "PAYOUT") for amount in (101, 100, 10_000)]
        answers = await book.fees_for(uow, world.tenant_id, payments)
    assert [isinstance(answer, Pricing) for answer in answers] == [True, False, True]
    assert isinstance(answers[1], Refusal)
    assert answers[1].code == "fee_exceeds_amount"


async def test_each_payment_of_a_batch_keeps_its_own_fees_also_where_others_have_the_same(
    world: World, operator: Signed
) -> None:
    await put(operator, when="amount_minor >= 500")
    world.forget_fees()
    wallet = await world.funded_wallet(100_000)
    amounts = [499, 500, 1_000, 599, 500, 100, 1_000]  # one percent of 599 is rounded to that of 600
    items = [
        {"idempotency_key": f"b{number}", "intent": payout(wallet, amount)} for number, amount in enumerate(amounts)
    ]
    told = [each["intent"] for each in (await world.api.post("/v1/intents:batch", {"items": items})).json()["results"]]
    shown = [(await world.api.get(f"/v1/intents/{each['id']}")).json() for each in told]
    assert [[leg["amount_minor"] for leg in each["fees"]] for each in shown] == [[], [10], [15], [11], [10], [], [15]]
    assert [each["fees"] for each in shown] == [each["fees"] for each in told]
    assert [each["fee_minor"] for each in shown] == [0, 10, 15, 11, 10, 0, 15]
