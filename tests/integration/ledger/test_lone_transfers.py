"""A lone transfer goes a shorter way than a batch: whatever it meets, the answer and what is left are the same."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.domain.ledger import MAX_BALANCE_MINOR, Transfer, TransferFlags, TransferResult
from core.domain.ledger_rules import check_form
from core.store.ledger.ledger import PostgresLedger
from core.store.ledger.ledger_rows import transfer_columns
from fleet.stack.provision import RoleUrls
from tests.support.ledger_engines import PostgresUnderTest
from tests.support.ledger_world import EURO, LedgerWorld, fresh_id, open_world
from tests.support.lock_waits import without

_CALL = """SELECT fleet.ledger_apply(false, $1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::bigint[], $6::integer[],
    $7::integer[], $8::smallint[], $9::uuid[], $10::integer[], $11::uuid[], $12::uuid[], $13::integer[])"""
_LEFT = (
    "SELECT to_jsonb(a) - 'moved_at' FROM fleet.accounts a WHERE tenant_id = $1 ORDER BY id",
    """SELECT to_jsonb(t) - '{created_at,chain_id,chain_length}'::text[] FROM fleet.transfers t
    WHERE tenant_id = $1 ORDER BY id""",
    "SELECT to_jsonb(r) - 'resolved_at' FROM fleet.transfer_resolutions r WHERE tenant_id = $1 ORDER BY pending_id",
)
_MOVED = "SELECT id, moved_at FROM fleet.accounts WHERE tenant_id = $1 ORDER BY id"
_UNSTAMPED = """
SELECT count(*) FROM fleet.transfers t JOIN fleet.accounts a ON a.id IN (t.debit_account_id, t.credit_account_id)
LEFT JOIN fleet.transfer_resolutions r ON r.transfer_id = t.id
WHERE t.id = $1 AND (a.moved_at <> t.created_at OR r.resolved_at <> t.created_at)
"""
_EXPIRE = """
SET session_replication_role = replica;
UPDATE fleet.transfers SET expires_at = now() - interval '1 second' WHERE expires_at > now();
RESET session_replication_role
"""
_PLACES = (
    *("wallet", "purse", "bank", "clearing") * 3,
    *("debtor", "shut", "ice", "euros", "nowhere"),
)
_TWISTS: tuple[dict[str, Any], ...] = (
    *({} for _ in range(6)),
    {"code": 8},
    {"ledger": EURO},
    {"user_data": fresh_id()},
    {"tenant_id": fresh_id()},
    {"debit_account_id": fresh_id()},
    {"pending_id": fresh_id()},
)
_STEPS = st.tuples(
    st.sampled_from(["move", "move", "hold", "hold", "post", "post", "void", "again"]),
    st.sampled_from(_PLACES),
    st.sampled_from(_PLACES),
    st.integers(1, 30) | st.sampled_from([MAX_BALANCE_MINOR - 5, MAX_BALANCE_MINOR]),
    st.integers(0, 20),
    st.sampled_from(_TWISTS),
    st.sampled_from([None, None, 3600]),
)


_Steps = Callable[[LedgerWorld], list[Transfer | str]]
"""What happens in a world: transfers that are taken, statements, and at last the transfer in question."""


class Ways:
    """One connection that asks the same of both ways, each from where the ledger stood."""

    def __init__(self, connection: asyncpg.Connection, world: LedgerWorld) -> None:
        self.connection, self.world = connection, world
        self.asked: list[Transfer] = []
        self.held: list[Transfer] = []

    async def agree(self, transfer: Transfer) -> bool:
        """Return what both answer, having left what the lone way leaves."""
        async with self.connection.transaction():  # one, and hence one moment, from which time-outs count
            at_large, lone = [await self._ask(transfer, alone=alone) for alone in (False, True)]
        assert lone == at_large, transfer
        self.asked.append(transfer)
        if lone[0] and transfer.flags & TransferFlags.PENDING:
            self.held.append(transfer)
        return bool(lone[0])

    async def _ask(self, transfer: Transfer, *, alone: bool) -> tuple[bool, list[Any]]:
        """A chain of one is no other transfer, but goes the way of batches."""
        *columns, chain_ids, chain_lengths = transfer_columns([transfer])
        chain = (chain_ids, chain_lengths) if alone else ([transfer.id], [1])
        moved = await self.connection.fetch(_MOVED, self.world.tenant_id)
        question = self.connection.transaction()
        await question.start()
        taken = await self.connection.fetchval(_CALL, *columns, *chain)
        left = [await self.connection.fetch(query, self.world.tenant_id) for query in _LEFT]
        if taken:
            unstamped = await self.connection.fetchval(_UNSTAMPED, transfer.id)
            assert unstamped == 0, "a transfer, its accounts and the end of its hold bear one stamp"
        else:
            assert await self.connection.fetch(_MOVED, self.world.tenant_id) == moved, "a refusal touches no account"
        await (question.commit() if alone else question.rollback())
        return taken, left

    async def expire(self) -> None:
        """Let every time-out pass; nobody has released the holds yet."""
        await self.connection.execute(_EXPIRE)

    def _account(self, name: str) -> UUID:
        known: UUID = fresh_id() if name == "nowhere" else getattr(self.world, name)
        return known

    def drawn(self, step: tuple[Any, ...]) -> Transfer:
        """Return the transfer that a drawn step means here."""
        kind, debit, credit, amount, pick, twist, timeout_s = step
        giver, taker = (self._account(name) for name in (debit, credit))
        if kind == "again":
            made: Transfer = self.asked[pick % len(self.asked)]
        elif kind in ("post", "void") and self.held:
            hold = self.held[pick % len(self.held)]
            part = amount if pick % 4 == 0 else None
            made = self.world.post(hold, part) if kind == "post" else self.world.void(hold, part)
        elif kind == "hold":
            made = self.world.hold(giver, taker, amount, timeout_s=timeout_s)
        else:
            made = self.world.move(giver, taker, amount)
        return replace(made, **twist)


async def _with_money(connection: asyncpg.Connection, world: LedgerWorld) -> Ways:
    """The world's wallets with 40 each, the frozen one as well."""
    ways = Ways(connection, world)
    for wallet in (world.wallet, world.purse, world.ice):
        assert await ways.agree(world.move(world.bank, wallet, 40))
    return ways


