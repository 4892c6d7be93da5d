"""A compromised adapter has its own rail's stream and key: with them it learns and settles nothing of another rail."""

import logging
from uuid import uuid4

import pytest

from core.api.internal import InternalPorts
from core.domain.context import Context
from core.services.settling.permits import grant_permits
from core.services.settling.rails import register
from core.store.settling import attempts, rails
from core.store.settling.evidence import EvidenceStore
from schemas.permits import PermitRequest
from schemas.rails import EvidenceItem
from tests.integration.permits.conftest import RAIL, NeverThrottled, World, pay_job

OTHER = "otherrail"


async def registered_beside(world: World) -> None:
    """Register the test's rail, and another one with the same terms."""
    await world.register(inquiry=True)
    async with world.uow() as uow:
        own = (await rails.rail_state(uow, RAIL)).registration
        assert own is not None
        await register(uow, rails, own.model_copy(update={"rail": OTHER}))


async def test_another_rails_key_gets_no_permit_and_no_payee_and_is_audited(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await registered_beside(world)
    intent = await world.pay(await world.wallet(1000))
    vault = world.core.worker_ports.vault
    ports = InternalPorts(attempts, rails, vault, NeverThrottled(), EvidenceStore(vault))
    asked = PermitRequest(request_id=uuid4(), incarnation=uuid4(), job_ids=[pay_job(intent)])
    with caplog.at_level(logging.WARNING):
        (answer,) = await grant_permits(world.uow, ports, OTHER, "rk_foreign", asked)
    assert answer.answer == "NOT_FOUND"
    assert (await world.job(pay_job(intent)))["fence"] == 0
    assert f"rk_foreign of rail {OTHER} asked a permit for foreign job {pay_job(intent)}" in caplog.text


@pytest.mark.parametrize("names", [OTHER, RAIL])
@pytest.mark.parametrize("verdict", ["SUCCEEDED", "DECLINED"])
async def test_a_verdict_on_another_rails_stream_settles_nothing_whatever_rail_it_names(
    world: World, names: str, verdict: str
) -> None:
    await registered_beside(world)
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await world.sent(intent)
    foreign = world.fact(pay_job(intent), verdict, rail=names)
    stream = f"{{{OTHER}}}:results"
    settled = await world.settle(type(foreign)(OTHER, stream, "9-0", foreign.body, result=foreign.result))
    assert [error for _, error in settled.unusable] == ["rail_differs"]
    assert await world.state(intent) == ("AUTHORIZED", None)
    await world.tell(pay_job(intent), "DECLINED")
    assert await world.state(intent) == ("FAILED", "declined"), "nor does it hold anything up"
    await world.prove()


async def test_evidence_is_kept_once_under_its_id_and_linked_to_no_other_rails_job(world: World) -> None:
    await world.register()
    intent = await world.pay(await world.wallet(1000))
    store = world.core.worker_ports.evidence
    known = uuid4()
    for rail, name in ((OTHER, "first"), (RAIL, "second")):
        item = EvidenceItem(id=known, job_id=pay_job(intent), kind="lookup_answer", payee_name=name)
        async with world.core.worker_database.unit_of_work(Context(None, f"rail:{rail}")) as uow:
            await store.insert_evidence(uow, rail, [item])
    async with world.uow() as uow:
        assert await store.payee_name(uow, known) == "first"
    assert await world.admin.fetchval("SELECT job_id FROM fleet.evidence WHERE id = $1", known) is None
