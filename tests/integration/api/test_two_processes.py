"""Two cores on one database, as two processes would be: one key is one payment, whoever it reaches."""

import asyncio
from collections import Counter

from tests.integration.api.conftest import World, payout
from tests.support.signed import Signed


async def test_one_key_at_two_processes_makes_one_payment(world: World, second: Signed) -> None:
    wallet = await world.funded_wallet(10_000)
    for n in range(10):
        answers = await asyncio.gather(
            *(api.post("/v1/intents", payout(wallet), key=f"k{n}") for api in (world.api, second) * 25)
        )
        assert {answer.status_code for answer in answers} <= {201, 409}
        assert {answer.json()["code"] for answer in answers if answer.status_code == 409} <= {"idempotency_in_flight"}
        assert len({answer.json()["id"] for answer in answers if answer.status_code == 201}) == 1
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.jobs") == 10
    assert (await second.get(f"/v1/wallets/{wallet}")).json()["held_minor"] == 1000


async def test_two_bodies_under_one_key_at_two_processes_make_one_payment(world: World, second: Signed) -> None:
    wallet = await world.funded_wallet(10_000)
    for n in range(10):
        mine, other = await asyncio.gather(
            world.api.post("/v1/intents", payout(wallet, 100), key=f"k{n}"),
            second.post("/v1/intents", payout(wallet, 200), key=f"k{n}"),
        )
        codes = Counter(answer.json().get("code", "accepted") for answer in (mine, other))
        assert codes["accepted"] == 1
        assert set(codes) <= {"accepted", "idempotency_conflict", "idempotency_in_flight"}
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.intents WHERE operation = 'PAYOUT'") == 10


async def test_batches_that_share_keys_at_two_processes_pay_each_once(world: World, second: Signed) -> None:
    wallet = await world.funded_wallet(100_000)
    items = [{"idempotency_key": f"b{n}", "intent": payout(wallet)} for n in range(60)]
    answers = await asyncio.gather(
        world.api.post("/v1/intents:batch", {"items": items}),
        second.post("/v1/intents:batch", {"items": items[::-1]}),
    )
    assert [answer.status_code for answer in answers] == [200, 200]
    for answer in answers:
        assert {result["status"] for result in answer.json()["results"]} <= {201, 409}
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.jobs") == 60
    again = (await second.post("/v1/intents:batch", {"items": items})).json()["results"]
    assert [(result["status"], result["replayed"]) for result in again] == [(201, True)] * 60


async def test_a_wallet_is_not_overdrawn_by_two_processes(world: World, second: Signed) -> None:
    wallet = await world.funded_wallet(1000)
    posts = (
        api.post("/v1/intents", payout(wallet, 30), key=f"k{n}-{api is second}")
        for n in range(30)
        for api in (world.api, second)
    )
    states = Counter(answer.json()["state"] for answer in await asyncio.gather(*posts))
    assert states == {"AUTHORIZED": 33, "FAILED": 27}
    assert (await second.get(f"/v1/wallets/{wallet}")).json()["available_minor"] == 10


async def test_a_nonce_is_taken_once_by_two_processes(world: World, second: Signed) -> None:
    for n in range(10):
        answers = await asyncio.gather(
            *(
                api.post("/v1/wallets", {"owner": "a", "currency": "THB"}, nonce=f"nonce-{n}-one")
                for api in (world.api, second)
            )
        )
        assert sorted(answer.status_code for answer in answers) == [201, 401]
