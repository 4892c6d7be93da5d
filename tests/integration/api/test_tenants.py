"""Tenants are made at run time and unaware of each other: every route is walked with a key of another one."""

import re
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest

from core.domain.context import Context
from core.domain.ids import derive_id
from core.domain.ledger import AccountChange
from core.domain.operations import AccountCode, system_account
from core.services.dead_letters import receive
from core.services.keys import KNOWN_SCOPES, TENANTS_SCOPE
from schemas.dead_letters import DeadLetter
from schemas.operations import JobKind
from tests.integration.api.conftest import World, payout
from tests.support.signed import Signed

SCOPES = sorted(KNOWN_SCOPES - {TENANTS_SCOPE})
FEE_RULE = {"name": "on-top", "operation": "PAYOUT", "currency": "THB", "fee": {"fixed_minor": 3}}
LIMIT = {"name": "daily", "kind": "DAY", "currency": "THB", "max_amount_minor": 10**6}


async def made(world: World, name: str = "rival", **asked: Any) -> dict[str, Any]:
    """Make a tenant over HTTP, with a key that carries all that a tenant's key may."""
    root = await world.other(operations=["TENANTS"])
    answer = await root.post("/v1/tenants", {"name": name, "operations": SCOPES} | asked)
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


def signed(world: World, document: dict[str, Any]) -> Signed:
    """Return a client under the key of a tenant that was just made."""
    return Signed(world.api.http, document["key_id"], document["secret"])


async def test_a_tenant_is_made_with_a_key_that_works_at_once_and_its_secret_is_shown_once(world: World) -> None:
    document = await made(world, business_timezone="Asia/Bangkok", returns_to="SUSPENSE")
    tenant = document["tenant"]
    assert (tenant["name"], tenant["business_timezone"], tenant["returns_to"]) == ("rival", "Asia/Bangkok", "SUSPENSE")
    rival = signed(world, document)
    wallet = (await rival.post("/v1/wallets", {"owner": "ben", "currency": "THB"})).json()["id"]
    body = {"operation": "MANUAL_ADJUSTMENT", "wallet_id": wallet, "amount_minor": 7, "currency": "THB"}
    assert (await rival.post("/v1/intents", body, key="a")).json()["state"] == "SETTLED"
    assert (await rival.get(f"/v1/wallets/{wallet}")).json()["available_minor"] == 7
    root = await world.other(operations=["TENANTS"])
    listed = (await root.get("/v1/tenants")).json()["items"]
    assert [each["name"] for each in listed] == ["shop", "rival"]
    assert document["secret"] not in orjson.dumps(listed).decode()
    owner = await world.admin.fetchval("SELECT tenant_id FROM fleet.service_keys WHERE id = $1", document["key_id"])
    assert owner == UUID(tenant["id"])


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({"name": "shop"}, 409, "tenant_name_taken"),
        ({"name": " "}, 422, "invalid_request"),
        ({"business_timezone": "Mars/Olympus"}, 422, "invalid_request"),
        ({"business_timezone": "posixrules"}, 422, "invalid_request"),
        ({"returns_to": "ME"}, 422, "invalid_request"),
        ({"operations": ["TENANTS"]}, 422, "invalid_request"),
        ({"operations": ["PAYOUTS"]}, 422, "invalid_request"),
        ({"operations": []}, 422, "invalid_request"),
    ],
)
async def test_a_tenant_that_cannot_be_is_refused_and_nothing_is_made(
    world: World, asked: dict[str, Any], status: int, code: str
) -> None:
    root = await world.other(operations=["TENANTS"])
    before = await world.contents()
    answer = await root.post("/v1/tenants", {"name": "rival"} | asked)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert await world.contents() == before