async def _run(urls: RoleUrls, steps: list[tuple[Any, ...]]) -> None:
    connection = await asyncpg.connect(urls.admin)
    try:
        async with PostgresUnderTest.opened(uuid4(), urls, joins=False, connections=1) as ledger:
            ways = await _with_money(connection, await open_world(ledger))
        world = ways.world
        for hold in (
            world.hold(world.wallet, world.purse, 20),
            world.hold(world.bank, world.clearing, 9, timeout_s=3600),
            world.hold(world.bank, world.wallet, 5),
        ):
            assert await ways.agree(hold)
        for step in steps:
            transfer = ways.drawn(step)
            if check_form(transfer) is TransferResult.OK:
                await ways.agree(transfer)
            if step[4] == 20:
                await ways.expire()
    finally:
        await connection.close()


def test_both_ways_answer_alike_and_leave_the_same(request: pytest.FixtureRequest, fresh_database: RoleUrls) -> None:
    loop = asyncio.new_event_loop()

    @settings(
        max_examples=request.config.getoption("--examples") or 25,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.lists(_STEPS, min_size=4, max_size=20))
    def draw(steps: list[tuple[Any, ...]]) -> None:
        loop.run_until_complete(_run(fresh_database, steps))

    try:
        draw()
    finally:
        loop.close()


def _held(world: LedgerWorld, **more: Any) -> Transfer:
    return world.hold(world.wallet, world.purse, 10, **more)


def _again(**other: Any) -> _Steps:
    """A hold, and its id again with something else in its place."""

    def steps(world: LedgerWorld) -> list[Transfer | str]:
        hold = _held(world, timeout_s=60, user_data=fresh_id())
        return [hold, replace(hold, **other)]

    return steps


def _end(flag: str, **other: Any) -> _Steps:
    """A hold, and its end with something else in its place."""

    def steps(world: LedgerWorld) -> list[Transfer | str]:
        hold = _held(world)
        return [hold, replace(getattr(world, flag)(hold), **other)]

    return steps


