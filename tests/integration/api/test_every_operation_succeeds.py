"""Every operation of the OpenAPI document, asked once for what it is for: a walk that only refuses proves little."""

from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import orjson
import schemathesis
from schemathesis.core.result import Ok

from core.domain.context import Context
from core.services.access.keys import KNOWN_SCOPES
from tests.integration.api.conftest import REGISTRATION, World, payout
from tests.integration.api.test_confirm_and_cancel import YES
from tests.integration.api.test_tenants import (
    FEE_RULE,
    LIMIT,
    OF_THE_SYSTEM,
    RECONCILING,
    Things,
    alerted,
    died_too,
    things_of,
)
from tests.support.drawn_requests import CHECKS
from tests.support.signed import Signed

NEVER: dict[str, str] = {
    "POST /v1/breaks/{break_id}/approve": "asks for a hold of no payment, which only a damaged ledger has:"
    " tests/integration/oncall/test_reconciliation.py plants one and lets two people give it back",
    "POST /v1/registers/{register_id}/original": "asks for a file, and the walk's register is a planted row without:"
    " tests/integration/api/test_recon_days.py reads one back",
    "POST /v1/registers:upload": "asks for a file as its body: tests/integration/api/test_recon_days.py sends one",
    **dict.fromkeys(
        (
            "GET /v1/streams",
            "GET /v1/streams/{rail}/held",
            "GET /v1/streams/{rail}/difference",
            "POST /v1/streams/{rail}/release",
            "POST /v1/streams/{rail}/claim",
            "POST /v1/streams/{rail}/rebuild",
            "POST /v1/streams/{rail}/janitor",
        ),
        "asks for streams, of which this core has none: tests/integration/cli/test_on_call_over_the_api.py has them",
    ),
}
"""Operations that this walk cannot let succeed, each with the reason."""
PAIR = {"base": "USD", "counter": "THB"}
BODIES: dict[str, Any] = {
    "POST /v1/wallets": {"owner": "bob", "currency": "THB"},
    "POST /v1/limits": LIMIT | {"name": "another"},
    "POST /v1/fee-rules": FEE_RULE | {"name": "another"},
    "POST /v1/fees:dry-run": {"operation": "PAYOUT", "amount_minor": 100, "currency": "THB"},
    "POST /v1/webhook-endpoints": {"url": "https://hooks.example/more"},
    "PUT /v1/collection-tolerances": {"operation": "TOPUP", "currency": "THB", "below_minor": 2, "above_minor": 0},
    "POST /v1/exchange-pairs": PAIR | {"spread_basis_points": 1, "rate_max_age_s": 60},
    "POST /v1/rates": {"rates": [PAIR | {"rate": "35.2", "source": "feed"}]},
    "POST /v1/liquidity": {"currency": "USD", "may_overdraw": True},
    "POST /v1/registers": RECONCILING["/v1/registers"]
    | {"content": b64encode(b"ref,amount,at\nR1,1.00,2026-11-20T00:00:00+00:00\n").decode()},
    "POST /v1/tenants": {"name": "third", "operations": ["*"]},
}
FIRST = ("GET", "PUT", "POST", "DELETE")
"""In this order, so that what ends a thing comes after what looks at it."""
LAST = ("unfreeze", "close", "disable", "hand-settlements", "switch", "confirm")


