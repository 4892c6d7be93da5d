"""Who is paid: mobile number, national or tax id, e-wallet or bank account, as PromptPay writes them. Pure.

Strict on write, because common libraries silently mis-encode what is too short. Source: BOT Thai QR Payment standard,
sub-tags 29.01 to 29.04, as documented by public encoders (dtinth/promptpay-qr, uunw/thai-qr-payment).
"""

import re
from enum import StrEnum

from schemas.codes.tlv import QrError

_SEPARATORS = re.compile(r"[\s.()-]")
_MOBILE = re.compile(r"(?:\+?66|0)(\d{9})", re.ASCII)
_WIRE_MOBILE = re.compile(r"0066(\d{9})", re.ASCII)
_TRUEMONEY = re.compile(r"14000(0\d{9})", re.ASCII)


class ProxyType(StrEnum):
    """The kinds of payee; the value is the name used in `fields`."""

    MOBILE = "mobile"
    NATIONAL_ID = "national_or_tax_id"
    EWALLET = "ewallet"
    BANK_ACCOUNT = "bank_account"

    @property
    def sub_tag(self) -> str:
        """Return the sub-tag of tag 29 that carries it."""
        return {"mobile": "01", "national_or_tax_id": "02", "ewallet": "03", "bank_account": "04"}[self.value]


def mobile_wire(text: str) -> str:
    """Return the 13 characters of a Thai mobile number written as 0812345678 or +66 81 234 5678.

    Raises QrError `mobile_malformed`.
    """
    match = _MOBILE.fullmatch(_SEPARATORS.sub("", text))
    if match is None or match[1][0] not in "689":
        raise QrError("mobile_malformed", f"mobile {text[:20]!r} should have ten digits such as 0812345678")
    return f"66{match[1]}".rjust(13, "0")


def proxy_wire(kind: ProxyType, text: str) -> str:
    """Return the characters on the wire. Raises QrError with a code per kind."""
    if kind is ProxyType.MOBILE:
        return mobile_wire(text)
    digits = _SEPARATORS.sub("", text)
    if kind is ProxyType.NATIONAL_ID:
        return _digits(digits, 13, 13, "national_id_malformed", "national or tax id", "1101700230708")
    if kind is ProxyType.EWALLET:
        return _digits(digits, 15, 15, "ewallet_malformed", "e-wallet id", "004999000288505")
    return _digits(digits, 8, 43, "bank_account_malformed", "bank account", "0141234567890 (bank code, then account)")


def mobile_local(wire: str) -> str | None:
    """Return the national form of a mobile proxy, or None where it is not Thai."""
    match = _WIRE_MOBILE.fullmatch(wire)
    return f"0{match[1]}" if match else None


def truemoney_mobile(wire: str) -> str | None:
    """Return the mobile number in a TrueMoney e-wallet id (`14` and the number padded to 13), else None."""
    match = _TRUEMONEY.fullmatch(wire)
    return match[1] if match else None


def _digits(text: str, shortest: int, longest: int, code: str, name: str, example: str) -> str:
    if not (text.isascii() and text.isdigit() and shortest <= len(text) <= longest):
        wanted = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
        raise QrError(code, f"{name} {text[:20]!r} should have {wanted} digits, such as {example}")
    return text