def _full(world: LedgerWorld) -> Transfer:
    """All that an account can hold."""
    return world.hold(world.debtor, world.clearing, MAX_BALANCE_MINOR)


_RELEASE = f"{_EXPIRE}; SELECT fleet.ledger_expire(10)"
_SHUT = """
SET session_replication_role = replica;
UPDATE fleet.accounts SET flags = flags | 12;
RESET session_replication_role
"""
_R = TransferResult
_FIXED: dict[str, tuple[TransferResult, _Steps]] = {
    "a move of all there is": (_R.OK, lambda w: [w.move(w.wallet, w.purse, 40)]),
    "a move to a frozen wallet": (_R.OK, lambda w: [w.move(w.wallet, w.ice, 1)]),
    "a hold of all there is": (_R.OK, lambda w: [w.hold(w.wallet, w.purse, 40, timeout_s=60)]),
    "a hold of all that fits": (_R.OK, lambda w: [_full(w)]),
    "a post": (_R.OK, _end("post")),
    "a post of a part": (_R.OK, _end("post", amount_minor=3)),
    "a post of all that fits": (_R.OK, lambda w: [h := _full(w), w.post(h)]),
    "a post in time": (_R.OK, lambda w: [h := _held(w, timeout_s=60), w.post(h)]),
    "a post between accounts that closed": (_R.OK, lambda w: [h := _held(w), _SHUT, w.post(h)]),
    "a void": (_R.OK, _end("void")),
    "a void between accounts that closed": (_R.OK, lambda w: [h := _held(w), _SHUT, w.void(h)]),
    "an id again": (_R.EXISTS, _again()),
    "an end again": (_R.EXISTS, lambda w: [h := _held(w), p := w.post(h), p]),
    "an id with other flags": (_R.EXISTS_WITH_DIFFERENT_FLAGS, _again(flags=TransferFlags.NONE, timeout_s=None)),
    "an end's id for another hold": (
        _R.EXISTS_WITH_DIFFERENT_PENDING_ID,
        lambda w: [h := _held(w), other := _held(w), p := w.post(h), replace(p, pending_id=other.id)],
    ),
    "an id with another time-out": (_R.EXISTS_WITH_DIFFERENT_TIMEOUT, _again(timeout_s=61)),
    "an id from another account": (
        _R.EXISTS_WITH_DIFFERENT_DEBIT_ACCOUNT_ID,
        lambda w: [h := _held(w), replace(h, debit_account_id=w.bank)],
    ),
    "an id to another account": (
        _R.EXISTS_WITH_DIFFERENT_CREDIT_ACCOUNT_ID,
        lambda w: [h := _held(w), replace(h, credit_account_id=w.bank)],
    ),
    "an id with another amount": (_R.EXISTS_WITH_DIFFERENT_AMOUNT, _again(amount_minor=9)),
    "an id with other user data": (_R.EXISTS_WITH_DIFFERENT_USER_DATA, _again(user_data=None)),
    "an id in another ledger": (_R.EXISTS_WITH_DIFFERENT_LEDGER, _again(ledger=EURO)),
    "an id with another code": (_R.EXISTS_WITH_DIFFERENT_CODE, _again(code=8)),
    "nothing moved": (_R.AMOUNT_MUST_NOT_BE_ZERO, lambda w: [w.move(w.bank, w.wallet, 0)]),
    "from an account to itself": (_R.ACCOUNTS_MUST_BE_DIFFERENT, lambda w: [w.move(w.bank, w.bank, 1)]),
    "from nowhere": (_R.DEBIT_ACCOUNT_NOT_FOUND, lambda w: [w.move(fresh_id(), w.wallet, 1)]),
    "to nowhere": (_R.CREDIT_ACCOUNT_NOT_FOUND, lambda w: [w.move(w.bank, fresh_id(), 1)]),
    "to another ledger": (_R.ACCOUNTS_MUST_HAVE_THE_SAME_LEDGER, lambda w: [w.move(w.bank, w.euros, 1)]),
    "in another ledger": (
        _R.TRANSFER_MUST_HAVE_THE_SAME_LEDGER_AS_ACCOUNTS,
        lambda w: [w.move(w.bank, w.wallet, 1, ledger=EURO)],
    ),
    "an end of nothing": (_R.PENDING_TRANSFER_NOT_FOUND, _end("post", pending_id=fresh_id())),
    "an end of a move": (
        _R.PENDING_TRANSFER_NOT_PENDING,
        lambda w: [m := w.move(w.wallet, w.purse, 10), w.post(m)],
    ),
    "an end from another account": (
        _R.PENDING_TRANSFER_HAS_DIFFERENT_DEBIT_ACCOUNT_ID,
        lambda w: [h := _held(w), replace(w.post(h), debit_account_id=w.bank)],
    ),
    "an end to another account": (
        _R.PENDING_TRANSFER_HAS_DIFFERENT_CREDIT_ACCOUNT_ID,
        lambda w: [h := _held(w), replace(w.post(h), credit_account_id=w.bank)],
    ),
    "an end with another code": (_R.PENDING_TRANSFER_HAS_DIFFERENT_CODE, _end("post", code=8)),
    "a post of more": (_R.EXCEEDS_PENDING_TRANSFER_AMOUNT, _end("post", amount_minor=11)),
    "a void of a part": (_R.PENDING_TRANSFER_HAS_DIFFERENT_AMOUNT, _end("void", amount_minor=9)),
    "a post of what was posted": (
        _R.PENDING_TRANSFER_ALREADY_POSTED,
        lambda w: [h := _held(w), w.post(h, 3), w.post(h)],
    ),
    "a post of what was voided": (_R.PENDING_TRANSFER_ALREADY_VOIDED, lambda w: [h := _held(w), w.void(h), w.post(h)]),
    "a void of what was posted": (_R.PENDING_TRANSFER_ALREADY_POSTED, lambda w: [h := _held(w), w.post(h), w.void(h)]),
    "a void of what was voided": (_R.PENDING_TRANSFER_ALREADY_VOIDED, lambda w: [h := _held(w), w.void(h), w.void(h)]),
    "a post too late": (
        _R.PENDING_TRANSFER_EXPIRED,
        lambda w: [h := _held(w, timeout_s=60), _EXPIRE, w.post(h)],
    ),
    "a void too late": (
        _R.PENDING_TRANSFER_EXPIRED,
        lambda w: [h := _held(w, timeout_s=60), _EXPIRE, w.void(h)],
    ),
    "a post of what was released": (
        _R.PENDING_TRANSFER_EXPIRED,
        lambda w: [h := _held(w, timeout_s=60), _RELEASE, w.post(h)],
    ),
    "from a closed account": (_R.DEBIT_ACCOUNT_ALREADY_CLOSED, lambda w: [w.move(w.shut, w.wallet, 1)]),
    "to a closed account": (_R.CREDIT_ACCOUNT_ALREADY_CLOSED, lambda w: [w.hold(w.wallet, w.shut, 1)]),
    "from a frozen account": (_R.DEBIT_ACCOUNT_FROZEN, lambda w: [w.move(w.ice, w.wallet, 1)]),
    "a hold on a frozen account": (_R.DEBIT_ACCOUNT_FROZEN, lambda w: [w.hold(w.ice, w.wallet, 1)]),
    "more held than there is room": (
        _R.OVERFLOWS_DEBITS_PENDING,
        lambda w: [_full(w), w.hold(w.debtor, w.bank, 1)],
    ),
    "more held for an account than there is room": (
        _R.OVERFLOWS_CREDITS_PENDING,
        lambda w: [_full(w), w.hold(w.bank, w.clearing, 1)],
    ),
    "more taken than there is room": (
        _R.OVERFLOWS_DEBITS_POSTED,
        lambda w: [w.move(w.bank, w.clearing, MAX_BALANCE_MINOR - 119)],
    ),
    "more given than there is room": (
        _R.OVERFLOWS_CREDITS_POSTED,
        lambda w: [h := _full(w), w.post(h), w.move(w.bank, w.clearing, 1)],
    ),
    "more taken than holds leave room": (_R.OVERFLOWS_DEBITS, lambda w: [_full(w), w.move(w.debtor, w.bank, 1)]),
    "more given than holds leave room": (_R.OVERFLOWS_CREDITS, lambda w: [_full(w), w.move(w.bank, w.clearing, 1)]),
    "more than there is": (_R.EXCEEDS_CREDITS, lambda w: [w.move(w.wallet, w.purse, 41)]),
    "more than holds leave": (_R.EXCEEDS_CREDITS, lambda w: [_held(w), w.move(w.wallet, w.purse, 31)]),
    "more than was given": (_R.EXCEEDS_DEBITS, lambda w: [w.move(w.bank, w.debtor, 1)]),
}


