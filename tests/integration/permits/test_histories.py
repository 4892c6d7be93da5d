"""Histories and balances of a moment, on a real database with the real ledger."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.services.problems import Refusal
from core.services.wallets.histories import EntryFilter, read_balance_at, read_history
from core.store.ledger import ledger_reads
from schemas.api import IntentRequest, WalletEntry, WalletRequest
from schemas.operations import OperationType
from schemas.wallets import EntrySign
from tests.integration.permits.conftest import World, pay_job
from tests.integration.permits.test_wallet_states import move


async def pages(world: World, wallet: UUID, limit: int, wanted: EntryFilter | None = None) -> list[WalletEntry]:
    """Follow the cursor to the end."""
    items: list[WalletEntry] = []
    cursor = None
    for _ in range(200):
        page = await read_history(world.core.ports, world.caller, wallet, wanted or EntryFilter(), cursor, limit)
        assert len(page.items) <= limit
        items += page.items
        cursor = page.next_cursor
        if cursor is None:
            return items
    raise AssertionError("the cursor has no end")


def runs(entries: list[WalletEntry], opening: int = 0) -> bool:
    """Whether each balance is the one before and the amount."""
    balance = opening
    for entry in reversed(entries):
        balance += entry.amount_minor
        if entry.balance_minor != balance:
            return False
    return True


async def test_a_payment_that_settles_late_comes_at_the_newer_end_and_shifts_no_page(world: World) -> None:
    await world.register()
    wallet, other = await world.wallet(1000), await world.wallet(1)
    early = await world.pay(wallet, 100)
    for amount in (1, 2, 3):
        await move(world, wallet, other, amount)
    first = await read_history(world.core.ports, world.caller, wallet, EntryFilter(), None, 2)
    assert [e.amount_minor for e in first.items] == [-3, -2]
    # It was asked for before the pages, and is posted between them.
    await world.sent(early)
    await world.tell(pay_job(early), "SUCCEEDED")
    second = await read_history(world.core.ports, world.caller, wallet, EntryFilter(), first.next_cursor, 10)
    assert [(e.amount_minor, e.balance_minor) for e in second.items] == [(-1, 999), (1000, 1000)]
    everything = await pages(world, wallet, 2)
    assert [e.amount_minor for e in everything] == [-100, -3, -2, -1, 1000]
    assert runs(everything)


async def test_pages_stay_right_at_every_border_while_payments_arrive(world: World) -> None:
    wallet, other = await world.wallet(10_000), await world.wallet(10_000)
    done = asyncio.Event()

    async def keep_paying() -> None:
        while not done.is_set():
            await asyncio.gather(move(world, wallet, other, 3), move(world, other, wallet, 2))

    paying = asyncio.create_task(keep_paying())
    try:
        for limit in (1, 2, 5):
            await asyncio.gather(*(move(world, wallet, other, 1) for _ in range(5)))
            entries = await pages(world, wallet, limit)
            assert runs(entries)
            assert entries[-1].amount_minor == 10_000
            assert len({e.transfer_id for e in entries}) == len(entries)
    finally:
        done.set()
        await paying


async def test_filters_keep_the_balance_of_each_entry(world: World) -> None:
    await world.register()
    wallet, anna, ben = await world.wallet(1000), await world.wallet(50), await world.wallet(50)
    await move(world, wallet, anna, 10, comment="Lunch, thanks")
    await move(world, ben, wallet, 20, message="rent")
    paid = await world.pay(wallet, 100, comment="invoice 7", message="for the provider")
    await world.sent(paid)
    await world.tell(pay_job(paid), "SUCCEEDED")
    everything = await pages(world, wallet, 100)
    assert [(e.amount_minor, e.comment) for e in everything] == [
        (-100, "invoice 7"), (20, "rent"), (-10, "Lunch, thanks"), (1000, ""),
    ]  # fmt: skip
    cases: list[tuple[dict[str, Any], list[int]]] = [
        ({"operation": OperationType.PAYOUT}, [-100]),
        ({"operation": OperationType.INTERNAL_P2P}, [20, -10]),
        ({"sign": EntrySign.CREDIT}, [20, 1000]),
        ({"sign": EntrySign.DEBIT}, [-100, -10]),
        ({"counterparty_wallet_id": anna}, [-10]),
        ({"comment": "LUNCH"}, [-10]),
        ({"state": "SETTLED", "comment": "r"}, [20]),
        ({"state": "FAILED"}, []),
        ({"begin": everything[2].at, "end": everything[0].at}, [20, -10]),
        ({"end": everything[3].at}, []),
        ({"end": datetime.now(UTC) + timedelta(days=9)}, [-100, 20, -10, 1000]),
    ]
    for asked, amounts in cases:
        for limit in (1, 100):
            found = await pages(world, wallet, limit, EntryFilter(**asked))
            assert [e.amount_minor for e in found] == amounts, asked
            assert [e for e in everything if e in found] == found, asked


async def test_a_cursor_that_is_not_ours_is_refused(world: World) -> None:
    wallet = await world.wallet(1)
    for cursor in ("nonsense", "MXwyfDM", "MXwyfDN8NA"):
        with pytest.raises(Refusal) as caught:
            await read_history(world.core.ports, world.caller, wallet, EntryFilter(), cursor, 1)
        assert caught.value.code == "cursor_malformed"


async def test_an_owner_has_wallets_of_many_currencies_and_an_external_id_finds_one(world: World) -> None:
    wallets = world.core.wallets
    made = [
        (await wallets.create(world.caller, WalletRequest(owner="dan", currency=each, external_id=f"dan-{each}")))[0]
        for each in ("THB", "USD", "JPY")
    ]
    await wallets.create(world.caller, WalletRequest(owner="eve", currency="THB"))
    first = await wallets.owned(world.caller, "dan", None, 2)
    rest = await wallets.owned(world.caller, "dan", first.next_cursor, 2)
    assert [*first.items, *rest.items] == made
    assert rest.next_cursor is None
    assert (await wallets.named(world.caller, "dan-USD")).items == [made[1]]
    assert (await wallets.named(world.caller, "dan")).items == []


STEP = st.tuples(st.sampled_from(["in", "out", "hold", "post", "void", "return"]), st.integers(1, 50))


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(STEP, min_size=3, max_size=10))
async def test_the_balance_of_any_moment_is_what_the_transfers_until_then_say(
    world: World, steps: list[tuple[str, int]]
) -> None:
    await world.register()
    wallet, other = await world.wallet(100), await world.wallet(1000)
    moments = [(await read_balance_at(world.core.ports, world.caller, wallet, None))]
    open_holds: list[UUID] = []
    for what, amount in steps:
        if what == "in":
            await move(world, other, wallet, amount)
        elif what == "out":
            await move(world, wallet, other, amount)
        elif what == "hold":
            held = await world.pay(wallet, amount)
            if (await world.state(held))[0] == "AUTHORIZED":
                open_holds.append(held)
        elif open_holds:
            held = open_holds.pop()
            await world.sent(held)
            verdict = "DECLINED" if what == "void" else "SUCCEEDED"
            await world.tell(pay_job(held), verdict)
            if what == "return":
                await world.tell(pay_job(held), "RETURNED", basis="REFERENCE_STATUS")
        posted, held_minor = await world.money(wallet)
        moments.append(await read_balance_at(world.core.ports, world.caller, wallet, None))
        assert (moments[-1].posted_minor, moments[-1].held_minor) == (posted, held_minor)
    for known in moments:
        again = await read_balance_at(world.core.ports, world.caller, wallet, known.at)
        assert again == known
        assert await summed(world, wallet, known.at) == (known.posted_minor, known.held_minor)
    nothing = await read_balance_at(world.core.ports, world.caller, wallet, datetime(2020, 1, 1, tzinfo=UTC))
    assert (nothing.posted_minor, nothing.held_minor) == (0, 0)


async def summed(world: World, wallet: UUID, at: datetime) -> tuple[int, int]:
    """Sum the wallet's transfers forward to a moment, in Python."""
    rows = await world.admin.fetch(
        "SELECT * FROM fleet.transfers WHERE created_at < $2 AND $1 IN (debit_account_id, credit_account_id)",
        wallet,
        at,
    )
    ended = {row["pending_id"] for row in rows if row["flags"] & 12}
    posted = held = 0
    for row in rows:
        sign = -1 if row["debit_account_id"] == wallet else 1
        if not row["flags"] & 10:
            posted += sign * row["amount_minor"]
        if row["flags"] & 2 and sign < 0 and row["id"] not in ended:
            held += row["amount_minor"]
    return posted, held


