"""A signed request for a payment counts once, and under the Idempotency-Key that it was signed with."""

import asyncio
from collections.abc import Sequence
from uuid import UUID, uuid4

import orjson
import pytest

from core.domain.context import Context
from core.services.payments.accept import Claim, Claimed
from core.store.payments.idempotency import IdempotencyStore
from tests.integration.api.conftest import World, payout
from wire.signing import IDEMPOTENCY_HEADER, ON_BEHALF_OF_HEADER

NONCE = "once-and-never-again"
_LOOKS = "SELECT sum(idx_scan) FROM pg_stat_xact_user_tables WHERE relname IN ('idempotency_keys', 'request_nonces')"


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


def _claim(key: str, intent: int, nonce: str | None = None, *, valid: bool = True) -> Claim:
    return Claim(key, b"hash of " + key.encode(), UUID(int=intent), valid, nonce)


async def _claimed(world: World, claims: Sequence[Claim]) -> tuple[Claimed, int]:
    """What a batch is told, and how often its transaction looked for a key or a nonce."""
    async with world.core.app_database.unit_of_work(Context(world.tenant_id, "test")) as uow:
        before = await uow.connection.fetchval(_LOOKS)
        claimed = await IdempotencyStore().claim(uow, world.key.id, claims, [uuid4()])
        return claimed, await uow.connection.fetchval(_LOOKS) - before


async def test_what_is_new_is_claimed_without_being_looked_for(world: World) -> None:
    claimed, looks = await _claimed(world, [_claim(f"key-{n}", n, f"nonce-{n}") for n in range(1, 51)])
    assert {key: known.intent_id.int for key, known in claimed.known.items()} == {f"key-{n}": n for n in range(1, 51)}
    assert (claimed.replayed, looks) == (frozenset(), 0)


async def test_what_was_there_or_comes_twice_is_told_from_its_new_neighbours(world: World) -> None:
    await _claimed(world, [_claim("known", 1, "seen"), _claim("known too", 2)])
    for turn in ("first", "again"):
        batch = [
            _claim(f"new-{turn}", 10, f"new-{turn}"),
            _claim("known", 11),
            _claim(f"replay-{turn}", 12, "seen"),
            _claim(f"one of two-{turn}", 13, f"twice-{turn}"),
            _claim(f"other of two-{turn}", 14, f"twice-{turn}"),
            _claim(f"invalid-{turn}", 15, valid=False),
        ]
        for claims in (batch, batch[:-1]):  # all that are valid are first taken for new ones
            claimed, _ = await _claimed(world, claims)
            told = {key.removesuffix(f"-{turn}"): known.intent_id.int for key, known in claimed.known.items()}
            replayed = {key.removesuffix(f"-{turn}") for key in claimed.replayed}
            if claims is batch:
                assert (told, replayed) == ({"new": 10, "known": 1, "one of two": 13}, {"replay", "other of two"})
        # By now every nonce of the batch was seen; what its keys stand for is told nevertheless.
        assert told == {"new": 10, "known": 1, "one of two": 13}
        assert replayed == {"new", "replay", "one of two", "other of two"}
    kept = await world.admin.fetch("SELECT key FROM fleet.idempotency_keys WHERE key LIKE '%-again' ORDER BY key")
    assert [row["key"] for row in kept] == ["new-again", "one of two-again"]


async def test_an_invalid_request_among_new_ones_claims_nothing(world: World) -> None:
    claimed, _ = await _claimed(world, [_claim("new", 1), _claim("invalid", 2, NONCE, valid=False)])
    assert (set(claimed.known), claimed.replayed) == ({"new"}, frozenset())
    again, _ = await _claimed(world, [_claim("newer", 3), _claim("invalid", 4, NONCE)])
    assert (set(again.known), again.replayed) == ({"newer"}, frozenset({"invalid"}))
