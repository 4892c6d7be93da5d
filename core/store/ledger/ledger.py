"""The ledger in PostgreSQL: one set-based call for a batch that is safe in every order, judged in order otherwise."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from core.domain.context import Context
from core.domain.ledger import (
    MAX_BALANCE_MINOR,
    ZERO_ID,
    Account,
    AccountBalance,
    AccountChange,
    AccountChangeResult,
    AccountFlags,
    AccountResult,
    Transfer,
    TransferFlags,
    TransferResult,
)
from core.domain.ledger_rules import LedgerState, check_form, judge
from core.services.ledger_port import (
    BalanceAt,
    HistoryCursor,
    HistoryEntry,
    HistoryPage,
    LedgerReport,
    LedgerUnavailableError,
    TrustMisplacedError,
)
from core.store.columns import spare
from core.store.database import Database, UnitOfWork
from core.store.ledger.ledger_proof import prove
from core.store.ledger.ledger_reads import read_balance_at, read_history, read_on, settle_past
from core.store.ledger.ledger_rows import balance_of, chain_columns, transfer_columns, transfer_of

if TYPE_CHECKING:
    from core.store.unit_of_work import Connection

_APPLY = """fleet.ledger_apply($1, $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::bigint[],
    $7::integer[], $8::integer[], $9::smallint[], $10::uuid[], $11::integer[], $12::uuid[], $13::uuid[],
    $14::integer[])"""
_APPLY_CHAINS = """fleet.ledger_apply_chains($1, $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::bigint[],
    $7::integer[], $8::integer[], $9::smallint[], $10::uuid[], $11::integer[], $12::uuid[])"""
_MANY = 16  # from here on, what repeats with each chain is dearer to send than to repeat there

_RACES = 5  # a race is another transaction committing our id between two statements; it then exists


class PostgresLedger:
    """The `Ledger` port on PostgreSQL.

    Joins the caller's unit of work; with None it opens a transaction of its own under `context`.
    """

    def __init__(self, database: Database, context: Context) -> None:
        self._database = database
        self._context = context

    @asynccontextmanager
    async def _joined(self, uow: UnitOfWork | None) -> AsyncIterator[UnitOfWork]:
        if uow is not None:
            yield uow
            return
        async with self._database.unit_of_work(self._context) as own:
            yield own

    async def create_accounts(self, uow: UnitOfWork | None, accounts: Sequence[Account]) -> list[AccountResult]:
        """Create what is missing and answer each account in order."""
        async with self._joined(uow) as joined:
            results = [_account_form(account) for account in accounts]
            fresh: dict[UUID, Account] = {}
            for account, result in zip(accounts, results, strict=True):
                if result is AccountResult.OK:
                    fresh.setdefault(account.id, account)
            rows = await joined.connection.fetch(
                """INSERT INTO fleet.accounts (id, tenant_id, ledger, code, flags, user_data)
                SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::integer[], $5::smallint[], $6::uuid[])
                    AS a(id, tenant_id, ledger, code, flags, user_data) ORDER BY a.id
                ON CONFLICT DO NOTHING RETURNING id""",
                [a.id for a in fresh.values()],
                [a.tenant_id for a in fresh.values()],
                [a.ledger for a in fresh.values()],
                [a.code for a in fresh.values()],
                [int(a.flags) for a in fresh.values()],
                [a.user_data for a in fresh.values()],
            )
            made = {row["id"] for row in rows}
            known = await self.lookup_accounts(joined, list(fresh.keys() - made))
        for index, account in enumerate(accounts):
            if results[index] is not AccountResult.OK:
                continue
            if account.id in made:
                known[account.id] = AccountBalance(fresh[account.id])
                made.discard(account.id)
            elif account.id not in known:
                raise LedgerUnavailableError(f"account {account.id} belongs to another tenant")
            else:
                results[index] = _account_difference(known[account.id].account, account)
        return results

    async def apply(self, uow: UnitOfWork | None, transfers: Sequence[Transfer]) -> list[TransferResult]:
        """Apply the batch in order; each chain as one. Raises LedgerUnavailableError when races do not end.

        A unit of work that is trusting hears that all is taken at once; its end raises TrustMisplacedError if not.
        """
        if not transfers:
            return []
        if _fit_for_one_call(transfers) and await self._take_at_once(uow, transfers):
            return [TransferResult.OK] * len(transfers)
        async with self._joined(uow) as joined:
            # What is to come last has counters to lock: those come before accounts, whoever asks.
            await joined.finish()
            for _ in range(_RACES):
                results = await _apply_in_order(joined, transfers)
                if results is not None:
                    return results
        raise LedgerUnavailableError("a transfer id of this batch belongs to another tenant")

    async def _take_at_once(self, uow: UnitOfWork | None, transfers: Sequence[Transfer]) -> bool:
        """Whether the batch was taken by one call; a trusting unit of work makes it at its end, and hears that it was.

        Without a unit of work the call is its own transaction: hot accounts are held for no round trip.
        """
        call, columns = _call(transfers, exact=False)
        if uow is None:
            return bool(await self._database.value_alone(self._context, call, *columns))
        if uow.trusting:
            await uow.at_last(call, *columns, refused=TrustMisplacedError)
            return True
        return bool(await uow.value_after_writes(call, *columns))

    async def change_account(
        self, uow: UnitOfWork | None, account_id: UUID, change: AccountChange
    ) -> AccountChangeResult:
        """Freeze, unfreeze or close an account of the context's tenant, waiting for the transfers under way on it."""
        async with self._joined(uow) as joined:
            answer = await joined.connection.fetchval(
                "SELECT fleet.ledger_change_account($1, $2, $3)", account_id, joined.context.tenant_id, change
            )
        return AccountChangeResult(answer)

    async def lookup_accounts(self, uow: UnitOfWork | None, ids: Sequence[UUID]) -> dict[UUID, AccountBalance]:
        """Return the accounts that exist and may be seen."""
        async with self._joined(uow) as joined:
            rows = await joined.connection.fetch("SELECT * FROM fleet.accounts WHERE id = ANY ($1::uuid[])", ids)
        return {row["id"]: balance_of(row) for row in rows}

    async def lookup_transfers(self, uow: UnitOfWork | None, ids: Sequence[UUID]) -> dict[UUID, Transfer]:
        """Return the transfers that exist and may be seen."""
        async with self._joined(uow) as joined:
            return await _transfers(joined.connection, ids)

    async def account_history(
        self, uow: UnitOfWork | None, account_id: UUID, cursor: HistoryCursor | None, limit: int
    ) -> HistoryPage:
        """Return a page of posted movements, newest id first, each with the balance after it."""
        async with self._joined(uow) as joined:
            return await read_history(joined.connection, account_id, cursor, limit)

    async def settle_past(self, uow: UnitOfWork | None, account_id: UUID) -> datetime:
        """Wait for the transfers under way on the account; nothing is added to it before the returned moment."""
        async with self._joined(uow) as joined:
            return await settle_past(joined.connection, account_id)

    async def balance_at(self, uow: UnitOfWork | None, account_id: UUID, at: datetime) -> BalanceAt:
        """Return the account's balances just before a settled moment."""
        async with self._joined(uow) as joined:
            return await read_balance_at(joined.connection, account_id, at)

    async def entries_after(
        self, uow: UnitOfWork | None, account_id: UUID, after: HistoryCursor, until: datetime, limit: int
    ) -> Sequence[HistoryEntry]:
        """Return movements after the cursor and before a settled moment, oldest first."""
        async with self._joined(uow) as joined:
            return await read_on(joined.connection, account_id, after, until, limit)

    async def expire(self, uow: UnitOfWork | None, limit: int) -> int:
        """Release up to `limit` holds past their time-out by the database's clock; return how many."""
        async with self._joined(uow) as joined:
            return int(await joined.connection.fetchval("SELECT fleet.ledger_expire($1)", limit))

    async def verify(self, uow: UnitOfWork | None) -> LedgerReport:
        """Prove the balances from the transfers; one statement, hence one snapshot."""
        async with self._joined(uow) as joined:
            return await prove(joined.connection)