async def test_a_moment_that_has_not_come_has_no_balance(world: World) -> None:
    wallet = await world.wallet(1)
    with pytest.raises(Refusal) as caught:
        await read_balance_at(world.core.ports, world.caller, wallet, datetime.now(UTC) + timedelta(hours=1))
    assert caught.value.code == "moment_not_past"


async def test_a_held_payment_of_before_a_time_out_counts_until_it_expired(world: World) -> None:
    wallet, other = await world.wallet(100), await world.wallet(1)
    request = IntentRequest.model_validate({
        "operation": "INTERNAL_P2P", "wallet_id": wallet, "counterparty_wallet_id": other, "amount_minor": 40,
        "currency": "THB", "requires_monitoring": True,
    })  # fmt: skip
    await world.core.accept.accept(world.caller, "timed", request)
    async with world.uow() as uow:
        held = await world.admin.fetchrow("SELECT * FROM fleet.transfers WHERE debit_account_id = $1", wallet)
        assert held is not None
    before = await read_balance_at(world.core.ports, world.caller, wallet, None)
    await world.admin.execute("SET session_replication_role = replica")
    await world.admin.execute(
        "UPDATE fleet.transfers SET timeout_s = 1, expires_at = now() - interval '1 second' WHERE id = $1", held["id"]
    )
    await world.admin.execute("SET session_replication_role = DEFAULT")
    async with world.uow() as uow:
        assert await world.core.worker_ports.ledger.expire(uow, 10) == 1
    after = await read_balance_at(world.core.ports, world.caller, wallet, None)
    assert (before.held_minor, after.held_minor) == (40, 0)
    assert await read_balance_at(world.core.ports, world.caller, wallet, before.at) == before


