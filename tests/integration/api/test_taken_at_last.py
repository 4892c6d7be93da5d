"""The word of limits and ledger is acceptance's last statement: what they do not take is undone, and accepted anew."""

import asyncio
from collections import Counter
from typing import Any
from uuid import uuid4

import pytest

from core.domain.context import Context
from core.services.ledger_port import TrustMisplacedError
from core.services.vault_port import Sealed
from core.store.terms.limits import LimitStore
from core.store.unit_of_work import UnitOfWork
from tests.integration.api.conftest import World, payout
from tests.support.signed import Signed

LIMIT = {"name": "daily", "kind": "DAY", "currency": "THB", "max_amount_minor": 1000, "max_count": 20}


class Words:
    """What acceptance's transactions heard from limits and ledger at last: how many were taken, how many not."""

    def __init__(self) -> None:
        self.heard: list[bool] = []
        self.refused_in_vain = 0
        """How many of the next are told that nothing is taken, whatever the ledger says."""


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> Words:
    """Listen to the last statement of every transaction that trusts."""
    words, finish = Words(), UnitOfWork.finish

    async def heard(uow: UnitOfWork) -> None:
        if not uow._lasts:
            return await finish(uow)
        try:
            await finish(uow)
        except TrustMisplacedError:
            words.heard.append(False)
            raise
        words.heard.append(words.refused_in_vain == 0)
        if words.refused_in_vain:
            words.refused_in_vain -= 1
            raise TrustMisplacedError
        return None

    monkeypatch.setattr(UnitOfWork, "finish", heard)
    return words


def item(wallet: str, amount_minor: int, payee: str = "0812345678") -> dict[str, Any]:
    body = payout(wallet, amount_minor, payee={"type": "mobile", "value": payee})
    return {"idempotency_key": uuid4().hex, "intent": body}


async def paid(api: Signed, items: list[dict[str, Any]], **sent: Any) -> list[str]:
    """Post a batch; return what became of each: its state, or why it failed."""
    answer = await api.post("/v1/intents:batch", {"items": items}, **sent)
    assert answer.status_code == 200, answer.text
    intents = [result["intent"] for result in answer.json()["results"]]
    return [intent["failure"]["code"] if intent["failure"] else intent["state"] for intent in intents]


async def proven(world: World) -> None:
    """The ledger, the counters of limits and the events are those of the payments that there are, and no more."""
    async with world.core.worker_database.unit_of_work(Context(None, "test")) as uow:
        assert (await world.core.worker_ports.ledger.verify(uow)).holds
        assert await LimitStore().verify(uow) == []
    row = await world.admin.fetchrow(
        "SELECT (SELECT count(*) FROM fleet.intents) AS intents, (SELECT sum(version) FROM fleet.intents) AS versions,"
        " (SELECT count(*) FROM fleet.idempotency_keys) AS keys, (SELECT count(*) FROM fleet.intent_events) AS events"
    )
    assert row is not None
    assert (row["keys"], row["events"]) == (row["intents"], row["versions"])


@pytest.mark.parametrize("in_vain", [False, True], ids=["refused", "taken by the second round"])
async def test_a_batch_that_is_not_taken_leaves_nothing_and_is_accepted_anew(
    world: World, words: Words, in_vain: bool
) -> None:
    operator = await world.other(operations=["LIMITS"])
    assert (await operator.post("/v1/limits", LIMIT)).status_code == 201
    rich, poor = await world.funded_wallet(10_000), await world.funded_wallet(150)
    items = [item(rich, 400, "0811111111"), item(poor, 100, "0822222222"), item(rich, 700), item(rich, 600)]
    words.heard, words.refused_in_vain = [], int(in_vain)
    if not in_vain:
        items.append(item(poor, 100, "0833333333"))
    got = await paid(world.api, items, nonce="a-nonce-of-its-own")
    assert got == ["AUTHORIZED", "AUTHORIZED", "limit_exceeded", "AUTHORIZED", *["insufficient_funds"] * (not in_vain)]
    assert words.heard == [False]
    await proven(world)
    again = await world.api.post("/v1/intents:batch", {"items": items}, nonce="a-nonce-of-its-own")
    assert (again.status_code, again.json()["code"]) == (401, "replayed_nonce")
    shown = (await world.api.post("/v1/intents:batch", {"items": items})).json()["results"]
    assert [result["replayed"] for result in shown] == [True] * len(items)
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.jobs") == 3
    assert (await world.api.get(f"/v1/wallets/{rich}")).json()["held_minor"] == 1000
    # Whose key was made in what was undone has another one, and that opens what was kept.
    rows = await world.admin.fetch(
        "SELECT i.id, i.subject_id, i.instruction, s.wrapped_key FROM fleet.intents i"
        " JOIN fleet.subjects s ON s.id = i.subject_id"
    )
    sealed = [Sealed(*row) for row in rows]
    assert world.core.ports.vault.open_instructions(sealed).keys() == {row["id"] for row in rows}
    assert len(rows) == len(items)


