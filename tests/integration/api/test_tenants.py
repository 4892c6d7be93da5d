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
from core.services.access.keys import KNOWN_SCOPES, TENANTS_SCOPE
from core.services.on_call.dead_letters import receive
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
    mandate = MANDATE | {"wallet_id": wallet}
    assert (await owner.post("/v1/mandates", mandate)).json()["state"] == "ACTIVE"
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
    item = await suspended(world)
    endpoint = (await owner.post("/v1/webhook-endpoints", {"url": "https://hooks.example"})).json()["endpoint"]
    await owner.post(f"/v1/webhook-endpoints/{endpoint['id']}/test", {})
    ids = {"intent_id": held["id"], "wallet_id": wallet, "rule_id": rule["id"], "limit_id": limit["id"],
           "quote_id": quoted["id"], "mandate_id": "M-1", "owner": OWNER, "letter_id": letter, "story_id": died["id"],
           "redrive_id": discard, "rail": "noop", "endpoint_id": endpoint["id"], "item_id": item,
           "break_id": await broken(world), "alert_id": await alerted(world), **await reconciled(world)}  # fmt: skip
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
        "/v1/mandates": mandate,
        "/v1/mandates/{mandate_id}/cancel": {"reason": "x"},
        "/v1/breaks/{break_id}/assign": {"owner": "eve"},
        "/v1/breaks/{break_id}/resolve": {"reason": "seen"},
        "/v1/breaks/{break_id}/preview": {},
        "/v1/redrives": discarded | {"id": str(uuid4()), "selection": {"ids": [await died_too(world, wallet)]}},
        "/v1/hand-settlements": {"intent_id": died["id"], "outcome": "UNPAID", "evidence": "line 7 of the register",
                                 "reason": "seen", "incident": "I-1"},
        "/v1/suspense/{item_id}/assign": {"wallet_id": wallet, "reason": "x"},
        "/v1/suspense/{item_id}/return": {"reason": "x"},
        "/v1/webhook-endpoints/{endpoint_id}/switch": {"enabled": False},
        "/v1/wallets/{wallet_id}/tier": {"tier": "gold"},
        "/v1/wallets/{wallet_id}/external-id": {"external_id": "mine"},
        **{f"/v1/wallets/{{wallet_id}}/{change}": {"reason": "x"} for change in AccountChange},
    }  # fmt: skip
    return Things(ids, bodies | RECONCILING | ON_CALL)


ON_CALL: dict[str, Any] = {
    **{f"/v1/alerts/{{alert_id}}/{step}": {"reason": "looked after"} for step in ("close", "approve", "reopen")},
    "/v1/intents/{intent_id}/reveal": {"reason": "the payee called"},
    "/v1/rails/{rail}/pause": {"reason": "maintenance"},
    "/v1/streams/{rail}/release": {"reason": "it is gone", "consumer": "a"},
    "/v1/streams/{rail}/claim": {"reason": "it is gone", "consumer": "a", "to": "b"},
    "/v1/streams/{rail}/rebuild": {"reason": "jobs are lost"},
    "/v1/streams/{rail}/janitor": {"reason": "it is full"},
}
"""A valid body for each route of a person on call that stops, repairs or looks."""
RECONCILING: dict[str, Any] = {
    "/v1/registers": {
        "content": "",
        "mapping": {
            "rail": "noop",
            "provider_account": "main",
            "our_ref": {"column": "ref"},
            "direction": {"const": "OUT"},
            "amount": {"column": "amount"},
            "currency": {"const": "THB"},
            "at": {"column": "at"},
        },
    },
    "/v1/registers:fetch": {"rail": "noop", "business_day": "2026-11-20"},
    "/v1/recon/runs": {"rail": "noop", "business_day": "2026-11-20"},
    "/v1/recon/books": {"what": "ledger"},
}
"""A valid body for each route that brings a register or compares."""


async def died_too(world: World, wallet: str) -> str:
    """Bury one more payment; return the letter's id."""
    answer = await world.api.post("/v1/intents", payout(wallet), key=f"died-{uuid4().hex}")
    return await buried(world, UUID(answer.json()["id"]))


MANDATE = {
    "mandate_id": "M-1", "signed_on": "2026-01-05", "debtor_account": "004-0123456789", "debtor_name": "Somchai Jaidee",
}  # fmt: skip


async def suspended(world: World) -> str:
    """Let a payment of the first tenant's rest in suspense; return its id."""
    item = await world.admin.fetchval(
        "INSERT INTO fleet.provider_payments (id, tenant_id, rail, provider, provider_account, environment, kind,"
        " transaction_id, amount_minor, currency, reference, occurred_at, state) VALUES (gen_random_uuid(), $1, 'noop',"
        " 'NOOP', 'main', 'sandbox', 'PAYMENT', 'T1', 5, 'THB', 'R1', now(), 'SUSPENDED') RETURNING id::text",
        world.tenant_id,
    )
    return str(item)