@pytest.fixture
async def ways(world: LedgerWorld, admin_connection: asyncpg.Connection) -> Ways:
    return await _with_money(admin_connection, world)


async def _follow(ways: Ways, ledger: PostgresLedger, example: str) -> None:
    """Go through an example: all but its last transfer are taken, and that one is answered as it says."""
    expected, steps = _FIXED[example]
    *before, asked = steps(ways.world)
    assert isinstance(asked, Transfer)
    for step in before:
        if isinstance(step, str):
            await ways.connection.execute(step)
        else:
            assert await ways.agree(step)
    if check_form(asked) is TransferResult.OK:
        assert await ways.agree(asked) is (expected is TransferResult.OK)
    assert await ledger.apply(None, [asked]) == ["exists" if expected is TransferResult.OK else expected]
    report = await ledger.verify(None)
    assert report.holds, report.discrepancies


@pytest.mark.parametrize("example", _FIXED)
async def test_a_lone_transfer_is_answered_as_the_rules_say(ways: Ways, ledger: PostgresLedger, example: str) -> None:
    await _follow(ways, ledger, example)


def test_every_answer_that_takes_a_look_at_the_ledger_has_an_example() -> None:
    by_form = re.compile("linked_|flags_are_mutually|timeout_|.*must_(not_)?be_(zero|different)")
    missing = {name for name in _R if not by_form.match(name)} - {expected for expected, _ in _FIXED.values()}
    assert not missing


