"""Returns that a provider announces, on a real database: why, what came of it, and what no booking followed."""

import asyncio
from typing import Any
from uuid import UUID

import orjson

from core.services.on_call.explain import tell
from core.services.settling.announced_returns import tell_unbooked
from schemas.announced_returns import AnnouncedReturns, ReturnedView
from tests.integration.permits.conftest import RAIL, World, pay_job
from tests.integration.permits.test_collections import opened, reference, told
from tests.integration.permits.test_refunds_by_rail import REFUNDS, collected, given_back
from tests.integration.permits.test_returns import paid, refunds, returned


async def reference_of(world: World, intent: UUID) -> str:
    """Return the reference that the payment was sent under."""
    found: str = await world.admin.fetchval("SELECT reference FROM fleet.jobs WHERE id = $1", pay_job(intent))
    return found


async def announce(world: World, of: str, **more: Any) -> int:
    """Let the provider announce a return; return how many announcements were new."""
    item = {"name": "RTR-1", "reference": of, "amount_minor": 100, "currency": "THB", "reason": "account_closed",
            "provider_reason": "AC04", "raw": "<TxInf>Somchai</TxInf>"}  # fmt: skip
    body = {"provider_account": "main", "environment": "sandbox", "booked_within_s": 60, "items": [item | more]}
    async with world.uow() as uow:
        return await world.core.worker_ports.announced.keep(uow, RAIL, AnnouncedReturns.model_validate(body))


async def later(world: World, hours: int = 2) -> int:
    """Let time pass, and a resolver look at what is due; return how many that were."""
    span = f"interval '{hours} hours'"
    await world.admin.execute(
        f"UPDATE fleet.announced_returns SET told_at = told_at - {span}, due_at = due_at - {span}"
    )
    return await tell_unbooked(world.core.worker_ports, world.uow, 100)


async def view(world: World, intent: UUID) -> ReturnedView | None:
    """Return what the API shows of a payment's return."""
    return (await world.core.read.show(world.caller, intent))[1]


async def unbooked(world: World) -> list[tuple[str, bool]]:
    """Return the text of each ticket about a return that is not booked, and whether it is closed."""
    rows = await world.admin.fetch(
        "SELECT detail, closed_by = 'core' AS closed FROM fleet.alerts WHERE kind = 'return_not_booked' ORDER BY detail"
    )
    return [(row["detail"], bool(row["closed"])) for row in rows]


async def test_a_return_is_shown_with_its_reason_whether_announced_before_its_booking_or_after(world: World) -> None:
    await world.register(returns_in_all=True)
    wallet = await world.wallet(1_000)
    for place, early in enumerate((True, False)):
        intent = await paid(world, wallet)
        assert await view(world, intent) is None
        named = await reference_of(world, intent)
        if early:
            assert await announce(world, named, name=f"RTR-{place}") == 1
            only = await view(world, intent)
            assert only is not None
            assert (only.announced_minor, only.booked_minor, only.booked_at) == (100, 0, None)
            assert await world.money(wallet) == (900, 0), "an announcement moves no money"
            assert await refunds(world, intent) == []
        await returned(world, intent, amount_minor=100, currency="THB", reason="returned")
        if not early:
            assert await announce(world, named, name=f"RTR-{place}") == 1
        [refund] = await refunds(world, intent)
        # Asked about the payment, or about the refund that books what came back, it is the same.
        for shown in (await view(world, intent), await view(world, refund.id)):
            assert shown is not None
            assert (shown.announced_minor, shown.booked_minor) == (100, 100)
            assert (shown.reason, shown.provider_reason) == ("account_closed", "AC04")
            assert shown.evidence_id is not None
        assert (await later(world), await later(world)) == (1, 0)
    assert await unbooked(world) == []
    await world.prove()


