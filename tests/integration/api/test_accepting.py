"""Accepting payments over the real API, on real PostgreSQL, as the application's own role."""

import asyncio
from collections import Counter
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest

from core.domain.context import Context
from core.services.payments import accept
from core.services.vault_port import Sealed
from core.store.settling import jobs
from tests.integration.api.conftest import World, payout
from tests.support.signed import Signed


async def test_a_payout_is_held_and_queued_and_its_payee_is_stored_sealed(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    answer = await world.api.post("/v1/intents", payout(wallet, 400), key="a")
    assert answer.status_code == 201, answer.text
    assert answer.json()["state"] == "AUTHORIZED"
    balance = (await world.api.get(f"/v1/wallets/{wallet}")).json()
    assert (balance["posted_minor"], balance["held_minor"], balance["available_minor"]) == (1000, 400, 600)
    row = await world.admin.fetchrow("SELECT * FROM fleet.jobs")
    assert row is not None
    assert (row["kind"], row["state"], row["payee_masked"]) == ("pay", "READY", "******5678")
    stored = await world.admin.fetch(
        "SELECT i::text, o::text, j::text FROM fleet.intents i, fleet.outbox o, fleet.jobs j"
    )
    assert "0812345678" not in str(stored)
    shown = await world.api.get(f"/v1/intents/{answer.json()['id']}")
    assert shown.json() == answer.json()


async def test_fifty_requests_at_once_under_one_key_make_one_payment(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    answers = await asyncio.gather(*(world.api.post("/v1/intents", payout(wallet), key="once") for _ in range(50)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 201}) == 1
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} <= {"idempotency_in_flight"}
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.jobs") == 1


async def test_the_same_request_again_gives_the_first_answer(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    first = await world.api.post("/v1/intents", payout(wallet), key="k")
    again = await world.api.post("/v1/intents", payout(wallet), key="k")
    assert again.json() == first.json()
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (201, "true")
    other = await world.api.post("/v1/intents", payout(wallet, 101), key="k")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")


async def test_a_wallet_is_never_overdrawn_by_payments_at_once(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    answers = await asyncio.gather(
        *(world.api.post("/v1/intents", payout(wallet, 300), key=f"k{n}") for n in range(12))
    )
    states = [answer.json()["state"] for answer in answers]
    assert (states.count("AUTHORIZED"), states.count("FAILED")) == (3, 9)
    assert {a.json()["failure"]["code"] for a in answers if a.json()["failure"]} == {"insufficient_funds"}


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"amount_minor": 1.0}, "invalid_request"),
        ({"amount_minor": -5}, "invalid_request"),
        ({"amount_minor": 0}, "invalid_request"),
        ({"amount_minor": 10**15 + 1}, "invalid_request"),
        ({"amount_minor": 10**12}, "amount_out_of_bounds"),
        ({"amount_minor": "100"}, "invalid_request"),
        ({"amount_minor": True}, "invalid_request"),
        ({"currency": "XXX"}, "unknown_currency"),
        ({"currency": "USD"}, "currency_mismatch"),
        ({"operation": "TOPUP"}, "payee_not_expected"),
        ({"operation": "NONSENSE"}, "invalid_request"),
        ({"wallet_id": "00000000-0000-7000-8000-000000000001"}, "wallet_not_found"),
        ({"payee": None}, "payee_missing"),
        ({"payee": {"type": "iban", "value": "x"}}, "payee_type_unknown"),
        ({"payee": {"type": "mobile", "value": "12"}}, "payee_malformed"),
        ({"surprise": 1}, "invalid_request"),
    ],
)
async def test_bad_input_has_a_stable_code_and_changes_nothing(
    world: World, changed: dict[str, Any], code: str
) -> None:
    wallet = await world.funded_wallet(1000)
    before = await world.contents()
    answer = await world.api.post("/v1/intents", payout(wallet, **{"amount_minor": 100} | changed), key="bad")
    assert (answer.json()["code"], answer.headers["content-type"]) == (code, "application/problem+json")
    assert answer.json()["status"] == answer.status_code
    assert await world.contents() == before


