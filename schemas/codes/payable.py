"""Who is to be paid, read out of a scanned code: the one place where a code becomes a payee. Pure.

Taken are PromptPay credit transfers (tag 29) and bill payments (tag 30). What else people scan is recognised and told
by its name, because it asks for no payment here: a bank's slip, a bill's barcode, a link of SBP.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from schemas.codes.barcode import decode_barcode
from schemas.codes.emvco import Decoded, decode
from schemas.codes.nspk_link import LinkError, verify_link
from schemas.codes.slip import decode_slip
from schemas.codes.tlv import QrError
from schemas.money import currency_of

MAX_CODE_CHARACTERS: Final = 512
"""No payment code is longer: EMVCo's QR holds 512."""

# What a code carries is shown to its payer and then paid: nothing in it may read as something else on the way.
_BILLER: Final = re.compile(r"\d{13}(?:\d{2})?", re.ASCII)
_REFERENCE: Final = re.compile(r"[A-Z0-9]{1,20}", re.ASCII)
_DIGITS: Final = {
    "national_or_tax_id": re.compile(r"\d{13}", re.ASCII),
    "ewallet": re.compile(r"\d{15}", re.ASCII),
    "bank_account": re.compile(r"\d{8,43}", re.ASCII),
}

_BAHT: Final = str(currency_of("THB").numeric)
_SLIP_CHECKSUM: Final = "9104"
_PAYEE_TYPES: Final = {
    "mobile": "mobile",
    "national_or_tax_id": "national_id",
    "ewallet": "ewallet",
    "bank_account": "bank_account",
}


class CodeKind(StrEnum):
    """What people scan."""

    CREDIT_TRANSFER = "promptpay_credit_transfer"
    BILL_PAYMENT = "bill_payment"
    OTHER_EMVCO = "other_emvco"
    SLIP = "bank_slip"
    BARCODE = "bill_barcode"
    SBP_LINK = "sbp_link"


_WHAT_ELSE: Final = {
    CodeKind.OTHER_EMVCO: "it is no PromptPay code: neither tag 29 nor tag 30 names a payee of PromptPay",
    CodeKind.SLIP: "it is the slip of a transfer that was made, and asks for none",
    CodeKind.BARCODE: "it is a bill's barcode: send its parts as a payee of type bill",
    CodeKind.SBP_LINK: "it is a link of SBP, which its payer opens in the application of a bank",
}


@dataclass(frozen=True, slots=True)
class Payable:
    """A payee as a rail names it, and what the code asks for."""

    kind: CodeKind
    payee_type: str
    payee_value: str
    currency: str
    amount_minor: int | None
    """None where the payer chooses."""
    one_time: bool
    """Whether the code says that it is for one payment."""
    merchant_name: str | None = None
    biller_id: str | None = None
    ref1: str | None = None
    ref2: str | None = None


def recognise(text: str) -> tuple[CodeKind, dict[str, Any]]:
    """Return what a scanned text is, and its fields.

    Raises QrError `qr_*`, `slip_malformed`, `barcode_malformed`; LinkError `link_*`.
    """
    if text.startswith("|"):
        return CodeKind.BARCODE, decode_barcode(text).fields()
    if text.lower().startswith("https://"):
        return CodeKind.SBP_LINK, verify_link(text).fields()
    # A payment code begins with its format, tag 00 of length 02; a slip's tag 00 is a longer template.
    if text[-8:-4] == _SLIP_CHECKSUM and not text.startswith("0002"):
        return CodeKind.SLIP, decode_slip(text).fields()
    fields = decode(text).fields()
    return CodeKind(fields.get("kind", CodeKind.OTHER_EMVCO)), fields


def read_payable(text: str) -> Payable:
    """Return whom a code asks to pay.

    Raises QrError: `qr_not_payable`, whose text quotes nothing of the code; else the code of what is wrong with it.
    """
    try:
        kind, fields = recognise(text)
    except LinkError as error:
        raise QrError(error.code, str(error)) from error
    if kind in _WHAT_ELSE:
        raise QrError("qr_not_payable", _WHAT_ELSE[kind])
    if fields.get("currency", _BAHT) != _BAHT:
        raise QrError("qr_not_payable", "it asks for another currency than baht")
    payee_type, value = _bill(fields) if kind is CodeKind.BILL_PAYMENT else _receiver(fields)
    return Payable(
        kind=kind,
        payee_type=payee_type,
        payee_value=value,
        currency="THB",
        amount_minor=_amount_minor(decode(text)),
        one_time=fields.get("poi") == "dynamic",
        merchant_name=fields.get("merchant_name"),
        biller_id=fields.get("biller_id"),
        ref1=fields.get("ref1"),
        ref2=fields.get("ref2"),
    )


def bill_payee(biller_id: str, ref1: str, ref2: str | None = None) -> str:
    """Return the value of a payee of type `bill`."""
    return ":".join((biller_id, ref1) if ref2 is None else (biller_id, ref1, ref2))


def _bill(fields: dict[str, Any]) -> tuple[str, str]:
    if not {"biller_id", "ref1"} <= fields.keys():
        raise QrError("qr_not_payable", "its tag 30 lacks the biller or the first reference")
    if _BILLER.fullmatch(fields["biller_id"]) is None:
        raise QrError("qr_not_payable", "its biller is not 13 or 15 digits")
    if any(name in fields and _REFERENCE.fullmatch(fields[name]) is None for name in ("ref1", "ref2")):
        raise QrError("qr_not_payable", "a reference of its bill is not 1 to 20 of A-Z and 0-9")
    return "bill", bill_payee(fields["biller_id"], fields["ref1"], fields.get("ref2"))


def _receiver(fields: dict[str, Any]) -> tuple[str, str]:
    kind = fields.get("recipient_type")
    if kind is None:
        raise QrError("qr_not_payable", "its tag 29 names no receiver: a one-time authorisation is the payer's to show")
    if kind == "mobile":
        if "recipient_local" not in fields:
            raise QrError("qr_not_payable", "its mobile number is not Thai")
        return "mobile", fields["recipient_local"]
    if _DIGITS[kind].fullmatch(fields["recipient_wire"]) is None:
        raise QrError("qr_not_payable", "its receiver's number has not the digits that PromptPay gives")
    if kind == "bank_account":
        return "bank_account", f"{fields['bank_code']}-{fields['account_no']}"
    return _PAYEE_TYPES[kind], fields["recipient_wire"]


def _amount_minor(decoded: Decoded) -> int | None:
    amount_minor = decoded.amount_minor
    if amount_minor == 0:
        raise QrError("qr_not_payable", "it asks for an amount of nothing")
    return amount_minor