@dataclass
class Walk:
    """What is asked, and of what."""

    world: World
    things: Things

    async def ids(self, label: str) -> dict[str, str]:
        """Return the things that an operation is asked about; what it would end is made for it alone."""
        make = MAKERS.get(label)
        return self.things.ids | (await make(self) if make is not None else {})

    async def held(self) -> dict[str, str]:
        """A payment that waits for a decision."""
        asked = payout(await self.world.funded_wallet(1000), requires_monitoring=True)
        return {"intent_id": (await self.world.api.post("/v1/intents", asked, key=uuid4().hex)).json()["id"]}

    async def looked_up(self) -> dict[str, str]:
        """A payment whose payee was looked up."""
        await self.world.register(lookup=True)
        return {"intent_id": await self.world.looked_up(await self.world.funded_wallet(1000))}

    async def empty(self) -> dict[str, str]:
        """A wallet with nothing in it."""
        made = await self.world.api.post("/v1/wallets", {"owner": "carl", "currency": "THB"})
        return {"wallet_id": made.json()["id"]}

    async def asked_for(self) -> dict[str, str]:
        """A discard that waits for a second key."""
        owner = await self.world.other(operations=sorted(KNOWN_SCOPES))
        letter = await died_too(self.world, await self.world.funded_wallet(1000))
        body = self.things.bodies["/v1/redrives"] | {"id": str(uuid4()), "selection": {"ids": [letter]}}
        answer = await owner.post("/v1/redrives", body)
        assert answer.json().get("state") == "AWAITING_APPROVAL", answer.text
        return {"redrive_id": answer.json()["id"]}

    async def proposed(self) -> dict[str, str]:
        """An alert that another person wants to close."""
        return {"alert_id": await alerted(self.world)}

    async def raised(self) -> dict[str, str]:
        """An alert that nobody has looked after."""
        alert_id = await alerted(self.world)
        await self.world.admin.execute("UPDATE fleet.alerts SET proposed_by = NULL WHERE id::text = $1", alert_id)
        return {"alert_id": alert_id}

    async def returnable(self) -> dict[str, str]:
        """Money in suspense whose rail pays back."""
        operations = REGISTRATION["operations"] | {"REFUND": REGISTRATION["operations"]["PAYOUT"]}
        await self.world.admin.execute(
            "INSERT INTO fleet.rail_registrations (rail, version, body, body_hash)"
            " SELECT 'noop', count(*) + 1, $1, 'x' FROM fleet.rail_registrations",
            orjson.dumps(REGISTRATION | {"operations": operations}).decode(),
        )
        item = await self.world.admin.fetchval(
            "INSERT INTO fleet.provider_payments (id, tenant_id, rail, provider, provider_account, environment, kind,"
            " transaction_id, amount_minor, currency, reference, occurred_at, state) SELECT gen_random_uuid(),"
            " tenant_id, rail, provider, provider_account, environment, kind, 'T2', amount_minor, currency, reference,"
            " now(), state FROM fleet.provider_payments RETURNING id::text"
        )
        return {"item_id": item}


MAKERS: dict[str, Callable[[Walk], Awaitable[dict[str, str]]]] = {
    "POST /v1/intents/{intent_id}/cancel": Walk.held,
    "POST /v1/intents/{intent_id}/review": Walk.held,
    "POST /v1/intents/{intent_id}/confirm": Walk.looked_up,
    "POST /v1/wallets/{wallet_id}/close": Walk.empty,
    "POST /v1/alerts/{alert_id}/close": Walk.raised,
    "POST /v1/alerts/{alert_id}/approve": Walk.proposed,
    "POST /v1/alerts/{alert_id}/reopen": Walk.proposed,
    "POST /v1/redrives/{redrive_id}/approve": Walk.asked_for,
    "POST /v1/redrives/{redrive_id}/reject": Walk.asked_for,
    "POST /v1/redrives/{redrive_id}/cancel": Walk.asked_for,
    "POST /v1/suspense/{item_id}/return": Walk.returnable,
}


def in_turn(label: str) -> tuple[int, int, str]:
    """Return where an operation stands in the walk."""
    method, path = label.split(" ", 1)
    place = next((place for place, word in enumerate(LAST, start=1) if path.endswith(word)), 0)
    return FIRST.index(method), place, path


async def key_of_the_system(world: World) -> Signed:
    """Return a client under a key that speaks of every tenant."""
    scopes = sorted(KNOWN_SCOPES)
    key = await world.core.keys.create(Context(None, "test"), tenant_id=UUID(int=0), name="root", operations=scopes)
    return Signed(world.api.http, key.id, key.secret)


async def test_every_operation_succeeds_for_whom_and_about_what_it_is_there(world: World) -> None:
    document = (await world.api.http.get("/openapi.json")).json()
    found = [
        each.ok() for each in schemathesis.openapi.from_dict(document).get_all_operations() if isinstance(each, Ok)
    ]
    operations = {each.label: each for each in found if each.path.startswith("/v1/")}
    walk = Walk(world, await things_of(world))
    own = await world.other(operations=sorted(KNOWN_SCOPES))
    system = await key_of_the_system(world)
    bodies = {f"POST {path}": body for path, body in walk.things.bodies.items()} | BODIES
    refused: dict[str, str] = {}
    for label in sorted(operations, key=in_turn):
        ids = await walk.ids(label)
        method, named = label.split(" ", 1)
        client = system if named.startswith(OF_THE_SYSTEM) else own
        path = Things(ids, {}).path(named)
        if method == "GET":
            answer = await client.get(path)
        elif method == "DELETE":
            answer = await client.delete(path)
        elif method == "PUT":
            answer = await client.put(path, bodies[label])
        else:
            if path.endswith("/confirm"):
                # What the payee was told, by the rules that are in force at this moment.
                told = (await own.get(path.removesuffix("/confirm"))).json()["lookup"]["fee_minor"]
                bodies[label] = YES | {"fee_minor": told}
            answer = await client.post(path, bodies.get(label, {}), key=uuid4().hex)
        if not answer.is_success:
            refused[label] = answer.text[:300]
        else:
            operations[label].Case(path_parameters=ids).validate_response(answer, checks=CHECKS)
    assert refused.keys() == NEVER.keys(), refused
    assert len(operations) >= 60, len(operations)
