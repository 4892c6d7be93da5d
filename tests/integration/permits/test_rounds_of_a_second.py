"""What a resolver and a notifier do each second: a look where nothing is due, a unit of work where something is."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from core.bootstrap import background
from core.bus.roles import BusDeps
from core.domain.context import Context
from core.services.settling.due import act_where_due
from core.store.database import Database, UnitOfWork
from tests.integration.permits.conftest import World, pay_job
from wire.client import StreamServers


def _background(world: World) -> BusDeps:
    return background(world.core, StreamServers("redis://127.0.0.1:1", "never connected"))


async def test_where_nothing_is_due_a_second_passes_without_a_transaction_of_several_statements(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.register()
    await world.pay(await world.wallet(1000))
    deps = _background(world)

    def refuse(*_: object, **__: object) -> AbstractAsyncContextManager[UnitOfWork]:
        raise AssertionError("a unit of work was opened for nothing")

    monkeypatch.setattr(Database, "unit_of_work", refuse)
    await deps.resolve()
    assert await deps.redrive() == 0
    assert await deps.upkeep.end_waits(8) == 0
    assert await deps.notify() > 0


async def test_what_a_look_finds_is_taken_in_the_same_round(world: World) -> None:
    await world.register(inquiry=True)
    intent = await world.pay(await world.wallet(1000))
    await world.sent(intent)
    await world.tell(pay_job(intent), "UNKNOWN")
    await world.check_now()
    await _background(world).resolve()
    asked = "SELECT count(*) FROM fleet.jobs WHERE intent_id = $1 AND kind = 'inquire'"
    assert await world.admin.fetchval(asked, intent) == 1


async def test_a_look_that_fails_or_finds_nothing_keeps_no_other_from_its_turn(world: World) -> None:
    acted: list[str] = []

    def look(found: object) -> Callable[[Any, int], Any]:
        async def looked(uow: UnitOfWork, _: int) -> object:
            return await uow.connection.fetchval("SELECT 1 / 0") if found is None else found

        return looked

    def act(name: str) -> Callable[[], Any]:
        async def acts() -> None:
            acted.append(name)

        return acts

    def looking() -> AbstractAsyncContextManager[UnitOfWork]:
        return world.core.worker_database.looking(Context(None, "test"))

    rounds = [
        (look([1]), act("found")),
        (look(None), act("failed")),
        (look([]), act("nothing")),
        (look([1]), act("last")),
    ]
    await act_where_due(looking, rounds)
    assert acted == ["found", "failed", "last"]


async def test_each_statement_of_a_look_is_committed_by_itself_and_no_tenant_is_confined_by_it(world: World) -> None:
    database = world.core.worker_database
    kept = "SELECT count(*) FROM fleet.void_minutes WHERE minute = '2000-01-01'"
    async with database.looking(Context(None, "test")) as uow:
        await uow.connection.execute("INSERT INTO fleet.void_minutes (minute) VALUES ('2000-01-01')")
        assert await world.admin.fetchval(kept) == 1
    with pytest.raises(ValueError, match="no tenant"):
        async with database.looking(world.caller.context()):
            pass
