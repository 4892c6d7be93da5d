"""The proof finds every kind of wrong that somebody with the owner's keys could do."""

from collections.abc import Sequence
from uuid import UUID

import asyncpg
import pytest

from core.domain.context import Context
from core.domain.ledger import Transfer
from core.store.database import Database
from core.store.ledger.ledger import PostgresLedger
from tests.support.ledger_world import LedgerWorld, fresh_id, linked

UNFLAGGED = "ALTER TABLE fleet.accounts DROP CONSTRAINT accounts_check, DROP CONSTRAINT accounts_check1"


class Books:
    """A small ledger with each kind of transfer in it, and the means to falsify it: its guards are off."""

    def __init__(self, world: LedgerWorld, connection: asyncpg.Connection) -> None:
        self.world, self.connection = world, connection
        self.fund = world.move(world.bank, world.wallet, 100)
        self.pending, self.voided = (world.hold(world.wallet, world.clearing, 10) for _ in range(2))
        self.posted = world.hold(world.wallet, world.clearing, 20)
        self.timed, self.waiting = (world.hold(world.wallet, world.clearing, 5, timeout_s=60) for _ in range(2))
        self.chain = linked(*(world.move(world.bank, world.purse, 1) for _ in range(3)))
        self.post, self.void = world.post(self.posted, 15), world.void(self.voided)

    def transfers(self) -> Sequence[Transfer]:
        holds = [self.pending, self.posted, self.voided, self.timed, self.waiting]
        return [self.fund, *holds, *self.chain, self.post, self.void]

    async def change(self, sql: str, *arguments: object) -> None:
        assert (await self.connection.execute(sql, *arguments)).rsplit(" ", 1)[1] != "0", "nothing was planted"


@pytest.fixture
async def books(
    ledger: PostgresLedger, worker: Database, world: LedgerWorld, admin_connection: asyncpg.Connection
) -> Books:
    books = Books(world, admin_connection)
    assert set(await ledger.apply(None, books.transfers())) == {"ok"}
    await admin_connection.execute("SET session_replication_role = replica")
    await books.change("UPDATE fleet.transfers SET expires_at = now() WHERE id = $1", books.timed.id)
    assert await PostgresLedger(worker, Context(None, "worker")).expire(None, 10) == 1
    report = await ledger.verify(None)
    assert report.holds
    assert (report.accounts, report.transfers, report.pending_minor) == (8, 11, 15)
    return books


Wrong = tuple[set[tuple[str, UUID | None]], str, tuple[object, ...]]