# Forty thousand transfers of two months between two hundred other accounts, and their statistics.
_CROWD = """
SET session_replication_role = replica;
INSERT INTO fleet.transfers (id, tenant_id, debit_account_id, credit_account_id, amount_minor, ledger, code, flags,
    pending_id, created_at)
SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || lpad(to_hex(n), 20, '0'))::uuid,
    gen_random_uuid(), md5('a' || n % 200)::uuid, md5('b' || n % 200)::uuid, 1, 764, 1,
    CASE n % 2 WHEN 0 THEN 2 ELSE 4 END,
    CASE n % 2 WHEN 1 THEN gen_random_uuid() END, at
FROM (SELECT n, now() - n * interval '2 minutes' AS at FROM generate_series(1, 40000) n) moments;
SET session_replication_role = DEFAULT;
ANALYZE fleet.transfers;
"""


async def test_the_past_of_an_account_is_read_through_its_own_indexes_alone(world: World) -> None:
    wallet = await world.wallet(1)
    await world.admin.execute(_CROWD)
    now, last = datetime.now(UTC), UUID(int=2**128 - 1)
    statements: list[tuple[str, list[Any]]] = [
        (ledger_reads.BACK, [wallet, None, last, 100]),
        (ledger_reads.ON, [wallet, now - timedelta(days=30), UUID(int=0), 100, now]),
        (ledger_reads.AT, [wallet, now - timedelta(days=1)]),
    ]
    used = await world.admin.fetch(
        "SELECT tableoid::regclass::text AS name, count(*) AS transfers FROM fleet.transfers GROUP BY 1"
    )
    assert len(used) >= 2, used
    # What a month has in its first hours is a page or two: nothing is read sooner than those.
    large = {row["name"].removeprefix("fleet.") for row in used if row["transfers"] > 1000}
    assert large, used
    async with world.uow() as uow:
        for text, arguments in statements:
            plan = "\n".join(row[0] for row in await uow.connection.fetch(f"EXPLAIN {text}", *arguments))
            scanned = set(re.findall(r"Seq Scan on (\w+)", plan))
            assert scanned.isdisjoint(large), plan
            assert "created_at_id_idx" in plan, plan
