"""The provider's own book: what it checked, what it was asked to pay, and each payout that it executed.

`executed` has a row per payout that moved money and no uniqueness at all: were a reference ever executed twice, two
rows would say so. Everything that decides is in `payouts`.
"""

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from adapters.testkit.durable import read_rows

SCHEMA = """
CREATE TABLE IF NOT EXISTS checks (
    check_id TEXT PRIMARY KEY, phone TEXT NOT NULL, bank_alias TEXT NOT NULL, amount_minor INTEGER NOT NULL,
    expires_at_s REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS payouts (
    id TEXT PRIMARY KEY, transaction_id TEXT NOT NULL, phone TEXT NOT NULL, bank_alias TEXT NOT NULL,
    amount_minor INTEGER NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '', status_date TEXT NOT NULL,
    check_expires_at_s REAL NOT NULL, settles_at_s REAL, ends_as TEXT NOT NULL DEFAULT '', created_at_s REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS payouts_settling ON payouts (settles_at_s) WHERE settles_at_s IS NOT NULL;
CREATE TABLE IF NOT EXISTS executed (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, transaction_id TEXT NOT NULL, payee TEXT NOT NULL,
    amount_minor INTEGER NOT NULL, executed_at_s REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS orders (
    id TEXT PRIMARY KEY, qr_id TEXT, qr_type TEXT NOT NULL DEFAULT '', amount_minor INTEGER, expires_at_s REAL,
    cancelled INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS payments (
    transaction_id TEXT PRIMARY KEY, order_id TEXT NOT NULL, amount_minor INTEGER NOT NULL, status TEXT NOT NULL,
    date TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS refunds (
    id TEXT PRIMARY KEY, transaction_id TEXT NOT NULL, amount_minor INTEGER NOT NULL, status TEXT NOT NULL,
    settles_at_s REAL
);
"""


@dataclass(frozen=True, slots=True)
class Executed:
    """One payout that moved money."""

    reference: str
    transaction_id: str
    payee: str
    amount_minor: int
    executed_at_s: float


def read_book(path: Path) -> list[Executed]:
    """Return every executed payout in order, also while the simulator runs. A missing file is an empty book."""
    query = "SELECT id, transaction_id, payee, amount_minor, executed_at_s FROM executed ORDER BY seq"
    return [Executed(*row) for row in read_rows(path, query)]


def read_received(path: Path) -> list[Executed]:
    """Return every payment by a code that succeeded, as `read_book` does; its payee is us."""
    query = "SELECT order_id, transaction_id, '', amount_minor, 0 FROM payments WHERE status = 'SUCCESS' ORDER BY rowid"
    return [Executed(*row) for row in read_rows(path, query)]


def read_refunds(path: Path) -> list[Executed]:
    """Return every refund that was paid back, as `read_book` does; its payee is the payment refunded."""
    query = (
        "SELECT id, id, transaction_id, amount_minor, coalesce(settles_at_s, 0) FROM refunds"
        " WHERE status = 'COMPLETED' ORDER BY rowid"
    )
    return [Executed(*row) for row in read_rows(path, query)]


def save_check(book: sqlite3.Connection, check: tuple[str, str, str, int], expires_at_s: float) -> None:
    """Keep one check: its id, phone, bank and amount."""
    book.execute("INSERT INTO checks VALUES (?, ?, ?, ?, ?)", (*check, expires_at_s))


def find_check(book: sqlite3.Connection, check_id: str) -> sqlite3.Row | None:
    """Return one check."""
    row: sqlite3.Row | None = book.execute("SELECT * FROM checks WHERE check_id = ?", (check_id,)).fetchone()
    return row


def find_payout(book: sqlite3.Connection, reference: str) -> sqlite3.Row | None:
    """Return the payout of a reference."""
    row: sqlite3.Row | None = book.execute("SELECT * FROM payouts WHERE id = ?", (reference,)).fetchone()
    return row


def payout(book: sqlite3.Connection, reference: str) -> sqlite3.Row:
    """Return a payout that is known to exist. Raises LookupError."""
    row = find_payout(book, reference)
    if row is None:
        raise LookupError(reference)
    return row


def move(book: sqlite3.Connection, reference: str, status: str, date: str, reason: str = "") -> None:
    """Give a payout its status; whatever it waited for is over."""
    book.execute(
        "UPDATE payouts SET status = ?, reason = ?, status_date = ?, settles_at_s = NULL WHERE id = ?",
        (status, reason, date, reference),
    )


def execute(book: sqlite3.Connection, reference: str, date: str, now_s: float) -> None:
    """Move the money of a payout: the row that the proof counts."""
    move(book, reference, "COMPLETED", date)
    book.execute(
        "INSERT INTO executed (id, transaction_id, payee, amount_minor, executed_at_s)"
        " SELECT id, transaction_id, phone || '@' || bank_alias, amount_minor, ? FROM payouts WHERE id = ?",
        (now_s, reference),
    )


def due(book: sqlite3.Connection, now_s: float) -> list[sqlite3.Row]:
    """Return the payouts whose end is due: those in progress, and drafts whose check ran out."""
    return book.execute("SELECT * FROM payouts WHERE settles_at_s <= ?", (now_s,)).fetchall()
