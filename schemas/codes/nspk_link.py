"""QR links of SBP, as the acquirer issues them. They are read and verified here, never minted. Pure.

Forms: `https://qr.nspk.ru/{id}?type=&bank=&sum=&cur=RUB&crc=`, and newer, the id alone. The checksum is
CRC-16/CCITT-FALSE over the exact bytes before `&crc=`; `sum` is kopecks. Subscriptions have a host of their own.
"""

import binascii
import re
from dataclasses import dataclass
from typing import Any, Final

from schemas.money import MAX_AMOUNT_MINOR

MAX_LINK_CHARACTERS: Final = 512

_PAYMENTS, _SUBSCRIPTIONS = "qr.nspk.ru", "sub.nspk.ru"
_LINK: Final = re.compile(r"https://(?P<host>[a-z.]+)/(?P<id>[A-Za-z0-9]{1,32})(?P<query>\?.*)?", re.ASCII)
_CRC: Final = re.compile(r"[0-9A-Fa-f]{4}", re.ASCII)
_BANK: Final = re.compile(r"[0-9]{12}", re.ASCII)
_SUM: Final = re.compile(r"[0-9]{1,15}", re.ASCII)
_HOST_OF_TYPE: Final = {"01": _PAYMENTS, "02": _PAYMENTS, "03": _SUBSCRIPTIONS}


class LinkError(ValueError):
    """A text that is no genuine link; `code` is stable, the text names the remedy."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class NspkLink:
    """What a verified link says. Everything but host and id is None in the short form."""

    host: str
    qrc_id: str
    type: str | None = None
    """`01` static, `02` dynamic, `03` subscription."""
    bank_member_id: str | None = None
    amount_minor: int | None = None
    """Kopecks; None where the payer chooses. A static link may carry a sum too."""
    currency: str | None = None
    crc: str | None = None

    def fields(self) -> dict[str, Any]:
        """Return what the link says, by the names of the published vectors."""
        told: dict[str, Any] = {
            "host": self.host,
            "qrc_id": self.qrc_id,
            "id_prefix": self.qrc_id[:2],
            "type": self.type,
            "bank_member_id": self.bank_member_id,
            "crc": self.crc,
        }
        if self.amount_minor is not None:
            told |= {"sum_kopecks": self.amount_minor, "currency": self.currency}
        return told


def verify_link(url: str) -> NspkLink:
    """Return what a link says, proven where it carries a checksum.

    Raises LinkError `link_malformed`, `link_checksum_missing`, `link_checksum_mismatch`.
    """
    if len(url) > MAX_LINK_CHARACTERS:
        raise LinkError("link_malformed", f"the link has {len(url)} characters; at most {MAX_LINK_CHARACTERS}")
    match = _LINK.fullmatch(url)
    if match is None or match["host"] not in (_PAYMENTS, _SUBSCRIPTIONS):
        raise LinkError(
            "link_malformed", f"an SBP link begins with https://{_PAYMENTS}/ and an id of 1 to 32 characters"
        )
    if match["query"] is None:
        return NspkLink(match["host"], match["id"])
    crc = _proven_checksum(url)
    values = _parameters(match["query"][1:])
    _check_type(values, match["host"])
    bank = values.get("bank")
    if bank is not None and not _BANK.fullmatch(bank):
        raise LinkError("link_malformed", "bank is a member id of 12 digits")
    return NspkLink(match["host"], match["id"], values.get("type"), bank, *_amount(values), crc)


def _proven_checksum(url: str) -> str:
    body, separator, given = url.rpartition("&crc=")
    if not separator or "&crc=" in body:
        raise LinkError("link_checksum_missing", "a link with parameters ends in one &crc= and four hexadecimal digits")
    if not _CRC.fullmatch(given):
        raise LinkError("link_malformed", "crc is four hexadecimal digits at the link's end")
    found = f"{binascii.crc_hqx(body.encode(), 0xFFFF):04X}"
    if found != given.upper():
        raise LinkError("link_checksum_mismatch", f"the checksum is {found}, the link says {given}: scan it again")
    return given


def _parameters(query: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for part in query.split("&"):
        name, equals, value = part.partition("=")
        if not (name and equals and value) or name in values:
            raise LinkError("link_malformed", f"parameter {part[:24]!r} is empty or stands twice")
        values[name] = value
    return values


def _check_type(values: dict[str, str], host: str) -> None:
    kind = values.get("type")
    if kind is None or _HOST_OF_TYPE.get(kind) != host:
        known = ", ".join(f"{each} on {where}" for each, where in _HOST_OF_TYPE.items())
        raise LinkError("link_malformed", f"type {kind!r} on {host} is none of {known}")


def _amount(values: dict[str, str]) -> tuple[int | None, str | None]:
    text, currency = values.get("sum"), values.get("cur")
    if text is None:
        return None, currency
    if not _SUM.fullmatch(text) or not 0 < int(text) <= MAX_AMOUNT_MINOR:
        raise LinkError("link_malformed", "sum is a positive number of kopecks")
    if currency != "RUB":
        raise LinkError("link_malformed", "a sum stands beside cur=RUB")
    return int(text), currency
