"""Two people and the provider decide about one payment at the same moment: the second one sees the first."""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from core.services.problems import Refusal
from core.services.settling.settle_by_hand import approve, ask_settlement
from tests.integration.oncall.test_redrives import by_hand, person
from tests.integration.permits.conftest import World, pay_job
from tests.integration.permits.test_claims import sent
from tests.integration.permits.test_returns import clearing_and_suspense
from tests.support.waiting import until_async

_WAITING = "SELECT count(*) >= $1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
CASES = [("PAID", "SUCCEEDED"), ("PAID", "DECLINED"), ("UNPAID", "SUCCEEDED"), ("UNPAID", "DECLINED")]


async def in_turn(world: World, intent: UUID, *work: Coroutine[Any, Any, Any]) -> None:
    """Let each wait for the payment's job behind the one before it, and then go on."""
    waiting = []
    async with world.uow() as uow:
        await uow.connection.execute("SELECT FROM fleet.jobs WHERE id = $1 FOR UPDATE", pay_job(intent))
        for count, each in enumerate(work, start=1):
            waiting.append(asyncio.create_task(each))
            await until_async(partial(world.admin.fetchval, _WAITING, count))
    await asyncio.gather(*waiting)


@pytest.mark.parametrize(
    ("people_first", "states", "wallet_minor", "clearing_minor", "suspense_minor", "pages"),
    [
        # Paid after all: suspense pays what the provider paid.
        (True, ["SETTLED", "SETTLED", "FAILED", "FAILED"], 800, 300, -100,
         ["failure_after_success", "success_after_void"]),
        (False, ["SETTLED", "FAILED", "SETTLED", "FAILED"], 800, 200, 0, []),
    ],
)  # fmt: skip
async def test_a_settlement_by_hand_raced_by_a_verdict_leaves_what_the_first_one_decided(
    world: World,
    people_first: bool,
    states: list[str],
    wallet_minor: int,
    clearing_minor: int,
    suspense_minor: int,
    pages: list[str],
) -> None:
    wallet, intents = await sent(world, len(CASES))
    await world.admin.execute("UPDATE fleet.jobs SET busy_until = now()")
    ports = world.core.worker_ports
    ends: list[str] = []

    async def decide(redrive_id: UUID) -> None:
        try:
            ends.append((await approve(ports, person(world, "ben"), redrive_id, "seen")).state)
        except Refusal as refusal:
            ends.append(refusal.code)

    for intent, (outcome, verdict) in zip(intents, CASES, strict=True):
        named = {"provider_tx_id": f"T{intent}"}
        asked = by_hand(intent, outcome, **(named if outcome == "PAID" else {}))
        view = await ask_settlement(ports, person(world, "anna"), asked)
        fact: dict[str, Any] = {"reason": "refused"}
        if verdict == "SUCCEEDED":
            fact = named | {"amount_minor": 100, "currency": "THB"}
        both = [decide(view.id), world.tell(pay_job(intent), verdict, **fact)]
        await in_turn(world, intent, *(both if people_first else both[::-1]))
    assert ends == ["DONE" if people_first else "wrong_state"] * len(CASES)
    assert [(await world.state(intent))[0] for intent in intents] == states
    assert await world.money(wallet) == (wallet_minor, 0)
    assert await clearing_and_suspense(world) == (clearing_minor, suspense_minor)
    assert [kind for _, kind in await world.alerts()] == pages
    await world.prove()
