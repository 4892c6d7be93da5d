"""Transfers per second on ten hot accounts, in batches and one by one, beside a peer that takes one per transaction.

The peer has pgledger's shape (SQL functions that lock two account rows, check, insert one transfer and two entries),
written here anew, on the same server in the same run, in a schema of its own that is dropped afterwards.
"""

import asyncio
import itertools
import time
from uuid import UUID

import asyncpg

from bench.measurement import Measurement, at_least, shown
from core.domain.context import Context
from core.domain.ids import mint_id
from core.domain.ledger import Account, AccountFlags, Transfer, system_account_id
from core.store.database import Database
from core.store.ledger.ledger import PostgresLedger
from fleet.stack.tenant import TENANT

LEDGER, CODE = 764, 1
_HOT, _PAYERS = 10, 2000
_SECONDS = 6.0
_CONNECTIONS = 2

_PEER = """
CREATE SCHEMA bench_peer;
CREATE TABLE bench_peer.accounts (id uuid PRIMARY KEY, balance bigint NOT NULL, allow_negative boolean NOT NULL,
    version bigint NOT NULL DEFAULT 0, created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz);
CREATE TABLE bench_peer.transfers (id uuid PRIMARY KEY, from_account uuid NOT NULL, to_account uuid NOT NULL,
    amount bigint NOT NULL CHECK (amount > 0), created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE bench_peer.entries (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account_id uuid NOT NULL,
    transfer_id uuid NOT NULL, amount bigint NOT NULL, previous_balance bigint NOT NULL,
    current_balance bigint NOT NULL, account_version bigint NOT NULL, created_at timestamptz NOT NULL DEFAULT now());
CREATE INDEX ON bench_peer.entries (account_id);
CREATE INDEX ON bench_peer.entries (transfer_id);
CREATE FUNCTION bench_peer.entry(p_account uuid, p_transfer uuid, p_amount bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE found bench_peer.accounts;
BEGIN
    UPDATE bench_peer.accounts SET balance = balance + p_amount, version = version + 1, updated_at = now()
    WHERE id = p_account RETURNING * INTO found;
    IF found.balance < 0 AND NOT found.allow_negative THEN RAISE EXCEPTION 'balance would be negative'; END IF;
    INSERT INTO bench_peer.entries
        (account_id, transfer_id, amount, previous_balance, current_balance, account_version)
    VALUES (p_account, p_transfer, p_amount, found.balance - p_amount, found.balance, found.version);
END $$;
CREATE FUNCTION bench_peer.transfer(p_id uuid, p_from uuid, p_to uuid, p_amount bigint) RETURNS uuid
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM bench_peer.accounts WHERE id IN (p_from, p_to) ORDER BY id FOR UPDATE;
    INSERT INTO bench_peer.transfers VALUES (p_id, p_from, p_to, p_amount);
    PERFORM bench_peer.entry(p_from, p_id, -p_amount);
    PERFORM bench_peer.entry(p_to, p_id, p_amount);
    RETURN p_id;
END $$;
"""


async def run(admin_url: str, app_url: str) -> list[Measurement]:
    """Measure the ledger at batch 1, 100 and 1,000, and the peer on as many connections and on eight."""
    context = Context(TENANT, "bench")
    database = await Database.connect(app_url, min_size=_CONNECTIONS, max_size=_CONNECTIONS, application_name="bench")
    ledger = PostgresLedger(database, context)
    payers = [mint_id(time.time_ns() // 1_000_000) for _ in range(_PAYERS)]
    hot = [system_account_id(TENANT, LEDGER, CODE, f"bench-{number}") for number in range(_HOT)]
    await ledger.create_accounts(None, [_account(each) for each in payers + hot])
    try:
        ours = {batch: await _ours(ledger, payers, hot, batch) for batch in (1, 100, 1000)}
        peer = await _peer(admin_url, payers, hot)
    finally:
        await database.close()
    return [
        shown("ledger, batch 1", ours[1], "transfers/s"),
        shown("ledger, batch 100", ours[100], "transfers/s"),
        at_least("ledger, batch 1000", ours[1000], "transfers/s", 20_000),
        *(shown(f"peer, one a transaction, {n} connections", rate, "transfers/s") for n, rate in peer.items()),
        at_least(f"batch 1000 against the peer on as many connections ({_CONNECTIONS})",
                 ours[1000] / peer[_CONNECTIONS], "x", 10),
        shown("batch 1000 against the peer on 8 connections", ours[1000] / peer[8], "x"),
    ]  # fmt: skip


def _account(account_id: UUID) -> Account:
    return Account(account_id, TENANT, LEDGER, CODE, AccountFlags.NONE)


async def _ours(ledger: PostgresLedger, payers: list[UUID], hot: list[UUID], batch: int) -> float:
    """Return transfers per second over the connections, every credit on one of the hot accounts."""
    stop_at, numbers, done = time.monotonic() + _SECONDS, itertools.count(), 0

    async def work() -> None:
        nonlocal done
        while time.monotonic() < stop_at:
            transfers = [_transfer(next(numbers), payers, hot) for _ in range(batch)]
            results = await ledger.apply(None, transfers)
            assert all(result == "ok" for result in results), results[:3]
            done += batch

    started = time.monotonic()
    await asyncio.gather(*(work() for _ in range(_CONNECTIONS)))
    return done / (time.monotonic() - started)


def _transfer(number: int, payers: list[UUID], hot: list[UUID]) -> Transfer:
    return Transfer(
        id=mint_id(time.time_ns() // 1_000_000),
        tenant_id=TENANT,
        debit_account_id=payers[number % len(payers)],
        credit_account_id=hot[number % len(hot)],
        amount_minor=100,
        ledger=LEDGER,
        code=CODE,
    )


async def _peer(admin_url: str, payers: list[UUID], hot: list[UUID]) -> dict[int, float]:
    """Return the peer's transfers per second by number of connections."""
    connection = await asyncpg.connect(admin_url)
    try:
        await connection.execute(_PEER)
        await connection.executemany(
            "INSERT INTO bench_peer.accounts (id, balance, allow_negative) VALUES ($1, 0, true)",
            [(each,) for each in payers + hot],
        )
        return {each: await _peer_with(admin_url, payers, hot, each) for each in (_CONNECTIONS, 8)}
    finally:
        await connection.execute("DROP SCHEMA IF EXISTS bench_peer CASCADE")
        await connection.close()


async def _peer_with(admin_url: str, payers: list[UUID], hot: list[UUID], connections: int) -> float:
    pool = await asyncpg.create_pool(admin_url, min_size=connections, max_size=connections)
    stop_at, numbers, done = time.monotonic() + _SECONDS, itertools.count(), 0

    async def work() -> None:
        nonlocal done
        async with pool.acquire() as own:
            while time.monotonic() < stop_at:
                each = _transfer(next(numbers), payers, hot)
                await own.execute(
                    "SELECT bench_peer.transfer($1, $2, $3, $4)",
                    each.id,
                    each.debit_account_id,
                    each.credit_account_id,
                    each.amount_minor,
                )
                done += 1

    started = time.monotonic()
    await asyncio.gather(*(work() for _ in range(connections)))
    await pool.close()
    return done / (time.monotonic() - started)
