"""Alerts about payments end by people, who say why; where money is meant by two of them, and never while they stand."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from core.domain.reconciliation import Break
from core.services.access.keys import Caller
from core.services.on_call.alerts import AlertFilter, approve_alert, close_alert, list_alerts, reopen_alert
from core.services.problems import Refusal
from core.store.recon.recon import ReconStore
from core.store.settling.facts import close_alerts
from fleet.stack.provision import RoleUrls
from schemas.alerts import AlertState, AlertsWanted, AlertView
from tests.integration.oncall.conftest import bury
from tests.integration.permits.conftest import World, pay_job

BOTH = frozenset({"DEAD_LETTERS", "REDRIVE_APPROVAL"})


def people(world: World) -> tuple[Caller, Caller]:
    """Two people of the world's tenant, who may both close and agree."""
    return replace(world.caller, key_id="anna", operations=BOTH), replace(world.caller, key_id="ben", operations=BOTH)


async def raised(world: World, severity: str = "page", kind: str = "success_after_void", **more: Any) -> UUID:
    """Keep one more alert, each later than the one before; return its id."""
    at = datetime.now(UTC) - timedelta(hours=1) + timedelta(seconds=next(world.numbers))
    values = {"id": uuid4(), "tenant_id": world.caller.tenant_id, "severity": severity, "kind": kind} | more
    values |= {"detail": "x", "raised_at": at}
    names, places = ", ".join(values), ", ".join(f"${place}" for place in range(1, len(values) + 1))
    await world.admin.execute(f"INSERT INTO fleet.alerts ({names}) VALUES ({places})", *values.values())
    return UUID(str(values["id"]))


async def listed(world: World, state: AlertsWanted = AlertsWanted.WAITING, **narrowed: Any) -> list[AlertView]:
    anna, _ = people(world)
    wanted = AlertFilter(state, **narrowed)
    return (await list_alerts(world.core.worker_ports, anna, wanted, cursor=None, limit=50)).items


async def refused(doing: Any) -> str:
    with pytest.raises(Refusal) as caught:
        await doing
    return caught.value.code


async def acts(world: World) -> list[tuple[str, str]]:
    rows = await world.admin.fetch(
        "SELECT action, actor FROM fleet.audit_entries WHERE action LIKE 'alert%' ORDER BY seq"
    )
    return [(row["action"], row["actor"]) for row in rows]


async def test_an_alert_about_money_is_closed_by_two_people_and_the_journal_names_both(world: World) -> None:
    intent = await world.pay(await world.wallet(1000))
    alert, ports = await raised(world, intent_id=intent), world.core.worker_ports
    anna, ben = people(world)
    proposed = await close_alert(ports, anna, alert, "the provider returned it")
    assert (proposed.state, proposed.closed_at) == (AlertState.PROPOSED, None)
    assert await refused(approve_alert(ports, anna, alert, "I say so twice")) == "redrive_own"
    assert await refused(close_alert(ports, ben, alert, "me too")) == "wrong_alert_state"
    closed = await approve_alert(ports, ben, alert, "I saw the return")
    assert (closed.state, closed.closed_by) == (AlertState.CLOSED, ben.context().actor)
    assert (closed.closed_because, closed.proposed_by) == ("the provider returned it", anna.context().actor)
    assert await listed(world) == []
    assert [each.id for each in await listed(world, AlertsWanted.CLOSED)] == [alert]
    assert await acts(world) == [
        ("alert_close_proposed", anna.context().actor),
        ("alert_closed", ben.context().actor),
    ]
    subjects = await world.admin.fetch("SELECT DISTINCT subject FROM fleet.audit_entries WHERE action LIKE 'alert%'")
    assert [row["subject"] for row in subjects] == [f"intent:{intent}"]


async def test_a_ticket_takes_one_person_and_closing_it_again_changes_nothing(world: World) -> None:
    alert, ports = await raised(world, "ticket", "payment_returned"), world.core.worker_ports
    anna, ben = people(world)
    first = await close_alert(ports, anna, alert, "seen")
    assert (first.state, first.closed_by) == (AlertState.CLOSED, anna.context().actor)
    assert (await close_alert(ports, anna, alert, "seen")).closed_at == first.closed_at
    assert await refused(close_alert(ports, ben, alert, "seen")) == "wrong_alert_state"
    assert await acts(world) == [("alert_closed", anna.context().actor)]


async def test_a_proposal_is_taken_back_by_who_made_it_or_by_who_may_agree(world: World) -> None:
    alert, ports = await raised(world), world.core.worker_ports
    anna, ben = people(world)
    stranger = replace(anna, key_id="eve", operations=frozenset({"DEAD_LETTERS"}))
    await close_alert(ports, anna, alert, "returned")
    assert await refused(reopen_alert(ports, stranger, alert, "no")) == "operation_not_permitted"
    assert (await reopen_alert(ports, ben, alert, "it is not in the register")).state is AlertState.OPEN
    assert await refused(approve_alert(ports, ben, alert, "late")) == "wrong_alert_state"
    await close_alert(ports, ben, alert, "it is in today's")
    assert (await reopen_alert(ports, ben, alert, "no, it is another")).proposed_by is None