async def test_no_key_makes_or_sees_tenants_but_one_that_names_it(world: World) -> None:
    before = await world.contents()
    for answer in (await world.api.post("/v1/tenants", {"name": "mine"}), await world.api.get("/v1/tenants")):
        assert (answer.status_code, answer.json()["code"]) == (403, "operation_not_permitted")
    assert await world.contents() == before


@dataclass(frozen=True)
class Things:
    """One of each thing that a tenant owns, and a valid body for each route that takes one."""

    ids: dict[str, str]
    bodies: dict[str, Any]

    def path(self, named: str) -> str:
        """Return the path with the names of things replaced by their ids."""
        unknown = set(re.findall(r"{(\w+)}", named)) - set(self.ids)
        assert not unknown, f"{named}: give the walk one of each thing that a path names"
        return re.sub(r"{(\w+)}", lambda found: self.ids[found[1]], named)


async def routes_of(world: World) -> list[tuple[str, str]]:
    """Return method and path of every signed route, as the API's own document lists them."""
    document = (await world.api.http.get("/openapi.json")).json()
    found = [(method.upper(), path) for path, methods in document["paths"].items() for method in methods]
    return [each for each in found if each[1].startswith("/v1/")]


async def things_of(world: World) -> Things:
    """Make one of each in the first tenant; return their ids by the names that paths give them."""
    owner = await world.other(operations=SCOPES)
    wallet = await world.funded_wallet(1000)
    other = await world.funded_wallet(1)
    await world.register()
    waiting = payout(wallet, requires_monitoring=True)
    held = (await world.api.post("/v1/intents", waiting, key="held")).json()
    assert held["state"] == "REVIEW", held
    transfer = {"operation": "INTERNAL_P2P", "wallet_id": wallet, "counterparty_wallet_id": other,
                "amount_minor": 10, "currency": "THB"}  # fmt: skip
    paid = (await world.api.post("/v1/intents", transfer, key="paid")).json()
    assert paid["state"] == "SETTLED", paid
    rule = (await owner.post("/v1/fee-rules", FEE_RULE)).json()
    limit = (await owner.post("/v1/limits", LIMIT)).json()
    pair = {"base": "USD", "counter": "THB"}
    await owner.post("/v1/exchange-pairs", pair | {"spread_basis_points": 0, "rate_max_age_s": 60})
    await owner.post("/v1/rates", {"rates": [pair | {"rate": "35.1", "source": "feed"}]})
    await owner.post("/v1/liquidity", {"currency": "USD", "may_overdraw": True})
    dollars = (await owner.post("/v1/wallets", {"owner": OWNER, "currency": "USD"})).json()["id"]
    quote = {"wallet_id": wallet, "counterparty_wallet_id": dollars, "from_currency": "THB", "to_currency": "USD",
             "amount_minor": 351}  # fmt: skip
    quoted = (await owner.post("/v1/quotes", quote)).json()
    died = (await world.api.post("/v1/intents", payout(wallet), key="died")).json()
    letter, discard = await buried(world, UUID(died["id"])), str(uuid4())
    discarded = {"id": discard, "action": "DISCARD", "selection": {"ids": [letter]}, "reason": "known",
                 "incident": "I-1", "dry_run": False}  # fmt: skip
    assert (await owner.post("/v1/redrives", discarded)).json()["state"] == "AWAITING_APPROVAL"
    refund = {"operation": "REFUND", "original_intent_id": paid["id"], "wallet_id": other, "amount_minor": 5,
              "currency": "THB"}  # fmt: skip
    share = FEE_RULE | {"name": "theirs", "shares": [{"wallet_id": wallet}]}
    tolerance = {"operation": "TOPUP", "currency": "THB", "below_minor": 1, "above_minor": 1}
    await owner.put("/v1/collection-tolerances", tolerance)
    async with (ports := world.core.worker_ports).unit_of_work(Context(None, "test")) as uow:
        await ports.ledger.create_accounts(uow, [system_account(world.tenant_id, "THB", AccountCode.SUSPENSE)])
    item = await world.admin.fetchval(
        "INSERT INTO fleet.provider_payments (id, tenant_id, rail, provider, provider_account, environment, kind,"
        " transaction_id, amount_minor, currency, reference, occurred_at, state) VALUES (gen_random_uuid(), $1, 'noop',"
        " 'NOOP', 'main', 'sandbox', 'PAYMENT', 'T1', 5, 'THB', 'R1', now(), 'SUSPENDED') RETURNING id::text",
        world.tenant_id,
    )
    endpoint = (await owner.post("/v1/webhook-endpoints", {"url": "https://hooks.example"})).json()["endpoint"]
    await owner.post(f"/v1/webhook-endpoints/{endpoint['id']}/test", {})
    ids = {"intent_id": held["id"], "wallet_id": wallet, "rule_id": rule["id"], "limit_id": limit["id"],
           "quote_id": quoted["id"], "owner": OWNER, "letter_id": letter, "story_id": died["id"],
           "redrive_id": discard, "endpoint_id": endpoint["id"], "item_id": item,
           "break_id": await broken(world)}  # fmt: skip
    bodies = {
        "/v1/intents": refund,
        "/v1/intents:batch": {"items": [
            {"idempotency_key": "x", "intent": transfer}, {"idempotency_key": "y", "intent": refund},
            {"idempotency_key": "z", "intent": payout(wallet)},
        ]},
        "/v1/intents/{intent_id}/confirm": {"amount_minor": 100, "fee_minor": 0},
        "/v1/intents/{intent_id}/review": {"decision": "APPROVE"},
        "/v1/fee-rules": share,
        "/v1/quotes": quote,
        "/v1/breaks/{break_id}/assign": {"owner": "eve"},
        "/v1/breaks/{break_id}/resolve": {"reason": "seen"},
        "/v1/redrives": discarded | {"id": str(uuid4())},
        "/v1/hand-settlements": {"intent_id": died["id"], "outcome": "UNPAID", "evidence": "line 7 of the register",
                                 "reason": "seen", "incident": "I-1"},
        "/v1/suspense/{item_id}/assign": {"wallet_id": wallet, "reason": "x"},
        "/v1/suspense/{item_id}/return": {"reason": "x"},
        "/v1/webhook-endpoints/{endpoint_id}/switch": {"enabled": False},
        "/v1/wallets/{wallet_id}/tier": {"tier": "gold"},
        "/v1/wallets/{wallet_id}/external-id": {"external_id": "mine"},
        **{f"/v1/wallets/{{wallet_id}}/{change}": {"reason": "x"} for change in AccountChange},
    }  # fmt: skip
    return Things(ids, bodies)


