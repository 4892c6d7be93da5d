"""Service keys on the real database: what they carry, how they are rotated, and that they end."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from core.domain.context import Context
from core.services.access.keys import ANY
from core.services.problems import Refusal
from tests.integration.api.conftest import World, payout
from tests.support.signed import Signed

_ROOT = Context(None, "test")
_FRESH_S = 2.2
"""Longer than an authenticator remembers a key."""
WALLET: dict[str, Any] = {"owner": "bob", "currency": "THB"}


async def code(client: Signed) -> str:
    """Ask for something small; return `ok` or the code of the refusal."""
    answer = await client.get("/v1/intents", limit="1")
    return "ok" if answer.status_code == 200 else str(answer.json()["code"])


async def test_two_secrets_are_live_while_a_key_is_rotated_and_the_third_ends_the_first(world: World) -> None:
    assert await code(world.api) == "ok"
    secrets = [world.key.secret, (await world.core.keys.rotate(_ROOT, world.key.id)).secret]
    assert [await code(Signed(world.api.http, world.key.id, secret)) for secret in secrets] == ["ok", "ok"]
    secrets.append((await world.core.keys.rotate(_ROOT, world.key.id)).secret)
    await asyncio.sleep(_FRESH_S)
    answers = [await code(Signed(world.api.http, world.key.id, secret)) for secret in secrets]
    assert answers == ["unauthenticated", "ok", "ok"]


async def test_a_revoked_key_is_refused_within_seconds_and_for_good(world: World) -> None:
    other = await world.other()
    assert (await code(other), await code(world.api)) == ("ok", "ok")
    await world.core.keys.revoke(_ROOT, other.key_id)
    await asyncio.sleep(_FRESH_S)
    assert (await code(other), await code(world.api)) == ("unauthenticated", "ok")
    for change in (world.core.keys.revoke, world.core.keys.rotate):
        with pytest.raises(Refusal, match="no live key"):
            await change(_ROOT, other.key_id)


async def test_a_key_for_everything_does_not_make_money(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    everything = await world.other(operations=[ANY])
    assert (await everything.post("/v1/intents", payout(wallet), key="a")).status_code == 201
    before = await world.contents()
    funding = {"operation": "MANUAL_ADJUSTMENT", "wallet_id": wallet, "amount_minor": 10**9, "currency": "THB"}
    refused = await everything.post("/v1/intents", funding, key="b")
    assert (refused.status_code, refused.json()["code"]) == (403, "operation_not_permitted")
    assert await world.contents() == before
    named = await world.other(operations=["MANUAL_ADJUSTMENT", "ADJUSTMENT_ALONE"])
    assert (await named.post("/v1/intents", funding, key="b")).json()["state"] == "SETTLED"
    refused = await named.post("/v1/intents", payout(wallet), key="c")
    assert refused.json()["code"] == "operation_not_permitted"


async def test_a_key_without_the_scope_opens_no_wallet(world: World) -> None:
    limited = await world.other(operations=["PAYOUT"])
    before = await world.contents()
    assert (await limited.post("/v1/wallets", WALLET)).json()["code"] == "operation_not_permitted"
    assert await world.contents() == before
    scoped = await world.other(operations=["WALLETS"])
    assert (await scoped.post("/v1/wallets", WALLET)).status_code == 201


async def test_a_key_for_one_wallet_sees_and_moves_no_other(world: World) -> None:
    mine, theirs = await world.funded_wallet(1000), await world.funded_wallet(1000)
    limited = await world.other(operations=["PAYOUT"], accounts=[UUID(mine)])
    own = (await limited.post("/v1/intents", payout(mine), key="a")).json()["id"]
    foreign = (await world.api.post("/v1/intents", payout(theirs), key="b")).json()["id"]
    before = await world.contents()
    refusals = [
        await limited.post("/v1/intents", payout(theirs), key="c"),
        await limited.get(f"/v1/wallets/{theirs}"),
        await limited.get(f"/v1/wallets/{theirs}/history"),
        await limited.get("/v1/intents", wallet_id=theirs),
        await limited.get(f"/v1/intents/{foreign}"),
        await limited.post(f"/v1/intents/{foreign}/cancel", {}),
        await limited.post(f"/v1/intents/{foreign}/confirm", {"amount_minor": 100, "fee_minor": 0}),
    ]
    assert [answer.json()["code"] for answer in refusals] == ["account_not_permitted"] * 4 + ["not_found"] * 3
    listed = (await limited.get("/v1/intents")).json()["items"]
    assert {item["wallet_id"] for item in listed} == {mine}
    assert await world.contents() == before
    assert own in {item["id"] for item in listed}


async def test_a_key_that_carries_no_payout_can_neither_confirm_nor_cancel_one(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    intent = (await world.api.post("/v1/intents", payout(wallet), key="a")).json()["id"]
    other = await world.other(operations=["WALLETS"])
    before = await world.contents()
    for path, body in (("cancel", {}), ("confirm", {"amount_minor": 100, "fee_minor": 0})):
        answer = await other.post(f"/v1/intents/{intent}/{path}", body)
        assert (answer.status_code, answer.json()["code"]) == (403, "operation_not_permitted")
    assert await world.contents() == before


async def test_the_key_of_an_adapter_opens_nothing_in_public(world: World) -> None:
    rail = await world.other(rail="noop")
    assert await code(rail) == "unauthenticated"


async def test_one_key_of_a_payment_belongs_to_one_service_key(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    other = await world.other()
    first = (await world.api.post("/v1/intents", payout(wallet), key="same")).json()
    second = await other.post("/v1/intents", payout(wallet), key="same")
    assert (second.status_code, second.headers.get("Idempotent-Replayed")) == (201, None)
    assert second.json()["id"] != first["id"]


async def test_a_signature_covers_method_path_query_body_key_time_and_nonce(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    before = await world.contents()
    raw = b'{"owner":"bob","currency":"THB"}'
    headers = world.api.headers("POST", "/v1/wallets", raw) | {"Content-Type": "application/json"}
    other = await world.other()
    forged = [
        await world.api.http.post("/v1/wallets", content=raw.replace(b"bob", b"eve"), headers=headers),
        await world.api.http.post("/v1/wallets?x=1", content=raw, headers=headers),
        await world.api.http.post("/v1/intents", content=raw, headers=headers),
        await world.api.http.put("/v1/wallets", content=raw, headers=headers),
    ]
    for name, value in (
        ("Fleet-Key", other.key_id),
        ("Fleet-Timestamp", str(int(headers["Fleet-Timestamp"]) - 1)),
        ("Fleet-Nonce", "another-nonce"),
        ("Fleet-Nonce", "short"),
        ("Fleet-Nonce", "n" * 65),
        ("Fleet-Signature", "0" * 64),
        ("Fleet-Signature", "é".encode().decode("latin-1")),
        ("Fleet-Timestamp", "soon"),
        ("Fleet-Key", str(uuid4())),
    ):
        changed = {key.encode(): text.encode("latin-1") for key, text in (headers | {name: value}).items()}
        forged.append(await world.api.http.post("/v1/wallets", content=raw, headers=changed))
    codes = [answer.json()["code"] for answer in forged]
    assert codes == ["unauthenticated"] * 3 + ["method_not_allowed"] + ["unauthenticated"] * 9
    after = await world.contents()
    changed_tables = {table for table in after if after[table] != before[table]}
    assert changed_tables == {"service_keys", "audit_entries", "audit_heads"}
    assert (await world.api.http.post("/v1/wallets", content=raw, headers=headers)).status_code == 201
    assert (await world.api.get(f"/v1/wallets/{wallet}")).status_code == 200


async def test_a_mini_app_charges_and_credits_a_user_by_keys_that_may(world: World) -> None:
    user, shop = await world.funded_wallet(1000), await world.funded_wallet(1)
    charging = await world.other(operations=["MINIAPP_CHARGE"], accounts=[UUID(shop)])
    crediting = await world.other(operations=["MINIAPP_CREDIT"])

    def moved(operation: str, payer: str, payee: str, amount_minor: int) -> dict[str, Any]:
        wallets = {"wallet_id": payer, "counterparty_wallet_id": payee}
        return wallets | {"operation": operation, "amount_minor": amount_minor, "currency": "THB"}

    async def owned() -> tuple[int, int]:
        found = [(await world.api.get(f"/v1/wallets/{each}")).json() for each in (user, shop)]
        return found[0]["available_minor"], found[1]["available_minor"]

    charge = await charging.post("/v1/intents", moved("MINIAPP_CHARGE", user, shop, 300), key="charge")
    assert (charge.status_code, charge.json()["state"]) == (201, "SETTLED"), charge.text
    assert await owned() == (700, 301)
    again = await charging.post("/v1/intents", moved("MINIAPP_CHARGE", user, shop, 300), key="charge")
    assert (again.headers["Idempotent-Replayed"], again.json()) == ("true", charge.json())
    credit = await crediting.post("/v1/intents", moved("MINIAPP_CREDIT", shop, user, 101), key="credit")
    assert (credit.status_code, credit.json()["state"]) == (201, "SETTLED"), credit.text
    assert await owned() == (801, 200)
    over = await charging.post("/v1/intents", moved("MINIAPP_CHARGE", user, shop, 802), key="over")
    assert (over.json()["state"], over.json()["failure"]["code"]) == ("FAILED", "insufficient_funds")
    # A charge takes from another's wallet: it needs a key that names it, and goes to the wallet that the key covers.
    for client, body, code in (
        (world.api, moved("MINIAPP_CHARGE", user, shop, 1), "operation_not_permitted"),
        (crediting, moved("MINIAPP_CHARGE", user, shop, 1), "operation_not_permitted"),
        (charging, moved("MINIAPP_CREDIT", shop, user, 1), "operation_not_permitted"),
        (charging, moved("MINIAPP_CHARGE", shop, user, 1), "account_not_permitted"),
    ):
        refused = await client.post("/v1/intents", body, key="no")
        assert (refused.status_code, refused.json()["code"]) == (403, code)
    assert await owned() == (801, 200)
