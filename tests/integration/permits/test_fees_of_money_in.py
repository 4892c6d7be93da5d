"""Fees of money in: what a payer is asked for, and what the wallet is left with, on a real database."""

from uuid import UUID

import pytest

from core.services.payments.read_intents import intent_view
from core.services.terms.set_fees import dry_run
from fleet.cli.intents import paid_minor
from schemas.api import IntentView
from schemas.fees import FeeDryRunRequest
from schemas.operations import OperationType
from tests.integration.permits.conftest import World
from tests.integration.permits.test_collections import collect_job, opened, paid, shown
from tests.integration.permits.test_fees import income, put
from tests.integration.permits.test_refunds_by_rail import REFUNDS, refund, refused


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


async def kept(world: World, intent: UUID) -> tuple[int | None, int | None]:
    """Return what the row says of it: what was asked for, and what came."""
    row = await world.admin.fetchrow("SELECT asked_minor, confirmed_minor FROM fleet.intents WHERE id = $1", intent)
    assert row is not None
    return row["asked_minor"], row["confirmed_minor"]


async def asked_by_the_release_before(world: World, wallet: UUID) -> UUID:
    """Return a top-up as a release made it that knew no fees on top of what a payer is asked for."""
    intent = await shown(world, wallet)
    await world.admin.execute("UPDATE fleet.intents SET asked_minor = NULL WHERE id = $1", intent)
    await world.admin.execute("UPDATE fleet.jobs SET amount_minor = 2000 WHERE id = $1", collect_job(intent))
    return intent


async def test_what_was_asked_for_and_what_came_are_both_kept_where_fees_are_on_top_and_of_no_other(
    world: World,
) -> None:
    wallet = await opened(world)
    await put(world, operation="TOPUP", fee={"kind": "RATE", "fixed_minor": 30})
    plain = await shown(world, wallet, operation="DEPOSIT")
    await paid(world, plain, tx="T1")
    intent = await shown(world, wallet)
    assert await kept(world, intent) == (2_030, None)
    await paid(world, intent, 2_030, "T2")
    # The release before reads of this row what came, too.
    assert (await kept(world, plain), await kept(world, intent)) == ((None, None), (2_030, 2_030))


async def test_what_the_release_before_asked_for_is_credited_as_it_was_asked(world: World) -> None:
    wallet = await opened(world)
    await put(world, operation="TOPUP", fee={"kind": "RATE", "fixed_minor": 30})
    intent = await asked_by_the_release_before(world, wallet)
    await paid(world, intent)
    assert await world.state(intent) == ("SETTLED", None)
    assert (await world.money(wallet), await income(world)) == ((1_971, 0), 30)
    assert await kept(world, intent) == (None, 2_000)
    await world.prove()


@pytest.mark.parametrize("asked_minor", [None, 2_030], ids=["asked by it", "asked by this release"])
async def test_of_what_the_release_before_settled_no_more_is_given_back_than_came(
    world: World, asked_minor: int | None
) -> None:
    wallet = await opened(world, **REFUNDS)
    await put(world, operation="TOPUP", fee={"kind": "RATE", "fixed_minor": 30})
    intent = await asked_by_the_release_before(world, wallet)
    await paid(world, intent)
    await paid(world, await shown(world, wallet), 2_030, "T2")
    # It notes nothing of what came as the amount is, whoever had asked for it.
    await world.admin.execute(
        "UPDATE fleet.intents SET confirmed_minor = NULL, asked_minor = $2 WHERE id = $1", intent, asked_minor
    )
    view = IntentView.model_validate(intent_view(await world.core.read.get(world.caller, intent)))
    assert (view.received_minor, paid_minor(view)) == (1_970, 2_000)
    assert await refused(world, intent, wallet, 2_001) == "refund_exceeds_original"
    assert (await refund(world, intent, wallet, 2_000)).state == "AUTHORIZED"
