"""Fees of money in: what a payer is asked for, and what the wallet is left with, on a real database."""

from pathlib import Path

import pytest

from core.services.payments.read_intents import intent_view
from core.services.terms.set_fees import dry_run
from schemas.fees import FeeDryRunRequest
from schemas.operations import OperationType
from tests.integration.permits.conftest import World
from tests.integration.permits.test_collections import collect_job, opened, paid, shown
from tests.integration.permits.test_fees import income, put

MIGRATION = Path(__file__).parents[3] / "core/store/migrations/0139_collections_asked_without_fees.sql"


@pytest.mark.parametrize(("phase", "asked_minor", "left_minor"), [("PRE", 2_030, 2_000), ("POST", 2_000, 1_970)])
async def test_a_payer_is_asked_for_fees_on_top_and_those_out_of_it_leave_the_wallet_as_dry_runs_say(
    world: World, phase: str, asked_minor: int, left_minor: int
) -> None:
    wallet = await opened(world)
    await put(world, operation="TOPUP", phase=phase, fee={"kind": "RATE", "fixed_minor": 30})
    asked = FeeDryRunRequest(operation=OperationType.TOPUP, amount_minor=2_000, currency="THB", channel="API")
    ports = world.core.worker_ports
    async with ports.unit_of_work(world.caller.context()) as uow:
        tried = await dry_run(uow, ports.fee_rules, world.caller.tenant_id, asked)
    intent = await shown(world, wallet)
    view = intent_view(await world.core.read.get(world.caller, intent))
    assert (tried.debited_minor, tried.received_minor, view["received_minor"]) == (asked_minor, left_minor, left_minor)
    assert (view["amount_minor"], view["amount_minor"] + view["fee_minor"]) == (2_000, asked_minor)
    assert (await world.job(collect_job(intent)))["amount_minor"] == asked_minor
    await paid(world, intent, asked_minor)
    assert (await world.money(wallet), await income(world)) == ((1 + left_minor, 0), 30)
    await world.prove()


async def test_what_was_asked_for_before_fees_on_top_were_asked_of_the_payer_is_credited_as_it_was_asked(
    world: World,
) -> None:
    wallet = await opened(world)
    await put(world, operation="TOPUP", fee={"kind": "RATE", "fixed_minor": 30})
    intent = await shown(world, wallet)
    # As an earlier release asked, and as its rows are brought up to this one.
    await world.admin.execute("UPDATE fleet.jobs SET amount_minor = 2000 WHERE id = $1", collect_job(intent))
    await world.admin.execute(MIGRATION.read_text())
    await paid(world, intent)
    assert await world.state(intent) == ("SETTLED", None)
    assert (await world.money(wallet), await income(world)) == ((1_971, 0), 30)
    await world.prove()
