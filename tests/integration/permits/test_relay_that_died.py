"""A relay that died between XADD and its mark: the entry is out, and the outbox does not know it."""

from typing import Final

import pytest

from core.services.settling.bus_ports import QueuedJob
from core.store.settling.dispatch import PostgresDispatch
from schemas.streams import jobs_stream
from tests.integration.permits.conftest import RAIL, World, pay_job

JOBS: Final = jobs_stream(RAIL)


class _DiedError(Exception):
    """The relay, after its XADD."""


async def relay(world: World, entry_id: str, *, dies: bool = False) -> int:
    """Take what is due and mark it as added under this entry, unless the relay dies before; return how many."""
    async with PostgresDispatch(world.core.worker_database).take_due(RAIL, JOBS, 100) as batch:
        if dies:
            raise _DiedError
        if batch.rows:
            await batch.mark([entry_id] * len(batch.rows))
        return len(batch.rows)


@pytest.mark.parametrize(
    ("verdict", "between", "after"),
    [
        (None, "AUTHORIZED", "DISPATCHED"),
        ("UNKNOWN", "AUTHORIZED", "DISPATCHED"),
        ("SUCCEEDED", "SETTLED", "SETTLED"),
        ("DECLINED", "FAILED", "FAILED"),
    ],
)
async def test_what_a_dead_relay_had_added_is_worked_on_marked_once_and_sent_once(
    world: World, verdict: str | None, between: str, after: str
) -> None:
    await world.register(inquiry=True)
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    with pytest.raises(_DiedError):
        await relay(world, "1-0", dies=True)
    assert (await world.sent(intent)).mode == "SEND"
    if verdict:
        await world.tell(pay_job(intent), verdict)
    assert (await world.state(intent))[0] == between
    ended = after in ("SETTLED", "FAILED")
    assert await relay(world, "2-0") == (0 if ended else 1)
    assert (await world.state(intent))[0] == after
    assert await relay(world, "3-0") == 0
    (second,) = await world.ask([pay_job(intent)])
    assert second.answer == ("BUSY" if verdict is None else "CLOSED")
    events = await world.admin.fetch("SELECT type FROM fleet.intent_events WHERE intent_id = $1 ORDER BY seq", intent)
    assert [row["type"] for row in events].count("dispatched") == (0 if ended else 1)
    if not ended:
        await world.tell(pay_job(intent), "SUCCEEDED")
        assert await world.state(intent) == ("SETTLED", None)
    assert await world.money(wallet) == (1000 if after == "FAILED" else 900, 0)
    await world.prove()


async def test_what_is_dispatched_again_moves_no_intent_and_is_told_once(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    retried, parked = await world.pay(wallet), await world.pay(wallet)
    assert await relay(world, "1-0") == 2
    for intent in (retried, parked):
        await world.sent(intent)
    await world.tell(pay_job(retried), "NOT_SENT", retry_after_s=1)
    await world.admin.execute("UPDATE fleet.jobs SET deadline = now() WHERE id = $1", pay_job(parked))
    await world.resolve()
    assert (await world.state(parked))[0] == "UNRESOLVED"
    lost = QueuedJob(pay_job(parked), RAIL, JOBS, "1-0", of_older_epoch=False)
    assert await PostgresDispatch(world.core.worker_database).requeue([lost]) == 1
    await world.admin.execute("UPDATE fleet.outbox SET not_before = now()")
    assert await relay(world, "2-0") == 2
    assert [(await world.state(intent))[0] for intent in (retried, parked)] == ["DISPATCHED", "UNRESOLVED"]
    assert [(await world.job(pay_job(intent)))["state"] for intent in (retried, parked)] == ["QUEUED", "QUEUED"]
    told = await world.admin.fetchval("SELECT count(*) FROM fleet.intent_events WHERE type = 'dispatched'")
    assert told == 2