async def broken(world: World) -> str:
    """Keep a break of the first tenant's; return its id."""
    text = "INSERT INTO fleet.breaks (id, tenant_id, kind, detail) VALUES ($1, $2, 'orphan_hold', 'x')"
    break_id = uuid4()
    await world.admin.execute(text, break_id, world.tenant_id)
    return str(break_id)


async def buried(world: World, intent_id: UUID) -> str:
    """Give a payment's job up, as its adapter does; return the letter's id."""
    job_id = derive_id(intent_id, "job", JobKind.PAY)
    entry_id = f"{job_id.int % 10**15}-0"
    letter = DeadLetter(job_id=job_id, rail="noop", stream="{noop}:jobs", entry_id=entry_id, error_class="poison",
                        fingerprint="poison", message="poison", deliveries=3, body="{}")  # fmt: skip
    async with world.core.worker_database.unit_of_work(Context(None, "test")) as uow:
        await receive(uow, world.core.worker_ports.letters, [letter])
    return str(await world.admin.fetchval("SELECT id FROM fleet.dead_letters WHERE job_id = $1", job_id))


OWNER = "anna"
"""Who owns the wallets of the first tenant."""
OWN = {"/v1/wallets", "/v1/limits", "/v1/fees:dry-run", "/v1/webhook-endpoints", "/v1/collection-tolerances"}
"""What makes or tries something of the caller's own, whatever the first tenant has."""