async def test_what_still_stands_cannot_be_closed(world: World) -> None:
    wallet, ports = await world.wallet(1000), world.core.worker_ports
    anna, _ = people(world)
    intent = await world.pay(wallet)
    unresolved = await raised(world, kind="unresolved", intent_id=intent)
    await world.admin.execute("UPDATE fleet.intents SET state = 'UNRESOLVED' WHERE id = $1", intent)
    assert await refused(close_alert(ports, anna, unresolved, "enough")) == "alert_stands"
    await world.admin.execute("UPDATE fleet.intents SET state = 'AUTHORIZED' WHERE id = $1", intent)
    assert (await close_alert(ports, anna, unresolved, "it goes on")).state is AlertState.PROPOSED
    (letter,) = await bury(world, await world.pay(wallet))
    unusable = await raised(world, kind="unusable_result", id=letter)
    assert [each.stands for each in await listed(world, AlertsWanted.OPEN)] == [
        "the dead letter of the result is still OPEN"
    ]
    assert await refused(close_alert(ports, anna, unusable, "enough")) == "alert_stands"


async def test_a_break_that_comes_back_opens_its_alert_again(world: World) -> None:
    found = Break("projection_drift", world.caller.tenant_id, pay_job(uuid4()), "planted", 5)
    anna, ben = people(world)
    ports, store = world.core.worker_ports, ReconStore()
    async with world.uow() as uow:
        await store.record(uow, [found])
    (alert,) = await listed(world)
    assert await refused(close_alert(ports, anna, alert.id, "enough")) == "alert_stands"
    async with world.uow() as uow:
        await store.end_missing(uow, ["projection_drift"], [])
    await close_alert(ports, anna, alert.id, "it is gone")
    await approve_alert(ports, ben, alert.id, "so it is")
    async with world.uow() as uow:
        await store.record(uow, [found])
    assert [(each.id, each.closed_by, each.stands) for each in await listed(world)] == [
        (alert.id, None, "the break is not resolved")
    ]


async def test_alerts_are_narrowed_paged_and_those_of_another_tenant_are_not_there(world: World) -> None:
    made = [await raised(world) for _ in range(5)]
    await raised(world, "ticket", "fee_not_returned")
    foreign = await raised(world, tenant_id=uuid4())
    anna, _ = people(world)
    wanted, ports = AlertFilter(severity="page"), world.core.worker_ports
    seen, cursor = list[UUID](), None
    while True:
        page = await list_alerts(ports, anna, wanted, cursor=cursor, limit=2)
        seen += [each.id for each in page.items]
        if (cursor := page.next_cursor) is None:
            break
    assert seen == made
    assert [each.kind for each in await listed(world, kind="fee_not_returned")] == ["fee_not_returned"]
    assert await refused(close_alert(ports, anna, foreign, "not mine")) == "not_found"
    none = replace(anna, operations=frozenset({"*"}))
    assert await refused(list_alerts(ports, none, wanted, cursor=None, limit=2)) == "operation_not_permitted"


async def test_the_database_itself_refuses_one_person_for_an_alert_that_pages(world: World) -> None:
    alert = await raised(world)
    with pytest.raises(asyncpg.CheckViolationError):
        await world.admin.execute(
            "UPDATE fleet.alerts SET closed_at = now(), closed_by = 'key:a', closed_because = 'x',"
            " proposed_by = 'key:a' WHERE id = $1",
            alert,
        )


async def test_the_core_closes_in_its_name_what_it_makes_good_and_no_role_closes_anything_else_without_people(
    world: World, fresh_database: RoleUrls
) -> None:
    intent = await world.pay(await world.wallet(1000))
    good, doubted = await raised(world, intent_id=intent), await raised(world, kind="end_doubted", intent_id=intent)
    others = [await raised(world, "ticket", "payment_returned"), await raised(world, kind="reconciliation_break")]
    anna, _ = people(world)
    await close_alert(world.core.worker_ports, anna, good, "it came back")
    async with world.uow() as uow:
        await close_alerts(uow, [intent], "success_after_void", "what was paid came back whole")
    worker = await asyncpg.connect(fresh_database.worker)
    # What the release before writes: no name.
    await worker.execute("UPDATE fleet.alerts SET closed_at = now() WHERE id = $1", doubted)
    for one in others:
        for name in (None, "core"):
            with pytest.raises(asyncpg.RestrictViolationError, match="is closed by people"):
                await worker.execute(
                    "UPDATE fleet.alerts SET closed_at = now(), closed_by = $2 WHERE id = $1", one, name
                )
    with pytest.raises(asyncpg.CheckViolationError):
        await worker.execute(
            "INSERT INTO fleet.alerts (id, tenant_id, severity, kind, detail, closed_at)"
            " VALUES (gen_random_uuid(), $1, 'page', 'unresolved', 'x', now())",
            world.caller.tenant_id,
        )
    await worker.close()
    closed = {each.id: (each.closed_by, each.closed_because) for each in await listed(world, AlertsWanted.CLOSED)}
    assert closed == {
        good: ("core", "what was paid came back whole"),
        doubted: ("core", "made good by the core"),
    }