async def test_a_return_that_nobody_announced_is_shown_as_its_booking_tells_it(world: World) -> None:
    await world.register()
    intent = await paid(world, await world.wallet(1_000))
    await returned(world, intent, amount_minor=60, currency="THB", reason="account_blocked")
    shown = await view(world, intent)
    assert shown is not None
    assert (shown.announced_minor, shown.booked_minor, shown.reason) == (0, 60, "account_blocked")
    assert (shown.provider_reason, shown.evidence_id, shown.announced_at) == ("", None, None)


async def test_what_no_booking_follows_is_a_ticket_once_and_closes_when_the_booking_comes_late(world: World) -> None:
    await world.register(returns_in_all=True)
    wallet = await world.wallet(1_000)
    intent = await paid(world, wallet)
    named = await reference_of(world, intent)
    await announce(world, named)
    assert await tell_unbooked(world.core.worker_ports, world.uow, 100) == 0, "the bank has its days"
    assert await later(world) == 1
    ticket = f"testrail main announced in RTR-1 that 1.00 THB come back of {named} (AC04): 0.00 THB are booked"
    assert await unbooked(world) == [(ticket, False)]
    # A person may close it; it is looked at again and does not come back by itself.
    await later(world)
    assert await unbooked(world) == [(ticket, False)]
    await returned(world, intent, amount_minor=100, currency="THB")
    assert (await later(world), await later(world)) == (1, 0)
    assert await unbooked(world) == [(ticket, True)]
    assert await world.money(wallet) == (1_000, 0)
    await world.prove()


async def test_a_return_of_other_money_that_waits_for_a_person_is_no_booking(world: World) -> None:
    await world.register(returns_in_all=True)
    intent = await paid(world, await world.wallet(1_000))
    await announce(world, await reference_of(world, intent))
    await returned(world, intent, amount_minor=150, currency="THB")
    quarantined = "SELECT count(*) FROM fleet.facts WHERE verdict = 'RETURNED' AND quarantine IS NOT NULL"
    assert await world.admin.fetchval(quarantined) == 1
    await later(world)
    assert [closed for _, closed in await unbooked(world)] == [False]


async def test_a_ticket_that_a_person_closed_stays_closed_and_is_no_more_looked_at_after_two_months(
    world: World,
) -> None:
    await world.register()
    intent = await paid(world, await world.wallet(1_000))
    await announce(world, await reference_of(world, intent))
    await later(world)
    await world.admin.execute(
        "UPDATE fleet.alerts SET closed_by = 'anna', closed_because = 'the bank took it back', closed_at = now()"
        " WHERE kind = 'return_not_booked'"
    )
    assert await later(world) == 1
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.alerts WHERE closed_by = 'anna'") == 1
    assert (await later(world, hours=61 * 24), await later(world)) == (1, 0)


async def test_a_booking_of_less_than_was_announced_is_a_ticket_with_both_amounts(world: World) -> None:
    await world.register(returns_in_all=True)
    intent = await paid(world, await world.wallet(1_000))
    named = await reference_of(world, intent)
    await announce(world, named)
    await returned(world, intent, amount_minor=60, currency="THB")
    await later(world)
    [(text, closed)] = await unbooked(world)
    assert ("1.00 THB come back" in text, "0.60 THB are booked" in text, closed) == (True, True, False)
    shown = await view(world, intent)
    assert shown is not None
    assert (shown.announced_minor, shown.booked_minor) == (100, 60)
    await returned(world, intent, amount_minor=100, currency="THB")
    await later(world)
    assert await unbooked(world) == [(text, True)]


