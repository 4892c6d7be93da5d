"""The provider's own book: what it looked up, what it was asked to pay, and each payment it executed.

`executed` has a row per payment that moved money and no uniqueness at all: were a reference ever executed twice, two
rows would say so. Everything that decides is in `transfers`.
"""

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from adapters.promptpay.simulator.bills import pay_own_code
from adapters.testkit.durable import read_rows

SCHEMA = """
CREATE TABLE IF NOT EXISTS lookups (
    lookup_id TEXT PRIMARY KEY, proxy_type TEXT NOT NULL, proxy TEXT NOT NULL, amount_minor INTEGER NOT NULL,
    payee_name TEXT NOT NULL, fee_minor INTEGER NOT NULL, expires_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS transfers (
    client_ref TEXT PRIMARY KEY, body_hash TEXT, psp_txid TEXT, payee TEXT NOT NULL DEFAULT '',
    amount_minor INTEGER NOT NULL DEFAULT 0, status TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
    settles_at REAL, created_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS transfers_settling ON transfers (settles_at) WHERE settles_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS executed (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, client_ref TEXT NOT NULL, psp_txid TEXT NOT NULL, payee TEXT NOT NULL,
    amount_minor INTEGER NOT NULL, executed_at REAL NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class Executed:
    """One payment that moved money."""

    reference: str
    psp_txid: str
    payee: str
    amount_minor: int
    executed_at: float


def read_book(path: Path) -> list[Executed]:
    """Return every executed payment in order, also while the simulator runs. A missing file is an empty book."""
    query = "SELECT client_ref, psp_txid, payee, amount_minor, executed_at FROM executed ORDER BY seq"
    return [Executed(*row) for row in read_rows(path, query)]


def read_received(path: Path) -> list[Executed]:
    """Return every payment of a code, in order, as `read_book` does; its payee is us."""
    query = "SELECT client_ref, psp_txid, '', amount_minor, received_at FROM received ORDER BY seq"
    return [Executed(*row) for row in read_rows(path, query)]


def read_refunds(path: Path) -> list[Executed]:
    """Return every refund that was paid back, in order, as `read_book` does; its payee is the payment refunded."""
    query = "SELECT client_ref, psp_txid, of_txid, amount_minor, refunded_at FROM refunded ORDER BY seq"
    return [Executed(*row) for row in read_rows(path, query)]


def save_lookup(book: sqlite3.Connection, lookup: tuple[str, str, str, int, str, int, float]) -> None:
    """Keep one lookup."""
    book.execute("INSERT INTO lookups VALUES (?, ?, ?, ?, ?, ?, ?)", lookup)


def find_transfer(book: sqlite3.Connection, reference: str) -> sqlite3.Row | None:
    """Return the transfer, or tombstone, of a reference."""
    row: sqlite3.Row | None = book.execute("SELECT * FROM transfers WHERE client_ref = ?", (reference,)).fetchone()
    return row


def find_lookup(book: sqlite3.Connection, lookup_id: str) -> sqlite3.Row | None:
    """Return one lookup."""
    row: sqlite3.Row | None = book.execute("SELECT * FROM lookups WHERE lookup_id = ?", (lookup_id,)).fetchone()
    return row


def execute(book: sqlite3.Connection, reference: str, now: float) -> None:
    """Move the money of a transfer: the row that the proof counts."""
    book.execute("UPDATE transfers SET status = 'SUCCEEDED', settles_at = NULL WHERE client_ref = ?", (reference,))
    book.execute(
        "INSERT INTO executed (client_ref, psp_txid, payee, amount_minor, executed_at)"
        " SELECT client_ref, psp_txid, payee, amount_minor, ? FROM transfers WHERE client_ref = ?",
        (now, reference),
    )
    paid = find_transfer(book, reference)
    if paid is not None:
        pay_own_code(book, paid["payee"], paid["amount_minor"], now)


def settle_due(book: sqlite3.Connection, now: float) -> list[str]:
    """Execute the transfers whose settlement is due; return their references."""
    due = [row["client_ref"] for row in book.execute("SELECT client_ref FROM transfers WHERE settles_at <= ?", (now,))]
    for reference in due:
        execute(book, reference, now)
    return due


def end(book: sqlite3.Connection, reference: str, status: str, reason: str) -> None:
    """Give a transfer a status that moves no money of its own."""
    book.execute(
        "UPDATE transfers SET status = ?, reason = ?, settles_at = NULL WHERE client_ref = ?",
        (status, reason, reference),
    )


def bury(book: sqlite3.Connection, reference: str, now: float) -> sqlite3.Row:
    """Cancel by reference: a transfer not yet executed, or one never seen, can never be executed any more."""
    book.execute(
        "INSERT INTO transfers (client_ref, status, reason, created_at) VALUES (?, 'CANCELED', 'canceled_by_client', ?)"
        " ON CONFLICT (client_ref) DO UPDATE SET status = 'CANCELED', reason = 'canceled_by_client', settles_at = NULL"
        " WHERE transfers.status = 'PROCESSING'",
        (reference, now),
    )
    row = find_transfer(book, reference)
    if row is None:
        raise LookupError(reference)
    return row