async def test_a_key_of_another_tenant_walks_every_route_and_finds_and_changes_nothing(world: World) -> None:
    things = await things_of(world)
    document = await made(world)
    rival, theirs = signed(world, document), document["tenant"]["id"]
    walked = 0
    before = await seen_by_first_tenant(world, theirs)
    for method, named in await routes_of(world):
        path = things.path(named)
        if method == "GET":
            answer = await rival.get(path)
        elif method == "DELETE":
            answer = await rival.delete(path)
        elif named in OWN:
            continue
        else:
            answer = await rival.post(path, things.bodies.get(named, {}), key="walk")
        walked += 1
        text = answer.text
        # A refusal may repeat the ids that it was asked about, and tells nothing of what they stand for.
        assert OWNER not in text, (method, named, text)
        if named == "/v1/owners/{owner}/wallets":
            assert answer.json()["items"] == [], text
        elif named == "/v1/audit":
            # Its own key was made, and that is journalled.
            assert {each["tenant_id"] for each in answer.json()["items"]} == {theirs}, text
        elif "{" in named:
            assert answer.status_code in (403, 404), (method, named, text)
        elif method == "GET":
            assert answer.status_code == 403 or listed_in(answer.json()) == [], (named, text)
        elif named == "/v1/intents:batch":
            assert {each["status"] for each in answer.json()["results"]} == {422}, text
        else:
            assert answer.status_code in (403, 404, 422), (named, text)
    assert walked >= 20, walked
    assert await seen_by_first_tenant(world, theirs) == before


def listed_in(document: dict[str, Any]) -> list[Any]:
    """Return what an answer lists, under whatever names."""
    return [each for value in document.values() if isinstance(value, list) for each in value]


async def seen_by_first_tenant(world: World, rival: str) -> dict[str, str | None]:
    """Return a digest of every row that is not the rival's own, but the nonces."""
    tables = await world.admin.fetch(
        "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'"
        " WHERE c.relnamespace = 'fleet'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
        " AND c.relname <> 'request_nonces' ORDER BY 1"
    )
    text = "SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM fleet.{} t WHERE tenant_id <> $1"
    return {row["relname"]: await world.admin.fetchval(text.format(row["relname"]), UUID(rival)) for row in tables}


async def test_a_key_of_its_own_tenant_finds_all_of_it_on_the_same_walk(world: World) -> None:
    """The walk above proves something only if the same paths answer the owner."""
    things = await things_of(world)
    owner = await world.other(operations=SCOPES)
    for method, named in await routes_of(world):
        if method == "GET" and named != "/v1/tenants":
            answer = await owner.get(things.path(named))
            assert answer.status_code == 200, (named, answer.text)
            if "{" not in named and named != "/v1/audit/proof":
                assert listed_in(answer.json()), f"{named}: make one of what it lists"


async def test_the_database_itself_shows_the_application_one_tenant_alone(world: World) -> None:
    await things_of(world)
    theirs = UUID((await made(world))["tenant"]["id"])
    tables = [name for name in await seen_by_first_tenant(world, str(theirs)) if name != "tenants"]
    for context in (Context(theirs, "rival"), Context(None, "nobody")):
        async with world.core.app_database.unit_of_work(context) as uow:
            for table in tables:
                granted = await uow.connection.fetchval(
                    "SELECT has_table_privilege(current_user, 'fleet.' || $1, 'SELECT')", table
                )
                if granted:
                    foreign = await uow.connection.fetchval(
                        f"SELECT count(*) FROM fleet.{table}"
                        " WHERE tenant_id NOT IN ($1, '00000000-0000-0000-0000-000000000000')",
                        theirs,
                    )
                    assert foreign == 0, (context, table)