def _wrongs(books: Books) -> dict[str, Wrong]:
    """What is found, the statement that plants it, its parameters."""
    world, resolution = books.world, "UPDATE fleet.transfer_resolutions SET "
    end = "DELETE FROM fleet.transfer_resolutions WHERE pending_id = $1"
    delete, update = "DELETE FROM fleet.transfers WHERE id = $1", "UPDATE fleet.transfers SET "
    return {
        "a balance": (
            {("balance_differs", world.bank), ("ledger_unbalanced", None)},
            "UPDATE fleet.accounts SET debits_posted = debits_posted + 1 WHERE id = $1", (world.bank,)),
        "two balances that cancel out": (
            {("balance_differs", world.bank), ("balance_differs", world.clearing)},
            ("UPDATE fleet.accounts SET debits_posted = debits_posted + 1, credits_posted = credits_posted + 1"
             " WHERE id = ANY ($1::uuid[])"), ([world.bank, world.clearing],)),
        "a pending balance": (
            {("balance_differs", world.clearing), ("ledger_unbalanced", None)},
            "UPDATE fleet.accounts SET credits_pending = 0 WHERE id = $1", (world.clearing,)),
        "an amount": (
            {("balance_differs", world.bank), ("balance_differs", world.wallet)},
            update + "amount_minor = amount_minor + 1 WHERE id = $1", (books.fund.id,)),
        "a transfer gone": (
            {("balance_differs", world.bank), ("balance_differs", world.wallet)}, delete, (books.fund.id,)),
        "a hold gone": (
            {("balance_differs", world.wallet), ("balance_differs", world.clearing)}, delete, (books.pending.id,)),
        "an account gone": (
            {("account_missing", world.purse), ("ledger_unbalanced", None)},
            "DELETE FROM fleet.accounts WHERE id = $1", (world.purse,)),
        "a link of a chain gone": (
            {("chain_broken", books.chain[0].id), ("balance_differs", world.bank), ("balance_differs", world.purse)},
            delete, (books.chain[1].id,)),
        "a broken flag": (
            {("flag_broken", world.debtor), ("balance_differs", world.debtor), ("ledger_unbalanced", None)},
            "UPDATE fleet.accounts SET credits_posted = 1 WHERE id = $1", (world.debtor,)),
        "another broken flag": (
            {("flag_broken", world.purse), ("balance_differs", world.purse), ("ledger_unbalanced", None)},
            "UPDATE fleet.accounts SET debits_pending = 4 WHERE id = $1", (world.purse,)),
        "a posting whose hold is free again": (
            {("resolution_unfounded", books.post.id), ("balance_differs", world.wallet),
             ("balance_differs", world.clearing)},
            end, (books.posted.id,)),
        "a void turned into a posting": (
            {("resolution_unfounded", books.void.id)}, resolution + "kind = 4 WHERE pending_id = $1",
            (books.voided.id,)),
        "a resolution without its transfer": (
            {("resolution_unfounded", books.pending.id), ("balance_differs", world.wallet),
             ("balance_differs", world.clearing)},
            "INSERT INTO fleet.transfer_resolutions VALUES ($1, $2, 8, $3)",
            (books.pending.id, world.tenant_id, fresh_id())),
        "a resolution of nothing": (
            {("resolution_unfounded", books.fund.id)},
            "INSERT INTO fleet.transfer_resolutions VALUES ($1, $2, 16, NULL)", (books.fund.id, world.tenant_id)),
        "an expiry before its time": (
            {("resolution_unfounded", books.waiting.id), ("balance_differs", world.wallet),
             ("balance_differs", world.clearing)},
            "INSERT INTO fleet.transfer_resolutions VALUES ($1, $2, 16, NULL)", (books.waiting.id, world.tenant_id)),
        "an expiry of a hold without time-out": (
            {("resolution_unfounded", books.timed.id)},
            update + "expires_at = NULL, timeout_s = NULL WHERE id = $1", (books.timed.id,)),
        "a posting of more than was held": (
            {("resolution_unfounded", books.post.id), ("balance_differs", world.wallet),
             ("balance_differs", world.clearing)},
            update + "amount_minor = 21 WHERE id = $1", (books.post.id,)),
        "a posting to another account": (
            {("resolution_unfounded", books.post.id), ("balance_differs", world.bank),
             ("balance_differs", world.clearing)},
            update + "credit_account_id = $2 WHERE id = $1", (books.post.id, world.bank)),
    }  # fmt: skip


async def test_it_finds_every_planted_wrong(books: Books, ledger: PostgresLedger) -> None:
    """Each wrong is planted alone, in a transaction that is committed, seen and undone from a copy."""
    wrongs = _wrongs(books)
    await books.connection.execute(UNFLAGGED)
    for table in ("accounts", "transfers", "transfer_resolutions"):
        await books.connection.execute(f"CREATE TABLE kept_{table} AS TABLE fleet.{table}")
    for name, (found, sql, arguments) in wrongs.items():
        await books.change(sql, *arguments)
        report = await ledger.verify(None)
        assert {(d.kind, d.subject_id) for d in report.discrepancies} == found, name
        assert not report.holds
        for table in ("accounts", "transfers", "transfer_resolutions"):
            await books.connection.execute(f"DELETE FROM fleet.{table}")
            await books.connection.execute(f"INSERT INTO fleet.{table} SELECT * FROM kept_{table}")
        assert (await ledger.verify(None)).holds, name
    kinds = {kind for found, _, _ in wrongs.values() for kind, _ in found}
    assert kinds == {"balance_differs", "account_missing", "flag_broken", "ledger_unbalanced", "chain_broken",
                     "resolution_unfounded"}  # fmt: skip
