"""An account's history, page by page, with the posted balance after each movement."""

from typing import TYPE_CHECKING
from uuid import UUID

from core.services.ledger_port import HistoryCursor, HistoryEntry, HistoryPage
from core.store.ledger_rows import transfer_of

if TYPE_CHECKING:
    from core.store.unit_of_work import Connection

# Holds (2) and voids (8) move nothing that is posted. Each side has its own index, newest id first.
_PAGE = """
SELECT * FROM (
    (SELECT * FROM fleet.transfers WHERE debit_account_id = $1 AND id < $2 AND flags & 10 = 0
     ORDER BY id DESC LIMIT $3)
    UNION ALL
    (SELECT * FROM fleet.transfers WHERE credit_account_id = $1 AND id < $2 AND flags & 10 = 0
     ORDER BY id DESC LIMIT $3)
) sides ORDER BY id DESC LIMIT $3
"""
_LAST_ID = UUID(int=2**128 - 1)


async def read_history(
    connection: "Connection", account_id: UUID, cursor: HistoryCursor | None, limit: int
) -> HistoryPage:
    """Return up to `limit` movements older than the cursor. An unknown account has an empty history."""
    if cursor is None:
        balance = await connection.fetchval(
            "SELECT credits_posted - debits_posted FROM fleet.accounts WHERE id = $1", account_id
        )
        if balance is None:
            return HistoryPage([], None)
        cursor = HistoryCursor(_LAST_ID, balance)
    rows = await connection.fetch(_PAGE, account_id, cursor.transfer_id, limit + 1)
    entries = []
    balance = cursor.balance_minor
    for row in rows[:limit]:
        transfer = transfer_of(row)
        is_debit = transfer.debit_account_id == account_id
        delta = -transfer.amount_minor if is_debit else transfer.amount_minor
        entries.append(HistoryEntry(transfer, delta, balance))
        balance -= delta
    more = len(rows) > limit
    return HistoryPage(entries, HistoryCursor(entries[-1].transfer.id, balance) if more else None)
