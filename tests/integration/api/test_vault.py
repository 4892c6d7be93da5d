"""The vault on the real database: a text opens in its own place, under its own master key, and nowhere else."""

import os
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from core.services.vault_port import Sealed, VaultError
from core.store.vault import PostgresVault
from schemas.permits import Payee
from tests.integration.api.conftest import World, payout

_STORED = """
SELECT i.id, i.subject_id, i.instruction, s.wrapped_key
FROM fleet.intents i JOIN fleet.subjects s ON s.id = i.subject_id
WHERE i.instruction IS NOT NULL ORDER BY i.id
"""


async def two(world: World) -> tuple[Sealed, Sealed]:
    """Accept two payments to two payees; return their sealed instructions as they are stored."""
    wallet = await world.funded_wallet(1000)
    for n, value in enumerate(("0812345678", "0898765432")):
        payee = {"type": "mobile", "value": value}
        answer = await world.api.post("/v1/intents", payout(wallet, payee=payee, message=f"rent {n}"), key=f"k{n}")
        assert answer.status_code == 201
    return await stored(world)


async def stored(world: World) -> tuple[Sealed, Sealed]:
    """Return the two as they are stored now."""
    first, second = (Sealed(*row) for row in await world.admin.fetch(_STORED))
    return first, second


def opened(
    world: World, sealed: Sequence[Sealed], vault: PostgresVault | None = None
) -> dict[UUID, tuple[Payee | None, str]]:
    """Open under the core's master key, or with another vault."""
    return (vault or world.core.worker_ports.vault).open_instructions(sealed)


async def test_what_was_sealed_opens_again_whole(world: World) -> None:
    first, second = await two(world)
    found = opened(world, [first, second])
    assert found[first.intent_id] == (Payee(type="mobile", value="0812345678"), "rent 0")
    assert found[second.intent_id] == (Payee(type="mobile", value="0898765432"), "rent 1")
    assert first.subject_id != second.subject_id


async def test_a_text_moved_to_another_intent_or_subject_does_not_open(world: World) -> None:
    first, second = await two(world)
    moved = [
        Sealed(second.intent_id, first.subject_id, first.ciphertext, first.wrapped_key),
        Sealed(first.intent_id, second.subject_id, first.ciphertext, second.wrapped_key),
        Sealed(first.intent_id, second.subject_id, second.ciphertext, second.wrapped_key),
        Sealed(uuid4(), first.subject_id, first.ciphertext, first.wrapped_key),
        Sealed(first.intent_id, first.subject_id, first.ciphertext, second.wrapped_key),
    ]
    for sealed in moved:
        with pytest.raises(VaultError, match="does not open"):
            opened(world, [sealed])


async def test_a_text_with_any_part_changed_does_not_open(world: World) -> None:
    first, _ = await two(world)
    assert first.ciphertext is not None
    for place in (0, 12, len(first.ciphertext) // 2, len(first.ciphertext) - 1):
        changed = bytearray(first.ciphertext)
        changed[place] ^= 1
        with pytest.raises(VaultError):
            opened(world, [replace(first, ciphertext=bytes(changed))])
    for short in (first.ciphertext[:-1], first.ciphertext[:12], b""):
        with pytest.raises(VaultError):
            opened(world, [replace(first, ciphertext=short)])


async def test_another_master_key_opens_nothing(world: World) -> None:
    first, _ = await two(world)
    with pytest.raises(VaultError):
        opened(world, [first], PostgresVault(os.urandom(32)))


async def test_a_subjects_key_that_was_exchanged_or_erased_opens_nothing(world: World) -> None:
    first, second = await two(world)
    await world.admin.execute(
        "UPDATE fleet.subjects SET wrapped_key = (SELECT wrapped_key FROM fleet.subjects WHERE id = $2) WHERE id = $1",
        first.subject_id,
        second.subject_id,
    )
    with pytest.raises(VaultError, match="does not open"):
        opened(world, [(await stored(world))[0]])
    await world.admin.execute("UPDATE fleet.subjects SET wrapped_key = NULL WHERE id = $1", first.subject_id)
    with pytest.raises(VaultError, match="was erased"):
        opened(world, [(await stored(world))[0]])
    assert opened(world, [second])[second.intent_id][1] == "rent 1"


async def test_a_secret_sealed_for_one_key_does_not_serve_another(world: World) -> None:
    other = await world.other()
    await world.admin.execute(
        "UPDATE fleet.service_keys SET secret = (SELECT secret FROM fleet.service_keys WHERE id = $1) WHERE id = $2",
        world.key.id,
        other.key_id,
    )
    other.secret = world.key.secret
    answer = await other.get("/v1/intents")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert world.key.secret not in answer.text


async def test_who_was_erased_and_is_paid_again_has_a_new_key_which_opens_nothing_of_before(world: World) -> None:
    first, _ = await two(world)
    wallet = await world.funded_wallet(1000)
    await world.admin.execute("UPDATE fleet.subjects SET wrapped_key = NULL, erased_at = now()")
    items = [
        {"idempotency_key": f"again-{value}", "intent": payout(wallet, payee={"type": "mobile", "value": value})}
        for value in ("0812345678", "0811111111")
    ]
    answer = await world.api.post("/v1/intents:batch", {"items": items})
    assert [each["status"] for each in answer.json()["results"]] == [201, 201]
    [key] = await world.admin.fetch("SELECT wrapped_key, erased_at FROM fleet.subjects WHERE id = $1", first.subject_id)
    assert key["erased_at"] is None
    with pytest.raises(VaultError):
        opened(world, [replace(first, wrapped_key=key["wrapped_key"])])
    [*_, newest] = await world.admin.fetch(_STORED.replace("ORDER BY", "AND s.id = $1 ORDER BY"), first.subject_id)
    [(payee, _)] = opened(world, [Sealed(*newest)]).values()
    assert payee == Payee(type="mobile", value="0812345678")
