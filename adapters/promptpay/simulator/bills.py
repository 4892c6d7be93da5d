"""Billers of the simulated country: who they are, which references and amounts they take.

| biller | what happens at the lookup |
|---|---|
| 099999990000101 | there is no such biller |
| 099999990000102 | it wants a second reference |
| 099999990000103 | its first reference has ten digits; another is refused |
| 099999990000104 | it takes exactly 500 baht |
| 099999990000105 | the bill was paid before |
| 099999990000106 | the bill has expired |
| 099400015804189 | our own codes of `POST /v1/qr`: each is payable once, with its amount, until it expires |

Every other biller takes any reference and amount, with or without a second reference.
"""

import secrets
import sqlite3
from typing import Final

from adapters.promptpay.models import QrStatus
from adapters.promptpay.simulator.answers import refusal
from adapters.testkit.serving import Answer
from schemas.codes.tlv import write_tlv

OWN_BILLER: Final = "099400015804189"

_UNKNOWN: Final = "099999990000101"
_TWO_REFERENCES: Final = "099999990000102"
_TEN_DIGITS: Final = "099999990000103"
_EXACT: Final = "099999990000104"
_PAID: Final = "099999990000105"
_EXPIRED: Final = "099999990000106"
_EXACT_MINOR: Final = 50_000
_NAMES: Final = ("Metropolitan Light Co.", "Chao Phraya Water Co.", "Andaman Telecom", "Lanna Insurance")

_NOT_TAKEN: Final = {
    QrStatus.PAID: (409, "bill_already_paid"),
    QrStatus.RETURNED: (409, "bill_already_paid"),
    QrStatus.CANCELED: (410, "bill_expired"),
    QrStatus.EXPIRED: (410, "bill_expired"),
}


def biller_of(book: sqlite3.Connection, payee: str, amount_minor: int, now_s: float) -> str | Answer:
    """Return the biller's name, or why it does not take the bill. `payee` is biller, ref1 and perhaps ref2."""
    biller, ref1, *more = payee.split(":")
    if biller == _UNKNOWN:
        return refusal(404, "biller_not_found", "no biller has this id")
    if biller == _TWO_REFERENCES and not more:
        return refusal(422, "bill_reference_refused", "the biller wants Ref2")
    if biller == _TEN_DIGITS and not (ref1.isdigit() and len(ref1) == 10):
        return refusal(422, "bill_reference_refused", "the biller's Ref1 has ten digits")
    if biller == _EXACT and amount_minor != _EXACT_MINOR:
        return refusal(422, "bill_amount_refused", "the bill is about 500.00 baht")
    if biller == _PAID:
        return refusal(409, "bill_already_paid", "")
    if biller == _EXPIRED:
        return refusal(410, "bill_expired", "")
    refused = _own_code_refused(book, ref1, amount_minor, now_s) if biller == OWN_BILLER else None
    return refused or _NAMES[int(biller) % len(_NAMES)]


def pay_own_code(book: sqlite3.Connection, payee: str, amount_minor: int, now_s: float) -> None:
    """Book a bill that was paid by transfer as money in, where the biller is ours."""
    biller, _, references = payee.partition(":")
    code = _own_code(book, references.partition(":")[0]) if biller == OWN_BILLER else None
    if code is None:
        return
    book.execute(
        "UPDATE codes SET status = 'PAID' WHERE client_ref = ? AND status = 'ACTIVE' AND expires_at IS NOT NULL",
        (code["client_ref"],),
    )
    book.execute(
        "INSERT INTO received (client_ref, psp_txid, bank_ref, amount_minor, status, received_at)"
        " VALUES (?, ?, ?, ?, 'PAID', ?)",
        (code["client_ref"], f"QX{secrets.token_hex(10)}", f"BK{secrets.token_hex(8)}", amount_minor, now_s),
    )


def _own_code(book: sqlite3.Connection, ref1: str) -> sqlite3.Row | None:
    row: sqlite3.Row | None = book.execute(
        "SELECT * FROM codes WHERE instr(payload, ?) > 0", (write_tlv((("01", OWN_BILLER), ("02", ref1))),)
    ).fetchone()
    return row


def _own_code_refused(book: sqlite3.Connection, ref1: str, amount_minor: int, now_s: float) -> Answer | None:
    code = _own_code(book, ref1)
    if code is None:
        return refusal(422, "bill_reference_refused", "no code has this reference")
    status = QrStatus(code["status"])
    if status is QrStatus.ACTIVE and code["expires_at"] is not None and code["expires_at"] <= now_s:
        status = QrStatus.EXPIRED
    if status in _NOT_TAKEN:
        return refusal(*_NOT_TAKEN[status], "")
    if code["amount_minor"] != amount_minor:
        return refusal(422, "bill_amount_refused", "the code asks for another amount")
    return None
