"""An account's past: its movements page by page, and its balances at a moment.

Movements are ordered by their stamp and id. The ledger stamps under the account's lock, each transaction later than the
one before: what a page has shown stays as it is, and what comes later comes at the newer end.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

import asyncpg

from core.services.ledger_port import BalanceAt, HistoryCursor, HistoryEntry, HistoryPage
from core.store.ledger.ledger_rows import transfer_of

if TYPE_CHECKING:
    from core.store.unit_of_work import Connection

# Holds (2) and voids (8) move nothing that is posted. Each side has its own index. One statement is one snapshot: the
# balance is the one that these movements led to.
BACK: Final = """
SELECT sides.*, own.balance FROM (
    (SELECT * FROM fleet.transfers WHERE debit_account_id = $1 AND flags & 10 = 0
        AND (created_at, id) < (coalesce($2, 'infinity'::timestamptz), $3) ORDER BY created_at DESC, id DESC LIMIT $4)
    UNION ALL
    (SELECT * FROM fleet.transfers WHERE credit_account_id = $1 AND flags & 10 = 0
        AND (created_at, id) < (coalesce($2, 'infinity'::timestamptz), $3) ORDER BY created_at DESC, id DESC LIMIT $4)
) sides, (SELECT credits_posted - debits_posted AS balance FROM fleet.accounts WHERE id = $1) own
ORDER BY created_at DESC, id DESC LIMIT $4
"""
ON: Final = """
SELECT * FROM (
    (SELECT * FROM fleet.transfers WHERE debit_account_id = $1 AND flags & 10 = 0
        AND (created_at, id) > ($2, $3) AND created_at < $5 ORDER BY created_at, id LIMIT $4)
    UNION ALL
    (SELECT * FROM fleet.transfers WHERE credit_account_id = $1 AND flags & 10 = 0
        AND (created_at, id) > ($2, $3) AND created_at < $5 ORDER BY created_at, id LIMIT $4)
) sides ORDER BY created_at, id LIMIT $4
"""
# Back from what is there now: less what came at or after the moment, and with what was released since. An account is
# asked through its own indexes alone; a hold is found by its id.
AT: Final = """
SELECT
    (a.credits_posted - a.debits_posted)::numeric
        + coalesce((SELECT sum(amount_minor) FROM fleet.transfers
            WHERE debit_account_id = $1 AND created_at >= $2 AND flags & 10 = 0), 0)
        - coalesce((SELECT sum(amount_minor) FROM fleet.transfers
            WHERE credit_account_id = $1 AND created_at >= $2 AND flags & 10 = 0), 0) AS posted,
    a.debits_pending
        - coalesce((SELECT sum(amount_minor) FROM fleet.transfers
            WHERE debit_account_id = $1 AND created_at >= $2 AND flags & 2 = 2), 0)
        + coalesce((SELECT sum((SELECT h.amount_minor FROM fleet.transfers h WHERE h.id = r.pending_id))
            FROM fleet.transfers r
            WHERE r.debit_account_id = $1 AND r.created_at >= $2 AND r.flags & 12 <> 0), 0)
        + coalesce((SELECT sum(h.amount_minor) FROM fleet.transfers h
            WHERE h.debit_account_id = $1 AND h.expires_at IS NOT NULL AND $2 <= (
                SELECT x.resolved_at FROM fleet.transfer_resolutions x WHERE x.pending_id = h.id AND x.kind = 16)), 0
        ) AS held
FROM fleet.accounts a WHERE a.id = $1
"""
_LAST_ID: Final = UUID(int=2**128 - 1)


async def read_history(
    connection: "Connection", account_id: UUID, cursor: HistoryCursor | None, limit: int
) -> HistoryPage:
    """Return up to `limit` movements before the cursor. An unknown account has an empty history."""
    at, before = (None, _LAST_ID) if cursor is None else (cursor.at, cursor.transfer_id)
    rows = await connection.fetch(BACK, account_id, at, before, limit + 1)
    if not rows:
        return HistoryPage([], None)
    balance = rows[0]["balance"] if cursor is None else cursor.balance_minor
    entries = []
    for row in rows[:limit]:
        entries.append(_entry(row, account_id, balance))
        balance -= entries[-1].delta_minor
    last = entries[-1]
    more = len(rows) > limit
    return HistoryPage(entries, HistoryCursor(last.at, last.transfer.id, balance) if more else None)


async def read_on(
    connection: "Connection", account_id: UUID, after: HistoryCursor, until: datetime, limit: int
) -> Sequence[HistoryEntry]:
    """Return up to `limit` movements after the cursor and before `until`, oldest first."""
    balance, entries = after.balance_minor, []
    for row in await connection.fetch(ON, account_id, after.at, after.transfer_id, limit, until):
        delta = _delta(row, account_id)
        balance += delta
        entries.append(HistoryEntry(transfer_of(row), delta, balance, row["created_at"]))
    return entries


async def read_balance_at(connection: "Connection", account_id: UUID, at: datetime) -> BalanceAt:
    """Return the balances just before a moment that is settled."""
    row = await connection.fetchrow(AT, account_id, at)
    return BalanceAt(0, 0) if row is None else BalanceAt(int(row["posted"]), int(row["held"]))


async def settle_past(connection: "Connection", account_id: UUID) -> datetime:
    """Wait until nobody writes to the account, and return the time: who writes to it from now on stamps later."""
    await connection.execute("SELECT FROM fleet.accounts WHERE id = $1 FOR SHARE", account_id)
    moment: datetime = await connection.fetchval(
        "SELECT greatest(clock_timestamp(), max(moved_at) + interval '1 microsecond')"
        " FROM fleet.accounts WHERE id = $1",
        account_id,
    )
    return moment


def _entry(row: asyncpg.Record, account_id: UUID, balance_minor: int) -> HistoryEntry:
    return HistoryEntry(transfer_of(row), _delta(row, account_id), balance_minor, row["created_at"])


def _delta(row: asyncpg.Record, account_id: UUID) -> int:
    amount: int = row["amount_minor"]
    return -amount if row["debit_account_id"] == account_id else amount