async def alerted(world: World) -> str:
    """Keep an alert of the first tenant's that another person wants to close; return its id."""
    text = (
        "INSERT INTO fleet.alerts (id, tenant_id, severity, kind, detail, proposed_by, closed_because)"
        " VALUES ($1, $2, 'page', 'success_after_void', 'x', 'key:other', 'seen')"
    )
    alert_id = uuid4()
    await world.admin.execute(text, alert_id, world.tenant_id)
    return str(alert_id)


async def broken(world: World) -> str:
    """Keep a break of the first tenant's; return its id."""
    text = "INSERT INTO fleet.breaks (id, tenant_id, kind, detail) VALUES ($1, $2, 'orphan_hold', 'x')"
    break_id = uuid4()
    await world.admin.execute(text, break_id, world.tenant_id)
    return str(break_id)


async def reconciled(world: World) -> dict[str, str]:
    """Keep a register that speaks of the first tenant, and a comparison of it; return their ids."""
    ids = {"register_id": str(uuid4()), "run_id": str(uuid4())}
    await world.admin.execute(
        "INSERT INTO fleet.register_files (id, rail, provider_account, environment, business_day, source, received_by,"
        " state) VALUES ($1, 'noop', 'main', 'sandbox', '2026-11-20', 'IMPORTED', 'key:x', 'COMPLETE')",
        UUID(ids["register_id"]),
    )
    await world.admin.execute(
        "INSERT INTO fleet.register_runs (id, rail, provider_account, environment, business_day, register_state,"
        " tallies, breaks, new_breaks, gone, run_by, started_at, finished_at) VALUES ($1, 'noop', 'main', 'sandbox',"
        " '2026-11-20', 'COMPLETE', '[]', 0, 0, 0, 'core', now(), now())",
        UUID(ids["run_id"]),
    )
    return ids


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
OWN = {"/v1/wallets", "/v1/limits", "/v1/fees:dry-run", "/v1/webhook-endpoints", "/v1/collection-tolerances",
       "/v1/exchange-pairs", "/v1/rates", "/v1/liquidity"}  # fmt: skip
"""What makes or tries something of the caller's own, whatever the first tenant has."""
OF_THE_SYSTEM = ("/v1/registers", "/v1/recon/", "/v1/rails", "/v1/streams")
"""What speaks of every tenant, and is the system's own keys': a tenant's is refused, the owner's too."""
REFUSED_AS = {
    "/v1/fee-rules": "fee_account_unknown",
    "/v1/hand-settlements": "not_found",
    "/v1/intents": "wallet_not_found",
    "/v1/intents:batch": "wallet_not_found",
    "/v1/mandates": "wallet_not_found",
    "/v1/quotes": "wallet_not_found",
    "/v1/redrives": "nothing_selected",
}
"""What names the first tenant's things in its body, and how it is refused to another: as if there were none."""


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
        elif named == "/v1/audit/export":
            assert {orjson.loads(line)["tenant_id"] for line in text.splitlines()} == {theirs}, text
        elif named == "/v1/audit/proof":
            assert [end.partition(":")[0] for end in answer.json()["ends"]] == [theirs], text
        elif "{" in named:
            assert answer.status_code in (403, 404), (method, named, text)
        elif method == "GET":
            assert answer.status_code == 403 or listed_in(answer.json()) == [], (named, text)
        elif named in REFUSED_AS:
            refusals = [each["problem"] for each in answer.json().get("results", [])] or [answer.json()]
            assert {each["code"] for each in refusals} == {REFUSED_AS[named]}, text
        else:
            assert answer.status_code == 403, (named, text)
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


async def test_a_key_of_its_own_tenant_finds_all_of_it_on_the_same_walk_and_writes_no_row(world: World) -> None:
    """The walk above proves something only if the same paths answer the owner; and what reads needs no disk."""
    things = await things_of(world)
    owner = await world.other(operations=SCOPES)
    root = Context(UUID(int=0), "test")
    key = await world.core.keys.create(
        root, tenant_id=UUID(int=0), name="clerk", operations=["RECONCILIATION", "RAILS"]
    )
    clerk, walked = Signed(world.api.http, key.id, key.secret), set[str]()
    count = "SELECT count(*) FROM fleet.request_nonces"
    before, nonces = await world.contents(), await world.admin.fetchval(count)
    for method, named in await routes_of(world):
        if method == "GET" and named.startswith(OF_THE_SYSTEM):
            query = {"day": "2026-11-20"} if named == "/v1/recon/report" else {}
            answer = await clerk.get(things.path(named), **query)
            # This core was given no streams: it says so, and writes nothing either.
            assert answer.status_code == (404 if named.startswith("/v1/streams") else 200), (named, answer.text)
            walked.add(named)
        elif method == "GET" and named != "/v1/tenants":
            answer = await owner.get(things.path(named))
            assert answer.status_code == 200, (named, answer.text)
            if named == "/v1/audit/export":
                assert answer.text.count("\n") > 1
            elif "{" not in named and named != "/v1/audit/proof":
                assert listed_in(answer.json()), f"{named}: make one of what it lists"
    assert len(walked) >= 5, walked
    assert (await world.contents(), await world.admin.fetchval(count)) == (before, nonces)


