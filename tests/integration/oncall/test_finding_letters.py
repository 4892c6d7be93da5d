"""Dead letters are found by whatever is known of them, along an index, and judged as they stand."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from core.domain import redrive
from core.services.on_call.dead_letters import LetterFilter, LetterView, cursor_behind, group_before, letter_detail
from core.store.on_call import letter_queries
from core.store.on_call.letter_queries import conditions_of, pages_of
from schemas.on_call import LetterDetail, LetterState
from tests.integration.oncall.conftest import bury, fill
from tests.integration.permits.conftest import RAIL, World, pay_job

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


async def found(world: World, limit: int = 50, **wanted: Any) -> list[LetterView]:
    async with world.uow() as uow:
        return list(await world.core.worker_ports.letters.list_letters(uow, LetterFilter(**wanted), limit))


async def test_a_letter_is_found_by_everything_that_is_known_of_it(world: World) -> None:
    wallet = await world.wallet(1000)
    intent, other = await world.pay(wallet), await world.pay(wallet)
    await world.sent(intent)
    await world.admin.execute(
        "UPDATE fleet.jobs SET traceparent = $2 WHERE id = $1", pay_job(intent), f"00-{TRACE}-00f067aa0ba902b7-01"
    )
    (letter,) = await bury(world, intent, message="gateway rejected the envelope")
    await bury(world, other, error_class="deliveries_exhausted", message="three times")
    job = await world.job(pay_job(intent))
    evidence = uuid4()
    await world.admin.execute(
        "INSERT INTO fleet.evidence (id, tenant_id, rail, job_id, kind, ciphertext)"
        " VALUES ($1, $2, $3, $4, 'answer', '')",
        evidence, world.caller.tenant_id, RAIL, job["id"],
    )  # fmt: skip
    narrow: list[dict[str, Any]] = [
        {"error_class": "poison"},
        {"evidence_id": evidence},
        {"trace_id": TRACE},
        {"permits": 1},
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
        {"text": "08"},
        {"text": "THB 100"},
        {"tenant_id": world.caller.tenant_id},
        {"received_after": datetime.now(UTC) - timedelta(hours=1)},
    ]
    for wanted in wide:
        assert len(await found(world, **wanted)) == 2, wanted
    nothing: list[dict[str, Any]] = [
        {"tenant_id": uuid4()},
        {"text": "rejected elsewhere"},
        {"text": "0812345678"},
        {"trace_id": "0" * 32},
        {"evidence_id": uuid4()},
        {"permits": 2},
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


async def test_a_letter_carries_every_attempt_with_what_was_reported_and_its_evidence(world: World) -> None:
    intent = await world.pay(await world.wallet(1000))
    await world.sent(intent)
    await world.tell(pay_job(intent), "UNKNOWN", reason="timed_out")
    (letter,) = await bury(world, intent)
    await world.admin.execute("UPDATE fleet.dead_letters SET traceparent = $1", f"00-{TRACE}-00f067aa0ba902b7-01")
    letters = world.core.worker_ports.letters
    async with world.uow() as uow:
        view = await letters.find_letter(uow, letter)
        assert view is not None
        told = LetterDetail(
            **letter_detail(view, await letters.tried(uow, view), "https://traces.example/t/{trace_id}")
        )
    (attempt,) = told.attempts
    assert (attempt.fence, attempt.mode, attempt.negative_at) == (1, "SEND", None)
    assert attempt.reference == told.reference != ""
    assert [(fact.verdict, fact.reason, fact.quarantine) for fact in attempt.facts] == [("UNKNOWN", "timed_out", None)]
    assert (told.permits, told.fence, told.trace_id) == (1, 1, TRACE)
    assert (told.links.intent, told.links.history) == (f"/v1/intents/{intent}", f"/v1/stories/{intent}")
    assert told.links.trace == f"https://traces.example/t/{TRACE}"


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


WALKED: list[tuple[dict[str, Any], str]] = [
    ({"fingerprint": "kind7"}, "dead_letters_by_fingerprint"),
    ({"error_class": "class_3"}, "dead_letters_by_class"),
    ({}, "dead_letters_by_time"),
    ({"text": "REF4711"}, "dead_letters_by_marks"),
    ({"text": "4711"}, "dead_letters_by_marks"),
    ({"error_class": "class_3", "rail": "rail1"}, "dead_letters_by_marks"),
    ({"tenant_id": uuid4(), "operation": "PAYOUT"}, "dead_letters_by_marks"),
    ({"intent_id": uuid4()}, "dead_letters_by_intent"),
    ({"trace_id": "ab" * 16}, "dead_letters_by_trace"),
    ({"permits": 2}, "dead_letters_by_permits"),
    ({"evidence_id": uuid4()}, "dead_letters_by_job"),
]


async def test_a_search_walks_an_index(world: World) -> None:
    await fill(world.admin, world.caller.tenant_id, 5_000)
    await world.admin.execute("SET enable_seqscan = off")
    for wanted, index in WALKED:
        *_, last = pages_of(LetterFilter(**wanted), 50)
        query = f"EXPLAIN (FORMAT JSON) SELECT d.id FROM fleet.dead_letters d WHERE {last.where}"
        plan = await world.admin.fetchval(query, *last.arguments)
        assert index in plan, (wanted, json.loads(plan))
        assert "Seq Scan" not in plan, wanted


CASES: list[dict[str, Any]] = [
    {"rail": "rail1", "error_class": "class_3"},
    {"rail": "rail1", "provider": "q"},
    {"text": "provider", "rail": "rail2"},
    {"text": "number", "fingerprint": "kind7", "error_class": "class_0"},
    {"text": "9999"},
    {"tenant_id": uuid4()},
    {"error_class": "class_3", "rail": "rail0", "operation": "PAYOUT", "permits": 0},
]


async def require_pages(world: World, **wanted: Any) -> int:
    """Require that the first two pages are those of a plain query; return how many letters match."""
    chosen = conditions_of(LetterFilter(**wanted))
    query = f"SELECT d.id FROM fleet.dead_letters d WHERE {chosen.where} ORDER BY d.received_at DESC, d.id DESC"
    every = [row["id"] for row in await world.admin.fetch(query, *chosen.arguments)]
    first = [each.id for each in await found(world, limit=40, **wanted)]
    assert first == every[:40], wanted
    if first:
        async with world.uow() as uow:
            letters = world.core.worker_ports.letters
            second = await letters.list_letters(uow, LetterFilter(**wanted), 40, first[-1])
        assert [each.id for each in second] == every[40:80], wanted
    return len(every)


async def test_a_page_is_the_same_whichever_way_it_is_found(world: World) -> None:
    await fill(world.admin, world.caller.tenant_id, 10_000)
    for wanted in (*CASES, {"tenant_id": world.caller.tenant_id, "error_class": "class_3", "rail": "rail0"}):
        await require_pages(world, **wanted)


@pytest.mark.parametrize("spread", [1, 30, 600])
async def test_a_page_is_the_same_where_many_match_and_all_are_old_by_the_minute_the_hour_or_the_day(
    world: World, monkeypatch: pytest.MonkeyPatch, spread: int
) -> None:
    monkeypatch.setattr(letter_queries, "_NEWEST", 1)
    monkeypatch.setattr(letter_queries, "_SOME", 5)
    await fill(world.admin, world.caller.tenant_id, 3_000)
    await world.admin.execute(
        "UPDATE fleet.dead_letters SET received_at = now() - (now() - received_at) * $1", float(spread)
    )
    for wanted in CASES:
        await require_pages(world, **wanted)
    (newest, *_), oldest = (
        await found(world, 1),
        await world.admin.fetchval("SELECT min(received_at) FROM fleet.dead_letters"),
    )
    middle = oldest + (newest.received_at - oldest) / 2
    within = {"received_after": middle - (middle - oldest) / 3, "received_before": middle}
    assert await require_pages(world, text="provider", rail="rail2", **within) > 80
