"""What each side of a payment between two wallets sees: who pays all of it, who is paid that it came."""

from typing import Any
from uuid import UUID

import pytest

from core.services.access.keys import KNOWN_SCOPES, TENANTS_SCOPE
from tests.integration.api.conftest import World
from tests.support.signed import Signed

EVERY_SCOPE = sorted(KNOWN_SCOPES - {TENANTS_SCOPE})


class Sides:
    """Anna pays, Ben is paid; the house sees both."""

    def __init__(self, world: World, house: Signed, anna: str, ben: str) -> None:
        self.world, self.house, self.anna, self.ben = world, house, anna, ben

    async def pay(self, key: str, amount_minor: int, **changed: Any) -> dict[str, Any]:
        """Let Anna's clerk pay Ben for her; return what the house is shown."""
        body = {
            "operation": "INTERNAL_P2P", "wallet_id": self.anna, "counterparty_wallet_id": self.ben,
            "amount_minor": amount_minor, "currency": "THB", "reference": "annas-own", "comment": "for lunch",
            "on_behalf_of": {"user": "anna", "agent": "clerk-7"},
        }  # fmt: skip
        answer = await self.house.post("/v1/intents", body | changed, key=key)
        assert answer.status_code == 201, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    async def limit(self, operation: str) -> None:
        """Leave Anna 123.45 of this a day."""
        body = {"name": "annas-day", "kind": "DAY", "subject": "WALLET", "currency": "THB", "operation": operation}
        assert (await self.house.post("/v1/limits", body | {"max_amount_minor": 12_345})).status_code == 201

    async def who_are_paid(self) -> list[Signed]:
        """Return a key that acts for Ben, and one that covers his wallet."""
        acting = await self.world.other(operations=EVERY_SCOPE, acts_for_users=True)
        acting.on_behalf_of = "ben"
        return [acting, await self.world.other(operations=EVERY_SCOPE, accounts=[UUID(self.ben)])]


@pytest.fixture
async def sides(world: World) -> Sides:
    anna = await world.funded_wallet(50_000)
    ben = (await world.api.post("/v1/wallets", {"owner": "ben", "currency": "THB"})).json()["id"]
    return Sides(world, await world.other(operations=EVERY_SCOPE), anna, ben)


async def seen(client: Signed, intent_id: str) -> tuple[int, list[str], list[str]]:
    """Return how the intent is answered, and the payments and the intents of events that are listed."""
    listed = (await client.get("/v1/intents")).json()["items"]
    events = (await client.get("/v1/events")).json()["items"]
    own = await client.get(f"/v1/intents/{intent_id}/events")
    status = (await client.get(f"/v1/intents/{intent_id}")).status_code
    assert own.status_code == status, own.text
    return status, [each["id"] for each in listed], [each["intent_id"] for each in events]


@pytest.mark.parametrize("how", ["limit", "funds", "review"])
async def test_what_did_not_come_does_not_exist_for_whom_it_was_meant(sides: Sides, how: str) -> None:
    if how == "limit":
        await sides.limit("INTERNAL_P2P")
    intent = await sides.pay("a", 60_000 if how == "funds" else 20_000, requires_monitoring=how == "review")
    assert intent["state"] == ("REVIEW" if how == "review" else "FAILED")
    if how == "limit":
        assert intent["failure"]["limit"]["remaining_minor"] == 12_345, "the payer's side is told"
    for paid in await sides.who_are_paid():
        assert await seen(paid, intent["id"]) == (404, [], [])
    annas = await sides.world.other(accounts=[UUID(sides.anna)])
    assert (await annas.get(f"/v1/intents/{intent['id']}")).json() == intent


async def test_who_was_paid_sees_that_it_came_and_nothing_of_the_payers_own(sides: Sides) -> None:
    rule = {"operation": "INTERNAL_P2P", "currency": "THB"}
    for name, phase, fixed in (("on-top", "PRE", 70), ("out-of-it", "POST", 30)):
        fee = {"kind": "RATE", "fixed_minor": fixed, "basis_points": 0}
        made = await sides.house.post("/v1/fee-rules", rule | {"name": name, "phase": phase, "fee": fee})
        assert made.status_code == 201, made.text
    intent = await sides.pay("a", 20_000)
    assert (intent["state"], intent["fee_minor"], intent["received_minor"]) == ("SETTLED", 70, 19_970), intent
    whole = (await sides.house.get(f"/v1/intents/{intent['id']}/events")).json()["items"]
    for paid in await sides.who_are_paid():
        assert await seen(paid, intent["id"]) == (200, [intent["id"]], [intent["id"]])
        shown = (await paid.get(f"/v1/intents/{intent['id']}")).json()
        assert shown == (await paid.get("/v1/intents")).json()["items"][0]
        assert [leg["name"] for leg in shown["fees"]] == ["fee:out-of-it:1"]
        hidden = {name for name in intent if shown[name] != intent[name]}
        assert hidden <= {"fee_minor", "fees", "reference", "on_behalf_of", "deadline"}, hidden
        assert (shown["fee_minor"], shown["reference"], shown["on_behalf_of"], shown["deadline"]) == (0, "", None, None)
        assert (shown["received_minor"], shown["comment"]) == (19_970, "for lunch")
        (event,) = (await paid.get("/v1/events")).json()["items"]
        assert event == whole[-1] | {"actor": "", "data": {}}
        # Nobody finds out by trying what the payer calls it.
        assert (await paid.get("/v1/intents", reference="annas-own")).json()["items"] == []
        refused = await paid.post(f"/v1/intents/{intent['id']}/cancel", {})
        assert (refused.status_code, refused.json()["code"]) == (403, "account_not_permitted")
    assert len((await sides.house.get("/v1/intents", reference="annas-own")).json()["items"]) == 1


async def test_a_merchant_sees_that_a_charge_failed_and_not_what_the_payer_has_left(sides: Sides) -> None:
    await sides.limit("MINIAPP_CHARGE")
    merchant = await sides.world.other(operations=["MINIAPP_CHARGE"], accounts=[UUID(sides.ben)])
    body = {
        "operation": "MINIAPP_CHARGE", "wallet_id": sides.anna, "counterparty_wallet_id": sides.ben,
        "amount_minor": 20_000, "currency": "THB", "reference": "order-7",
    }  # fmt: skip
    made = (await merchant.post("/v1/intents", body, key="a")).json()
    items = [{"idempotency_key": "b", "intent": body}]
    (batched,) = (await merchant.post("/v1/intents:batch", {"items": items})).json()["results"]
    found = (await merchant.get("/v1/intents", reference="order-7")).json()["items"]
    again = (await merchant.get(f"/v1/intents/{made['id']}")).json()
    for shown in (made, batched["intent"], *found, again):
        assert (shown["state"], shown["reference"], shown["failure"]["code"]) == ("FAILED", "order-7", "limit_exceeded")
        assert shown["failure"].get("limit") is None
        assert "123" not in shown["failure"]["message"]
    assert len(found) == 2
    assert await seen(merchant, made["id"]) == (200, [each["id"] for each in found], [made["id"], found[0]["id"]])
    whole = (await sides.house.get(f"/v1/intents/{made['id']}")).json()
    assert whole["failure"]["limit"]["remaining_minor"] == 12_345
