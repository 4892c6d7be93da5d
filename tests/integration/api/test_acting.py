"""A key that acts for a user reaches that user's wallets alone, by every route, and what it did is told."""

from typing import Any
from uuid import UUID, uuid4

import orjson

from core.services.access.keys import KNOWN_SCOPES, TENANTS_SCOPE
from tests.integration.api.conftest import World, payout
from tests.integration.api.test_tenants import OWN, OWNER, listed_in, routes_of, things_of
from tests.support.signed import Signed
from wire.signing import ON_BEHALF_OF_HEADER

EVERY_SCOPE = sorted(KNOWN_SCOPES - {TENANTS_SCOPE})


async def bound(world: World, user: str | None, **limits: Any) -> Signed:
    """Return a client under a key that must act for a user, and acts for this one."""
    key = await world.other(operations=EVERY_SCOPE, acts_for_users=True, **limits)
    key.on_behalf_of = user
    return key


async def digests(world: World) -> dict[str, str | None]:
    """Return a digest of the rows of every table but the journal's, which tells of every request."""
    return {name: found for name, found in (await world.contents()).items() if not name.startswith("audit_")}


async def test_a_key_that_acts_for_another_user_walks_every_route_and_finds_and_changes_nothing(world: World) -> None:
    things = await things_of(world)
    ben = await bound(world, "ben")
    before = await digests(world)
    walked = 0
    for method, named in await routes_of(world):
        path = things.path(named)
        if method == "GET":
            answer = await ben.get(path)
        elif method == "DELETE":
            answer = await ben.delete(path)
        elif named == "/v1/fees:dry-run":
            continue  # a price is nobody's, and it makes nothing
        else:
            method_of = ben.put if method == "PUT" else ben.post
            answer = await method_of(path, things.bodies.get(named, {}), **({} if method == "PUT" else {"key": "walk"}))
        walked += 1
        text = answer.text
        assert answer.status_code < 500, (named, text)
        assert f'"{OWNER}"' not in text, (method, named, text)
        if named == "/v1/owners/{owner}/wallets":
            assert answer.json()["items"] == [], text
        elif "{" in named:
            assert answer.status_code in (403, 404), (method, named, text)
        elif method == "GET":
            assert answer.status_code == 403 or listed_in(answer.json()) == [], (named, text)
        elif named == "/v1/intents:batch":
            assert {each["status"] for each in answer.json()["results"]} <= {403, 409, 422}, text
        else:
            assert answer.status_code in (403, 404, 422), (named, text)
    assert walked > len(OWN) + 40, walked
    assert await digests(world) == before


async def test_the_user_itself_finds_what_is_its_own_on_the_same_walk_and_nothing_of_the_tenants(world: World) -> None:
    things = await things_of(world)
    anna = await bound(world, f"{OWNER} staff-17")
    found = 0
    for method, named in await routes_of(world):
        if method != "GET":
            continue
        answer = await anna.get(things.path(named))
        mine = named.startswith(
            ("/v1/intents", "/v1/wallets", "/v1/owners", "/v1/quotes", "/v1/mandates", "/v1/events")
        )
        assert answer.status_code == (200 if mine else 403), (named, answer.text)
        found += mine
    assert found >= 12


async def test_a_key_bound_to_users_asks_for_nothing_without_naming_one(world: World) -> None:
    wallet, nobody = await world.funded_wallet(1000), await bound(world, None)
    bodies = {
        "/v1/intents": payout(wallet),
        "/v1/wallets": {"owner": "anna", "currency": "THB"},
        "/v1/fee-rules": {},
        "/v1/quotes": {},
    }
    for path, body in bodies.items():
        answer = await nobody.post(path, body, key="k")
        assert (answer.status_code, answer.json()["code"]) == (403, "on_behalf_of_missing"), path
    for path in (f"/v1/wallets/{wallet}", "/v1/intents", "/v1/events"):
        assert (await nobody.get(path)).json()["code"] == "on_behalf_of_missing"
    # One payment may name its user in its body; in a batch each item answers for itself.
    said = payout(wallet, on_behalf_of={"user": "anna"})
    items = [{"idempotency_key": f"i{n}", "intent": body} for n, body in enumerate((said, payout(wallet)))]
    results = (await nobody.post("/v1/intents:batch", {"items": items})).json()["results"]
    assert [results[0]["status"], results[1]["problem"]["code"]] == [201, "on_behalf_of_missing"]


