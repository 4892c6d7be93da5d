"""Every kind of break, planted in otherwise clean books, is found and named; on clean books none is."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from core.domain.context import Context
from core.services.access.keys import Caller
from core.services.problems import Refusal
from core.services.recon.break_desk import preview_break, show_break
from core.services.recon.recon import (
    approve_break,
    assign_break,
    reconcile_intents,
    reconcile_ledger,
    reconcile_ledger_alone,
    resolve_break,
)
from core.services.recon.rounds import Rounds
from schemas.recon import BreakResolution, BreakState, BreakView, ReconReport
from tests.integration.permits.conftest import World, pay_job

CONTEXT = Context(None, "test")


def clerk(world: World, name: str = "anna") -> Caller:
    return replace(world.caller, key_id=name, operations=frozenset({"RECONCILIATION", "REDRIVE_APPROVAL"}))


async def compare(world: World) -> ReconReport:
    return await reconcile_intents(world.core.worker_ports, CONTEXT)


async def breaks(world: World, state: BreakState | None = BreakState.OPEN) -> list[BreakView]:
    async with world.uow() as uow:
        return await world.core.worker_ports.recon.page(uow, None, state, None, 100)


async def plant(world: World, *statements: str) -> None:
    """Change history as only an administrator can, with every guard off."""
    for statement in statements:
        await world.admin.execute("SET session_replication_role = replica")
        await world.admin.execute(statement)
        await world.admin.execute("RESET session_replication_role")


async def books(world: World) -> dict[str, UUID]:
    """Make one payment of each end; all is well."""
    wallet = await world.wallet(10_000)
    made = {name: await world.pay(wallet) for name in ("settled", "failed", "open", "sent")}
    for name in ("settled", "failed", "sent"):
        await world.sent(made[name])
    await world.tell(pay_job(made["settled"]), "SUCCEEDED")
    await world.tell(pay_job(made["failed"]), "DECLINED", reason="payee_not_found")
    return made


async def test_nothing_is_found_on_clean_books(world: World) -> None:
    await books(world)
    report = await compare(world)
    assert (report.found, report.compared, report.unjudged) == ({}, 5, 0)
    ledger = await reconcile_ledger(world.core.worker_ports, CONTEXT)
    assert (ledger.found, ledger.clean) == ({}, True)
    assert await breaks(world, None) == []


POSTED = "(SELECT id FROM fleet.transfers WHERE user_data = '{settled}' AND flags & 4 = 4)"
UNGUARDED = "ALTER TABLE fleet.transfers DROP CONSTRAINT transfers_amount_minor_check"
PLANTED = {
    "settled_amount_mismatch": (f"UPDATE fleet.transfers SET amount_minor = 70 WHERE id = {POSTED}", "settled", 30),
    "settled_transfers_missing": (f"DELETE FROM fleet.transfers WHERE id = {POSTED}", "settled", 100),
    "settled_amount_zero": (
        f"{UNGUARDED}; UPDATE fleet.transfers SET amount_minor = 0 WHERE id = {POSTED}",
        "settled",
        100,
    ),
    "orphan_hold": ("UPDATE fleet.intents SET state = 'FAILED', version = 9 WHERE id = '{open}'", "open", 100),
    "hold_missing": ("DELETE FROM fleet.transfers WHERE user_data = '{open}'", "open", 100),
    "ended_but_posted": (
        "UPDATE fleet.transfers SET flags = 4 WHERE user_data = '{failed}' AND flags = 8",
        "failed",
        100,
    ),
    "projection_drift": ("UPDATE fleet.intents SET version = version + 1 WHERE id = '{sent}'", "sent", 0),
}


@pytest.mark.parametrize("kind", PLANTED)
async def test_a_planted_break_is_found_and_named(world: World, kind: str) -> None:
    made = await books(world)
    statement, subject, amount_minor = PLANTED[kind]
    await plant(world, *statement.format(**{name: str(value) for name, value in made.items()}).split(";"))
    report = await compare(world)
    assert kind in report.found
    assert set(report.found) - {kind} <= {"projection_drift"}, report.found
    (found,) = [each for each in await breaks(world) if each.kind == kind]
    assert (found.subject_id, found.amount_minor) == (made[subject], amount_minor)
    assert (await compare(world)).new == 0, "found again, it is the same break"
    assert ("page", "reconciliation_break") in await world.alerts()


async def test_a_hold_of_no_intent_is_found_and_given_back_by_two_people(world: World) -> None:
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await plant(
        world,
        f"DELETE FROM fleet.intents WHERE id = '{intent}'",
        f"DELETE FROM fleet.intent_events WHERE intent_id = '{intent}'",
        f"DELETE FROM fleet.jobs WHERE intent_id = '{intent}'",
    )
    assert (await compare(world)).found == {"orphan_hold": 1}
    (found,) = await breaks(world)
    ports = world.core.worker_ports
    shown = await preview_break(ports, clerk(world), found.id, None)
    told = [(each.what, each.amount_minor, each.debit_account_id) for each in shown.entries]
    assert (told, shown.needs_approval, shown.state) == ([("void", 100, wallet)], True, BreakState.OPEN)
    asked = BreakResolution(reason="the intent was lost with the restore")
    assert (await resolve_break(ports, clerk(world), found.id, asked)).state is BreakState.PROPOSED
    with pytest.raises(Refusal) as own:
        await approve_break(ports, clerk(world), found.id)
    assert own.value.code == "redrive_own"
    assert await world.money(wallet) == (1000, 100)
    shown = await show_break(ports, clerk(world, "ben"), found.id)
    assert [each.what for each in shown.entries] == ["void"]
    plain = replace(clerk(world, "ben"), operations=frozenset({"RECONCILIATION"}))
    with pytest.raises(Refusal, match="REDRIVE_APPROVAL"):
        await approve_break(ports, plain, found.id)
    assert (await approve_break(ports, clerk(world, "ben"), found.id)).state is BreakState.RESOLVED
    assert await world.money(wallet) == (1000, 0)
    assert (await show_break(ports, clerk(world), found.id)).entries == [], "nothing is left to be booked"
    assert (await compare(world)).clean
    assert (await reconcile_ledger(ports, CONTEXT)).clean


async def test_a_broken_balance_is_a_break_and_gone_once_it_is_right_again(world: World) -> None:
    wallet = await world.wallet(1000)
    await plant(world, f"UPDATE fleet.accounts SET credits_posted = credits_posted + 5 WHERE id = '{wallet}'")
    report = await reconcile_ledger(world.core.worker_ports, CONTEXT)
    assert set(report.found) == {"ledger_balance_differs", "ledger_ledger_unbalanced"}
    await plant(world, f"UPDATE fleet.accounts SET credits_posted = credits_posted - 5 WHERE id = '{wallet}'")
    again = await reconcile_ledger(world.core.worker_ports, CONTEXT)
    assert (again.clean, again.gone) == (True, 2)
    assert {each.state for each in await breaks(world, None)} == {BreakState.GONE}


async def test_a_break_of_money_is_put_right_by_a_new_entry_alone(world: World) -> None:
    made = await books(world)
    await plant(world, f"UPDATE fleet.intents SET state = 'FAILED', version = 9 WHERE id = '{made['settled']}'")
    await compare(world)
    (found,) = [each for each in await breaks(world) if each.kind == "ended_but_posted"]
    ports = world.core.worker_ports
    assert (await assign_break(ports, clerk(world), found.id, "carl")).owner == "carl"
    for entry in (None, uuid4(), made["open"]):
        with pytest.raises(Refusal) as refused:
            await resolve_break(ports, clerk(world), found.id, BreakResolution(reason="seen", entry_intent_id=entry))
        assert refused.value.code == "entry_missing"
        with pytest.raises(Refusal, match=r"entry|no settled payment"):
            await preview_break(ports, clerk(world), found.id, entry)
    other = await world.wallet(found.amount_minor + 1)
    unlike = await world.admin.fetchval("SELECT id FROM fleet.intents WHERE wallet_id = $1", other)
    assert (await preview_break(ports, clerk(world), found.id, unlike)).needs_approval, "another sum"
    wallet = await world.wallet(found.amount_minor)
    entry = await world.admin.fetchval("SELECT id FROM fleet.intents WHERE wallet_id = $1", wallet)
    shown = await preview_break(ports, clerk(world), found.id, entry)
    told = [(each.what, each.amount_minor, each.currency, each.credit_account_id) for each in shown.entries]
    assert (told, shown.needs_approval) == ([("booked", found.amount_minor, "THB", wallet)], False)
    asked = BreakResolution(reason="booked back", entry_intent_id=entry)
    done = await resolve_break(ports, clerk(world), found.id, asked)
    assert (done.state, done.resolved_by, done.entry_intent_id) == (BreakState.RESOLVED, "key:anna", entry)
    await compare(world)
    assert [each.state for each in await breaks(world, None) if each.id == found.id] == [BreakState.RESOLVED]
    await plant(world, f"UPDATE fleet.breaks SET amount_minor = amount_minor - 1 WHERE id = '{found.id}'")
    await compare(world)
    (again,) = [each for each in await breaks(world, None) if each.id == found.id]
    assert (again.state, again.ended_at) == (BreakState.OPEN, None), "what was put right was another sum"
    stranger = replace(clerk(world), tenant_id=uuid4())
    with pytest.raises(Refusal) as unseen:
        await assign_break(ports, stranger, found.id, "eve")
    assert unseen.value.code == "not_found"


async def test_payments_that_go_on_meanwhile_are_no_breaks(world: World) -> None:
    wallet = await world.wallet(10_000)

    async def traffic() -> None:
        for _ in range(15):
            intent = await world.pay(wallet)
            await world.sent(intent)
            await world.tell(pay_job(intent), "SUCCEEDED")

    busy = asyncio.create_task(traffic())
    while not busy.done():
        assert (await compare(world)).found == {}
    await busy


async def test_the_proof_of_the_books_by_timer_names_what_is_broken_and_runs_alone(world: World) -> None:
    made = await books(world)
    ports = world.core.worker_ports
    clean = await reconcile_ledger_alone(ports, CONTEXT, 60)
    assert clean is not None
    assert (clean.clean, clean.compared > 0) == (True, True)
    await plant(world, f"DELETE FROM fleet.transfers WHERE id = {POSTED.format(**made)}")
    async with world.uow() as other:
        assert await ports.recon.alone(other, "ledger", 60)
        assert await reconcile_ledger_alone(ports, CONTEXT, 60) is None
        assert await breaks(world) == []
    report = await reconcile_ledger_alone(ports, CONTEXT, 60)
    assert report is not None
    assert "ledger_balance_differs" in report.found
    assert {each.kind for each in await breaks(world)} == set(report.found)


async def test_a_proof_that_takes_too_long_is_given_up_and_records_nothing(world: World) -> None:
    made = await books(world)
    await plant(world, f"DELETE FROM fleet.transfers WHERE id = {POSTED.format(**made)}")
    async with world.admin.transaction():
        await world.admin.execute("LOCK TABLE fleet.accounts IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(asyncpg.QueryCanceledError):
            await reconcile_ledger_alone(world.core.worker_ports, CONTEXT, 1)
    assert await breaks(world, None) == []


async def test_a_round_finds_what_broke_in_old_payments_and_every_hour_looks_at_a_part_of_them(world: World) -> None:
    made = await books(world)
    await plant(world, f"DELETE FROM fleet.transfers WHERE id = {POSTED.format(**made)}")
    ports, day = world.core.worker_ports, timedelta(days=1)
    # In sixty days all of it is old; a round that ends then compares it whole, and its first half a part.
    days = (datetime.now(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // day
    begun = datetime(1970, 1, 1, tzinfo=UTC) + (days // 30 + 2) * 30 * day
    rounds = Rounds(every_s=86_400, round_s=30 * 86_400)
    compared = [await rounds.go_on(ports, CONTEXT, begun + n * day) for n in range(31)]
    assert sum(compared) == 5
    assert {each.kind for each in await breaks(world)} == {"settled_transfers_missing"}
