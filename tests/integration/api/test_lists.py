"""Lists, filters, cursors and histories over the real API."""

import base64
from typing import Any

import pytest

from core.domain.context import Context
from core.domain.registers import SYSTEM_TENANT
from tests.integration.api.conftest import World, payout
from tests.support.signed import Signed


async def everything(world: World, path: str, limit: int, **query: str) -> list[dict[str, Any]]:
    """Follow the cursor to the end."""
    items: list[dict[str, Any]] = []
    more: dict[str, str] = {}
    for _ in range(20):
        page = (await world.api.get(path, limit=str(limit), **query, **more)).json()
        assert len(page["items"]) <= limit
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        more = {"cursor": page["next_cursor"]}
    raise AssertionError("the cursor has no end")


@pytest.mark.parametrize("limit", [1, 3, 7, 500])
async def test_pages_of_any_size_show_each_payment_once_newest_first(world: World, limit: int) -> None:
    wallet = await world.funded_wallet(1000)
    for n in range(6):
        await world.api.post("/v1/intents", payout(wallet, reference=f"r{n}"), key=f"k{n}")
    shown = await everything(world, "/v1/intents", limit)
    assert [item["reference"] for item in shown] == ["r5", "r4", "r3", "r2", "r1", "r0", ""]


async def test_a_payment_that_comes_between_two_pages_moves_nothing(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    for n in range(4):
        await world.api.post("/v1/intents", payout(wallet, reference=f"r{n}"), key=f"k{n}")
    first = (await world.api.get("/v1/intents", limit="2")).json()
    await world.api.post("/v1/intents", payout(wallet, reference="between"), key="between")
    second = (await world.api.get("/v1/intents", limit="2", cursor=first["next_cursor"])).json()
    assert [item["reference"] for item in first["items"] + second["items"]] == ["r3", "r2", "r1", "r0"]


async def test_filters_narrow_by_state_wallet_reference_and_time(world: World) -> None:
    mine, other = await world.funded_wallet(1000), await world.funded_wallet(1000)
    made = [
        (await world.api.post("/v1/intents", payout(wallet, amount, reference=reference), key=reference)).json()
        for wallet, amount, reference in ((mine, 100, "a"), (mine, 5000, "b"), (other, 100, "c"))
    ]

    async def references(**query: str) -> list[str]:
        return [item["reference"] for item in await everything(world, "/v1/intents", 100, **query)]

    assert await references(state="FAILED") == ["b"]
    assert await references(state="AUTHORIZED", wallet_id=mine) == ["a"]
    assert await references(wallet_id=other) == ["c", ""]
    assert await references(reference="c") == ["c"]
    assert await references(reference="nothing") == []
    between = {"created_after": made[1]["created_at"], "created_before": made[2]["created_at"]}
    assert await references(**between) == ["b"]
    assert await references(created_after=made[0]["created_at"]) == ["c", "b", "a"]
    assert await references(created_before=made[0]["created_at"]) == ["", ""]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"cursor": "nonsense"}, "cursor_malformed"),
        ({"cursor": "é"}, "cursor_malformed"),
        ({"cursor": base64.urlsafe_b64encode(b"no-id").decode()}, "cursor_malformed"),
        ({"cursor": "x" * 401}, "invalid_request"),
        ({"limit": "0"}, "invalid_request"),
        ({"limit": "501"}, "invalid_request"),
        ({"limit": "many"}, "invalid_request"),
        ({"state": "NONSENSE"}, "invalid_request"),
        ({"wallet_id": "x"}, "invalid_request"),
        ({"created_after": "2026-01-01T00:00:00"}, "invalid_request"),
        ({"created_after": "20260301"}, "invalid_request"),
        ({"created_after": "yesterday"}, "invalid_request"),
        ({"surprise": "1"}, "invalid_request"),
        ({"state": ["SETTLED", "FAILED"]}, "invalid_request"),
    ],
)
async def test_a_query_that_cannot_be_read_is_refused(world: World, query: dict[str, Any], code: str) -> None:
    answer = await world.api.get("/v1/intents", **query)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


