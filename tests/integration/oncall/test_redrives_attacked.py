"""What people in a hurry, or in bad faith, do to redrives: nothing goes that was not agreed to, nor on and on."""

import asyncio
import signal
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from core.services.on_call.redrives import ask_redrive, cancel_redrive
from core.services.problems import Refusal
from core.services.settling.settle_by_hand import approve
from fleet.stack.provision import RoleUrls
from schemas.on_call import RedriveRequest, RedriveView
from tests.integration.oncall.conftest import bury
from tests.integration.oncall.test_redrive_killed import _ended, _settings
from tests.integration.oncall.test_redrives import FAST, ask, dead, person, run, shown
from tests.integration.permits.conftest import World, pay_job

_PERMIT = """
WITH permitted AS (UPDATE fleet.jobs SET fence = fence + 1 WHERE id = $1 RETURNING *)
INSERT INTO fleet.attempts (job_id, fence, tenant_id, mode, reference, provider_account, environment, service_key_id,
    incarnation, request_id)
SELECT id, fence, tenant_id, 'SEND', reference, provider_account, environment, 'k', gen_random_uuid(), gen_random_uuid()
FROM permitted
"""


async def in_doubt(world: World, intent: UUID) -> None:
    """Give the dead job a permit that nobody knows the end of."""
    await world.admin.execute(_PERMIT, pay_job(intent))


async def asked_with(world: World, above: int, who: str = "anna", **asked: Any) -> RedriveView:
    body = {"selection": {"error_class": "poison"}, "reason": "again", "incident": "INC-1"} | FAST | asked
    ports = replace(world.core.worker_ports, approval_above=above)
    return await ask_redrive(ports, person(world, who), RedriveRequest.model_validate(body))


async def went(world: World, intents: list[UUID]) -> int:
    return sum([(await world.job(pay_job(intent)))["state"] == "READY" for intent in intents])


async def test_an_approval_is_refused_where_more_came_into_doubt_since_it_was_asked_for(world: World) -> None:
    intents = await dead(world, 3)
    view = await asked_with(world, above=2)
    assert (view.state, view.verdicts) == ("AWAITING_APPROVAL", {"SAFE": 3})
    await in_doubt(world, intents[0])
    ports = world.core.worker_ports
    with pytest.raises(Refusal) as changed:
        await approve(ports, person(world, "ben"), view.id, "three safe ones")
    assert changed.value.code == "redrive_changed"
    async with world.uow() as uow:
        await cancel_redrive(uow, ports, person(world, "anna"), view.id, "asked anew")
    anew = await asked_with(world, above=2)
    assert anew.verdicts == {"SAFE": 2, "INQUIRE_FIRST": 1}
    await approve(ports, person(world, "ben"), anew.id, "one is in doubt")
    await run(world)
    assert await went(world, intents) == 3


async def test_what_comes_into_doubt_after_the_approval_is_skipped(world: World) -> None:
    intents = await dead(world, 3)
    view = await asked_with(world, above=2)
    await approve(world.core.worker_ports, person(world, "ben"), view.id, "three safe ones")
    await in_doubt(world, intents[1])
    await run(world)
    detail = await world.admin.fetchval("SELECT detail FROM fleet.redrive_items WHERE state = 'SKIPPED'")
    assert "nobody approved that" in detail
    assert await went(world, intents) == 2


async def test_many_small_redrives_of_one_person_need_the_second_one_as_one_large_does(world: World) -> None:
    await dead(world, 2, error_class="first")
    await dead(world, 2, error_class="second")
    await dead(world, 1, error_class="third")
    assert (await asked_with(world, above=3, selection={"error_class": "first"})).state == "RUNNING"
    other = await asked_with(world, above=3, selection={"error_class": "second"}, dry_run=True)
    assert other.needs_approval
    assert (await asked_with(world, above=3, selection={"error_class": "second"})).state == "AWAITING_APPROVAL"
    assert (await asked_with(world, above=3, who="ben", selection={"error_class": "third"})).state == "RUNNING"