async def test_the_bodies_of_the_walk_are_ones_with_which_the_owner_succeeds(world: World) -> None:
    """A rival that is refused for its body would have been refused as the owner: that would prove nothing."""
    things = await things_of(world)
    owner = await world.other(operations=SCOPES)
    for named in sorted(REFUSED_AS):
        answer = await owner.post(named, things.bodies[named], key="control")
        assert answer.status_code in (200, 201), (named, answer.text)
        results = answer.json().get("results", [])
        assert all(each["status"] == 201 for each in results), (named, answer.text)
    asked = {named for named in things.bodies if "{" not in named and not named.startswith(OF_THE_SYSTEM)}
    assert set(REFUSED_AS) == asked


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
                    rows = f"SELECT count(*) FROM fleet.{table} WHERE tenant_id NOT IN ($1, {SYSTEM})"
                    assert (await world.admin.fetchval(rows, theirs) > 0) is (table not in NOT_MADE_HERE), table
                    assert await uow.connection.fetchval(rows, theirs) == 0, (context, table)


SYSTEM = "'00000000-0000-0000-0000-000000000000'"
OF_NO_TENANT = {
    "partitioned_tables": "which tables are cut by time",
    "retention": "how long each kind of row is kept",
    "schema_migrations": "which files were applied",
}
OF_ALL = {
    "ledger_epochs": "when the ledger was restored",
    "lost_months": "what a restore lost",
    "rail_pauses": "which rails are paused",
    "rail_registrations": "what each rail's adapter can do",
    "rail_waits": "which rails wait",
}
"""Tables of which the application sees the system's rows, besides those of its tenant."""

NOT_MADE_HERE = set(OF_ALL) | {
    "announced_returns", "attempts", "collections", "doubted_ends", "facts", "mandate_debits",
    "provider_payment_sources", "suspense_decisions",
    "transfer_resolutions", "wallet_events",
}  # fmt: skip
"""Tables of which the first tenant has no row here, so that none is seen says nothing: the catalogue's test does."""


async def test_the_catalogue_has_every_table_confined_to_its_tenant_or_listed_with_a_reason(world: World) -> None:
    tables = await world.admin.fetch(
        "SELECT c.relname AS name, c.relrowsecurity AS secured, c.relispartition AS part,"
        " EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id'"
        " AND a.attnotnull) AS owned, has_any_column_privilege('fleet_app', c.oid, 'SELECT,INSERT,UPDATE')"
        " OR has_table_privilege('fleet_app', c.oid, 'DELETE,TRUNCATE') AS granted,"
        " pg_has_role('fleet_app', c.relowner, 'MEMBER') AS own FROM pg_class c"
        " WHERE c.relnamespace = 'fleet'::regnamespace AND c.relkind IN ('r', 'p', 'm', 'v', 'f')"
    )
    policies: dict[str, dict[str, tuple[str | None, str | None]]] = {}
    for row in await world.admin.fetch(
        "SELECT c.relname, p.polname, pg_get_expr(p.polqual, c.oid) AS seen, pg_get_expr(p.polwithcheck, c.oid) AS kept"
        " FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE c.relnamespace = 'fleet'::regnamespace"
        " AND ARRAY[0::oid, 'fleet_app'::regrole] && p.polroles"
    ):
        policies.setdefault(row["relname"], {})[row["polname"]] = (row["seen"], row["kept"])
    its_own = "(tenant_id = (NULLIF(current_setting('fleet.tenant'::text, true), ''::text))::uuid)"
    systems = f"(tenant_id = {SYSTEM}::uuid)"
    for table in tables:
        name = table["name"]
        assert not table["own"], f"{name}: whom a table belongs to its policies do not bind"
        if table["part"]:
            # What is asked of the whole table is judged by its policies; a part alone has none, and nobody may ask it.
            assert not table["granted"], name
        elif name not in OF_NO_TENANT:
            assert (table["owned"], table["secured"]) == (True, True), name
            more = {"app_reads_system": (systems, None)} if name in OF_ALL else {}
            assert policies[name] == {"app_tenant": (its_own, its_own)} | more, name
    assert set(OF_NO_TENANT) | set(OF_ALL) <= {table["name"] for table in tables}
    roles = "SELECT bool_or(rolbypassrls OR rolsuper) FROM pg_roles WHERE rolname IN ('fleet_app', 'fleet_worker')"
    assert await world.admin.fetchval(roles) is False
