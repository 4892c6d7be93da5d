"""Dead letters are found by whatever is known of them, along an index, and judged as they stand."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from core.domain import redrive
from core.services.on_call.dead_letters import LetterFilter, LetterView, cursor_behind, group_before
from core.store.on_call.letter_queries import conditions_of
from schemas.on_call import LetterState
from tests.integration.oncall.conftest import bury, fill
from tests.integration.permits.conftest import RAIL, World, pay_job


async def found(world: World, limit: int = 50, **wanted: Any) -> list[LetterView]:
    async with world.uow() as uow:
        return list(await world.core.worker_ports.letters.list_letters(uow, LetterFilter(**wanted), limit))


async def test_a_letter_is_found_by_everything_that_is_known_of_it(world: World) -> None:
    wallet = await world.wallet(1000)
    intent, other = await world.pay(wallet), await world.pay(wallet)
    (letter,) = await bury(world, intent, message="gateway rejected the envelope")
    await bury(world, other, error_class="deliveries_exhausted", message="three times")
    job = await world.job(pay_job(intent))
    narrow: list[dict[str, Any]] = [
        {"error_class": "poison"},
        {"fingerprint": "poison-print"},
        {"job_id": pay_job(intent)},
        {"intent_id": intent},
        {"text": "rejected envelope"},
        {"text": job["reference"].lower()},
        {"ids": [letter]},
    ]
    for wanted in narrow:
        assert [each.id for each in await found(world, **wanted)] == [letter], wanted
    wide: list[dict[str, Any]] = [
        {},
        {"rail": RAIL},
        {"operation": "PAYOUT"},
        {"provider": "p"},
        {"tenant_id": world.caller.tenant_id},
        {"received_after": datetime.now(UTC) - timedelta(hours=1)},
    ]
    for wanted in wide:
        assert len(await found(world, **wanted)) == 2, wanted
    nothing: list[dict[str, Any]] = [
        {"tenant_id": uuid4()},
        {"text": "rejected elsewhere"},
        {"state": LetterState.CLOSED},
        {"received_before": datetime.now(UTC) - timedelta(hours=1)},
    ]
    for wanted in nothing:
        assert await found(world, **wanted) == [], wanted


async def test_a_letter_shows_masked_fields_and_never_its_body(world: World) -> None:
    (letter,) = await bury(world, await world.pay(await world.wallet(1000)))
    (view,) = await found(world, ids=[letter])
    assert view.payload == {"amount_minor": 100, "currency": "THB", "payee_masked": "08*"}
    assert "0812345678" not in str(view)


async def test_a_letter_is_judged_by_permits_facts_and_the_clock(world: World) -> None:
    wallet = await world.wallet(1000)
    never, sent, refused, ended = [await world.pay(wallet) for _ in range(4)]
    await world.sent(sent)
    await world.sent(refused)
    await world.tell(pay_job(refused), "NOT_SENT", retry_after_s=1)
    await world.sent(ended)
    *letters, closed = await bury(world, never, sent, refused, ended)
    await world.tell(pay_job(ended), "SUCCEEDED")
    views = {view.id: view for view in await found(world)}
    assert [views[letter].judgement for letter in letters] == [
        redrive.NEVER_SENT,
        redrive.MAY_BE_SENT,
        redrive.ALL_NEGATIVE,
    ]
    (end,) = await found(world, ids=[closed], state=LetterState.CLOSED)
    assert end.judgement == redrive.CLOSED
    await world.pass_time(3600)
    views = {view.id: view for view in await found(world)}
    assert [views[letter].judgement for letter in letters] == [redrive.LATE, redrive.FORGOTTEN, redrive.LATE]


async def test_an_unknown_provider_or_a_restored_database_makes_nothing_safe_that_was_sent(world: World) -> None:
    wallet = await world.wallet(1000)
    never, sent = await world.pay(wallet), await world.pay(wallet)
    await world.sent(sent)
    letters = await bury(world, never, sent)
    await world.register(inquiry=False, deduplicates_reference=False)
    views = {view.id: view for view in await found(world)}
    assert [views[letter].judgement for letter in letters] == [redrive.NEVER_SENT, redrive.MUTE]
    await world.register(inquiry=True)
    await world.admin.execute("INSERT INTO fleet.ledger_epochs (epoch, reason) VALUES (2, 'restored')")
    views = {view.id: view for view in await found(world)}
    assert [views[letter].judgement for letter in letters] == [redrive.DOUBTED, redrive.DOUBTED]


async def test_pages_meet_every_letter_once(world: World) -> None:
    await fill(world.admin, world.caller.tenant_id, 25)
    seen: list[Any] = []
    async with world.uow() as uow:
        last = None
        while page := await world.core.worker_ports.letters.list_letters(uow, LetterFilter(), 10, last):
            seen += [letter.id for letter in page]
            last = seen[-1]
    assert len(seen) == len(set(seen)) == 25
    times = [letter.received_at for letter in await found(world)]
    assert times == sorted(times, reverse=True)


async def test_pages_of_groups_meet_every_group_once_whatever_their_sizes(world: World) -> None:
    await fill(world.admin, world.caller.tenant_id, 120)
    letters, after, seen = world.core.worker_ports.letters, None, list[str]()
    async with world.uow() as uow:
        while page := await letters.group_letters(uow, LetterFilter(), 9, after):
            seen += [group.fingerprint for group in page]
            after = group_before(cursor_behind(page[-1]))
    assert len(seen) == len(set(seen)) == 50


async def test_groups_count_all_that_match_and_say_whether_it_gets_worse(world: World) -> None:
    await fill(world.admin, world.caller.tenant_id, 5_000)
    async with world.uow() as uow:
        groups = await world.core.worker_ports.letters.group_letters(uow, LetterFilter(rail="rail1"), 100)
    assert sum(group.letters for group in groups) == 1667
    assert {group.trend for group in groups} == {"rising"}
    assert groups[0].letters == groups[0].last_hour + groups[0].hour_before


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ({"fingerprint": "kind7"}, "dead_letters_by_fingerprint"),
        ({"error_class": "class_3"}, "dead_letters_by_class"),
        ({}, "dead_letters_by_time"),
        ({"text": "REF4711"}, "dead_letters_by_words"),
        ({"intent_id": uuid4()}, "dead_letters_by_intent"),
    ],
)
async def test_a_search_walks_an_index(world: World, wanted: dict[str, Any], index: str) -> None:
    await fill(world.admin, world.caller.tenant_id, 5_000)
    conditions = conditions_of(LetterFilter(**wanted))
    query = (
        f"SELECT d.id FROM fleet.dead_letters d WHERE {conditions.where} ORDER BY received_at DESC, id DESC LIMIT 50"
    )
    plan = await world.admin.fetchval("EXPLAIN (FORMAT JSON) " + query, *conditions.arguments)
    assert index in plan, json.loads(plan)
    assert "Seq Scan" not in plan