async def test_who_is_refused_again_and_again_is_asked_about_first(world: World, words: Words) -> None:
    rich, poor = await world.funded_wallet(10_000), await world.funded_wallet(10)
    words.heard = []
    for _ in range(3):
        assert await paid(world.api, [item(rich, 1), item(poor, 100)]) == ["AUTHORIZED", "insufficient_funds"]
    assert words.heard == [False]
    assert await paid(world.api, [item(rich, 1)]) == ["AUTHORIZED"]
    assert words.heard == [False]
    assert await paid(world.api, [item(rich, 1)]) == ["AUTHORIZED"]
    other = await world.other()
    assert await paid(other, [item(rich, 1)]) == ["AUTHORIZED"]
    assert words.heard == [False, True, True]


async def test_who_is_over_a_limit_again_and_again_is_asked_about_first(world: World, words: Words) -> None:
    operator = await world.other(operations=["LIMITS"])
    for asked in (LIMIT, LIMIT | {"name": "each", "kind": "TRANSACTION", "max_count": None}):
        assert (await operator.post("/v1/limits", asked)).status_code == 201
    rich = await world.funded_wallet(10_000)
    assert await paid(world.api, [item(rich, 1)]) == ["AUTHORIZED"]  # which makes the accounts of the tenant
    words.heard = []
    # What is over the limit of each payment is known before anybody is asked.
    assert await paid(world.api, [item(rich, 900), item(rich, 1001)]) == ["AUTHORIZED", "limit_exceeded"]
    assert words.heard == [True]
    for _ in range(3):
        assert await paid(world.api, [item(rich, 1), item(rich, 101)]) == ["AUTHORIZED", "limit_exceeded"]
    assert words.heard == [True, False]
    for heard in ([True, False], [True, False, True]):
        assert await paid(world.api, [item(rich, 1), item(rich, 1001)]) == ["AUTHORIZED", "limit_exceeded"]
        assert words.heard == heard
    await proven(world)


async def test_two_processes_that_are_both_not_taken_pay_each_once(world: World, second: Signed) -> None:
    rich, poor = await world.funded_wallet(100_000), await world.funded_wallet(95)
    apis = [world.api, second, *await world.at_both(second, 4)]
    for n in range(5):
        shared = [item(rich, 1, f"08{n}11111{k % 3:02}") for k in range(8)]
        batches = [[*shared, item(poor, 10, f"08{n}2222222")], [*shared[::-1], item(poor, 10)]]
        batches += [[item(poor, 10, f"08{n}2222222"), item(rich, 1, f"08{n}1111100")] for _ in apis[2:]]
        answers = await asyncio.gather(
            *(api.post("/v1/intents:batch", {"items": items}) for api, items in zip(apis, batches, strict=True))
        )
        assert {answer.status_code for answer in answers} == {200}
        for answer in answers:
            assert {result["status"] for result in answer.json()["results"]} <= {201, 409}
    await proven(world)
    states = Counter(
        row["state"] for row in await world.admin.fetch("SELECT state FROM fleet.intents WHERE wallet_id = $1", poor)
    )
    assert states["AUTHORIZED"] == 9
    assert (await world.api.get(f"/v1/wallets/{poor}")).json()["available_minor"] == 5