async def test_a_payment_for_a_user_comes_out_of_that_users_wallet_and_tells_user_and_agent(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    bens = (await world.api.post("/v1/wallets", {"owner": "ben", "currency": "THB"})).json()["id"]
    anna, ben = await bound(world, "anna staff-17"), await bound(world, "ben")
    made = (await anna.post("/v1/intents", payout(wallet, requires_monitoring=True), key="a")).json()
    assert made["on_behalf_of"] == {"user": "anna", "agent": "staff-17"}
    for asked in (payout(wallet), payout(bens, on_behalf_of={"user": "anna"})):
        refused = (await ben.post("/v1/intents", asked, key="b")).json()
        assert (refused["status"], refused["code"]) == (403, "on_behalf_of_differs")
    assert (await ben.post(f"/v1/intents/{made['id']}/cancel", {})).json()["code"] == "not_found"
    assert (await anna.post(f"/v1/intents/{made['id']}/cancel", {})).json()["state"] == "CANCELLED"
    events = (await anna.get(f"/v1/intents/{made['id']}/events")).json()["items"]
    assert {event["actor"] for event in events} == {f"key:{anna.key_id} for anna by staff-17"}
    # Opening a wallet for somebody else is no act for anna.
    assert (await anna.post("/v1/wallets", {"owner": "ben", "currency": "THB"})).json()[
        "code"
    ] == "on_behalf_of_differs"
    assert (await anna.post("/v1/wallets", {"owner": "anna", "currency": "USD"})).status_code == 201


async def test_who_gets_the_money_can_neither_cancel_nor_confirm_the_payment(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    bens = (await world.api.post("/v1/wallets", {"owner": "ben", "currency": "THB"})).json()["id"]
    body = {"operation": "INTERNAL_P2P", "wallet_id": wallet, "counterparty_wallet_id": bens, "amount_minor": 5}
    asked = body | {"currency": "THB", "requires_monitoring": True}
    held = (await world.api.post("/v1/intents", asked, key="held")).json()
    came = (await world.api.post("/v1/intents", body | {"currency": "THB"}, key="came")).json()
    for key in (await bound(world, "ben"), await world.other(accounts=[UUID(bens)])):
        # What came is seen on both sides, and what is to come on one; it is decided about there alone.
        for intent, status, code in ((held, 404, "not_found"), (came, 403, "account_not_permitted")):
            assert (await key.get(f"/v1/intents/{intent['id']}")).status_code == (200 if status == 403 else 404)
            refused = await key.post(f"/v1/intents/{intent['id']}/cancel", {})
            assert (refused.status_code, refused.json()["code"]) == (status, code)
            confirm = {"amount_minor": 5, "fee_minor": 0}
            refused = await key.post(f"/v1/intents/{intent['id']}/confirm", confirm)
            assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert (await world.api.get(f"/v1/intents/{held['id']}")).json()["state"] == "REVIEW"


async def test_what_is_read_for_a_user_is_journalled_with_who_read_it(world: World) -> None:
    wallet, anna = await world.funded_wallet(1000), await bound(world, "anna staff-17")
    assert (await anna.get(f"/v1/wallets/{wallet}")).status_code == 200
    auditor = await world.other(operations=["AUDIT"])
    [entry] = (await auditor.get("/v1/audit", subject="user:anna")).json()["items"]
    assert (entry["action"], entry["actor"]) == ("acted_for_user", f"key:{anna.key_id} for anna by staff-17")
    data = entry["data"] if isinstance(entry["data"], dict) else orjson.loads(entry["data"])
    assert data == {"agent": "staff-17", "method": "GET", "path": f"/v1/wallets/{wallet}"}


async def test_whom_a_request_is_made_for_is_signed_and_cannot_be_added_changed_or_dropped(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    path = f"/v1/wallets/{wallet}"
    told = Signed(world.api.http, world.api.key_id, world.api.secret, "ben")
    cases: list[dict[str, str | None]] = [{ON_BEHALF_OF_HEADER: "anna"}, {ON_BEHALF_OF_HEADER: None}]
    for changed in cases:
        headers = {
            name: value for name, value in (told.headers("GET", path, b"") | changed).items() if value is not None
        }
        assert (await world.api.http.get(path, headers=headers)).json()["code"] == "unauthenticated"
    headers = world.api.headers("GET", path, b"") | {ON_BEHALF_OF_HEADER: "anna"}
    assert (await world.api.http.get(path, headers=headers)).json()["code"] == "unauthenticated"
    for malformed in ("", " ", "anna staff 17", "a" * 65, f"anna {uuid4()}{uuid4()}"):
        strange = Signed(world.api.http, world.api.key_id, world.api.secret, malformed)
        assert (await strange.get(path)).json()["code"] == "invalid_request", malformed


async def test_a_key_that_is_confined_to_wallets_reaches_those_of_them_that_are_the_users(world: World) -> None:
    mine, hers = await world.funded_wallet(1000), await world.funded_wallet(1000)
    key = await bound(world, "anna", accounts=[UUID(mine)])
    assert (await key.get(f"/v1/wallets/{mine}")).status_code == 200
    assert (await key.get(f"/v1/wallets/{hers}")).json()["code"] == "account_not_permitted"
    key.on_behalf_of = "ben"
    assert (await key.get(f"/v1/wallets/{mine}")).json()["code"] == "account_not_permitted"
