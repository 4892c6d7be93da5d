"""What QP does with money in: orders with QR codes, payments by them, refunds in parts. No HTTP here."""

import binascii
import secrets
import sqlite3
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from adapters.sbp import verdicts
from adapters.sbp.models import PaymentStatus, QrRequest, QrStatus, QrType, RefundRequest, RefundStatus
from adapters.sbp.simulator.payouts import BANKS, MOSCOW, RUB, date_text, refusal
from adapters.testkit.durable import DurableStore
from adapters.testkit.faults import Fault, FaultScripts
from adapters.testkit.serving import Answer
from schemas.money import AmountError, to_major_text, to_minor

MERCHANT: Final = "MA0000000001"
_PREFIXES: Final = {QrType.STATIC: ("AS", "01"), QrType.DYNAMIC: ("AD", "02")}


@dataclass(slots=True)
class Orders:
    """The provider's acquiring. Every method answers after its commit."""

    store: DurableStore
    faults: FaultScripts
    settle_after_s: float = 1.5

    async def issue(self, request: QrRequest) -> Answer:
        """Issue a code, once per order; an order that is known, cancelled ones too, is refused."""
        try:
            amount_minor = to_minor(request.amount, RUB)
            until = request.qr_expiration_date
            expires_at_s = None if until is None else datetime.fromisoformat(until).timestamp()
        except (AmountError, ValueError):
            return refusal("ERROR.INVALID_REQUEST", 400)

        def work(book: sqlite3.Connection) -> Answer:
            if _order(book, request.order) is not None:
                return refusal(verdicts.ORDER_EXISTS)
            qr_id = _PREFIXES[request.qr_type][0] + secrets.token_hex(15).upper()
            book.execute(
                "INSERT INTO orders (id, qr_id, qr_type, amount_minor, expires_at_s) VALUES (?, ?, ?, ?, ?)",
                (request.order, qr_id, request.qr_type, amount_minor, expires_at_s),
            )
            return _told(book, request.order)

        return await self.store.run(work)

    async def status(self, reference: str) -> Answer:
        """Answer an order with every payment by its code."""
        return await self.store.run(lambda book: _told(book, reference))

    async def cancel(self, reference: str) -> Answer:
        """Bury an order, also one never seen. What was paid stays paid."""

        def work(book: sqlite3.Connection) -> Answer:
            book.execute("INSERT INTO orders (id) VALUES (?) ON CONFLICT DO NOTHING", (reference,))
            book.execute("UPDATE orders SET cancelled = 1 WHERE id = ?", (reference,))
            return _told(book, reference)

        return await self.store.run(work)

    async def pay(self, reference: str, amount: str, status: str, transaction_id: str) -> Answer:
        """Pay by a code as a payer's bank would: any amount, also late and again, as scripts need it.

        The code is named by its order, or by its own id, which is all that a payer sees. The same transaction again
        changes its status and is no second payment.
        """

        def work(book: sqlite3.Connection) -> Answer:
            row = book.execute("SELECT * FROM orders WHERE ? IN (id, qr_id)", (reference,)).fetchone()
            if row is None or row["qr_id"] is None:
                return refusal(verdicts.ORDER_NOT_FOUND, 404)
            amount_minor = to_minor(amount, RUB) if amount else row["amount_minor"]
            name = transaction_id or f"TR{secrets.token_hex(10)}"
            book.execute(
                "INSERT INTO payments VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (transaction_id) DO UPDATE SET status = excluded.status, date = excluded.date",
                (name, row["id"], amount_minor, status, date_text(time.time())),
            )
            return Answer(200, _payment_callback(book, name))

        return await self.store.run(work)

    async def payment_callback(self, reference: str) -> Answer:
        """Return what a callback about the order's last payment says."""

        def work(book: sqlite3.Connection) -> Answer:
            row = book.execute(
                "SELECT transaction_id FROM payments WHERE order_id = ? ORDER BY rowid DESC LIMIT 1", (reference,)
            ).fetchone()
            return (
                refusal(verdicts.ORDER_NOT_FOUND, 404) if row is None else Answer(200, _payment_callback(book, row[0]))
            )

        return await self.store.run(work)

    async def refund(self, request: RefundRequest) -> Answer:
        """Pay a part back, once per refund; the parts of a payment are never more than the whole."""
        fault = self.faults.due(
            request.transaction_id,
            request.refund_id,
            frozenset({Fault.DECLINED, Fault.SLOW_SETTLE}),
            kopecks(request.amount),
        )
        try:
            amount_minor = to_minor(request.amount, RUB)
        except AmountError:
            return refusal("ERROR.INVALID_AMOUNT", 400)

        def work(book: sqlite3.Connection) -> Answer:
            if _refund(book, request.refund_id) is not None:
                return refusal(verdicts.REFUND_EXISTS)
            paid = book.execute(
                "SELECT amount_minor FROM payments WHERE transaction_id = ? AND status = ?",
                (request.transaction_id, PaymentStatus.SUCCESS),
            ).fetchone()
            if paid is None:
                return refusal("ERROR.PAYMENT_NOT_FOUND", 404)
            back = book.execute(
                "SELECT coalesce(sum(amount_minor), 0) FROM refunds WHERE transaction_id = ? AND status <> ?",
                (request.transaction_id, RefundStatus.DECLINED),
            ).fetchone()[0]
            if back + amount_minor > paid[0]:
                return refusal("ERROR.REFUND_INSUFFICIENT_FUNDS")
            slow = fault is Fault.SLOW_SETTLE
            status = RefundStatus.DECLINED if fault is Fault.DECLINED else RefundStatus.COMPLETED
            book.execute(
                "INSERT INTO refunds VALUES (?, ?, ?, ?, ?)",
                (
                    request.refund_id, request.transaction_id, amount_minor,
                    RefundStatus.IN_PROGRESS if slow else status,
                    time.time() + self.settle_after_s if slow else None,
                ),
            )  # fmt: skip
            return _told_refund(book, request.refund_id)

        return await self.store.run(work)

    async def refund_status(self, reference: str) -> Answer:
        """Answer the status of a refund."""
        return await self.store.run(lambda book: _told_refund(book, reference))

    async def whom_and_what(self, reference: str) -> tuple[str, int | None]:
        """Return who is paid by an order and its kopecks, for scripts; nothing where no code was issued."""
        row = await self.store.run(lambda book: _order(book, reference))
        return ("", None) if row is None or row["qr_id"] is None else (MERCHANT, row["amount_minor"])

    async def refund_of_what(self, reference: str) -> tuple[str, int | None]:
        """Return the transaction that a refund pays back and its kopecks, for scripts; nothing where it is unknown."""
        row = await self.store.run(lambda book: _refund(book, reference))
        return ("", None) if row is None else (str(row["transaction_id"]), int(row["amount_minor"]))

    async def settle(self) -> None:
        """Complete the refunds that are due."""

        def work(book: sqlite3.Connection) -> None:
            book.execute(
                "UPDATE refunds SET status = ?, settles_at_s = NULL WHERE settles_at_s <= ?",
                (RefundStatus.COMPLETED, time.time()),
            )

        await self.store.run(work)


