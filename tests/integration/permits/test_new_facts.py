"""What no fact was seen of under the job's lock is written as new; whatever may be there is written once."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from core.services.settling.facts import Fact
from core.services.settling.settle import Delivery, settle_batch
from tests.integration.permits.conftest import World, pay_job


class Noting:
    """The facts of the core, and what was told to be new of those that are kept."""

    def __init__(self, facts: Any) -> None:
        self._facts, self.kept = facts, list[Fact]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._facts, name)

    async def insert_facts(self, uow: Any, facts: Sequence[Fact]) -> None:
        self.kept += facts
        await self._facts.insert_facts(uow, facts)


async def sent(world: World) -> Delivery:
    await world.register()
    intent = await world.pay(await world.wallet(1000))
    await world.sent(intent)
    return world.fact(pay_job(intent), "SUCCEEDED", amount_minor=100, currency="THB", provider_tx_id="T1")


async def test_a_fact_is_new_until_it_was_kept_whoever_tells_it_again(world: World) -> None:
    paid = await sent(world)
    noting = Noting(world.core.worker_ports.facts)
    ports = replace(world.core.worker_ports, facts=noting)
    # Twice in one batch, then again, and again as a person lets it be settled anew.
    for batch in ([paid, paid], [paid], [replace(paid, again=True)]):
        assert (await settle_batch(ports, world.uow, batch)).unusable == []
    assert [fact.is_new for fact in noting.kept] == [True, False]
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.facts") == 1
    await world.prove()


async def test_what_is_not_said_to_be_new_is_kept_once_and_no_new_one_is_there_twice(world: World) -> None:
    paid = await sent(world)
    noting = Noting(world.core.worker_ports.facts)
    await settle_batch(replace(world.core.worker_ports, facts=noting), world.uow, [paid])
    [fact] = noting.kept
    async with world.uow() as uow:
        await world.core.worker_ports.facts.insert_facts(uow, [fact, replace(fact, is_new=False)])
    with pytest.raises(asyncpg.UniqueViolationError):
        async with world.uow() as uow:
            await world.core.worker_ports.facts.insert_facts(uow, [fact])
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.facts") == 1