def _fit_for_one_call(transfers: Sequence[Transfer]) -> bool:
    """Whether nothing in the batch depends on the batch, and each transfer is well formed."""
    ids = {t.id for t in transfers}
    holds = [t.pending_id for t in transfers if t.pending_id is not None]
    return (
        len(ids) == len(transfers)
        and ids.isdisjoint(holds)
        and len(set(holds)) == len(holds)
        and not transfers[-1].flags & TransferFlags.LINKED
        and ZERO_ID not in ids
        and all(t.amount_minor <= MAX_BALANCE_MINOR and check_form(t) is TransferResult.OK for t in transfers)
    )


async def _apply_in_order(uow: UnitOfWork, transfers: Sequence[Transfer]) -> list[TransferResult] | None:
    """Judge under the accounts' locks and write what is accepted; None when another transaction took an id."""
    results = judge(await _lock_state(uow, transfers), transfers)
    accepted = [t for t, r in zip(transfers, results, strict=True) if r is TransferResult.OK]
    if not accepted:
        return results
    call, columns = _call(accepted, exact=True)
    return results if await uow.value_after_writes(call, *columns) else None


def _call(transfers: Sequence[Transfer], *, exact: bool) -> tuple[str, list[Any]]:
    folded = chain_columns(transfers) if len(transfers) >= _MANY else None
    ids, *others = folded or transfer_columns(transfers)
    return _APPLY_CHAINS if folded else _APPLY, [exact, ids, *map(spare, others)]


