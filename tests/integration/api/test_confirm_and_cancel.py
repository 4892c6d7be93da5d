"""Confirm and cancel over the real API: what binds, what is refused, and what a permit decides."""

import asyncio
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest

from core.api.internal import InternalPorts
from core.domain.context import Context
from core.domain.ids import derive_id
from core.services.settling.close_job import close_if_unsent
from core.services.settling.permits import grant_permits
from core.store.settling import attempts, rails
from core.store.settling.evidence import EvidenceStore
from schemas.events import IntentState
from schemas.operations import JobKind
from schemas.permits import PermitRequest
from tests.integration.api.conftest import World, payout
from tests.support.waiting import until_async

YES = {"amount_minor": 100, "fee_minor": 5, "payee_name_masked": "So*** K."}


class _NeverThrottled:
    def throttled(self, rail: str) -> bool:
        return False


async def permit(world: World, intent_id: str) -> str:
    """Ask for the payment's permit as the rail's adapter does; return the answer's word."""
    vault = world.core.worker_ports.vault
    ports = InternalPorts(attempts, rails, vault, _NeverThrottled(), EvidenceStore(vault))
    job = derive_id(UUID(intent_id), "job", JobKind.PAY)
    asked = PermitRequest(request_id=uuid4(), incarnation=uuid4(), job_ids=[job])
    begin = partial(world.core.worker_database.unit_of_work, Context(None, "test"))
    (answer,) = await grant_permits(begin, ports, "noop", "key", asked)
    return answer.answer


async def confirm(world: World, intent_id: str, **changed: Any) -> tuple[int, str]:
    """Confirm with these fields changed; return the status and the state or the code."""
    answer = await world.api.post(f"/v1/intents/{intent_id}/confirm", YES | changed)
    return answer.status_code, answer.json().get("state") or answer.json()["code"]


async def cancel(world: World, intent_id: str) -> tuple[int, str]:
    """Cancel; return the status and the state or the code."""
    answer = await world.api.post(f"/v1/intents/{intent_id}/cancel", {})
    return answer.status_code, answer.json().get("state") or answer.json()["code"]


async def money(world: World, wallet: str) -> tuple[int, int]:
    """Return what the wallet owns and what of it is held."""
    view = (await world.api.get(f"/v1/wallets/{wallet}")).json()
    return view["posted_minor"], view["held_minor"]


async def test_a_confirmation_binds_to_amount_fee_and_name_and_a_repeat_is_the_same(world: World) -> None:
    await world.register(lookup=True)
    wallet = await world.funded_wallet(1000)
    intent = await world.looked_up(wallet)
    shown = (await world.api.get(f"/v1/intents/{intent}")).json()
    assert (shown["state"], shown["lookup"]["fee_minor"]) == ("AWAITING_CONFIRMATION", 5)
    assert (shown["lookup"]["payee_name_masked"], await money(world, wallet)) == ("So*** K.", (1000, 0))
    before = await world.contents()
    for changed in ({"amount_minor": 101}, {"fee_minor": 4}, {"payee_name_masked": "So*** X."}):
        answer = await world.api.post(f"/v1/intents/{intent}/confirm", YES | changed)
        assert (answer.status_code, answer.json()["code"]) == (409, "lookup_mismatch")
        assert answer.json()["field"] == next(iter(changed))
    assert (await confirm(world, intent, fee_minor=5.0))[1] == "invalid_request"
    assert await world.contents() == before
    assert await confirm(world, intent) == (200, "AUTHORIZED")
    authorized = await world.contents()
    assert await confirm(world, intent) == (200, "AUTHORIZED")
    assert await confirm(world, intent, fee_minor=6) == (409, "lookup_mismatch")
    assert await world.contents() == authorized
    assert await money(world, wallet) == (1000, 105)


async def test_ten_confirmations_at_once_hold_once(world: World) -> None:
    await world.register(lookup=True)
    wallet = await world.funded_wallet(1000)
    intent = await world.looked_up(wallet)
    assert set(await asyncio.gather(*(confirm(world, intent) for _ in range(10)))) == {(200, "AUTHORIZED")}
    assert await money(world, wallet) == (1000, 105)
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.jobs WHERE kind = 'pay'") == 1