@pytest.mark.parametrize(
    ("path", "name", "known"),
    [
        ("/v1/events", "type", "settled_by_hand"),
        ("/v1/alerts", "kind", "success_after_void"),
        ("/v1/alerts", "severity", "ticket"),
        ("/v1/alerts", "state", "PROPOSED"),
        ("/v1/breaks", "kind", "orphan_hold"),
        ("/v1/breaks", "state", "GONE"),
        ("/v1/dead-letters", "operation", "BILL_PAYMENT"),
        ("/v1/dead-letters", "state", "REDRIVEN"),
        ("/v1/redrives", "state", "STOPPED"),
        ("/v1/suspense", "state", "OPEN"),
    ],
)
async def test_a_word_that_a_list_is_not_narrowed_by_is_refused_with_those_that_it_is(
    world: World, path: str, name: str, known: str
) -> None:
    desk = await world.other(operations=["*", "DEAD_LETTERS", "RECONCILIATION", "SUSPENSE"])
    assert (await desk.get(path, **{name: known})).status_code == 200
    problem = (await desk.get(path, **{name: "nope"})).json()
    assert (problem["status"], problem["code"], problem["field"].split(".")[0]) == (422, "invalid_request", name)
    assert f"'{known}'" in problem["detail"]


@pytest.mark.parametrize(
    "path", ["/v1/breaks", "/v1/registers", "/v1/recon/runs", "/v1/dead-letters", "/v1/dead-letters/groups"]
)
async def test_a_list_of_a_rail_that_there_is_not_is_refused_and_not_told_as_empty(world: World, path: str) -> None:
    root = Context(SYSTEM_TENANT, "test")
    scopes = ["DEAD_LETTERS", "RECONCILIATION"]
    key = await world.core.keys.create(root, tenant_id=SYSTEM_TENANT, name="desk", operations=scopes)
    desk = Signed(world.api.http, key.id, key.secret)
    assert (await desk.get(path, rail="noop")).json()["items"] == []
    problem = (await desk.get(path, rail="nope")).json()
    assert (problem["status"], problem["code"], problem["field"]) == (404, "not_found", "rail")
    assert "fleet rails list" in problem["detail"]


async def test_an_endpoint_that_would_wait_for_an_event_that_never_comes_is_refused(world: World) -> None:
    asked = {"url": "https://shop.example/hooks", "event_types": ["settled", "setled"]}
    problem = (await world.api.post("/v1/webhook-endpoints", asked)).json()
    assert (problem["code"], problem["field"]) == ("invalid_request", "event_types.1")
    assert "'settled_by_hand'" in problem["detail"]


async def test_a_history_runs_its_balance_over_pages_and_shows_what_was_posted_alone(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    for n in range(4):
        funding = {"operation": "MANUAL_ADJUSTMENT", "wallet_id": wallet, "amount_minor": n + 1, "currency": "THB"}
        await world.api.post("/v1/intents", funding, key=f"f{n}")
    await world.api.post("/v1/intents", payout(wallet), key="held")
    for limit in (1, 2, 100):
        entries = await everything(world, f"/v1/wallets/{wallet}/history", limit)
        assert [entry["amount_minor"] for entry in entries] == [4, 3, 2, 1, 1000]
        assert [entry["balance_minor"] for entry in entries] == [1010, 1006, 1003, 1001, 1000]
    for cursor in ("nonsense", base64.urlsafe_b64encode(b"a|b").decode(), base64.urlsafe_b64encode(b"a").decode()):
        answer = await world.api.get(f"/v1/wallets/{wallet}/history", cursor=cursor)
        assert (answer.status_code, answer.json()["code"]) == (422, "cursor_malformed")


async def test_a_wallet_is_opened_once_per_external_id(world: World) -> None:
    body = {"owner": "anna", "currency": "THB", "external_id": "anna-1"}
    first, again = await world.api.post("/v1/wallets", body), await world.api.post("/v1/wallets", body)
    assert (first.status_code, again.status_code, again.json()) == (201, 200, first.json())
    before = await world.contents()
    for changed in ({"owner": "eve"}, {"currency": "USD"}):
        refused = await world.api.post("/v1/wallets", body | changed)
        assert (refused.status_code, refused.json()["code"]) == (409, "external_id_taken")
    invalid: tuple[dict[str, object], ...] = ({"currency": "XXX"}, {"owner": ""}, {"owner": "a b"}, {"balance": 5})
    for wrong in invalid:
        refused = await world.api.post("/v1/wallets", body | {"external_id": "anna-2"} | wrong)
        assert refused.json()["code"] in ("unknown_currency", "invalid_request")
    assert await world.contents() == before
