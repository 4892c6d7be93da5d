"""What IPPS does for money in: codes payable once, their payments, refunds. No HTTP here.

`received` and `refunded` have a row per payment that moved money and no uniqueness at all, as `executed` has.
"""

import hashlib
import secrets
import sqlite3
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from adapters.promptpay.models import QrRequest, QrStatus, RefundRequest, TransferStatus
from adapters.promptpay.simulator.answers import refusal
from adapters.promptpay.simulator.bills import OWN_BILLER
from adapters.testkit.durable import DurableStore
from adapters.testkit.serving import Answer
from schemas.codes.emvco import encode_bill_payment
from schemas.money import AmountError, currency_of, to_major_text, to_minor

QR_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS codes (
    client_ref TEXT PRIMARY KEY, body_hash TEXT, payload TEXT, amount_minor INTEGER NOT NULL DEFAULT 0,
    status TEXT NOT NULL, expires_at REAL, created_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS received (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, client_ref TEXT NOT NULL, psp_txid TEXT NOT NULL, bank_ref TEXT NOT NULL,
    amount_minor INTEGER NOT NULL, status TEXT NOT NULL, received_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS refunded (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, client_ref TEXT NOT NULL, body_hash TEXT NOT NULL, psp_txid TEXT NOT NULL,
    of_txid TEXT NOT NULL, amount_minor INTEGER NOT NULL, refunded_at REAL NOT NULL
);
"""
_THB: Final = currency_of("THB")
_SHOWN: Final = ("client_ref", "payload", "amount_minor", "status")
_CODES: Final = "SELECT client_ref, payload, amount_minor, status FROM codes ORDER BY created_at"


@dataclass(frozen=True, slots=True)
class Paid:
    """One payment that somebody made for a code, whatever the code's state."""

    psp_txid: str
    bank_ref: str
    reference: str
    amount_minor: int
    status: QrStatus


@dataclass(slots=True)
class Codes:
    """The provider's side of money in. Every method answers after its commit."""

    store: DurableStore

    async def make(self, request: QrRequest) -> Answer:
        """Make a code once per reference: the same body again is answered with the same code."""
        try:
            amount_minor = to_minor(request.amount, _THB)
        except AmountError as error:
            return refusal(422, "amount_invalid", str(error))
        until = None if request.expires_at is None else request.expires_at.timestamp()
        if until is not None and until <= time.time():
            return refusal(422, "field_invalid", "expires_at: it has passed")
        hashed = hashlib.sha256(request.model_dump_json().encode()).hexdigest()
        payload = encode_bill_payment(OWN_BILLER, request.ref1, amount_minor=amount_minor, dynamic=until is not None)

        def write(book: sqlite3.Connection) -> Answer:
            known = _code(book, request.client_ref)
            if known is None:
                book.execute(
                    "INSERT INTO codes VALUES (?, ?, ?, ?, 'ACTIVE', ?, ?)",
                    (request.client_ref, hashed, payload, amount_minor, until, time.time()),
                )
            elif known["body_hash"] not in (None, hashed):  # a tombstone has no body
                return refusal(409, "duplicate_reference", "")
            return _answer(book, request.client_ref)

        return await self.store.run(write)

    async def find(self, reference: str) -> Answer:
        """Answer where a code stands, with what was paid for it."""
        return await self.store.run(lambda book: _answer(book, reference))

    async def all(self) -> Answer:
        """Show every code that was made, oldest first."""
        rows = await self.store.run(lambda book: book.execute(_CODES).fetchall())
        return Answer(200, {"codes": [dict(zip(_SHOWN, row, strict=True)) for row in rows]})

    async def cancel(self, reference: str) -> Answer:
        """Bury a code; one that was paid is refused with its status."""

        def bury(book: sqlite3.Connection) -> Answer:
            book.execute(
                "INSERT INTO codes (client_ref, status, created_at) VALUES (?, 'CANCELED', ?)"
                " ON CONFLICT (client_ref) DO UPDATE SET status = 'CANCELED' WHERE codes.status = 'ACTIVE'"
                " AND coalesce(codes.expires_at > excluded.created_at, true)",
                (reference, time.time()),
            )
            answer = _answer(book, reference)
            late = answer.body["status"] in (QrStatus.PAID, QrStatus.RETURNED)
            return Answer(409, {**answer.body, "code": "not_cancelable"}) if late else answer

        return await self.store.run(bury)

    async def pay(self, reference: str, amount_minor: int | None = None, psp_txid: str | None = None) -> Paid | None:
        """Let somebody pay a code, also one that can be paid no more; None where there is no such code."""

        def write(book: sqlite3.Connection) -> Paid | None:
            code = _code(book, reference)
            if code is None or code["payload"] is None:
                return None
            paid = Paid(
                psp_txid or f"QX{secrets.token_hex(10)}",
                f"BK{secrets.token_hex(8)}",
                reference,
                amount_minor or code["amount_minor"],
                QrStatus.PAID,
            )
            once = code["expires_at"] is not None
            if once and code["status"] == QrStatus.ACTIVE and code["expires_at"] > time.time():
                book.execute("UPDATE codes SET status = 'PAID' WHERE client_ref = ?", (reference,))
            book.execute(
                "INSERT INTO received (client_ref, psp_txid, bank_ref, amount_minor, status, received_at)"
                " VALUES (?, ?, ?, ?, 'PAID', ?)",
                (reference, paid.psp_txid, paid.bank_ref, paid.amount_minor, time.time()),
            )
            return paid

        return await self.store.run(write)

    async def take_back(self, psp_txid: str) -> Paid | None:
        """Let the payer's bank take a payment back; None where there is none."""

        def write(book: sqlite3.Connection) -> Paid | None:
            row = book.execute("SELECT * FROM received WHERE psp_txid = ?", (psp_txid,)).fetchone()
            if row is None:
                return None
            book.execute("UPDATE received SET status = 'RETURNED' WHERE psp_txid = ?", (psp_txid,))
            # A static code is payable as before.
            once = "UPDATE codes SET status = 'RETURNED' WHERE client_ref = ? AND expires_at IS NOT NULL"
            book.execute(once, (row["client_ref"],))
            return Paid(psp_txid, row["bank_ref"], row["client_ref"], row["amount_minor"], QrStatus.RETURNED)

        return await self.store.run(write)

    async def refund(self, request: RefundRequest) -> Answer:
        """Pay back once per reference, never more than was paid."""
        amount_minor = to_minor(request.amount, _THB)
        hashed = hashlib.sha256(f"{request.psp_txid}|{request.amount}".encode()).hexdigest()

        def write(book: sqlite3.Connection) -> Answer:
            known = _refund(book, request.client_ref)
            if known is not None:
                same = known["body_hash"] == hashed
                return Answer(200, _as_refund(known)) if same else refusal(409, "duplicate_reference", "")
            paid = book.execute(
                "SELECT sum(amount_minor) FROM received WHERE psp_txid = ? AND status = 'PAID'", (request.psp_txid,)
            ).fetchone()[0]
            if paid is None:
                return refusal(404, "payment_not_found", "no such payment is held")
            back = book.execute(
                "SELECT coalesce(sum(amount_minor), 0) FROM refunded WHERE of_txid = ?", (request.psp_txid,)
            ).fetchone()[0]
            if back + amount_minor > paid:
                return refusal(422, "refund_exceeds_payment", "less is left of the payment")
            book.execute(
                "INSERT INTO refunded (client_ref, body_hash, psp_txid, of_txid, amount_minor, refunded_at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (
                    request.client_ref,
                    hashed,
                    f"RX{secrets.token_hex(10)}",
                    request.psp_txid,
                    amount_minor,
                    time.time(),
                ),
            )
            made = _refund(book, request.client_ref)
            return Answer(200, _as_refund(made)) if made is not None else refusal(500, "lost", "")

        return await self.store.run(write)

    async def whom_and_what(self, reference: str) -> tuple[str, int | None]:
        """Return who is paid by a code and its satang, for scripts; nothing where there is no such code."""
        row = await self.store.run(lambda book: _code(book, reference))
        return ("", None) if row is None or row["payload"] is None else (OWN_BILLER, int(row["amount_minor"]))

    async def refund_of_what(self, reference: str) -> tuple[str, int | None]:
        """Return the payment that a refund pays back and its satang, for scripts; nothing where it is unknown."""
        row = await self.store.run(lambda book: _refund(book, reference))
        return ("", None) if row is None else (str(row["of_txid"]), int(row["amount_minor"]))

    async def find_refund(self, reference: str) -> Answer:
        """Answer the status of a refund by its own reference."""
        row = await self.store.run(lambda book: _refund(book, reference))
        return refusal(404, "refund_not_found", "") if row is None else Answer(200, _as_refund(row))


def _code(book: sqlite3.Connection, reference: str) -> sqlite3.Row | None:
    row: sqlite3.Row | None = book.execute("SELECT * FROM codes WHERE client_ref = ?", (reference,)).fetchone()
    return row


def _refund(book: sqlite3.Connection, reference: str) -> sqlite3.Row | None:
    row: sqlite3.Row | None = book.execute("SELECT * FROM refunded WHERE client_ref = ?", (reference,)).fetchone()
    return row


def _answer(book: sqlite3.Connection, reference: str) -> Answer:
    code = _code(book, reference)
    if code is None:
        return refusal(404, "qr_not_found", "")
    once = code["expires_at"] is not None
    expired = once and code["status"] == QrStatus.ACTIVE and code["expires_at"] <= time.time()
    rows = book.execute("SELECT * FROM received WHERE client_ref = ? ORDER BY seq", (reference,)).fetchall()
    until = None if code["expires_at"] is None else datetime.fromtimestamp(code["expires_at"], UTC).isoformat()
    payments = [
        {
            "psp_txid": row["psp_txid"],
            "bank_ref": row["bank_ref"],
            "amount": to_major_text(row["amount_minor"], _THB),
        }
        for row in rows
    ]
    return Answer(
        200,
        {
            "client_ref": reference,
            "status": QrStatus.EXPIRED if expired else code["status"],
            "payload": code["payload"],
            "amount": to_major_text(code["amount_minor"], _THB) if code["amount_minor"] else None,
            "expires_at": until,
            "payments": payments,
        },
    )


def _as_refund(row: sqlite3.Row) -> dict[str, object]:
    return {
        "client_ref": row["client_ref"],
        "psp_txid": row["psp_txid"],
        "status": TransferStatus.SUCCEEDED,
        "amount": to_major_text(row["amount_minor"], _THB),
    }