async def test_an_announcement_that_comes_again_is_one_and_one_of_other_money_is_another(world: World) -> None:
    await world.register(returns_in_all=True)
    intent = await paid(world, await world.wallet(1_000))
    named = await reference_of(world, intent)
    assert sorted(await asyncio.gather(*(announce(world, named) for _ in range(4)))) == [0, 0, 0, 1]
    assert await announce(world, named, reason="", provider_reason="") == 0
    evidence = await world.admin.fetch("SELECT job_id, kind, ciphertext FROM fleet.evidence")
    assert [(row["job_id"], row["kind"]) for row in evidence] == [(pay_job(intent), "announced_return")]
    assert b"Somchai" not in evidence[0]["ciphertext"]
    assert await announce(world, named, amount_minor=40) == 1
    await returned(world, intent, amount_minor=100, currency="THB")
    await later(world)
    assert [closed for _, closed in await unbooked(world)] == [False, False]


async def test_what_names_no_payment_of_ours_is_a_ticket_of_its_own_and_no_tenant_sees_it(world: World) -> None:
    await world.register()
    await announce(world, "SOMEBODYELSES")
    await announce(world, "", name="RTR-2")
    await announce(world, await reference_of(world, await paid(world, await world.wallet(1_000))), name="RTR-3")
    assert await later(world) == 3
    texts = [text for text, _ in await unbooked(world)]
    assert ["of no payment of ours: it names SOMEBODYELSES" in text for text in texts] == [True, False, False]
    assert ["of no payment of ours: it names none" in text for text in texts] == [False, True, False]
    owners = await world.admin.fetch("SELECT tenant_id, intent_id FROM fleet.announced_returns ORDER BY name")
    assert [row["intent_id"] is None for row in owners] == [True, True, False]
    assert [row["tenant_id"] == world.caller.tenant_id for row in owners] == [False, False, True]
    assert await later(world) == 1, "what names nothing is told once; nothing can make it good"


async def test_an_announcement_that_another_resolver_looks_at_is_left_to_it(world: World) -> None:
    await world.register()
    intent = await paid(world, await world.wallet(1_000))
    await announce(world, await reference_of(world, intent))
    await world.admin.execute("UPDATE fleet.announced_returns SET due_at = now() - interval '1 second'")
    ports = world.core.worker_ports
    counts = await asyncio.gather(*(tell_unbooked(ports, world.uow, 100) for _ in range(4)))
    assert (sum(counts), len(await unbooked(world))) == (1, 1)


async def test_a_payment_in_that_is_taken_back_is_shown_with_its_announcement(world: World) -> None:
    wallet = await opened(world, **REFUNDS)
    intent = await collected(world, wallet)
    await announce(world, await reference(world, intent), amount_minor=2_000)
    await later(world)
    assert [closed for _, closed in await unbooked(world)] == [False]
    assert await told(world, {"kind": "RETURN", "source": "STATEMENT"}) == ["REVERSED"]
    await later(world)
    assert [closed for _, closed in await unbooked(world)] == [True]
    shown = await view(world, intent)
    assert shown is not None
    assert (shown.announced_minor, shown.booked_minor, shown.reason) == (2_000, 2_000, "account_closed")
    assert shown.booked_at is not None


async def test_the_return_of_a_refund_is_announced_under_the_refunds_own_reference(world: World) -> None:
    wallet = await opened(world, **REFUNDS)
    original = await collected(world, wallet)
    await given_back(world, original, wallet, 500, "R1")
    [row] = await world.admin.fetch("SELECT intent_id, reference FROM fleet.jobs WHERE kind = 'refund'")
    await announce(world, row["reference"], amount_minor=500)
    shown = await view(world, row["intent_id"])
    assert shown is not None
    assert (shown.announced_minor, shown.booked_minor) == (500, 0)
    assert await view(world, original) is None


async def test_the_story_of_a_payment_tells_what_was_announced(world: World) -> None:
    await world.register()
    intent = await paid(world, await world.wallet(1_000))
    await announce(world, await reference_of(world, intent))
    async with world.uow() as uow:
        story = await tell(uow, world.core.worker_ports.stories, intent, None)
    [line] = [each for each in story.lines if each.what == "announced"]
    assert line.text == "its return account_closed AC04: 1.00 THB"
    assert "Somchai" not in orjson.dumps(story.model_dump(mode="json")).decode()