_ENDED_ALREADY = """
            AND NOT EXISTS (SELECT FROM fleet.transfer_resolutions r WHERE r.pending_id = p_pending_id)"""
_FITS = "p_amount <= 9223372036854775807 - {0}_pending - {0}_posted"


@pytest.mark.parametrize(
    ("clause", "instead", "example"),
    [
        (_ENDED_ALREADY, "", "a post of what was posted"),
        ("AND (h.expires_at IS NULL OR h.expires_at > now())", "", "a post too late"),
        ("pending := -held", "pending := -p_amount", "a post of a part"),
        ("h.amount_minor > p_amount AND p_flags & 4 = 4", "p_flags & 4 = 4", "a post of more"),
        ("h.amount_minor > p_amount AND p_flags & 4 = 4", "h.amount_minor > p_amount", "a void of a part"),
        ("h.flags & 2 = 2 AND", "", "an end of a move"),
        ("AND h.code = p_code", "", "an end with another code"),
        ("h.debit_account_id = p_debit AND", "", "an end from another account"),
        ("h.credit_account_id = p_credit AND", "", "an end to another account"),
        ("flags & 8 = 0 AND", "", "from a frozen account"),
        ("flags & 4 = 0 AND", "", "to a closed account"),
        ("NOT opens OR", "", "a post between accounts that closed"),
        ("flags & 1 = 0 OR", "true OR", "more than there is"),
        ("flags & 2 = 0 OR", "true OR", "more than was given"),
        (_FITS.format("debits"), "true", "more taken than holds leave room"),
        (_FITS.format("credits"), "true", "more given than holds leave room"),
        ("ledger = p_ledger AND", "", "in another ledger"),
        ("known <> 2 OR", "", "to nowhere"),
        ("IF NOT FOUND THEN RETURN false; END IF;", "", "an id again"),
        (", moved_at = stamp", "", "a post"),
    ],
)
async def test_without_any_of_its_questions_the_shorter_way_is_another(
    ways: Ways, ledger: PostgresLedger, admin_connection: asyncpg.Connection, clause: str, instead: str, example: str
) -> None:
    await without(admin_connection, "fleet.ledger_apply_one", clause, instead)
    with pytest.raises((AssertionError, asyncpg.IntegrityConstraintViolationError)):
        await _follow(ways, ledger, example)
