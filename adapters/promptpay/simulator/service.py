"""What IPPS does: lookups, transfers idempotent by reference, inquiry, tombstones, settlement. No HTTP here."""

import hashlib
import secrets
import sqlite3
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from adapters.promptpay.models import Channel, LookupRequest, TransferRequest, TransferStatus
from adapters.promptpay.simulator import bills
from adapters.promptpay.simulator import book as books
from adapters.promptpay.simulator.answers import refusal
from adapters.testkit.durable import DurableStore
from adapters.testkit.faults import Fault, FaultScripts
from adapters.testkit.serving import Answer
from schemas.money import AmountError, currency_of, to_major_text, to_minor

_THB = currency_of("THB")
_NAMES = ("Somchai J.", "Malee S.", "Anong P.", "Niran K.", "Ratana W.", "Prasert T.")
_BANKS = ("002", "004", "014", "025")


@dataclass(slots=True)
class Ipps:
    """The provider. Every method answers after its commit."""

    store: DurableStore
    faults: FaultScripts
    lookup_lives_s: float = 300.0
    settle_after_s: float = 1.5
    fee_minor: int = 0

    async def lookup(self, request: LookupRequest) -> Answer:
        """Answer who the payee is and what the transfer costs."""
        try:
            amount_minor = to_minor(request.amount, _THB)
        except AmountError as error:
            return refusal(422, "amount_invalid", str(error))
        payee = payee_of(request)
        if isinstance(payee, Answer):
            return payee
        if self.faults.due(payee, request.client_ref, frozenset({Fault.PAYEE_NOT_FOUND}), amount_minor):
            return refusal(404, "payee_not_found", "no account is registered under this payee")
        index = int.from_bytes(hashlib.sha256(payee.encode()).digest()[:2], "big")
        name = _NAMES[index % len(_NAMES)]
        if request.channel is Channel.BILL:
            biller = await self.store.run(lambda book: bills.biller_of(book, payee, amount_minor, time.time()))
            if isinstance(biller, Answer):
                return biller
            name = biller
        lookup_id = f"LU{secrets.token_hex(12)}"
        expires_at = time.time() + self.lookup_lives_s
        row = (lookup_id, request.proxy_type or request.channel, payee, amount_minor, name, self.fee_minor, expires_at)
        await self.store.run(lambda book: books.save_lookup(book, row))
        body: dict[str, object] = {
            "lookup_id": lookup_id,
            "status": TransferStatus.LOOKED_UP,
            "payee_name": name,
            "receiving_bank": _BANKS[index % len(_BANKS)],
            "fee": to_major_text(self.fee_minor, _THB),
            "expires_at": datetime.fromtimestamp(expires_at, UTC).isoformat(),
        }
        return Answer(200, body)

    async def transfer(self, request: TransferRequest, fault: Fault | None) -> Answer:
        """Pay once per reference: the same body again is answered with the original transfer."""
        body_hash = hashlib.sha256(f"{request.lookup_id}|{request.amount}".encode()).hexdigest()
        return await self.store.run(lambda book: self._transfer(book, request, body_hash, fault))

    def _transfer(
        self, book: sqlite3.Connection, request: TransferRequest, body_hash: str, fault: Fault | None
    ) -> Answer:
        known = books.find_transfer(book, request.client_ref)
        if known is not None:
            same = known["body_hash"] in (None, body_hash)  # a tombstone has no body
            return Answer(200, as_json(known)) if same else refusal(409, "duplicate_reference", "", known["status"])
        lookup, now = books.find_lookup(book, request.lookup_id), time.time()
        if lookup is None:
            return refusal(404, "lookup_not_found", "look the payee up first")
        if lookup["expires_at"] <= now:
            return refusal(410, "lookup_expired", "look the payee up again")
        if to_major_text(lookup["amount_minor"], _THB) != request.amount:
            return refusal(422, "amount_mismatch", "the amount differs from the one looked up")
        declined, slow = fault is Fault.DECLINED, fault is Fault.SLOW_SETTLE
        book.execute(
            "INSERT INTO transfers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                request.client_ref,
                body_hash,
                f"PX{secrets.token_hex(10)}",
                lookup["proxy"],
                lookup["amount_minor"],
                TransferStatus.FAILED if declined else TransferStatus.PROCESSING,
                "account_closed" if declined else "",
                now + self.settle_after_s if slow else None,
                now,
            ),
        )
        if not declined and not slow:
            books.execute(book, request.client_ref, now)
        made = books.find_transfer(book, request.client_ref)
        return Answer(200, as_json(made)) if made is not None else refusal(500, "lost", "")

    async def payee_of_lookup(self, lookup_id: str) -> str:
        """Return the proxy that a lookup was about, empty where it is unknown."""
        row = await self.store.run(lambda book: books.find_lookup(book, lookup_id))
        return str(row["proxy"]) if row is not None else ""

    async def whom_and_what(self, reference: str) -> tuple[str, int | None]:
        """Return a transfer's payee and satang, for scripts; nothing where it is unknown or was buried unseen."""
        row = await self.store.run(lambda book: books.find_transfer(book, reference))
        return ("", None) if row is None else (str(row["payee"]), int(row["amount_minor"]))

    async def inquire(self, reference: str) -> Answer:
        """Answer the authoritative status of a reference, also when no reply to it ever arrived."""
        row = await self.store.run(lambda book: books.find_transfer(book, reference))
        return refusal(404, "transfer_not_found", "") if row is None else Answer(200, as_json(row))

    async def cancel(self, reference: str) -> Answer:
        """Bury a reference; one that was executed is refused with its status."""
        row = await self.store.run(lambda book: books.bury(book, reference, time.time()))
        if row["status"] in (TransferStatus.CANCELED, TransferStatus.FAILED, TransferStatus.EXPIRED):
            return Answer(200, as_json(row))
        return Answer(409, {**as_json(row), "code": "not_cancelable"})

    async def force(self, reference: str, needed: TransferStatus, status: TransferStatus, reason: str = "") -> Answer:
        """Take a transfer from the status that it must have to another, with its money: for scripts."""

        def write(book: sqlite3.Connection) -> Answer:
            row = books.find_transfer(book, reference)
            if row is None:
                return refusal(404, "transfer_not_found", "")
            if row["status"] != needed:
                return refusal(409, "wrong_status", f"the transfer is {row['status']}", row["status"])
            if status is TransferStatus.SUCCEEDED:
                books.execute(book, reference, time.time())
            else:
                books.end(book, reference, status, reason)
            return Answer(200, as_json(books.find_transfer(book, reference) or row))

        return await self.store.run(write)

    async def settle(self) -> list[str]:
        """Execute what is due; return the references."""
        return await self.store.run(lambda book: books.settle_due(book, time.time()))


def payee_of(request: LookupRequest) -> str | Answer:
    """Return whom a lookup is about, as the book writes it, or the refusal of one that names nobody."""
    given = {
        Channel.PROXY: (request.proxy_type and request.proxy,),
        Channel.ACCOUNT: (request.bank_code, request.proxy),
        Channel.BILL: (request.biller, request.ref1),
    }[request.channel]
    if not all(given):
        return refusal(422, "field_invalid", f"channel {request.channel} lacks a field")
    parts = [*given, request.ref2] if request.channel is Channel.BILL and request.ref2 else given
    return ("-" if request.channel is Channel.ACCOUNT else ":").join(str(part) for part in parts)


def satang(amount: str) -> int | None:
    """Return the satang of an amount; None where it is none."""
    try:
        return to_minor(amount, _THB)
    except AmountError:
        return None


def as_json(row: sqlite3.Row) -> dict[str, object]:
    """Return a transfer as the contract shows it."""
    return {
        "client_ref": row["client_ref"],
        "psp_txid": row["psp_txid"],
        "status": row["status"],
        "reason": row["reason"],
        "amount": to_major_text(row["amount_minor"], _THB) if row["amount_minor"] else None,
    }
