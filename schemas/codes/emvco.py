"""Thai QR payments: PromptPay credit transfer (tag 29) and bill payment (tag 30). Pure.

Tolerant on read: any order of tags, a static code with an amount, amounts such as `0040`, lower-case checksums,
foreign templates. Strict on write: ascending tags, exact amounts, checked payees. Source: BOT Thai QR Payment standard
and EMVCo MPM, as documented by uunw/thai-qr-payment and SCB's developer pages.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from schemas.codes.proxies import ProxyType, mobile_local, proxy_wire, truemoney_mobile
from schemas.codes.tlv import QrError, check_crc, crc16, read_tlv, write_tlv
from schemas.money import AmountError, currency_of, to_major_text, to_minor

CREDIT_TRANSFER_AIDS: Final = ("A000000677010111", "A000000677010114")
BILL_PAYMENT_AIDS: Final = ("A000000677010112", "A000000677012006")

_PROXY_TAGS: Final = {kind.sub_tag: kind for kind in ProxyType}
_TEMPLATES: Final = frozenset(f"{tag:02d}" for tag in (*range(26, 52), 62, 64))
_AMOUNT: Final = re.compile(r"\d{1,13}(?:\.\d{0,2})?", re.ASCII)
_REFERENCE: Final = re.compile(r"[A-Z0-9]{1,20}", re.ASCII)
_THB: Final = currency_of("THB")
_MAX_AMOUNT_CHARACTERS: Final = 13


@dataclass(frozen=True, slots=True)
class Decoded:
    """A code that was read: `top` are its tags in the order of the payload, `templates` the nested ones."""

    top: dict[str, str]
    templates: dict[str, dict[str, str]]

    @property
    def amount_minor(self) -> int | None:
        """Return the amount in satang, None where the payer chooses. Raises QrError `qr_amount_malformed`."""
        text = self.top.get("54")
        if text is None:
            return None
        if _AMOUNT.fullmatch(text) is None:
            raise QrError("qr_amount_malformed", f"tag 54: {text!r} is not an amount")
        return int(Decimal(text) * 100)

    def fields(self) -> dict[str, Any]:
        """Return what the code says, field by field; absent ones are left out."""
        found: dict[str, Any] = {"tags": [*self.top, "63"]}
        poi = {"11": "static", "12": "dynamic"}.get(self.top.get("01", ""))
        if poi:
            found["poi"] = poi
        for name, tag in (
            ("amount_text", "54"),
            ("currency", "53"),
            ("country", "58"),
            ("merchant_name", "59"),
            ("city", "60"),
            ("mcc", "52"),
        ):
            if tag in self.top:
                found[name] = self.top[tag]
        found.update({f"tag{tag}": dict(nested) for tag, nested in self.templates.items()})
        return {**found, **self._transfer_fields(), **self._bill_fields()}

    def _transfer_fields(self) -> dict[str, str]:
        nested = self.templates.get("29", {})
        if nested.get("00") not in CREDIT_TRANSFER_AIDS:
            return {}  # another scheme may use tag 29: only the application id makes it PromptPay
        found = {"kind": "promptpay_credit_transfer"}
        kind, wire = next(((_PROXY_TAGS[tag], nested[tag]) for tag in nested if tag in _PROXY_TAGS), (None, ""))
        if kind is None:
            return found
        found |= {"recipient_type": kind.value, "recipient_wire": wire}
        if kind is ProxyType.MOBILE and (local := mobile_local(wire)):
            found["recipient_local"] = local
        if kind is ProxyType.EWALLET and (mobile := truemoney_mobile(wire)):
            found["truemoney_mobile"] = mobile
            if message := _truemoney_message(self.top.get("81", "")):
                found["truemoney_message"] = message
        if kind is ProxyType.BANK_ACCOUNT:
            found |= {"bank_code": wire[:3], "account_no": wire[3:]}
        return found

    def _bill_fields(self) -> dict[str, str]:
        nested = self.templates.get("30", {})
        if nested.get("00") not in BILL_PAYMENT_AIDS:
            return {}
        found = {"kind": "bill_payment"}
        names = (("biller_id", "01"), ("ref1", "02"), ("ref2", "03"))
        found.update({name: nested[tag] for name, tag in names if tag in nested})
        if terminal := self.templates.get("62", {}).get("07"):
            found["terminal_or_ref3"] = terminal
        return found


def decode(payload: str) -> Decoded:
    """Read a code whose checksum proves it whole.

    Raises QrError: `qr_too_long`, `qr_checksum_missing`, `qr_checksum_mismatch`, `qr_truncated`, `qr_malformed`,
    `qr_tag_repeated`, `qr_not_emvco`.
    """
    top = read_tlv(check_crc(payload, "63"), "code")
    if next(iter(top), None) != "00" or top["00"] != "01":
        raise QrError("qr_not_emvco", "the code does not begin with format 01: it is no EMVCo payment code")
    templates = {tag: read_tlv(value, f"tag {tag}") for tag, value in top.items() if tag in _TEMPLATES}
    return Decoded(top, templates)


def encode_credit_transfer(
    kind: ProxyType, payee: str, *, amount_minor: int | None = None, dynamic: bool | None = None
) -> str:
    """Return the tag 29 payload of a payee; `dynamic` defaults to whether there is an amount.

    Raises QrError with the payee's code, or `qr_amount_*`.
    """
    template = write_tlv((("00", CREDIT_TRANSFER_AIDS[0]), (kind.sub_tag, proxy_wire(kind, payee))))
    return _encode("29", template, amount_minor, dynamic)


def encode_bill_payment(
    biller_id: str,
    ref1: str,
    ref2: str | None = None,
    *,
    amount_minor: int | None = None,
    dynamic: bool | None = None,
) -> str:
    """Return the tag 30 payload of a bill.

    Raises QrError `biller_malformed`, `bill_reference_malformed`, `qr_amount_*`.
    """
    if re.fullmatch(r"\d{15}", biller_id, re.ASCII) is None:
        raise QrError(
            "biller_malformed", f"biller {biller_id[:20]!r} should have 15 digits: 13-digit id, 2-digit suffix"
        )
    for name, text in (("ref1", ref1), ("ref2", ref2)):
        if text is not None and _REFERENCE.fullmatch(text) is None:
            raise QrError("bill_reference_malformed", f"{name} {text[:24]!r} should be 1 to 20 of A-Z and 0-9")
    nested = [("00", BILL_PAYMENT_AIDS[0]), ("01", biller_id), ("02", ref1)]
    if ref2 is not None:
        nested.append(("03", ref2))
    return _encode("30", write_tlv(nested), amount_minor, dynamic)


def satang(text: str) -> int:
    """Return the satang of a decimal baht text. Raises QrError `qr_amount_malformed`; never rounds."""
    try:
        return to_minor(text, _THB)
    except AmountError as error:
        raise QrError("qr_amount_malformed", str(error)) from error


def _encode(tag: str, template: str, amount_minor: int | None, dynamic: bool | None) -> str:
    is_dynamic = amount_minor is not None if dynamic is None else dynamic
    fields = [("00", "01"), ("01", "12" if is_dynamic else "11"), (tag, template), ("53", str(_THB.numeric))]
    if amount_minor is not None:
        fields.append(("54", _amount_text(amount_minor)))
    body = write_tlv((*fields, ("58", "TH"))) + "6304"
    return body + crc16(body)


def _amount_text(amount_minor: int) -> str:
    if amount_minor <= 0:
        raise QrError("qr_amount_not_positive", "the amount must be at least 1 satang")
    text = to_major_text(amount_minor, _THB)
    if len(text) > _MAX_AMOUNT_CHARACTERS:
        raise QrError("qr_amount_too_large", f"amount {text} has more than {_MAX_AMOUNT_CHARACTERS} characters")
    return text


def _truemoney_message(hexadecimal: str) -> str | None:
    """Return the message that TrueMoney puts in tag 81 as UTF-16BE in hexadecimal digits."""
    try:
        return bytes.fromhex(hexadecimal).decode("utf-16-be") or None
    except ValueError:
        return None