async def test_only_what_was_looked_up_and_is_still_valid_can_be_confirmed(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    direct = (await world.api.post("/v1/intents", payout(wallet), key="direct")).json()["id"]
    await world.register(lookup=True)
    waiting = (await world.api.post("/v1/intents", payout(wallet), key="waiting")).json()["id"]
    expired = await world.looked_up(wallet, expires_s=-1)
    before = await world.contents()
    assert await confirm(world, direct) == (409, "wrong_state")
    assert await confirm(world, waiting) == (409, "wrong_state")
    assert await confirm(world, expired) == (409, "lookup_expired")
    assert await confirm(world, str(uuid4())) == (404, "not_found")
    assert await confirm(world, "no-id") == (404, "not_found")
    assert await world.contents() == before


async def test_a_confirmation_whose_rail_withdrew_is_refused_before_anything_is_held(world: World) -> None:
    await world.register(lookup=True)
    wallet = await world.funded_wallet(1000)
    intent = await world.looked_up(wallet)
    await world.admin.execute("DELETE FROM fleet.rail_registrations")
    before = await world.contents()
    assert await confirm(world, intent) == (503, "rail_unavailable")
    assert await world.contents() == before


async def test_a_confirmation_without_the_money_fails_and_holds_nothing(world: World) -> None:
    await world.register(lookup=True)
    wallet = await world.funded_wallet(104)
    intent = await world.looked_up(wallet)
    assert await confirm(world, intent) == (200, "FAILED")
    failure = (await world.api.get(f"/v1/intents/{intent}")).json()["failure"]
    assert failure["code"] == "insufficient_funds"
    assert await money(world, wallet) == (104, 0)


async def test_what_was_sent_or_has_ended_cannot_be_cancelled(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    sent = (await world.api.post("/v1/intents", payout(wallet), key="sent")).json()["id"]
    failed = (await world.api.post("/v1/intents", payout(wallet, 5000), key="failed")).json()["id"]
    assert await permit(world, sent) == "GRANTED"
    before = await world.contents()
    assert await cancel(world, sent) == (409, "already_sent")
    assert await cancel(world, failed) == (409, "wrong_state")
    assert await cancel(world, str(uuid4())) == (404, "not_found")
    assert await world.contents() == before


async def test_a_cancelled_payment_gets_no_permit_and_a_repeat_changes_nothing(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    intent = (await world.api.post("/v1/intents", payout(wallet), key="a")).json()["id"]
    assert await cancel(world, intent) == (200, "CANCELLED")
    before = await world.contents()
    assert await cancel(world, intent) == (200, "CANCELLED")
    assert await permit(world, intent) == "CLOSED"
    assert await world.contents() == before
    assert await money(world, wallet) == (1000, 0)


@pytest.mark.parametrize("found", [False, True])
async def test_what_holds_nothing_yet_is_withdrawn_with_its_lookup(world: World, found: bool) -> None:
    await world.register(lookup=True)
    wallet = await world.funded_wallet(1000)
    if found:
        intent = await world.looked_up(wallet)
    else:
        intent = (await world.api.post("/v1/intents", payout(wallet), key="a")).json()["id"]
    assert await cancel(world, intent) == (200, "CANCELLED")
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.jobs WHERE closed_at IS NULL") == 0
    assert await confirm(world, intent) == (409, "wrong_state")


async def test_a_cancel_raced_against_the_permit_gives_one_of_them(world: World) -> None:
    wallet = await world.funded_wallet(10_000)
    bodies = [world.api.post("/v1/intents", payout(wallet), key=f"k{n}") for n in range(40)]
    intents = [answer.json()["id"] for answer in await asyncio.gather(*bodies)]
    outcomes = []
    for n, intent in enumerate(intents):
        pair = (cancel(world, intent), permit(world, intent))
        if n % 2:
            permitted, cancelled = await asyncio.gather(pair[1], pair[0])
        else:
            cancelled, permitted = await asyncio.gather(*pair)
        outcomes.append((cancelled, permitted))
    won = {((200, "CANCELLED"), "CLOSED"), ((200, "CANCELLED"), "BUSY"), ((409, "already_sent"), "GRANTED")}
    assert set(outcomes) <= won
    sent = sum(permitted == "GRANTED" for _, permitted in outcomes)
    assert await money(world, wallet) == (10_000, 100 * sent)


async def until_waiting(world: World, sessions: int) -> None:
    """Return once so many sessions of the database wait for a lock."""
    text = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

    async def enough() -> bool:
        # A transaction keeps its first look at what sessions do.
        await world.admin.execute("SELECT pg_stat_clear_snapshot()")
        return bool(await world.admin.fetchval(text) >= sessions)

    await until_async(enough)


async def test_cancels_at_once_are_one_cancel_and_all_are_told_so(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    intent = (await world.api.post("/v1/intents", payout(wallet), key="a")).json()["id"]
    async with world.admin.transaction():
        await world.admin.execute("SELECT FROM fleet.jobs WHERE intent_id = $1 FOR UPDATE", UUID(intent))
        cancels = [asyncio.create_task(cancel(world, intent)) for _ in range(2)]
        await until_waiting(world, 2)
    assert await asyncio.gather(*cancels) == [(200, "CANCELLED")] * 2
    assert await money(world, wallet) == (1000, 0)


async def test_a_cancel_that_comes_behind_another_end_is_told_of_that_end(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    intent = (await world.api.post("/v1/intents", payout(wallet), key="a")).json()["id"]
    job = derive_id(UUID(intent), "job", JobKind.PAY)
    async with world.core.worker_database.unit_of_work(Context(None, "test")) as uow:
        await close_if_unsent(uow, world.core.worker_ports, [job], to=IntentState.EXPIRED, type="expired")
        late = asyncio.create_task(cancel(world, intent))
        await until_waiting(world, 1)
    assert await late == (409, "wrong_state")
    assert await money(world, wallet) == (1000, 0)


async def test_a_cancel_raced_against_the_confirmation_leaves_no_hold_behind(world: World) -> None:
    await world.register(lookup=True)
    wallet = await world.funded_wallet(10_000)
    for n in range(10):
        intent = await world.looked_up(wallet, key=f"k{n}")
        confirmed, cancelled = await asyncio.gather(confirm(world, intent), cancel(world, intent))
        state = (await world.api.get(f"/v1/intents/{intent}")).json()["state"]
        assert (confirmed, cancelled, state) in {
            ((200, "AUTHORIZED"), (200, "CANCELLED"), "CANCELLED"),
            ((409, "wrong_state"), (200, "CANCELLED"), "CANCELLED"),
        }
    assert await money(world, wallet) == (10_000, 0)
