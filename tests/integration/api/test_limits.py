"""Limits over HTTP, on real counters: exact under concurrency, given back by what fails, and told with each refusal."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from core.domain.context import Context
from core.domain.ids import derive_id
from core.services.problems import Refusal
from core.services.settling.close_job import close_if_unsent
from core.services.settling.settle import Delivery, settle_batch
from core.services.terms.limits import LimitBook
from core.services.terms.set_routes import RouteRequest, set_route
from core.store.database import UnitOfWork
from core.store.settling import rails
from core.store.terms.limits import LimitStore, stored_quotas
from core.store.terms.routes import RouteStore
from schemas.events import IntentState
from schemas.limits import QuotaObject
from schemas.operations import JobKind
from schemas.results import Result
from tests.integration.api.conftest import World, payout
from tests.support.signed import Signed

DAILY: dict[str, Any] = {"name": "daily", "kind": "DAY", "currency": "THB", "max_amount_minor": 1000}


@pytest.fixture
async def operator(world: World) -> Signed:
    """A client whose key names LIMITS and pays."""
    return await world.other(operations=["LIMITS", "*"])


async def put(operator: Signed, status: int = 201, **changed: Any) -> dict[str, Any]:
    answer = await operator.post("/v1/limits", DAILY | changed)
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def pay(world: World, wallet: str, amount_minor: int = 100, **changed: Any) -> dict[str, Any]:
    answer = await world.api.post("/v1/intents", payout(wallet, amount_minor, **changed), key=str(uuid4()))
    assert answer.status_code == 201, answer.text
    intent: dict[str, Any] = answer.json()
    return intent


async def standing(operator: Signed, wallet: str, name: str = "daily") -> dict[str, Any]:
    answer = await operator.get(f"/v1/wallets/{wallet}/limits")
    assert answer.status_code == 200, answer.text
    (item,) = [item for item in answer.json()["items"] if item["name"] == name]
    found: dict[str, Any] = item
    return found


async def proven(world: World) -> None:
    """Every counter is the sum of what intents have at it."""
    async with world.core.worker_database.unit_of_work(Context(None, "test")) as uow:
        assert await LimitStore().verify(uow) == []


async def settle(world: World, intent_id: str) -> None:
    """Let the provider answer that it paid."""
    job_id = derive_id(UUID(intent_id), "job", JobKind.PAY)
    await world.admin.execute("UPDATE fleet.jobs SET fence = 1, first_granted_at = now() WHERE id = $1", job_id)
    await world.admin.execute(
        "INSERT INTO fleet.attempts (job_id, fence, tenant_id, mode, reference, provider_account, environment,"
        " service_key_id, incarnation, request_id) SELECT id, 1, tenant_id, 'SEND', reference, provider_account,"
        " environment, 'k', gen_random_uuid(), gen_random_uuid() FROM fleet.jobs WHERE id = $1 ON CONFLICT DO NOTHING",
        job_id,
    )
    job = await world.admin.fetchrow("SELECT * FROM fleet.jobs WHERE id = $1", job_id)
    assert job is not None
    result = Result.model_validate(
        {
            "job_id": job_id,
            "rail": "noop",
            "kind": "pay",
            "fence": 1,
            "verdict": "SUCCEEDED",
            "basis": "SUBMISSION",
            "amount_minor": job["amount_minor"],
            "currency": "THB",
            "provider_tx_id": f"tx-{intent_id}",
            "observed_at": datetime.now(UTC),
        }
    )
    delivery = Delivery("noop", "{noop}:results", "1-0", result.model_dump_json(), result=result)
    worker = world.core.worker_database
    await settle_batch(world.core.worker_ports, lambda: worker.unit_of_work(Context(None, "test")), [delivery])


async def test_fifty_at_once_on_one_wallet_fill_the_limit_exactly(
    world: World, operator: Signed, second: Signed
) -> None:
    wallet = await world.funded_wallet(100_000)
    limit = await put(operator, max_amount_minor=1050, max_count=40)
    # Keys of their own have transactions of their own, which meet in the counter's lock.
    answers = await asyncio.gather(
        *(api.post("/v1/intents", payout(wallet, 100), key="k") for api in await world.at_both(second, 50))
    )
    intents = [answer.json() for answer in answers]
    held = [intent for intent in intents if intent["state"] == "AUTHORIZED"]
    failed = [intent for intent in intents if intent["state"] == "FAILED"]
    assert (len(held), len(failed)) == (10, 40)
    assert {intent["failure"]["code"] for intent in failed} == {"limit_exceeded"}
    told = failed[0]["failure"]["limit"]
    assert (told["limit_id"], told["remaining_minor"]) == (limit["id"], 50)
    assert datetime.fromisoformat(told["renews_at"]) > datetime.now(UTC)
    now = await standing(operator, wallet)
    assert (now["held_minor"], now["used_minor"], now["left_minor"], now["left_count"]) == (1000, 0, 50, 30)
    await proven(world)


async def test_one_batch_is_served_in_its_order_and_a_refused_one_uses_nothing(world: World, operator: Signed) -> None:
    wallet = await world.funded_wallet(100_000)
    await put(operator)
    amounts = [600, 500, 400, 1, 100]
    items = [{"idempotency_key": f"b{n}", "intent": payout(wallet, amount)} for n, amount in enumerate(amounts)]
    answer = await world.api.post("/v1/intents:batch", {"items": items})
    states = [result["intent"]["state"] for result in answer.json()["results"]]
    assert states == ["AUTHORIZED", "FAILED", "AUTHORIZED", "FAILED", "FAILED"]
    replayed = await world.api.post("/v1/intents:batch", {"items": items})
    assert [result["intent"] for result in replayed.json()["results"]] == [
        result["intent"] for result in answer.json()["results"]
    ]
    await proven(world)


async def test_a_payment_without_funds_leaves_its_room_to_those_after_it(world: World, operator: Signed) -> None:
    wallet = await world.funded_wallet(300)
    await put(operator)
    items = [
        {"idempotency_key": f"b{n}", "intent": payout(wallet, amount)} for n, amount in enumerate((900, 200, 2000))
    ]
    answer = await world.api.post("/v1/intents:batch", {"items": items})
    results = [result["intent"] for result in answer.json()["results"]]
    assert [result["state"] for result in results] == ["FAILED", "AUTHORIZED", "FAILED"]
    # A limit comes before funds: the last would have met either.
    assert [r["failure"]["code"] for r in (results[0], results[2])] == ["insufficient_funds", "limit_exceeded"]
    assert (await standing(operator, wallet))["held_minor"] == 200
    await proven(world)


async def test_of_a_batch_that_fits_what_lacks_funds_takes_nothing_held_or_used(world: World, operator: Signed) -> None:
    await put(operator, max_amount_minor=10_000, max_count=6)
    poor, rich, other = [await world.funded_wallet(amount) for amount in (100, 5_000, 1)]
    across = {"operation": "INTERNAL_P2P", "counterparty_wallet_id": other, "currency": "THB"}
    intents = [
        payout(poor, 300),
        payout(rich, 700),
        across | {"wallet_id": poor, "amount_minor": 200},
        across | {"wallet_id": rich, "amount_minor": 900},
        payout(poor, 60),
    ]
    items = [{"idempotency_key": f"f{n}", "intent": intent} for n, intent in enumerate(intents)]
    answer = await world.api.post("/v1/intents:batch", {"items": items})
    states = [result["intent"]["state"] for result in answer.json()["results"]]
    assert states == ["FAILED", "AUTHORIZED", "FAILED", "SETTLED", "AUTHORIZED"]
    told = [await standing(operator, wallet) for wallet in (poor, rich)]
    assert [(each["held_minor"], each["held_count"]) for each in told] == [(60, 1), (700, 1)]
    assert [(each["used_minor"], each["used_count"]) for each in told] == [(0, 0), (900, 1)]
    await proven(world)


async def test_batches_that_meet_in_many_new_counters_in_opposite_orders_all_get_through(
    world: World, operator: Signed, second: Signed
) -> None:
    await put(operator, max_amount_minor=1_000)
    wallets = [await world.funded_wallet(10_000) for _ in range(12)]

    async def ask(client: Signed, order: list[str], amount_minor: int) -> list[str]:
        items = [{"idempotency_key": f"{n}", "intent": payout(each, amount_minor)} for n, each in enumerate(order)]
        answer = await client.post("/v1/intents:batch", {"items": items})
        return [result["intent"]["state"] for result in answer.json()["results"]]

    # Some batches fit at once, others only in part: either way meets the same counters.
    clients = await world.at_both(second, 8)
    orders = [wallets if n % 2 else wallets[::-1] for n in range(8)]
    answers = await asyncio.gather(
        *(ask(client, order, 200 + 10 * n) for n, (client, order) in enumerate(zip(clients, orders, strict=True)))
    )
    states = [state for each in answers for state in each]
    assert {*states} == {"AUTHORIZED", "FAILED"}
    # Four of 200 to 270 fit into 1,000 or three do: each wallet is as full as the order let it be.
    assert 36 <= states.count("AUTHORIZED") <= 48
    await proven(world)


async def test_what_settles_is_used_and_what_is_cancelled_is_given_back(world: World, operator: Signed) -> None:
    wallet = await world.funded_wallet(10_000)
    await put(operator)
    paid, cancelled = await pay(world, wallet, 700), await pay(world, wallet, 300)
    assert (await pay(world, wallet, 1))["state"] == "FAILED"
    await settle(world, paid["id"])
    await settle(world, paid["id"])
    now = await standing(operator, wallet)
    assert (now["used_minor"], now["held_minor"], now["used_count"], now["held_count"]) == (700, 300, 1, 1)
    # The limit changes in between: what was held is given back all the same.
    await put(operator, max_amount_minor=2000)
    assert (await world.api.post(f"/v1/intents/{cancelled['id']}/cancel", {})).json()["state"] == "CANCELLED"
    assert (await world.api.post(f"/v1/intents/{cancelled['id']}/cancel", {})).json()["state"] == "CANCELLED"
    now = await standing(operator, wallet)
    assert (now["used_minor"], now["held_minor"], now["left_minor"]) == (700, 0, 1300)
    await proven(world)


async def test_what_expires_while_the_limit_is_disabled_is_given_back(world: World, operator: Signed) -> None:
    wallet = await world.funded_wallet(10_000)
    limit = await put(operator)
    intent = await pay(world, wallet, 700)
    assert (await operator.post(f"/v1/limits/{limit['id']}/disable", {})).json()["enabled"] is False
    async with world.core.worker_database.unit_of_work(Context(None, "test")) as uow:
        job_id = derive_id(UUID(intent["id"]), "job", JobKind.PAY)
        ended = await close_if_unsent(
            uow, world.core.worker_ports, [job_id], to=IntentState.EXPIRED, type="expired", failure_code="expired"
        )
    assert len(ended) == 1
    counters = await world.admin.fetchrow("SELECT held_minor, held_count, used_minor FROM fleet.limit_usage")
    assert counters is not None
    assert tuple(counters) == (0, 0, 0)
    await proven(world)


async def test_a_crash_before_commit_holds_nothing_and_one_before_settling_keeps_the_hold(
    world: World, operator: Signed
) -> None:
    wallet = await world.funded_wallet(10_000)
    await put(operator)
    kept = await pay(world, wallet, 400)
    job_id = derive_id(UUID(kept["id"]), "job", JobKind.PAY)
    # The process dies in the transaction that gives back: its connection is cut before COMMIT.
    connection = await asyncpg.connect(world.settings.database_worker_url.get_secret_value())
    await connection.execute("BEGIN")
    uow = UnitOfWork(connection, Context(None, "test"))
    await close_if_unsent(uow, world.core.worker_ports, [job_id], to=IntentState.EXPIRED, type="expired")
    assert await connection.fetchval("SELECT held_minor FROM fleet.limit_usage") == 0
    connection.terminate()
    assert (await standing(operator, wallet))["held_minor"] == 400
    await proven(world)
    await settle(world, kept["id"])
    assert (await standing(operator, wallet))["used_minor"] == 400
    await proven(world)


async def test_a_looked_up_payment_takes_its_limit_when_it_is_confirmed(world: World, operator: Signed) -> None:
    wallet = await world.funded_wallet(10_000)
    await put(operator)
    await world.register(lookup=True)
    first, second = [await world.looked_up(wallet, key=f"l{n}", amount_minor=600) for n in range(2)]
    assert (await standing(operator, wallet))["held_minor"] == 0
    body = {"amount_minor": 600, "fee_minor": 5}
    assert (await world.api.post(f"/v1/intents/{first}/confirm", body)).json()["state"] == "AUTHORIZED"
    refused = (await world.api.post(f"/v1/intents/{second}/confirm", body)).json()
    assert (refused["state"], refused["failure"]["limit"]["remaining_minor"]) == ("FAILED", 400)
    await proven(world)


async def test_limits_are_by_operation_owner_and_tier(world: World, operator: Signed) -> None:
    mine, also_mine = await world.funded_wallet(10_000), await world.funded_wallet(10_000)
    await put(operator, name="of-owner", subject="OWNER", max_amount_minor=1500)
    await put(operator, name="each", kind="TRANSACTION", operation="PAYOUT", tier="basic", max_amount_minor=500)
    await put(operator, name="refunds", operation="REFUND", max_amount_minor=1)
    assert (await pay(world, mine, 900))["state"] == "AUTHORIZED"
    told = (await pay(world, also_mine, 700))["failure"]["limit"]
    assert (told["limit"], told["remaining_minor"]) == ("of-owner", 600)
    answer = await operator.post(f"/v1/wallets/{mine}/tier", {"tier": "basic"})
    assert answer.json()["tier"] == "basic"
    assert [item["name"] for item in answer.json()["items"]] == ["each", "of-owner", "refunds"]
    told = (await pay(world, mine, 501))["failure"]["limit"]
    assert (told["limit"], told["remaining_minor"], told["renews_at"]) == ("each", 500, None)
    assert (await pay(world, also_mine, 501))["state"] == "AUTHORIZED"
    await proven(world)


async def test_a_day_begins_where_the_rail_is(world: World, operator: Signed) -> None:
    wallet = await world.funded_wallet(10_000)
    await world.register(business_timezone="Pacific/Kiritimati")
    await put(operator, operation="PAYOUT")
    await put(operator, name="any")
    await pay(world, wallet, 1)
    periods = {
        row["name"]: row["period"]
        for row in await world.admin.fetch(
            "SELECT l.name, u.period FROM fleet.limit_usage u JOIN fleet.limits l USING (limit_id)"
        )
    }
    now = datetime.now(UTC)
    assert periods == {"daily": (now + timedelta(hours=14)).date(), "any": now.date()}


async def test_versions_are_kept_and_what_is_counted_cannot_change(world: World, operator: Signed) -> None:
    first = await put(operator)
    assert (await put(operator, status=200))["version"] == 1
    second = await put(operator, max_amount_minor=5, operation="PAYOUT")
    assert (second["id"], second["version"]) == (first["id"], 2)
    refused = await operator.post("/v1/limits", DAILY | {"currency": "USD"})
    assert (refused.status_code, refused.json()["code"]) == (422, "limit_shape_fixed")
    await operator.post(f"/v1/limits/{first['id']}/disable", {})
    versions = (await operator.get(f"/v1/limits/{first['id']}/versions")).json()["items"]
    assert [(each["version"], each["enabled"], each["limit"]["max_amount_minor"]) for each in versions] == [
        (3, False, 5), (2, True, 5), (1, True, 1000)
    ]  # fmt: skip
    assert [each["version"] for each in (await operator.get("/v1/limits")).json()["items"]] == [3]
    with pytest.raises(asyncpg.RestrictViolationError):
        await world.admin.execute("UPDATE fleet.limits SET enabled = true")


@pytest.mark.parametrize(
    "changed",
    [
        {"currency": None},
        {"max_amount_minor": None},
        {"kind": "TRANSACTION", "max_count": 1},
        {"kind": "QUOTA"},
        {"object": "WALLETS"},
        {"timezone": "Asia/Atlantis"},
        {"max_amount_minor": 1.5},
    ],
)
async def test_a_limit_that_says_too_little_or_too_much_is_refused(operator: Signed, changed: dict[str, Any]) -> None:
    answer = await operator.post("/v1/limits", DAILY | changed)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_only_a_key_that_names_limits_sets_them_and_no_other_tenant_sees_them(
    world: World, operator: Signed
) -> None:
    limit = await put(operator)
    wallet = await world.funded_wallet(10)
    for path, body in (("/v1/limits", DAILY), (f"/v1/limits/{limit['id']}/disable", {})):
        assert (await world.api.post(path, body)).json()["code"] == "operation_not_permitted"
    assert (await world.api.post(f"/v1/wallets/{wallet}/tier", {"tier": "x"})).status_code == 403
    tenant = uuid4()
    await world.admin.execute("INSERT INTO fleet.tenants (tenant_id, name) VALUES ($1, 'other')", tenant)
    key = await world.core.keys.create(
        Context(tenant, "test"), tenant_id=tenant, name="x", operations=["LIMITS", "WALLETS"]
    )
    other = Signed(world.api.http, key.id, key.secret)
    assert (await other.get("/v1/limits")).json()["items"] == []
    assert (await other.post(f"/v1/limits/{limit['id']}/disable", {})).status_code == 404
    assert (await other.get(f"/v1/wallets/{wallet}/limits")).status_code == 404
    assert (await other.post(f"/v1/wallets/{wallet}/tier", {"tier": "x"})).status_code == 404


async def test_a_quota_of_wallets_and_keys_is_exact_under_concurrency(world: World, operator: Signed) -> None:
    quota: dict[str, Any] = {
        "kind": "QUOTA",
        "subject": "TENANT",
        "currency": None,
        "max_amount_minor": None,
        "max_count": 3,
    }
    made = await put(operator, name="wallets", object="WALLETS", **quota)
    body = {"owner": "anna", "currency": "THB"}
    answers = await asyncio.gather(*(operator.post("/v1/wallets", body | {"external_id": f"w{n}"}) for n in range(10)))
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [422] * 7
    problem = next(answer.json() for answer in answers if answer.status_code == 422)
    assert (problem["code"], problem["limit_id"], problem["remaining_count"]) == ("limit_exceeded", made["id"], 0)
    known = next(answer.json()["external_id"] for answer in answers if answer.status_code == 201)
    assert (await operator.post("/v1/wallets", body | {"external_id": known})).status_code == 200
    # Two service keys exist already: the shop's and the operator's.
    await put(operator, name="keys", object="KEYS", **quota)
    keys = await asyncio.gather(*(world.other(operations=["PAYOUT"]) for _ in range(4)), return_exceptions=True)
    assert sum(isinstance(key, Signed) for key in keys) == 1


async def test_quotas_count_endpoints_rules_limits_and_routes(world: World) -> None:
    everyone = await world.other(operations=["LIMITS", "FEES", "WEBHOOKS"])
    one: dict[str, Any] = {
        "kind": "QUOTA",
        "subject": "TENANT",
        "currency": None,
        "max_amount_minor": None,
        "max_count": 1,
    }
    rule = {"operation": "PAYOUT", "currency": "THB", "fee": {"kind": "RATE", "fixed_minor": 1}}
    for what, path, body in (
        ("WEBHOOK_ENDPOINTS", "/v1/webhook-endpoints", {"url": "https://shop.example/hook"}),
        ("FEE_RULES", "/v1/fee-rules", rule),
    ):
        made = await put(everyone, name=what.lower(), object=what, **one)
        answers = [await everyone.post(path, {**body, **_named(what, n)}) for n in (1, 2)]
        assert [answer.status_code for answer in answers] == [201, 422], answers[0].text
        assert (answers[1].json()["code"], answers[1].json()["limit_id"]) == ("limit_exceeded", made["id"])
    # Those two quotas and this one are limits, too.
    await put(everyone, name="limits", object="LIMITS", **one | {"max_count": 4})
    await put(everyone, name="routes", object="ROUTES", **one)
    assert (await everyone.post("/v1/limits", DAILY)).json()["code"] == "limit_exceeded"
    with pytest.raises(Refusal, match="allows 1 routes"):
        await _add_route(world)


async def _add_route(world: World) -> None:
    """Add a route as `fleet routes add` does."""
    async with world.core.worker_database.unit_of_work(Context(None, "operator")) as uow:
        asked = RouteRequest("PAYOUT", "THB", "noop", alone=False, name="second")
        await set_route(uow, RouteStore(), rails, world.tenant_id, "operator", asked)
        await stored_quotas().check(uow, world.tenant_id, QuotaObject.ROUTES)


def _named(what: str, number: int) -> dict[str, str]:
    return {"name": f"rule-{number}"} if what == "FEE_RULES" else {}


async def test_without_limits_no_counter_is_touched_and_a_batch_of_many_is_one_statement(
    world: World, operator: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("take_usage", "lock_usage", "move_usage", "payers_of"):
        monkeypatch.setattr(LimitStore, name, _counted(getattr(LimitStore, name), name, calls))
    wallet = await world.funded_wallet(100_000)
    intent = await pay(world, wallet)
    await settle(world, intent["id"])
    assert calls == []
    await put(operator, max_amount_minor=10**9)
    items = [{"idempotency_key": f"b{n}", "intent": payout(wallet, 1)} for n in range(200)]
    answer = await world.api.post("/v1/intents:batch", {"items": items})
    assert {result["intent"]["state"] for result in answer.json()["results"]} == {"AUTHORIZED"}
    assert calls == ["take_usage"]
    assert (await standing(operator, wallet))["held_count"] == 200


def _counted(method: Any, name: str, calls: list[str]) -> Any:
    async def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(name)
        return await method(*arguments, **named)

    return counted


async def test_a_counter_that_was_tampered_with_is_found(world: World, operator: Signed) -> None:
    wallet = await world.funded_wallet(10_000)
    await put(operator)
    await pay(world, wallet, 400)
    await world.admin.execute("UPDATE fleet.limit_usage SET held_minor = 399")
    async with world.core.worker_database.unit_of_work(Context(None, "test")) as uow:
        (found,) = await LimitStore().verify(uow)
    assert (found.subject, "399/0/1/0" in found.detail, "400/0/1/0" in found.detail) == (wallet, True, True)


async def test_a_book_learns_of_a_limit_within_a_second(world: World, operator: Signed) -> None:
    book = LimitBook(LimitStore(), fresh_s=0.1)
    async with world.core.ports.unit_of_work(Context(world.tenant_id, "test")) as uow:
        assert (await book.book_of(uow, world.tenant_id)).limits == ()
    await put(operator)
    await asyncio.sleep(0.1)
    async with world.core.ports.unit_of_work(Context(world.tenant_id, "test")) as uow:
        assert [limit.name for limit in (await book.book_of(uow, world.tenant_id)).limits] == ["daily"]