async def test_numbers_that_are_no_amount_are_refused_however_they_are_written(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    before = await world.contents()
    for text in ("1e2", "100.0", "1E400", "NaN", "-0", "9" * 5000, "1000000000000000000000000000000"):
        body = orjson.dumps(payout(wallet, 77)).replace(b"77", text.encode(), 1)
        answer = await world.api.post("/v1/intents", body, key="bad")
        assert (answer.status_code, answer.json()["code"]) in ((422, "invalid_request"), (400, "malformed_json")), text
    assert await world.contents() == before


async def test_unreadable_oversized_and_unkeyed_bodies_are_refused(world: World) -> None:
    before = await world.contents()
    answers = [
        await world.api.post("/v1/intents", b"{nope", key="a"),
        await world.api.post("/v1/intents", b" " * 65_537, key="a"),
        await world.api.post("/v1/intents:batch", b" " * (4 * 1024 * 1024 + 1)),
        await world.api.post("/v1/intents", {}),
        await world.api.get("/v1/nothing"),
        await world.api.get("/v1/intents:batch"),
    ]
    codes = ["malformed_json", "body_too_large", "body_too_large", "idempotency_key_missing", "not_found"]
    assert [answer.json()["code"] for answer in answers] == [*codes, "method_not_allowed"]
    assert {answer.headers["content-type"] for answer in answers} == {"application/problem+json"}
    assert await world.contents() == before


async def test_one_bad_item_of_a_batch_fails_alone(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    items: list[dict[str, Any]] = [{"idempotency_key": f"i{n}", "intent": payout(wallet)} for n in range(3)]
    items[1]["intent"]["amount_minor"] = 1.5
    answer = await world.api.post("/v1/intents:batch", {"items": items})
    assert [result["status"] for result in answer.json()["results"]] == [201, 422, 201]
    assert answer.json()["results"][1]["problem"]["field"] == "intent.amount_minor"


async def test_a_rail_that_is_away_costs_its_item_alone_and_its_neighbours_stay_together(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    dollars = (await world.api.post("/v1/wallets", {"owner": "anna", "currency": "USD"})).json()["id"]
    await world.admin.execute(
        "INSERT INTO fleet.routes (tenant_id, operation, currency, rail, provider, provider_account)"
        " VALUES ($1, 'PAYOUT', 'USD', 'absent', 'p', 'a')",
        world.tenant_id,
    )
    world.forget_routes()
    bodies = [payout(wallet), payout(dollars, currency="USD"), payout(wallet)]
    items = [{"idempotency_key": f"m{n}", "intent": body} for n, body in enumerate(bodies)]
    results = (await world.api.post("/v1/intents:batch", {"items": items})).json()["results"]
    assert [result["status"] for result in results] == [201, 503, 201]
    assert results[1]["problem"]["code"] == "rail_unavailable"
    # The database's time is the transaction's: one time, one transaction.
    assert results[0]["intent"]["created_at"] == results[2]["intent"]["created_at"]
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.idempotency_keys WHERE key LIKE 'm%'") == 2


async def test_a_key_twice_in_one_batch_pays_once(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    items = [{"idempotency_key": "same", "intent": payout(wallet)} for _ in range(3)]
    results = (await world.api.post("/v1/intents:batch", {"items": items})).json()["results"]
    assert [result["status"] for result in results] == [201, 409, 409]
    assert {result["problem"]["code"] for result in results[1:]} == {"idempotency_in_flight"}
    again = (await world.api.post("/v1/intents:batch", {"items": items[:1]})).json()["results"][0]
    assert (again["replayed"], again["intent"]["id"]) == (True, results[0]["intent"]["id"])
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.jobs") == 1


async def test_forged_stale_and_replayed_requests_are_refused(world: World) -> None:
    body = {"owner": "bob", "currency": "THB"}
    forged = await world.api.post("/v1/wallets", body, nonce="n" * 12)
    repeated = await world.api.post("/v1/wallets", body, nonce="n" * 12)
    stale = await world.api.post("/v1/wallets", body, age_s=301)
    unsigned = await world.api.http.post("/v1/wallets", json=body)
    world.api.secret += "x"
    wrong = await world.api.post("/v1/wallets", body)
    assert forged.status_code == 201
    codes = [answer.json()["code"] for answer in (repeated, stale, unsigned, wrong)]
    assert codes == ["replayed_nonce", "stale_timestamp", "unauthenticated", "unauthenticated"]


async def test_a_key_is_held_to_its_operations_and_accounts(world: World) -> None:
    mine, theirs = await world.funded_wallet(1000), await world.funded_wallet(1000)
    limited = await world.other(operations=["PAYOUT"], accounts=[UUID(mine)])
    assert (await limited.post("/v1/intents", payout(mine), key="a")).status_code == 201
    assert (await limited.post("/v1/intents", payout(theirs), key="b")).json()["code"] == "account_not_permitted"
    funding = {"operation": "MANUAL_ADJUSTMENT", "wallet_id": mine, "amount_minor": 1, "currency": "THB"}
    assert (await limited.post("/v1/intents", funding, key="c")).json()["code"] == "operation_not_permitted"
    assert (await limited.get(f"/v1/wallets/{theirs}")).json()["code"] == "account_not_permitted"


async def test_an_unsent_payout_is_cancelled_and_its_hold_released(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    intent = (await world.api.post("/v1/intents", payout(wallet, 400), key="a")).json()
    cancelled = await world.api.post(f"/v1/intents/{intent['id']}/cancel", {})
    assert (cancelled.status_code, cancelled.json().get("state")) == (200, "CANCELLED"), cancelled.text
    assert (await world.api.get(f"/v1/wallets/{wallet}")).json()["available_minor"] == 1000


async def test_lists_are_paged_and_history_runs_its_balance(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    for n in range(5):
        await world.api.post("/v1/intents", payout(wallet, 10, reference=f"r{n}"), key=f"k{n}")
    first = (await world.api.get("/v1/intents", limit="4")).json()
    rest = (await world.api.get("/v1/intents", limit="4", cursor=first["next_cursor"])).json()
    assert [item["reference"] for item in first["items"] + rest["items"]] == ["r4", "r3", "r2", "r1", "r0", ""]
    assert rest["next_cursor"] is None
    found = (await world.api.get("/v1/intents", reference="r3", state="AUTHORIZED")).json()
    assert len(found["items"]) == 1
    history = (await world.api.get(f"/v1/wallets/{wallet}/history")).json()
    assert [entry["balance_minor"] for entry in history["items"]] == [1000]


async def test_another_tenant_sees_nothing(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    key = await world.core.keys.create(Context(None, "test"), tenant_id=uuid4(), name="stranger")
    stranger = Signed(world.api.http, key.id, key.secret)
    assert (await stranger.get(f"/v1/wallets/{wallet}")).status_code == 404
    assert (await stranger.post("/v1/intents", payout(wallet), key="a")).json()["code"] == "wallet_not_found"
    assert (await stranger.get("/v1/intents")).json()["items"] == []


async def test_a_payee_whom_two_keys_pay_for_the_first_time_at_once_gets_one_subject(world: World) -> None:
    wallet, other = await world.funded_wallet(10_000), await world.other()
    payees = [{"type": "mobile", "value": f"08{n:08d}"} for n in range(20)]
    answers = await asyncio.gather(
        *(
            client.post("/v1/intents", payout(wallet, payee=payee), key=f"{client.key_id}-{n}")
            for n, payee in enumerate(payees)
            for client in (world.api, other)
        )
    )
    assert {answer.status_code for answer in answers} == {201}
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.subjects") == len(payees)
    rows = await world.admin.fetch(
        "SELECT i.id, i.subject_id, i.instruction, s.wrapped_key"
        " FROM fleet.intents i JOIN fleet.subjects s ON s.id = i.subject_id"
    )
    opened = world.core.worker_ports.vault.open_instructions([Sealed(*row) for row in rows])
    assert Counter(payee.value for payee, _ in opened.values() if payee) == {each["value"]: 2 for each in payees}


async def test_a_memory_of_wallets_that_is_full_refuses_no_payment_of_any(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accept, "_WALLETS_KEPT", 2)
    payers = [await world.funded_wallet(500) for _ in range(3)]
    payee = (await world.api.post("/v1/wallets", {"owner": "dan", "currency": "THB"})).json()["id"]
    for number, payer in enumerate(payers * 2):
        body = {"operation": "INTERNAL_P2P", "wallet_id": payer, "counterparty_wallet_id": payee, "amount_minor": 5}
        answer = await world.api.post("/v1/intents", body | {"currency": "THB"}, key=f"full-{number}")
        assert (answer.status_code, answer.json()["state"]) == (201, "SETTLED")


_WRITTEN = """
SELECT to_jsonb(i) AS intent, to_jsonb(e) AS event, to_jsonb(j) AS job, to_jsonb(o) AS queued
FROM fleet.intents i JOIN fleet.intent_events e ON e.intent_id = i.id
LEFT JOIN fleet.jobs j ON j.intent_id = i.id LEFT JOIN fleet.outbox o ON o.job_id = j.id
WHERE i.wallet_id = $1 AND i.operation = 'PAYOUT' ORDER BY i.id
"""
# What tells one payment from another: ids, references, times, positions and what is sealed.
_ITS_OWN = {"id", "intent_id", "job_id", "reference", "position", "at", "deadline", "instruction", "not_before"}


def _common(row: Any) -> dict[str, Any]:
    tables = {name: orjson.loads(text) if text is not None else {} for name, text in row.items()}
    if tables["queued"]:
        tables["body"] = orjson.loads(tables["queued"].pop("body"))
    for table in tables.values():
        if table.get("data"):
            table["data"] = sorted(table["data"])
    return {
        f"{name}.{column}": value
        for name, table in tables.items()
        for column, value in table.items()
        if column not in _ITS_OWN and not column.endswith("_at")
    }


async def test_a_payment_alone_is_written_as_one_of_many_is(world: World) -> None:
    for amount_minor in (100, 5000):  # one that the wallet has, and one that fails for want of funds
        wallet = await world.funded_wallet(1000)
        body = payout(wallet, amount_minor, message="rent", reference="r-1")
        await world.api.post("/v1/intents", body, key=f"alone-{wallet}")
        items = [{"idempotency_key": f"{n}-{wallet}", "intent": body} for n in range(3)]
        await world.api.post("/v1/intents:batch", {"items": items})
        alone, *many = [_common(row) for row in await world.admin.fetch(_WRITTEN, UUID(wallet))]
        assert len(many) == 3
        assert alone["event.actor"] == f"key:{world.key.id}"
        assert ("queued.stream" in alone) == (amount_minor == 100)
        assert [each for each in many if each != alone] == []


async def test_a_job_made_again_changes_nothing_but_no_intent_has_a_first_one_twice(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    items = [{"idempotency_key": str(n), "intent": payout(wallet)} for n in range(2)]
    await world.api.post("/v1/intents:batch", {"items": items})
    ids = [row["id"] for row in await world.admin.fetch("SELECT id FROM fleet.jobs")]
    async with world.core.worker_database.unit_of_work(Context(None, "test")) as uow:
        rows = list((await jobs.lock_jobs(uow, ids)).values())
        await jobs.insert_jobs(uow, rows)
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.outbox") == 2
    for again in (rows, rows[:1]):
        with pytest.raises(asyncpg.UniqueViolationError):
            async with world.core.worker_database.unit_of_work(Context(None, "test")) as uow:
                await jobs.insert_first_jobs(uow, again)


async def test_no_key_is_claimed_for_another_tenant_than_the_transactions(world: World) -> None:
    async with world.core.app_database.unit_of_work(Context(world.tenant_id, "test")) as uow:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="another tenant"):
            await uow.connection.fetch("SELECT fleet.claim_request($1, 'k', 'key', '', $1, true, NULL)", uuid4())
