"""A signed request for a payment counts once, and under the Idempotency-Key that it was signed with."""

import asyncio

import orjson
import pytest

from tests.integration.api.conftest import World, payout
from wire.signing import IDEMPOTENCY_HEADER, ON_BEHALF_OF_HEADER

NONCE = "once-and-never-again"


async def test_a_replay_under_another_key_makes_no_second_payment(world: World) -> None:
    body = payout(await world.funded_wallet(1000))
    first, replay = [await world.api.post("/v1/intents", body, key=key, nonce=NONCE) for key in ("one", "other")]
    assert (first.status_code, replay.status_code, replay.json()["code"]) == (201, 401, "replayed_nonce")
    same_key = await world.api.post("/v1/intents", body, key="one", nonce=NONCE)
    assert same_key.json()["code"] == "replayed_nonce"
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.intents WHERE operation = 'PAYOUT'") == 1
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.idempotency_keys WHERE key = 'other'") == 0


async def test_what_was_signed_with_a_key_is_refused_under_another_and_paid_once_under_its_own(world: World) -> None:
    raw = orjson.dumps(payout(await world.funded_wallet(1000)))
    sent = world.api.headers("POST", "/v1/intents", raw, key="mine") | {"Content-Type": "application/json"}
    before = await world.contents()
    for changed in ({IDEMPOTENCY_HEADER: "anothers"}, {IDEMPOTENCY_HEADER: ""}, {ON_BEHALF_OF_HEADER: "mine"}):
        refused = await world.api.http.post("/v1/intents", content=raw, headers=sent | changed)
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
    assert await world.contents() == before
    assert (await world.api.http.post("/v1/intents", content=raw, headers=sent)).status_code == 201


async def test_a_key_that_its_sender_did_not_sign_is_taken(world: World) -> None:
    raw = orjson.dumps(payout(await world.funded_wallet(1000)))
    sent = world.api.headers("POST", "/v1/intents", raw) | {"Content-Type": "application/json"}
    answer = await world.api.http.post("/v1/intents", content=raw, headers=sent | {IDEMPOTENCY_HEADER: "mine"})
    assert answer.status_code == 201


async def test_of_replays_at_once_one_is_the_payment_and_their_neighbours_are_paid(world: World) -> None:
    body = payout(await world.funded_wallet(10_000))
    replays = [world.api.post("/v1/intents", body, key=f"replay-{n}", nonce=NONCE) for n in range(10)]
    others = [world.api.post("/v1/intents", body, key=f"other-{n}") for n in range(10)]
    answers = await asyncio.gather(*(each for pair in zip(replays, others, strict=True) for each in pair))
    assert sorted(answer.status_code for answer in answers[::2]) == [201] + [401] * 9
    assert {answer.status_code for answer in answers[1::2]} == {201}
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.intents WHERE operation = 'PAYOUT'") == 11


async def test_of_the_same_bytes_twice_at_once_one_is_the_payment(world: World) -> None:
    body = payout(await world.funded_wallet(10_000))
    for n in range(8):
        twice = [world.api.post("/v1/intents", body, key=f"key-{n}", nonce=f"{NONCE}-{n}") for _ in range(2)]
        answers = await asyncio.gather(*twice)
        assert sorted(answer.status_code for answer in answers) == [201, 401]
        assert [each.json()["code"] for each in answers if each.status_code == 401] == ["replayed_nonce"]
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.intents WHERE operation = 'PAYOUT'") == 8


@pytest.mark.parametrize(
    ("wrong", "key", "code"),
    [
        ({"amount_minor": 0}, "a", "invalid_request"),
        ({}, "", "idempotency_key_missing"),
        ({"currency": "EUR"}, "a", "currency_mismatch"),
        ({"operation": "MINIAPP_CHARGE"}, "a", "operation_not_permitted"),
    ],
)
async def test_a_refused_payment_spends_its_nonce(world: World, wrong: dict[str, object], key: str, code: str) -> None:
    body = payout(await world.funded_wallet(1000))
    signer = await world.other(operations=["PAYOUT"])
    refused = await signer.post("/v1/intents", body | wrong, key=key, nonce=NONCE)
    assert refused.json()["code"] == code
    assert (await signer.post("/v1/intents", body, key="b", nonce=NONCE)).json()["code"] == "replayed_nonce"