async def _lock_state(uow: UnitOfWork, transfers: Sequence[Transfer]) -> LedgerState:
    """Lock the accounts in id order, then read what the batch is judged against."""
    accounts = {a for t in transfers for a in (t.debit_account_id, t.credit_account_id)}
    holds = [t.pending_id for t in transfers if t.pending_id is not None]
    locked = await uow.connection.fetch(
        "SELECT * FROM fleet.accounts WHERE id = ANY ($1::uuid[]) ORDER BY id FOR NO KEY UPDATE",
        list(accounts),
    )
    known = await _transfers(uow.connection, [*(t.id for t in transfers), *holds])
    resolved = await uow.connection.fetch(
        "SELECT pending_id, kind FROM fleet.transfer_resolutions WHERE pending_id = ANY ($1::uuid[])", holds
    )
    expired = await uow.connection.fetch(
        "SELECT id FROM fleet.transfers WHERE id = ANY ($1::uuid[]) AND expires_at <= now()", holds
    )
    return LedgerState(
        accounts={row["id"]: balance_of(row) for row in locked},
        transfers=known,
        resolutions={r["pending_id"]: TransferFlags(r["kind"]) for r in resolved if r["kind"] != 16},
        expired={row["id"] for row in expired} | {r["pending_id"] for r in resolved if r["kind"] == 16},
    )


async def _transfers(connection: "Connection", ids: Sequence[UUID]) -> dict[UUID, Transfer]:
    rows = await connection.fetch("SELECT * FROM fleet.transfers WHERE id = ANY ($1::uuid[])", ids)
    return {row["id"]: transfer_of(row) for row in rows}


def _account_form(account: Account) -> AccountResult:
    both = AccountFlags.DEBITS_MUST_NOT_EXCEED_CREDITS | AccountFlags.CREDITS_MUST_NOT_EXCEED_DEBITS
    if account.id == ZERO_ID:
        return AccountResult.ID_MUST_NOT_BE_ZERO
    if account.flags & both == both:
        return AccountResult.FLAGS_ARE_MUTUALLY_EXCLUSIVE
    if account.ledger <= 0:
        return AccountResult.LEDGER_MUST_NOT_BE_ZERO
    return AccountResult.CODE_MUST_NOT_BE_ZERO if account.code <= 0 else AccountResult.OK


def _account_difference(known: Account, asked: Account) -> AccountResult:
    if known.flags != asked.flags:
        return AccountResult.EXISTS_WITH_DIFFERENT_FLAGS
    if known.user_data != asked.user_data:
        return AccountResult.EXISTS_WITH_DIFFERENT_USER_DATA
    if known.ledger != asked.ledger:
        return AccountResult.EXISTS_WITH_DIFFERENT_LEDGER
    return AccountResult.EXISTS_WITH_DIFFERENT_CODE if known.code != asked.code else AccountResult.EXISTS