def kopecks(amount: str) -> int | None:
    """Return the kopecks of an amount; None where it is none."""
    try:
        return to_minor(amount, RUB)
    except AmountError:
        return None


def link_of(row: sqlite3.Row) -> str:
    """Return the link of a code, with its checksum, as an acquirer issues it."""
    kind = _PREFIXES[QrType(row["qr_type"])][1]
    body = f"https://qr.nspk.ru/{row['qr_id']}?type={kind}&bank={BANKS[0].member_id}&sum={row['amount_minor']}&cur=RUB"
    return f"{body}&crc={binascii.crc_hqx(body.encode(), 0xFFFF):04X}"


def _order(book: sqlite3.Connection, reference: str) -> sqlite3.Row | None:
    row: sqlite3.Row | None = book.execute("SELECT * FROM orders WHERE id = ?", (reference,)).fetchone()
    return row


def _refund(book: sqlite3.Connection, reference: str) -> sqlite3.Row | None:
    row: sqlite3.Row | None = book.execute("SELECT * FROM refunds WHERE id = ?", (reference,)).fetchone()
    return row


def _told(book: sqlite3.Connection, reference: str) -> Answer:
    row = _order(book, reference)
    if row is None:
        return refusal(verdicts.ORDER_NOT_FOUND, 404)
    payments = book.execute("SELECT * FROM payments WHERE order_id = ? ORDER BY rowid", (reference,)).fetchall()
    paid = any(each["status"] == PaymentStatus.SUCCESS for each in payments)
    status = QrStatus.NEW
    if row["cancelled"]:
        status = QrStatus.CANCELLED
    elif paid and row["qr_type"] == QrType.DYNAMIC:
        status = QrStatus.PAID
    elif row["expires_at_s"] is not None and row["expires_at_s"] <= time.time():
        status = QrStatus.EXPIRED
    body: dict[str, Any] = {
        "order": reference,
        "qrStatus": status,
        "payments": [_payment(each) for each in payments],
    }
    if row["qr_id"] is not None:
        body |= {"qrId": row["qr_id"], "qrType": row["qr_type"], "payload": link_of(row)}
    if row["expires_at_s"] is not None:
        body["qrExpirationDate"] = date_text(row["expires_at_s"])
    return Answer(200, body)


def _payment(row: sqlite3.Row) -> dict[str, Any]:
    return {
        "transactionId": row["transaction_id"],
        "amount": orjson.Fragment(to_major_text(row["amount_minor"], RUB)),
        "currency": RUB.code,
        "paymentStatus": row["status"],
        "transactionDate": row["date"],
    }


def _payment_callback(book: sqlite3.Connection, transaction_id: str) -> dict[str, Any]:
    row = book.execute(
        "SELECT p.*, o.qr_id FROM payments p JOIN orders o ON o.id = p.order_id WHERE p.transaction_id = ?",
        (transaction_id,),
    ).fetchone()
    created = datetime.now(MOSCOW).isoformat()
    return {
        **_payment(row),
        "order": row["order_id"],
        "qrId": row["qr_id"],
        "sbpMerchantId": MERCHANT,
        "createDate": created,
    }


def _told_refund(book: sqlite3.Connection, reference: str) -> Answer:
    row = _refund(book, reference)
    if row is None:
        return refusal(verdicts.REFUND_NOT_FOUND, 404)
    body = {
        "refundId": row["id"],
        "transactionId": row["transaction_id"],
        "amount": orjson.Fragment(to_major_text(row["amount_minor"], RUB)),
        "currency": RUB.code,
        "refundStatus": row["status"],
    }
    return Answer(200, body)