async def test_small_redrives_asked_for_at_once_do_not_pass_each_other(world: World) -> None:
    for kind in ("first", "second", "third"):
        await dead(world, 2, error_class=kind)
    asked = (asked_with(world, above=3, selection={"error_class": kind}) for kind in ("first", "second", "third"))
    states = sorted(view.state for view in await asyncio.gather(*asked))
    assert states == ["AWAITING_APPROVAL", "AWAITING_APPROVAL", "RUNNING"]


async def test_a_canary_of_skipped_letters_proves_nothing_and_goes_on_to_the_next(world: World) -> None:
    await dead(world, 6)
    view = await ask(world, **FAST | {"canary": 2})
    # Letters of one moment have their places by chance.
    await world.admin.execute(
        "UPDATE fleet.jobs j SET state = 'QUEUED' FROM fleet.redrive_items x JOIN fleet.dead_letters d"
        " ON d.id = x.letter_id WHERE x.place <= 2 AND j.id = d.job_id"
    )
    await run(world)
    await run(world)
    progress = (await shown(world, view.id)).progress
    assert (progress.skipped, progress.sent, progress.waiting) == (2, 2, 2)


async def test_a_provider_that_answers_nothing_stops_the_redrive(world: World) -> None:
    intents = await dead(world, 6)
    view = await ask(world, **FAST | {"canary": 1})
    await run(world)
    (first,) = [intent for intent in intents if (await world.job(pay_job(intent)))["state"] == "READY"]
    await world.sent(first)
    await world.tell(pay_job(first), "UNKNOWN", reason="timed_out")
    await run(world)
    stopped = await shown(world, view.id)
    assert (stopped.state, stopped.progress.failed, stopped.progress.released) == ("STOPPED", 1, 5)
    detail = await world.admin.fetchval("SELECT detail FROM fleet.redrive_items WHERE state = 'FAILED'")
    assert detail == "no answer came: it is asked about"


async def test_many_early_successes_do_not_outweigh_what_fails_now(world: World) -> None:
    intents = await dead(world, 12)
    view = await ask(world, **FAST)
    await run(world)
    await world.admin.execute(
        "INSERT INTO fleet.redrive_items (redrive_id, letter_id, tenant_id, place, state)"
        " SELECT $1, gen_random_uuid(), $2, -n, 'SUCCEEDED' FROM generate_series(1, 500) n",
        view.id,
        world.caller.tenant_id,
    )
    await bury(world, *intents, message="it died again")
    await run(world)
    stopped = await shown(world, view.id)
    assert (stopped.state, stopped.ended_because) == ("STOPPED", "12 of the newest 50 failed: the bound is 20 %")


async def test_what_was_sent_before_a_cancel_still_tells_its_outcome(world: World) -> None:
    intents = await dead(world, 4)
    view = await ask(world, **FAST | {"canary": 2})
    await run(world)
    sent = [intent for intent in intents if (await world.job(pay_job(intent)))["state"] == "READY"]
    async with world.uow() as uow:
        await cancel_redrive(uow, world.core.worker_ports, person(world, "ben"), view.id, "wrong incident")
    await world.sent(sent[0])
    await world.tell(pay_job(sent[0]), "SUCCEEDED")
    await bury(world, sent[1], message="again")
    await run(world)
    progress = (await shown(world, view.id)).progress
    assert (progress.succeeded, progress.failed, progress.released, progress.sent) == (1, 1, 2, 0)


async def test_cancelled_while_its_process_is_killed_nothing_more_goes(world: World, fresh_database: RoleUrls) -> None:
    intents = await dead(world, 8)
    view = await ask(world, dry_run=False, canary=2, ramp_s=0, rate_per_s=1)
    settings = _settings(world, fresh_database) | {"FLEET_FAILPOINTS": "redrive.put_back=kill"}
    assert await _ended(settings) == -signal.SIGKILL
    async with world.uow() as uow:
        await cancel_redrive(uow, world.core.worker_ports, person(world, "ben"), view.id, "stop it")
    assert await run(world) == 0
    cancelled = await shown(world, view.id)
    assert (cancelled.state, cancelled.progress.released) == ("CANCELLED", 8)
    assert await went(world, intents) == 0
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.outbox WHERE round > 0") == 0
    # The letters are free: another redrive takes all of them, once.
    assert (await ask(world, id=str(uuid4()), **FAST)).total == 8
